"""The order of a pipeline's passes, against a simulation of its stages."""

from __future__ import annotations

from collections import defaultdict
from itertools import product

import pytest

from realrl.api.mesh import ParallelLayout
from realrl.parallel.pipeline_schedule import Kind, Pass, forward_order, training_order

SHAPES = [
    (ParallelLayout(pp=pp, vp=vp), num_micros)
    for pp, vp, num_micros in product((1, 2, 3, 4, 6), (1, 2, 3), (0, 1, 2, 3, 4, 5, 8, 11))
    if pp > 1 or vp == 1
]


def needs(layout: ParallelLayout, stage: int, step: Pass) -> list[tuple[int, Pass]]:
    """The passes that a pass waits for, each with its stage; from the definition of a pipeline."""
    kind, micro, chunk = step
    depth, last = chunk * layout.pp + stage, layout.pp * layout.vp - 1

    def at(kind: Kind, depth: int) -> tuple[int, Pass]:
        return depth % layout.pp, Pass(kind, micro, depth // layout.pp)

    if kind is Kind.FORWARD:
        return [at(kind, depth - 1)] if depth else []
    if kind is Kind.BACKWARD:
        return [at(Kind.FORWARD, depth)] + ([at(kind, depth + 1)] if depth < last else [])
    return [at(Kind.BACKWARD, depth)]


def simulate(layout: ParallelLayout, orders: list[list[Pass]]) -> dict[tuple[int, Pass], int]:
    """When each pass ends, if each takes a second; fails where stages wait for each other."""
    ends: dict[tuple[int, Pass], int] = {}
    clocks, positions = [0] * layout.pp, [0] * layout.pp
    while any(positions[s] < len(orders[s]) for s in range(layout.pp)):
        ready = [
            (max([clocks[s]] + [ends[n] for n in needs(layout, s, orders[s][positions[s]])]), s)
            for s in range(layout.pp)
            if positions[s] < len(orders[s])
            and all(n in ends for n in needs(layout, s, orders[s][positions[s]]))
        ]
        assert ready, "every stage waits"
        start, stage = min(ready)
        clocks[stage] = start + 1
        ends[stage, orders[stage][positions[stage]]] = start + 1
        positions[stage] += 1
    return ends


def orders_of(layout: ParallelLayout, num_micros: int) -> list[list[Pass]]:
    return [list(training_order(layout, stage, num_micros)) for stage in range(layout.pp)]


@pytest.mark.parametrize("layout, num_micros", SHAPES, ids=str)
def test_every_pass_comes_once_and_no_stage_waits_for_ever(layout, num_micros):
    orders = orders_of(layout, num_micros)
    expected = {Pass(k, m, r) for k in Kind for m in range(num_micros) for r in range(layout.vp)}
    for order in orders:
        assert len(order) == len(expected) and set(order) == expected
    simulate(layout, orders)


@pytest.mark.parametrize("layout, num_micros", SHAPES, ids=str)
def test_messages_have_one_order_at_both_ends(layout, num_micros):
    """On each wire: hidden states forward and gradients back, those over the ring's seam apart."""
    sent, received = defaultdict(list), defaultdict(list)
    for stage, order in enumerate(orders_of(layout, num_micros)):
        for step in order:
            for source, earlier in needs(layout, stage, step):
                if source != stage:
                    seam = {source, stage} == {0, layout.pp - 1} and earlier.chunk != step.chunk
                    received[step.kind, source, stage, seam].append(earlier)
            sent[stage].append(step)
    for (kind, source, _, _), steps in received.items():
        wanted = set(steps)
        assert [s for s in sent[source] if s.kind is kind and s in wanted] == steps


@pytest.mark.parametrize("layout, num_micros", SHAPES, ids=str)
def test_inference_goes_through_the_same_passes(layout, num_micros):
    orders = [list(forward_order(layout, num_micros))] * layout.pp
    assert len(simulate(layout, orders)) == layout.pp * layout.vp * num_micros


@pytest.mark.parametrize("pp, num_micros", list(product((2, 3, 4, 6), (6, 8, 13))))
def test_idle_time_is_a_third_of_plain_1f1b(pp, num_micros):
    """(pp - 1)(F + B - W) instead of (pp - 1)(F + B + W): Qi et al. 2023, table 1."""
    layout = ParallelLayout(pp=pp)
    assert max(simulate(layout, orders_of(layout, num_micros)).values()) == 3 * num_micros + pp - 1


@pytest.mark.parametrize("pp, vp, rounds", list(product((2, 3, 4), (2, 3), (2, 4))))
def test_interleaving_shortens_the_idle_time(pp, vp, rounds):
    """In time of whole stages: a pass is one of `vp` parts."""
    layout, num_micros = ParallelLayout(pp=pp, vp=vp), pp * rounds
    idle = max(simulate(layout, orders_of(layout, num_micros)).values()) / vp - 3 * num_micros
    assert idle < pp - 1


@pytest.mark.parametrize("layout, num_micros", SHAPES, ids=str)
def test_held_micro_batches_are_bounded(layout, num_micros):
    """Between a forward pass and its weights' pass: whatever the number of micro-batches."""
    for order in orders_of(layout, num_micros):
        held = most = 0
        for step in order:
            held += {Kind.FORWARD: 1, Kind.BACKWARD: 0, Kind.WEIGHTS: -1}[step.kind]
            most = max(most, held)
        assert most <= (layout.pp if layout.vp == 1 else layout.pp * (2 * layout.vp + 1))
