"""Builds the C++ kernels, and the CUDA ones where there is `nvcc` and torch has CUDA.

Nothing here imports torch: the kernels know only addresses, and one build serves every version. A build
in isolation cannot see whether torch has CUDA; `REALRL_CUDA=1` or `0` decides it. `REALRL_CUDA_ARCH=90`
builds for that architecture alone, which is several times quicker.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CSRC = Path("csrc")
CPU = CSRC / "cpu"
CUDA = CSRC / "cuda"
CUDA_LIBRARY = "_kernels_cuda.so"
CUDA_ARCHITECTURES = ("80", "90", "100")
SIMD_SOURCES = "*_simd.cpp"
SIMD_FLAGS = ["-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-Wno-maybe-uninitialized"]
"""The last, as GCC 12's own AVX-512 header leaves what it need not set."""
SIMD_X86 = {
    "base": [],
    "avx2": ["-march=x86-64-v3"],
    "avx512": ["-march=x86-64-v4"],
    "avx512_bf16": ["-march=x86-64-v4", "-mavx512bf16"],
}
"""What `SIMD_SOURCES` are compiled for on x86-64, each into a namespace of that name; else for `base`."""


def torch_folder() -> Path | None:
    """Where torch is installed, without importing it."""
    spec = find_spec("torch")
    return Path(spec.submodule_search_locations[0]) if spec else None


def torch_has_cuda() -> bool:
    folder = torch_folder()
    if folder is None:
        return False
    return re.search(r"^cuda\b.*= *'", (folder / "version.py").read_text(), re.MULTILINE) is not None


def wants_cuda() -> bool:
    choice = os.environ.get("REALRL_CUDA")
    if choice == "1" and shutil.which("nvcc") is None:
        sys.exit("REALRL_CUDA=1 needs nvcc on the PATH, and there is none")
    if choice in ("0", "1"):
        return choice == "1"
    return shutil.which("nvcc") is not None and torch_has_cuda()


def nvcc_targets() -> list[str]:
    """Machine code for each of our architectures that this nvcc knows, and PTX for what comes after."""
    if only := os.environ.get("REALRL_CUDA_ARCH"):
        return [f"-gencode=arch=compute_{only},code=sm_{only}"]
    listed = subprocess.run(["nvcc", "--list-gpu-arch"], check=True, capture_output=True, text=True).stdout
    known = [arch for arch in CUDA_ARCHITECTURES if f"compute_{arch}" in listed.split()]
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in known]
    return [*targets, f"-gencode=arch=compute_{known[-1]},code=compute_{known[-1]}"]


def nvcc_command(output: Path) -> list[str]:
    sources = [str(path) for path in sorted(CUDA.glob("*.cu"))]
    flags = ["-O3", "-std=c++17", f"-I{CSRC}", "-shared", "-Xcompiler=-fPIC", "-cudart=static", "--threads=0"]
    return ["nvcc", *flags, *nvcc_targets(), "-o", str(output), *sources]


def pybind11_include() -> str:
    """pybind11's headers: its own package's, or the copy that torch carries."""
    if find_spec("pybind11"):
        import pybind11

        return pybind11.get_include()
    folder = torch_folder()
    if folder is None:
        sys.exit("building realrl needs pybind11: pip install pybind11")
    return str(folder / "include")


def is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


class BuildKernels(build_ext):
    """The C++ extension, then the CUDA library beside it."""

    def run(self) -> None:
        super().run()
        if wants_cuda():
            self.build_cuda()

    def build_extension(self, extension: Extension) -> None:
        """The SIMD sources first: their objects are linked into the extension."""
        for name, flags in (SIMD_X86 if is_x86() else {"base": []}).items():
            extension.extra_objects += self.compiler.compile(
                sorted(map(str, CPU.glob(SIMD_SOURCES))),
                output_dir=str(Path(self.build_temp) / name),
                macros=[("REALRL_SIMD", name)],
                include_dirs=extension.include_dirs,
                extra_postargs=[*extension.extra_compile_args, *SIMD_FLAGS, *flags],
                depends=extension.depends,
            )
        super().build_extension(extension)

    def build_cuda(self) -> None:
        library = Path(self.get_ext_fullpath("realrl.ops._kernels")).parent / CUDA_LIBRARY
        library.parent.mkdir(parents=True, exist_ok=True)
        command = nvcc_command(library)
        print(" ".join(command))
        subprocess.run(command, check=True)


def kernels() -> Extension:
    openmp = ["-fopenmp"] if sys.platform == "linux" else []
    return Extension(
        "realrl.ops._kernels",
        sources=[str(path) for path in sorted(CPU.glob("*.cpp")) if not path.match(SIMD_SOURCES)],
        depends=[
            str(path)
            for kind in ("*.h", f"cpu/{SIMD_SOURCES}", "cpu/*.h")
            for path in sorted(CSRC.glob(kind))
        ],
        define_macros=[("REALRL_SIMD_X86", "1")] if is_x86() else [],
        include_dirs=[str(CSRC), pybind11_include()],
        extra_compile_args=["-O3", "-std=c++17", "-fvisibility=hidden", "-g0", "-Wno-psabi", *openmp],
        extra_link_args=openmp,
        language="c++",
    )


def compile_in_parallel() -> None:
    """One source a core, where pybind11's own package is there to do it."""
    if find_spec("pybind11"):
        from pybind11.setup_helpers import ParallelCompile

        ParallelCompile(default=len(os.sched_getaffinity(0))).install()


compile_in_parallel()
setup(ext_modules=[kernels()], cmdclass={"build_ext": BuildKernels})
