"""The names that known datasets have for our fields."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

QUESTIONS = ("question", "problem", "instruction", "query")
CONVERSATIONS = ("messages", "conversations")
ANSWERS = (
    "answer",
    "final_answer",
    "expected_answer",
    "ground_truth",
    "reward_model.ground_truth",
    "solution",
)
RESPONSES = (*CONVERSATIONS, "output", "completion", "answer", "solution")

Names = Mapping[str, Collection[str]]
"""Our fields of one kind of row, each with its names in known datasets, the likeliest first."""

_ASKING = ("user", "human", "tool")
"""Roles of the last message in a conversation that asks for a response."""
_SECOND_PART = {"instruction": "input"}
"""Questions with a second part in another field (Alpaca): if it is filled, one field is not the prompt."""


def columns_of(names: Names) -> Iterator[str]:
    """Yield all columns that may hold one of our fields; a dotted name gives its outermost column."""
    for theirs in names.values():
        for name in theirs:
            yield name.partition(".")[0]


def recognised(record: Mapping[str, Any], names: Names) -> dict[str, str]:
    """Return our fields that a record lacks, each with its name there, in the form of `data.fields`."""
    found: dict[str, str] = {}
    for ours, candidates in names.items():
        if record.get(ours) is not None:
            continue
        if ours == "prompt" and _prompt_is_in_response(record, found):
            continue
        name = _name_of(record, ours, candidates)
        if name is not None:
            found[ours] = name
    return found


def _name_of(record: Mapping[str, Any], ours: str, candidates: Collection[str]) -> str | None:
    """Return the first candidate that can be our field."""
    for name in candidates:
        if _serves(record, name, ours):
            return name
    if ours == "solutions":
        # An answer that is null in the first row may be given in others.
        for name in candidates:
            if _is_null(record, name):
                return name
    return None


def at(record: Mapping[str, Any], name: str) -> Any:
    """Return the value that a record has under a name; a dotted name leads into nested records.

    Raises:
        KeyError: the record has no such value.
    """
    if name in record:
        return record[name]
    found: Any = record
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            raise KeyError(name)
        found = found[part]
    return found


def _prompt_is_in_response(record: Mapping[str, Any], found: Mapping[str, str]) -> bool:
    """Return whether a response is a conversation that begins with the prompt."""
    if any(name in CONVERSATIONS for name in found.values()):
        return True
    responses = (record.get("response"), record.get("chosen"))
    return any(isinstance(response, list) for response in responses)


def _serves(record: Mapping[str, Any], name: str, ours: str) -> bool:
    """Return whether the value that a record has under `name` can be our field."""
    try:
        value = at(record, name)
    except KeyError:
        return False
    second_part = _SECOND_PART.get(name, "")
    if record.get(second_part):
        return False
    if name in CONVERSATIONS:
        return _ends_with(value, asking=ours == "prompt")
    if ours != "solutions":
        return isinstance(value, str)
    parts = value if isinstance(value, list) and value else [value]
    return all(isinstance(part, str) or _is_number(part) for part in parts)


def _is_null(record: Mapping[str, Any], name: str) -> bool:
    try:
        return at(record, name) is None
    except KeyError:
        return False


def _ends_with(conversation: Any, *, asking: bool) -> bool:
    """Return whether a conversation ends with a question (`asking`) or with an answer."""
    if not isinstance(conversation, list) or not conversation:
        return False
    last = conversation[-1]
    if not isinstance(last, Mapping):
        return False
    role = last.get("role", last.get("from"))
    return (role in _ASKING) == asking


def _is_number(value: Any) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, bool)
