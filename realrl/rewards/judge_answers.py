"""What a judge was asked and has answered: questions from a template, scores from texts, and kept answers.

template ── the places filled in ──▶ question ──▶ the server ──▶ answer ── last line ──▶ score ──▶ reward
                                         └── digest ──▶ Answers, a folder ◀── answer ──┘
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path

from realrl.rewards.judge_config import JudgeConfig

_PLACE = re.compile(r"\{(prompt|response|solutions)\}")
_SCORE = re.compile(r"(?:score\s*:\s*)?([+-]?\d{1,9}(?:\.\d{1,9})?)", re.IGNORECASE)
_MARKS = " \t*_`#"
"""Marks of Markdown that may stand around a line."""


def question_of(template: str, prompt: str, response: str, solutions: Sequence[str]) -> str:
    """Return a template with its places filled in, once: braces in a response are no places."""
    given = {"prompt": prompt, "response": response, "solutions": "\n".join(solutions)}
    return _PLACE.sub(lambda place: given[place[1]], template)


def reward_in(answer: str, config: JudgeConfig) -> float | None:
    """Return the reward, from 0 to 1, of an answer whose last line is a score; None for any other answer.

    The line is the number alone or `Score: 7`. A number outside of the scale is no score.
    """
    lines = [line.strip(_MARKS) for line in answer.splitlines()]
    written = [line for line in lines if line]
    if not written:
        return None
    # `**Score:** 7` has marks within.
    last = written[-1].replace("**", "")
    match = _SCORE.fullmatch(last)
    if match is None:
        return None
    score = float(match[1])
    if not config.lowest <= score <= config.highest:
        return None
    return (score - config.lowest) / (config.highest - config.lowest)


def digest_of(config: JudgeConfig, question: str) -> str:
    """Return what tells a question from all others: of another model, or with other arguments, it is one."""
    asked = [config.model, config.arguments, question]
    text = json.dumps(asked, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Answers:
    """Answers by the digest of their question; kept in a folder if there is one.

    Each process appends to a file of its own, and reads those of all others when it starts. A line is
    `{"question": DIGEST, "answer": TEXT}`.
    """

    def __init__(self, folder: Path | None) -> None:
        """Read what is in the folder, if it exists."""
        self._known: dict[str, str] = {}
        self._folder = folder
        if folder is not None:
            for file in sorted(folder.glob("*.jsonl")):
                self._read(file)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, digest: str) -> str | None:
        """Return the answer to a question; None if there is none yet."""
        return self._known.get(digest)

    def add(self, digest: str, answer: str) -> None:
        """Keep an answer."""
        self._known[digest] = answer
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        own = self._folder / f"{socket.gethostname()}-{os.getpid()}.jsonl"
        line = json.dumps({"question": digest, "answer": answer})
        # The first newline ends a line that a killed process of this name left unfinished.
        with own.open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")

    def _read(self, file: Path) -> None:
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                    self._known[str(entry["question"])] = str(entry["answer"])
                # A process that was killed may have left a part of a line.
                except (ValueError, KeyError, TypeError):
                    continue
