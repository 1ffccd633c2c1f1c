"""Fetches files of the Hugging Face Hub through its own client, in a child process that has a deadline.

parent                             child (`realrl.base.hub.fetch_process`; its stderr is ours)
  Request ──────────────────────▶  revision → commit → list of files → download into the Hub's cache
  ◀────────── bytes in the cache   twice a second
  ◀──────────────────────── Reply
"""

from __future__ import annotations

import logging
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import IO

import msgspec

from realrl.base.hub.repo import Repo
from realrl.base.hub.request import Reply, Request
from realrl.base.parent import PARENT_VARIABLE

logger = logging.getLogger(__name__)

STALLED_S = 240.0
"""How long nothing may arrive. The Hub's client retries by itself, and gives up within about 100 s."""

_SETTINGS = ("HF_", "HUGGINGFACE_", "TRANSFORMERS_OFFLINE", "XDG_CACHE_HOME", "HOME")
"""Variables that say where the Hub and its cache are."""
_COMMAND = (sys.executable, "-m", "realrl.base.hub.fetch_process")


def fetch(
    repo: Repo,
    patterns: tuple[str, ...],
    *,
    commit: str | None = None,
    only_plan: bool = False,
    check_access: bool = False,
) -> Reply:
    """Return the commit of a repository and, in the Hub's cache, its files that match `patterns`.

    Without `commit`, the repository's revision is looked up. With `only_plan`, nothing is downloaded.

    Raises:
        ValueError: the Hub refuses, is out of reach, or sends nothing for `STALLED_S`; the message does not
            name the repository.
    """
    request = Request(
        repo=repo,
        patterns=patterns,
        commit=commit,
        only_plan=only_plan,
        check_access=check_access,
    )
    if commit is None or only_plan:
        return _ask(request)
    surroundings = tuple(sorted(item for item in os.environ.items() if item[0].startswith(_SETTINGS)))
    return _fetched(request, surroundings)


@lru_cache(maxsize=64)
def _fetched(request: Request, surroundings: tuple) -> Reply:
    """Return a commit's files, which never change."""
    return _ask(request)


def _ask(request: Request) -> Reply:
    process = subprocess.Popen(
        [*_COMMAND, msgspec.json.encode(request).decode()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**os.environ, PARENT_VARIABLE: str(os.getpid())},
    )
    output = process.stdout
    assert output is not None, "the output is a pipe"
    try:
        reply = _reply(output)
    finally:
        process.kill()
        process.wait()
        output.close()

    if reply.error:
        raise ValueError(reply.error)
    for note in reply.notes:
        sys.stderr.write(f"realrl: {request.repo}: {note}\n")
    return reply


def _reply(output: IO[bytes]) -> Reply:
    """Return the reply in the last line; the lines before it must keep changing."""
    before = b""
    changed_s = time.monotonic()
    for line in _lines(output):
        if line.startswith(b"{"):
            return msgspec.json.decode(line, type=Reply)
        now_s = time.monotonic()
        if line and line != before:
            before = line
            changed_s = now_s
        if now_s - changed_s > STALLED_S:
            raise ValueError(
                f"nothing has arrived from the Hugging Face Hub for {STALLED_S:.0f} s; check the network, and"
                " start again: files that have arrived are kept"
            )

    raise ValueError("the process that asks the Hugging Face Hub ended early; its output above says why")


def _lines(output: IO[bytes]) -> Iterator[bytes]:
    """Each line as it comes, and an empty one whenever none has come for a while."""
    descriptor, rest = output.fileno(), b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if not selector.select(timeout=1.0):
                yield b""
                continue
            data = os.read(descriptor, 1 << 16)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            yield from lines
