"""Which pass of which micro-batch a pipeline stage makes when.

A stage has `vp` chunks of layers. Micro-batches go through the stages in rounds of at least `pp`: a whole
round through all chunks before the next. Backward passes follow in the same order, with the chunks reversed.
So messages between two stages have the same order at both ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from realrl.api.mesh import ParallelLayout


class Kind(Enum):
    """What a pass computes."""

    FORWARD = "F"
    BACKWARD = "B"
    """The gradient of its input, which the stage before waits for."""
    WEIGHTS = "W"
    """The gradients of its weights, which nobody waits for until the last."""


class Pass(NamedTuple):
    """A micro-batch through one chunk of a stage's layers."""

    kind: Kind
    micro: int
    chunk: int


def forward_order(layout: ParallelLayout, num_micros: int) -> Iterator[Pass]:
    """The forward passes of any stage."""
    for micros in _rounds(layout, num_micros):
        for chunk in range(layout.vp):
            yield from (Pass(Kind.FORWARD, micro, chunk) for micro in micros)


def training_order(layout: ParallelLayout, pp_rank: int, num_micros: int) -> Iterator[Pass]:
    """All passes of a stage: forward until the pipeline is full, then forward and backward in turn.

    A stage puts the weights' passes off for as many micro-batches as there are stages before it: the first
    starts them at once, the last fills with them the time in which gradients are on their way back. Held
    activations stay as many as the first stage has anyway.
    Source: one forward, one backward: Narayanan et al. 2021, arXiv:2104.04473, sections 2.2.1 and 2.2.2;
        weights apart: Qi et al. 2023, arXiv:2401.10241, section 2.3 (ZB-H1).
    """
    forward = deque(forward_order(layout, num_micros))
    backward = deque(Pass(Kind.BACKWARD, micro, layout.vp - 1 - chunk) for _, micro, chunk in forward)
    put_off: deque[Pass] = deque()
    stages_after = layout.pp - 1 - pp_rank
    ahead = stages_after
    if layout.vp > 1:
        ahead = 2 * stages_after + (layout.vp - 1) * max(map(len, _rounds(layout, num_micros)))
    for _ in range(min(ahead, len(forward))):
        yield forward.popleft()
    while backward:
        if forward:
            yield forward.popleft()
        done = backward.popleft()
        yield done
        put_off.append(done._replace(kind=Kind.WEIGHTS))
        if len(put_off) > pp_rank:
            yield put_off.popleft()
    yield from put_off


def _rounds(layout: ParallelLayout, num_micros: int) -> list[range]:
    """As many as have `pp` micro-batches each, or one; with fewer in a round, stages would wait for ever."""
    num = max(1, num_micros // layout.pp)
    return [range(i * num_micros // num, (i + 1) * num_micros // num) for i in range(num)]
