"""How a language model judges responses: the section `judge`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PLACES = ("{prompt}", "{response}", "{solutions}")
"""What a template's places are named; the last one may be left out."""
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_RESERVED = frozenset(("model", "messages", "n", "stream"))
"""Fields of a request that this program sets, or whose answers it could not read."""


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """A language model that judges responses, behind a URL of the form of OpenAI's."""

    url: str = ""
    """Base URL of the server, as http://host:8000/v1; questions go to `chat/completions` below it."""
    model: str = ""
    """Name of the model, as the server has it."""
    prompt: str = ""
    """Path of a text file: what the judge is asked, with the places {prompt}, {response} and {solutions}.
    It should ask for a last line like `Score: 7`."""
    lowest: float = 0.0
    """The least score; it is the reward 0."""
    highest: float = 10.0
    """The largest score; it is the reward 1, and scores between are so in proportion."""
    api_key_env: str = ""
    """Name of the environment variable that holds the server's key, on every worker; empty, none is sent."""
    arguments: dict[str, Any] = field(default_factory=lambda: {"temperature": 0.0})
    """Further fields of each request, as `{temperature: 0, max_tokens: 2048}`."""
    timeout_s: float = 60.0
    """Longest time for one answer, and longest wait before the next try."""
    retries: int = 3
    """Tries after the first one, where the server cannot be reached, is busy, fails or answers nonsense."""
    max_open: int = 32
    """The most questions that a worker has open at once."""
    cache: str | None = None
    """Folder of answers: a question that was answered is not asked again. Left out, the run's `judge`; empty,
    answers are not kept."""

    def __post_init__(self) -> None:
        self._check_url()
        for name in ("model", "prompt"):
            if not getattr(self, name):
                raise ValueError(f"{name} is needed: give judge.url, judge.model and judge.prompt")
        if self.api_key_env and not _VARIABLE.fullmatch(self.api_key_env):
            # What was given may be the key itself, and must not be shown.
            raise ValueError(
                "api_key_env: expected the name of an environment variable in capital letters, as"
                " OPENAI_API_KEY, and not the key; set the variable"
            )
        if not self.highest > self.lowest:
            raise ValueError(f"highest must be above lowest={self.lowest}, got {self.highest}")
        if not 0 < self.timeout_s <= 86_400:
            raise ValueError(f"timeout_s must be above 0 and at most a day, got {self.timeout_s}")
        if not 0 <= self.retries <= 100:
            raise ValueError(f"retries must be from 0 to 100, got {self.retries}")
        if not 1 <= self.max_open <= 4096:
            raise ValueError(f"max_open must be from 1 to 4096, got {self.max_open}")
        reserved = sorted(_RESERVED.intersection(self.arguments))
        if reserved:
            raise ValueError(f"arguments: {', '.join(reserved)} cannot be set here; leave it out")

    def _check_url(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url: expected a base URL like http://host:8000/v1, got {self.url!r}")
        if parts.username or parts.password or parts.query:
            raise ValueError("url: keys do not belong in it; set judge.api_key_env")

    @property
    def longest_s(self) -> float:
        """The longest time that one question can take: each try, and the wait before each but the first."""
        return self.timeout_s * (1 + 2 * self.retries)

    def template(self) -> str:
        """Return the text of `prompt`.

        Raises:
            ValueError: the file cannot be read, or lacks a place.
        """
        try:
            text = Path(self.prompt).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ValueError(
                f"judge.prompt: {self.prompt!r}: cannot read the template ({reason}); expected a text file"
                f" with the places {', '.join(PLACES)}"
            ) from None
        for place in PLACES[:2]:
            if place not in text:
                raise ValueError(
                    f"judge.prompt: {self.prompt} has no {place}; the judge would not see it, so add it"
                )
        return text

    def key(self, environment: Mapping[str, str] = os.environ) -> str:
        """Return the server's key; empty without one.

        Raises:
            ValueError: the variable that should hold it is not set.
        """
        if not self.api_key_env:
            return ""
        key = environment.get(self.api_key_env, "")
        if not key:
            raise ValueError(
                f"judge.api_key_env: the environment variable {self.api_key_env} is not set; set it where the"
                " run is started and on its workers"
            )
        return key
