"""The lengths of rollouts, from a file or made from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from realrl.datasets.demo import DEMO_MODEL
from realrl.runtime.model_directories import load_tokenizer, resolve_model

LONGEST_MADE = 8192
_EXAMPLES = (
    '{"prompt": "1 + 1 =", "response": "2"}, {"prompt": "1 + 1 =", "solutions": ["2"]} or {"length": 7}'
)


class Line(msgspec.Struct):
    """A line of a file: a rollout as runs record it, a problem with its solutions, or a bare length."""

    length: Annotated[int, msgspec.Meta(ge=1)] | None = None
    prompt: str = ""
    response: str | None = None
    solutions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The prompt and what follows it."""
        solution = next(iter(self.solutions), "")
        return self.prompt + (solution if self.response is None else self.response)


def read_lengths(path: Path) -> list[int]:
    """Each line's tokens, by the demo model's tokenizer where it is text.

    Raises:
        ValueError: a file that cannot be read or is empty, or a line that is not as it should be.
    """
    try:
        rows = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ValueError(f"--file: {path}: cannot be read ({error.strerror})") from None
    lines = [_line(row, f"{path}:{number}") for number, row in enumerate(rows, start=1) if row.strip()]
    if not lines:
        raise ValueError(f"--file: {path}: it is empty; expected lines like {_EXAMPLES}")
    texts = [line.text for line in lines if line.length is None]
    counted = iter(_count_tokens(texts) if texts else ())
    return [next(counted) if line.length is None else line.length for line in lines]


def _line(row: bytes, where: str) -> Line:
    try:
        line = msgspec.json.decode(row, type=Line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"--file: {where}: {error}; expected a line like {_EXAMPLES}") from None
    if line.length is None and not line.text:
        raise ValueError(f"--file: {where}: neither text nor a length; expected a line like {_EXAMPLES}")
    return line


def _count_tokens(texts: Sequence[str]) -> list[int]:
    tokenizer = load_tokenizer(resolve_model(DEMO_MODEL))
    return [len(ids) for ids in tokenizer(list(texts), verbose=False)["input_ids"]]


def made_lengths(num_samples: int) -> list[int]:
    """Log-normal about 1,100 tokens with a heavy tail, cut off at 8,192; the same in every run."""
    rng = random.Random(0)
    return [min(LONGEST_MADE, 1 + int(rng.lognormvariate(7.0, 1.0))) for _ in range(num_samples)]
