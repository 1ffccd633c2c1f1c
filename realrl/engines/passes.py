"""Passes of micro-batches through one rank's pipeline stage of a decoder.

Shapes: U computed tokens of a micro-batch, T tokens of its samples, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from realrl.api.batch import PackedBatch
from realrl.models.decoder import Decoder
from realrl.ops.attention import packed_attention
from realrl.ops.linear import WeightGradients
from realrl.parallel.microbatch import Microbatch, in_batch_order, split
from realrl.parallel.pipeline import Passed, StageLink, run_forward, run_training

Head = Callable[[Tensor, Microbatch], Tensor]
"""`(hidden [U, H] behind the last layer, micro-batch) -> result [T] or loss`."""


class StagePasses:
    """Runs batches through a stage, in micro-batches; messages to other stages included."""

    def __init__(
        self, model: Decoder, link: StageLink, *, device: torch.device, max_tokens: int, share_prompts: bool
    ) -> None:
        """`max_tokens`: the budget of a micro-batch; `share_prompts`: see `EngineOptions`."""
        self.model = model
        self.link = link
        self._device = device
        self._max_tokens = max_tokens
        # CUDA's flash attention has no window across a prefix.
        has_window = any(window is not None for window in model.config.windows)
        cannot_share = device.type == "cuda" and has_window
        self._share_prompts = share_prompts and not cannot_share

    def split(self, batch: PackedBatch, *, whole_rows: bool = False) -> list[Microbatch]:
        """Return a batch's micro-batches, on the device; with `whole_rows`, a dataset row is not split."""
        on_host = batch.to("cpu")
        micros = split(
            on_host,
            self._max_tokens,
            share_prompts=self._share_prompts,
            whole_rows=whole_rows,
        )
        return [micro.to(self._device) for micro in micros]

    def infer(
        self, batch: PackedBatch, micros: Sequence[Microbatch], head: Head, passed: Passed
    ) -> Tensor | None:
        """Return what `head` computes, in the order of the batch's samples, on the CPU: `[T]`.

        Collective: over the slice. None except on the last stage.
        """
        step = self._step(head)
        outputs = run_forward(
            self.link,
            micros,
            step,
            self.model.num_rows,
            passed,
        )
        if not self.model.is_last:
            return None
        return in_batch_order(batch, micros, outputs).cpu()

    def train(
        self,
        micros: Sequence[Microbatch],
        loss: Head,
        weight_gradients: WeightGradients | None,
        passed: Passed,
    ) -> None:
        """Add up the gradients of the sum of `loss` over micro-batches.

        Collective: over the slice.
        """
        step = self._step(loss)
        run_training(
            self.link,
            micros,
            step,
            self.model.num_rows,
            weight_gradients,
            passed,
        )

    def _step(self, head: Head) -> Callable[[Microbatch, Tensor | None, int], Tensor]:
        """Return a pass through one chunk, behind the last of which `head` is applied."""

        def step(micro: Microbatch, hidden: Tensor | None, chunk: int) -> Tensor:
            """Return hidden states, or behind the last chunk what the head computes."""
            hidden = self.forward(micro, hidden, chunk)
            return head(hidden, micro) if self.link.is_last(chunk) else hidden

        return step

    def forward(self, micro: Microbatch, hidden: Tensor | None, chunk: int) -> Tensor:
        """Return the hidden states behind a chunk of layers: `[U, H]`, or this rank's share of them."""
        model = self.model
        segments = micro.segments

        def attend(layer: int, qkv: Tensor) -> Tensor:
            """Attend within each sample, and to a shared prompt."""
            rule = model.attention_rule(layer)
            return packed_attention(
                qkv,
                model.num_kv_heads,
                segments,
                **rule,
            )

        positions = segments.on(self._device).positions
        return model.forward(
            micro.ids,
            hidden,
            positions,
            attend,
            chunk=chunk,
            spread=True,
        )

    def logprobs(self, hidden: Tensor, micro: Microbatch, temperature: float) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and entropies, both float32 `[T]`, 0 at tokens that are not masked.

        Logits are computed for masked tokens only, each from the token before it.
        """
        batch = micro.batch
        assert batch.responses is not None, "a micro-batch knows its masked tokens"
        labels = batch["input_ids"][batch.responses]
        before_labels = hidden[micro.sources]
        logprobs, entropies = self.model.logprobs(before_labels, labels, temperature)
        zeros = torch.zeros(batch.num_tokens, device=hidden.device)

        where = (batch.responses,)
        all_logprobs = zeros.index_put(where, logprobs)
        all_entropies = zeros.index_put(where, entropies)
        return all_logprobs, all_entropies

    def values(self, hidden: Tensor, micro: Microbatch) -> Tensor:
        """Return the scalar head's values, float32 `[T]`."""
        return self.model.values(hidden)[micro.index]
