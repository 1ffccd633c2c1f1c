"""Points at which two formulas are compared: over many scales, signs and kinds, drawn from both formulas.

The draw depends on the two formulas alone, in either order, so a verdict is the same in every process. An
answer cannot be written to agree at the points only: they change with it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator

from flint import acb, arb, ctx, fmpq

from realrl.verifier.arithmetic import NoValue, Scalar, ball, is_real
from realrl.verifier.evaluation import Point, evaluated
from realrl.verifier.lexicon import WHOLE_NAMES
from realrl.verifier.nodes import Node, Number, Operation, Piecewise, Repeated, children, free_symbols, walk

NUM_POINTS = 28
SPECIAL = 4
"""The period of special points: small whole numbers and halves, where a formula may have a pole."""

LARGEST_SPECIAL = 12
MAX_LARGE_NUMBERS = 3
"""The largest number of constants of the formulas beyond which there is a point."""
_CONSTANT_PRECISION = 512

_HUGE_AT = (13, 20, 26)
"""Points with numbers around a million millions; of whole ones the last two are positive."""

_COMPLEX_NAMES = frozenset("z w".split())
"""Variables that are complex numbers by custom."""
_WHOLE_OPERATIONS = frozenset("gcd lcm factorial double_factorial binomial".split())
_COMPLEX_OPERATIONS = frozenset("real imaginary conjugate arg".split())


def variable_kinds(names: Iterable[str], formulas: Iterable[Node]) -> dict[str, str]:
    """Return the kind of each variable: `real`, `complex`, `whole` or `natural` (from 0 on)."""
    each = [list(walk(formula)) for formula in formulas]
    nodes = [node for found in each for node in found]
    # One formula alone cannot make a variable of the other a whole number.
    counted = frozenset[str].intersection(*(frozenset(_counted(found)) for found in each))
    has_counted = any(_counted(found) for found in each)
    has_complex = any(isinstance(node, Operation) and node.name in _COMPLEX_OPERATIONS for node in nodes)
    kinds = {}
    for name in names:
        base = name.partition("_")[0]
        if name in counted:
            kinds[name] = "natural"
        elif base in WHOLE_NAMES:
            kinds[name] = "natural" if has_counted else "whole"
        else:
            kinds[name] = "complex" if base in _COMPLEX_NAMES or has_complex else "real"
    return kinds


def _counted(nodes: Iterable[Node]) -> set[str]:
    """Return the variables in operations on whole numbers, and in bounds of sums."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, Operation) and node.name in _WHOLE_OPERATIONS:
            found.update(_names_of(*node.operands))
        elif isinstance(node, Repeated):
            found.update(_names_of(node.low, node.high))
    return found


def _names_of(*formulas: Node) -> Iterator[str]:
    for formula in formulas:
        yield from free_symbols(formula)


def points(kinds: dict[str, str], formulas: tuple[Node, Node]) -> Iterator[tuple[Point, bool]]:
    """Yield each point, and whether it is a special one."""
    draw = random.Random(_seed(formulas))
    names = sorted(kinds)
    boundaries = list(_boundaries(formulas, names))
    beyond = list(_beyond_constants(formulas, kinds))
    for point in (*boundaries, *beyond):
        yield point, True
    num_points = NUM_POINTS if names else 1
    for index in range(num_points):
        is_special = index % SPECIAL == SPECIAL - 1
        point = {name: _drawn(kinds[name], index, is_special, draw) for name in names}
        yield point, is_special


def _boundaries(formulas: tuple[Node, Node], names: list[str]) -> Iterator[Point]:
    """Yield the points where cases of the only variable meet, where a formula may change."""
    if len(names) != 1:
        return
    for formula in formulas:
        for node in walk(formula):
            if isinstance(node, Piecewise):
                for value in _numbers_in_conditions(node):
                    yield {names[0]: value}


def _numbers_in_conditions(node: Piecewise) -> Iterator[fmpq]:
    """Yield the numbers that a variable is compared with to choose a case."""
    for _, conditions in node.cases:
        for condition in conditions:
            for side in (condition.left, condition.right):
                if isinstance(side, Number):
                    yield fmpq(side.value.numerator, side.value.denominator)


def _beyond_constants(formulas: tuple[Node, Node], kinds: dict[str, str]) -> Iterator[Point]:
    r"""Yield points on multiples of the large numbers of a formula: `\min(x, 10^{20})` is not `x`."""
    if not kinds:
        return
    found: set[fmpq] = set()
    for formula in formulas:
        found.update(abs(value) for value in _constants(formula))
    largest = sorted(found)[-MAX_LARGE_NUMBERS:]
    for value in largest:
        for sign in (1, -1):
            point = {}
            for place, name in enumerate(sorted(kinds)):
                size = 3 * value * (place + 1)
                point[name] = size if kinds[name] == "natural" else size * sign
            yield point


def _constants(node: Node) -> Iterator[fmpq]:
    """Yield the whole parts of the numbers in a formula that are larger than any special point."""
    if free_symbols(node):
        for child in children(node):
            yield from _constants(child)
        return
    try:
        value = evaluated(node, {}, _CONSTANT_PRECISION)
    except NoValue:
        return
    whole = _whole_part(value)
    if whole is not None and abs(whole) > LARGEST_SPECIAL:
        yield whole


def _whole_part(value: Scalar) -> fmpq | None:
    """Return the whole part of a real number of a moderate size; None for others."""
    if not is_real(value):
        return None
    with ctx.workprec(_CONSTANT_PRECISION):
        number = ball(value).real
        # FLINT ends the process over a whole number that it has no memory for.
        is_moderate = number.abs_upper() < arb(2) ** _CONSTANT_PRECISION
        whole = number.mid().floor().unique_fmpz() if is_moderate else None
    return None if whole is None else fmpq(whole)


def _seed(formulas: tuple[Node, Node]) -> int:
    texts = sorted(repr(formula) for formula in formulas)
    joined = "\0".join(texts).encode()
    digest = hashlib.sha256(joined).digest()
    return int.from_bytes(digest[:16], "big")


def _drawn(kind: str, index: int, is_special: bool, draw: random.Random) -> Scalar:
    if kind in ("whole", "natural"):
        return fmpq(_whole(kind, index, draw))
    if is_special:
        return fmpq(draw.randint(-2 * LARGEST_SPECIAL, 2 * LARGEST_SPECIAL), 2)
    return _complex(index, draw) if kind == "complex" else _real(index, draw)


def _complex(index: int, draw: random.Random) -> acb:
    """A complex number whose parts a ball holds exactly, whatever its precision."""
    scale = (1, 8, 30, 3)[index % 4]
    parts = (draw.randint(-64 * scale, 64 * scale) + fmpq(1, 2) for _ in range(2))
    return acb(*(arb(part / 64) for part in parts))


def _whole(kind: str, index: int, draw: random.Random) -> int:
    """Small numbers, each for itself, then larger ones; every third is negative where it may be."""
    if index in _HUGE_AT:
        size = draw.randint(10**6, 10**12)
    else:
        size = index // 2 + 1 if index < 12 else draw.randint(8, (40, 400)[index % 2])
    return -size if kind == "whole" and index % 3 == 2 else size


def _real(index: int, draw: random.Random) -> fmpq:
    """Return a number of either sign: most often up to 30, at times up to 10,000, at three points huge."""
    scale = 10**12 if index in _HUGE_AT else (1, 8, 30, 3, 1, 300, 8, 10_000, 3, 100)[index % 10]
    denominator = draw.choice((97, 101, 103, 107, 109, 113))
    size = fmpq(draw.randint(scale // 10 + 1, 100 * scale), denominator)
    is_negative = index % 2 if index in _HUGE_AT else draw.random() < 0.5
    return -size if is_negative else size
