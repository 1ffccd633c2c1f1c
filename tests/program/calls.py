"""Instructions that run a call of some name, for tests that look at nothing else of it."""

from __future__ import annotations

from typing import Any

from realrl.api.graph import CallKind, ModelFunctionCall
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.program.instructions import RunCall


def run_call(name: str, ranks: tuple[int, ...], seq: int, **others: Any) -> RunCall:
    """Return a call of no model on `ranks`, as sent with the number `seq`."""
    placement = Placement(DeviceMesh(ranks), ParallelLayout(dp=len(ranks)))
    shares = ((),) * len(ranks)
    function = ModelFunctionCall(name, None, CallKind.COMPUTE)
    return RunCall(function=function, placement=placement, seq=seq, job=0, shares=shares, version=0, **others)
