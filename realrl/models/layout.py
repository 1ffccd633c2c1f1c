"""The partition of a decoder over (pp, dp, tp): every rank's local tensors and the boxes in them.

Global tensors are named and shaped as in the family's Hugging Face checkpoints. A local tensor may hold boxes
of several global ones. For example, the queries, keys and values of two tensor-parallel ranks:

    global tensors        local tensor of rank 0      local tensor of rank 1
    q  | 0 | 1 |          qkv | q 0 | k 0 | v 0 |     qkv | q 1 | k 1 | v 1 |
    k  | 0 | 1 |
    v  | 0 | 1 |
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, product
from operator import add
from typing import Literal, NamedTuple

from torch import Tensor

from realrl.api.mesh import Coordinate, ParallelLayout, Placement
from realrl.layouts.layout import Box, Layout, Part, Pattern
from realrl.models.config import DecoderConfig

Head = Literal["lm", "scalar"]

Shape = tuple[int, ...]


class Piece(NamedTuple):
    """A box and its first element in the local tensor; padding lies in no piece."""

    box: Box
    offset: Shape


@dataclass(frozen=True)
class LocalTensor:
    """One rank's part of one or several fused global tensors."""

    name: str
    shape: Shape
    pieces: tuple[Piece, ...]


def check_fits(decoder: DecoderConfig, layout: ParallelLayout, path: str) -> None:
    """Check that the decoder can be divided by a layout.

    Raises:
        ValueError: it cannot; the message names `path`.
    """
    tp = layout.tp
    num_kv_heads = decoder.num_kv_heads
    num_chunks = layout.pp * layout.vp
    if num_chunks > decoder.num_layers:
        interleaved = f"v{layout.vp}" if layout.vp > 1 else ""
        raise ValueError(
            f"{path}: p{layout.pp}{interleaved} needs at least {num_chunks} layers,"
            f" the model has {decoder.num_layers}"
        )

    if decoder.num_heads % tp:
        raise ValueError(f"{path}: t{tp} must divide the model's {decoder.num_heads} attention heads")
    if num_kv_heads % tp and tp % num_kv_heads:
        raise ValueError(
            f"{path}: t{tp} must divide, or be a multiple of, the model's {num_kv_heads} key/value heads"
        )

    if decoder.intermediate_size % tp:
        raise ValueError(
            f"{path}: t{tp} must divide the model's intermediate size {decoder.intermediate_size}"
        )


def layer_chunks(decoder: DecoderConfig, layout: ParallelLayout, pp_rank: int) -> tuple[range, ...]:
    """Return the `vp` chunks of layers of a pipeline stage.

    The chunks of all stages take turns: a stage's next chunk follows the chunk of the last stage.
    """
    num_chunks = layout.pp * layout.vp
    own = range(pp_rank, num_chunks, layout.pp)
    return tuple(_share(decoder.num_layers, num_chunks, index) for index in own)


def stage_layers(decoder: DecoderConfig, layout: ParallelLayout, pp_rank: int) -> tuple[int, ...]:
    """Return the layers of all chunks of a pipeline stage."""
    chunks = layer_chunks(decoder, layout, pp_rank)
    return tuple(chain.from_iterable(chunks))


def kv_heads(decoder: DecoderConfig, tp: int, tp_rank: int) -> range:
    """Return the key/value heads on a tensor-parallel rank; with fewer heads than ranks, ranks share one."""
    first = tp_rank * decoder.num_kv_heads // tp
    number = max(1, decoder.num_kv_heads // tp)
    return range(first, first + number)


def padded_vocab(decoder: DecoderConfig, tp: int) -> int:
    """Return the vocabulary's size, rounded up to a multiple of `tp`."""
    return -(-decoder.vocab_size // tp) * tp


def has_own_head(decoder: DecoderConfig, layout: ParallelLayout) -> bool:
    """Whether the last stage keeps the language-model head apart from the embedding."""
    return not decoder.tied or layout.pp > 1


@lru_cache(maxsize=256)
def decoder_layout(decoder: DecoderConfig, placement: Placement, head: Head) -> Layout:
    """Return which rank of `placement` holds which box of the decoder.

    All layers of a stage are divided in the same way, so that one pattern describes them.
    """
    layout = placement.layout
    holders: dict[_Name, dict[_Place, list[int]]] = defaultdict(dict)
    for pp_rank, tp_rank in product(range(layout.pp), range(layout.tp)):
        first_replica = Coordinate(pp_rank, 0, tp_rank)
        replicas = _replicas(placement, first_replica)
        layers = stage_layers(decoder, layout, pp_rank)
        keys = tuple(map(str, layers))
        for local in _stage_tensors(decoder, layout, first_replica, head, ("*",)):
            for box, offset in local.pieces:
                has_layers = "*" in box.tensor
                name = box.tensor, keys if has_layers else None
                place = box.start, box.stop, local.name, offset
                ranks = holders[name].setdefault(place, [])
                ranks += replicas

    patterns = [_pattern(name, places) for name, places in holders.items()]
    return Layout(tuple(patterns))


_Name = tuple[str, tuple[str, ...] | None]
"""The name of a global tensor, and the layers that take the place of `*` in it."""
_Place = tuple[Shape, Shape, str, Shape]
"""Start and stop of a box, and its local tensor with the offset in it."""


def _pattern(name: _Name, places: Mapping[_Place, Sequence[int]]) -> Pattern:
    """Return a tensor's boxes with the ranks that hold each of them."""
    tensor, keys = name
    parts = []
    for (start, stop, local, offset), ranks in places.items():
        part = Part(
            tuple(ranks),
            start,
            stop,
            local,
            offset,
        )
        parts.append(part)
    return Pattern(tensor, tuple(parts), keys)


def _replicas(placement: Placement, place: Coordinate) -> list[int]:
    """Return the global ranks of all data-parallel replicas of a place."""
    ranks = []
    for dp_rank in range(placement.layout.dp):
        rank = placement.rank(
            pp_rank=place.pp_rank,
            dp_rank=dp_rank,
            tp_rank=place.tp_rank,
        )
        ranks.append(rank)
    return ranks


def local_tensors(
    decoder: DecoderConfig, layout: ParallelLayout, place: Coordinate, head: Head
) -> tuple[LocalTensor, ...]:
    """Return the tensors of one rank, in the order in which the forward pass uses them."""
    layers = stage_layers(decoder, layout, place.pp_rank)
    return tuple(_stage_tensors(decoder, layout, place, head, layers))


def whole_tensors(locals: Iterable[LocalTensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the global tensors, as views of the local tensors of a rank that holds them whole."""
    found: dict[str, Tensor] = {}
    for local in locals:
        pieces_by_tensor: dict[str, list[Piece]] = defaultdict(list)
        for piece in local.pieces:
            name = piece.box.tensor
            pieces_by_tensor[name].append(piece)

        tensor = tensors[local.name]
        for name, pieces in pieces_by_tensor.items():
            found[name] = tensor[_extent(pieces)]
    return found


def _extent(pieces: Iterable[Piece]) -> tuple[slice, ...]:
    """Return the smallest region of the local tensor that contains some of its pieces."""
    begins = [offset for _, offset in pieces]
    ends = [_end(piece) for piece in pieces]
    begin = map(min, zip(*begins))
    end = map(max, zip(*ends))
    return tuple(map(slice, begin, end))


def _end(piece: Piece) -> Shape:
    """Return the corner of a piece in its local tensor that lies opposite its offset."""
    box, offset = piece
    return tuple(map(add, offset, box.shape))


def _stage_tensors(
    decoder: DecoderConfig,
    layout: ParallelLayout,
    place: Coordinate,
    head: Head,
    layers: Iterable[int | str],
) -> Iterator[LocalTensor]:
    names = decoder.names
    hidden = decoder.hidden_size
    if place.pp_rank == 0:
        yield _vocab_rows(decoder, layout.tp, place.tp_rank, "embed", decoder.embedding)
        if decoder.rope is None:
            shape = decoder.max_position, hidden
            yield _whole("positions", f"{names.positions}.weight", shape)

    for layer in layers:
        yield from _attention_tensors(decoder, layout.tp, place.tp_rank, layer)
        yield from _mlp_tensors(decoder, layout.tp, place.tp_rank, layer)

    if place.pp_rank < layout.pp - 1:
        return
    yield from _norm(decoder, "norm", names.norm)
    if head == "scalar":
        yield _whole("head", decoder.scalar_head, (1, hidden))
    elif has_own_head(decoder, layout):
        source = decoder.embedding if decoder.tied else f"{names.head}.weight"
        yield _vocab_rows(decoder, layout.tp, place.tp_rank, "head", source)


def _attention_tensors(
    decoder: DecoderConfig, tp: int, tp_rank: int, layer: int | str
) -> Iterator[LocalTensor]:
    names = decoder.names
    prefix = names.layer.replace("*", str(layer))
    local = f"layers.{layer}."
    dim = decoder.head_dim
    num_queries = decoder.num_heads * dim
    num_keys = decoder.num_kv_heads * dim
    queries = _share(num_queries, tp, tp_rank)
    heads = kv_heads(decoder, tp, tp_rank)
    keys = range(heads.start * dim, heads.stop * dim)
    rows = _fused(
        prefix,
        names.qkv,
        parts=(queries, keys, keys),
        sizes=(num_queries, num_keys, num_keys),
    )

    yield from _norm(decoder, local + "attn_norm", prefix + names.attn_norm)
    yield from _linear(decoder, local + "qkv", rows, bias=decoder.qkv_bias)
    if decoder.qk_norm:
        yield _whole(local + "q_norm", f"{prefix}{names.q_norm}.weight", (dim,))
        yield _whole(local + "k_norm", f"{prefix}{names.k_norm}.weight", (dim,))

    yield from _row_linear(
        decoder,
        local + "attn_out",
        prefix + names.attn_out,
        queries,
        bias=decoder.attn_out_bias,
    )
    if decoder.post_norms:
        yield from _norm(decoder, local + "attn_post_norm", prefix + names.attn_post_norm)


def _mlp_tensors(decoder: DecoderConfig, tp: int, tp_rank: int, layer: int | str) -> Iterator[LocalTensor]:
    names = decoder.names
    prefix = names.layer.replace("*", str(layer))
    local = f"layers.{layer}."
    num_ups = 2 if decoder.gated else 1
    inner = _share(decoder.intermediate_size, tp, tp_rank)
    rows = _fused(
        prefix,
        names.gate_up,
        parts=(inner,) * num_ups,
        sizes=(decoder.intermediate_size,) * num_ups,
    )

    yield from _norm(decoder, local + "mlp_norm", prefix + names.mlp_norm)
    yield from _linear(decoder, local + "gate_up", rows, bias=decoder.mlp_bias)
    yield from _row_linear(
        decoder,
        local + "mlp_down",
        prefix + names.mlp_down,
        inner,
        bias=decoder.mlp_bias,
    )
    if decoder.post_norms:
        yield from _norm(decoder, local + "mlp_post_norm", prefix + names.mlp_post_norm)


_Rows = list[tuple[str, range]]
"""Modules, and which of their outputs follow each other in a local tensor."""


def _fused(prefix: str, names: Sequence[str], parts: Sequence[range], sizes: Sequence[int]) -> _Rows:
    """Return the outputs `parts` of modules that have `sizes` outputs.

    A single name is one module that has all of these modules' outputs, end to end.
    """
    if len(names) > 1:
        return [(prefix + name, part) for name, part in zip(names, parts)]
    rows: _Rows = []
    offset = 0
    for part, size in zip(parts, sizes):
        start = offset + part.start
        shifted = range(start, start + len(part))
        rows.append((prefix + names[0], shifted))
        offset += size
    return rows


def _share(size: int, number: int, index: int) -> range:
    """Return the indices of one of `number` nearly equal shares."""
    start = index * size // number
    stop = (index + 1) * size // number
    return range(start, stop)


def _whole(local: str, tensor: str, shape: Shape) -> LocalTensor:
    origin = (0,) * len(shape)
    box = Box(tensor, origin, shape)
    return LocalTensor(local, shape, (Piece(box, origin),))


def _norm(decoder: DecoderConfig, local: str, module: str) -> Iterator[LocalTensor]:
    shape = (decoder.hidden_size,)
    yield _whole(local, f"{module}.weight", shape)
    if decoder.norm == "layer":
        yield _whole(f"{local}_bias", f"{module}.bias", shape)


def _linear(decoder: DecoderConfig, local: str, rows: _Rows, *, bias: bool) -> Iterator[LocalTensor]:
    """Yield some outputs of some modules, fused, and their biases."""
    columns = decoder.hidden_size
    weights: list[Piece] = []
    biases: list[Piece] = []
    row = 0
    for module, part in rows:
        weight = Box(
            f"{module}.weight",
            start=(part.start, 0),
            stop=(part.stop, columns),
        )
        vector = Box(
            f"{module}.bias",
            start=(part.start,),
            stop=(part.stop,),
        )
        weights.append(Piece(weight, (row, 0)))
        biases.append(Piece(vector, (row,)))
        row += len(part)

    matrix = LocalTensor(local, (row, columns), tuple(weights))
    yield _stored(decoder, matrix)
    if bias:
        yield LocalTensor(f"{local}_bias", (row,), tuple(biases))


def _row_linear(
    decoder: DecoderConfig, local: str, module: str, columns: range, *, bias: bool
) -> Iterator[LocalTensor]:
    """Yield some inputs of a module, and its whole bias, which is added once, to the sum over ranks."""
    rows = decoder.hidden_size
    box = Box(
        f"{module}.weight",
        start=(0, columns.start),
        stop=(rows, columns.stop),
    )
    piece = Piece(box, (0, 0))
    shape = rows, len(columns)
    matrix = LocalTensor(local, shape, (piece,))
    yield _stored(decoder, matrix)
    if bias:
        yield _whole(f"{local}_bias", f"{module}.bias", (rows,))


def _stored(decoder: DecoderConfig, matrix: LocalTensor) -> LocalTensor:
    """Return a matrix `[out, in]` as the family's checkpoints store it."""
    if not decoder.names.transposed:
        return matrix
    pieces: list[Piece] = []
    for box, offset in matrix.pieces:
        transposed = Box(
            box.tensor,
            start=box.start[::-1],
            stop=box.stop[::-1],
        )
        piece = Piece(transposed, offset[::-1])
        pieces.append(piece)
    return LocalTensor(
        matrix.name,
        matrix.shape[::-1],
        tuple(pieces),
    )


def _vocab_rows(decoder: DecoderConfig, tp: int, tp_rank: int, local: str, tensor: str) -> LocalTensor:
    """Return a rank's rows of an embedding or head; the last ones may be padding."""
    columns = decoder.hidden_size
    num_rows = padded_vocab(decoder, tp) // tp
    start = min(tp_rank * num_rows, decoder.vocab_size)
    stop = min(start + num_rows, decoder.vocab_size)
    pieces: tuple[Piece, ...] = ()
    if stop > start:
        box = Box(
            tensor,
            start=(start, 0),
            stop=(stop, columns),
        )
        pieces = (Piece(box, (0, 0)),)

    shape = num_rows, columns
    return LocalTensor(local, shape, pieces)
