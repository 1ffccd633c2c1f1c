"""One pipeline stage of the packed decoder, on one tensor-parallel rank.

Shapes: T packed tokens, H hidden size, N heads on this rank (of queries, keys and values), Q of queries, D
head size. In a micro-batch, U computed tokens and T of its samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from realrl.api.batch import PackedBatch
from realrl.models.config import DecoderConfig
from realrl.models.layout import Head, kv_heads, layer_chunks, local_tensors, padded_vocab, stage_layers
from realrl.models.rope import Rotary
from realrl.ops.attention import packed_attention
from realrl.ops.gated import activate, gated
from realrl.ops.linear import PackedWeight, WeightGradients, linear
from realrl.ops.norm import rms_norm
from realrl.ops.rotary import rotate
from realrl.parallel.groups import Groups
from realrl.parallel.microbatch import Microbatch
from realrl.parallel.sequence import SequenceParallel
from realrl.parallel.tensor import TensorParallel
from realrl.parallel.vocab import label_logprobs, vocab_logprobs

Attend = Callable[[int, Tensor], Tensor]
"""`(layer, qkv [T, N, D]) -> [T, Q, D]`; the caller decides which tokens each token sees."""


class _Shared(NamedTuple):
    """What all layers of a pass share."""

    tp: TensorParallel
    rotation: tuple[Tensor, Tensor] | None
    attend: Attend


class _AttentionArguments(TypedDict):
    """Scaling, sliding window and soft cap of a layer's attention."""

    scale: float
    window: int | None
    softcap: float | None


class Decoder:
    """A stage's arithmetic over weights that its caller owns.

    A family that lacks a part has no weights of its name.
    """

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
        """`deterministic` and `weight_gradients` are those of `TensorParallel`.

        With `recompute`, only each layer's input is kept for the backward pass, which computes the layer
        again (Chen et al. 2016, arXiv:1604.06174).

        `sequence_pieces` lets `forward` spread tokens over the tensor-parallel ranks, in this many pieces; 0:
        never. `deterministic` overrides it, because the sums would differ from those of generation.
        """
        self.config = config
        self.groups = groups
        self.head = head
        self.weights = weights
        self._recompute = recompute
        self._packed: dict[str, PackedWeight] = {}
        self._tp = TensorParallel(groups.tp, deterministic=deterministic, weight_gradients=weight_gradients)
        self._sp: SequenceParallel | None = None
        if not deterministic:
            self._sp = _sequence_parallel(groups, sequence_pieces, weight_gradients)
        layout = groups.placement.layout
        place = groups.place
        self.is_last = groups.is_last_stage
        self.chunks = layer_chunks(config, layout, place.pp_rank)
        self.layers = stage_layers(config, layout, place.pp_rank)
        """The layers of all chunks."""
        self.num_heads = config.num_heads // layout.tp
        self.num_kv_heads = len(kv_heads(config, layout.tp, place.tp_rank))
        self._num_real_logits = _num_real_logits(config, layout.tp, place.tp_rank)
        self._rotary = Rotary(config.rope, config.head_dim) if config.rope else None
        tensors = local_tensors(config, layout, place, head)
        self._products = {tensor.name for tensor in tensors if tensor.role.is_product}
        self._transposed = {tensor.name for tensor in tensors if tensor.is_transposed}

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
        """Run a chunk of this stage's layers, and the final norm after the last layer.

        `hidden` comes from the chunk before; without it, `ids` are embedded. With `spread`, if the decoder
        spreads tokens, hidden states between chunks are this rank's `num_rows(T)` rows.

        Shapes: ids and positions int64 `[T]`; hidden `[T, H]`; returns `[T, H]`.
        """
        tp = self._sp if spread and self._sp else self._tp
        num_tokens = len(ids)
        ids = tp.padded(ids)
        positions = tp.padded(positions)
        if hidden is None:
            hidden = self._embedded(tp, ids, positions)

        def attend_tokens(layer: int, qkv: Tensor) -> Tensor:
            """Attend without the padding: `[T_padded, N, D]` to `[T_padded, Q, D]`."""
            return tp.padded(attend(layer, qkv[:num_tokens]))

        rotation = self._rotary.at(positions) if self._rotary else None
        shared = _Shared(tp, rotation, attend_tokens)
        for layer in self.chunks[chunk]:
            hidden = self._layer_or_checkpoint(layer, hidden, shared)
        is_last_chunk = chunk == len(self.chunks) - 1
        if not (self.is_last and is_last_chunk):
            return hidden
        return tp.whole(self._norm("norm", hidden))[:num_tokens]

    def forward_micro(self, micro: Microbatch, hidden: Tensor | None, chunk: int) -> Tensor:
        """Run a chunk of layers on a micro-batch; see `forward`.

        A token sees those before it in its sample, a shared prompt's included.

        Shapes: `hidden` and the result `[U, H]`; between chunks, this rank's `num_rows(U)` rows.
        """
        segments = micro.segments

        def attend(layer: int, qkv: Tensor) -> Tensor:
            """Attend within each sample, and to a shared prompt: `[U, N, D]` to `[U, Q, D]`."""
            rule = self.attention_rule(layer)
            return packed_attention(qkv, self.num_kv_heads, segments, **rule)

        positions = segments.on(micro.ids.device).positions
        return self.forward(
            micro.ids,
            hidden,
            positions,
            attend,
            chunk=chunk,
            spread=True,
        )

    def num_rows(self, num_tokens: int) -> int:
        """Return the number of rows of the hidden states between chunks, which may be a share."""
        if self._sp is None:
            return num_tokens
        return self._sp.num_rows(num_tokens)

    @property
    def spreads(self) -> bool:
        """Whether tokens may be spread, so that a rank's gradients of norms are of its own tokens only."""
        return self._sp is not None

    def attention_rule(self, layer: int) -> _AttentionArguments:
        """Return how a layer attends, as keyword arguments of the attention kernels."""
        return {
            "scale": self.config.score_scale,
            "window": self.config.window(layer),
            "softcap": self.config.attention_softcap,
        }

    def values(self, hidden: Tensor, micro: Microbatch) -> tuple[Tensor, PackedBatch]:
        """Return the scalar head's value at each token, and the micro-batch.

        Shapes: hidden `[U, H]`; values float32 `[T]`.
        """
        scalars = linear(
            hidden,
            self.weights["head"],
            weight_gradients=self._tp.weight_gradients,
        )
        values = scalars[:, 0].float()
        return values[micro.index], micro.batch

    def logprobs(
        self, hidden: Tensor, micro: Microbatch, *, temperature: float
    ) -> tuple[Tensor, PackedBatch]:
        """Return masked tokens' log-probabilities, and the micro-batch with the `entropy` of each.

        Both are of logits divided by `temperature`, and 0 at tokens that are not masked. Logits are computed
        for masked tokens only, each from the token before it.

        Shapes: hidden `[U, H]`; log-probabilities and entropies float32 `[T]`.
        """
        batch = micro.batch
        assert batch.responses is not None, "a micro-batch knows its masked tokens"
        labels = batch["input_ids"][batch.responses]
        logprobs, entropy = vocab_logprobs(
            hidden[micro.sources],
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
        assert entropy is not None, "the entropy was asked for"
        zeros = torch.zeros(batch.num_tokens, device=hidden.device)
        where = (batch.responses,)
        all_logprobs = zeros.index_put(where, logprobs)
        all_entropies = zeros.index_put(where, entropy)
        return all_logprobs, batch.with_keys(tokens={"entropy": all_entropies})

    def logits_part(self, hidden: Tensor) -> Tensor:
        """Return this rank's columns of the logits, in the dtype of `hidden`, before any soft cap.

        Shapes: `[T, H]` to `[T, V_part]`.
        """
        return linear(
            hidden,
            self._matrix(self._head_name),
            tiled=self._tp.deterministic,
        )

    def logits(self, logits_part: Tensor) -> Tensor:
        """Return the whole logits on every tensor-parallel rank; not differentiable across ranks.

        With a soft cap, they are float32. Otherwise they have the dtype of the part, and may share its
        memory.

        Shapes: `[T, V_part]` to `[T, V]`.
        """
        logits = self._tp.gather(logits_part)[:, : self.config.vocab_size]
        cap = self.config.logit_softcap
        if cap is None:
            return logits
        return torch.tanh(logits.float() / cap) * cap

    def label_logprobs(self, logits_part: Tensor, labels: Tensor, temperature: float) -> Tensor:
        """Return labels' log-probabilities from logits, with the bits that `logprobs` gives them.

        Shapes: logits_part `[T, V_part]`, labels int64 `[T]`; returns float32 `[T]`.
        """
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
        """Within the context, products are fastest with about `num_rows` rows.

        Matrices are held twice for this. Deterministic decoders stay as they are, because the layout changes
        the order of sums.
        """
        packed: dict[str, PackedWeight] = {}
        for name, weight in self.weights.items():
            if self._may_pack(name, weight):
                packed[name] = PackedWeight(self._plain_matrix(name), num_rows)

        self._packed = packed
        try:
            yield
        finally:
            self._packed = {}

    @contextmanager
    def unpacked(self) -> Iterator[None]:
        """Within the context, products use the weights themselves, which may change."""
        packed = self._packed
        self._packed = {}
        try:
            yield
        finally:
            self._packed = packed

    def _may_pack(self, name: str, weight: Tensor) -> bool:
        is_head = self.is_last and name == self._head_name
        is_product = name in self._products or is_head
        return is_product and not self._tp.deterministic and PackedWeight.fits(weight)

    @property
    def _head_name(self) -> str:
        return "head" if "head" in self.weights else "embed"

    def _embedded(self, tp: TensorParallel, ids: Tensor, positions: Tensor) -> Tensor:
        """Return the embeddings of tokens, and of learned positions: `[T]` to `[T, H]`."""
        hidden = tp.embedding(ids, self.weights["embed"])
        if self.config.embed_scale != 1:
            scale = torch.tensor(self.config.embed_scale, dtype=hidden.dtype)
            hidden = hidden * scale

        if "positions" in self.weights:
            own_positions = tp.own(positions)
            hidden = hidden + F.embedding(own_positions, self.weights["positions"])
        return hidden

    def _layer_or_checkpoint(self, layer: int, hidden: Tensor, shared: _Shared) -> Tensor:
        """Run a layer, whose input alone is kept where the backward pass recomputes."""
        if not (self._recompute and torch.is_grad_enabled()):
            return self._layer(layer, hidden, shared)
        return checkpoint(
            self._layer,
            layer,
            hidden,
            shared,
            use_reentrant=False,
            preserve_rng_state=False,
        )

    # In the following methods, an intermediate result gets no name where it would outlive its last use: the
    # activations of one step are a large part of a device's memory.

    def _layer(self, layer: int, hidden: Tensor, shared: _Shared) -> Tensor:
        """Run attention and MLP: `[T, H]` to `[T, H]`."""
        name = f"layers.{layer}."
        hidden = self._added(
            hidden,
            name + "attn",
            self._attention(layer, hidden, shared),
        )
        return self._added(
            hidden,
            name + "mlp",
            self._mlp(name, hidden, shared.tp),
        )

    def _attention(self, layer: int, hidden: Tensor, shared: _Shared) -> Tensor:
        """Return the output of a layer's attention: `[T, H]` to `[T, H]`."""
        tp, rotation, attend = shared
        name = f"layers.{layer}."
        qkv = self._column(
            tp,
            name + "qkv",
            self._norm(name + "attn_norm", hidden),
        )
        qkv = qkv.view(len(qkv), -1, self.config.head_dim)
        qkv = self._normed_heads(name, qkv)
        if rotation is not None:
            cos, sin = rotation
            num_rotated = self.num_heads + self.num_kv_heads
            qkv = rotate(qkv, cos, sin, num_rotated)

        attended = attend(layer, qkv).flatten(1)
        return self._row(tp, name + "attn_out", attended)

    def _normed_heads(self, name: str, qkv: Tensor) -> Tensor:
        """Normalise queries and keys, head by head: `[T, N, D]` to `[T, N, D]`."""
        if f"{name}q_norm" not in self.weights:
            return qkv
        sizes = self.num_heads, self.num_kv_heads, self.num_kv_heads
        q, k, v = qkv.split(sizes, dim=1)
        normed_q = self._norm(name + "q_norm", q)
        normed_k = self._norm(name + "k_norm", k)
        return torch.cat((normed_q, normed_k, v), dim=1)

    def _mlp(self, name: str, hidden: Tensor, tp: TensorParallel) -> Tensor:
        """Return the output of a layer's MLP: `[T, H]` to `[T, H]`."""
        x = self._column(
            tp,
            name + "gate_up",
            self._norm(name + "mlp_norm", hidden),
        )
        act = gated if self.config.gated else activate
        activated = act(x, self.config.activation)
        return self._row(tp, name + "mlp_down", activated)

    def _added(self, hidden: Tensor, part: str, delta: Tensor) -> Tensor:
        """Add a part's output to the hidden states, after its own norm if it has one."""
        if f"{part}_post_norm" in self.weights:
            delta = self._norm(f"{part}_post_norm", delta)
        return hidden + delta

    def _column(self, tp: TensorParallel, name: str, x: Tensor) -> Tensor:
        bias = self.weights.get(f"{name}_bias")
        return tp.column(x, self._matrix(name), bias)

    def _row(self, tp: TensorParallel, name: str, x_part: Tensor) -> Tensor:
        bias = self.weights.get(f"{name}_bias")
        return tp.row(x_part, self._matrix(name), bias)

    def _matrix(self, name: str) -> Tensor | PackedWeight:
        return self._packed.get(name) or self._plain_matrix(name)

    def _plain_matrix(self, name: str) -> Tensor:
        """Return a matrix as `[out, in]`."""
        weight = self.weights[name]
        return weight.t() if name in self._transposed else weight

    def _norm(self, name: str, x: Tensor) -> Tensor:
        """Normalise the last dim."""
        weight = self.weights[name]
        eps = self.config.norm_eps
        if self.config.norm == "layer":
            bias = self.weights.get(f"{name}_bias")
            return F.layer_norm(x, weight.shape, weight, bias, eps)
        return rms_norm(x, weight, eps=eps, offset=self.config.norm_offset)


def _sequence_parallel(
    groups: Groups, num_pieces: int, weight_gradients: WeightGradients | None
) -> SequenceParallel | None:
    if num_pieces == 0 or groups.tp is None:
        return None
    return SequenceParallel(
        groups.tp,
        num_pieces=num_pieces,
        weight_gradients=weight_gradients,
    )


def _num_real_logits(config: DecoderConfig, tp: int, tp_rank: int) -> int:
    """Return the number of a rank's logits that are no padding; may be negative."""
    num_logits = padded_vocab(config, tp) // tp
    num_left = config.vocab_size - tp_rank * num_logits
    return min(num_logits, num_left)
