"""A judge that is changed by each answer: the score is how many its process has seen, in tenths."""

from __future__ import annotations

import time
from typing import Any

from realrl.rewards.judging import Batch
from realrl.rewards.serving import serve


class CountingJudge:
    """Counts the answers that it sees; `sleep` takes long."""

    evaluators = ()
    seen = 0

    def prepared(self, request: dict[str, Any]) -> None:
        """Nothing."""

    def batch(self, request: dict[str, Any]) -> Batch:
        return Batch(request["prompt"], 3)

    def judged(self, request: dict[str, Any]) -> dict[str, Any]:
        self.seen += 1
        if request["answer"] == "sleep":
            time.sleep(60)
        return {"score": self.seen / 10}


def run(memory_bytes: int) -> None:
    serve(CountingJudge, memory_bytes)
