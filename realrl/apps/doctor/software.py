"""Probes of the interpreter, of realrl's own build and of the packages next to it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from realrl import __version__
from realrl.apps.doctor.finding import Finding, Probe, note, ok, problem

_PACKAGE = "realrl"
_FOR_DEVELOPMENT = "dev"


def look_at_python() -> Iterator[Finding]:
    found = f"{platform.python_version()} ({platform.machine()}), {sys.executable}"
    wanted = _metadata("Requires-Python")
    if wanted and not SpecifierSet(wanted).contains(platform.python_version(), prereleases=True):
        yield problem(
            "python", found, f"realrl is for Python {wanted}", "make an environment with such a one"
        )
    elif sys.flags.optimize:
        means = "assertions are left out, which find defects early"
        yield note("python", f"{found}, optimised", means, "leave out -O and PYTHONOPTIMIZE")
    else:
        yield ok("python", found)


def _metadata(field: str) -> str:
    """A field of realrl's description as it is installed; empty where it is not."""
    try:
        return metadata(_PACKAGE).get(field, "")
    except PackageNotFoundError:
        return ""


def look_at_kernels() -> Iterator[Finding]:
    folder = Path(import_module("realrl").__file__).parent
    yield ok("realrl", f"{__version__}, in {folder}")
    try:
        kernels = import_module("realrl.ops._kernels")
    except ImportError as error:
        means = "slower PyTorch code takes the place of the kernels for the CPU"
        do = "install a C++ compiler, then realrl again: pip install --force-reinstall --no-deps realrl"
        yield problem("kernels", f"the C++ kernels are not built ({error})", means, do)
    else:
        yield ok("kernels", f"built; this CPU runs those for {kernels.instruction_set()}")


def look_at_packages() -> Iterator[Finding]:
    try:
        wanted = [Requirement(text) for text in requires(_PACKAGE) or ()]
    except PackageNotFoundError:
        means = "the versions of packages cannot be checked"
        yield note(
            "packages", "realrl is imported from a folder but not installed", means, "pip install -e ."
        )
        return
    needed = [package for package in wanted if not package.marker]
    yield from _needed(needed)
    optional = [package for package in wanted if package.marker and _is_optional(package)]
    yield from _optional(optional)


def _needed(packages: list[Requirement]) -> Iterator[Finding]:
    unfit = {str(package): _unfit(package) for package in packages if _unfit(package)}
    if not unfit:
        yield ok("packages", f"all {len(packages)} that realrl needs are there, in fitting versions")
    for wanted, found in unfit.items():
        means = "what uses it fails, or behaves in another way than what was tested"
        yield problem("packages", f"{wanted} is needed, {found}", means, f"pip install '{wanted}'")


def _is_optional(package: Requirement) -> bool:
    """Whether it belongs to an extra that is for users."""
    return package.name != _PACKAGE and not package.marker.evaluate({"extra": _FOR_DEVELOPMENT})


def _optional(packages: list[Requirement]) -> Iterator[Finding]:
    names = {package.name: package for package in packages}
    there = {name: _version(name) for name in names if _version(name)}
    shown = ", ".join(f"{name} {number}" for name, number in there.items()) or "none"
    missing = ", ".join(name for name in names if name not in there) or "none"
    yield ok("extras", f"optional packages: {shown}; not installed: {missing}")
    for name, package in names.items():
        if name in there and _unfit(package):
            means = "what uses it may fail"
            yield note(
                "extras", f"{package} is expected, {_unfit(package)}", means, f"pip install '{package}'"
            )


def _unfit(package: Requirement) -> str:
    """What there is in place of a package that fits; empty where it fits."""
    found = _version(package.name)
    if not found:
        return "it is not installed"
    return "" if package.specifier.contains(found, prereleases=True) else f"{found} is installed"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


PROBES = (
    Probe("python", look_at_python),
    Probe("kernels", look_at_kernels),
    Probe("packages", look_at_packages),
)
