"""Finds the assistant's earlier turns in prompts, which can be learned as well as the last one.

system, question ──▶ prompt of turn 1 ═╗   answer 1 <end>
... the whole prompt ─────────────────═╩═▶ ──────────────  question 2 ... prompt of the last turn
                     the same tokens       learned: from there to the first end token
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import torch
from torch import Tensor

from realrl.api.data import DataPart
from realrl.datasets.conversations import Message
from realrl.datasets.end_tokens import learned_end
from realrl.datasets.examples import load_examples
from realrl.datasets.prompt_forms import encode_prompts
from realrl.datasets.records import Row

SomeRow = TypeVar("SomeRow", bound=Row)

_ASSISTANT = "assistant"
_ANSWERED = ("user", "tool")
"""Roles of messages that an answer may follow."""


def earlier_turns(
    rows: Sequence[SomeRow], prompts: Sequence[Tensor], tokenizer: Any, part: DataPart
) -> list[Tensor]:
    """Return which tokens of each prompt are an assistant's turn, with the token that ends it.

    A turn before the first question is none.

    Shapes: prompts int64 `[P]`; returns bool `[P]` for each.
    Raises:
        ValueError: the chat template does not keep a turn as it would have been generated; the message names
            the row's place.
    """
    masks = [torch.zeros(len(prompt), dtype=torch.bool) for prompt in prompts]
    # Of each turn, its row's number and the row as it was asked for that turn.
    owners: list[int] = []
    asked: list[SomeRow] = []
    answers: list[str] = []
    for number, row in enumerate(rows):
        for place in _places_of_turns(row):
            owners.append(number)
            asked.append(msgspec.structs.replace(row, prompt=row.prompt[:place]))
            answers.append(_content(row, place))
    if not asked:
        return masks

    end = learned_end(tokenizer, part.data.template)
    begins = encode_prompts(asked, tokenizer, part, load_examples(part))
    for number, begin, answer in zip(owners, begins, answers, strict=True):
        prompt = prompts[number]
        length = len(begin)
        stop = _end_of_turn(prompt, length, end)
        is_kept = torch.equal(prompt[:length], begin) and _says(tokenizer, prompt[length:stop], answer)
        if not is_kept:
            raise ValueError(
                f"{rows[number].place}: turns=all: in the prompt of the last turn, the chat template does not"
                f" keep the earlier answer {answer[:60]!r} as it would have been generated; set turns=last,"
                " leave such rows out, or mend the template (data.template)"
            )
        masks[number][length:stop] = True
    return masks


def _places_of_turns(row: Row) -> list[int]:
    """Return the places of the messages of a row's prompt that are an assistant's answers."""
    places: list[int] = []
    if isinstance(row.prompt, str):
        return places
    is_asked = False
    for place, message in enumerate(row.prompt):
        if message.role == _ASSISTANT and is_asked:
            places.append(place)
        is_asked = is_asked or message.role in _ANSWERED
    return places


def _content(row: Row, place: int) -> str:
    """Return the text of one message of a row's prompt."""
    message = row.prompt[place]
    assert isinstance(message, Message), "only a conversation has turns"
    return message.content


def _end_of_turn(prompt: Tensor, begin: int, end: int) -> int:
    """Return the place after the first end token from `begin` on; the prompt's length if there is none."""
    found = (prompt[begin:] == end).nonzero()
    if not len(found):
        return len(prompt)
    return begin + int(found[0]) + 1


def _says(tokenizer: Any, tokens: Tensor, answer: str) -> bool:
    """Return whether tokens are an answer; templates may put blanks around it, or cut them off."""
    text = tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return _plain(answer) in _plain(text)


def _plain(text: str) -> str:
    """Return a text without blanks around it, in the form that many tokenizers give its characters."""
    return unicodedata.normalize("NFC", text).strip()
