"""The control plane's benchmarks: simulated workers, the scheduler's rate, and what a run takes over time."""

import random
import subprocess
import sys
from xml.etree import ElementTree

import msgspec
import pytest

from benchmarks import control, leaks, scheduling
from benchmarks.command import main
from benchmarks.leaks import trend
from benchmarks.plot import plot
from benchmarks.processes import Usage, usage_by_role
from realrl.program.deadlines import Deadlines
from realrl.program.instructions import Instruction

SECONDS = 0.1


def test_a_run_with_simulated_workers_is_the_run_of_the_scheduler(capsys):
    """As many instructions and reports as without any worker, and no step is faster than its longest chain of
    calls: generation, a value or a reward, training.
    """
    options = ["--workers", "8", "--steps", "3", "--group-size", "2", "--seconds", str(SECONDS)]
    assert main(["control", "--json", *options]) == 0
    row = msgspec.json.decode(capsys.readouterr().out, type=control.Row)
    drive = _drive(workers=8, steps=4)
    drive.run()
    assert row.instructions_a_step == drive.instructions / 4
    assert row.reports_a_step == (drive.events - drive.stages) / 4
    assert 0.5 < row.steps_per_s < 1 / (3 * SECONDS)
    assert 0 < row.dispatch_p50_s <= row.dispatch_p99_s < 1 / row.steps_per_s
    assert 0 < row.start_s and 0 < row.master_share < 1.5


def test_the_scheduler_is_timed_with_and_without_stale_rollouts(capsys):
    """To the run's end, at each number of workers."""
    for staleness in ("0", "1"):
        options = ["--workers", "8,16", "--events", "600", "--rounds", "1", "--staleness", staleness]
        assert main(["scheduler", "--json", *options]) == 0
        lines = capsys.readouterr().out.splitlines()
        rows = [msgspec.json.decode(line, type=scheduling.Row) for line in lines]
        assert [row.workers for row in rows] == [8, 16]
        assert all(500 < row.events < 1200 and row.events_per_min > 0 for row in rows)


@pytest.mark.parametrize(("allocation", "max_staleness"), [("", 0), ("gen.d{half}+p2d{eighth}t2", 1)])
def test_what_a_report_costs_does_not_grow_with_the_workers(allocation, max_staleness):
    """In the scheduler and in the deadlines, counted in calls of functions."""
    few, many = (
        _calls_a_report(n, allocation.format(half=n // 2, eighth=n // 8), max_staleness) for n in (32, 256)
    )
    assert many < 1.5 * few


def _drive(workers, steps, allocation="", max_staleness=0):
    return scheduling.Drive(
        scheduling.Settings(
            workers=workers,
            steps=steps,
            group_size=2,
            allocation=allocation,
            max_staleness=max_staleness,
        )
    )


def _calls_a_report(workers, allocation, max_staleness):
    drive, deadlines, calls = _drive(workers, 3, allocation, max_staleness), Deadlines(10.0), [0]
    handle = drive._scheduler.handle

    def counted(event):
        sys.setprofile(lambda frame, kind, _: calls.__setitem__(0, calls[0] + kind.endswith("call")))
        if isinstance(event, scheduling.Reported):
            deadlines.reported(event.rank, event.done.seq, 0.0)
        emitted = handle(event)
        for instruction in emitted:
            if isinstance(instruction, Instruction):
                deadlines.sent(instruction, 0.0)
        sys.setprofile(None)
        return emitted

    drive._scheduler.handle = counted
    drive.run()
    return calls[0] / drive.events


LEAKING = """
import sys, threading, time
kept = []
for line in sys.stdin:
    kept += [bytearray(1) * (30 << 20), *(open("/dev/null") for _ in range(20))]
    for _ in range(3):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    print("grown", flush=True)
"""


def test_what_a_process_takes_is_seen_from_outside():
    """Its memory, its files and its threads, and its children's apart from its own."""
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {LEAKING!r}], stdin=sys.stdin)"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        usages = []
        for _ in range(2):
            print("grow", file=run.stdin, flush=True)
            assert run.stdout.readline() == "grown\n"
            usages.append(usage_by_role(run.pid))
        run.stdin.close()
    before, after = (usage["their children"] for usage in usages)
    assert usages[0].keys() == {"master", "their children"}
    assert 30 << 20 <= after.memory_bytes - before.memory_bytes < 35 << 20
    assert (after.fds - before.fds, after.threads - before.threads) == (20, 3)
    assert usages[0]["master"].fds == usages[1]["master"].fds


@pytest.mark.parametrize("seed", range(5))
def test_growth_is_told_from_noise(seed):
    """Of 300 MiB, 8 MiB over a run are found under noise of 1 MiB; noise, a peak and a fall are no growth."""
    chance, steps = random.Random(seed), range(0, 200, 4)

    def grows(shape):
        noisy = [(300 + shape(step) + chance.gauss(0, 1)) * 2**20 for step in steps]
        return trend("worker 0", "memory_bytes", steps, noisy).grows

    assert grows(lambda step: 8 * step / 200)
    assert not grows(lambda step: 0)
    assert not grows(lambda step: 200 * (step == 100))
    assert not grows(lambda step: -10 * step / 200)
    assert trend("master", "fds", steps, [30 + step // 130 for step in steps]).grows
    assert not trend("master", "fds", steps, [30 + (step % 12 == 0) for step in steps]).grows
    often_open = [33 if step > 100 and step % 20 else 30 for step in steps]
    assert not trend("master", "fds", steps, often_open).grows


def test_a_plot_has_a_line_for_each_process_and_quantity():
    """Within its panel, and as high as the values are."""
    samples = {
        step: {"master": Usage(1, step << 20, 30, 8), "worker 0": Usage(1, 100 << 20, 40 - step, 20)}
        for step in (10, 20, 40)
    }
    root = ElementTree.fromstring(plot(samples))
    lines = [line.get("points") for line in root.iter("{http://www.w3.org/2000/svg}polyline")]
    assert len(lines) == 3 * 2
    points = [[tuple(map(float, point.split(","))) for point in line.split()] for line in lines]
    assert all(0 <= x <= 640 and 0 <= y <= 180 for line in points for x, y in line)
    memory, flat = points[0], points[1]
    assert [x for x, _ in memory] == [160, 320, 640]
    heights = [180 - y for _, y in memory]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.2)
    assert len({y for _, y in flat}) == 1


@pytest.mark.slow
def test_a_short_run_leaks_nothing():
    """Neither its master nor its workers, though weights move and are saved all the time."""
    found = leaks.trends(leaks.measure(steps=60, every=2, allocation="actor_gen:d2,*:p2", recover_every=4))
    assert {"master", "worker 0", "worker 1"} <= {trend.role for trend in found}
    assert [t for t in found if t.grows and t.role != "their children"] == []
