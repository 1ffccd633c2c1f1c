"""A logger in a process of its own: what it prints, asks, or waits for does not reach the run.

    master                          child (python -m realrl.runtime.loggers.logger_process NAME)
      RunFacts      ── stdin ──▶      opens the logger
                    ◀─ stdout ──      Answer(where=…)
      Row           ── stdin ──▶      logs
                    ◀─ stdout ──      Answer(error=…)         one answer a message
      End           ── stdin ──▶      finishes, and exits
                    ◀─ stdout ──      Answer

Messages are lines of JSON. A child whose master died sees the end of its input and marks the run as failed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from realrl.runtime.loggers.interface import Logger, RunFacts, open_logger

_ORPHAN_S = 20
"""How long a child whose master died may take to mark the run as failed."""


class Row(msgspec.Struct, frozen=True, tag=True):
    """Numbers of one step or evaluation."""

    step: int
    scalars: dict[str, float | None]
    """JSON knows no NaN: None."""


class End(msgspec.Struct, frozen=True, tag=True):
    """The run is done, with a summary, or has failed."""

    summary: dict[str, Any] | None
    failure: str | None


class Answer(msgspec.Struct, frozen=True):
    """What became of a message."""

    error: str = ""
    where: str = ""


class ChildFailed(Exception):
    """The logger in the child failed, or the child itself."""


class ChildLogger:
    """The master's side: passes everything on to a child, and waits for its answers."""

    def __init__(self, name: str, log: Path) -> None:
        """Start the child; what it prints goes to the file `log`."""
        self._name = name
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                # A Ctrl-C is the master's; it still has to say how the run ended.
                start_new_session=True,
            )
        self.where = ""

    def open(self, facts: RunFacts) -> None:
        self.where = self._ask(facts).where

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self._ask(Row(step, dict(scalars)))

    def finish(self, summary: Mapping[str, Any] | None, failure: str | None) -> None:
        self._ask(End(None if summary is None else dict(summary), failure))
        self._process.stdin.close()
        self._process.wait()

    def kill(self) -> None:
        """End the child and what it started, if it still runs; this ends a wait for its answer, too."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _ask(self, message: RunFacts | Row | End) -> Answer:
        try:
            self._process.stdin.write(msgspec.json.encode(message) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # Its last answer may say why it ended.
        line = self._process.stdout.readline()
        if not line:
            raise ChildFailed(f"its process ended with exit code {self._process.wait()}")
        answer = msgspec.json.decode(line, type=Answer)
        if answer.error:
            raise ChildFailed(answer.error)
        return answer


def main() -> None:
    """The child's side."""
    # Tools print to standard output: that goes to the log, and answers keep the pipe for themselves.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    messages = sys.stdin.buffer
    facts = msgspec.json.decode(messages.readline(), type=RunFacts)
    logger = _open(sys.argv[1], facts, answers)
    if logger is not None:
        _serve(logger, messages, answers)


def _open(name: str, facts: RunFacts, answers: BinaryIO) -> Logger | None:
    try:
        logger = open_logger(name, facts)
    except Exception as error:
        _answer(answers, Answer(_one_line(error)))
        return None
    _answer(answers, Answer(where=logger.where))
    return logger


def _serve(logger: Logger, messages: BinaryIO, answers: BinaryIO) -> None:
    """Until the run ends, or its master does."""
    for line in messages:
        message = msgspec.json.decode(line, type=Row | End)
        _answer(answers, _carry_out(logger, message))
        if isinstance(message, End):
            return
    signal.alarm(_ORPHAN_S)
    logger.finish(None, "the run's master died")


def _carry_out(logger: Logger, message: Row | End) -> Answer:
    # Whatever a tool raises is reported: the next row may succeed.
    try:
        if isinstance(message, End):
            logger.finish(message.summary, message.failure)
        else:
            scalars = {name: float("nan") if v is None else v for name, v in message.scalars.items()}
            logger.log(message.step, scalars)
    except Exception as error:
        return Answer(_one_line(error))
    return Answer()


def _answer(answers: BinaryIO, answer: Answer) -> None:
    answers.write(msgspec.json.encode(answer) + b"\n")
    answers.flush()


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


if __name__ == "__main__":
    main()
