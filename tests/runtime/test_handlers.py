"""Every kind of instruction has a handler in the worker."""

from typing import get_args

from realrl.program.instructions import AnyInstruction
from realrl.runtime.worker.worker import HANDLERS


def test_a_worker_handles_every_kind_of_instruction():
    """And nothing that is none."""
    assert set(HANDLERS) == set(get_args(AnyInstruction))
