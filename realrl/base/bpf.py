"""Classic BPF: small programs that the kernel runs on packets and on system calls.

Source: Linux, Documentation/networking/filter.rst and include/uapi/linux/bpf_common.h.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import NamedTuple

_LOAD_WORD = 0x20
_JUMP_IF_EQUAL = 0x15
_JUMP_IF_AT_LEAST = 0x35
_JUMP_IF_ANY_BIT = 0x45
_RETURN = 0x06


class Instruction(NamedTuple):
    """One step; only a jump skips steps."""

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
    """A program as the kernel takes it; the kernel copies the instructions."""

    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction))]


def program(steps: Iterable[Instruction]) -> Program:
    """Return a program of some steps."""
    instructions = [_Instruction(*step) for step in steps]
    number = len(instructions)
    array_type = _Instruction * number
    return Program(number, array_type(*instructions))


def load(offset: int) -> Instruction:
    """Load the word at `offset`, which the jumps after it test."""
    return Instruction(_LOAD_WORD, 0, 0, offset & 0xFFFFFFFF)


def give(value: int) -> Instruction:
    """End with `value`."""
    return Instruction(_RETURN, 0, 0, value)


def give_if_equal(operand: int, value: int) -> list[Instruction]:
    """End with `value` if the word is `operand`."""
    return [Instruction(_JUMP_IF_EQUAL, 0, 1, operand), give(value)]


def give_if_at_least(operand: int, value: int) -> list[Instruction]:
    """End with `value` if the word is at least `operand`."""
    return [Instruction(_JUMP_IF_AT_LEAST, 0, 1, operand), give(value)]


def give_unless_equal(operand: int, value: int) -> list[Instruction]:
    """End with `value` unless the word is `operand`."""
    return [Instruction(_JUMP_IF_EQUAL, 1, 0, operand), give(value)]


def skip_unless_equal(operand: int, steps: Iterable[Instruction]) -> list[Instruction]:
    """Run `steps` if the word is `operand`, else skip them."""
    body = list(steps)
    jump = Instruction(_JUMP_IF_EQUAL, 0, len(body), operand)
    return [jump, *body]


def give_if_any_bit(bits: int, value: int) -> list[Instruction]:
    """End with `value` if the word has any of `bits`."""
    return [Instruction(_JUMP_IF_ANY_BIT, 0, 1, bits), give(value)]
