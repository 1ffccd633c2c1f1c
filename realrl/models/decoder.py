"""The packed decoder: one pipeline stage of it, on one tensor-parallel rank.

Shapes: T packed tokens, H hidden size, N heads on this rank (queries', keys', values'), D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from realrl.models.config import DecoderConfig
from realrl.models.layout import Head, kv_heads, layer_chunks, stage_layers
from realrl.models.rope import inverse_frequencies
from realrl.ops.gated import activate, gated
from realrl.ops.linear import PackedWeight, WeightGradients, linear
from realrl.ops.norm import rms_norm
from realrl.ops.rotary import rotate
from realrl.parallel.groups import Groups
from realrl.parallel.sequence import SequenceParallel
from realrl.parallel.tensor import TensorParallel
from realrl.parallel.vocab import label_logprobs, vocab_logprobs

Attend = Callable[[int, Tensor], Tensor]
"""`(layer, qkv [T, N, D]) -> [T, Q, D]`, Q the query heads: who sees whom is the caller's."""


class _Shared(NamedTuple):
    """What all layers of a pass have in common."""

    tp: TensorParallel
    rotation: tuple[Tensor, Tensor] | None
    attend: Attend


class Decoder:
    """A stage's arithmetic over weights that its caller owns. What a family lacks, it has no weights for."""

    def __init__(
        self,
        config: DecoderConfig,
        groups: Groups,
        head: Head,
        weights: Mapping[str, Tensor],
        *,
        deterministic: bool = False,
        recompute: bool = False,
        weight_gradients: WeightGradients | None = None,
        sequence_pieces: int = 0,
    ) -> None:
        """`deterministic`, `weight_gradients`: as `TensorParallel` has them. `recompute`: a backward pass
        finds each layer's input alone, and computes the layer again (Chen et al. 2016, arXiv:1604.06174).
        `sequence_pieces`: `forward` may spread tokens over the tensor-parallel ranks, in so many pieces (0:
        it may not); not where `deterministic`, which wants the sums that generation makes."""
        self.config, self.groups, self.head, self.weights = config, groups, head, weights
        self._recompute = recompute
        self._packed: dict[str, PackedWeight] = {}
        self._tp = TensorParallel(groups.tp, deterministic=deterministic, weight_gradients=weight_gradients)
        self._sp: SequenceParallel | None = None
        if sequence_pieces and groups.tp is not None and not deterministic:
            self._sp = SequenceParallel(
                groups.tp, num_pieces=sequence_pieces, weight_gradients=weight_gradients
            )
        layout, place = groups.placement.layout, groups.place
        self.is_last = groups.is_last_stage
        self.chunks = layer_chunks(config, layout, place.pp_rank)
        self.layers = stage_layers(config, layout, place.pp_rank)
        """Of all chunks."""
        self.num_heads = config.num_heads // layout.tp
        self.num_kv_heads = len(kv_heads(config, layout.tp, place.tp_rank))
        rows = -(-config.vocab_size // layout.tp)
        self._num_real_logits = min(rows, config.vocab_size - place.tp_rank * rows)
        self._frequencies = config.rope and inverse_frequencies(config.rope, config.head_dim)

    def forward(
        self,
        ids: Tensor,
        hidden: Tensor | None,
        positions: Tensor,
        attend: Attend,
        *,
        chunk: int = 0,
        spread: bool = False,
    ) -> Tensor:
        """Through a chunk of this stage's layers, and the final norm behind the last: `[T, H]`.

        `hidden` comes from the chunk before; without one, `ids [T]` are embedded. `spread`: where the decoder
        may, hidden states between chunks are this rank's `num_rows(T)` rows.
        """
        tp = self._sp if spread and self._sp else self._tp
        num_tokens = len(ids)
        ids, positions = tp.padded(ids), tp.padded(positions)
        if hidden is None:
            hidden = self._embedded(tp, ids, positions)

        def attend_tokens(layer: int, qkv: Tensor) -> Tensor:
            return tp.padded(attend(layer, qkv[:num_tokens]))

        shared = _Shared(tp, self._rotation(positions), attend_tokens)
        for layer in self.chunks[chunk]:
            if self._recompute and torch.is_grad_enabled():
                hidden = checkpoint(
                    self._layer, layer, hidden, shared, use_reentrant=False, preserve_rng_state=False
                )
            else:
                hidden = self._layer(layer, hidden, shared)
        ends = self.is_last and chunk == len(self.chunks) - 1
        return tp.whole(self._norm("norm", hidden))[:num_tokens] if ends else hidden

    def num_rows(self, num_tokens: int) -> int:
        """Rows of the hidden states between chunks, of tokens that are spread where they may be."""
        return self._sp.num_rows(num_tokens) if self._sp else num_tokens

    @property
    def spreads(self) -> bool:
        """Whether tokens may be spread, so that a rank's gradients of norms are those of its own tokens."""
        return self._sp is not None

    def attention_rule(self, layer: int) -> dict:
        """How a layer attends, as keyword arguments of the attention kernels."""
        config = self.config
        return {
            "scale": config.score_scale,
            "window": config.window(layer),
            "softcap": config.attention_softcap,
        }

    def values(self, hidden: Tensor) -> Tensor:
        """The scalar head: float32 `[T]`."""
        weight_gradients = self._tp.weight_gradients
        return linear(hidden, self.weights["head"], weight_gradients=weight_gradients)[:, 0].float()

    def logprobs(self, hidden: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Of logits over `temperature`: log-probability of `labels [T]`, and entropy; float32 `[T]` each."""
        return vocab_logprobs(
            hidden,
            self.weights[self._head_name],
            labels,
            self.groups.tp,
            num_real=self._num_real_logits,
            temperature=temperature,
            softcap=self.config.logit_softcap,
            entropy=True,
            tiled=self._tp.deterministic,
            weight_gradients=self._tp.weight_gradients,
        )

    def logits_part(self, hidden: Tensor) -> Tensor:
        """This rank's columns `[T, V_part]` of the logits, in the type of `hidden`, before any soft cap."""
        return linear(hidden, self._matrix(self._head_name), tiled=self._tp.deterministic)

    def logits(self, logits_part: Tensor) -> Tensor:
        """`[T, V]`, whole on every tensor-parallel rank; not differentiable across them.

        In float32 where there is a soft cap, else in the type of the part, whose memory it may share.
        """
        logits = self._tp.gather(logits_part)[:, : self.config.vocab_size]
        cap = self.config.logit_softcap
        return logits if cap is None else torch.tanh(logits.float() / cap) * cap

    def label_logprobs(self, logits_part: Tensor, labels: Tensor, temperature: float) -> Tensor:
        """As `logprobs`, from logits: float32 `[T]`, the same bits."""
        return label_logprobs(
            logits_part,
            labels,
            self.groups.tp,
            num_real=self._num_real_logits,
            temperature=temperature,
            softcap=self.config.logit_softcap,
        )

    @contextmanager
    def packed(self, num_rows: int) -> Iterator[None]:
        """Meanwhile, products are fastest with about `num_rows` rows; for that, matrices are held twice.

        Not where arithmetic is deterministic: the layout changes the order of sums.
        """
        names = [name for name, weight in self.weights.items() if self._may_pack(name, weight)]
        self._packed = {name: PackedWeight(self._plain_matrix(name), num_rows) for name in names}
        try:
            yield
        finally:
            self._packed = {}

    @contextmanager
    def unpacked(self) -> Iterator[None]:
        """Meanwhile, products are those of the weights themselves, which may change."""
        packed, self._packed = self._packed, {}
        try:
            yield
        finally:
            self._packed = packed

    def _may_pack(self, name: str, weight: Tensor) -> bool:
        is_product = name.startswith("layers.") or (self.is_last and name == self._head_name)
        return is_product and weight.dim() == 2 and not self._tp.deterministic and PackedWeight.fits(weight)

    @property
    def _head_name(self) -> str:
        return "head" if "head" in self.weights else "embed"

    def _embedded(self, tp: TensorParallel, ids: Tensor, positions: Tensor) -> Tensor:
        hidden = tp.embedding(ids, self.weights["embed"])
        if self.config.embed_scale != 1:
            hidden = hidden * torch.tensor(self.config.embed_scale, dtype=hidden.dtype)
        if "positions" in self.weights:
            hidden = hidden + F.embedding(tp.own(positions), self.weights["positions"])
        return hidden

    def _layer(self, layer: int, hidden: Tensor, shared: _Shared) -> Tensor:
        name = f"layers.{layer}."
        hidden = self._added(hidden, name + "attn", self._attention(layer, hidden, shared))
        return self._added(hidden, name + "mlp", self._mlp(name, hidden, shared.tp))

    def _attention(self, layer: int, hidden: Tensor, shared: _Shared) -> Tensor:
        name, (tp, rotation, attend) = f"layers.{layer}.", shared
        qkv = self._column(tp, name + "qkv", self._norm(name + "attn_norm", hidden))
        qkv = self._normed_heads(name, qkv.view(len(qkv), -1, self.config.head_dim))
        if rotation is not None:
            qkv = rotate(qkv, *rotation, self.num_heads + self.num_kv_heads)
        return self._row(tp, name + "attn_out", attend(layer, qkv).flatten(1))

    def _normed_heads(self, name: str, qkv: Tensor) -> Tensor:
        if f"{name}q_norm" not in self.weights:
            return qkv
        q, k, v = qkv.split((self.num_heads, self.num_kv_heads, self.num_kv_heads), dim=1)
        return torch.cat((self._norm(name + "q_norm", q), self._norm(name + "k_norm", k), v), dim=1)

    def _mlp(self, name: str, hidden: Tensor, tp: TensorParallel) -> Tensor:
        x = self._column(tp, name + "gate_up", self._norm(name + "mlp_norm", hidden))
        act = gated if self.config.gated else activate
        return self._row(tp, name + "mlp_down", act(x, self.config.activation))

    def _added(self, hidden: Tensor, part: str, delta: Tensor) -> Tensor:
        if f"{part}_post_norm" in self.weights:
            delta = self._norm(f"{part}_post_norm", delta)
        return hidden + delta

    def _column(self, tp: TensorParallel, name: str, x: Tensor) -> Tensor:
        return tp.column(x, self._matrix(name), self.weights.get(f"{name}_bias"))

    def _row(self, tp: TensorParallel, name: str, x_part: Tensor) -> Tensor:
        return tp.row(x_part, self._matrix(name), self.weights.get(f"{name}_bias"))

    def _matrix(self, name: str) -> Tensor | PackedWeight:
        return self._packed.get(name) or self._plain_matrix(name)

    def _plain_matrix(self, name: str) -> Tensor:
        transposed = self.config.names.transposed and name.startswith("layers.")
        return self.weights[name].t() if transposed else self.weights[name]

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.weights[name], self.weights.get(f"{name}_bias")
        if self.config.norm == "layer":
            return F.layer_norm(x, weight.shape, weight, bias, self.config.norm_eps)
        return rms_norm(x, weight, eps=self.config.norm_eps, offset=self.config.norm_offset)

    def _rotation(self, positions: Tensor) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines of rotary embeddings: float32 `[T, D/2]`."""
        if self._frequencies is None:
            return None
        if self._frequencies.device != positions.device:
            self._frequencies = self._frequencies.to(positions.device)
        angles = positions[:, None].float() * self._frequencies
        factor = self.config.rope.attention_factor
        return angles.cos() * factor, angles.sin() * factor
