"""What is read of other processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MASTER = """
import os, signal, subprocess, sys
from benchmarks.processes import peak_mib

copy = os.fork()
if copy == 0:
    signal.pause()
try:
    assert peak_mib(os.getpid()) == 0
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        while peak_mib(os.getpid()) == 0:
            assert child.poll() is None
        print(peak_mib(os.getpid()))
        child.stdin.close()
finally:
    os.kill(copy, signal.SIGKILL)
    os.waitpid(copy, 0)
"""


def test_a_child_counts_once_it_runs_its_own_program():
    """Between fork and exec it has its parent's memory, of which it uses nothing.

    In a process of its own: that of the tests has other children.
    """
    root = Path(__file__).parents[2]
    found = subprocess.run(
        [sys.executable, "-c", MASTER], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 0, found.stderr
    assert 1 < float(found.stdout) < 100
