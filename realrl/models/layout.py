"""How a decoder is cut over (pp, dp, tp): every rank's local tensors and the boxes in them.

Global tensors are named and shaped as in the family's Hugging Face checkpoints.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, product
from typing import Literal, NamedTuple

from torch import Tensor

from realrl.api.mesh import Coordinate, ParallelLayout, Placement
from realrl.layouts.layout import Box, Layout, Part, Pattern
from realrl.models.config import DecoderConfig

Head = Literal["lm", "scalar"]


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
    if (chunks := layout.pp * layout.vp) > decoder.num_layers:
        raise ValueError(
            f"{path}: p{layout.pp}{f'v{layout.vp}' if layout.vp > 1 else ''} needs at least {chunks} layers,"
            f" the model has {decoder.num_layers}"
        )
    if decoder.num_heads % tp:
        raise ValueError(f"{path}: t{tp} must divide the model's {decoder.num_heads} attention heads")
    if kv % tp and tp % kv:
        raise ValueError(f"{path}: t{tp} must divide, or be a multiple of, the model's {kv} key/value heads")
    if decoder.intermediate_size % tp:
        raise ValueError(
            f"{path}: t{tp} must divide the model's intermediate size {decoder.intermediate_size}"
        )


def layer_chunks(decoder: DecoderConfig, layout: ParallelLayout, pp_rank: int) -> tuple[range, ...]:
    """The layers of a pipeline stage: `vp` chunks, each of which goes on where the last stage's one ended."""
    num_chunks = layout.pp * layout.vp
    return tuple(
        range(i * decoder.num_layers // num_chunks, (i + 1) * decoder.num_layers // num_chunks)
        for i in range(pp_rank, num_chunks, layout.pp)
    )


def stage_layers(decoder: DecoderConfig, layout: ParallelLayout, pp_rank: int) -> tuple[int, ...]:
    """All of them."""
    return tuple(chain.from_iterable(layer_chunks(decoder, layout, pp_rank)))


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


def whole_tensors(locals: Iterable[LocalTensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The global tensors, as views of the local tensors of a rank that holds all of each."""
    found: dict[str, Tensor] = {}
    for local in locals:
        boxes: dict[str, list[Piece]] = defaultdict(list)
        for piece in local.pieces:
            boxes[piece.box.tensor].append(piece)
        for name, pieces in boxes.items():
            begin = map(min, zip(*(offset for _, offset in pieces)))
            end = map(max, zip(*(_end(piece) for piece in pieces)))
            found[name] = tensors[local.name][tuple(map(slice, begin, end))]
    return found


def _end(piece: Piece) -> tuple[int, ...]:
    """Where a piece ends in its local tensor."""
    box, offset = piece
    return tuple(o + stop - start for o, start, stop in zip(offset, box.start, box.stop))


def _stage_tensors(
    decoder: DecoderConfig,
    layout: ParallelLayout,
    place: Coordinate,
    head: Head,
    layers: Iterable[int | str],
) -> Iterator[LocalTensor]:
    first, last = place.pp_rank == 0, place.pp_rank == layout.pp - 1
    names, hidden = decoder.names, decoder.hidden_size
    if first:
        yield _vocab_rows(decoder, layout.tp, place.tp_rank, "embed", decoder.embedding)
        if decoder.rope is None:
            yield _whole("positions", f"{names.positions}.weight", (decoder.max_position, hidden))
    for layer in layers:
        yield from _layer_tensors(decoder, layout.tp, place.tp_rank, layer)
    if not last:
        return
    yield from _norm(decoder, "norm", names.norm)
    if head == "scalar":
        yield _whole("head", decoder.scalar_head, (1, hidden))
    elif has_own_head(decoder, layout):
        source = decoder.embedding if decoder.tied else f"{names.head}.weight"
        yield _vocab_rows(decoder, layout.tp, place.tp_rank, "head", source)


def _layer_tensors(decoder: DecoderConfig, tp: int, tp_rank: int, layer: int | str) -> Iterator[LocalTensor]:
    names, hidden, dim = decoder.names, decoder.hidden_size, decoder.head_dim
    prefix, local = names.layer.replace("*", str(layer)), f"layers.{layer}."
    queries = _part(decoder.num_heads * dim, tp, tp_rank)
    shared = kv_heads(decoder, tp, tp_rank)
    keys = range(shared.start * dim, shared.stop * dim)
    inner = _part(decoder.intermediate_size, tp, tp_rank)
    num_keys = decoder.num_kv_heads * dim
    qkv = _spread(prefix, names.qkv, (queries, keys, keys), (decoder.num_heads * dim, num_keys, num_keys))
    num_ups = 2 if decoder.gated else 1
    ups = _spread(prefix, names.gate_up, (inner,) * num_ups, (decoder.intermediate_size,) * num_ups)

    yield from _norm(decoder, local + "attn_norm", prefix + names.attn_norm)
    yield from _linear(decoder, local + "qkv", qkv, hidden, bias=decoder.qkv_bias)
    if decoder.qk_norm:
        yield _whole(local + "q_norm", f"{prefix}{names.q_norm}.weight", (dim,))
        yield _whole(local + "k_norm", f"{prefix}{names.k_norm}.weight", (dim,))
    yield from _row_linear(
        decoder, local + "attn_out", prefix + names.attn_out, queries, bias=decoder.attn_out_bias
    )
    if decoder.post_norms:
        yield from _norm(decoder, local + "attn_post_norm", prefix + names.attn_post_norm)
    yield from _norm(decoder, local + "mlp_norm", prefix + names.mlp_norm)
    yield from _linear(decoder, local + "gate_up", ups, hidden, bias=decoder.mlp_bias)
    mlp_down = prefix + names.mlp_down
    yield from _row_linear(decoder, local + "mlp_down", mlp_down, inner, bias=decoder.mlp_bias)
    if decoder.post_norms:
        yield from _norm(decoder, local + "mlp_post_norm", prefix + names.mlp_post_norm)


Rows = tuple[tuple[str, range], ...]
"""Modules, and which of their outputs follow each other in a local tensor."""


def _spread(prefix: str, names: tuple[str, ...], rows: Iterable[range], sizes: Iterable[int]) -> Rows:
    """Outputs of modules of `sizes`; a single name is one module that has them all, end to end."""
    found, offset = [], 0
    for index, (part, size) in enumerate(zip(rows, sizes)):
        if len(names) > 1:
            found.append((prefix + names[index], part))
        else:
            found.append((prefix + names[0], range(part.start + offset, part.stop + offset)))
            offset += size
    return tuple(found)


def _part(size: int, tp: int, tp_rank: int) -> range:
    return range(tp_rank * size // tp, (tp_rank + 1) * size // tp)


def _whole(local: str, tensor: str, shape: tuple[int, ...]) -> LocalTensor:
    zeros = (0,) * len(shape)
    return LocalTensor(local, shape, (Piece(Box(tensor, zeros, shape), zeros),))


def _norm(decoder: DecoderConfig, local: str, module: str) -> Iterator[LocalTensor]:
    yield _whole(local, f"{module}.weight", (decoder.hidden_size,))
    if decoder.norm == "layer":
        yield _whole(f"{local}_bias", f"{module}.bias", (decoder.hidden_size,))


def _linear(
    decoder: DecoderConfig, local: str, rows: Rows, columns: int, *, bias: bool
) -> Iterator[LocalTensor]:
    """Some outputs of some modules, fused, and their biases."""
    weights, biases, row = [], [], 0
    for module, part in rows:
        weights.append(Piece(Box(f"{module}.weight", (part.start, 0), (part.stop, columns)), (row, 0)))
        biases.append(Piece(Box(f"{module}.bias", (part.start,), (part.stop,)), (row,)))
        row += len(part)
    yield _stored(decoder, LocalTensor(local, (row, columns), tuple(weights)))
    if bias:
        yield LocalTensor(f"{local}_bias", (row,), tuple(biases))


def _row_linear(
    decoder: DecoderConfig, local: str, module: str, columns: range, *, bias: bool
) -> Iterator[LocalTensor]:
    """A module's inputs `columns`; its bias is whole, as it is added once, to the sum over ranks."""
    rows = decoder.hidden_size
    box = Box(f"{module}.weight", (0, columns.start), (rows, columns.stop))
    yield _stored(decoder, LocalTensor(local, (rows, len(columns)), (Piece(box, (0, 0)),)))
    if bias:
        yield _whole(f"{local}_bias", f"{module}.bias", (rows,))


def _stored(decoder: DecoderConfig, matrix: LocalTensor) -> LocalTensor:
    """A matrix `[out, in]`, the way round that the family's checkpoints have it."""
    if not decoder.names.transposed:
        return matrix
    pieces = (
        Piece(Box(box.tensor, box.start[::-1], box.stop[::-1]), offset[::-1]) for box, offset in matrix.pieces
    )
    return LocalTensor(matrix.name, matrix.shape[::-1], tuple(pieces))


def _vocab_rows(decoder: DecoderConfig, tp: int, tp_rank: int, local: str, tensor: str) -> LocalTensor:
    rows = padded_vocab(decoder, tp) // tp
    start = min(tp_rank * rows, decoder.vocab_size)
    stop = min(start + rows, decoder.vocab_size)
    pieces = ()
    if stop > start:
        pieces = (Piece(Box(tensor, (start, 0), (stop, decoder.hidden_size)), (0, 0)),)
    return LocalTensor(local, (rows, decoder.hidden_size), pieces)
