"""What calls remember, from one step to the next and in recovery points."""

import torch

from realrl.runtime.worker.call_memories import CallMemories


def _add_step(memories: CallMemories, step: int) -> None:
    """Let a call remember the sum of its steps' numbers, in place as bodies may."""
    memory = memories.for_step("call", step)
    memory.setdefault("sum", torch.zeros(1)).add_(step)


def _sum(memories: CallMemories, num_steps: int) -> float:
    return float(memories.after("call", num_steps).get("sum", torch.zeros(1)))


def test_each_step_is_left_as_it_was():
    """The memory after each step is a running sum, whatever later steps made of it."""
    memories = CallMemories()
    for step in range(4):
        _add_step(memories, step)
    assert [_sum(memories, n) for n in range(5)] == [0, 0, 1, 3, 6]


def test_a_repeated_call_goes_on_within_its_step():
    memories = CallMemories()
    _add_step(memories, 5)
    _add_step(memories, 5)
    assert (_sum(memories, 5), _sum(memories, 6)) == (0, 10)


def test_what_a_run_resumes_with_is_of_its_step():
    """A call that sat out steps has what it last remembered."""
    memories = CallMemories({"call": {"sum": torch.tensor([7.0])}}, step=3)
    _add_step(memories, 4)
    assert (_sum(memories, 3), _sum(memories, 4), _sum(memories, 5)) == (7, 7, 11)
    assert memories.after("other", 9) == {}


def test_only_what_a_recovery_point_can_ask_for_is_kept():
    memories = CallMemories()
    for step in range(6):
        _add_step(memories, step)
    memories.drop_before(4)
    assert [_sum(memories, n) for n in (4, 5, 6)] == [6, 10, 15]
    assert sum(len(versions) for versions in memories._by_call.values()) == 3
