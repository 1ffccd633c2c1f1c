"""The child process that compares answers, which may take forever; and what it shares with others.

`child_entry.py` runs it. Each line of its input is
`{"answer": …, "solution": …}`; each line of its output `{"verdict": …}` or `{"error": str}`, but for the
first, `{"ready": true}`. It ends with its input.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol, TextIO

from realrl.base.confinement import confine, limit_softly
from realrl.rewards.arithmetic import TooLarge
from realrl.rewards.compare import same_answer
from realrl.rewards.expressions import SympyExpressions
from realrl.rewards.verdict import Verdict

Reply = dict[str, Any]


class Server(Protocol):
    """What a child does."""

    def reply(self, request: dict[str, Any]) -> Reply: ...


def serve(make: Callable[[], Server], requests: TextIO, replies: TextIO, *, deadline_s: float) -> None:
    """Answer each line of `requests` until they end; a second thread sees the end during a comparison too."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests, lines), daemon=True).start()
    server = make()
    print(json.dumps({"ready": True}), file=replies, flush=True)
    while True:
        request = json.loads(lines.get())
        _limit_cpu(deadline_s)
        print(json.dumps(server.reply(request)), file=replies, flush=True)


class Judge:
    """Compares one answer after another."""

    def __init__(self) -> None:
        self._expressions = SympyExpressions()

    def reply(self, request: dict[str, str]) -> Reply:
        """Raises: MemoryError, after which the process is in no known state."""
        try:
            same = same_answer(request["answer"], request["solution"], self._expressions)
            return {"verdict": Verdict.CORRECT if same else Verdict.WRONG}
        except TooLarge:
            return {"verdict": Verdict.TIMEOUT}
        except MemoryError:
            raise
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"[:300]}


def _read(requests: TextIO, lines: queue.SimpleQueue[str]) -> None:
    for line in requests:
        lines.put(line)
    os._exit(0)


def _limit_cpu(deadline_s: float) -> None:
    """End an orphan too that holds the interpreter's lock, and so never sees its input end."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit_softly(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + deadline_s) + 2)


def main(make: Callable[[], Server], deadline_s: float, memory_bytes: int) -> None:
    """Serve the pipes that this process was started with; what a library prints goes to the errors.

    What is compared was written by a model, so the process keeps nothing that comparing does not need. Out of
    memory it just ends: its parent sees that, and says so.
    """
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        confine(memory_bytes=memory_bytes)
        serve(make, sys.stdin, replies, deadline_s=deadline_s)
    except MemoryError:
        os._exit(1)
    except (ImportError, OSError) as error:  # at the start; where else would it say so?
        replies.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")
        replies.flush()


def run(deadline_s: float, memory_bytes: int) -> None:
    """Compare answers."""
    main(Judge, deadline_s, memory_bytes)
