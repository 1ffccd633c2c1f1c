"""One rank's shard of a model, and what can be done with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from realrl.api.batch import PackedBatch, Sample, pack
from realrl.api.config import GenerationConfig, OptimizerConfig
from realrl.api.recipe import Mean
from realrl.layouts.layout import Layout
from realrl.models.config import DecoderConfig
from realrl.models.decoder import Decoder, positions_of
from realrl.models.generation import generate
from realrl.models.layout import SCALAR_HEAD, Head, decoder_layout, local_tensors
from realrl.models.sampling import uniforms_of
from realrl.ops.attention import packed_attention
from realrl.parallel.flat import FlatTensors
from realrl.parallel.groups import Groups, all_reduce
from realrl.parallel.microbatch import split
from realrl.parallel.optimizer import ShardedAdamW, Span
from realrl.parallel.pipeline import StageLink, run_1f1b, run_forward
from realrl.realloc import checkpoint
from realrl.realloc.offload import Arrival, HostCopy

Loss = Callable[[Tensor, PackedBatch], tuple[Tensor, Mapping[str, Mean]]]
"""`(logprobs or values [T], micro-batch) -> (loss, metrics)`; losses of all micro-batches are summed."""


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
        optimizer: OptimizerConfig | None = None,
    ) -> None:
        self.groups, self.placement, self.head = groups, groups.placement, head
        self.dtype, self.device = dtype, torch.device(device)
        self.layout: Layout = decoder_layout(decoder, self.placement, head)
        self.version = NO_WEIGHTS
        """Train steps behind the weights."""
        self._max_tokens = max_tokens_per_microbatch
        self._shapes = {
            t.name: t.shape for t in local_tensors(decoder, self.placement.layout, groups.place, head)
        }
        self._link = StageLink(groups, decoder.hidden_size, dtype, self.device)
        self._decoder = Decoder(decoder, groups, head, {})
        self._flat: FlatTensors | None = None
        self._on_host: tuple[int, HostCopy] | None = None
        self._arrival: Arrival | None = None
        self._optimizer = self._make_optimizer(optimizer) if optimizer else None

    def local_tensors(self) -> dict[str, Tensor]:
        """This rank's weights: brought back if they were offloaded, allocated if they were released."""
        if self._flat is None:
            if self._arrival is None and self._on_host is not None and self._on_host[0] == self.version:
                self.onload()
            self._allocate(None if self._arrival is None else self._arrival.wait())
            self._arrival = None
        return self._flat.views

    def release(self) -> None:
        """Give the weights' memory back."""
        assert self._optimizer is None, "a model in training keeps its weights"
        self._flat, self._decoder.weights, self.version = None, {}, NO_WEIGHTS

    def offload(self) -> None:
        """Keep the weights in host memory alone; what is there of the same version is not copied again."""
        assert self._optimizer is None, "a model in training keeps its weights"
        if self._on_host is None or self._on_host[0] != self.version:
            self.local_tensors()
            self._on_host = self.version, HostCopy(self._flat.buffer)
        self._flat, self._arrival, self._decoder.weights = None, None, {}

    def onload(self) -> None:
        """Begin to bring offloaded weights back; whoever uses them next waits for them."""
        if self._flat is None and self._on_host is not None:
            self._arrival = self._on_host[1].bring_back()

    def _allocate(self, buffer: Tensor | None) -> None:
        multiple_of = self.placement.layout.dp
        self._flat = FlatTensors(self._shapes, self.dtype, self.device, multiple_of, buffer)
        self._decoder.weights = self._flat.views

    def load(self, directory: Path) -> None:
        """Read this rank's boxes from a Hugging Face checkpoint.

        A scalar head that the checkpoint lacks starts at zero.
        """
        present = checkpoint.file_layout(directory).extents()
        wanted = (p for p in self.layout.patterns if p.tensor != SCALAR_HEAD or SCALAR_HEAD in present)
        checkpoint.load(directory, Layout(tuple(wanted)), self.groups.rank, self.local_tensors())
        self.version = 0
        if self._optimizer:
            self._optimizer.reload()

    def logprobs(self, batch: PackedBatch, *, temperature: float) -> Tensor | None:
        """Each masked token's log-probability after the tokens before it: float32 `[T]`, 0 elsewhere."""
        return self._infer(batch, lambda hidden, micro: self._logprobs(hidden, micro, temperature))

    def values(self, batch: PackedBatch) -> Tensor | None:
        """The value of the state after each token: float32 `[T]`."""
        return self._infer(batch, lambda hidden, micro: self._decoder.values(hidden))

    def _infer(self, batch: PackedBatch, head: Callable[[Tensor, PackedBatch], Tensor]) -> Tensor | None:
        def step(micro: PackedBatch, hidden: Tensor | None) -> Tensor:
            hidden = self._forward(micro, hidden)
            return head(hidden, micro) if self.groups.is_last_stage else hidden

        outputs = run_forward(self._link, split(batch.to(self.device), self._max_tokens), step)
        if not self.groups.is_last_stage:
            return None
        return torch.cat(outputs).cpu() if outputs else torch.empty(0)

    def generate(self, batch: PackedBatch, config: GenerationConfig, *, seed: int, step: int) -> PackedBatch:
        """A response to each prompt: the batch with `input_ids`, `logprobs` and `loss_mask`.

        A sample's tokens depend on the seed, the step and the sample's id, not on the batch around it.
        """
        if not len(batch):
            nothing = {"logprobs": torch.empty(0), "loss_mask": torch.empty(0, dtype=torch.bool)}
            return batch.with_keys(tokens={"input_ids": batch["prompts"], **nothing})
        self.local_tensors()
        prompts = batch.unpacked("prompts")
        uniforms = uniforms_of(seed, step, [s.id for s in batch.samples], config.max_new_tokens)
        responses = generate(self._decoder, self._link, prompts, uniforms, config)
        return _joined(batch.samples, prompts, responses.tokens, responses.logprobs)

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        return self._decoder.config.eos_token_ids

    def train_logprobs(
        self, batch: PackedBatch, loss: Loss, *, lr: float, temperature: float
    ) -> dict[str, Mean]:
        """One optimizer step on a loss of `logprobs`. Collective over the placement."""
        return self._train(batch, lambda h, micro: loss(self._logprobs(h, micro, temperature), micro), lr)

    def train_values(self, batch: PackedBatch, loss: Loss, *, lr: float) -> dict[str, Mean]:
        """One optimizer step on a loss of `values`. Collective over the placement."""
        return self._train(batch, lambda h, micro: loss(self._decoder.values(h), micro), lr)

    def _train(
        self,
        batch: PackedBatch,
        head: Callable[[Tensor, PackedBatch], tuple[Tensor, Mapping[str, Mean]]],
        lr: float,
    ) -> dict[str, Mean]:
        metrics: dict[str, Mean] = {}

        def step(micro: PackedBatch, hidden: Tensor | None) -> Tensor:
            hidden = self._forward(micro, hidden)
            if not self.groups.is_last_stage:
                return hidden
            loss, found = head(hidden, micro)
            for name, (total, weight) in found.items():
                before = metrics.get(name, Mean(0.0, 0.0))
                metrics[name] = Mean(before.total + total, before.weight + weight)
            return loss

        run_1f1b(self._link, split(batch.to(self.device), self._max_tokens), step)
        self._sum_shared_gradients()
        metrics["grad_norm"] = Mean(self._optimizer.step(lr), 1.0)
        metrics["lr"] = Mean(lr, 1.0)
        return metrics

    def _make_optimizer(self, config: OptimizerConfig) -> ShardedAdamW:
        weights = self.local_tensors()
        optimizer = ShardedAdamW(self._flat, self._copies(), self.groups, config)
        for name, weight in weights.items():
            start, stop = self._flat.spans[name]
            _accumulate_into(optimizer.gradients[start:stop].view(weight.shape), weight)
        return optimizer

    def _copies(self) -> list[Span]:
        """Spans of the flat weights, each with the number of ranks of this slice that hold it."""
        holders = Counter(
            shard.box
            for rank in self.placement.dp_slice(self.groups.place.dp_rank)
            for shard in self.layout.shards(rank)
        )
        spans = []
        for shard in self.layout.shards(self.groups.rank):
            columns = self._shapes[shard.local][-1] if len(shard.offset) > 1 else 1
            start = self._flat.spans[shard.local][0] + shard.offset[0] * columns
            spans.append((start, start + shard.box.numel, holders[shard.box]))
        return spans

    def _sum_shared_gradients(self) -> None:
        """Add up what several ranks of a slice each have a part of: tied embeddings, shared K/V heads."""
        for name in ("embed", "head"):
            if (
                self.groups.tied is not None
                and self._decoder.config.tied
                and self.head == "lm"
                and name in self._shapes
            ):
                all_reduce(self._gradient(name), self.groups.tied)
        if self.placement.layout.tp > self._decoder.config.num_kv_heads:
            for layer in self._decoder.layers:
                self._sum_shared_kv_gradient(self._gradient(f"layers.{layer}.qkv"))

    def _sum_shared_kv_gradient(self, gradient: Tensor) -> None:
        config, (_, _, tp_rank) = self._decoder.config, self.groups.place
        own = gradient[self._decoder.num_heads * config.head_dim :]
        by_head = own.new_zeros(config.num_kv_heads, *own.shape)
        head = tp_rank * config.num_kv_heads // self.placement.layout.tp
        by_head[head] = own
        own.copy_(all_reduce(by_head, self.groups.tp)[head])

    def _gradient(self, name: str) -> Tensor:
        start, stop = self._flat.spans[name]
        return self._optimizer.gradients[start:stop].view(self._shapes[name])

    def _forward(self, micro: PackedBatch, hidden: Tensor | None) -> Tensor:
        self.local_tensors()
        positions = positions_of(micro.cu_seqlens).to(self.device)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return packed_attention(q, k, v, micro.cu_seqlens)

        return self._decoder.forward(micro["input_ids"], hidden, positions, attend)

    def _logprobs(self, hidden: Tensor, micro: PackedBatch, temperature: float) -> Tensor:
        """Logits are made for the masked tokens alone."""
        targets = micro["loss_mask"].nonzero()[:, 0]
        found = self._decoder.logprobs(hidden[targets - 1], micro["input_ids"][targets], temperature)
        return found.new_zeros(micro.num_tokens).index_put((targets,), found)


def _accumulate_into(gradient: Tensor, weight: Tensor) -> None:
    """Add each micro-batch's gradient to a float32 sum, whatever the weight's type."""

    def add(weight: Tensor) -> None:
        gradient.add_(weight.grad)
        weight.grad = None

    weight.requires_grad_().register_post_accumulate_grad_hook(add)


def _joined(
    samples: tuple[Sample, ...], prompts: list[Tensor], tokens: list[list[int]], logprobs: list[list[float]]
) -> PackedBatch:
    """Prompts and responses end to end; a prompt's tokens are unmasked, with log-probability 0."""
    ids, all_logprobs, masks = [], [], []
    for prompt, response, response_logprobs in zip(prompts, tokens, logprobs, strict=True):
        ids.append(torch.cat((prompt, torch.tensor(response, dtype=torch.long))))
        all_logprobs.append(torch.tensor([0.0] * len(prompt) + response_logprobs))
        masks.append(torch.arange(len(ids[-1])) >= len(prompt))
    return pack(samples, {"input_ids": ids, "logprobs": all_logprobs, "loss_mask": masks})
