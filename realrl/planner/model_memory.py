"""Predicts the memory that the passes of a decoder's stage take on a rank, from the config alone.

The terms follow from the tensors that `decoder.py` makes with the compiled kernels, from what autograd keeps
of them, and from the time at which it frees them. What is much smaller than the hidden state of a token (ids,
positions, statistics of rows outside of the layers) is left out.
Units: bytes. Shapes: T tokens of a micro-batch, M of them with logits, H hidden size, I the MLP's inner size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TypedDict

import torch

from realrl.api.config import GenerationConfig
from realrl.api.mesh import Coordinate, ParallelLayout
from realrl.models.config import DecoderConfig
from realrl.models.layout import Head, LocalTensor, kv_heads, local_tensors, padded_vocab, stage_layers
from realrl.ops.linear import has_bf16_products
from realrl.parallel.vocab import LOGITS_BUDGETS, LogitsBudget, token_chunks

_WIDE = 4
"""Bytes of a float32."""


class CacheShape(TypedDict):
    """The arguments of `KeyValueCache.page_bytes`."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: str


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One rank's part of a decoder."""

    decoder: DecoderConfig
    layout: ParallelLayout
    place: Coordinate
    head: Head
    itemsize: int
    """Bytes of an element of weights and activations: 2 or 4."""
    device: str = "cpu"

    @property
    def is_first(self) -> bool:
        """Whether this is the stage with the embedding."""
        pp_rank = self.place.pp_rank
        return pp_rank == 0

    @property
    def is_last(self) -> bool:
        """Whether this is the stage with the head."""
        num_stages = self.layout.pp
        return self.place.pp_rank == num_stages - 1

    @property
    def num_layers(self) -> int:
        """The number of layers of this stage."""
        return len(self._layers)

    @cached_property
    def tensors(self) -> tuple[LocalTensor, ...]:
        """The local tensors."""
        return local_tensors(
            self.decoder,
            self.layout,
            self.place,
            self.head,
        )

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the local tensors, by name."""
        return {tensor.name: tensor.shape for tensor in self.tensors}

    @property
    def num_elements(self) -> int:
        """The elements of the local tensors, padded so that data-parallel ranks get even shares."""
        total = 0
        for shape in self.shapes.values():
            total += math.prod(shape)
        num_shares = self.layout.dp
        share = -(-total // num_shares)
        return share * num_shares

    @property
    def packed_bytes(self) -> int:
        """The bytes of the copies of matrices that generation packs for fast products."""
        packs = self.device == "cpu" and self.itemsize == 2 and has_bf16_products()
        if not packs:
            return 0
        elements = 0
        for tensor in self.tensors:
            if tensor.role.is_product or tensor.name == self._head_name:
                elements += math.prod(tensor.shape)
        return elements * self.itemsize

    def cache_shape(self) -> CacheShape:
        """Return the arguments of `KeyValueCache.page_bytes` for this stage."""
        dtype = torch.bfloat16 if self.itemsize == 2 else torch.float32
        return {
            "num_layers": self.num_layers,
            "num_kv_heads": self._num_kv_heads,
            "head_dim": self.decoder.head_dim,
            "dtype": dtype,
            "device": self.device,
        }

    def hidden_bytes(self, num_tokens: int) -> int:
        """Return the bytes of the hidden states of `num_tokens`."""
        num_elements = num_tokens * self.decoder.hidden_size
        return num_elements * self.itemsize

    def layer_bytes(self, num_tokens: int) -> int:
        """Return what autograd keeps of a layer: the inputs of norms, products, attention and activation."""
        config = self.decoder
        num_norms = 4 if config.post_norms else 2
        elements = (num_norms + 2) * config.hidden_size
        elements += self._qkv + self._queries
        elements += 3 * self._inner
        elements += self._normed_heads * config.head_dim

        # An RMS norm keeps one number a row, a layer norm two.
        statistics_each = 1 if config.norm == "rms" else 2
        num_statistics = num_norms * statistics_each
        num_statistics += self._normed_heads
        num_statistics += self._num_heads
        token_bytes = elements * self.itemsize
        token_bytes += num_statistics * _WIDE
        return num_tokens * token_bytes

    def kept_bytes(self, num_tokens: int, *, recompute: bool) -> int:
        """Return what a micro-batch keeps of the stage until its backward pass: the layers and the output.

        `recompute` keeps only the input of each layer.
        """
        output = self.hidden_bytes(num_tokens)
        layer = output if recompute else self.layer_bytes(num_tokens)
        return self.num_layers * layer + output

    def forward_bytes(self, num_tokens: int) -> int:
        """Return the peak of a pass through the layers that keeps nothing, including a layer's input."""
        hidden = self.decoder.hidden_size
        before_attention = hidden + 2 * self._qkv
        in_attention = 2 * hidden + self._qkv + self._queries
        in_mlp = 3 * hidden + 3 * self._inner
        after_mlp = 4 * hidden
        elements = max(
            before_attention,
            in_attention,
            in_mlp,
            after_mlp,
        )
        peak = num_tokens * elements * self.itemsize
        if self.is_first:
            return peak
        # The caller holds what came from the stage before.
        received = self.hidden_bytes(num_tokens)
        return received + peak

    def backward_bytes(self, num_tokens: int, *, recompute: bool) -> int:
        """Return the peak of a layer's backward pass, in addition to what is kept for it.

        The gradient that comes in counts. A peak is the gradient of an activation together with its input,
        or on the CPU that of a matrix, which `add_` copies to float32. By then some of what was kept has
        been freed.
        """
        hidden = self.decoder.hidden_size
        inner = self._inner
        down = self._own_gradient(self._matrix("mlp_down"))
        up = self._own_gradient(self._matrix("gate_up"))
        # At each moment: elements of a token, and bytes of a matrix's gradient.
        moments = (
            (hidden + 2 * inner, 0),
            (self._queries + self._qkv - hidden - 3 * inner, 0),
            (hidden + inner, down * self.itemsize),
            (hidden, down * self._added_bytes),
            (2 * hidden - inner, up * self.itemsize),
            (hidden - inner, up * self._added_bytes),
        )
        peak = 0
        for elements, matrix_bytes in moments:
            activations = num_tokens * elements * self.itemsize
            peak = max(peak, activations + matrix_bytes)
        if not recompute:
            return peak

        # The layer's input is among what is kept.
        layer = self.layer_bytes(num_tokens)
        recomputed = layer - self.hidden_bytes(num_tokens)
        return recomputed + peak

    @property
    def embedding_gradient_bytes(self) -> int:
        """The bytes of the embedding's gradient, which comes last.

        The gradient of a tied head waits for it, to be added.
        """
        if not self.is_first:
            return 0
        is_tied_here = self.tied_gradient_bytes > 0
        both = 2 * self.itemsize if is_tied_here else 0
        element_bytes = max(self._added_bytes, both)
        return math.prod(self.shapes["embed"]) * element_bytes

    def head_forward_bytes(self, num_tokens: int, num_logits: int, *, trains: bool) -> int:
        """Return the bytes of the last hidden states, of those that get logits, and of the logits.

        Logits count as far as they are held at one time.
        """
        states = self.hidden_bytes(num_tokens)
        if self.head == "scalar":
            return states
        budget = self._logits_budget
        chunk_bytes = budget.chunk_bytes
        if trains and self._keeps_logits(num_logits):
            chunk_bytes = budget.kept_bytes
        logits = self._chunk_bytes(num_logits, chunk_bytes)
        picked_states = self.hidden_bytes(num_logits)
        return states + picked_states + logits

    def head_backward_bytes(self, num_tokens: int, num_logits: int) -> int:
        """Return the bytes of a chunk of logits, whose memory their gradient takes over, and of the
        gradients of states and weight.
        """
        if self.head == "scalar":
            return 2 * self.hidden_bytes(num_tokens)
        states = 2 * self.hidden_bytes(num_logits)
        logits = self._chunk_bytes(num_logits, max(self._logits_budget))

        element_bytes = self.itemsize
        makes_again = not self._keeps_logits(num_logits)
        # Chunks that are recomputed add up their gradients of the weight in float32.
        if makes_again and self.itemsize != _WIDE:
            element_bytes = _WIDE + self._added_bytes
        elements = self._own_gradient(self._head_elements)
        weight = elements * element_bytes
        return states + logits + weight

    def head_gradient_bytes(self, num_tokens: int) -> int:
        """Return the bytes after the head's backward pass: the gradients of states and weight.

        The gradient of a weight of the head's own is being added to the sum by then.
        """
        if self.head == "scalar":
            return 0
        is_own = "head" in self.shapes
        element_bytes = self._added_bytes if is_own else self.itemsize
        weight = self._own_gradient(self._head_elements) * element_bytes
        return self.hidden_bytes(num_tokens) + weight

    @property
    def tied_gradient_bytes(self) -> int:
        """The bytes of a tied head's gradient, which waits for the embedding's."""
        is_tied = self.is_last and self.head == "lm" and "head" not in self.shapes
        if not is_tied:
            return 0
        return self._own_gradient(self._head_elements) * self.itemsize

    def drawing_bytes(self, num_sequences: int, config: GenerationConfig) -> int:
        """Return the bytes of logits while one token is drawn for each sequence."""
        if not self.is_last:
            return 0
        vocab_size = self.decoder.vocab_size
        part = self._vocab_rows * self.itemsize
        gathered = 0
        if self.layout.tp > 1:
            num_rows = padded_vocab(self.decoder, self.layout.tp)
            gathered = num_rows * self.itemsize

        capped = 0
        if self.decoder.logit_softcap is not None:
            capped = _WIDE * vocab_size
        element_bytes = _filter_bytes(config, self.device)
        filtering = element_bytes * vocab_size
        peak = max(
            gathered,
            2 * capped,
            capped + filtering,
        )
        sequence_bytes = part + gathered + peak
        return num_sequences * sequence_bytes

    @property
    def _layers(self) -> tuple[int, ...]:
        """The numbers of this stage's layers."""
        pp_rank = self.place.pp_rank
        return stage_layers(self.decoder, self.layout, pp_rank)

    @property
    def _head_name(self) -> str | None:
        """The local tensor with the head's weight."""
        if not self.is_last:
            return None
        return "head" if "head" in self.shapes else "embed"

    @property
    def _num_heads(self) -> int:
        return self.decoder.num_heads // self.layout.tp

    @property
    def _num_kv_heads(self) -> int:
        tp_rank = self.place.tp_rank
        heads = kv_heads(self.decoder, self.layout.tp, tp_rank)
        return len(heads)

    @property
    def _queries(self) -> int:
        """Elements of a token's queries."""
        return self._num_heads * self.decoder.head_dim

    @property
    def _qkv(self) -> int:
        """Elements of a token's queries, keys and values."""
        num_heads = self._num_heads + 2 * self._num_kv_heads
        return num_heads * self.decoder.head_dim

    @property
    def _normed_heads(self) -> int:
        """Heads of queries and keys that a norm of their own goes over."""
        if not self.decoder.qk_norm:
            return 0
        return self._num_heads + self._num_kv_heads

    @property
    def _inner(self) -> int:
        return self.decoder.intermediate_size // self.layout.tp

    @property
    def _vocab_rows(self) -> int:
        """Rows of the vocabulary on this rank, with padding."""
        num_parts = self.layout.tp
        return padded_vocab(self.decoder, num_parts) // num_parts

    @property
    def _head_elements(self) -> int:
        return self._vocab_rows * self.decoder.hidden_size

    @property
    def _added_bytes(self) -> int:
        """Bytes of a gradient's element while it is added to a float32 sum."""
        is_copied = self.device == "cpu" and self.itemsize < _WIDE
        copy = _WIDE if is_copied else 0
        return self.itemsize + copy

    def _own_gradient(self, num_elements: int) -> int:
        """Return the elements that a matrix's gradient has outside of the sum of gradients.

        On CUDA there are none, as products add to the sum itself.
        """
        if self.device == "cuda":
            return 0
        return num_elements

    @property
    def _logits_budget(self) -> LogitsBudget:
        return LOGITS_BUDGETS[self.device]

    def _logits_bytes(self, num_logits: int) -> int:
        """Return the bytes of this rank's part of the logits of `num_logits` tokens."""
        row_bytes = self._vocab_rows * self.itemsize
        return num_logits * row_bytes

    def _keeps_logits(self, num_logits: int) -> bool:
        """Return whether training keeps all logits between the passes, instead of making them again."""
        limit = self._logits_budget.kept_bytes
        return self._logits_bytes(num_logits) <= limit

    def _chunk_bytes(self, num_logits: int, most_bytes: int) -> int:
        """Return the bytes of the largest chunk of logits, where chunks have at most `most_bytes`."""
        row_bytes = self._logits_bytes(1)
        longest = 0
        for chunk in token_chunks(num_logits, row_bytes, most_bytes):
            longest = max(longest, chunk.stop - chunk.start)
        return longest * row_bytes

    def _matrix(self, name: str) -> int:
        """Return the elements of one of a layer's matrices."""
        first = self._layers[0]
        shape = self.shapes[f"layers.{first}.{name}"]
        return math.prod(shape)


def _filter_bytes(config: GenerationConfig, device: str) -> int:
    """Return the bytes per token of the vocabulary while top-k and top-p are applied.

    They hold the logits that are left, and top-p holds float32 logits for the sum over the whole. On CUDA
    the kernel that draws applies top-p itself.
    """
    if config.temperature == 0:
        return 0
    top_k = 2 * _WIDE if config.top_k else 0
    applies_top_p = config.top_p < 1 and device == "cpu"
    top_p = 3 * _WIDE if applies_top_p else 0
    return max(top_k, top_p)
