"""The token that ends a response: one that is learned ends with it, and one that is generated ends at it.

template        ends with                      e. g.
chat            what the chat template puts    <|im_end|>, <end_of_turn>, <|eot_id|>
                after an assistant's turn
named ones      their own, else the
plain           tokenizer's eos_token          </s>, <|endoftext|>
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from realrl.api.config import GenerationConfig
from realrl.api.data import Template
from realrl.datasets.templates import TEMPLATES
from realrl.datasets.tokens import decoder_of

_ANSWER = "realrl"
"""A response whose end is looked for: a word that no chat template has."""


def end_of_response(tokenizer: Any, template: Template) -> int | None:
    """The token that ends a response to a prompt in a form; None if there is none.

    For `chat` it is the first special token that the tokenizer's chat template puts after an assistant's
    turn, if it puts any there.
    """
    if template == "chat" and tokenizer.chat_template:
        end = _end_of_turn(tokenizer)
        return tokenizer.eos_token_id if end is None else end
    named = TEMPLATES["plain" if template == "chat" else template]
    return tokenizer.get_vocab()[named.end] if named.end else tokenizer.eos_token_id


def learned_end(tokenizer: Any, template: Template) -> int:
    """The token that ends a response to be learned.

    Raises:
        ValueError: there is none.
    """
    end = end_of_response(tokenizer, template)
    if end is None:
        raise ValueError(
            f"{tokenizer.name_or_path}: its tokenizer has no eos_token, which ends each response; "
            "give one in tokenizer_config.json"
        )
    return end


def note_of_end(tokenizer: Any, end: int) -> list[str]:
    """A note if the model that the tokenizer belongs to does not end by itself at what is learned."""
    decoder = decoder_of(tokenizer)
    if decoder is None or end in decoder.eos_token_ids:
        return []
    text_of = tokenizer.convert_ids_to_tokens
    known = ", ".join(repr(text_of(token)) for token in decoder.eos_token_ids) or "nothing"
    return [
        f"responses are learned to end with {text_of(end)!r} (token {end}), but the model's configuration"
        f" ends at {known}; here, generation ends at both with the same data.template; for others, add"
        " the token to eos_token_id in generation_config.json"
    ]


def stopping(config: GenerationConfig, tokenizer: Any, template: Template) -> GenerationConfig:
    """The same settings, with the token that ends a response to the template among those that end one.

    A model that learned to end with that token would else never end where its generation config has another.
    """
    end = end_of_response(tokenizer, template)
    if end is None or end in config.stop_token_ids:
        return config
    return replace(config, stop_token_ids=(*config.stop_token_ids, end))


def _end_of_turn(tokenizer: Any) -> int | None:
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _ANSWER}]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False)
    except Exception:  # a template is a program, and some take no answers
        return None
    _, found, after = text.rpartition(_ANSWER)
    special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    special |= set(tokenizer.all_special_ids)
    ids = tokenizer(after, add_special_tokens=False)["input_ids"] if found else []
    return next((id for id in ids if id in special), None)
