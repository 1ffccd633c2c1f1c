"""What calls remember from one training step to the next.

    step s of a call:  memory as s steps left it ──copied──▶ memory as s + 1 steps leave it

A step that was withdrawn has run some of its calls. A recovery point of the step before must not have what
those calls have remembered since, so the memory of each step is kept until no recovery point can ask for it.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

Memory = dict[str, Tensor]
"""What one call remembers, by name; the same on every rank of the call."""


class CallMemories:
    """The memories of a worker's calls, by call and by the number of training steps that made them."""

    def __init__(self, remembered: Mapping[str, Memory] | None = None, step: int = 0) -> None:
        """`remembered`: the memories, by call, that a run resumes with after `step` training steps."""
        self._by_call: dict[str, dict[int, Memory]] = {}
        for call, memory in (remembered or {}).items():
            self._by_call[call] = {step: memory}

    def for_step(self, call: str, step: int) -> Memory:
        """Return the memory that the call may read and change in training step `step`.

        A call that is repeated within a step continues with what it remembered in that step.
        """
        versions = self._by_call.setdefault(call, {})
        made = step + 1
        if made not in versions:
            before = self.after(call, step)
            versions[made] = {name: tensor.clone() for name, tensor in before.items()}
        return versions[made]

    def after(self, call: str, num_steps: int) -> Memory:
        """Return what the call remembered when `num_steps` training steps were done."""
        versions = self._by_call.get(call, {})
        newest = max((made for made in versions if made <= num_steps), default=None)
        return {} if newest is None else versions[newest]

    def drop_before(self, num_steps: int) -> None:
        """Forget what no recovery point after `num_steps` steps, or more, can ask for."""
        for versions in self._by_call.values():
            older = sorted(made for made in versions if made <= num_steps)
            for made in older[:-1]:
                del versions[made]
