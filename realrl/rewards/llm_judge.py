"""Rewards by a language model behind a URL of the form of OpenAI's.

    question ──known──▶ answer ──▶ reward, or None where it has no score
        └─ new ─▶ a try ──ok──▶ answer, kept
                    ├─ no connection, deadline, busy, broken, nonsense ──▶ wait ──▶ the next try, or failed
                    ├─ the key is refused ──▶ the run ends
                    └─ other refusals ──▶ failed

Every wait has a deadline. Once as many questions in a row have failed as may be open at once, the server
counts as lost, and the questions that are left in this call fail at once.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realrl.base.progress import Progress, no_progress
from realrl.base.user_files import describe_error
from realrl.rewards.calling import gathered, run_in_loop
from realrl.rewards.judge_answers import Answers, digest_of, question_of, reward_in
from realrl.rewards.judge_config import JudgeConfig
from realrl.rewards.samples import RewardSample

if TYPE_CHECKING:  # a run without a judge needs no client
    import httpx

logger = logging.getLogger(__name__)

_FIRST_WAIT_S = 1.0
"""The wait before the second try; each later one is twice as long, up to `judge.timeout_s`."""
_REFUSALS = (401, 403)
"""Status codes that say that the key is no good: no question will ever be answered."""
_TRIED_AGAIN = (408, 409, 425, 429)
"""Status codes below 500 that another try may not have."""
_SHOWN_CHARS = 200


@dataclass(frozen=True)
class Judged:
    """What a judge said of some responses."""

    rewards: list[float | None]
    """From 0 to 1; None where there is no answer, or no score in it."""
    failed: list[bool]
    """Whether there is no answer."""


class _Failed(Exception):
    """A try failed; another one may not, perhaps after `wait_s` seconds."""

    def __init__(self, reason: str, *, again: bool = True, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.again = again
        self.wait_s = wait_s


def judge_all(
    config: JudgeConfig,
    samples: Sequence[RewardSample],
    folder: Path | None = None,
    progress: Progress = no_progress,
) -> Judged:
    """Return what the judge says of each response; answers are kept in `folder`, if there is one.

    Raises:
        RuntimeError: the server refuses the key.
        ValueError: there is no template or no key.
    """
    answers = Answers(None) if folder is None else _answers_in(folder, os.getpid())
    questions = _questions_about(config, samples)
    digests = [digest_of(config, question) for question in questions]
    # Responses that are alike are one question.
    new: dict[str, str] = {}
    for digest, question in zip(digests, questions, strict=True):
        if answers.get(digest) is None:
            new[digest] = question
    if new:
        run_in_loop(_ask_all(config, new, answers, progress))
    found = [answers.get(digest) for digest in digests]
    rewards = [None if answer is None else reward_in(answer, config) for answer in found]
    return Judged(rewards, [answer is None for answer in found])


def _questions_about(config: JudgeConfig, samples: Sequence[RewardSample]) -> list[str]:
    """Return what is asked about each response."""
    template = config.template()
    questions: list[str] = []
    for sample in samples:
        questions.append(question_of(template, sample.prompt, sample.response, sample.solutions))
    return questions


@functools.cache
def _answers_in(folder: Path, pid: int) -> Answers:
    """Return the answers that are kept in a folder, with those of this process."""
    return Answers(folder)


async def _ask_all(
    config: JudgeConfig, questions: dict[str, str], answers: Answers, progress: Progress
) -> None:
    """Ask new questions, by digest, and add the answers to `answers`."""
    import httpx

    headers = {}
    key = config.key()
    if key:
        headers["Authorization"] = f"Bearer {key}"
    limits = httpx.Limits(max_connections=config.max_open)
    async with httpx.AsyncClient(headers=headers, timeout=config.timeout_s, limits=limits) as client:
        questioner = _Questioner(config, client, key)

        async def ask(digest: str) -> None:
            answer = await questioner.ask(questions[digest])
            if answer is not None:
                answers.add(digest, answer)

        await gathered(ask, list(questions), config.max_open, progress)
    questioner.report(len(questions))


class _Questioner:
    """Asks one server questions, in one call."""

    def __init__(self, config: JudgeConfig, client: httpx.AsyncClient, key: str) -> None:
        self._config = config
        self._key = key
        self._client = client
        self._url = f"{config.url.rstrip('/')}/chat/completions"
        self._num_failed = 0
        self._num_in_row = 0
        self._last_reason = ""

    async def ask(self, question: str) -> str | None:
        """Return the answer to a question; None if every try failed, or the server is lost."""
        if self._num_in_row >= self._config.max_open:
            self._num_failed += 1
            return None
        try:
            answer = await self._tried(question)
        except _Failed as failure:
            self._num_failed += 1
            self._num_in_row += 1
            self._last_reason = str(failure)
            if self._key:
                # A server may repeat what it was sent.
                self._last_reason = self._last_reason.replace(self._key, "KEY")
            return None
        self._num_in_row = 0
        return answer

    def report(self, num_questions: int) -> None:
        """Log a warning if some questions have no answer."""
        if self._num_failed:
            logger.warning(
                "judge: %d of %d questions have no answer, so their responses are ungraded; the last reason:"
                " %s",
                *(self._num_failed, num_questions, self._last_reason),
            )

    async def _tried(self, question: str) -> str:
        """Return the answer of the first try that has one; raise the last failure if none has."""
        longest_s = self._config.timeout_s
        wait_s = _FIRST_WAIT_S
        for tries_left in reversed(range(1 + self._config.retries)):
            try:
                return await self._answer(question)
            except _Failed as failure:
                if not (tries_left and failure.again):
                    raise
                asked_s = wait_s if failure.wait_s is None else failure.wait_s
            await asyncio.sleep(min(asked_s, longest_s))
            wait_s *= 2
        raise AssertionError("the last try returns or raises")

    async def _answer(self, question: str) -> str:
        """Try once."""
        import httpx

        message = {"role": "user", "content": question}
        body = {"model": self._config.model, "messages": [message], **self._config.arguments}
        posting = self._client.post(self._url, json=body)
        try:
            # The client's own limits are of single waits: a server that sends a byte now and then meets them.
            response = await asyncio.wait_for(posting, self._config.timeout_s)
        except (asyncio.TimeoutError, httpx.TimeoutException):
            raise _Failed(f"no answer within judge.timeout_s={self._config.timeout_s:g}") from None
        except httpx.HTTPError as error:
            raise _Failed(describe_error(error)) from None
        _check_status(response)
        return _text_in(response.content)


def _check_status(response: httpx.Response) -> None:
    """Raise `_Failed` for a response that is no answer, or RuntimeError if none will ever be."""
    status = response.status_code
    if status == 200:
        return
    said = response.text[:_SHOWN_CHARS]
    if status in _REFUSALS:
        raise RuntimeError(
            f"judge: the server refuses the key with status {status}; set judge.api_key_env to the variable"
            " that holds it"
        )
    again = status in _TRIED_AGAIN or status >= 500
    wait_s = _seconds_of(response.headers.get("Retry-After", ""))
    raise _Failed(f"status {status}: {said!r}", again=again, wait_s=wait_s)


def _seconds_of(retry_after: str) -> float | None:
    """Return the seconds of a header `Retry-After`, which has a number or a date; None without either."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        date = parsedate_to_datetime(retry_after)
        left_s = (date - datetime.now(timezone.utc)).total_seconds()
    except (TypeError, ValueError):
        return None
    return max(left_s, 0.0)


def _text_in(content: bytes) -> str:
    """Return the text of an answer in OpenAI's form."""
    try:
        document: Any = json.loads(content)
        text = document["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        text = None
    if not isinstance(text, str):
        raise _Failed(f"no text in the answer {content[:_SHOWN_CHARS]!r}")
    return text
