"""One rank's shard of a model, and what can be done with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from realrl.api.batch import PackedBatch
from realrl.api.config import GenerationConfig, OptimizerConfig
from realrl.api.metrics import read
from realrl.api.recipe import NO_BREAKS, Breaks, Mean, Metrics, joined
from realrl.base.progress import Progress, no_progress
from realrl.base.seeding import derive_seed
from realrl.engines.finite import not_finite, why_not_finite
from realrl.engines.gradients import copies, finished_by_products, sum_shared
from realrl.engines.master_dither import spread
from realrl.engines.state import State
from realrl.layouts.layout import Layout
from realrl.models.config import DecoderConfig
from realrl.models.decoder import Decoder
from realrl.models.decoding import KeptDecoding
from realrl.models.generation import Ends, Generator
from realrl.models.layout import Head, decoder_layout, local_tensors
from realrl.models.sequences import batch_of, rollouts_of
from realrl.ops.attention import packed_attention
from realrl.ops.linear import WeightGradients
from realrl.parallel.flat import FlatTensors
from realrl.parallel.groups import Groups
from realrl.parallel.microbatch import Microbatch, in_batch_order, split
from realrl.parallel.optimizer import ShardedAdamW
from realrl.parallel.pipeline import StageLink, run_forward, run_training
from realrl.parallel.zero_shards import blocks_of, gather, shards_of, share_of
from realrl.realloc import checkpoint
from realrl.realloc.offload import Arrival, HostCopy

Loss = Callable[[Tensor, PackedBatch], tuple[Tensor, Metrics]]
"""`(logprobs or values [T], micro-batch) -> (loss, metrics)`; losses of all micro-batches are summed."""


_LOGPROBS, _VALUES = "log-probabilities", "values"

NO_WEIGHTS = -1
"""The version of weights that are absent, or not whole."""


class Engine:
    """A model on a placement, seen from one rank.

    Every method but those that bring weights or take them away is collective over the placement's
    data-parallel slice, those that train over the whole placement. `logprobs` and `values` come on the
    last stage alone, elsewhere None; a generated batch comes on every rank.
    """

    def __init__(
        self,
        decoder: DecoderConfig,
        head: Head,
        groups: Groups,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
        max_tokens_per_microbatch: int,
        share_prompts: bool = True,
        deterministic: bool = False,
        gradient_checkpointing: bool = False,
        sequence_pieces: int = 0,
        add_products: bool | None = None,
        sum_early: bool = False,
        optimizer: OptimizerConfig | None = None,
    ) -> None:
        """`add_products`: the product that makes a matrix's gradient adds it to the sum over micro-batches,
        and is put off in pipelines; None: on CUDA. On CPUs this gains nothing, and products that were put off
        took longer than the idle time that they filled.
        `sum_early`: data-parallel ranks sum the gradients that are complete while the last backward passes
        run; wants `add_products`."""
        self.decoder, self.groups, self.placement, self.head = decoder, groups, groups.placement, head
        self.dtype, self.device = dtype, torch.device(device)
        self.layout: Layout = decoder_layout(decoder, self.placement, head)
        self.version = NO_WEIGHTS
        """Train steps behind the weights."""
        self._max_tokens = max_tokens_per_microbatch
        # CUDA's flash attention has no window across a prefix.
        has_window = any(window is not None for window in decoder.windows)
        self._share_prompts = share_prompts and not (self.device.type == "cuda" and has_window)
        self._shapes = {
            t.name: t.shape for t in local_tensors(decoder, self.placement.layout, groups.place, head)
        }
        self._link = StageLink(groups, decoder.hidden_size, dtype, self.device)
        self._sums_early = sum_early
        self._weight_gradients: WeightGradients | None = None
        adds = self.device.type == "cuda" if add_products is None else add_products
        if adds and optimizer is not None:
            puts_off = self.placement.layout.pp > 1
            self._weight_gradients = WeightGradients(self._sum_of, self._finished, puts_off=puts_off)
        self._model = Decoder(
            decoder,
            groups,
            head,
            {},
            deterministic=deterministic,
            recompute=gradient_checkpointing,
            weight_gradients=self._weight_gradients,
            sequence_pieces=sequence_pieces,
        )
        self._decoding = KeptDecoding()
        self._flat: FlatTensors | None = None
        self._on_host: tuple[int, HostCopy] | None = None
        self._arrival: Arrival | None = None
        self._states_on_host: dict[str, HostCopy] = {}
        self._states_arrival: dict[str, Arrival] = {}
        self._progress = no_progress
        self._optimizer: ShardedAdamW | None = None
        if optimizer:
            self._optimizer = self._make_optimizer(optimizer)
            self._accumulate_gradients()

    @contextmanager
    def reporting(self, progress: Progress) -> Iterator[None]:
        """Tell `progress` meanwhile of each token of a generation, and of each pass of a micro-batch."""
        before, self._progress = self._progress, progress
        try:
            yield
        finally:
            self._progress = before

    def local_tensors(self) -> dict[str, Tensor]:
        """This rank's weights: brought back if they were offloaded, allocated if they were released."""
        if self._flat is None:
            if self._arrival is None and self._on_host is not None and self._on_host[0] == self.version:
                self.onload()
            self._allocate(None if self._arrival is None else self._arrival.wait())
            self._arrival = None
            if self._optimizer:
                self._go_on_training()
        return self._flat.views

    def release(self) -> None:
        """Give the weights' memory back."""
        assert self._optimizer is None, "a model in training may be offloaded, but not released"
        self.end_decoding()
        self._flat, self._model.weights, self.version = None, {}, NO_WEIGHTS

    def end_decoding(self) -> None:
        """Give back what is kept from one generation to the next: the cache, and steps recorded with it."""
        self._decoding.drop()

    def offload(self) -> None:
        """Keep weights and optimizer states in host memory alone.

        Weights that are there in the same version are not copied again.
        """
        self.end_decoding()
        if self._on_host is None or self._on_host[0] != self.version:
            self.local_tensors()
            self._on_host = self.version, HostCopy(self._flat.buffer)
        if self._optimizer and self._flat is not None:
            states = self._optimizer.put_away()
            self._states_on_host = {name: HostCopy(tensor) for name, tensor in states.items()}
        self._flat, self._arrival, self._states_arrival, self._model.weights = None, None, {}, {}

    def onload(self) -> None:
        """Begin to bring back what was offloaded; whoever uses it next waits for it."""
        if self._flat is None and self._on_host is not None:
            self._arrival = self._on_host[1].bring_back()
            self._states_arrival = {name: host.bring_back() for name, host in self._states_on_host.items()}

    def _go_on_training(self) -> None:
        """With weights that were brought back, and will change: the host's copy is of no more use."""
        states = {name: arrival.wait() for name, arrival in self._states_arrival.items()}
        self._optimizer.bring_back(self._flat, states)
        self._states_arrival, self._states_on_host, self._on_host = {}, {}, None
        self._accumulate_gradients()

    def _allocate(self, buffer: Tensor | None) -> None:
        multiple_of = self.placement.layout.dp
        self._flat = FlatTensors(self._shapes, self.dtype, self.device, multiple_of, buffer)
        self._model.weights = self._flat.views

    def load(self, directory: Path) -> None:
        """Read this rank's boxes from a Hugging Face checkpoint.

        A scalar head that the checkpoint lacks starts at zero.

        Raises:
            ValueError: a weight has NaN or infinities.
        """
        head, base = self.decoder.scalar_head, self.decoder.names.base
        present = checkpoint.file_layout(directory, base).extents()
        wanted = Layout(tuple(p for p in self.layout.patterns if p.tensor != head or head in present))
        weights = self.local_tensors()
        target = self._gradients() if self._optimizer else weights
        checkpoint.load(directory, wanted, self.groups.rank, target, base=base)
        self._begin(version=0)
        if name := not_finite(self.layout.shards(self.groups.rank), weights):
            dtype = str(self.dtype).removeprefix("torch.")
            raise ValueError(
                f"{directory}: the weight {name} has NaN or infinities as {dtype}; give other weights, or the"
                " dtype that they were made in"
            )

    def adopt(self, *, version: int) -> None:
        """Take what was written into `local_tensors` for the weights."""
        self.local_tensors()
        if self._optimizer:
            self._optimizer.gradients.copy_(self._flat.buffer)
        self._begin(version)

    def state(self) -> State:
        """This rank's share of all that the model would need to be gone on with, as views."""
        weights, optimizer = self.local_tensors(), self._optimizer
        share = share_of(len(self._flat.buffer), self.groups)
        blocks = list(blocks_of(self._flat.spans, {name: w.shape for name, w in weights.items()}, share))
        return State(
            self.groups.rank,
            blocks,
            list(shards_of(blocks, self.layout, self.groups.rank)),
            optimizer.sharded if optimizer else {"weights": self._flat.buffer[slice(*share)]},
            optimizer.common if optimizer else {},
        )

    @torch.no_grad()
    def restore(self, directory: Path, *, version: int) -> None:
        """Go on from the states that were written to `directory`, by ranks of whatever layout.

        Collective: over the data-parallel ranks.
        """
        self.state().read(directory)
        if self._optimizer:
            self._optimizer.publish()
        else:
            gather(self._flat.buffer, self.groups)
        self.version = version

    def _begin(self, version: int) -> None:
        """With the weights, or if they are trained, with their masters in the room of the gradients."""
        self.version = version
        if self._optimizer:
            masters = self._optimizer.gradients
            if self.dtype == torch.bfloat16:
                spread(self.layout, self.groups.rank, self._gradients())
            self._optimizer.reload(masters)
            masters.zero_()

    def _gradients(self) -> dict[str, Tensor]:
        return {name: self._gradient(name) for name in self._shapes}

    def logprobs(self, batch: PackedBatch, *, temperature: float) -> Tensor | None:
        """Each masked token's log-probability after the tokens before it: float32 `[T]`, 0 elsewhere."""
        return self._infer(
            batch, lambda hidden, micro: self._logprobs(hidden, micro, temperature)[0], _LOGPROBS
        )

    def values(self, batch: PackedBatch) -> Tensor | None:
        """The value of the state after each token: float32 `[T]`.

        Raises:
            FloatingPointError: one is no finite number; so do all methods below that compute.
        """
        return self._infer(batch, self._values, _VALUES)

    def _infer(
        self, batch: PackedBatch, head: Callable[[Tensor, Microbatch], Tensor], what: str
    ) -> Tensor | None:
        def step(micro: Microbatch, hidden: Tensor | None, chunk: int) -> Tensor:
            hidden = self._forward(micro, hidden, chunk)
            return head(hidden, micro) if self._link.is_last(chunk) else hidden

        self.end_decoding()
        micros = self._split(batch)
        outputs = run_forward(self._link, micros, step, self._model.num_rows, self._passed(len(batch)))
        if not self.groups.is_last_stage:
            return None
        found = in_batch_order(batch, micros, outputs).cpu()
        self._require_finite(bool(found.isfinite().all()), what)
        return found

    def _passed(self, num_samples: int) -> Callable[[float], None]:
        """Tells what share of some samples' passes is done."""
        progress = self._progress
        return lambda share: progress(int(share * num_samples), num_samples)

    def _split(self, batch: PackedBatch, *, whole_rows: bool = False) -> list[Microbatch]:
        micros = split(
            batch.to("cpu"), self._max_tokens, share_prompts=self._share_prompts, whole_rows=whole_rows
        )
        return [micro.to(self.device) for micro in micros]

    def generate(
        self,
        batch: PackedBatch,
        config: GenerationConfig,
        *,
        seed: int,
        step: int,
        ends: Ends | None = None,
        breaks: Breaks = NO_BREAKS,
    ) -> PackedBatch:
        """A response to each of `prompts`.

        Returns `input_ids`, `loss_mask`, `logprobs` at the sampling temperature, `raw_logprobs` at
        temperature 1, `policy_versions`, and a sample's `ended`: whether it came to its end before
        `max_new_tokens`.
        `ends` says whether a response ends with its last token, where that is none of the model's own or of
        the config's tokens for that.
        Between two tokens, when one is due, it takes a break, after which it goes on with the weights that
        there are then.

        A sample's tokens depend on the seed, the step and the sample's id, not on the batch around it; on
        CUDA but for rounding, as products are summed in another order when more sequences are decoded.
        """
        self.local_tensors()
        own = frozenset((*self.decoder.eos_token_ids, *config.stop_token_ids))
        generator = Generator(
            self._model,
            self._link,
            config,
            max_prefill_tokens=self._max_tokens,
            ends=lambda tokens: tokens[-1] in own or (ends is not None and ends(tokens)),
            version=lambda: self.version,
            kept=self._decoding,
            breaks=breaks,
            progress=self._progress,
            why_not_finite=self._why_not_finite,
        )
        rollouts = rollouts_of(batch, [derive_seed(seed, step, s.id) for s in batch.samples])
        generator.run(rollouts)
        return batch_of(batch.samples, rollouts)

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
        """One optimizer step on a loss of `logprobs`; the loss finds `entropy [T]` in its micro-batch.

        With `whole_rows`, the samples of a dataset row are in one micro-batch, for a loss of both. `accept`
        is asked once the loss has seen every micro-batch: False, the same on every rank, leaves the step out.

        Collective: over the placement.
        """

        def head(hidden: Tensor, micro: Microbatch) -> tuple[Tensor, PackedBatch]:
            logprobs, entropy = self._logprobs(hidden, micro, temperature)
            return logprobs, micro.batch.with_keys(tokens={"entropy": entropy})

        micros = self._split(batch, whole_rows=whole_rows)
        return self._train(micros, head, loss, lr, what=_LOGPROBS, accept=accept)

    def train_values(self, batch: PackedBatch, loss: Loss, *, lr: float, whole_rows: bool = False) -> Metrics:
        """One optimizer step on a loss of `values`; `whole_rows` as in `train_logprobs`.

        Collective: over the placement.
        """

        def head(hidden: Tensor, micro: Microbatch) -> tuple[Tensor, PackedBatch]:
            return self._values(hidden, micro), micro.batch

        return self._train(self._split(batch, whole_rows=whole_rows), head, loss, lr, what=_VALUES)

    def _train(
        self,
        micros: list[Microbatch],
        head: Callable[[Tensor, Microbatch], tuple[Tensor, PackedBatch]],
        loss: Loss,
        lr: float,
        *,
        what: str,
        accept: Callable[[], bool] = lambda: True,
    ) -> Metrics:
        """A step on a loss of what the head gives. What is noted of a micro-batch is read after the last."""
        metrics: list[Metrics] = []
        are_finite: list[Tensor] = []

        def step(micro: Microbatch, hidden: Tensor | None, chunk: int) -> Tensor:
            hidden = self._forward(micro, hidden, chunk)
            if not self._link.is_last(chunk):
                return hidden
            numbers, seen = head(hidden, micro)
            are_finite.append(numbers.detach().isfinite().all())
            its_loss, found = loss(numbers, seen)
            metrics.append(found)
            return its_loss

        self.end_decoding()
        passed = self._passed(sum(len(micro.batch) for micro in micros))
        run_training(self._link, micros, step, self._model.num_rows, self._weight_gradients, passed)
        if are_finite:
            self._require_finite(bool(torch.stack(are_finite).all()), what)
        found = read(joined(*metrics))
        if not accept():
            self._optimizer.discard()
            return found
        sum_shared(self._model, self._gradient, self._shapes)
        return joined(found, self._step(lr))

    def _step(self, lr: float) -> Metrics:
        """Make the optimizer's step; where the gradient is no number there is none, and no norm to report."""
        norm = self._optimizer.step(lr)
        is_skipped = not math.isfinite(norm)
        metrics = {"lr": Mean(lr, 1.0), "skipped_updates": Mean(float(is_skipped), 1.0)}
        return metrics if is_skipped else {"grad_norm": Mean(norm, 1.0), **metrics}

    def _make_optimizer(self, config: OptimizerConfig) -> ShardedAdamW:
        self.local_tensors()
        return ShardedAdamW(
            self._flat,
            copies(self.layout, self.groups, self._flat, self._shapes),
            self.groups,
            config,
            states_device="cpu" if config.offload else None,
            summed_early=finished_by_products(self._model, self._shapes) if self._sums_early else None,
        )

    def _accumulate_gradients(self) -> None:
        for name, weight in self._flat.views.items():
            _accumulate_into(self._gradient(name), weight)

    def _sum_of(self, weight: Tensor) -> Tensor:
        return self._optimizer.sum_of(weight)

    def _finished(self, weight: Tensor) -> None:
        self._optimizer.finished(weight)

    def _gradient(self, name: str) -> Tensor:
        start, stop = self._flat.spans[name]
        return self._optimizer.gradients[start:stop].view(self._shapes[name])

    def _forward(self, micro: Microbatch, hidden: Tensor | None, chunk: int) -> Tensor:
        self.local_tensors()
        model, segments = self._model, micro.segments

        def attend(layer: int, qkv: Tensor) -> Tensor:
            return packed_attention(qkv, model.num_kv_heads, segments, **model.attention_rule(layer))

        positions = segments.on(self.device).positions
        return model.forward(micro.ids, hidden, positions, attend, chunk=chunk, spread=True)

    def _logprobs(self, hidden: Tensor, micro: Microbatch, temperature: float) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies, both `[T]`; logits are made for the masked tokens alone, each from
        the token before it."""
        batch = micro.batch
        labels = batch["input_ids"][batch.responses]
        found = self._model.logprobs(hidden[micro.sources], labels, temperature)
        zeros = torch.zeros(batch.num_tokens, device=hidden.device)
        return tuple(zeros.index_put((batch.responses,), x) for x in found)

    def _values(self, hidden: Tensor, micro: Microbatch) -> Tensor:
        return self._model.values(hidden)[micro.index]

    def _require_finite(self, are_finite: bool, what: str) -> None:
        if not are_finite:
            raise FloatingPointError(f"{what} are not finite: {self._why_not_finite()}")

    def _why_not_finite(self) -> str:
        """Which of this rank's weights are to blame, in the checkpoint's words, or that none is."""
        return why_not_finite(self.layout.shards(self.groups.rank), self._flat.views, self.version)


def _accumulate_into(gradient: Tensor, weight: Tensor) -> None:
    """Add each micro-batch's gradient to a float32 sum, whatever the weight's type."""

    def add(weight: Tensor) -> None:
        gradient.add_(weight.grad)
        weight.grad = None

    weight.requires_grad_().register_post_accumulate_grad_hook(add)
