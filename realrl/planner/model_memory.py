"""What the passes of a decoder's stage take of a rank's memory, from the config alone.

Derived from the tensors that `decoder.py` makes with the compiled kernels, from what autograd keeps of them,
and from when it lets go. What is smaller than a token's hidden state by far (ids, positions, a row's
statistics outside of the layers) is left out.
Units: bytes. Shapes: T tokens of a micro-batch, M of them with logits, H hidden size, I the MLP's inner size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch

from realrl.api.config import GenerationConfig
from realrl.api.mesh import Coordinate, ParallelLayout
from realrl.models.config import DecoderConfig
from realrl.models.layout import Head, kv_heads, local_tensors, padded_vocab, stage_layers
from realrl.ops.linear import has_bf16_products
from realrl.parallel.vocab import LOGITS_BUDGETS, LogitsBudget, token_chunks

_WIDE = 4
"""Bytes of a float32."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One rank's part of a decoder."""

    decoder: DecoderConfig
    layout: ParallelLayout
    place: Coordinate
    head: Head
    itemsize: int
    """Of weights and activations: 2 or 4."""
    device: str = "cpu"

    @property
    def is_first(self) -> bool:
        return self.place.pp_rank == 0

    @property
    def is_last(self) -> bool:
        return self.place.pp_rank == self.layout.pp - 1

    @property
    def num_layers(self) -> int:
        return len(stage_layers(self.decoder, self.layout, self.place.pp_rank))

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the local tensors."""
        tensors = local_tensors(self.decoder, self.layout, self.place, self.head)
        return {tensor.name: tensor.shape for tensor in tensors}

    @property
    def num_elements(self) -> int:
        """Of the local tensors, filled up so that data-parallel ranks get even shares."""
        return -(-sum(map(math.prod, self.shapes.values())) // self.layout.dp) * self.layout.dp

    @property
    def packed_bytes(self) -> int:
        """Of the matrices that generation lays out anew."""
        if self.device != "cpu" or self.itemsize != 2 or not has_bf16_products():
            return 0
        head = ("head" if "head" in self.shapes else "embed") if self.is_last else None
        matrices = (
            math.prod(shape)
            for name, shape in self.shapes.items()
            if len(shape) == 2 and (name.startswith("layers.") or name == head)
        )
        return sum(matrices) * self.itemsize

    def cache_shape(self) -> dict:
        """What `KeyValueCache.page_bytes` wants to know."""
        return {
            "num_layers": self.num_layers,
            "num_kv_heads": self._num_kv_heads,
            "head_dim": self.decoder.head_dim,
            "dtype": torch.bfloat16 if self.itemsize == 2 else torch.float32,
            "device": self.device,
        }

    def hidden_bytes(self, num_tokens: int) -> int:
        return num_tokens * self.decoder.hidden_size * self.itemsize

    def layer_bytes(self, num_tokens: int) -> int:
        """What autograd keeps of a layer: the inputs of norms, products, attention and activation."""
        config, hidden = self.decoder, self.decoder.hidden_size
        num_norms, normed_heads = 4 if config.post_norms else 2, self._normed_heads
        elements = (num_norms + 2) * hidden + self._qkv + self._queries + 3 * self._inner
        row_statistics = num_norms * (1 if config.norm == "rms" else 2) + normed_heads + self._num_heads
        elements += normed_heads * config.head_dim
        return num_tokens * (elements * self.itemsize + row_statistics * _WIDE)

    def kept_bytes(self, num_tokens: int, *, recompute: bool) -> int:
        """What a micro-batch keeps of the stage until its backward pass: the layers, and their output."""
        layer = self.hidden_bytes(num_tokens) if recompute else self.layer_bytes(num_tokens)
        return self.num_layers * layer + self.hidden_bytes(num_tokens)

    def forward_bytes(self, num_tokens: int) -> int:
        """Most that a pass through the layers holds where nothing is kept: the layer's input among it."""
        hidden = self.decoder.hidden_size
        attention = max(hidden + 2 * self._qkv, 2 * hidden + self._qkv + self._queries)
        elements = max(attention, 3 * hidden + 3 * self._inner, 4 * hidden)
        received = 0 if self.is_first else self.hidden_bytes(num_tokens)
        return received + num_tokens * elements * self.itemsize

    def backward_bytes(self, num_tokens: int, *, recompute: bool) -> int:
        """Most that a layer's backward pass holds beside what is kept, the gradient that comes in among it.

        A peak is the gradient of an activation beside its input, or on the CPU that of a matrix, which `add_`
        copies to float32; by then some of what was kept is gone.
        """
        hidden, inner = self.decoder.hidden_size, self._inner
        down, up = self._own_gradient(self._matrix("mlp_down")), self._own_gradient(self._matrix("gate_up"))
        tokens = (
            hidden + 2 * inner,
            self._queries + self._qkv - hidden - 3 * inner,
        )
        mixed = (
            (hidden + inner, down * self.itemsize),
            (hidden, down * self._added_bytes),
            (2 * hidden - inner, up * self.itemsize),
            (hidden - inner, up * self._added_bytes),
        )
        peaks = [num_tokens * n * self.itemsize for n in tokens]
        peaks += [num_tokens * n * self.itemsize + more for n, more in mixed]
        again = self.layer_bytes(num_tokens) - self.hidden_bytes(num_tokens) if recompute else 0
        return again + max(peaks)

    @property
    def embedding_gradient_bytes(self) -> int:
        """Of the embedding, which comes after all others; a tied head's waits for it, to be added."""
        if not self.is_first:
            return 0
        both = 2 * self.itemsize if self.tied_gradient_bytes else 0
        return math.prod(self.shapes["embed"]) * max(self._added_bytes, both)

    def head_forward_bytes(self, num_tokens: int, num_logits: int, *, trains: bool) -> int:
        """The last hidden states, those that get logits, and the logits that there are at a time."""
        if self.head == "scalar":
            return self.hidden_bytes(num_tokens)
        budget = self._logits_budget
        keeps = trains and self._logits_bytes(num_logits) <= budget.kept_bytes
        logits = self._chunk_bytes(num_logits, budget.kept_bytes if keeps else budget.chunk_bytes)
        return self.hidden_bytes(num_tokens) + self.hidden_bytes(num_logits) + logits

    def head_backward_bytes(self, num_tokens: int, num_logits: int) -> int:
        """The logits at a time, which become their gradient, and the gradients of states and weight."""
        if self.head == "scalar":
            return 2 * self.hidden_bytes(num_tokens)
        at_once = 2 * self.hidden_bytes(num_logits) + self._chunk_bytes(num_logits, max(self._logits_budget))
        is_whole = self._logits_bytes(num_logits) <= self._logits_budget.kept_bytes
        each = self.itemsize if is_whole or self.itemsize == _WIDE else _WIDE + self._added_bytes
        return at_once + self._own_gradient(self._head_elements) * each

    def head_gradient_bytes(self, num_tokens: int) -> int:
        """After the head's backward pass: its weight's gradient, on its way into the sum if it is its own."""
        if self.head == "scalar":
            return 0
        is_own = "head" in self.shapes
        each = self._added_bytes if is_own else self.itemsize
        return self.hidden_bytes(num_tokens) + self._own_gradient(self._head_elements) * each

    @property
    def tied_gradient_bytes(self) -> int:
        """Of a tied head, whose gradient waits for the embedding's."""
        is_tied = self.is_last and self.head == "lm" and "head" not in self.shapes
        return self._own_gradient(self._head_elements) * self.itemsize if is_tied else 0

    def drawing_bytes(self, num_sequences: int, config: GenerationConfig) -> int:
        """Logits while a token is drawn for each sequence."""
        if not self.is_last:
            return 0
        part, whole = self._vocab_rows * self.itemsize, padded_vocab(self.decoder, self.layout.tp)
        gathered = whole * self.itemsize if self.layout.tp > 1 else 0
        capped = 0 if self.decoder.logit_softcap is None else _WIDE * self.decoder.vocab_size
        work = _likeliest_bytes(config, self.device) * self.decoder.vocab_size
        return num_sequences * (part + gathered + max(gathered, 2 * capped, capped + work))

    @property
    def _num_heads(self) -> int:
        return self.decoder.num_heads // self.layout.tp

    @property
    def _num_kv_heads(self) -> int:
        return len(kv_heads(self.decoder, self.layout.tp, self.place.tp_rank))

    @property
    def _queries(self) -> int:
        return self._num_heads * self.decoder.head_dim

    @property
    def _qkv(self) -> int:
        return (self._num_heads + 2 * self._num_kv_heads) * self.decoder.head_dim

    @property
    def _normed_heads(self) -> int:
        return self._num_heads + self._num_kv_heads if self.decoder.qk_norm else 0

    @property
    def _inner(self) -> int:
        return self.decoder.intermediate_size // self.layout.tp

    @property
    def _vocab_rows(self) -> int:
        return padded_vocab(self.decoder, self.layout.tp) // self.layout.tp

    @property
    def _head_elements(self) -> int:
        return self._vocab_rows * self.decoder.hidden_size

    @property
    def _added_bytes(self) -> int:
        """Of an element of a gradient while it is added to a float32 sum."""
        copied = self.device == "cpu" and self.itemsize < _WIDE
        return self.itemsize + (_WIDE if copied else 0)

    def _own_gradient(self, num_elements: int) -> int:
        """Elements of a matrix's gradient beside the sum: on CUDA none, as products add to the sum itself."""
        return 0 if self.device == "cuda" else num_elements

    @property
    def _logits_budget(self) -> LogitsBudget:
        return LOGITS_BUDGETS[self.device]

    def _logits_bytes(self, num_logits: int) -> int:
        return num_logits * self._vocab_rows * self.itemsize

    def _chunk_bytes(self, num_logits: int, most: int) -> int:
        """Of the logits that are made at a time."""
        row_bytes = self._logits_bytes(1)
        return (
            max((c.stop - c.start for c in token_chunks(num_logits, row_bytes, most)), default=0) * row_bytes
        )

    def _matrix(self, name: str) -> int:
        """Elements of a layer's matrix."""
        first = stage_layers(self.decoder, self.layout, self.place.pp_rank)[0]
        return math.prod(self.shapes[f"layers.{first}.{name}"])


def _likeliest_bytes(config: GenerationConfig, device: str) -> int:
    """Of a column while top-k and top-p are applied: what is left, and float32 logits for the whole's sum.

    On CUDA the kernel that draws applies top-p itself.
    """
    if config.temperature == 0:
        return 0
    of_top_p = 3 * _WIDE if config.top_p < 1 and device == "cpu" else 0
    return max(2 * _WIDE if config.top_k else 0, of_top_p)
