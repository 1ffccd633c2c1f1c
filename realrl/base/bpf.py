"""Classic BPF: small programs that the kernel runs on packets and on system calls.

Source: Linux, Documentation/networking/filter.rst and include/uapi/linux/bpf_common.h.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import NamedTuple

_LOAD_WORD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _JUMP_IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


class Instruction(NamedTuple):
    """One step; the numbers of steps to skip are a jump's."""

    code: int
    skip_if_true: int
    skip_if_false: int
    operand: int


class _Instruction(ctypes.Structure):
    _fields_ = [
        ("code", ctypes.c_ushort),
        ("skip_if_true", ctypes.c_ubyte),
        ("skip_if_false", ctypes.c_ubyte),
        ("operand", ctypes.c_uint),
    ]


class Program(ctypes.Structure):
    """What the kernel takes; it copies the instructions."""

    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction))]


def program(steps: Iterable[Instruction]) -> Program:
    steps = list(steps)
    return Program(len(steps), (_Instruction * len(steps))(*map(tuple, steps)))


def load(offset: int) -> Instruction:
    """The word at `offset`, for the jumps after it to look at."""
    return Instruction(_LOAD_WORD, 0, 0, offset & 0xFFFFFFFF)


def give(value: int) -> Instruction:
    """End with `value`."""
    return Instruction(_RETURN, 0, 0, value)


def give_if_equal(operand: int, value: int) -> list[Instruction]:
    return [Instruction(_JUMP_IF_EQUAL, 0, 1, operand), give(value)]


def give_if_at_least(operand: int, value: int) -> list[Instruction]:
    return [Instruction(_JUMP_IF_AT_LEAST, 0, 1, operand), give(value)]


def give_unless_equal(operand: int, value: int) -> list[Instruction]:
    return [Instruction(_JUMP_IF_EQUAL, 1, 0, operand), give(value)]


def skip_unless_equal(operand: int, steps: Iterable[Instruction]) -> list[Instruction]:
    """`steps`, where the word is `operand`."""
    steps = list(steps)
    return [Instruction(_JUMP_IF_EQUAL, 0, len(steps), operand), *steps]


def give_if_any_bit(bits: int, value: int) -> list[Instruction]:
    return [Instruction(_JUMP_IF_ANY_BIT, 0, 1, bits), give(value)]


def give_unless_any_bit(bits: int, value: int) -> list[Instruction]:
    return [Instruction(_JUMP_IF_ANY_BIT, 1, 0, bits), give(value)]
