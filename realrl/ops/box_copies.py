"""Gather boxes of tensors into one message and scatter a message into boxes, each with one kernel launch.

region 0 | row | ... | row |          strided views of tensors, on one device
region 1 | row | row |
           |                 pack: regions to message; unpack: message to regions
message  | region 0   | . | region 1 | .  each region begins at a multiple of the alignment
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from realrl.ops import kernels
from realrl.ops.box_rows import ALIGNMENT, KINDS, Rows, Side, aligned, row_major, side_of

_CASTABLE = frozenset((torch.float32, torch.bfloat16, torch.float16))


class _Span(NamedTuple):
    """The bytes `[begin, end)` of a region in the message."""

    begin: int
    end: int
    region: int
    """The index of the region."""


def _message_spans(
    regions: Sequence[Tensor], begins: Sequence[int], wire_dtypes: Sequence[torch.dtype]
) -> list[_Span]:
    """Return the span of each region that is not empty, in the message's order."""
    spans = []
    for index, region in enumerate(regions):
        begin = begins[index]
        num_bytes = region.numel() * wire_dtypes[index].itemsize
        if num_bytes > 0:
            span = _Span(begin, begin + num_bytes, index)
            spans.append(span)
    return sorted(spans)


def _are_disjoint(spans: Sequence[_Span]) -> bool:
    """Whether no two of the sorted spans share a byte."""
    previous_end = 0
    for span in spans:
        if span.begin < previous_end:
            return False
        previous_end = span.end
    return True


def _check_boxes(
    regions: Sequence[Tensor], begins: Sequence[int], wire_dtypes: Sequence[torch.dtype]
) -> None:
    if not len(regions) == len(begins) == len(wire_dtypes):
        counts = f"{len(regions)}, {len(begins)} and {len(wire_dtypes)}"
        raise ValueError(f"boxes: regions, begins and wire_dtypes must be as many, got {counts}")

    for region, begin, wire in zip(regions, begins, wire_dtypes):
        is_aligned = begin >= 0 and begin % ALIGNMENT == 0
        if not is_aligned:
            raise ValueError(f"boxes: a region must begin at a multiple of {ALIGNMENT}, got {begin}")
        _check_region(region, wire, regions[0].device)


def _check_region(region: Tensor, wire: torch.dtype, device: torch.device) -> None:
    is_equal = region.dtype == wire
    can_cast = region.dtype in _CASTABLE and wire in _CASTABLE
    if not is_equal and not can_cast:
        raise ValueError(f"boxes: cannot cast between {region.dtype} and {wire}")
    if region.device != device:
        raise ValueError(f"boxes: all regions must be on one device, got {device} and {region.device}")
    if region.layout != torch.strided or region.is_conj() or region.is_neg():
        raise ValueError("boxes: a region must be a plain strided tensor, not sparse or lazily conjugated")


class Boxes:
    """Regions of tensors on one device, each with its offset in a message.

    A region is a view of any rank, strides and dtype. Region i occupies the message from byte `begins[i]`
    in row-major order, as elements of `wire_dtypes[i]`. The wire dtype is the region's own dtype, or another
    one of float32, bfloat16 and float16. Byte ranges may overlap if the message is only read.

    Raises:
        ValueError: offsets that are not aligned, dtypes that cannot be cast, or regions on several devices.
    """

    def __init__(
        self, regions: Sequence[Tensor], begins: Sequence[int], wire_dtypes: Sequence[torch.dtype]
    ) -> None:
        _check_boxes(regions, begins, wire_dtypes)
        self.regions = tuple(regions)
        self.begins = tuple(begins)
        self.wire_dtypes = tuple(wire_dtypes)
        self.device: torch.device | None = None
        """The device of the regions; None without regions."""
        if regions:
            self.device = regions[0].device
        self._spans = _message_spans(self.regions, self.begins, self.wire_dtypes)
        self.num_bytes = max((span.end for span in self._spans), default=0)
        """The smallest size of the message."""
        self.disjoint = _are_disjoint(self._spans)
        """Whether no two regions share a byte of the message."""
        self.blendable = all(region.dtype in KINDS for region in regions)
        """Whether all regions are floats."""

    @cached_property
    def num_positions(self) -> int:
        """The number of bytes over which the kernels divide their work."""
        if self.disjoint:
            return self.num_bytes
        return sum(aligned(span.end - span.begin) for span in self._spans)

    @cached_property
    def _host_table(self) -> Tensor:
        rows = Rows()
        next_position = 0
        for begin, end, index in self._spans:
            # Positions are the message's own bytes unless spans overlap; then spans follow one another.
            position = begin if self.disjoint else next_position
            region = self.regions[index]
            message_strides = row_major(region.shape)
            place = Side(begin, message_strides, self.wire_dtypes[index])
            rows.add(position, region.shape, side_of(region), place)
            next_position += aligned(end - begin)
        return rows.as_tensor()

    @cached_property
    def _uploaded(self) -> tuple[Tensor, torch.cuda.Event]:
        assert self.device is not None, "only the table of some regions is uploaded"
        return _upload(self._host_table, self.device)

    @property
    def table(self) -> Tensor:
        """The kernels' table of rows, on the regions' device and ready for the current stream."""
        if self.device is None or self.device.type != "cuda":
            return self._host_table
        table, uploaded = self._uploaded
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(uploaded)
        table.record_stream(stream)
        return table


def pack(boxes: Boxes, message: Tensor, checksum: Tensor | None = None) -> None:
    """Fill a message from the regions, casting to the wire dtypes.

    If `checksum` is given, it receives the checksum of the whole message, the bytes between regions included.

    Shapes: message uint8 `[n]`, contiguous; checksum int64 `[1]` on the message's device. With a checksum,
        n is a multiple of 8.
    Raises:
        ValueError: a message of the wrong type, size or device, or regions that overlap in it.
    """
    if checksum is None and not boxes.regions:
        return
    _check_message(boxes, message, checksum)
    if not boxes.disjoint:
        raise ValueError("boxes: two regions have the same place in the message, which only unpack allows")
    kernel = kernels.for_device(message.device)
    if kernel is None:
        return pack_reference(boxes, message, checksum)
    kernel.move_boxes(
        boxes.table,
        message,
        message.numel(),
        into_message=True,
        eta=1.0,
        checksum=checksum,
    )


def unpack(boxes: Boxes, message: Tensor, checksum: Tensor | None = None, *, eta: float = 1.0) -> None:
    """Write the regions from a message, casting to their dtypes; with `eta` < 1, blend the message into them.

    A region of floats becomes `eta * message + (1 - eta) * region`. The blend is computed in float64 for a
    float64 region, and in float32 otherwise. If `checksum` is given, it receives the message's checksum.

    Shapes: as for `pack`.
    Raises:
        ValueError: a message of the wrong type, size or device, or regions that cannot be blended.
    """
    if checksum is None and not boxes.regions:
        return
    _check_message(boxes, message, checksum)
    _check_eta(eta, boxes.blendable)
    kernel = kernels.for_device(message.device)
    if kernel is None:
        return unpack_reference(boxes, message, checksum, eta=eta)
    table = boxes.table
    num_bytes = message.numel()
    if not boxes.disjoint:
        # Positions are then not the message's bytes, so the kernel that moves cannot also sum them.
        if checksum is not None:
            no_rows = table[:0]
            kernel.move_boxes(
                no_rows,
                message,
                num_bytes,
                into_message=False,
                eta=1.0,
                checksum=checksum,
            )
        checksum = None
        num_bytes = boxes.num_positions

    kernel.move_boxes(
        table,
        message,
        num_bytes,
        into_message=False,
        eta=eta,
        checksum=checksum,
    )


def copy(sources: Sequence[Tensor], targets: Sequence[Tensor], *, eta: float = 1.0) -> None:
    """Write each target from its source, as `unpack` writes regions from a message.

    Sources and targets share no memory.

    Shapes: a target has the shape of its source.
    Raises:
        ValueError: pairs whose shapes, dtypes or devices do not match, or targets that cannot be blended.
    """
    if len(sources) != len(targets):
        raise ValueError(f"boxes: {len(sources)} sources for {len(targets)} targets")
    for source, target in zip(sources, targets):
        _check_pair(source, target, targets[0].device)
    are_floats = all(target.dtype in KINDS for target in targets)
    _check_eta(eta, are_floats)
    if not targets:
        return
    kernel = kernels.for_device(targets[0].device)
    if kernel is None:
        return copy_reference(sources, targets, eta=eta)

    table, num_positions = _pairs_table(sources, targets)
    kernel.move_boxes(
        table,
        None,
        num_positions,
        into_message=False,
        eta=eta,
        checksum=None,
    )


def _check_pair(source: Tensor, target: Tensor, device: torch.device) -> None:
    if source.shape != target.shape:
        shapes = f"{list(source.shape)} to {list(target.shape)}"
        raise ValueError(f"boxes: cannot copy {shapes}: the shapes must be equal")
    _check_region(target, source.dtype, device)
    _check_region(source, target.dtype, device)


@torch.no_grad()
def pack_reference(boxes: Boxes, message: Tensor, checksum: Tensor | None = None) -> None:
    """Compute `pack` in PyTorch: the oracle and fallback of the kernels."""
    for region, begin, wire in zip(boxes.regions, boxes.begins, boxes.wire_dtypes):
        packed = torch.empty(
            region.shape,
            dtype=wire,
            device=region.device,
        )
        packed.copy_(region)
        end = begin + packed.nbytes
        message[begin:end] = packed.view(-1).view(torch.uint8)

    _write_checksum(message, checksum)


@torch.no_grad()
def unpack_reference(
    boxes: Boxes, message: Tensor, checksum: Tensor | None = None, *, eta: float = 1.0
) -> None:
    """Compute `unpack` in PyTorch: the oracle and fallback of the kernels."""
    _write_checksum(message, checksum)
    for region, begin, wire in zip(boxes.regions, boxes.begins, boxes.wire_dtypes):
        num_bytes = region.numel() * wire.itemsize
        end = begin + num_bytes
        packed = message[begin:end].clone()
        incoming = packed.view(wire).view(region.shape)
        _write_or_blend(incoming, region, eta)


@torch.no_grad()
def copy_reference(sources: Sequence[Tensor], targets: Sequence[Tensor], *, eta: float = 1.0) -> None:
    """Compute `copy` in PyTorch: the oracle and fallback of the kernels."""
    for source, target in zip(sources, targets):
        _write_or_blend(source, target, eta)


def checksum(message: Tensor) -> int:
    """Return the sum of a message's little-endian 64-bit words, word i weighted by 2i + 1, modulo 2^64.

    The result is signed.

    Shapes: uint8 `[n]`, n a multiple of 8.
    """
    # A copy, because the message may not be aligned to a word.
    words = message.clone().view(torch.int64)
    index = torch.arange(len(words), device=words.device)
    weights = 2 * index + 1
    return int((weights * words).sum())


def _write_checksum(message: Tensor, result: Tensor | None) -> None:
    if result is not None:
        result.fill_(checksum(message))


def _write_or_blend(incoming: Tensor, region: Tensor, eta: float) -> None:
    if eta == 1.0:
        region.copy_(incoming)
        return
    wide = torch.float64 if region.dtype == torch.float64 else torch.float32
    new = eta * incoming.to(wide)
    old = (1 - eta) * region.to(wide)
    region.copy_(new + old)


def _pairs_table(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> tuple[Tensor, int]:
    """Return the table that copies sources to targets, and the number of its positions.

    The sources play the part of a message that starts at address 0.
    """
    rows = Rows()
    position = 0
    for source, target in zip(sources, targets):
        num_bytes = source.numel() * source.itemsize
        if not num_bytes:
            continue
        rows.add(position, source.shape, side_of(target), side_of(source))
        position += aligned(num_bytes)

    table = rows.as_tensor()
    device = targets[0].device
    if device.type != "cpu":
        table, _ = _upload(table, device)
    return table, position


def _upload(table: Tensor, device: torch.device) -> tuple[Tensor, torch.cuda.Event]:
    """Copy a table to the device; another stream must wait for the returned event before reading the copy."""
    with torch.cuda.device(device):
        rows = table.pin_memory().to(device, non_blocking=True)
        return rows, torch.cuda.current_stream().record_event()


def _check_eta(eta: float, blendable: bool) -> None:
    if not 0 <= eta <= 1:
        raise ValueError(f"boxes: eta must be from 0 to 1, got {eta}")
    if eta < 1 and not blendable:
        raise ValueError(f"boxes: eta must be 1 unless all regions are floats, got {eta}")


def _check_message(boxes: Boxes, message: Tensor, checksum: Tensor | None) -> None:
    """Raise if the message or the checksum does not fit: the kernels read and write raw memory."""
    has_shape = message.dim() == 1 and message.is_contiguous()
    if message.dtype != torch.uint8 or not has_shape:
        got = f"{message.dtype} {list(message.shape)} of strides {list(message.stride())}"
        raise ValueError(f"boxes: the message must be contiguous torch.uint8 [n], got {got}")

    if len(message) < boxes.num_bytes:
        raise ValueError(f"boxes: the regions need a message of {boxes.num_bytes} bytes, got {len(message)}")
    if message.data_ptr() % 8:
        raise ValueError("boxes: the message's address must be a multiple of 8")
    if boxes.device not in (None, message.device):
        raise ValueError(f"boxes: the regions are on {boxes.device}, the message on {message.device}")
    if checksum is not None:
        _check_checksum(message, checksum)


def _check_checksum(message: Tensor, checksum: Tensor) -> None:
    is_word = checksum.dtype == torch.int64 and checksum.shape == (1,)
    if not is_word or checksum.device != message.device:
        got = f"{checksum.dtype} {list(checksum.shape)} on {checksum.device}"
        raise ValueError(f"boxes: checksum must be torch.int64 [1] on {message.device}, got {got}")
    num_bytes = len(message)
    assert num_bytes % 8 == 0, f"a checksum needs whole 64-bit words, got {num_bytes} bytes"
