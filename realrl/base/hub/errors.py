"""Says in a sentence what went wrong between us and the Hugging Face Hub, and what to do."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from realrl.base.hub.repo import DEFAULT_REVISION, Repo

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

_TOKENS = "/settings/tokens"
_BUSY = (408, 429)
"""HTTP status codes of a busy Hub."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EIO)


def explain(error: BaseException, repo: Repo) -> str | None:
    """Return a sentence about `error`, which huggingface_hub or a library on top of it raised.

    None if neither the Hub, nor the network, nor the disk has failed.
    """
    chain = list(_chain(error))
    for found in chain:
        if sentence := _answered(found, repo):
            return sentence

    for found in chain:
        if sentence := _unanswered(found, repo) or _refused_by_the_system(found):
            return sentence
    return None


def is_unreachable(error: BaseException) -> bool:
    """Return whether the Hub gave no answer, so that only the cache can help."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return status >= 500 or status in _BUSY
    return bool(_kinds(error) & {"TransportError", "OfflineModeIsEnabled", "ConnectionError", "TimeoutError"})


def _answered(error: BaseException, repo: Repo) -> str | None:
    """Return a sentence about an answer of the Hub."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return _gated(error, repo)
    if isinstance(error, errors.DisabledRepoError):
        return f"its owner, or the Hub, has disabled it; take another {repo.kind}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return _missing(repo)
    if isinstance(error, errors.RevisionNotFoundError):
        return _no_revision(repo)
    if isinstance(error, errors.HFValidationError):
        return "it is no name that the Hugging Face Hub allows; expected OWNER/NAME"
    if isinstance(error, errors.HfHubHTTPError):
        return _by_status(error)
    return None


def _gated(error: BaseException, repo: Repo) -> str:
    ask = f"ask for access at {_endpoint()}/{_page(repo)}"
    if _has_token():
        return (
            f"it is gated, and the account of your token has no access to it; {ask}, or set HF_TOKEN to a"
            " token of an account that has"
        )
    return f"it is gated; {ask}, then set HF_TOKEN to a token of yours ({_endpoint()}{_TOKENS})"


def _missing(repo: Repo) -> str:
    if _has_token():
        return (
            f"{_endpoint()} has no {repo.kind} of that name, or a private one that the account of your token"
            " may not see; check its spelling"
        )
    return (
        f"{_endpoint()} has no {repo.kind} of that name, or a private one; check its spelling, or set"
        f" HF_TOKEN to a token of an account that may see it ({_endpoint()}{_TOKENS})"
    )


def _no_revision(repo: Repo) -> str:
    revision = repo.revision or DEFAULT_REVISION
    if _COMMIT.fullmatch(revision):
        return f"{_endpoint()} has that {repo.kind}, but no commit {revision} of it; leave the commit out"
    return (
        f"{_endpoint()} has that {repo.kind}, but no revision {revision!r} of it; name a branch, a tag or a"
        " commit of it after the @"
    )


def _by_status(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    if status == 401:
        return f"{_endpoint()} does not accept your token; set HF_TOKEN to a valid one, or unset it"
    if status == 403:
        return f"{_endpoint()} refuses it to the account of your token ({_said(error)}); give it that right"
    if status == 404:
        return f"{_endpoint()} does not have all of its files ({_said(error)}); start again, or name a commit"
    if status == 429:
        return (
            f"{_endpoint()} answers that there were too many requests; wait some minutes, or set HF_TOKEN, as"
            " more are allowed to those who are known"
        )
    return f"{_endpoint()} failed with HTTP status {status}; start again later: what is downloaded is kept"


def _unanswered(error: BaseException, repo: Repo) -> str | None:
    kinds = _kinds(error)
    if "OfflineModeIsEnabled" in kinds:
        return (
            f"HF_HUB_OFFLINE is set, and the cache {_cache()} does not have all of it; unset HF_HUB_OFFLINE,"
            " or start once where there is a network"
        )

    if "ProxyError" in kinds:
        return f"the proxy before {_endpoint()} failed ({_line(error)}); check HTTPS_PROXY and NO_PROXY"
    if kinds & {"TimeoutException", "TimeoutError"}:
        return (
            f"{_endpoint()} did not answer in time (HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT set how"
            " many seconds it may take); start again: files that have arrived are kept"
        )

    if kinds & {"TransportError", "ConnectionError"}:
        return (
            f"the connection to {_endpoint()} failed ({_line(error)}); check the network and start again:"
            " files that have arrived are kept"
        )
    return None


def _refused_by_the_system(error: BaseException) -> str | None:
    if not isinstance(error, OSError):
        return None
    if error.errno in _FULL:
        return f"the disk of the cache {_cache()} is full; make room, or set HF_HUB_CACHE to another one"
    if error.errno in _CLOSED:
        where = error.filename or _cache()
        return f"the cache cannot be written ({where}: {error.strerror}); set HF_HUB_CACHE to another folder"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _kinds(error: BaseException) -> set[str]:
    """Return the names of an error's classes, which all HTTP clients of huggingface_hub share."""
    return {cls.__name__ for cls in type(error).__mro__}


def _has_token() -> bool:
    from huggingface_hub import get_token

    return bool(get_token())


def _said(error: HfHubHTTPError) -> str:
    said = error.server_message or f"HTTP status {error.response.status_code}"
    return " ".join(said.split())[:200]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _page(repo: Repo) -> str:
    return f"datasets/{repo.name}" if repo.kind == "dataset" else repo.name


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)
