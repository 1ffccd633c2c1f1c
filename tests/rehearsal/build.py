"""Compiles csrc/cuda/*.cu for the CPU, into a library with the functions of `_kernels_cuda.so`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.rehearsal.translate import to_cpp

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
SHIM = Path(__file__).parent / "cuda_shim"

_FLAGS = ("-std=c++17", "-O1", "-g1", "-fPIC", "-ffp-contract=off", "-Wall")
_INSTRUMENTED = ("-fsanitize=thread,alignment,bounds", "-Wno-unknown-pragmas", "-Wno-psabi")
"""Calls before each access to memory, to the functions of memory.cpp."""
_PLAIN = ("-U_FORTIFY_SOURCE",)
"""A fortified longjmp would take a fiber's stack for a corrupted one."""


def compiler() -> str | None:
    return shutil.which("g++")


def sources() -> dict[str, str]:
    """Name to text of each CUDA source."""
    return {path.name: path.read_text() for path in sorted((CSRC / "cuda").glob("*.cu"))}


def link(folder: Path, objects: Mapping[str, Path]) -> Path:
    """A library of compiled sources, by their names."""
    library = folder / "rehearsal.so"
    # Without undefined symbols, so that a function that the shim lacks is seen here.
    _run("-shared", "-Wl,-z,defs", "-o", library, *objects.values())
    return library


def compile_shim(folder: Path) -> dict[str, Path]:
    """Objects of the shim's own sources, by name."""
    return {path.name: _compile(path, folder / f"{path.name}.o", _PLAIN) for path in SHIM.glob("*.cpp")}


def compile_cuda(folder: Path, name: str, text: str) -> Path:
    """An instrumented object from a CUDA source."""
    translated = folder / f"{name}.cpp"
    translated.write_text(to_cpp(text, f"csrc/cuda/{name}"))
    return _compile(translated, folder / f"{name}.o", _INSTRUMENTED)


def compile_driver(folder: Path) -> Path:
    """A library of `cuda_driver.cpp`."""
    library = folder / "cuda_driver.so"
    _run("-shared", *_FLAGS, "-o", library, Path(__file__).parent / "cuda_driver.cpp")
    return library


def _compile(source: Path, target: Path, flags: tuple[str, ...]) -> Path:
    _run("-c", *_FLAGS, *flags, f"-I{SHIM}", f"-I{CSRC}", f"-I{CSRC / 'cuda'}", "-o", target, source)
    return target


def _run(*arguments: object) -> None:
    done = subprocess.run([compiler(), *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, f"g++ failed:\n{done.stderr}"
