"""Chat templates: the tokenizer's own, or that of a file; and whether they take what a config gives them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import jinja2.nodes

from realrl.api.prompt_keys import is_chat_template, is_template_file
from realrl.base.spelling import did_you_mean

MOST_CHARS = 1 << 24
"""The most characters of one rendered prompt; a chat template that makes more is broken."""
_FILE_CHARS = 1 << 20
"""The most characters of a file with a chat template; the longest published ones have some 20,000."""
_OURS = ("conversation", "messages", "chat_template", "add_generation_prompt", "continue_final_message")
_OF_RESULT = ("tokenize", "return_dict", "return_tensors", "return_assistant_tokens_mask")
_OF_TOKENS = ("padding", "truncation", "max_length", "tokenizer_kwargs", "sanitize_control_tokens")
_RESERVED = frozenset((*_OURS, *_OF_RESULT, *_OF_TOKENS))
"""Arguments of `apply_chat_template` that are not the template's."""
_GIVEN: dict[str, Any] = {"add_generation_prompt": True, "tools": None, "documents": None}
"""Variables that every chat template has, besides the messages and the special tokens."""
_QUESTION = "realrl"
"""A question that is looked for in a rendered prompt: a word that no chat template contains."""


def chat_template_of(tokenizer: Any, template: str, key: str = "data.template") -> str | None:
    """Return the text of a chat template; None if `template` is none or the tokenizer has none of its own.

    Raises:
        ValueError: a file that cannot be read; the message begins with `key`, the dotted path of `template`.
    """
    if is_template_file(template):
        return _read_template(template, key)
    if not is_chat_template(template) or not tokenizer.chat_template:
        return None
    try:
        found: str = tokenizer.get_chat_template()
    except ValueError as error:  # there are several, and none is the default
        why = why_it_fails(error)
        raise ValueError(f"{key}: the tokenizer's chat template fails ({why}); give a file of one") from None
    return found


def render(
    tokenizer: Any, turns: Sequence[dict[str, Any]], template: str | None, arguments: Mapping[str, Any]
) -> str:
    """Return a conversation as text that asks for a response. `template` None is the tokenizer's own."""
    options = dict(arguments)
    if template is not None:
        options["chat_template"] = template
    text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **options)
    return text


def why_it_fails(error: Exception) -> str:
    """Return the message of an error in a chat template on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def check_arguments(source: str, arguments: Mapping[str, Any], section: str) -> None:
    """Check that a chat template reads every one of these arguments.

    Raises:
        ValueError: an argument that it does not read, or that is not the template's.
    """
    if not arguments:
        return
    read = _variables(source)
    known = sorted(read)
    for name in arguments:
        key = f"{section}.template_arguments.{name}"
        if name in _RESERVED:
            raise ValueError(f"{key}: the program gives this one itself; leave it out")
        is_read = name in read or (name in _GIVEN and name in source)
        if not is_read:
            hint = did_you_mean(name, known)
            there_are = ", ".join(known) or "none"
            raise ValueError(f"{key}: the chat template reads no such variable; it reads {there_are}{hint}")


def check_template_file(tokenizer: Any, source: str, arguments: Mapping[str, Any], key: str) -> None:
    """Check that the template of a file can be rendered, and has the question in it.

    `key` is the dotted path of the file's name, with that name.

    Raises:
        ValueError: it has an error, prints a value that nothing gives it, or drops the question.
    """
    # Many templates print a token that some tokenizers lack.
    special_tokens = dict.fromkeys(tokenizer.SPECIAL_TOKENS_ATTRIBUTES, "")
    given = {**_GIVEN, **special_tokens, **tokenizer.special_tokens_map, **arguments}
    turns = [{"role": "user", "content": _QUESTION}]
    try:
        # The tokenizer's own way first: its calls have a deadline.
        render(tokenizer, turns, source, arguments)
        environment = _environment(source).overlay(undefined=_NeverPrinted)
        text = environment.from_string(source).render(messages=turns, **given)
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"{key}, line {error.lineno}: {error.message}; mend it") from None
    except jinja2.UndefinedError as error:
        raise ValueError(
            f"{key}: {why_it_fails(error)}; give it in template_arguments, or mend the file"
        ) from None
    except Exception as error:  # a template is a program, and may fail in any way
        raise ValueError(f"{key}: it fails ({why_it_fails(error)}); mend it") from None
    if _QUESTION not in text:
        raise ValueError(f"{key}: it leaves out the question; write the messages' content in it")


class _NeverPrinted(jinja2.Undefined):
    """A value that is missing, and may be tested, but not printed: usually it is misspelt."""

    def __str__(self) -> str:
        self._fail_with_undefined_error()


def _read_template(path: str, key: str) -> str:
    """Return the text of a file with a chat template."""
    file = Path(os.path.expanduser(path))
    try:
        with file.open(encoding="utf-8") as content:
            text = content.read(_FILE_CHARS + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        raise ValueError(
            f"{key}: cannot read the chat template {path} ({reason}); give the path of a text file in Jinja"
        ) from None
    if len(text) > _FILE_CHARS:
        raise ValueError(f"{key}: {path} has more than {_FILE_CHARS} characters; give a chat template")
    if not text.strip():
        raise ValueError(f"{key}: {path} is empty; give a chat template")
    return text


def _variables(source: str) -> set[str]:
    """Return the names that a template reads from what it is given.

    Names that it sets in some branch are its own, unless it tests whether they are given.
    """
    environment = _environment(source)
    tree = environment.parse(source)
    read = jinja2.meta.find_undeclared_variables(tree) - environment.globals.keys() - _GIVEN.keys()
    set_here = set()
    tested = set()
    for name in tree.find_all(jinja2.nodes.Name):
        if name.ctx == "store":
            set_here.add(name.name)
    for test in tree.find_all((jinja2.nodes.Test, jinja2.nodes.Filter)):
        is_about_presence = test.name in ("defined", "undefined", "default", "d")
        if is_about_presence and isinstance(test.node, jinja2.nodes.Name):
            tested.add(test.node.name)
    own = set_here - tested
    return read - own - {"messages"}


def _environment(source: str) -> jinja2.Environment:
    """Return the environment in which transformers renders templates; it knows tags of its own.

    Raises:
        jinja2.TemplateSyntaxError: the template has an error.
    """
    from transformers.utils import chat_template_utils

    module: Any = chat_template_utils
    environment: jinja2.Environment = module._compile_jinja_template(source).environment
    return environment
