"""Keys and values of generated sequences in pages, and attention of each sequence's newest token over them.

Shapes: B sequences, T tokens, Q query heads, K key/value heads, D head size, P pages a sequence at most.
"""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch import Tensor

from realrl.ops.attention import AttentionRule, attend_explicitly, kernel_shape
from realrl.ops.kernels import cpu_module

logger = logging.getLogger(__name__)

_CPU_PAGE_TOKENS, _CUDA_PAGE_TOKENS = 64, 256
_KERNEL_TYPES = (torch.float32, torch.bfloat16)
_FLASH_TYPES = (torch.bfloat16, torch.float16)
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
        """64 on the CPU, as a page is a tile of its kernel; 256 on CUDA, as flash attention wants."""
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
    """`[pages, page_tokens, K, D]` a layer, as flash attention wants them; elsewhere the kernels' twin."""

    @staticmethod
    def elements(page_tokens: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype) -> int:
        return 2 * page_tokens * num_kv_heads * head_dim

    def __init__(self, num_layers, num_pages, page_tokens, num_kv_heads, head_dim, dtype, device) -> None:
        shape = (2, num_layers, num_pages, page_tokens, num_kv_heads, head_dim)
        # Not whatever was in the memory: it may be NaN, which a weight of 0 does not hide everywhere.
        self._data = torch.zeros(shape, dtype=dtype, device=device)

    @property
    def is_recordable(self) -> bool:
        data = self._data
        return data.is_cuda and data.dtype in _FLASH_TYPES and _pages_by_flash(data.device)

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
        if rule.softcap is None and self.is_recordable:
            return _flash_attend(q, keys, values, page_table, lengths, rule)
        return torch.cat(
            [q[:0]]
            + [
                _attend_sequence(q[i : i + 1], keys, values, page_table[i], length, rule)
                for i, length in enumerate(lengths.tolist())
            ]
        )


def _attend_sequence(
    q: Tensor, keys: Tensor, values: Tensor, pages: Tensor, length: int, rule: AttentionRule
) -> Tensor:
    seen = pages[: -(-length // keys.shape[1])].long()
    keys, values = (x[seen].flatten(0, 1)[:length].float() for x in (keys, values))
    return attend_explicitly(q.float(), keys, values, rule).to(q.dtype)


def _flash_attend(
    q: Tensor, keys: Tensor, values: Tensor, page_table: Tensor, lengths: Tensor, rule: AttentionRule
) -> Tensor:
    """One split of the keys, so that a sequence's result does not depend on the others."""
    # It brings PyTorch's compiler along, which takes seconds to import.
    from torch.nn.attention.varlen import varlen_attn

    starts = torch.arange(len(q) + 1, dtype=torch.int32, device=q.device)
    # Where pages are given, the keys' bounds are not read, but must be there.
    ends = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    return varlen_attn(
        *(q.contiguous(), keys, values, starts, ends, 1, page_table.shape[1] * keys.shape[1]),
        scale=rule.scale,
        window_size=(-1, -1) if rule.window is None else (rule.window - 1, 0),
        enable_gqa=q.shape[1] != keys.shape[2],
        seqused_k=lengths.to(torch.int32),
        block_table=page_table,
        num_splits=1,
    )


@cache
def _pages_by_flash(device: torch.device) -> bool:
    """Whether the device's flash attention reads pages: not all of PyTorch's do."""
    q = torch.zeros(1, 1, 64, dtype=torch.bfloat16, device=device)
    pages = torch.zeros(1, _CUDA_PAGE_TOKENS, 1, 64, dtype=torch.bfloat16, device=device)
    table, lengths = (torch.full((1, 1), n, dtype=torch.int32, device=device) for n in (0, 1))
    try:
        _flash_attend(q, pages, pages, table, lengths[0], _ANY_RULE)
    except RuntimeError as error:
        logger.warning("flash attention cannot read pages (%s): its slower PyTorch twin stands in", error)
        return False
    return True
