"""What an engine is: a model on a placement, seen from one rank.

    CallEngine     Generates + Infers + Trains     what the body of a call may ask for
    Engine         CallEngine + HoldsWeights       what the runtime asks of every engine
    HomeEngine     Engine + KeepsState             what it also asks of the engine where a model lives

Two classes implement these: `realrl.engines.decoder_engine.DecoderEngine`, which can do everything, and
`realrl.engines.vllm.engine.VLLMEngine`, an `Engine` that generates and refuses the rest. The docstrings below
are the contract; `tests/engines/test_contract.py` holds every implementation to it.

Ranks
    Each rank of a placement has an engine object of its own. A method that is *collective* over some ranks is
    called by all of them, in the same order, with equal settings and each with its own share of the samples:
    a *slice* is the (pp, tp) ranks of one data-parallel replica, which pass equal batches.
    An engine whose placement is one rank needs no process group.

Versions
    `version` counts the training steps behind the weights. It is `NO_WEIGHTS` while weights are absent, or
    while they arrive. An engine reads it and does not count: who changes the weights sets it.

Errors
    `ValueError`: a setting, a checkpoint or a request that cannot be served; it says what to change.
    `FloatingPointError`: a result is not finite; nothing was returned or updated.
    `RuntimeError`: the engine itself failed, as by the death of a process that it owns.
    A refusal is raised before anything is computed, on every rank alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from realrl.api.config import GenerationConfig
from realrl.api.metrics import Metrics
from realrl.base.progress import Progress

if TYPE_CHECKING:  # configs and the command line's help load this module, and have no need of torch
    from torch import Tensor

    from realrl.api.batch import PackedBatch

NO_WEIGHTS = -1
"""The version of weights that are absent or incomplete."""

Ends = Callable[[Sequence[int]], bool]
"""`(tokens of a response)`: whether the response ends with its last token."""

Loss: TypeAlias = "Callable[[Tensor, PackedBatch], tuple[Tensor, Metrics]]"
"""`(log-probabilities or values [T], micro-batch) -> (loss, metrics)`; micro-batches' losses are summed."""


@dataclass(frozen=True)
class Preemption:
    """Preemption points of a generate call: whether other work of its rank is waiting, and how to run it."""

    pending: Callable[[], bool] = lambda: False
    """Whether work is waiting. Ranks that generate together ask one of them, between two tokens."""
    run: Callable[[], None] = lambda: None
    """Run the work, which may bring new weights. All ranks that generate together do."""


NO_PREEMPTION = Preemption()


class Generates(Protocol):
    """Draws responses."""

    def generate(
        self,
        batch: PackedBatch,
        config: GenerationConfig,
        *,
        seed: int,
        step: int,
        ends: Ends | None = None,
        preemption: Preemption = NO_PREEMPTION,
    ) -> PackedBatch:
        """Return a response to each sample of `batch`, a batch of `prompts`.

        The result has the samples of `batch`, in its order. Each sample is its prompt and its response, end
        to end, with these keys:

            input_ids        int64 [T]
            loss_mask        bool [T], True at response tokens
            logprobs         float32 [T], at the sampling temperature over the whole vocabulary, whatever
                             top-k and top-p leave out; 0 at prompt tokens
            raw_logprobs     float32 [T], at temperature 1; NaN where the engine has only the former
            policy_versions  int64 [T], the version of the weights that drew the token; -1 at prompt tokens
            ended            bool [B], whether the response ended before `max_new_tokens` stopped it

        A response ends with a token of the model's own end tokens or of `config.stop_token_ids`, with a token
        that completes a string of `config.stop` where `ends` knows of them, and wherever else `ends` says so;
        never within the first `config.min_new_tokens` tokens.

        The tokens of a sample depend on `seed`, `step`, the sample's id and the weights. They do not depend
        on the other samples, except by rounding on CUDA and in vLLM, where the order of sums depends on the
        shape of a batch.

        While it generates, an engine calls `preemption.run` when `preemption.pending`. An engine that accepts
        new weights there recomputes what depends on them and continues: later tokens have the new version.

        Collective: over the slice. Every rank of it returns the same batch.
        Raises:
            FloatingPointError: a log-probability is not finite.
            ValueError: the longest sample does not fit into the cache.
        """


class Infers(Protocol):
    """Scores given tokens, without gradients."""

    def logprobs(self, batch: PackedBatch, *, temperature: float) -> Tensor | None:
        """Return each masked token's log-probability after the tokens before it: float32 `[T]`, 0 elsewhere.

        `batch` has `input_ids` and `loss_mask`. The result is on the CPU.

        Collective: over the slice. Ranks of the last pipeline stage return it, other ranks None.
        Raises:
            FloatingPointError: one is not finite.
        """

    def logprobs_and_entropies(
        self, batch: PackedBatch, *, temperature: float
    ) -> tuple[Tensor, Tensor] | None:
        """Return `logprobs`, and the entropy in nats of what each was drawn from: float32 `[T]` each.

        Collective, results and errors: as for `logprobs`.
        """

    def values(self, batch: PackedBatch) -> Tensor | None:
        """Return the scalar head's value of the state after each token: float32 `[T]`.

        Collective, results and errors: as for `logprobs`.
        """


class Trains(Protocol):
    """Updates the weights, at the model's home."""

    def train_logprobs(
        self,
        batch: PackedBatch,
        loss: Loss,
        *,
        lr: float,
        temperature: float,
        whole_rows: bool = False,
        accept: Callable[[], bool] = lambda: True,
    ) -> Metrics:
        """Make one optimizer step on a loss of `logprobs`; `entropy [T]` is a key of its micro-batches.

        The loss normalises itself, so that the number of micro-batches does not change the result. With
        `whole_rows`, the samples of a dataset row are in one micro-batch, for a loss of several. `accept` is
        asked once the loss has seen every micro-batch; False, the same on every rank, leaves the step out.
        The caller sets `version`.

        Returns the loss's metrics (on the last stage), and `lr`, `skipped_updates` and, unless the update was
        skipped, `grad_norm`. An update whose gradient is not finite is skipped.

        Collective: over the placement.
        Raises:
            FloatingPointError: a log-probability is not finite, or several updates in a row were skipped.
        """

    def train_values(self, batch: PackedBatch, loss: Loss, *, lr: float, whole_rows: bool = False) -> Metrics:
        """Make one optimizer step on a loss of `values`; everything else is as for `train_logprobs`."""


class CallEngine(Generates, Infers, Trains, Protocol):
    """The engine that the body of a call gets. What it cannot do it refuses by a `ValueError`."""


class HoldsWeights(Protocol):
    """Has a model's weights, or memory for them."""

    version: int

    def local_tensors(self) -> Mapping[str, Tensor]:
        """Return this rank's tensors of the layout that `models.layout.decoder_layout` gives the placement.

        They are the weights, brought back if they were offloaded; or memory for weights that arrive, if there
        are none. Who writes into them sets `version` to `NO_WEIGHTS` before, and to the new version after.
        """

    def adopt(self, *, version: int) -> None:
        """Take what was written into `local_tensors` as the weights of `version`; training begins anew."""

    def release(self) -> None:
        """Free the memory of weights that others bring again; `version` becomes `NO_WEIGHTS`."""

    def end_decoding(self) -> None:
        """Free what is kept between generations in this process."""

    def reporting(self, progress: Progress) -> AbstractContextManager[None]:
        """Within this context, call `progress` for each token of a generation and each micro-batch's pass."""

    def close(self) -> None:
        """End what runs outside of this object, such as a process. The engine is not used again."""


class Engine(CallEngine, HoldsWeights, Protocol):
    """A model on a placement."""


class SavedState(Protocol):
    """This rank's shard of everything that resuming a model needs."""

    def copied(self) -> SavedState:
        """Return a copy in host memory, which later training does not change."""

    def write(self, directory: Path) -> Path:
        """Write it as one file in `directory`; return the file."""


class KeepsState(Protocol):
    """Has a model's only copy: it is loaded, saved and resumed here."""

    def load(self, directory: Path) -> None:
        """Read this rank's weights from a Hugging Face checkpoint; `version` becomes 0.

        Raises:
            ValueError: a weight is missing, has another shape, or is not finite.
        """

    def restore(self, directory: Path, *, version: int) -> None:
        """Resume from the `state` that the ranks of any layout wrote to `directory`.

        Collective: over the data-parallel ranks.
        """

    def state(self) -> SavedState:
        """Return this rank's state, as views that change with the model."""

    def offload(self) -> None:
        """Move weights and optimizer states to host memory."""

    def onload(self) -> None:
        """Begin to bring back what was offloaded; the first use waits for it."""


class HomeEngine(Engine, KeepsState, Protocol):
    """The engine where a model lives: at its home placement."""
