"""The token that ends a response: learned responses end with it, and generation stops at it.

template        ends with                      e. g.
chat, a file    what the chat template puts    <|im_end|>, <end_of_turn>, <|eot_id|>
                after an assistant's turn
named ones      their own, else the
plain           tokenizer's eos_token          </s>, <|endoftext|>
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from realrl.api.config import GenerationConfig
from realrl.api.prompt_keys import is_chat_template, is_template_file
from realrl.datasets.chat_templates import chat_template_of
from realrl.datasets.templates import TEMPLATES
from realrl.datasets.tokens import decoder_of

_ANSWER = "realrl"
"""A response whose end is looked for: a word that no chat template contains."""


def end_of_response(tokenizer: Any, template: str) -> int | None:
    """Return the token that ends a response to a prompt in `template`; None if there is none.

    For a chat template, it is the first special token that it puts after an assistant's turn, else the
    tokenizer's `eos_token`.
    """
    if is_chat_template(template) and chat_template_of(tokenizer, template):
        end = _end_of_turn(tokenizer, template)
        return tokenizer.eos_token_id if end is None else end
    name = "plain" if template == "chat" else template
    end_token = TEMPLATES[name].end
    if not end_token:
        return tokenizer.eos_token_id
    return tokenizer.get_vocab()[end_token]


def learned_end(tokenizer: Any, template: str) -> int:
    """Return the token that ends a response to be learned.

    Raises:
        ValueError: the tokenizer has no such token.
    """
    end = end_of_response(tokenizer, template)
    if end is None:
        raise ValueError(
            f"{tokenizer.name_or_path}: its tokenizer has no eos_token, which ends each response; "
            "give one in tokenizer_config.json"
        )
    return end


def note_of_end(tokenizer: Any, end: int) -> list[str]:
    """Return a note if the tokenizer's model does not stop at the learned end token by default."""
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


def stopping(config: GenerationConfig, tokenizer: Any, template: str) -> GenerationConfig:
    """Return the settings with the template's end token among the stop tokens.

    Otherwise a model that learned to end with that token would not stop at it if its generation config has
    another one.
    """
    end = end_of_response(tokenizer, template)
    if end is None or end in config.stop_token_ids:
        return config
    return replace(config, stop_token_ids=(*config.stop_token_ids, end))


def _end_of_turn(tokenizer: Any, template: str) -> int | None:
    """Return the first special token after an assistant's turn in a chat template."""
    options = {}
    if is_template_file(template):
        options["chat_template"] = chat_template_of(tokenizer, template)
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _ANSWER}]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, **options)
    except Exception:  # a template is a program, and some accept no answers
        return None
    _, found, after = text.rpartition(_ANSWER)
    if not found:
        return None
    special = set(tokenizer.all_special_ids)
    for token_id, token in tokenizer.added_tokens_decoder.items():
        if token.special:
            special.add(token_id)
    for token_id in tokenizer(after, add_special_tokens=False)["input_ids"]:
        if token_id in special:
            return token_id
    return None
