"""Boxes of tensors, gathered into one message and scattered from it, each way by one kernel.

The kernels know a region as rows whose elements lie side by side; `Boxes` lists them in a table of int64,
whose columns are those of `Box` in csrc/boxes.h.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate, chain, product
from typing import NamedTuple

import torch
from torch import Tensor

from realrl.ops import kernels

ALIGNMENT = 64
"""Bytes; every region's place in a message begins at a multiple of it."""

_KINDS = {torch.float32: 1, torch.bfloat16: 2, torch.float16: 3, torch.float64: 4}
"""The dtypes whose elements the kernels can read; those of any other dtype they only copy."""
_CASTABLE = frozenset((torch.float32, torch.bfloat16, torch.float16))
_COLUMNS = 8


class Boxes:
    """Regions of tensors on one device, each with its place in a message.

    A region is a view of any rank, strides and dtype. The i-th occupies the message from byte `begins[i]`,
    in row-major order, as elements of `wire_dtypes[i]`: its own dtype, or another of float32, bfloat16 and
    float16. Places may overlap where the message is only read.

    Raises:
        ValueError: places that are not aligned, dtypes that cannot be cast, regions on several devices.
    """

    def __init__(
        self, regions: Sequence[Tensor], begins: Sequence[int], wire_dtypes: Sequence[torch.dtype]
    ) -> None:
        if not len(regions) == len(begins) == len(wire_dtypes):
            counts = f"{len(regions)}, {len(begins)} and {len(wire_dtypes)}"
            raise ValueError(f"boxes: regions, begins and wire_dtypes must be as many, got {counts}")
        for region, begin, wire in zip(regions, begins, wire_dtypes):
            if begin % ALIGNMENT or begin < 0:
                raise ValueError(f"boxes: a region must begin at a multiple of {ALIGNMENT}, got {begin}")
            _check_region(region, wire, regions[0].device)
        self.regions, self.begins, self.wire_dtypes = tuple(regions), tuple(begins), tuple(wire_dtypes)
        self.device = regions[0].device if regions else None
        ends = (b + r.numel() * w.itemsize for b, r, w in zip(begins, regions, wire_dtypes))
        self._spans = sorted((b, e, i) for i, (b, e) in enumerate(zip(begins, ends)) if e > b)
        self.num_bytes = max((end for _, end, _ in self._spans), default=0)
        self.disjoint = all(a[1] <= b[0] for a, b in zip(self._spans, self._spans[1:]))
        self.blendable = all(region.dtype in _KINDS for region in regions)

    @cached_property
    def num_positions(self) -> int:
        """How many bytes the kernels' work is divided over."""
        return self.num_bytes if self.disjoint else sum(_aligned(e - b) for b, e, _ in self._spans)

    @cached_property
    def _host_table(self) -> Tensor:
        lengths = [_aligned(end - begin) for begin, end, _ in self._spans]
        positions = [b for b, _, _ in self._spans] if self.disjoint else accumulate(lengths, initial=0)
        table = array("q")
        for position, (begin, _, i) in zip(positions, self._spans):
            region, wire = self.regions[i], self.wire_dtypes[i]
            place = _Side(begin, _row_major(region.shape), wire)
            _list_rows(table, position, region.shape, _side(region), place)
        return _as_tensor(table)

    @cached_property
    def _uploaded(self) -> tuple[Tensor, torch.cuda.Event]:
        return _upload(self._host_table, self.device)

    @property
    def table(self) -> Tensor:
        """The kernels' list of rows, on the regions' device and ready for the current stream."""
        if self.device is None or self.device.type != "cuda":
            return self._host_table
        table, uploaded = self._uploaded
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(uploaded)
        table.record_stream(stream)
        return table


_NO_BOXES = Boxes((), (), ())


def pack(boxes: Boxes, message: Tensor, checksum: Tensor | None = None) -> None:
    """Fill a message from the regions, casting to the wire dtypes.

    Shapes: message uint8 `[n]`, contiguous. `checksum`, int64 `[1]` on the message's device, receives the
        sum of all its bytes, those between the regions included; n is then a multiple of 8.
    Raises:
        ValueError: a message that does not fit, or regions that share a place in it.
    """
    _check_message(boxes, message, checksum)
    if not boxes.disjoint:
        raise ValueError("boxes: two regions have the same place in the message, which only unpack allows")
    kernel = kernels.for_device(message.device)
    if kernel is None:
        return pack_reference(boxes, message, checksum)
    kernel.move_boxes(boxes.table, message, message.numel(), into_message=True, eta=1.0, checksum=checksum)


def unpack(boxes: Boxes, message: Tensor, checksum: Tensor | None = None, *, eta: float = 1.0) -> None:
    """Write the regions from a message, casting to their dtypes; with `eta` < 1 blend it into them.

    A region of floats becomes `eta * message + (1 - eta) * region`, computed in float32, and in float64 if
    that is its dtype. `checksum` receives the message's sum.

    Shapes: as for `pack`.
    Raises:
        ValueError: a message that does not fit, or regions that cannot be blended.
    """
    _check_message(boxes, message, checksum)
    _check_eta(eta, boxes.blendable)
    kernel = kernels.for_device(message.device)
    if kernel is None:
        return unpack_reference(boxes, message, checksum, eta=eta)
    table, num_bytes = boxes.table, message.numel()
    if not boxes.disjoint:
        # Positions then are not the message's bytes, and the kernel cannot sum these on its way.
        if checksum is not None:
            kernel.move_boxes(table[:0], message, num_bytes, into_message=False, eta=1.0, checksum=checksum)
        checksum, num_bytes = None, boxes.num_positions
    kernel.move_boxes(table, message, num_bytes, into_message=False, eta=eta, checksum=checksum)


def add_up(message: Tensor, checksum: Tensor) -> None:
    """Write a message's checksum, as `pack` and `unpack` do beside their work.

    Shapes: message uint8 `[n]`, n a multiple of 8; checksum int64 `[1]` on its device.
    """
    unpack(_NO_BOXES, message, checksum)


def copy(sources: Sequence[Tensor], targets: Sequence[Tensor], *, eta: float = 1.0) -> None:
    """Write each target from its source, as `unpack` would from a message; they share no memory.

    Shapes: a target has its source's.
    Raises:
        ValueError: pairs whose shapes, dtypes or devices do not fit.
    """
    if len(sources) != len(targets):
        raise ValueError(f"boxes: {len(sources)} sources for {len(targets)} targets")
    for source, target in zip(sources, targets):
        if source.shape != target.shape:
            shapes = f"{list(source.shape)} to {list(target.shape)}"
            raise ValueError(f"boxes: cannot copy {shapes}: the shapes must be equal")
        _check_region(target, source.dtype, targets[0].device)
        _check_region(source, target.dtype, targets[0].device)
    _check_eta(eta, all(target.dtype in _KINDS for target in targets))
    if not targets:
        return
    kernel = kernels.for_device(targets[0].device)
    if kernel is None:
        return copy_reference(sources, targets, eta=eta)
    table, num_positions = _pairs_table(sources, targets)
    kernel.move_boxes(table, None, num_positions, into_message=False, eta=eta, checksum=None)


@torch.no_grad()
def pack_reference(boxes: Boxes, message: Tensor, checksum: Tensor | None = None) -> None:
    """`pack`'s twin, in PyTorch."""
    for region, begin, wire in zip(boxes.regions, boxes.begins, boxes.wire_dtypes):
        packed = torch.empty(region.shape, dtype=wire, device=region.device).copy_(region)
        message[begin : begin + packed.nbytes] = packed.view(-1).view(torch.uint8)
    _write_checksum(message, checksum)


@torch.no_grad()
def unpack_reference(
    boxes: Boxes, message: Tensor, checksum: Tensor | None = None, *, eta: float = 1.0
) -> None:
    """`unpack`'s twin, in PyTorch."""
    _write_checksum(message, checksum)
    for region, begin, wire in zip(boxes.regions, boxes.begins, boxes.wire_dtypes):
        packed = message[begin : begin + region.numel() * wire.itemsize].clone()
        _arrive(packed.view(wire).view(region.shape), region, eta)


@torch.no_grad()
def copy_reference(sources: Sequence[Tensor], targets: Sequence[Tensor], *, eta: float = 1.0) -> None:
    """`copy`'s twin, in PyTorch."""
    for source, target in zip(sources, targets):
        _arrive(source, target, eta)


def checksum(message: Tensor) -> int:
    """The sum of a message's little-endian 64-bit words, the i-th weighted by 2i + 1, modulo 2^64.

    Shapes: uint8 `[n]`, n a multiple of 8; the result is signed.
    """
    words = message.clone().view(torch.int64)
    weights = 2 * torch.arange(len(words), device=words.device) + 1
    return int((weights * words).sum())


def _write_checksum(message: Tensor, result: Tensor | None) -> None:
    if result is not None:
        result.fill_(checksum(message))


def _arrive(incoming: Tensor, region: Tensor, eta: float) -> None:
    if eta == 1.0:
        region.copy_(incoming)
        return
    wide = torch.float64 if region.dtype == torch.float64 else torch.float32
    region.copy_(eta * incoming.to(wide) + (1 - eta) * region.to(wide))


class _Side(NamedTuple):
    """Where one end of a movement lies."""

    address: int
    strides: Sequence[int]
    dtype: torch.dtype


def _side(tensor: Tensor) -> _Side:
    return _Side(tensor.data_ptr(), tensor.stride(), tensor.dtype)


def _list_rows(table: array, position: int, shape: Sequence[int], tensor: _Side, message: _Side) -> None:
    """Add what the kernel needs to move `shape` elements: one row of the table for each two dimensions."""
    kind, message_kind = _KINDS.get(tensor.dtype, 0), _KINDS.get(message.dtype, 0)
    size, message_size = tensor.dtype.itemsize, message.dtype.itemsize
    (elements, _, _), (rows, stride, message_stride), *outer = _dims(shape, tensor.strides, message.strides)
    num_bytes = rows * elements * message_size
    # The bytes of elements that are only copied count as their elements.
    elements = elements if kind else elements * size
    for offset, message_offset in _offsets(outer):
        address, place = tensor.address + offset * size, message.address + message_offset * message_size
        table.extend((position, rows, elements, address, stride * size, place, message_stride * message_size))
        table.append(kind | message_kind << 32)
        position += num_bytes


def _dims(shape: Sequence[int], *strides: Sequence[int]) -> list[tuple[int, int, int]]:
    """At least two dimensions, the innermost first and dense, that have the elements in the same order."""
    dims = [(1, 1, 1)]
    for length, a, b in zip(reversed(shape), *map(reversed, strides)):
        inner, inner_a, inner_b = dims[-1]
        if length == 1:
            continue
        if (a, b) == (inner * inner_a, inner * inner_b):
            dims[-1] = (inner * length, inner_a, inner_b)
        else:
            dims.append((length, a, b))
    return dims if len(dims) > 1 else [*dims, (1, 0, 0)]


def _offsets(outer: Sequence[tuple[int, int, int]]) -> Iterator[tuple[int, int]]:
    """Of each index over the outer dimensions, the first of which runs fastest."""
    for index in product(*(range(length) for length, _, _ in reversed(outer))):
        steps = list(zip(reversed(index), outer))
        yield sum(i * a for i, (_, a, _) in steps), sum(i * b for i, (_, _, b) in steps)


def _row_major(shape: Sequence[int]) -> list[int]:
    return list(accumulate(chain((1,), reversed(shape[1:])), int.__mul__))[::-1] if shape else []


def _pairs_table(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> tuple[Tensor, int]:
    """The table to copy by, as if from a message at address 0, and the number of its positions."""
    table, position = array("q"), 0
    for source, target in zip(sources, targets):
        if num_bytes := source.numel() * source.itemsize:
            _list_rows(table, position, source.shape, _side(target), _side(source))
            position += _aligned(num_bytes)
    rows, device = _as_tensor(table), targets[0].device
    return rows if device.type == "cpu" else _upload(rows, device)[0], position


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT


def _as_tensor(table: array) -> Tensor:
    rows = torch.frombuffer(table, dtype=torch.int64) if table else torch.empty(0, dtype=torch.int64)
    return rows.view(-1, _COLUMNS)


def _upload(table: Tensor, device: torch.device) -> tuple[Tensor, torch.cuda.Event]:
    """A copy on the device, and what another stream must wait for before it reads it."""
    with torch.cuda.device(device):
        rows = table.pin_memory().to(device, non_blocking=True)
        return rows, torch.cuda.current_stream().record_event()


def _check_region(region: Tensor, wire: torch.dtype, device: torch.device) -> None:
    if region.dtype != wire and not {region.dtype, wire} <= _CASTABLE:
        raise ValueError(f"boxes: cannot cast between {region.dtype} and {wire}")
    if region.device != device:
        raise ValueError(f"boxes: all regions must be on one device, got {device} and {region.device}")
    if region.layout != torch.strided or region.is_conj() or region.is_neg():
        raise ValueError("boxes: a region must be a plain strided tensor, not sparse or lazily conjugated")


def _check_eta(eta: float, blendable: bool) -> None:
    if not 0 <= eta <= 1:
        raise ValueError(f"boxes: eta must be from 0 to 1, got {eta}")
    if eta < 1 and not blendable:
        raise ValueError(f"boxes: eta must be 1 unless all regions are floats, got {eta}")


def _check_message(boxes: Boxes, message: Tensor, checksum: Tensor | None) -> None:
    """The kernels read and write raw memory, so what does not fit is refused here."""
    if message.dtype != torch.uint8 or message.dim() != 1 or not message.is_contiguous():
        got = f"{message.dtype} {list(message.shape)} of strides {list(message.stride())}"
        raise ValueError(f"boxes: the message must be contiguous torch.uint8 [n], got {got}")
    if len(message) < boxes.num_bytes:
        raise ValueError(f"boxes: the regions need a message of {boxes.num_bytes} bytes, got {len(message)}")
    if message.data_ptr() % 8:
        raise ValueError("boxes: the message's address must be a multiple of 8")
    if boxes.device not in (None, message.device):
        raise ValueError(f"boxes: the regions are on {boxes.device}, the message on {message.device}")
    if checksum is None:
        return
    if checksum.dtype != torch.int64 or checksum.shape != (1,) or checksum.device != message.device:
        got = f"{checksum.dtype} {list(checksum.shape)} on {checksum.device}"
        raise ValueError(f"boxes: checksum must be torch.int64 [1] on {message.device}, got {got}")
    assert len(message) % 8 == 0, f"a checksum needs whole 64-bit words, got {len(message)} bytes"
