"""The CUDA kernels compile, link and load on a machine without a GPU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on this machine")


@needs_nvcc
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_source_compiles(source, architecture, tmp_path):
    """Each source, for each architecture that the build asks for, with no warning."""
    listed = subprocess.run(["nvcc", "--list-gpu-code"], capture_output=True, text=True, check=True).stdout
    if architecture not in listed.split():
        pytest.skip(f"this nvcc does not know {architecture}")
    command = [
        "nvcc",
        "-c",
        "-std=c++17",
        f"-I{ROOT / 'csrc'}",
        "-O3",
        "-Werror=all-warnings",
        f"-arch={architecture}",
    ]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "kernel.o"), str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@needs_nvcc
def test_library_loads_and_has_its_functions(tmp_path):
    """Loading needs no device and no torch: only the CUDA runtime linked into it."""
    library = tmp_path / "kernels.so"
    flags = [
        "-std=c++17",
        f"-I{ROOT / 'csrc'}",
        "-arch=sm_80",
        "-shared",
        "-Xcompiler=-fPIC",
        "-cudart=static",
    ]
    subprocess.run(["nvcc", *flags, "-o", str(library), *map(str, SOURCES)], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.realrl_error_string.restype = ctypes.c_char_p
    assert loaded.realrl_gae is not None
    assert loaded.realrl_move_boxes is not None
    assert loaded.realrl_logits_statistics is not None
    assert loaded.realrl_logits_gradient is not None
    assert loaded.realrl_gated is not None
    assert loaded.realrl_gated_backward is not None
    assert loaded.realrl_rotate is not None
    assert loaded.realrl_attend_pages is not None
    assert loaded.realrl_attend_pages_scratch is not None
    assert loaded.realrl_error_string(0) == b"no error"
