"""The name of a repository of the Hugging Face Hub, as people write it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["model", "dataset"]

_WORD = r"[A-Za-z0-9][\w.-]*"
# Revisions become names of files in the cache, and git has none with two dots in a row.
_WRITTEN = re.compile(rf"(?P<name>{_WORD}(?:/{_WORD})?)(?:@(?P<revision>(?!.*\.\.)[^\s@:]+))?", re.ASCII)
DEFAULT_REVISION = "main"


@dataclass(frozen=True)
class Repo:
    """A repository at a revision: a branch, a tag, `refs/pr/N` or a commit; None for the main branch."""

    kind: Kind
    name: str
    """`OWNER/NAME`; old datasets have a NAME alone."""
    revision: str | None = None

    def __str__(self) -> str:
        if not self.revision:
            return self.name
        return f"{self.name}@{self.revision}"


def parse_repo(kind: Kind, written: str) -> Repo | None:
    """Read `OWNER/NAME[@REVISION]`; a dataset's owner may be missing. Returns None for any other form."""
    found = _WRITTEN.fullmatch(written)
    if found is None:
        return None
    if kind == "model" and "/" not in found["name"]:
        return None
    return Repo(kind, found["name"], found["revision"])
