"""Names that rows of known datasets give to our fields."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

QUESTIONS = ("question", "problem", "instruction", "query")
ANSWERS = (
    "answer",
    "final_answer",
    "expected_answer",
    "ground_truth",
    "reward_model.ground_truth",
    "solution",
)
RESPONSES = ("messages", "conversations", "output", "completion", "answer", "solution")

Names = Mapping[str, Collection[str]]
"""Our fields of a kind of rows, each with the names that it has elsewhere, the likeliest first."""

_CONVERSATIONS = ("messages", "conversations")
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
            name = next((name for name in theirs if _serves(record, name)), None)
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
    in_conversation = any(found.get(ours) in _CONVERSATIONS for ours in found)
    return in_conversation or any(isinstance(record.get(name), list) for name in ("response", "chosen"))


def _serves(record: Mapping[str, Any], name: str) -> bool:
    try:
        value = at(record, name)
    except KeyError:
        return False
    if record.get(_SECOND_PART.get(name, "")):
        return False
    if name in _CONVERSATIONS:
        return isinstance(value, list) and bool(value)
    parts = value if isinstance(value, list) and value else [value]
    return all(isinstance(part, str) or _is_number(part) for part in parts)


def _is_number(value: Any) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, bool)
