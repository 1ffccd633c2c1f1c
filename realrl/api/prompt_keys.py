"""The keys that say how prompts are made: what templates there are, and what goes with them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, Protocol, get_args

from realrl.base.require import require, require_at_least
from realrl.base.spelling import did_you_mean

Template = Literal["chat", "plain", "r1-distill", "r1-zero", "orz", "qwen-boxed"]
"""The forms of prompts that have a name."""
TEMPLATE_SUFFIX = ".jinja"
"""The end of the names of files that hold a chat template."""

_QUESTION_MARKS = re.compile(r"(?<![A-Za-z])\{+ *(question|problem|prompt|query|instruction|input) *\}+")
"""Places for the question in other trainers' templates. Braces after a letter are LaTeX: `\\text{input}`."""


class PromptKeys(Protocol):
    """The settings of prompts, of all rows or of one data set."""

    @property
    def template(self) -> str | None:
        """The form of prompts."""

    @property
    def template_arguments(self) -> Mapping[str, Any]:
        """Arguments of the chat template."""

    @property
    def system(self) -> str | None:
        """The system message."""

    @property
    def prefix(self) -> str | None:
        """The text before the question."""

    @property
    def suffix(self) -> str | None:
        """The text after the question."""

    @property
    def examples(self) -> str | None:
        """Solved examples before the question."""

    @property
    def num_examples(self) -> int | None:
        """The number of examples."""


def is_template_file(template: str) -> bool:
    """Return whether a template is a file, and not a name."""
    return template.endswith(TEMPLATE_SUFFIX)


def is_chat_template(template: str) -> bool:
    """Return whether a template is a chat template, the tokenizer's own or that of a file."""
    return template == "chat" or is_template_file(template)


def check_prompt_keys(config: PromptKeys) -> None:
    """Check the keys that say how prompts are made, as far as that takes no tokenizer."""
    _check_template(config.template)
    texts = {"system": config.system, "prefix": config.prefix, "suffix": config.suffix}
    for name, text in texts.items():
        mark = _QUESTION_MARKS.search(text or "")
        require(
            mark is None,
            f"{name}: the text is taken as it is written, and has no places such as {mark and mark[0]}; the"
            " question comes between prefix and suffix",
        )
    require_at_least(config, 1, "num_examples")


def check_fit_to_template(config: PromptKeys) -> None:
    """Check that the template has places for what is to be in the prompts."""
    template = config.template
    assert template is not None, "only a set may leave the template to the settings of all rows"
    if not is_chat_template(template):
        given = {"template_arguments": bool(config.template_arguments), "system": config.system is not None}
        for name, is_given in given.items():
            require(
                not is_given,
                f"{name} is for chat templates, and template is {template}; set template to chat or to a"
                " file path/to/file.jinja, or leave it out",
            )
        require(
            not config.examples or template == "plain",
            f"examples: the template {template} has one question alone; set template to chat, plain or a"
            " file path/to/file.jinja",
        )
    require(
        config.num_examples is None or bool(config.examples),
        "num_examples: there are no examples; give a file of them as examples",
    )


def _check_template(template: str | None) -> None:
    """Check that a template is known by its name, or can be a file."""
    names = get_args(Template)
    if template is None or template in names or is_template_file(template):
        return
    known = ", ".join(names)
    hint = did_you_mean(template, names)
    raise ValueError(f"template: expected {known} or a file path/to/file.jinja, got {template!r}{hint}")
