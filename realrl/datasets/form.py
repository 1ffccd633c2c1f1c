"""Describes the form of prompts in one line with an example, so that a wrong template is seen at once."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from realrl.api.config_keys import shown as shown_value
from realrl.api.data import DataPart

_HEAD = 160
"""Characters shown of a prompt's beginning, which may be a system message."""
_TAIL = 80
"""Characters shown of a prompt's end, which asks for the response."""


def form_of_prompts(part: DataPart, tokenizer: Any, first: Tensor) -> str:
    """Return a line that describes the form of prompts, with the first prompt as the model reads it.

    Shapes: `first` int64 `[T]`.
    """
    template = part.data.template
    form = f"{part.section}.template={template}"
    if template == "chat":
        form = (
            "the tokenizer's chat template"
            if tokenizer.chat_template
            else "plain, as the tokenizer has no chat template"
        )
    for name, value in part.data.template_arguments.items():
        form += f", {name}={shown_value(value)}"
    if part.data.examples:
        form += f", examples of {part.data.examples}"
    whose = f" of data.sets.{part.name}" if part.name else ""
    shown = _shortened(tokenizer.decode(first))
    return f"form of prompts{whose}: {form}; the first one has {len(first)} tokens: {shown!r}"


def _shortened(text: str) -> str:
    if len(text) <= _HEAD + _TAIL:
        return text
    return f"{text[:_HEAD]} … {text[-_TAIL:]}"
