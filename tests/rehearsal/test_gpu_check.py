"""The check of a machine with a GPU: all of it that needs none, and how it goes on after a failure."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def gpu_check():
    spec = importlib.util.spec_from_file_location("gpu_check", ROOT / "scripts" / "gpu_check.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_every_section_is_rehearsed(tmp_path):
    """As the script is called: each section's program takes the arguments that it gets there."""
    command = ["bash", "scripts/gpu_check.sh", "--rehearse", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=_own_python())
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert len(summary) == len(done.stdout.splitlines()) > 12
    assert json.loads((tmp_path / "machine.log").read_text())["device"]
    for name in ("train", "generate"):
        assert json.loads((tmp_path / f"{name}-trace.json").read_text())["traceEvents"]


def test_every_test_of_a_device_is_in_a_section(gpu_check):
    words = {word for section in gpu_check.sections(Path("out")) for word in section.command}
    files = {f"tests/gpu/{path.name}" for path in (ROOT / "tests" / "gpu").glob("test_*.py")}
    assert files == {word for word in words if word.startswith("tests/gpu/")}


def test_arguments_for_a_device_are_those_of_the_rehearsal(gpu_check):
    """Each option that a benchmark gets on a device it gets in the rehearsal, or has by default."""
    for section in gpu_check.sections(Path("out")):
        options = {word for word in section.command if word.startswith("--")}
        rehearsed = {word for word in section.rehearsal if word.startswith("--")}
        assert options <= rehearsed or "--help" in rehearsed or section.name == "build", section.name


def test_it_goes_on_after_a_failure_and_ends_what_takes_too_long(gpu_check, tmp_path, capsys):
    def section(name: str, code: str) -> object:
        command = (sys.executable, "-c", code)
        return gpu_check.Section(name, 1.5, command, command)

    outlives = (
        "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    )
    begin = time.monotonic()
    chosen = [section("fails", "raise SystemExit(7)"), section("hangs", outlives), section("works", "")]
    results = gpu_check.check(chosen, tmp_path, rehearses=False)
    assert [result.word for result in results] == ["exit 7", "too long", "ok"]
    assert time.monotonic() - begin < 30
    child = int((tmp_path / "hangs.log").read_text())
    assert not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text()
    assert [found["name"] for found in json.loads((tmp_path / "summary.json").read_text())] == [
        "fails",
        "hangs",
        "works",
    ]
    assert "too long" in capsys.readouterr().out


def test_a_section_that_is_none_is_named():
    command = ["bash", "scripts/gpu_check.sh", "--rehearse", "nothing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=_own_python())
    assert done.returncode == 2 and "no section 'nothing'" in done.stderr


def _own_python() -> dict[str, str]:
    return {**os.environ, "PYTHON": sys.executable}
