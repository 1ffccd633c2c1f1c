"""A judge that lacks something that it needs."""

from __future__ import annotations

from realrl.rewards.serving import serve


class AbsentJudge:
    """Cannot be made."""

    def __init__(self) -> None:
        raise OSError("a table is missing")


def run(memory_bytes: int) -> None:
    serve(AbsentJudge, memory_bytes)
