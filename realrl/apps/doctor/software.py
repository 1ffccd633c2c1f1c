"""Probes of the interpreter, of realrl's own build and of the packages next to it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from realrl import __version__
from realrl.apps.doctor.finding import Finding, Probe, note, ok, problem

_PACKAGE = "realrl"
_FOR_DEVELOPMENT = "dev"


def look_at_python() -> Iterator[Finding]:
    """Yield whether the interpreter fits realrl."""
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
    """Return a field of the installed realrl's metadata; empty if it is not installed."""
    try:
        fields = metadata(_PACKAGE)
    except PackageNotFoundError:
        return ""
    return fields[field] if field in fields else ""


def look_at_kernels() -> Iterator[Finding]:
    """Yield whether realrl's kernels for the CPU are built."""
    # The package may be a folder on the path instead of an installed one.
    (folder,) = import_module(_PACKAGE).__path__
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
    """Yield whether the packages that realrl needs or can use are there, in versions that fit."""
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
    optional = [package for package in wanted if _is_optional(package)]
    yield from _optional(optional)


def _needed(packages: list[Requirement]) -> Iterator[Finding]:
    """Yield the needed packages that are missing or do not fit, or that all are there."""
    all_fit = True
    for package in packages:
        found = _unfit(package)
        if found:
            all_fit = False
            means = "what uses it fails, or behaves in another way than what was tested"
            yield problem("packages", f"{package} is needed, {found}", means, f"pip install '{package}'")
    if all_fit:
        yield ok("packages", f"all {len(packages)} that realrl needs are there, in fitting versions")


def _is_optional(package: Requirement) -> bool:
    """Return whether a package belongs to an extra for users."""
    if package.marker is None or package.name == _PACKAGE:
        return False
    is_for_development = package.marker.evaluate({"extra": _FOR_DEVELOPMENT})
    return not is_for_development


def _optional(packages: list[Requirement]) -> Iterator[Finding]:
    """Yield which optional packages are there, and those that do not fit."""
    # A package may be in several extras.
    by_name = {package.name: package for package in packages}
    present = []
    missing = []
    for name in by_name:
        number = _version(name)
        if number:
            present.append(f"{name} {number}")
        else:
            missing.append(name)
    shown = ", ".join(present) or "none"
    not_there = ", ".join(missing) or "none"
    yield ok("extras", f"optional packages: {shown}; not installed: {not_there}")
    for name, package in by_name.items():
        found = _unfit(package)
        if found and name not in missing:
            what = f"{package} is expected, {found}"
            yield note("extras", what, "what uses it may fail", f"pip install '{package}'")


def _unfit(package: Requirement) -> str:
    """Return what is installed in place of a fitting version, in words; empty if it fits."""
    found = _version(package.name)
    if not found:
        return "it is not installed"
    if package.specifier.contains(found, prereleases=True):
        return ""
    return f"{found} is installed"


def _version(name: str) -> str:
    """Return the installed version of a package; empty if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


PROBES = (
    Probe("python", look_at_python),
    Probe("kernels", look_at_kernels),
    Probe("packages", look_at_packages),
)
