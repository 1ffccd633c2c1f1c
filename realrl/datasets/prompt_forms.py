"""Makes prompts of rows: what is put around a question, in a chat template or as plain text.

chat:   system, examples, earlier messages, prefix + question + suffix ──▶ template ──▶ tokens
plain:  example, empty line, ..., prefix + question + suffix ──▶ tokens
others: the template's own text around prefix + question + suffix ──▶ tokens
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor, tensor

from realrl.api.data import DataPart
from realrl.api.prompt_keys import is_template_file
from realrl.datasets.chat_templates import (
    MOST_CHARS,
    chat_template_of,
    check_arguments,
    check_template_file,
    render,
    why_it_fails,
)
from realrl.datasets.conversations import question_of, turns_of
from realrl.datasets.day import templates_at
from realrl.datasets.examples import Example
from realrl.datasets.records import Row
from realrl.datasets.templates import named_template
from realrl.datasets.tokens import encode_texts

Turn = dict[str, Any]
"""A message, as chat templates take them."""


class Prompts(Protocol):
    """How texts of prompts are made."""

    def text(self, row: Row) -> str:
        """Return a row's prompt as text."""


def encode_prompts(
    rows: Sequence[Row], tokenizer: Any, part: DataPart, examples: Sequence[Example] = ()
) -> list[Tensor]:
    """Return the token ids of each row's prompt.

    `chat` is the tokenizer's own chat template, or `plain` if it has none. A chat template that asks for the
    time is told midnight of `data.date`.

    Shapes: one int64 `[T]` per row.
    Raises:
        ValueError: a prompt without tokens or not of the template's form, or a chat template that fails or
            does not take what `part` gives it; the message names the row's place.
    """
    in_chat = chat_template_of(tokenizer, part.data.template, f"{part.section}.template") is not None
    prompts: Prompts
    with templates_at(part.data.date):
        if in_chat:
            prompts = _ChatPrompts(tokenizer, part, examples)
        else:
            prompts = _TextPrompts(tokenizer, part, examples)
        texts = [prompts.text(row) for row in rows]
    # A chat template writes the special tokens itself.
    encoded = encode_texts(texts, tokenizer, add_special_tokens=not in_chat)
    for row, ids in zip(rows, encoded, strict=True):
        if not ids:
            raise ValueError(
                f"{row.place}: the prompt has no tokens; give a question there, or leave the row out"
            )
    return list(map(tensor, encoded))


class _TextPrompts:
    """Prompts in a template of `TEMPLATES`; `chat` becomes `plain`."""

    def __init__(self, tokenizer: Any, part: DataPart, examples: Sequence[Example]) -> None:
        self._data = part.data
        name = part.data.template
        if name == "chat":
            _check_needs_no_chat(part, tokenizer)
            name = "plain"
        self._template = named_template(name, tokenizer, f"{part.section}.template")
        shown = [f"{self._around(each)}{each.response}\n\n" for each in examples]
        self._examples = "".join(shown)

    def text(self, row: Row) -> str:
        """Return a row's prompt as text."""
        asked = self._around(row)
        return self._template.text(f"{self._examples}{asked}")

    def _around(self, row: Row) -> str:
        """Return a row's question with the text around it."""
        question = question_of(row.prompt, row.place, self._data.template)
        return f"{self._data.prefix or ''}{question}{self._data.suffix or ''}"


class _ChatPrompts:
    """Prompts in a chat template."""

    def __init__(self, tokenizer: Any, part: DataPart, examples: Sequence[Example]) -> None:
        data = part.data
        self._tokenizer = tokenizer
        self._data = data
        self._key = f"{part.section}.template"
        self._whose = "the tokenizer's chat template"
        source = chat_template_of(tokenizer, data.template, self._key)
        assert source is not None, "there is a chat template"
        self._source: str | None = None
        if is_template_file(data.template):
            self._source = source
            self._whose = data.template
            key = f"{self._key}: {data.template}"
            check_template_file(tokenizer, source, data.template_arguments, key)
        check_arguments(source, data.template_arguments, part.section)
        self._examples: list[Turn] = []
        for example in examples:
            self._examples += self._asked_without_system(example)
            self._examples.append({"role": "assistant", "content": example.response})

    def text(self, row: Row) -> str:
        """Return a row's prompt as text."""
        turns = self._turns(row)
        try:
            text = render(self._tokenizer, turns, self._source, self._data.template_arguments)
        except Exception as error:  # a template is a program, and may fail in any way
            raise self._failing(row, why_it_fails(error)) from None
        if len(text) > MOST_CHARS:
            raise self._failing(row, f"it makes {len(text):,} characters of it")
        if self._data.system is not None and self._data.system.strip() not in text:
            raise ValueError(
                f"{self._key}: {row.place}: {self._whose} leaves out the system message; give its text as"
                " prefix instead of system"
            )
        # Of an example's response, templates may leave out the reasoning.
        if self._examples and self._examples[0]["content"].strip() not in text:
            raise ValueError(
                f"{self._key}: {row.place}: {self._whose} leaves out the examples; leave them out, or write"
                " them into the prefix"
            )
        return text

    def _turns(self, row: Row) -> list[Turn]:
        """Return the whole conversation: the system message, the examples, and the row's own turns."""
        turns = self._asked(row)
        begin = 0
        while begin < len(turns) and turns[begin]["role"] == "system":
            begin += 1
        system = turns[:begin]
        if self._data.system is not None:
            system = [{"role": "system", "content": self._data.system}]
        return [*system, *self._examples, *turns[begin:]]

    def _asked(self, row: Row) -> list[Turn]:
        """Return a row's turns, with the text around its question."""
        turns = turns_of(row.prompt)
        before = self._data.prefix or ""
        after = self._data.suffix or ""
        if not before and not after:
            return turns
        last = turns[-1]
        if last["role"] != "user":
            raise ValueError(
                f"{row.place}: the last message is of {last['role']}, and data.prefix and data.suffix are for"
                " a question of the user; leave them out, or such rows"
            )
        question = f"{before}{last['content']}{after}"
        return [*turns[:-1], {**last, "content": question}]

    def _asked_without_system(self, example: Example) -> list[Turn]:
        """Return an example's turns, which come after the system message of the whole conversation."""
        turns = self._asked(example)
        if turns[0]["role"] == "system":
            raise ValueError(
                f"{example.place}: an example has no system message of its own; leave it out, and give one"
                " for all prompts as data.system"
            )
        return turns

    def _failing(self, row: Row, why: str) -> ValueError:
        return ValueError(
            f"{self._key}: {row.place}: {self._whose} fails ({why}); mend it, or set {self._key}=plain"
        )


def _check_needs_no_chat(part: DataPart, tokenizer: Any) -> None:
    """Check that nothing is given that is for chat templates alone, as the tokenizer has none."""
    given = {"template_arguments": part.data.template_arguments, "system": part.data.system}
    for name, value in given.items():
        if value not in ({}, None):
            raise ValueError(
                f"{part.section}.{name}: {tokenizer.name_or_path or 'the tokenizer'} has no chat template;"
                f" give a file of one, as {part.section}.template=path/to/file.jinja, or leave {name} out"
            )
