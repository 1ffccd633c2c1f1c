"""The table that tells which rule compares two kinds of values."""

from __future__ import annotations

from itertools import product
from typing import get_args

from realrl.verifier.comparison import COMPARISONS, DIFFERENT
from realrl.verifier.tree import Value

KINDS = frozenset(get_args(Value))


def test_every_pair_of_kinds_either_has_a_rule_or_is_different():
    """No pair is left out, and none is in both tables."""
    different = {(answer, solution) for answer, others in DIFFERENT.items() for solution in others}
    assert len(KINDS) == 13
    assert COMPARISONS.keys() | different == set(product(KINDS, KINDS))
    assert not COMPARISONS.keys() & different


def test_every_kind_is_compared_with_itself():
    """A value means itself, so its kind has a rule for two of them."""
    assert all((kind, kind) in COMPARISONS for kind in KINDS)
