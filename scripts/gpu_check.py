"""Builds the CUDA kernels in place, runs the tests that need a GPU, and times kernels and engine.

Every section has a time limit of its own. One that fails, or takes too long, is noted, and the next begins;
the exit status is 1 at the end. OUTPUT has a log of each, and `summary.json`, whole after every section.
Sections are in the order of what they are worth: what matters most is known after four minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

_OUTPUT = Path("runs/gpu_check")
_GRACE_S = 10.0
"""Time for a section's processes to end by themselves, once it is over its limit."""
_SHOWN_LINES = 12
"""Lines of a failed section's log that are shown."""


class Section(NamedTuple):
    """A command, and one that does as much of it as a machine without a GPU can."""

    name: str
    limit_s: float
    command: tuple[str, ...]
    rehearsal: tuple[str, ...]


class Result(NamedTuple):
    """How a section went."""

    name: str
    command: tuple[str, ...]
    exit_code: int
    """Minus the number of a signal that ended it."""
    timed_out: bool
    seconds: float
    limit_s: float

    @property
    def word(self) -> str:
        if self.timed_out:
            return "too long"
        return "ok" if self.exit_code == 0 else f"exit {self.exit_code}"


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *arguments)


def _tests(name: str, limit_s: float, *files: str) -> Section:
    """Tests that need a GPU; without one they are collected, and skipped."""
    command = _python(
        *("pytest", "-m", "gpu", "--verbose", "--durations=0", "-p", "no:cacheprovider"),
        *(f"tests/gpu/test_{file}.py" for file in files),
    )
    return Section(name, limit_s, command, command)


def _bench(name: str, limit_s: float, verb: str, device: Iterable[str], rehearsal: Iterable[str]) -> Section:
    begin = _python("benchmarks", verb)
    return Section(name, limit_s, (*begin, *device), (*begin, *rehearsal))


_QWEN = ("--model", "random-qwen2-1.5b", "--device", "cuda", "--rounds", "2")
_TINY = ("--model", "random-tiny", "--device", "cpu", "--rounds", "1")
_FEW = ("--prompts", "2", "--group-size", "2", "--prompt-tokens", "16")
_TINY_TRAIN = (*_TINY, *_FEW, "--tokens", "64", "--microbatch-tokens", "128")
_TINY_GENERATE = (*_TINY, *_FEW, "--new-tokens", "8", "--cache-mib", "64")
_CACHE, _NEW = ("--cache-mib", "65536"), ("--new-tokens", "128")
_MACHINE = """
import json, platform, subprocess, torch
found = torch.cuda.is_available()
nvcc = subprocess.run(["nvcc", "--version"], capture_output=True, text=True).stdout if found else ""
print(json.dumps({
    "device": torch.cuda.get_device_name() if found else "none",
    "devices": torch.cuda.device_count(),
    "capability": ".".join(map(str, torch.cuda.get_device_capability())) if found else "",
    "torch": f"{torch.__version__} (CUDA {torch.version.cuda})",
    "nvcc": nvcc.split("release ")[-1].split(",")[0],
    "python": platform.python_version(),
}))
"""


def sections(output: Path) -> list[Section]:
    """Return what is run, the most important first; traces go to `output`."""
    traced = {name: ("--trace", str(output / f"{name}-trace.json")) for name in ("train", "generate")}
    machine = (sys.executable, "-c", _MACHINE)
    build = (sys.executable, "setup.py", "--quiet", "build_ext", "--inplace")
    quickstart = _python("realrl.apps.quickstart", "--config", "experiments/sums/ppo-math.yaml")
    return [
        Section("machine", 60, machine, machine),
        Section("build", 300, build, (sys.executable, "setup.py", "--version")),
        _tests("test-kernels", 120, "gae", "pointwise", "logits", "draw", "boxes"),
        _tests("test-attention", 120, "attention"),
        _tests("test-engine", 240, "engine"),
        _bench(
            *("train-8k", 120, "train"),
            (*_QWEN, "--prompts", "4", "--tokens", "8192", "--microbatch-tokens", "16384", *traced["train"]),
            (*_TINY_TRAIN, *traced["train"]),
        ),
        _bench(
            *("generate-128x8k", 180, "generate"),
            (
                *(*_QWEN, *_CACHE, *_NEW, *traced["generate"]),
                *("--prompts", "8", "--group-size", "16", "--prompt-tokens", "8000"),
            ),
            (*_TINY_GENERATE, *traced["generate"]),
        ),
        _bench(
            *("generate-8x32k", 180, "generate"),
            (*_QWEN, *_CACHE, *_NEW, "--prompts", "8", "--group-size", "1", "--prompt-tokens", "32000"),
            _TINY_GENERATE,
        ),
        _bench(
            *("train-32k", 180, "train"),
            (*_QWEN, "--prompts", "1", "--tokens", "32768", "--microbatch-tokens", "32768"),
            _TINY_TRAIN,
        ),
        _tests("test-memory", 240, "memory"),
        _tests("test-flex", 300, "flex"),
        _tests("test-realloc", 120, "realloc", "collectives"),
        _tests("test-vllm-handover", 240, "vllm_handover"),
        *(
            _bench(verb, 120, verb, ("--device", "cuda"), ("--help",))
            for verb in ("attention", "logprobs", "boxes")
        ),
        Section(
            *("quickstart", 300),
            (*quickstart, "device=cuda", "num_steps=3"),
            (*quickstart, "--help"),
        ),
        Section("sanitizer", 240, _sanitized("gae", "draw"), _sanitized("gae", "draw")),
    ]


def _installing(folder: Path) -> Section:
    """Install small packages that a machine without a network lacks, as msgspec."""
    wheels = sorted(map(str, folder.glob("*.whl")))
    if not wheels:
        raise SystemExit(f"realrl: error: --wheels: expected wheels in {folder}, found none")
    command = _python("pip", "install", "--quiet", "--no-index", "--no-deps", *wheels)
    return Section("wheels", 120, command, command)


def _sanitized(*files: str) -> tuple[str, ...]:
    """Tests of kernels under NVIDIA's memory checker, where it is installed."""
    command = _tests("", 0, *files).command
    program = shutil.which("compute-sanitizer")
    if program is None:
        return (sys.executable, "-c", "print('compute-sanitizer is not on the PATH: left out')")
    return (program, "--tool", "memcheck", "--error-exitcode", "1", *command)


def run(section: Section, command: Sequence[str], log: Path) -> Result:
    """Run a section's command, its output into `log`; whatever it started ends with it."""
    begin = time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code, timed_out = process.wait(section.limit_s), False
        except subprocess.TimeoutExpired:
            code, timed_out = _ended(process), True
    _kill_group(process.pid, signal.SIGKILL)
    seconds = round(time.monotonic() - begin, 1)
    return Result(section.name, tuple(command), code, timed_out, seconds, section.limit_s)


def _ended(process: subprocess.Popen) -> int:
    """End a process that is over its limit, and all that it started; return its exit status."""
    _kill_group(process.pid, signal.SIGTERM)
    try:
        return process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        _kill_group(process.pid, signal.SIGKILL)
        return process.wait()


def _kill_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass


def check(chosen: Sequence[Section], output: Path, *, rehearses: bool) -> list[Result]:
    """Run sections one after another; write the summary, and say a line, after each."""
    output.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    for section in chosen:
        log = output / f"{section.name}.log"
        result = run(section, section.rehearsal if rehearses else section.command, log)
        results.append(result)
        print(f"{result.name:18}{result.word:10}{result.seconds:7.1f} s of {result.limit_s:.0f}", flush=True)
        if result.word != "ok":
            print(_end_of(log), flush=True)
        _write(output / "summary.json", [each._asdict() for each in results])
    return results


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:]
    return "\n".join(f"    {line}" for line in lines)


def _write(file: Path, content: Any) -> None:
    """Write a JSON file aside, and rename it."""
    aside = file.with_suffix(".part")
    aside.write_text(json.dumps(content, indent=1) + "\n")
    aside.replace(file)


def _environment(rehearses: bool) -> None:
    """Set what the sections find: kernels for the device that there is, alone."""
    if rehearses:
        return
    os.environ["REALRL_CUDA"] = "1"
    if "REALRL_CUDA_ARCH" not in os.environ:
        asked = "import torch; print('%d%d' % torch.cuda.get_device_capability())"
        found = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
        if found.returncode:
            raise SystemExit("realrl: error: torch sees no CUDA device; --rehearse does what needs none")
        os.environ["REALRL_CUDA_ARCH"] = found.stdout.strip()


def main(argv: Sequence[str] | None = None) -> int:
    """Return 1 if a section failed."""
    known = {section.name: section for section in sections(_OUTPUT)}
    parser = argparse.ArgumentParser(
        prog="gpu_check.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(known)}; without any, all")
    parser.add_argument("--output", type=Path, default=_OUTPUT, help="default: %(default)s")
    parser.add_argument(
        "--wheels", type=Path, metavar="FOLDER", help="install its wheels first, without a network"
    )
    parser.add_argument("--rehearse", action="store_true", help="do what needs no GPU, on small shapes")
    arguments = parser.parse_args(argv)
    for name in arguments.sections:
        if name not in known:
            parser.error(f"no section {name!r}: expected some of {', '.join(known)}")
    by_name = {section.name: section for section in sections(arguments.output)}
    chosen = [by_name[name] for name in arguments.sections or by_name]
    if arguments.wheels:
        chosen.insert(0, _installing(arguments.wheels))
    _environment(arguments.rehearse)
    results = check(chosen, arguments.output, rehearses=arguments.rehearse)
    return int(any(result.word != "ok" for result in results))


if __name__ == "__main__":
    sys.exit(main())
