"""Serves requests to judge answers, in a child process, over the pipes that it was started with.

    input   {"deadline_s": …, "request": {…}}  …
    output  {"ready": true} or {"error": str}, then the reply to each request

`child_entry.py` runs it. A fork makes each reply (`realrl/rewards/judging.py`). The process ends with its
input.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from realrl.base.confinement import confine
from realrl.rewards.judging import Forks, Judge, Reply
from realrl.rewards.lines import lines_of, write_all


def serve(make: Callable[[], Judge], memory_bytes: int) -> None:
    """Serve the pipes that this process was started with, with the judge that `make` returns.

    A model wrote the answers, so this process and its forks keep nothing that judging does not need. When it
    is out of memory, it ends: its parent reports that.
    """
    requests = os.dup(0)
    replies = os.dup(1)
    # The output of libraries goes to the errors.
    os.dup2(2, 1)
    try:
        confine(memory_bytes=memory_bytes, may_fork=True)
        judge = make()
        forks = Forks(judge, requests)
    except MemoryError:
        os._exit(1)
    except (ImportError, OSError, RuntimeError) as error:
        # The parent can learn the reason only from the first line.
        _write(replies, {"error": f"{type(error).__name__}: {error}"})
        return
    _write(replies, {"ready": True})
    for line in lines_of(requests):
        asked = json.loads(line)
        request = asked["request"]
        reply = judge.prepared(request) or forks.judged(request, asked["deadline_s"])
        _write(replies, reply)


def _write(replies: int, reply: Reply) -> None:
    line = json.dumps(reply).encode() + b"\n"
    write_all(replies, line)
