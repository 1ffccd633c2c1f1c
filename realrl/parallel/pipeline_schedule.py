"""The order of a pipeline stage's passes.

A stage has `vp` chunks of layers. Micro-batches go through the stages in rounds of at least `pp`: a whole
round through all chunks before the next. Backward passes follow in the same order, with the chunks reversed.
Messages between two stages therefore have the same order at both ends. Two stages, three micro-batches:

    stage 0    F0 F1 B0 W0 F2 B1 W1 B2 W2
    stage 1    F0 B0 F1 B1 W0 F2 B2 W1 W2
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
    """The gradient of the pass's input, which the stage before waits for."""
    WEIGHTS = "W"
    """The gradients of the chunk's weights, which no stage waits for until the end of the step."""


class Pass(NamedTuple):
    """The pass of a micro-batch through one chunk of a stage's layers."""

    kind: Kind
    micro: int
    chunk: int


def forward_order(layout: ParallelLayout, num_micros: int) -> Iterator[Pass]:
    """Yield the forward passes of any stage, in their order."""
    for micros in _rounds(layout, num_micros):
        for chunk in range(layout.vp):
            for micro in micros:
                yield Pass(Kind.FORWARD, micro, chunk)


def training_order(layout: ParallelLayout, pp_rank: int, num_micros: int) -> Iterator[Pass]:
    """Yield all passes of a stage: forward until the pipeline is full, then forward and backward in turn.

    A stage puts the weights' passes off for as many micro-batches as there are stages before it: the first
    starts them at once, the last fills with them the time in which gradients are on their way back. The
    number of held activations stays that of the first stage.
    Source: one forward, one backward: Narayanan et al. 2021, arXiv:2104.04473, sections 2.2.1 and 2.2.2;
        weights apart: Qi et al. 2023, arXiv:2401.10241, section 2.3 (ZB-H1).
    """
    forward = deque(forward_order(layout, num_micros))
    backward: deque[Pass] = deque()
    for each in forward:
        chunk = layout.vp - 1 - each.chunk
        backward.append(Pass(Kind.BACKWARD, each.micro, chunk))

    put_off: deque[Pass] = deque()
    num_ahead = _passes_ahead(layout, pp_rank, num_micros)
    for _ in range(min(num_ahead, len(forward))):
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


def _passes_ahead(layout: ParallelLayout, pp_rank: int, num_micros: int) -> int:
    """Count the forward passes that a stage makes before its first pair of forward and backward."""
    stages_after = layout.pp - 1 - pp_rank
    if layout.vp == 1:
        return stages_after
    longest_round = max(map(len, _rounds(layout, num_micros)))
    return 2 * stages_after + (layout.vp - 1) * longest_round


def _rounds(layout: ParallelLayout, num_micros: int) -> list[range]:
    """Return as many rounds as have at least `pp` micro-batches each, but at least one.

    With fewer micro-batches in a round, stages would wait for each other forever.
    """
    num_full = num_micros // layout.pp
    num_rounds = max(1, num_full)
    rounds = []
    start = 0
    for number in range(1, num_rounds + 1):
        stop = number * num_micros // num_rounds
        rounds.append(range(start, stop))
        start = stop
    return rounds
