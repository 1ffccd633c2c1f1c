"""Names that rows of known datasets give to our fields."""

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
"""Our fields of a kind of rows, each with the names that it has elsewhere, the likeliest first."""

_ASKING = ("user", "human", "tool")
"""Who has the last word in a conversation that is to be answered."""
_SECOND_PART = {"instruction": "input"}
"""Where a question has a second part in another field (Alpaca's), one field is not all of it."""


def columns_of(names: Names) -> Iterator[str]:
    """All columns that may be looked at."""
    for theirs in names.values():
        yield from (name.partition(".")[0] for name in theirs)


def recognised(record: Mapping[str, Any], names: Names) -> dict[str, str]:
    """What a row without them calls our fields, as `data.fields` would say it."""
    found: dict[str, str] = {}
    for ours, theirs in names.items():
        if record.get(ours) is None and not (ours == "prompt" and _begins_elsewhere(record, found)):
            name = next((name for name in theirs if _serves(record, name, ours)), None)
            if name is None and ours == "solutions":
                # An answer that the first row lacks is there in others.
                name = next((name for name in theirs if _is_null(record, name)), None)
            if name is not None:
                found[ours] = name
    return found


def at(record: Mapping[str, Any], name: str) -> Any:
    """What a record has under a name; a dotted one leads into what is nested.

    Raises:
        KeyError: nothing.
    """
    if name in record:
        return record[name]
    found: Any = record
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            raise KeyError(name)
        found = found[part]
    return found


def _begins_elsewhere(record: Mapping[str, Any], found: Mapping[str, str]) -> bool:
    """Whether the prompt is the beginning of a conversation that is the response."""
    in_conversation = any(name in CONVERSATIONS for name in found.values())
    return in_conversation or any(isinstance(record.get(name), list) for name in ("response", "chosen"))


def _serves(record: Mapping[str, Any], name: str, ours: str) -> bool:
    """Whether what a record has under a name can be one of our fields."""
    try:
        value = at(record, name)
    except KeyError:
        return False
    if record.get(_SECOND_PART.get(name, "")):
        return False
    if name in CONVERSATIONS:
        return _ends_by(value, asking=ours == "prompt")
    if ours != "solutions":
        return isinstance(value, str)
    parts = value if isinstance(value, list) and value else [value]
    return all(isinstance(part, str) or _is_number(part) for part in parts)


def _is_null(record: Mapping[str, Any], name: str) -> bool:
    try:
        return at(record, name) is None
    except KeyError:
        return False


def _ends_by(conversation: Any, *, asking: bool) -> bool:
    """Whether a conversation ends by a question, or by an answer."""
    if not isinstance(conversation, list) or not conversation or not isinstance(conversation[-1], Mapping):
        return False
    last = conversation[-1]
    return (last.get("role", last.get("from")) in _ASKING) == asking


def _is_number(value: Any) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, bool)
