"""What is read of other processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from benchmarks.processes import peak_mib


def test_a_child_counts_once_it_runs_its_own_program():
    """Between fork and exec it has its parent's memory, of which it uses nothing."""
    copy = os.fork()
    if copy == 0:
        signal.pause()
        os._exit(0)
    try:
        assert peak_mib(os.getpid()) == 0
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
            while peak_mib(os.getpid()) == 0:
                assert child.poll() is None
            assert 1 < peak_mib(os.getpid()) < 100
            child.stdin.close()
    finally:
        os.kill(copy, signal.SIGKILL)
        os.waitpid(copy, 0)
