"""A logger in a process of its own: its prints, its questions and its delays do not reach the run.

    master                          child (python -m realrl.runtime.loggers.logger_process NAME)
      RunFacts      ── stdin ──▶      opens the logger
                    ◀─ stdout ──      Answer(where=…)
      Row           ── stdin ──▶      logs
                    ◀─ stdout ──      Answer(error=…)         one answer to each message
      End           ── stdin ──▶      finishes, and exits
                    ◀─ stdout ──      Answer

Messages are lines of JSON. A child whose master died sees the end of its input and marks the run as failed.
"""

from __future__ import annotations

import math
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
"""Seconds that a child whose master died may take to mark the run as failed."""


class Row(msgspec.Struct, frozen=True, tag=True):
    """Numbers of one step or evaluation."""

    step: int
    scalars: Mapping[str, float | None]
    """In JSON, which has no NaN, None stands for it."""

    @property
    def numbers(self) -> dict[str, float]:
        """The scalars with NaN in place of None."""
        numbers = {}
        for name, value in self.scalars.items():
            numbers[name] = math.nan if value is None else value
        return numbers


class End(msgspec.Struct, frozen=True, tag=True):
    """How the run ended: with a summary if it is done, with a failure if it failed."""

    summary: Mapping[str, Any] | None
    failure: str | None


class Answer(msgspec.Struct, frozen=True):
    """The answer to a message; `error` is empty if it was carried out."""

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
                # A Ctrl-C must reach only the master, which then reports how the run ended.
                start_new_session=True,
            )
        assert self._process.stdin is not None and self._process.stdout is not None, "both are pipes"
        self._messages = self._process.stdin
        self._answers = self._process.stdout
        self.where = ""

    def open(self, facts: RunFacts) -> None:
        """Open the logger in the child."""
        answer = self._ask(facts)
        self.where = answer.where

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Record the numbers of one step or evaluation."""
        self._ask(Row(step, scalars))

    def finish(self, summary: Mapping[str, Any] | None, failure: str | None) -> None:
        """Record how the run ended, and wait until the child has exited."""
        self._ask(End(summary, failure))
        self._messages.close()
        self._process.wait()

    def kill(self) -> None:
        """End the child and all processes that it started; this also ends a wait for its answer."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _ask(self, message: RunFacts | Row | End) -> Answer:
        """Send a message, and wait for its answer.

        Raises:
            ChildFailed: the logger failed, or the child died.
        """
        line = msgspec.json.encode(message) + b"\n"
        # The last answer of a child that has ended may say why.
        with suppress(BrokenPipeError):
            self._messages.write(line)
            self._messages.flush()
        reply = self._answers.readline()
        if not reply:
            code = self._process.wait()
            raise ChildFailed(f"its process ended with exit code {code}")
        answer = msgspec.json.decode(reply, type=Answer)
        if answer.error:
            raise ChildFailed(answer.error)
        return answer


def main() -> None:
    """Run the child's side."""
    # Tools print to stdout, which goes to the log from now on; only answers go to the pipe.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    messages = sys.stdin.buffer
    first = messages.readline()
    facts = msgspec.json.decode(first, type=RunFacts)
    logger = _open(sys.argv[1], facts, answers)
    if logger is not None:
        _serve(logger, messages, answers)


def _open(name: str, facts: RunFacts, answers: BinaryIO) -> Logger | None:
    """Open the logger, and answer; return None if it fails."""
    try:
        logger = open_logger(name, facts)
    except Exception as error:  # whatever a tool raises
        _answer(answers, Answer(_one_line(error)))
        return None
    _answer(answers, Answer(where=logger.where))
    return logger


def _serve(logger: Logger, messages: BinaryIO, answers: BinaryIO) -> None:
    """Carry out messages until the run ends, or its master dies."""
    for line in messages:
        message: Row | End = msgspec.json.decode(line, type=Row | End)
        answer = _carry_out(logger, message)
        _answer(answers, answer)
        if isinstance(message, End):
            return
    signal.alarm(_ORPHAN_S)
    logger.finish(None, "the run's master died")


def _carry_out(logger: Logger, message: Row | End) -> Answer:
    """Carry out a message; return its error if it fails."""
    try:
        if isinstance(message, End):
            logger.finish(message.summary, message.failure)
        else:
            logger.log(message.step, message.numbers)
    except Exception as error:  # whatever a tool raises; the next row may succeed
        return Answer(_one_line(error))
    return Answer()


def _answer(answers: BinaryIO, answer: Answer) -> None:
    """Write an answer at once: the master waits for it."""
    line = msgspec.json.encode(answer) + b"\n"
    answers.write(line)
    answers.flush()


def _one_line(error: Exception) -> str:
    """Return an error's type and message on one line."""
    text = f"{type(error).__name__}: {error}"
    return " ".join(text.split())


if __name__ == "__main__":
    main()
