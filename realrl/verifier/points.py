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

_HUGE = 10**12
_REAL_SCALES = (1, 8, 30, 3, 1, 300, 8, 10_000, 3, 100)
"""The sizes of real numbers, in the order of the points."""
_DENOMINATORS = (97, 101, 103, 107, 109, 113)
"""Primes: no formula that people write has a pole at a fraction with one of them."""
_COMPLEX_SCALES = (1, 8, 30, 3)
_NUM_SMALL = 12
"""The number of points with small whole numbers: 1, 1, 2, 2 and so on."""

_COMPLEX_NAMES = frozenset("z w".split())
"""Variables that are complex numbers by custom."""
_WHOLE_OPERATIONS = frozenset("gcd lcm factorial double_factorial binomial".split())
_COMPLEX_OPERATIONS = frozenset("real imaginary conjugate arg".split())


def variable_kinds(names: Iterable[str], formulas: Iterable[Node]) -> dict[str, str]:
    """Return the kind of each variable: `real`, `complex`, `whole` or `natural` (from 0 on)."""
    nodes = [list(walk(formula)) for formula in formulas]
    counted = [_counted(found) for found in nodes]
    # One formula alone cannot make a variable of the other a whole number.
    natural = set.intersection(*counted)
    has_counted = any(counted)
    has_complex = any(map(_has_complex_operation, nodes))
    kinds = {}
    for name in names:
        base = name.partition("_")[0]
        if name in natural:
            kinds[name] = "natural"
        elif base in WHOLE_NAMES:
            kinds[name] = "natural" if has_counted else "whole"
        elif has_complex or base in _COMPLEX_NAMES:
            kinds[name] = "complex"
        else:
            kinds[name] = "real"
    return kinds


def _has_complex_operation(nodes: Iterable[Node]) -> bool:
    for node in nodes:
        if isinstance(node, Operation) and node.name in _COMPLEX_OPERATIONS:
            return True
    return False


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
    names = sorted(kinds)
    for value in largest:
        for sign in (1, -1):
            point = {}
            for place, name in enumerate(names, 1):
                size = 3 * value * place
                is_natural = kinds[name] == "natural"
                point[name] = size if is_natural else size * sign
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
        if not is_moderate:
            return None
        whole = number.mid().floor().unique_fmpz()
    if whole is None:
        return None
    return fmpq(whole)


def _seed(formulas: tuple[Node, Node]) -> int:
    """Return a number that depends on two formulas, in either order."""
    texts = sorted(map(repr, formulas))
    joined = "\0".join(texts).encode()
    digest = hashlib.sha256(joined).digest()
    return int.from_bytes(digest[:16], "big")


def _drawn(kind: str, index: int, is_special: bool, draw: random.Random) -> Scalar:
    if kind in ("whole", "natural"):
        return fmpq(_whole(kind, index, draw))
    if is_special:
        return fmpq(draw.randint(-2 * LARGEST_SPECIAL, 2 * LARGEST_SPECIAL), 2)
    if kind == "complex":
        return _complex(index, draw)
    return _real(index, draw)


def _complex(index: int, draw: random.Random) -> acb:
    """Return a complex number whose parts a ball holds exactly, whatever its precision."""
    scale = _COMPLEX_SCALES[index % len(_COMPLEX_SCALES)]
    real = _part(scale, draw)
    imaginary = _part(scale, draw)
    return acb(real, imaginary)


def _part(scale: int, draw: random.Random) -> arb:
    """Return an odd multiple of 1/128 of either sign, up to about `scale`."""
    in_64ths = draw.randint(-64 * scale, 64 * scale) + fmpq(1, 2)
    return arb(in_64ths / 64)


def _whole(kind: str, index: int, draw: random.Random) -> int:
    """Return each small number in turn, then larger ones; every third one is negative if it may be."""
    if index in _HUGE_AT:
        size = draw.randint(10**6, 10**12)
    elif index < _NUM_SMALL:
        size = index // 2 + 1
    else:
        largest = 40 if index % 2 == 0 else 400
        size = draw.randint(8, largest)
    is_negative = kind == "whole" and index % 3 == 2
    return -size if is_negative else size


def _real(index: int, draw: random.Random) -> fmpq:
    """Return a number of either sign: most often up to 30, at times up to 10,000, at three points huge."""
    is_huge = index in _HUGE_AT
    scale = _HUGE if is_huge else _REAL_SCALES[index % len(_REAL_SCALES)]
    denominator = draw.choice(_DENOMINATORS)
    numerator = draw.randint(scale // 10 + 1, 100 * scale)
    size = fmpq(numerator, denominator)
    is_negative = index % 2 == 1 if is_huge else draw.random() < 0.5
    return -size if is_negative else size
