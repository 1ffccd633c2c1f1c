"""Named prompt templates, for training without the tokenizer's chat template."""

from __future__ import annotations

from typing import Any, NamedTuple

BOXED = r"Please reason step by step, and put your final answer within \boxed{}."

_R1_ZERO = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The "
    "assistant first thinks about the reasoning process in the mind and then provides the user with the "
    "answer. The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> "
    "tags, respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>. User: "
)
_ORZ = (
    "You must put your answer inside <answer> </answer> tags, i.e., <answer> answer here </answer>. And your "
    "final answer will be extracted automatically by the \\boxed{} tag. "
)


class Template(NamedTuple):
    """The text around a question."""

    before: str
    after: str
    tokens: tuple[str, ...] = ()
    """Tokens in the template, which the tokenizer must have."""
    end: str = ""
    """The token that ends a response; empty: the tokenizer's `eos_token`."""

    def text(self, question: str) -> str:
        """Return the prompt for a question."""
        return f"{self.before}{question}{self.after}"


TEMPLATES = {
    "plain": Template("", ""),
    # The chat template of DeepSeek-R1-Distill-*, with the instruction that its model cards recommend for
    # mathematics; the tokenizer adds the token that begins a sequence.
    "r1-distill": Template(
        "<｜User｜>", f"\n{BOXED}<｜Assistant｜><think>\n", tokens=("<｜User｜>", "<｜Assistant｜>")
    ),
    # DeepSeek-AI 2025, arXiv:2501.12948, table 1; the assistant's turn is on a line of its own here.
    "r1-zero": Template(_R1_ZERO, "\nAssistant:"),
    # Hu et al. 2025, arXiv:2503.24290, the template of Open-Reasoner-Zero.
    "orz": Template(_R1_ZERO + _ORZ, "\nAssistant: <think>"),
    # The model card of Qwen2.5-Math-*-Instruct: ChatML with this as the system's message.
    "qwen-boxed": Template(
        f"<|im_start|>system\n{BOXED}<|im_end|>\n<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
        tokens=("<|im_start|>", "<|im_end|>"),
        end="<|im_end|>",
    ),
}
"""All values of `data.template` except `chat`."""


def named_template(name: str, tokenizer: Any, key: str = "data.template") -> Template:
    """Return one of `TEMPLATES`. `key` is the dotted path of the setting that names it.

    Raises:
        ValueError: the tokenizer lacks a token of the template.
    """
    template = TEMPLATES[name]
    known = tokenizer.get_vocab()
    for token in template.tokens:
        if token not in known:
            raise ValueError(
                f"{key}: {name} is for models whose tokenizer has the token {token}, and"
                f" {tokenizer.name_or_path or 'this one'} has not; set chat, plain or another one"
            )
    return template
