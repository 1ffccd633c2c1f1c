"""The packed decoder: one pipeline stage of it, on one tensor-parallel rank.

Architecture: Llama (Touvron et al. 2023, arXiv:2302.13971) with grouped-query attention.
Shapes: T packed tokens, H hidden size, D head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from realrl.models.config import DecoderConfig
from realrl.models.layout import Head, kv_heads, stage_layers
from realrl.parallel.groups import Groups
from realrl.parallel.tensor import column_linear, gather_vocab, row_linear, vocab_embedding, vocab_logprobs

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""`(layer, q [T, Q, D], k [T, K, D], v [T, K, D]) -> [T, Q, D]`: who sees whom is the caller's."""


class Decoder:
    """A stage's arithmetic over weights that its caller owns."""

    def __init__(
        self, config: DecoderConfig, groups: Groups, head: Head, weights: Mapping[str, Tensor]
    ) -> None:
        self.config, self.groups, self.head, self.weights = config, groups, head, weights
        layout, place = groups.placement.layout, groups.place
        self.is_first, self.is_last = place.pp_rank == 0, groups.is_last_stage
        self.layers = stage_layers(config, layout, place.pp_rank)
        self.num_heads = config.num_heads // layout.tp
        self.num_kv_heads = len(kv_heads(config, layout.tp, place.tp_rank))
        rows = -(-config.vocab_size // layout.tp)
        self._num_real_logits = min(rows, config.vocab_size - place.tp_rank * rows)

    def forward(self, ids: Tensor, hidden: Tensor | None, positions: Tensor, attend: Attend) -> Tensor:
        """Through this stage's layers, and the final norm on the last: `[T, H]`.

        `ids [T]` matter on the first stage, `hidden [T, H]` on the others.
        """
        if self.is_first:
            hidden = vocab_embedding(ids, self.weights["embed"], self.groups.tp)
        rotation = self._rotation(positions, hidden.dtype)
        for layer in self.layers:
            hidden = hidden + self._attention(layer, hidden, rotation, attend)
            hidden = hidden + self._mlp(layer, hidden)
        return self._norm("norm", hidden) if self.is_last else hidden

    def values(self, hidden: Tensor) -> Tensor:
        """The scalar head: float32 `[T]`."""
        return F.linear(hidden, self.weights["head"])[:, 0].float()

    def logprobs(self, hidden: Tensor, labels: Tensor, temperature: float) -> Tensor:
        """Log-probability of `labels [T]` under logits over `temperature`: float32 `[T]`."""
        return vocab_logprobs(self._logits_part(hidden) / temperature, labels, self.groups.tp)

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 `[T, V]`, whole on every tensor-parallel rank; not differentiable across them."""
        return gather_vocab(self._logits_part(hidden), self.groups.tp)[:, : self.config.vocab_size]

    def _logits_part(self, hidden: Tensor) -> Tensor:
        weight = self.weights["head"] if "head" in self.weights else self.weights["embed"]
        logits = column_linear(hidden, weight, self.groups.tp).float()
        if self._num_real_logits == logits.shape[-1]:
            return logits
        padding = torch.arange(logits.shape[-1], device=logits.device) >= self._num_real_logits
        return logits.masked_fill(padding, float("-inf"))

    def _attention(
        self, layer: int, hidden: Tensor, rotation: tuple[Tensor, Tensor], attend: Attend
    ) -> Tensor:
        x = self._norm(f"layers.{layer}.attn_norm", hidden)
        qkv = column_linear(x, self.weights[f"layers.{layer}.qkv"], self.groups.tp)
        qkv = qkv.view(len(hidden), -1, self.config.head_dim)
        q, k, v = qkv.split((self.num_heads, self.num_kv_heads, self.num_kv_heads), dim=1)
        attended = attend(layer, _rotate(q, rotation), _rotate(k, rotation), v)
        return row_linear(
            attended.reshape(len(hidden), -1), self.weights[f"layers.{layer}.attn_out"], self.groups.tp
        )

    def _mlp(self, layer: int, hidden: Tensor) -> Tensor:
        x = self._norm(f"layers.{layer}.mlp_norm", hidden)
        gate, up = column_linear(x, self.weights[f"layers.{layer}.gate_up"], self.groups.tp).chunk(2, dim=-1)
        return row_linear(F.silu(gate) * up, self.weights[f"layers.{layer}.mlp_down"], self.groups.tp)

    def _norm(self, name: str, hidden: Tensor) -> Tensor:
        return F.rms_norm(hidden, hidden.shape[-1:], self.weights[name], self.config.norm_eps)

    def _rotation(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines `[T, 1, D]` of rotary embeddings, halves laid as in Hugging Face's Llama."""
        half = torch.arange(0, self.config.head_dim, 2, dtype=torch.float32, device=positions.device)
        angles = positions[:, None] * self.config.rope_theta ** (-half / self.config.head_dim)
        angles = torch.cat((angles, angles), dim=-1)[:, None]
        return angles.cos().to(dtype), angles.sin().to(dtype)


def _rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def positions_of(cu_seqlens: Tensor) -> Tensor:
    """Each packed token's place in its own sequence, int64 `[T]`."""
    starts = cu_seqlens[:-1].long().repeat_interleave(cu_seqlens.diff().long())
    return torch.arange(len(starts)) - starts
