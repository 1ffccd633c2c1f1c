"""A tokenizer that reports its calls, so that a call that hangs is seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from realrl.base.watched import Steps

TEMPLATE = "the chat template, of messages that begin with "
TEXTS = "the tokenizer, of texts that begin with "
_SHOWN = 80
"""The most characters of a text that a message shows."""


class WatchedTokenizer:
    """Wraps a tokenizer; each call is a step of `steps`."""

    def __init__(self, tokenizer: Any, steps: Steps) -> None:
        self._tokenizer = tokenizer
        self._steps = steps

    def __call__(self, texts: Sequence[str], **options: Any) -> Any:
        first = texts[0] if texts else ""
        beginning = first[:_SHOWN]
        with self._steps.doing(TEXTS + repr(beginning)):
            return self._tokenizer(texts, **options)

    def apply_chat_template(self, messages: Sequence[dict[str, Any]], **options: Any) -> Any:
        """Apply the tokenizer's chat template, as a step."""
        content = messages[0]["content"]
        beginning = content[:_SHOWN]
        with self._steps.doing(TEMPLATE + repr(beginning)):
            return self._tokenizer.apply_chat_template(messages, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)
