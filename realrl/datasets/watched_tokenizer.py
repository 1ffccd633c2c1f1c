"""A tokenizer that says what it does, for whoever watches that it ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from realrl.base.watched import Steps

TEMPLATE = "the chat template, of messages that begin with "
TEXTS = "the tokenizer, of texts that begin with "
_SHOWN = 80
"""Characters of a text in a message."""


class WatchedTokenizer:
    """A tokenizer whose calls are steps."""

    def __init__(self, tokenizer: Any, steps: Steps) -> None:
        self._tokenizer, self._steps = tokenizer, steps

    def __call__(self, texts: Sequence[str], **options: Any) -> Any:
        with self._steps.doing(TEXTS + repr(texts[0][:_SHOWN] if texts else "")):
            return self._tokenizer(texts, **options)

    def apply_chat_template(self, messages: Sequence[dict[str, Any]], **options: Any) -> Any:
        with self._steps.doing(TEMPLATE + repr(messages[0]["content"][:_SHOWN])):
            return self._tokenizer.apply_chat_template(messages, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)
