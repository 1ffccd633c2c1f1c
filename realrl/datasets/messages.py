"""Prompts as text or as a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

RESPONSES = ("response", "chosen", "rejected")


class Message(msgspec.Struct):
    """A turn of a conversation."""

    role: str
    content: str


Messages = Annotated[list[Message], msgspec.Meta(min_length=1)]
Prompt = str | Messages


def words_of(prompt: Prompt) -> str:
    """All that a prompt says, without who says it."""
    return prompt if isinstance(prompt, str) else "\n\n".join(message.content for message in prompt)


def question_of(prompt: Prompt, place: str, template: str) -> str:
    """The text that a template without turns is put around.

    Raises:
        ValueError: the prompt has other messages than one of a user.
    """
    if isinstance(prompt, str):
        return prompt
    if [message.role for message in prompt] == ["user"]:
        return prompt[0].content
    raise ValueError(
        f"{place}: data.template={template} takes text or one message of a user, got messages of"
        f" {', '.join(message.role for message in prompt)}; set data.template=chat, and give a model with a"
        " chat template"
    )


def turns_of(prompt: Prompt) -> list[dict[str, str]]:
    """The messages, as a chat template takes them; text is one of a user."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [{"role": message.role, "content": message.content} for message in prompt]


def without_prompts(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record whose responses may be conversations, with their last messages in place of these.

    The messages before the last are the record's prompt if it has none.

    Raises:
        msgspec.ValidationError: they are not the same for all of its responses.
    """
    turns = {name: record[name] for name in RESPONSES if _is_conversation(record.get(name))}
    found = {**record, **{name: given[-1].get("content") for name, given in turns.items()}}
    if turns and "prompt" not in record:
        first, *others = (given[:-1] for given in turns.values())
        if any(other != first for other in others):
            raise msgspec.ValidationError("`chosen` and `rejected` must begin with the same messages")
        found["prompt"] = first
    return found


def _is_conversation(response: Any) -> bool:
    return isinstance(response, list) and bool(response) and isinstance(response[-1], Mapping)
