"""How a decoder is cut over (pp, dp, tp): every rank's local tensors and the boxes in them.

Global tensors carry the names of Hugging Face's Llama checkpoints.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Literal, NamedTuple

from realrl.api.mesh import Coordinate, ParallelLayout, Placement
from realrl.layouts.layout import Box, Layout, Part, Pattern
from realrl.models.config import DecoderConfig

Head = Literal["lm", "scalar"]

EMBEDDING = "model.embed_tokens.weight"
LM_HEAD = "lm_head.weight"
SCALAR_HEAD = "score.weight"


class Piece(NamedTuple):
    """A box and where it begins in the local tensor; padding lies in no piece."""

    box: Box
    offset: tuple[int, ...]


@dataclass(frozen=True)
class LocalTensor:
    """One rank's part of one or several fused global tensors."""

    name: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]


def check_fits(decoder: DecoderConfig, layout: ParallelLayout, path: str) -> None:
    """Raise ValueError, naming `path`, when the decoder cannot be cut so."""
    tp, kv = layout.tp, decoder.num_kv_heads
    if layout.pp > decoder.num_layers:
        raise ValueError(
            f"{path}: p{layout.pp} needs at least {layout.pp} layers, the model has {decoder.num_layers}"
        )
    if decoder.num_heads % tp:
        raise ValueError(f"{path}: t{tp} must divide the model's {decoder.num_heads} attention heads")
    if kv % tp and tp % kv:
        raise ValueError(f"{path}: t{tp} must divide, or be a multiple of, the model's {kv} key/value heads")
    if decoder.intermediate_size % tp:
        raise ValueError(
            f"{path}: t{tp} must divide the model's intermediate size {decoder.intermediate_size}"
        )


def stage_layers(decoder: DecoderConfig, layout: ParallelLayout, pp_rank: int) -> range:
    """The layers of a pipeline stage."""
    return range(
        pp_rank * decoder.num_layers // layout.pp,
        (pp_rank + 1) * decoder.num_layers // layout.pp,
    )


def kv_heads(decoder: DecoderConfig, tp: int, tp_rank: int) -> range:
    """The key/value heads on a tensor-parallel rank; with fewer heads than ranks, some ranks share one."""
    first = tp_rank * decoder.num_kv_heads // tp
    return range(first, first + max(1, decoder.num_kv_heads // tp))


def padded_vocab(decoder: DecoderConfig, tp: int) -> int:
    """The vocabulary's size, rounded up to a multiple of `tp`."""
    return -(-decoder.vocab_size // tp) * tp


def has_own_head(decoder: DecoderConfig, layout: ParallelLayout) -> bool:
    """Whether the last stage keeps the language-model head apart from the embedding."""
    return not decoder.tied or layout.pp > 1


@lru_cache(maxsize=256)
def decoder_layout(decoder: DecoderConfig, placement: Placement, head: Head) -> Layout:
    """Which rank of `placement` holds which box of the decoder; the layers of a stage are cut alike."""
    layout = placement.layout
    ranks: dict[tuple, dict[tuple, list[int]]] = defaultdict(lambda: defaultdict(list))
    for pp_rank, tp_rank in product(range(layout.pp), range(layout.tp)):
        replicas = [placement.rank(pp_rank=pp_rank, dp_rank=d, tp_rank=tp_rank) for d in range(layout.dp)]
        keys = tuple(map(str, stage_layers(decoder, layout, pp_rank)))
        for local in _stage_tensors(decoder, layout, Coordinate(pp_rank, 0, tp_rank), head, ("*",)):
            for box, offset in local.pieces:
                repeated = keys if "*" in box.tensor else None
                ranks[box.tensor, repeated][box.start, box.stop, local.name, offset] += replicas
    return Layout(
        tuple(
            Pattern(tensor, tuple(Part(tuple(members), *place) for place, members in parts.items()), keys)
            for (tensor, keys), parts in ranks.items()
        )
    )


def local_tensors(
    decoder: DecoderConfig, layout: ParallelLayout, place: Coordinate, head: Head
) -> tuple[LocalTensor, ...]:
    """The tensors of one rank, in the order in which a token meets them."""
    layers = stage_layers(decoder, layout, place.pp_rank)
    return tuple(_stage_tensors(decoder, layout, place, head, layers))


def _stage_tensors(
    decoder: DecoderConfig,
    layout: ParallelLayout,
    place: Coordinate,
    head: Head,
    layers: Iterable[int | str],
) -> Iterator[LocalTensor]:
    first, last = place.pp_rank == 0, place.pp_rank == layout.pp - 1
    if first:
        yield _vocab_rows(decoder, layout.tp, place.tp_rank, "embed", EMBEDDING)
    for layer in layers:
        yield from _layer_tensors(decoder, layout.tp, place.tp_rank, layer)
    if not last:
        return
    yield _whole("norm", "model.norm.weight", (decoder.hidden_size,))
    if head == "scalar":
        yield _whole("head", SCALAR_HEAD, (1, decoder.hidden_size))
    elif has_own_head(decoder, layout):
        source = EMBEDDING if decoder.tied else LM_HEAD
        yield _vocab_rows(decoder, layout.tp, place.tp_rank, "head", source)


def _layer_tensors(decoder: DecoderConfig, tp: int, tp_rank: int, layer: int | str) -> Iterator[LocalTensor]:
    prefix, local = f"model.layers.{layer}.", f"layers.{layer}."
    hidden, dim = decoder.hidden_size, decoder.head_dim
    queries = _part(decoder.num_heads * dim, tp, tp_rank)
    shared = kv_heads(decoder, tp, tp_rank)
    keys = range(shared.start * dim, shared.stop * dim)
    inner = _part(decoder.intermediate_size, tp, tp_rank)

    yield _whole(local + "attn_norm", prefix + "input_layernorm.weight", (hidden,))
    yield _fused_rows(
        local + "qkv",
        hidden,
        (prefix + "self_attn.q_proj.weight", queries),
        (prefix + "self_attn.k_proj.weight", keys),
        (prefix + "self_attn.v_proj.weight", keys),
    )
    yield _columns(local + "attn_out", prefix + "self_attn.o_proj.weight", hidden, queries)
    yield _whole(local + "mlp_norm", prefix + "post_attention_layernorm.weight", (hidden,))
    yield _fused_rows(
        local + "gate_up",
        hidden,
        (prefix + "mlp.gate_proj.weight", inner),
        (prefix + "mlp.up_proj.weight", inner),
    )
    yield _columns(local + "mlp_down", prefix + "mlp.down_proj.weight", hidden, inner)


def _part(size: int, tp: int, tp_rank: int) -> range:
    return range(tp_rank * size // tp, (tp_rank + 1) * size // tp)


def _whole(local: str, tensor: str, shape: tuple[int, ...]) -> LocalTensor:
    zeros = (0,) * len(shape)
    return LocalTensor(local, shape, (Piece(Box(tensor, zeros, shape), zeros),))


def _fused_rows(local: str, columns: int, *parts: tuple[str, range]) -> LocalTensor:
    pieces, row = [], 0
    for tensor, rows in parts:
        pieces.append(Piece(Box(tensor, (rows.start, 0), (rows.stop, columns)), (row, 0)))
        row += len(rows)
    return LocalTensor(local, (row, columns), tuple(pieces))


def _columns(local: str, tensor: str, rows: int, columns: range) -> LocalTensor:
    box = Box(tensor, (0, columns.start), (rows, columns.stop))
    return LocalTensor(local, (rows, len(columns)), (Piece(box, (0, 0)),))


def _vocab_rows(decoder: DecoderConfig, tp: int, tp_rank: int, local: str, tensor: str) -> LocalTensor:
    rows = padded_vocab(decoder, tp) // tp
    start = min(tp_rank * rows, decoder.vocab_size)
    stop = min(start + rows, decoder.vocab_size)
    pieces = ()
    if stop > start:
        pieces = (Piece(Box(tensor, (start, 0), (stop, decoder.hidden_size)), (0, 0)),)
    return LocalTensor(local, (rows, decoder.hidden_size), pieces)
