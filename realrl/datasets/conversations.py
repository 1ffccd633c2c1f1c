"""Prompts as text or as conversations, in the formats in common use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

RESPONSES = ("response", "chosen", "rejected")
"""The fields that hold responses."""
_SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}
"""ShareGPT's names of roles, in messages of `{from, value}`, that differ from the usual ones."""
_ASKING_ROLES = ("user", "system")
"""Roles whose message cannot be a response."""
_CALLS = ("tool_calls", "function_call")
"""Fields of a message that hold tool calls."""


class Message(msgspec.Struct):
    """A turn of a conversation."""

    role: str
    content: str
    more: dict[str, Any] = {}
    """The message's other fields, for chat templates that read them."""


Messages = Annotated[list[Message], msgspec.Meta(min_length=1)]
Prompt = str | Messages


def words_of(prompt: Prompt) -> str:
    """Return the text of a prompt without its roles."""
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(message.content for message in prompt)


def question_of(prompt: Prompt, place: str, template: str) -> str:
    """Return the question that a single-turn template wraps.

    Raises:
        ValueError: the prompt is a conversation other than one message of a user.
    """
    if isinstance(prompt, str):
        return prompt
    roles = [message.role for message in prompt]
    if roles == ["user"]:
        (only,) = prompt
        return only.content
    raise ValueError(
        f"{place}: data.template={template} takes text or one message of a user, got messages of"
        f" {', '.join(roles)}; set data.template=chat, and give a model with a chat template"
    )


def turns_of(prompt: Prompt) -> list[dict[str, Any]]:
    """Return a prompt as messages for a chat template; a text becomes one message of a user."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    turns = []
    for message in prompt:
        turn = {**message.more, "role": message.role, "content": message.content}
        turns.append(turn)
    return turns


def with_plain_messages(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the record with every message of its conversations as `{role, content, more}`, content as text.

    Raises:
        msgspec.ValidationError: a message with images, without text, or with tool calls.
    """
    found: dict[str, Any] = {}
    for name in ("prompt", *RESPONSES):
        messages = record.get(name)
        if isinstance(messages, list):
            found[name] = _plain_messages(messages, name)
    return {**record, **found} if found else record


def without_prompts(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the record with each response that is a conversation replaced by its last message's content.

    The messages before the last one become the record's prompt if it has none.

    Raises:
        msgspec.ValidationError: these messages differ between responses, or a last message is a user's or
            the system's.
    """
    conversations = {name: record[name] for name in RESPONSES if _is_conversation(record.get(name))}
    if not conversations:
        return record
    found = dict(record)
    for name, messages in conversations.items():
        last = messages[-1]
        found[name] = last.get("content")
    if "prompt" not in record:
        found["prompt"] = _common_prompt(conversations)
    for name, messages in conversations.items():
        last = messages[-1]
        role = last.get("role")
        if role in _ASKING_ROLES:
            raise msgspec.ValidationError(f"the last message of `{name}` is of {role}, not of the assistant")
    return found


def _common_prompt(conversations: Mapping[str, list]) -> list:
    """Return the messages before the last one, which all conversations must share."""
    first, *others = [messages[:-1] for messages in conversations.values()]
    for other in others:
        if other != first:
            raise msgspec.ValidationError("`chosen` and `rejected` must begin with the same messages")
    return first


def _is_conversation(response: Any) -> bool:
    if not isinstance(response, list) or not response:
        return False
    return isinstance(response[-1], Mapping)


def _plain_messages(messages: list, name: str) -> list:
    """Return the messages in plain form; an item that is no message stays, for validation to reject."""
    plain = []
    for i, message in enumerate(messages):
        if isinstance(message, Mapping):
            message = _plain_message(message, f"`{name}[{i}]`")
        plain.append(message)
    return plain


def _plain_message(message: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a message as `{role, content, more}`, as far as it has a role and a content."""
    given = {key: value for key, value in message.items() if value is not None}
    if any(map(given.get, _CALLS)):
        raise msgspec.ValidationError(f"{where} calls tools, which are not read yet; leave such rows out")
    _rename_from_sharegpt(given)
    if "content" in message and "content" not in given:
        raise msgspec.ValidationError(f"{where} has no text: its `content` is null")

    plain: dict[str, Any] = {}
    for key in ("role", "content"):
        if key in given:
            plain[key] = given.pop(key)
    parts = plain.get("content")
    if isinstance(parts, list):
        texts = [_text_of(part, where) for part in parts]
        plain["content"] = "\n".join(texts)
    plain["more"] = given
    return plain


def _rename_from_sharegpt(message: dict[str, Any]) -> None:
    """Give the fields of a message of ShareGPT, `from` and `value`, the usual names; leave other messages."""
    is_sharegpt = "from" in message and "value" in message
    if not is_sharegpt or "role" in message:
        return
    sender = message.pop("from")
    message["role"] = _SHAREGPT_ROLES.get(sender, sender)
    message["content"] = message.pop("value")


def _text_of(part: Any, where: str) -> str:
    """Return the text of one part of a message whose content is a list of parts."""
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping):
        kind = part.get("type", "text")
        text = part.get("text")
        if kind == "text" and isinstance(text, str):
            return text
        if kind != "text":
            raise msgspec.ValidationError(f"{where} has a part of type {kind!r}; only text is read")
    raise msgspec.ValidationError(f"{where} has a part without text")
