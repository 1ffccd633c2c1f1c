"""What a parent asks of the child that talks to the Hub, and what it is answered."""

from __future__ import annotations

import msgspec

from realrl.base.hub.repo import Repo


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
    """Where the commit is looked up, ask whether the other files of a gated repository would be given."""


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
