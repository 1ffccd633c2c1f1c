r"""Says where a text must have its answer: strict forms, as recipes and their graders use them.

    text ─▶ ended? ─▶ thought closed? ─▶ in <answer>? ─▶ last characters ─▶ box, phrase or any place

Each step can rule a text out, which then has no answer. `realrl.verifier.strict` searches by a form.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import msgspec

MAX_PHRASE_CHARS = 60
"""The largest number of characters of a phrase."""


@dataclass(frozen=True, kw_only=True)
class AnswerForm:
    """Where a text must have its answer; the defaults ask for nothing."""

    ended: bool = False
    """Whether the response must have ended by itself, rather than at its limit of tokens."""
    after_thought: bool = False
    """Whether the answer must follow the end of a thought, `</think>`."""
    tagged: bool = False
    """Whether the answer must be in `<answer>…</answer>`."""
    place: Literal["any", "box", "phrase"] = "any"
    """`any`: where `docs/verifier.md` says, in that order; `box`: the last box; `phrase`: after `phrase`."""
    phrase: str = "Answer:"
    """The words before the answer, in upper or lower case, if `place` is `phrase`; the last ones count."""
    last_chars: int = 0
    """The number of characters at the end in which the answer must begin (0: all)."""

    def __post_init__(self) -> None:
        if not 0 < len(self.phrase.strip()) <= MAX_PHRASE_CHARS:
            raise ValueError(f"phrase must have 1 to {MAX_PHRASE_CHARS} characters, got {self.phrase!r:.80}")
        if self.last_chars < 0:
            raise ValueError(f"last_chars must be at least 0, got {self.last_chars}")


ANYWHERE = AnswerForm()
"""The form that asks for nothing."""
FORMS = {
    "any": ANYWHERE,
    "box": AnswerForm(place="box"),
    "tags": AnswerForm(after_thought=True, tagged=True),
    "deepscaler": AnswerForm(after_thought=True, place="box"),
    "orz": AnswerForm(ended=True, tagged=True, place="box"),
    "dapo": AnswerForm(place="phrase", phrase="Answer:", last_chars=300),
}
"""Forms by name. The last three are those of published graders:

- `deepscaler`: agentica-project/rllm, `math_reward.py`;
- `orz`: Open-Reasoner-Zero, `<answer>.*?(\\boxed{.*}).*?</answer>` of a response that stopped;
- `dapo`: verl, `math_dapo.py`, whose search is for `Answer:` in the last 300 characters.
"""


def form_of(text: str) -> AnswerForm:
    """Return the form that a name or settings describe: `orz`, or `after_thought=true,place=box`.

    Raises:
        ValueError: the text is no name of a form, and has no settings.
    """
    if text in FORMS:
        return FORMS[text]
    names = [field.name for field in fields(AnswerForm)]
    settings: dict[str, str] = {}
    for part in text.split(","):
        name, sign, value = part.partition("=")
        if not sign or name not in names:
            raise ValueError(
                f"form: expected one of {', '.join(FORMS)}, or settings as place=box of {', '.join(names)},"
                f" got {text!r:.80}"
            )
        settings[name] = value
    try:
        return msgspec.convert(settings, AnswerForm, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"form: {error}, got {text!r:.80}") from None
