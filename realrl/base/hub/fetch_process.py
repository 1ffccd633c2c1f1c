"""Finds a repository's commit and downloads some of its files, in a process that its parent can end.

    python -m realrl.base.hub.fetch_process REQUEST       a `Request` as JSON

Its output is, twice a second, a line with how many bytes have arrived, and at the end a `Reply` as JSON.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from realrl.base.hub.errors import explain, is_unreachable
from realrl.base.hub.pulse import beat, say
from realrl.base.hub.repo import Repo
from realrl.base.hub.request import Reply, Request
from realrl.base.parent import PARENT_VARIABLE, die_with_parent

_QUICK_BYTES = 5_000_000
_BARS = 3
"""Lines of the client's bars, below which the terminal continues."""
_NO_ACCESS = (401, 403)
"""HTTP status codes."""


class NoRoom(Exception):
    """The disk is too small for the download."""


def answer(request: Request) -> Reply:
    """Answer a request; an error of any kind is in the reply's `error`."""
    try:
        return _fetch(request)
    except NoRoom as error:
        return Reply(error=str(error))
    except Exception as error:
        # Errors of the network, the Hub and the disk are of many kinds.
        revision = request.commit or request.repo.revision
        repo = Repo(request.repo.kind, request.repo.name, revision)
        message = explain(error, repo) or _unknown(error)
        return Reply(error=message)


def _fetch(request: Request) -> Reply:
    """Find the commit, in the cache if necessary, then its files."""
    if request.commit is not None:
        return _files(request, request.commit, request.commit)
    commit = _commit_on_hub(request)
    if commit is not None:
        # By the revision's name, so that the cache records its commit.
        return _files(request, commit, request.repo.revision)

    cached = _commit_in_cache(request)
    assert cached is not None, "the Hub is needed unless the cache has a commit"
    reply = _files(request, cached, cached)
    return structs.replace(reply, notes=_outage(cached))


def _files(request: Request, commit: str, revision: str | None) -> Reply:
    """Return the list of a commit's files and, if requested, the files; `revision` names the commit, too."""
    try:
        plan = _plan(request, commit)
    except Exception as error:
        if not is_unreachable(error.__cause__ or error):
            raise
        directory = _cached(request, commit, error)
        cached_sizes = dict(_sizes(directory, request.patterns))
        return Reply(commit=commit, directory=directory, sizes=cached_sizes)

    sizes: dict[str, int] = {}
    num_missing = 0
    missing_bytes = 0
    for file in plan:
        num_bytes = file.file_size or 0
        sizes[file.filename] = num_bytes
        if file.will_download:
            num_missing += 1
            missing_bytes += num_bytes

    if request.only_plan:
        return Reply(commit=commit, sizes=sizes, missing_bytes=missing_bytes)
    if num_missing:
        _announce(request.repo, commit, num_missing, missing_bytes)
    with _progress(missing_bytes):
        directory = _snapshot(request, revision)
    return Reply(
        commit=Path(directory).name,
        directory=directory,
        sizes=sizes,
        missing_bytes=missing_bytes,
    )


def _outage(commit: str) -> tuple[str, ...]:
    """Return a note that the Hub is out of reach, unless the user has asked for that."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return ()
    return (f"the Hugging Face Hub is out of reach: taking commit {commit[:12]} from the cache",)


def _commit_on_hub(request: Request) -> str | None:
    """Return the current commit of the repository's revision; None if only the cache can tell."""
    from huggingface_hub import HfApi, constants

    repo = request.repo
    try:
        info = HfApi().repo_info(
            repo.name,
            repo_type=repo.kind,
            revision=repo.revision,
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
        )
    except Exception as error:
        if not is_unreachable(error) or _commit_in_cache(request) is None:
            raise
        return None

    if request.check_access and info.gated:
        _check_access(repo)
    return info.sha


def _commit_in_cache(request: Request) -> str | None:
    """Return the commit of the repository's revision when it was last downloaded."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(_snapshot(request, request.repo.revision, local_files_only=True)).name
    except LocalEntryNotFoundError as error:
        # A snapshot that lacks some files still says which commit it is of.
        partial = getattr(error, "snapshot_path", None)
        return Path(partial).name if partial else None


def _plan(request: Request, commit: str) -> list[Any]:
    """Return the files that exist, and which of them must be downloaded."""
    from huggingface_hub import snapshot_download

    return snapshot_download(
        request.repo.name,
        repo_type=request.repo.kind,
        revision=commit,
        allow_patterns=list(request.patterns),
        dry_run=True,
    )


def _cached(request: Request, commit: str, unreachable: Exception) -> str:
    """Return the commit's folder in the cache, if the Hub is out of reach."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _snapshot(request, commit, local_files_only=True)
    except LocalEntryNotFoundError:
        raise unreachable from unreachable.__cause__


def _snapshot(request: Request, revision: str | None, *, local_files_only: bool = False) -> str:
    from huggingface_hub import snapshot_download

    return snapshot_download(
        request.repo.name,
        repo_type=request.repo.kind,
        revision=revision,
        allow_patterns=list(request.patterns) or None,
        local_files_only=local_files_only,
    )


def _sizes(directory: str, patterns: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    for file in Path(directory).iterdir():
        if any(fnmatchcase(file.name, pattern) for pattern in patterns):
            yield file.name, file.stat().st_size


def _check_access(repo: Repo) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    try:
        HfApi().auth_check(repo.name, repo_type=repo.kind)
    except HfHubHTTPError as error:
        if error.response.status_code in _NO_ACCESS:
            raise GatedRepoError(str(error), response=error.response) from error
        raise


def _announce(repo: Repo, commit: str, num_files: int, num_bytes: int) -> None:
    """Write a line about the download.

    Raises:
        NoRoom: the disk is too small.
    """
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    amount = f"{num_bytes / 1e6:,.1f} MB"
    on_disk = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    free = shutil.disk_usage(on_disk).free
    if free < num_bytes:
        raise NoRoom(
            f"its files need {amount} more, and the disk of the cache {cache} has {free / 1e6:,.1f} MB free;"
            " make room, or set HF_HUB_CACHE to another one"
        )

    sys.stderr.write(f"downloading {repo} ({commit[:12]}): {num_files} files, {amount}, to {cache}\n")
    sys.stderr.flush()


@contextmanager
def _progress(num_bytes: int) -> Iterator[None]:
    """Show the client's bars within the context, for long downloads and on a terminal only."""
    from huggingface_hub.utils import enable_progress_bars

    if num_bytes < _QUICK_BYTES or not sys.stderr.isatty():
        yield
        return

    enable_progress_bars()
    try:
        yield
    finally:
        sys.stderr.write("\n" * _BARS)


def _unknown(error: BaseException) -> str:
    said = " ".join(str(error).split())[:300]
    return f"the client of the Hugging Face Hub failed ({type(error).__name__}: {said})"


def main() -> int:
    """Answer the request that the command line gives, and return the exit code."""
    die_with_parent(int(os.environ[PARENT_VARIABLE]))
    request = msgspec.json.decode(sys.argv[1], type=Request)
    threading.Thread(target=beat, args=(request.repo,), daemon=True).start()
    from huggingface_hub.utils import disable_progress_bars, logging

    disable_progress_bars()
    # The parent reports errors, once.
    logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    try:
        reply = answer(request)
    except KeyboardInterrupt:
        return 130

    say(msgspec.json.encode(reply).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
