"""Keys and values of generated sequences in pages, and attention of each sequence's newest token over them.

Shapes: B sequences, T tokens, Q query heads, K key/value heads, D head size, P pages a sequence at most.
"""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.ops import kernels
from realrl.ops.attention import AttentionRule, attend_explicitly, kernel_shape
from realrl.ops.kernels import cpu_module

_CPU_PAGE_TOKENS = 64
"""A tile of the kernels."""
_CUDA_PAGE_TOKENS = 32
"""Any power of two from 16 to 256 would do. Samples share a prompt's whole pages and copy the rest of it:
pages should be small. A step uploads the numbers of each sequence's pages: they should be few."""
_KERNEL_TYPES = (torch.float32, torch.bfloat16)
_CUDA_TYPES = (torch.float32, torch.bfloat16)
_CUDA_HEAD_STEP, _CUDA_MOST_HEAD_DIM = 8, 256
"""Sizes of a head that the CUDA kernel reads in whole vectors, and has registers for."""
_VECTOR_BYTES = 16
_ANY_RULE = AttentionRule(1.0)


class KeyValueCache:
    """Pages of keys and values of one rank's layers.

    A page holds `page_tokens` consecutive tokens of a sequence, in every layer. Which pages are whose is the
    caller's; a page need not be cleared before another sequence has it.
    """

    def __init__(
        self,
        num_layers: int,
        num_pages: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        self.page_tokens = KeyValueCache.tokens_of_page(device)
        kind = _pages_for(dtype, head_dim, torch.device(device))
        self._pages = kind(num_layers, num_pages, self.page_tokens, num_kv_heads, head_dim, dtype, device)

    @staticmethod
    def tokens_of_page(device: torch.device | str) -> int:
        """Tokens of a page on a kind of device."""
        return _CUDA_PAGE_TOKENS if torch.device(device).type == "cuda" else _CPU_PAGE_TOKENS

    @staticmethod
    def page_bytes(
        num_layers: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device | str
    ) -> int:
        """Memory of one page, over all layers."""
        kind = _pages_for(dtype, head_dim, torch.device(device))
        page_tokens = KeyValueCache.tokens_of_page(device)
        return num_layers * kind.elements(page_tokens, num_kv_heads, head_dim, dtype) * dtype.itemsize

    @property
    def is_recordable(self) -> bool:
        """Whether a CUDA graph can hold `write` and `attend`."""
        return self._pages.is_recordable

    def write(self, layer: int, qkv: Tensor, slots: Tensor) -> None:
        """Put each token's keys and values into its slot, which is page * page_tokens + offset.

        Shapes: qkv `[T, Q + 2K, D]`, slots int64 `[T]` on its device; of tokens that share one, any may stay.
        """
        self._pages.write(layer, qkv, slots)

    def attend(
        self,
        layer: int,
        q: Tensor,
        page_table: Tensor,
        lengths: Tensor,
        *,
        scale: float,
        window: int | None = None,
        softcap: float | None = None,
    ) -> Tensor:
        """One new token a sequence, already written, sees the first `lengths` tokens of its pages.

        Shapes: q `[B, Q, D]`, page_table int32 `[B, P]`, lengths int64 `[B]` from 1 up, all on one device;
            returns `[B, Q, D]`.
        """
        return self._pages.attend(layer, q, page_table, lengths, AttentionRule(scale, window, softcap))


def _pages_for(dtype: torch.dtype, head_dim: int, device: torch.device) -> type[_TiledPages | _PlainPages]:
    if device.type == "cuda":
        return _CudaPages
    on_kernel = device.type == "cpu" and dtype in _KERNEL_TYPES and head_dim % 2 == 0
    return _TiledPages if on_kernel and cpu_module() is not None else _PlainPages


class _TiledPages:
    """As the CPU's kernels want them: their results have the bits of `packed_attention`."""

    is_recordable = False

    @staticmethod
    def elements(page_tokens: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype) -> int:
        assert page_tokens == cpu_module().PAGE_KEYS, "a page is a tile of the kernels"
        shape = kernel_shape(num_kv_heads, num_kv_heads, head_dim, dtype, _ANY_RULE)
        return shape.page_bytes() // dtype.itemsize

    def __init__(self, num_layers, num_pages, page_tokens, num_kv_heads, head_dim, dtype, device) -> None:
        elements = self.elements(page_tokens, num_kv_heads, head_dim, dtype)
        self._data = torch.empty(num_layers, num_pages, elements, dtype=dtype, device=device)
        cpu_module().use_huge_pages(self._data.data_ptr(), self._data.nbytes)
        self._num_kv_heads = num_kv_heads

    def write(self, layer: int, qkv: Tensor, slots: Tensor) -> None:
        qkv, slots = qkv.contiguous(), slots.contiguous()
        assert slots.dtype == torch.int64 and qkv.dtype == self._data.dtype
        shape = self._shape(qkv.shape[1] - 2 * self._num_kv_heads, qkv.shape[2], _ANY_RULE)
        job = qkv.data_ptr(), slots.data_ptr(), len(slots), self._data[layer].data_ptr()
        cpu_module().write_pages(shape, *job, torch.get_num_threads())

    def attend(
        self, layer: int, q: Tensor, page_table: Tensor, lengths: Tensor, rule: AttentionRule
    ) -> Tensor:
        if q.stride()[1:] != (q.shape[2], 1):
            q = q.contiguous()
        page_table, lengths = page_table.contiguous(), lengths.contiguous()
        assert page_table.dtype == torch.int32 and lengths.dtype == torch.int64
        out = q.new_empty(q.shape)
        tables = page_table.data_ptr(), page_table.shape[1], lengths.data_ptr(), len(q)
        pool = self._data[layer].data_ptr()
        shape = self._shape(q.shape[1], q.shape[2], rule)
        cpu_module().attend_pages(
            shape, q.data_ptr(), q.stride(0), *tables, pool, out.data_ptr(), torch.get_num_threads()
        )
        return out

    def _shape(self, num_heads: int, head_dim: int, rule: AttentionRule):
        return kernel_shape(num_heads, self._num_kv_heads, head_dim, self._data.dtype, rule)


class _PlainPages:
    """`[pages, page_tokens, K, D]` a layer, and attention in PyTorch, one sequence after the other."""

    is_recordable = False

    @staticmethod
    def elements(page_tokens: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype) -> int:
        return 2 * page_tokens * num_kv_heads * head_dim

    def __init__(self, num_layers, num_pages, page_tokens, num_kv_heads, head_dim, dtype, device) -> None:
        shape = (2, num_layers, num_pages, page_tokens, num_kv_heads, head_dim)
        self._data = torch.empty(shape, dtype=dtype, device=device)

    def write(self, layer: int, qkv: Tensor, slots: Tensor) -> None:
        num_kv_heads = self._data.shape[4]
        for pages, tokens in zip(
            self._data[:, layer], qkv[:, -2 * num_kv_heads :].split(num_kv_heads, dim=1)
        ):
            pages.flatten(0, 1)[slots] = tokens

    def attend(
        self, layer: int, q: Tensor, page_table: Tensor, lengths: Tensor, rule: AttentionRule
    ) -> Tensor:
        keys, values = self._data[:, layer]
        outputs = [
            _attend_sequence(q[i : i + 1], keys, values, page_table[i], length, rule)
            for i, length in enumerate(lengths.tolist())
        ]
        return torch.cat([q[:0], *outputs])


class _CudaPages(_PlainPages):
    """The same pages, and attention by the kernel of csrc/cuda/decode_cuda.cu: no other is quick enough.

    A sequence's result has the same bits whatever other sequences there are, and however wide the table is.
    """

    is_recordable = True

    def __init__(self, num_layers, num_pages, page_tokens, num_kv_heads, head_dim, dtype, device) -> None:
        _check_cuda_kernel(dtype, head_dim, torch.device(device))
        super().__init__(num_layers, num_pages, page_tokens, num_kv_heads, head_dim, dtype, device)

    def attend(
        self, layer: int, q: Tensor, page_table: Tensor, lengths: Tensor, rule: AttentionRule
    ) -> Tensor:
        assert page_table.dtype == torch.int32 and lengths.dtype == torch.int64
        assert q.dtype == self._data.dtype
        if not _has_whole_vectors(q):
            q = q.clone(memory_format=torch.contiguous_format)
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        tables = page_table.contiguous(), lengths.contiguous()
        kernels.for_device(q.device).attend_pages(q, self._data[:, layer], *tables, rule, out)
        return out


def _check_cuda_kernel(dtype: torch.dtype, head_dim: int, device: torch.device) -> None:
    """Refuse what the kernel cannot do: nothing slow stands in."""
    if kernels.for_device(device) is None:
        raise ValueError(f"generation on CUDA: {kernels.NO_CUDA_KERNELS}")
    if dtype not in _CUDA_TYPES:
        raise ValueError(f"dtype: generation on CUDA takes float32 or bfloat16, got {dtype}")
    if head_dim % _CUDA_HEAD_STEP or not 0 < head_dim <= _CUDA_MOST_HEAD_DIM:
        raise ValueError(
            f"generation on CUDA takes heads whose size is a multiple of {_CUDA_HEAD_STEP} up to"
            f" {_CUDA_MOST_HEAD_DIM}, and the model's is {head_dim}: let vLLM generate"
            " (generation.engine: vllm)"
        )


def _has_whole_vectors(q: Tensor) -> bool:
    """Whether a sequence's heads lie in a row, from a multiple of a vector on."""
    is_row = q.stride()[1:] == (q.shape[2], 1)
    row_bytes = q.stride(0) * q.element_size()
    return is_row and q.data_ptr() % _VECTOR_BYTES == 0 and row_bytes % _VECTOR_BYTES == 0


def _attend_sequence(
    q: Tensor, keys: Tensor, values: Tensor, pages: Tensor, length: int, rule: AttentionRule
) -> Tensor:
    seen = pages[: -(-length // keys.shape[1])].long()
    keys, values = (x[seen].flatten(0, 1)[:length].float() for x in (keys, values))
    return attend_explicitly(q.float(), keys, values, rule).to(q.dtype)
