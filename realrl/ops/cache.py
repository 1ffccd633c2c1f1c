"""A paged cache of keys and values, and attention of each sequence's newest token over it.

Shapes: B sequences, T tokens, Q query heads, K key/value heads, D head size, P pages a sequence at most.
"""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.ops import kernels
from realrl.ops.attention import AttentionRule, attend_explicitly, kernel_shape
from realrl.ops.cuda_library import CudaKernels
from realrl.ops.kernels import built_cpu_module, cpu_module

_CPU_PAGE_TOKENS = 64
"""Tokens of a page on the CPU: the tile of its kernels."""
_CUDA_PAGE_TOKENS = 32
"""Tokens of a page on CUDA, where the kernel takes any power of two from 16 to 256.

Small pages are better for sharing: samples share a prompt's full pages and copy the rest. Few pages are
better for uploads: a step uploads the page numbers of each sequence.
"""
_KERNEL_TYPES = (torch.float32, torch.bfloat16)
_CUDA_TYPES = (torch.float32, torch.bfloat16)
_CUDA_HEAD_STEP = 8
"""Elements of the largest vector: the CUDA kernel reads heads in whole vectors."""
_CUDA_MOST_HEAD_DIM = 256
"""The largest head that fits into the CUDA kernel's registers."""
_VECTOR_BYTES = 16
"""Bytes of a vector of the CUDA kernel."""
_ANY_RULE = AttentionRule(1.0)
"""The rule for kernels that ignore it."""


class KeyValueCache:
    """Pages of keys and values for the layers of one rank.

    A page holds `page_tokens` consecutive tokens of a sequence, in every layer. The caller assigns pages to
    sequences. A page may be reused without being cleared.
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
        self._pages = kind(
            num_layers,
            num_pages,
            self.page_tokens,
            num_kv_heads,
            head_dim,
            dtype,
            device,
        )

    @staticmethod
    def tokens_of_page(device: torch.device | str) -> int:
        """Return the number of tokens of a page on a type of device."""
        if torch.device(device).type == "cuda":
            return _CUDA_PAGE_TOKENS
        return _CPU_PAGE_TOKENS

    @staticmethod
    def page_bytes(
        num_layers: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device | str
    ) -> int:
        """Return the size of one page over all layers."""
        kind = _pages_for(dtype, head_dim, torch.device(device))
        num_elements = kind.elements(
            KeyValueCache.tokens_of_page(device),
            num_kv_heads,
            head_dim,
            dtype,
        )
        return num_layers * num_elements * dtype.itemsize

    @property
    def is_recordable(self) -> bool:
        """Whether a CUDA graph can capture `write` and `attend`."""
        return self._pages.is_recordable

    def write(self, layer: int, qkv: Tensor, slots: Tensor) -> None:
        """Write each token's keys and values to its slot, which is page * page_tokens + offset.

        If several tokens have one slot, any of them may be kept.

        Shapes: qkv `[T, Q + 2K, D]`, slots int64 `[T]` on the device of qkv.
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
        """Return the attention of each sequence's newest token to the first `lengths` tokens of its pages.

        The newest token has already been written.

        Shapes: q `[B, Q, D]`, page_table int32 `[B, P]`, lengths int64 `[B]` from 1, all on one device;
            returns `[B, Q, D]`.
        """
        rule = AttentionRule(scale, window, softcap)
        return self._pages.attend(layer, q, page_table, lengths, rule)


def _pages_for(dtype: torch.dtype, head_dim: int, device: torch.device) -> type[_TiledPages | _PlainPages]:
    if device.type == "cuda":
        return _CudaPages
    on_kernel = device.type == "cpu" and dtype in _KERNEL_TYPES and head_dim % 2 == 0
    return _TiledPages if on_kernel and cpu_module() is not None else _PlainPages


class _TiledPages:
    """Pages in the layout of the CPU kernels, whose results have the same bits as `packed_attention`."""

    is_recordable = False

    @staticmethod
    def elements(page_tokens: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype) -> int:
        """Return the number of elements of a page of one layer."""
        tile_tokens = built_cpu_module().PAGE_KEYS
        assert page_tokens == tile_tokens, "a page is a tile of the kernels"
        shape = kernel_shape(num_kv_heads, num_kv_heads, head_dim, dtype, _ANY_RULE)
        return shape.page_bytes() // dtype.itemsize

    def __init__(self, num_layers, num_pages, page_tokens, num_kv_heads, head_dim, dtype, device) -> None:
        num_elements = self.elements(page_tokens, num_kv_heads, head_dim, dtype)
        self._data = torch.empty(
            num_layers,
            num_pages,
            num_elements,
            dtype=dtype,
            device=device,
        )
        built_cpu_module().use_huge_pages(self._data.data_ptr(), self._data.nbytes)
        self._num_kv_heads = num_kv_heads

    def write(self, layer: int, qkv: Tensor, slots: Tensor) -> None:
        """Write each token's keys and values to its slot.

        Shapes: qkv `[T, Q + 2K, D]`, slots int64 `[T]`.
        """
        qkv = qkv.contiguous()
        slots = slots.contiguous()
        assert slots.dtype == torch.int64, "slots must be int64"
        assert qkv.dtype == self._data.dtype, "qkv must have the cache's dtype"
        num_heads = qkv.shape[1] - 2 * self._num_kv_heads
        head_dim = qkv.shape[2]
        built_cpu_module().write_pages(
            self._shape(num_heads, head_dim, _ANY_RULE),
            qkv.data_ptr(),
            slots.data_ptr(),
            len(slots),
            self._data[layer].data_ptr(),
            torch.get_num_threads(),
        )

    def attend(
        self, layer: int, q: Tensor, page_table: Tensor, lengths: Tensor, rule: AttentionRule
    ) -> Tensor:
        """Return the attention of each sequence's newest token to its pages.

        Shapes: q `[B, Q, D]`, page_table int32 `[B, P]`, lengths int64 `[B]`; returns `[B, Q, D]`.
        """
        batch, num_heads, head_dim = q.shape
        has_dense_heads = q.stride()[1:] == (head_dim, 1)
        if not has_dense_heads:
            q = q.contiguous()
        page_table = page_table.contiguous()
        lengths = lengths.contiguous()
        assert page_table.dtype == torch.int32, "page_table must be int32"
        assert lengths.dtype == torch.int64, "lengths must be int64"
        out = q.new_empty(q.shape)
        built_cpu_module().attend_pages(
            self._shape(num_heads, head_dim, rule),
            q.data_ptr(),
            q.stride(0),
            page_table.data_ptr(),
            page_table.shape[1],
            lengths.data_ptr(),
            batch,
            self._data[layer].data_ptr(),
            out.data_ptr(),
            torch.get_num_threads(),
        )
        return out

    def _shape(self, num_heads: int, head_dim: int, rule: AttentionRule):
        """Return the kernels' argument for a number of query heads and a rule."""
        return kernel_shape(
            num_heads,
            self._num_kv_heads,
            head_dim,
            self._data.dtype,
            rule,
        )


class _PlainPages:
    """Pages `[pages, page_tokens, K, D]` for each layer, and attention in PyTorch, one sequence at a time."""

    is_recordable = False

    @staticmethod
    def elements(page_tokens: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype) -> int:
        """Return the number of elements of a page of one layer: keys and values."""
        return 2 * page_tokens * num_kv_heads * head_dim

    def __init__(self, num_layers, num_pages, page_tokens, num_kv_heads, head_dim, dtype, device) -> None:
        shape = (
            2,
            num_layers,
            num_pages,
            page_tokens,
            num_kv_heads,
            head_dim,
        )
        self._data = torch.empty(shape, dtype=dtype, device=device)

    def write(self, layer: int, qkv: Tensor, slots: Tensor) -> None:
        """Write each token's keys and values to its slot.

        Shapes: qkv `[T, Q + 2K, D]`, slots int64 `[T]`.
        """
        num_kv_heads = self._data.shape[4]
        keys_and_values = qkv[:, -2 * num_kv_heads :]
        keys, values = keys_and_values.split(num_kv_heads, dim=1)
        pages_of_keys, pages_of_values = self._data[:, layer]
        pages_of_keys.flatten(0, 1)[slots] = keys
        pages_of_values.flatten(0, 1)[slots] = values

    def attend(
        self, layer: int, q: Tensor, page_table: Tensor, lengths: Tensor, rule: AttentionRule
    ) -> Tensor:
        """Return the attention of each sequence's newest token to its pages.

        Shapes: q `[B, Q, D]`, page_table int32 `[B, P]`, lengths int64 `[B]`; returns `[B, Q, D]`.
        """
        keys, values = self._data[:, layer]
        # The empty tensor lets `cat` accept a batch without sequences.
        outputs = [q[:0]]
        for i, length in enumerate(lengths.tolist()):
            output = _attend_sequence(
                q[i : i + 1],
                keys,
                values,
                page_table[i],
                length,
                rule,
            )
            outputs.append(output)
        return torch.cat(outputs)


class _CudaPages(_PlainPages):
    """Plain pages, and attention by the kernel of csrc/cuda/decode_cuda.cu.

    A sequence's result is bitwise independent of other sequences and of the width of the page table.
    """

    is_recordable = True

    def __init__(self, num_layers, num_pages, page_tokens, num_kv_heads, head_dim, dtype, device) -> None:
        _check_cuda_kernel(dtype, head_dim, torch.device(device))
        super().__init__(
            num_layers,
            num_pages,
            page_tokens,
            num_kv_heads,
            head_dim,
            dtype,
            device,
        )

    def attend(
        self, layer: int, q: Tensor, page_table: Tensor, lengths: Tensor, rule: AttentionRule
    ) -> Tensor:
        """Return the attention of each sequence's newest token to its pages.

        Shapes: q `[B, Q, D]`, page_table int32 `[B, P]`, lengths int64 `[B]`; returns `[B, Q, D]`.
        """
        assert page_table.dtype == torch.int32, "page_table must be int32"
        assert lengths.dtype == torch.int64, "lengths must be int64"
        assert q.dtype == self._data.dtype, "q must have the cache's dtype"
        if not _has_whole_vectors(q):
            q = q.clone(memory_format=torch.contiguous_format)
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        kernel = kernels.for_device(q.device)
        assert isinstance(kernel, CudaKernels), "the cache has checked that its kernel is built"
        kernel.attend_pages(
            q,
            self._data[:, layer],
            page_table.contiguous(),
            lengths.contiguous(),
            rule,
            out,
        )
        return out


def _check_cuda_kernel(dtype: torch.dtype, head_dim: int, device: torch.device) -> None:
    """Raise if the kernel cannot run: there is no fallback, as any other would be too slow."""
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
    """Whether the heads of each sequence are contiguous and aligned to a vector."""
    head_dim = q.shape[2]
    is_row = q.stride()[1:] == (head_dim, 1)
    row_bytes = q.stride(0) * q.element_size()
    has_whole_rows = row_bytes % _VECTOR_BYTES == 0
    starts_aligned = q.data_ptr() % _VECTOR_BYTES == 0
    return is_row and starts_aligned and has_whole_rows


def _attend_sequence(
    q: Tensor, keys: Tensor, values: Tensor, pages: Tensor, length: int, rule: AttentionRule
) -> Tensor:
    """Return the attention of one token to a sequence's pages.

    Shapes: q `[1, Q, D]`, keys and values `[pages, page_tokens, K, D]`, pages int32 `[P]`; returns
        `[1, Q, D]`.
    """
    page_tokens = keys.shape[1]
    num_pages = -(-length // page_tokens)
    seen = pages[:num_pages].long()
    output = attend_explicitly(
        q.float(),
        _tokens_of(keys, seen, length),
        _tokens_of(values, seen, length),
        rule,
    )
    return output.to(q.dtype)


def _tokens_of(data: Tensor, pages: Tensor, length: int) -> Tensor:
    """Return the first tokens of some pages: float32 `[length, K, D]`."""
    tokens = data[pages].flatten(0, 1)
    return tokens[:length].float()
