"""The child process in which answers are judged: it serves the pipes that it was started with.

`child_entry.py` runs it. The first line of its output is `{"ready": true}`, or `{"error": str}` if it cannot
start. Then each line of its input is `{"deadline_s": …, "request": {…}}`, and each line of its output the
reply to it, which `realrl/rewards/judging.py` has a fork make. It ends with its input.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from realrl.base.confinement import confine
from realrl.rewards.judging import Forks, Judge, Reply
from realrl.rewards.lines import lines_of, write_all


def serve(make: Callable[[], Judge], memory_bytes: int) -> None:
    """Serve the pipes that this process was started with; what a library prints goes to the errors.

    Answers were written by a model, so this process and its forks keep nothing that judging does not need.
    Out of memory it just ends: its parent sees that, and says so.
    """
    requests, replies = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    try:
        confine(memory_bytes=memory_bytes, may_fork=True)
        judge = make()
        forks = Forks(judge, requests)
    except MemoryError:
        os._exit(1)
    except (ImportError, OSError, RuntimeError) as error:  # where else would it say so?
        _write(replies, {"error": f"{type(error).__name__}: {error}"})
        return
    _write(replies, {"ready": True})
    for line in lines_of(requests):
        asked = json.loads(line)
        request = asked["request"]
        reply = judge.prepared(request) or forks.judged(request, asked["deadline_s"])
        _write(replies, reply)


def _write(replies: int, reply: Reply) -> None:
    write_all(replies, json.dumps(reply).encode() + b"\n")
