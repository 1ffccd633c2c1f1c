"""The form that prompts have, said in a line with one of them: a wrong one is seen at once."""

from __future__ import annotations

from typing import Any

from torch import Tensor

_HEAD, _TAIL = 160, 80
"""Characters that are shown of a prompt: a system message stands first, what asks for the response last."""


def form_of_prompts(template: str, tokenizer: Any, first: Tensor) -> str:
    """Return a line on the form that `template` gives prompts, with the first one as the model reads it.

    Shapes: `first` int64 `[T]`.
    """
    form = f"data.template={template}"
    if template == "chat":
        form = (
            "the tokenizer's chat template"
            if tokenizer.chat_template
            else "plain, as the tokenizer has no chat template"
        )
    shown = _shortened(tokenizer.decode(first))
    return f"form of prompts: {form}; the first one has {len(first)} tokens: {shown!r}"


def _shortened(text: str) -> str:
    if len(text) <= _HEAD + _TAIL:
        return text
    return f"{text[:_HEAD]} … {text[-_TAIL:]}"
