"""The request of a parent to the child that talks to the Hub, and the reply."""

from __future__ import annotations

import msgspec

from realrl.base.hub.repo import Repo


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request for files of a repository."""

    repo: Repo
    commit: str | None = None
    """None: the commit of the repository's revision, which is looked up."""
    patterns: tuple[str, ...] = ()
    """Patterns of names, as `fnmatch` reads them."""
    only_plan: bool = False
    """List the files, and download nothing."""
    check_access: bool = False
    """If the commit is looked up, check the access to the other files of a gated repository."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The place of the files, or an error."""

    commit: str = ""
    directory: str = ""
    """The commit's folder in the cache; empty if there is none."""
    sizes: dict[str, int] = {}
    """Bytes of each matching file; of those in the cache only, if the Hub is out of reach."""
    missing_bytes: int = 0
    """Bytes that were not in the cache or, with `only_plan`, are not."""
    error: str = ""
    notes: tuple[str, ...] = ()
