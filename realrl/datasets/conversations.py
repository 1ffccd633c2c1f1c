"""Prompts as text or as a conversation, in the forms that are in use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

RESPONSES = ("response", "chosen", "rejected")
_SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}
"""Roles in conversations of `{from, value}`; others are named as everywhere."""
_ASKING_ROLES = ("user", "system")
_CALLS = ("tool_calls", "function_call")


class Message(msgspec.Struct):
    """A turn of a conversation."""

    role: str
    content: str
    more: dict[str, Any] = {}
    """What else the message says, for chat templates that read it."""


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


def turns_of(prompt: Prompt) -> list[dict[str, Any]]:
    """The messages, as a chat template takes them; text is one of a user."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [{**message.more, "role": message.role, "content": message.content} for message in prompt]


def with_plain_messages(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record whose conversations have messages of `{role, content, more}`, with texts as contents.

    Raises:
        msgspec.ValidationError: a message with images, without text, or with calls of tools.
    """
    names = [name for name in ("prompt", *RESPONSES) if isinstance(record.get(name), list)]
    if not names:
        return record
    return {**record, **{name: _plain_messages(record[name], name) for name in names}}


def without_prompts(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record whose responses may be conversations, with their last messages in place of these.

    The messages before the last are the record's prompt if it has none.

    Raises:
        msgspec.ValidationError: they are not the same for all of its responses, or a last one only asks.
    """
    turns = {name: record[name] for name in RESPONSES if _is_conversation(record.get(name))}
    if not turns:
        return record
    found = {**record, **{name: given[-1].get("content") for name, given in turns.items()}}
    if "prompt" not in record:
        first, *others = (given[:-1] for given in turns.values())
        if any(other != first for other in others):
            raise msgspec.ValidationError("`chosen` and `rejected` must begin with the same messages")
        found["prompt"] = first
    for name, given in turns.items():
        if (role := given[-1].get("role")) in _ASKING_ROLES:
            raise msgspec.ValidationError(f"the last message of `{name}` is of {role}, not of the assistant")
    return found


def _is_conversation(response: Any) -> bool:
    return isinstance(response, list) and bool(response) and isinstance(response[-1], Mapping)


def _plain_messages(messages: list, name: str) -> list:
    return [
        _plain_message(message, f"`{name}[{i}]`") if isinstance(message, Mapping) else message
        for i, message in enumerate(messages)
    ]


def _plain_message(message: Mapping[str, Any], where: str) -> dict[str, Any]:
    given = {key: value for key, value in message.items() if value is not None}
    if any(given.get(key) for key in _CALLS):
        raise msgspec.ValidationError(f"{where} calls tools, which are not read yet; leave such rows out")
    if "from" in given and "value" in given and "role" not in given:
        sender = given.pop("from")
        given |= {"role": _SHAREGPT_ROLES.get(sender, sender), "content": given.pop("value")}
    if "content" in message and "content" not in given:
        raise msgspec.ValidationError(f"{where} has no text: its `content` is null")
    plain = {key: given.pop(key) for key in ("role", "content") if key in given}
    if isinstance(plain.get("content"), list):
        plain["content"] = "\n".join(_text_of(part, where) for part in plain["content"])
    return {**plain, "more": given}


def _text_of(part: Any, where: str) -> str:
    """A part of a message in parts."""
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping):
        kind = part.get("type", "text")
        if kind == "text" and isinstance(part.get("text"), str):
            return part["text"]
        if kind != "text":
            raise msgspec.ValidationError(f"{where} has a part of type {kind!r}; only text is read")
    raise msgspec.ValidationError(f"{where} has a part without text")
