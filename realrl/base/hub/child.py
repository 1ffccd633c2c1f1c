"""Finds a repository's commit and downloads some of its files, in a process that its parent can end.

    python -m realrl.base.hub.child REQUEST       a `Request` as JSON

Its output is a line with the number of bytes in the cache, again and again, and a `Reply` as JSON at the end.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import warnings
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from realrl.base.hub.errors import explain, is_unreachable
from realrl.base.hub.repo import Repo
from realrl.base.parent import PARENT_VARIABLE, die_with_parent

PULSE_S = 0.5

_one_line_at_a_time = threading.Lock()


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Files of a repository that are wanted."""

    repo: Repo
    commit: str | None = None
    """Left out, that of the repository's revision, which is looked up."""
    patterns: tuple[str, ...] = ()
    """Of names, as `fnmatch` reads them."""
    only_plan: bool = False
    """Say what there is, and download nothing."""
    check_access: bool = False
    """Ask whether the other files of a gated repository would be given, too."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """Where the files are, or why not."""

    commit: str = ""
    directory: str = ""
    """The commit's folder in the cache; empty where nothing of it is there."""
    sizes: dict[str, int] = {}
    """Bytes of each file that matches; those in the cache alone where the Hub is out of reach."""
    missing_bytes: int = 0
    """What was not in the cache, or with `only_plan` is not."""
    error: str = ""
    notes: tuple[str, ...] = ()


class NoRoom(Exception):
    """The disk is too small for what is to be downloaded."""


def answer(request: Request) -> Reply:
    """Do what `request` asks; whatever fails is in the reply's `error`."""
    try:
        return _fetch(request)
    except NoRoom as error:
        return Reply(error=str(error))
    except Exception as error:  # of many kinds: the network's, the Hub's, the disk's
        revision = request.commit or request.repo.revision
        repo = Repo(request.repo.kind, request.repo.name, revision)
        return Reply(error=explain(error, repo) or _unknown(error))


def _fetch(request: Request) -> Reply:
    commit, notes, revision = request.commit, (), request.commit
    if commit is None:
        commit = _commit_on_hub(request)
        # By its name, so that the cache keeps which commit it is.
        revision = request.repo.revision
    if commit is None:
        commit = revision = _commit_in_cache(request)
        notes = _outage(commit)
    if request.check_access:
        _check_access(request.repo)
    try:
        plan = _plan(request, commit)
    except Exception as error:
        if not is_unreachable(error.__cause__ or error):
            raise
        directory = _cached(request, commit, error)
        sizes = dict(_sizes(directory, request.patterns))
        return Reply(commit=commit, directory=directory, sizes=sizes, notes=notes)
    missing = [file for file in plan if file.will_download]
    missing_bytes = sum(file.file_size or 0 for file in missing)
    reply = Reply(
        commit=commit,
        sizes={file.filename: file.file_size or 0 for file in plan},
        missing_bytes=missing_bytes,
        notes=notes,
    )
    if request.only_plan:
        return reply
    if missing:
        _announce(request.repo, commit, len(missing), missing_bytes)
        _show_progress()
    directory = _snapshot(request, revision)
    return structs.replace(reply, directory=directory, commit=Path(directory).name)


def _outage(commit: str) -> tuple[str, ...]:
    """A note, unless it is as the user wants it."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return ()
    return (f"the Hugging Face Hub is out of reach: taking commit {commit[:12]} from the cache",)


def _commit_on_hub(request: Request) -> str | None:
    """The commit that the repository's revision is now; None where the cache has to say so."""
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
    return info.sha


def _commit_in_cache(request: Request) -> str | None:
    """The commit that the repository's revision was when it was last downloaded."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(_snapshot(request, request.repo.revision, local_files_only=True)).name
    except LocalEntryNotFoundError as error:
        # A snapshot that lacks some files still says which commit it is of.
        partial = getattr(error, "snapshot_path", None)
        return Path(partial).name if partial else None


def _plan(request: Request, commit: str) -> list[Any]:
    """What there is, and what of it is to be downloaded."""
    from huggingface_hub import snapshot_download

    return snapshot_download(
        request.repo.name,
        repo_type=request.repo.kind,
        revision=commit,
        allow_patterns=list(request.patterns),
        dry_run=True,
    )


def _cached(request: Request, commit: str, unreachable: Exception) -> str:
    """The commit's folder in the cache, where the Hub is out of reach."""
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
    from huggingface_hub import HfApi, constants

    if not constants.HF_HUB_OFFLINE:
        try:
            HfApi().auth_check(repo.name, repo_type=repo.kind)
        except Exception as error:
            if not is_unreachable(error):
                raise


def _announce(repo: Repo, commit: str, num_files: int, num_bytes: int) -> None:
    """Say what begins.

    Raises:
        NoRoom: the disk is too small.
    """
    from huggingface_hub import constants

    cache, amount = Path(constants.HF_HUB_CACHE), f"{num_bytes / 1e6:,.1f} MB"
    on_disk = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    free = shutil.disk_usage(on_disk).free
    if free < num_bytes:
        raise NoRoom(
            f"its files need {amount} more, and the disk of the cache {cache} has {free / 1e6:,.1f} MB free;"
            " make room, or set HF_HUB_CACHE to another one"
        )
    sys.stderr.write(f"downloading {repo} ({commit[:12]}): {num_files} files, {amount}, to {cache}\n")
    sys.stderr.flush()


def _show_progress() -> None:
    """On a terminal alone; elsewhere a line says what begins."""
    from huggingface_hub.utils import enable_progress_bars

    if sys.stderr.isatty():
        enable_progress_bars()


def _beat(repo: Repo) -> None:
    """Say how much is in the cache, so that the parent sees whether anything arrives."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE, f"{repo.kind}s--{repo.name.replace('/', '--')}", "blobs")
    while True:
        _say(str(_allocated_bytes(folder)))
        threading.Event().wait(PULSE_S)


def _allocated_bytes(folder: Path) -> int:
    """On the disk, as a file may have its full size before its bytes arrive."""
    total = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                total += entry.stat().st_blocks
    except OSError:  # not made yet, or a file took its name meanwhile
        pass
    return total


def _unknown(error: BaseException) -> str:
    said = " ".join(str(error).split())[:300]
    return f"the client of the Hugging Face Hub failed ({type(error).__name__}: {said})"


def _say(line: str) -> None:
    try:
        with _one_line_at_a_time:
            os.write(1, f"{line}\n".encode())
    except BrokenPipeError:  # the parent has given up
        os._exit(1)


def main() -> int:
    die_with_parent(int(os.environ[PARENT_VARIABLE]))
    request = msgspec.json.decode(sys.argv[1], type=Request)
    threading.Thread(target=_beat, args=(request.repo,), daemon=True).start()
    from huggingface_hub.utils import disable_progress_bars, logging

    disable_progress_bars()
    # What fails is said once, by the parent.
    logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    try:
        reply = answer(request)
    except KeyboardInterrupt:
        return 130
    _say(msgspec.json.encode(reply).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
