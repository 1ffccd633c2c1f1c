"""A judge whose answers have already won: each is an attack that runs in the process that judges it.

What no filter and no reader stops is tried here: it shows what an answer can do that runs code.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

from realrl.rewards import judging
from realrl.rewards.judging import Batch
from realrl.rewards.serving import serve


class HostileJudge:
    """Does what an answer is the name of; an honest one is worth a half."""

    evaluators = ()
    score = 0.5

    def prepared(self, request: dict[str, Any]) -> None:
        """Nothing."""

    def batch(self, request: dict[str, Any]) -> Batch:
        return Batch("", 1)

    def judged(self, request: dict[str, Any]) -> dict[str, Any]:
        attack = getattr(self, request["answer"], None)
        return attack() if attack else {"score": self.score}

    def own_class(self) -> dict[str, Any]:
        """Every later answer is right."""
        type(self).judged = lambda *_: {"score": 1.0}
        return {"score": 1.0}

    def own_wrapper(self) -> dict[str, Any]:
        judging.Forks.judged = lambda *_: {"score": 1.0}
        judging._reply = lambda _: {"score": 1.0}
        return {"score": 1.0}

    def every_file(self) -> dict[str, Any]:
        """Answer the next request as well, on whatever is open."""
        for file in range(64):
            try:
                os.write(file, b'{"score": 1.0}\n{"score": 1.0}\n')
            except OSError:
                continue
        return {"score": 1.0}

    def too_much(self) -> dict[str, Any]:
        return {"score": 1e9}

    def not_a_number(self) -> dict[str, Any]:
        return {"score": float("nan")}

    def a_boolean(self) -> dict[str, Any]:
        return {"score": True}

    def a_text(self) -> dict[str, Any]:
        return {"score": "1.0"}

    def no_score(self) -> dict[str, Any]:
        return {}

    def no_reply(self) -> dict[str, Any]:
        os._exit(0)

    def no_json(self) -> dict[str, Any]:
        return self._written(b"[1")

    def no_object(self) -> dict[str, Any]:
        return self._written(b"1.0")

    def deep(self) -> dict[str, Any]:
        return self._written(b"[" * 30_000)

    def nested(self) -> dict[str, Any]:
        score: list[Any] = []
        for _ in range(900):
            score = [score]
        return {"score": score}

    def endless(self) -> dict[str, Any]:
        while True:
            self._written(b" " * 10_000)

    def busy(self) -> dict[str, Any]:
        """One C call that holds the interpreter's lock: only a kill ends it."""
        return {"score": float(sum(range(10**14)))}

    def recursion(self) -> dict[str, Any]:
        return self.recursion()

    def wrong_type(self) -> dict[str, Any]:
        return len(5)

    def end(self) -> dict[str, Any]:
        sys.exit(0)

    def memory(self) -> dict[str, Any]:
        return {"score": float(len(bytearray(1 << 40)))}

    def crash(self) -> dict[str, Any]:
        os.abort()

    def evaluated(self) -> dict[str, Any]:
        """Whatever comes of it, as a scorer's `except` does."""
        with suppress(Exception):
            eval("1.0")
        return {"score": 1.0}

    def a_file(self) -> dict[str, Any]:
        with suppress(Exception):
            open("/etc/passwd").close()
        return {"score": 1.0}

    def a_program(self) -> dict[str, Any]:
        with suppress(Exception):
            os.system("true")
        return {"score": 1.0}

    def _written(self, text: bytes) -> dict[str, Any]:
        for file in range(3, 64):
            try:
                os.write(file, text)
            except OSError:
                continue
        return {"score": 1.0}


def run(memory_bytes: int) -> None:
    serve(HostileJudge, memory_bytes)
