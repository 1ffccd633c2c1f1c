"""`realrl doctor`: every probe ends in findings, whatever the machine does to it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from realrl.apps.doctor import command, compute, judges, memory, network, software, storage
from realrl.apps.doctor.finding import note, ok, problem
from realrl.apps.doctor.probing import probe_all
from realrl.apps.main import main

ROOT = Path(__file__).parents[2]
PROBES = """
import os, signal, time
from realrl.apps.doctor.finding import Probe, ok

def looks(what):
    def look():
        yield ok("first", "seen")
        what()
        yield ok("second", "seen")
    return look

PROBES = (
    Probe("raises", looks(lambda: 1 / 0)),
    Probe("hangs", looks(lambda: time.sleep(600)), deadline_s=0.3),
    Probe("crashes", looks(lambda: os.kill(os.getpid(), signal.SIGSEGV))),
    Probe("leaves", looks(lambda: os._exit(3))),
    Probe("works", looks(lambda: None)),
)
"""


def statuses(findings) -> list[tuple[str, str]]:
    return [(finding.status, finding.name) for finding in findings]


def test_a_probe_that_hangs_or_dies_is_a_problem_and_the_others_are_seen(tmp_path, monkeypatch):
    """In its place among the findings; what it had found before counts, and nothing takes long."""
    (tmp_path / "own_probes.py").write_text(PROBES)
    (tmp_path / "broken_probes.py").write_text("import no_such_module")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), str(ROOT))))
    began_s = time.monotonic()
    found = probe_all(["own_probes", "broken_probes"])
    assert time.monotonic() - began_s < 30
    first = ("ok", "first")
    names = [("problem", name) for name in ("raises", "hangs", "crashes", "leaves")]
    expected = [finding for name in names for finding in (first, name)]
    assert statuses(found) == [*expected, first, ("ok", "second"), ("problem", "broken_probes")]
    raises, hangs, crashes, leaves = found[1:8:2]
    assert raises.found == "the check failed (ZeroDivisionError: division by zero)"
    assert hangs.found == "the check did not end within 0.3 s"
    assert crashes.found == "the check died of SIGSEGV"
    assert leaves.found == "the check ended with exit code 3" and leaves.do.endswith("own_probes 1 3")


def test_it_looks_at_this_machine_and_says_what_to_do(capsys):
    """Whatever it finds here; the exit code says whether there are problems."""
    code = main(["doctor", "--json"])
    out, err = capsys.readouterr()
    assert not err
    findings = json.loads(out)["findings"]
    names = {finding["name"] for finding in findings}
    assert {"python", "realrl", "packages", "torch", "bfloat16", "gloo", "memory", "limits"} <= names
    assert {"runs", "cache", "hub cache", "loopback", "host name", "ports", "judges", "memfd"} <= names
    for finding in findings:
        assert finding["found"] and (finding["status"] == "ok") == (finding["means"] == "")
        assert finding["status"] != "problem" or finding["do"]
        assert "the check" not in finding["found"], finding
    assert code == any(finding["status"] == "problem" for finding in findings)


def test_its_text_has_each_finding_and_the_numbers_of_each_kind():
    text = command.render(
        [
            ok("a", "fine"),
            note("bb", "x " * 80, "it is long", "shorten it"),
            problem("c", "bad", "no", "yes"),
        ],
        1.0,
    )
    lines = text.splitlines()
    assert lines[0] == "ok       a   fine" and lines[1].startswith("note     bb  x x")
    assert [line.split() for line in lines[3:5]] == [["means:", "it", "is", "long"], ["do:", "shorten", "it"]]
    assert lines[5:8] == ["problem  c   bad", "             means: no", "             do:    yes"]
    assert "1 ok, 1 note, 1 problem, in 1.0 s" in lines[-1] and max(map(len, lines)) <= 100


def _may_unshare() -> bool:
    tool = shutil.which("unshare")
    return bool(tool) and subprocess.run([tool, "-rn", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not _may_unshare(), reason="no network namespaces for this user")
def test_a_loopback_that_is_down_is_named():
    """In a network of its own, whose loopback nobody has brought up."""
    probes = [
        sys.executable,
        "-m",
        "realrl.apps.doctor.probe_process",
        "realrl.apps.doctor.network",
        "1",
        "0",
    ]
    done = subprocess.run(["unshare", "-rn", *probes], capture_output=True, text=True, timeout=60, cwd=ROOT)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    (found,) = [line for line in lines if line.get("name") == "loopback"]
    assert found["status"] == "problem" and "ip link set lo up" in found["do"], done.stderr


def test_packages_are_held_against_what_realrl_asks_for(monkeypatch):
    wanted = ["msgspec>=999", "no-such-package>=1", "pyyaml>=5", 'ray>=999; extra == "ray"']
    wanted += ['no-such-extra; extra == "x"', 'pytest>=999; extra == "dev"']
    monkeypatch.setattr(software, "requires", lambda _: wanted)
    monkeypatch.setattr(software, "_version", lambda name: "" if name.startswith("no-such") else "6.0")
    found = list(software.look_at_packages())
    assert statuses(found) == [("problem", "packages")] * 2 + [("ok", "extras"), ("note", "extras")]
    assert found[0].do == "pip install 'msgspec>=999'" and "it is not installed" in found[1].found
    assert found[2].found == "optional packages: ray 6.0; not installed: no-such-extra"


def test_places_that_cannot_be_written_are_named(tmp_path, monkeypatch):
    """Also for one who may write everywhere: a file is where a folder should be."""
    monkeypatch.chdir(tmp_path)
    (fine,) = storage.look_at_runs()
    assert fine.status == "ok" and not list(tmp_path.iterdir()), "nothing is left behind"
    (tmp_path / "runs").write_text("")
    monkeypatch.setenv("REALRL_CACHE", str(tmp_path / "runs" / "cache"))
    found = [*storage.look_at_runs(), *storage.look_at_cache()]
    assert statuses(found) == [("problem", "runs"), ("problem", "cache")]
    assert found[0].do == "give another directory: runs_dir=FOLDER" and "REALRL_CACHE" in found[1].do


def test_an_interface_that_is_none_is_named(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nonesuch0")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "=lo")
    first, named = network.look_at_interfaces()
    assert first.status == "ok" and "lo" in first.found
    assert named.status == "problem" and "GLOO_SOCKET_IFNAME names nonesuch0" in named.found


def test_a_kernel_that_filters_nothing_is_a_note(monkeypatch):
    """As for an ordinary user on a recent kernel: runs work, so it is no problem."""
    for refuses in (lambda *_: False, _refuse):
        monkeypatch.setattr(network, "admit_only", refuses)
        (found,) = network.look_at_filters()
        assert found.status == "note" and "SECURITY.md" in found.means


def _refuse(*_, **__):
    raise PermissionError(1, "Operation not permitted")


def test_judges_that_cannot_be_confined_are_a_problem(monkeypatch):
    monkeypatch.setattr(judges, "confine", _refuse)
    (found,) = judges.look_at_seccomp()
    assert found.status == "problem" and "Operation not permitted" in found.found
    monkeypatch.setattr(judges, "confine", lambda **_: None)
    (found,) = judges.look_at_seccomp()
    assert found.status == "problem" and "could still open a socket" in found.found


@pytest.mark.parametrize(("most", "status"), [(256, "problem"), (4096, "note"), (1 << 20, "ok")])
def test_limits_on_files(monkeypatch, most, status):
    monkeypatch.setattr(memory.resource, "getrlimit", lambda _: (256, most))
    (found,) = memory.look_at_limits()
    assert found.status == status and str(most) in found.found


def test_slow_products_in_bfloat16_are_a_note(monkeypatch):
    times = iter([1.0, 4.0])
    monkeypatch.setattr(compute, "_seconds", lambda _: next(times))
    (found,) = compute.look_at_bf16()
    assert (
        found.status == "note" and found.found.startswith("4.0 times slower") and "dtype=float32" in found.do
    )


def test_less_time_than_cores_is_a_note(monkeypatch):
    """As in a container with a quota: threads for all cores would compete for the time of some."""
    monkeypatch.setattr(compute, "cpu_quotas", lambda: iter([0.5]))
    (found,) = compute.look_at_cores()
    assert found.status == "note" and "the time of 0.5 cores" in found.means and "taskset -c 0-0" in found.do


def test_a_driver_whose_gpus_torch_does_not_see_is_a_problem(monkeypatch, tmp_path):
    """As with a build of torch for CPUs alone."""
    version = tmp_path / "version"
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 2024\n")
    monkeypatch.setattr(compute, "_DRIVER", version)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (found,) = compute.look_at_gpus()
    assert found.status == "problem" and "the driver is there (550.54.15)" in found.found
