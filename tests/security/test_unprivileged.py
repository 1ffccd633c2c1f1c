"""A run of an ordinary user: it needs no privilege, strangers get nowhere, and its umask is respected."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import zmq

from realrl.launch.workers import WORKER_MODULE
from tests.command_line import command
from tests.tiny import tiny_llama
from tests.unprivileged import give_to_user, prefix

NUM_STEPS = 4
DEADLINE_S = 120.0
UMASK = 0o027
HELD = """
import time
from pathlib import Path
HERE = Path({folder!r})
asked = 0
def reward(prompt, response, solutions):
    global asked
    asked += 1
    if asked > 2:
        (HERE / "at-work").touch()
        while not (HERE / "go-on").exists():
            time.sleep(0.02)
    return len(response) % 3
"""
"""Holds the run up until strangers have gone and a worker was killed."""


@pytest.fixture
def folder():
    """Of the user's; that of pytest is closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="realrl-user-"))
    yield folder
    shutil.rmtree(folder)


def wait_until(holds: Callable[[], object], process: subprocess.Popen) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not holds():
        assert process.poll() is None and time.monotonic() < deadline_s
        time.sleep(0.02)


def write_inputs(folder: Path) -> dict[str, object]:
    tiny_llama(folder / "model")
    rows = [{"query_id": str(i), "prompt": f"{i}+1=", "solutions": [str(i + 1)]} for i in range(6)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "held.py").write_text(HELD.format(folder=str(folder)))
    give_to_user(folder)
    return {
        "actor.model.path": folder / "model",
        "actor.model.dtype": "float32",
        "data.path": folder / "rows.jsonl",
        "data.eval_path": "''",
        "data.template": "plain",
        "reward": f"{folder / 'held.py'}:reward",
        "batch_size": 4,
        "ppo.group_size": 2,
        "generation.max_new_tokens": 4,
        "num_steps": NUM_STEPS,
        "save_every": NUM_STEPS,
        "recover_every": 1,
        "restarts": 1,
        "runs_dir": folder / "runs",
        "trial": "t",
        "allocation": "d2",
    }


@pytest.mark.slow
def test_an_ordinary_users_run_survives_strangers_and_a_fault(folder):
    """A stranger finds one port, which does not listen to it; a killed worker is recovered from; who may read
    the files says the umask.
    """
    overrides = write_inputs(folder)
    arguments = [*prefix(), *command("grpo", overrides)]
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(arguments, stdout=said, stderr=said, umask=UMASK, start_new_session=True)
    try:
        wait_until((folder / "at-work").exists, process)
        (control,) = listening(process.pid)
        knock(control)
        workers = [p for p in psutil.Process(process.pid).children() if WORKER_MODULE in p.cmdline()]
        assert {p.uids().real for p in workers} == {os.stat(folder).st_uid} and len(workers) == 2
        workers[1].send_signal(signal.SIGKILL)
        (folder / "go-on").touch()
        process.wait(DEADLINE_S)
        text = (folder / "said").read_text()
        assert process.returncode == 0, text
    finally:
        process.kill()
        process.wait()
    assert "rank 1 died (killed by SIGKILL)" in text and "restart 1 of 1" in text
    assert "CAP_NET_ADMIN" not in text, "of one host's protection only the log speaks"
    run = folder / "runs" / "grpo" / "t"
    log = (run / "logs" / "master.log").read_text()
    assert "find each other in this user's memory" in log and "the control port" in log
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(NUM_STEPS))
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in run.rglob("*")}
    assert len(list(run.rglob("*.safetensors"))) >= 2
    assert {m for p, m in modes.items() if p.is_dir()} == {0o777 & ~UMASK}
    assert {p: oct(m) for p, m in modes.items() if p.is_file() and m != 0o666 & ~UMASK} == {}


def listening(master: int) -> set[tuple[str, int]]:
    """Where a run's processes wait for connections."""
    found = psutil.Process(master)
    processes = [found, *found.children(recursive=True)]
    return {tuple(c.laddr) for p in processes for c in p.net_connections("tcp") if c.status == "LISTEN"}


def knock(control: tuple[str, int]) -> None:
    """Noise, and a client without keys, which says that rank 0 has failed."""
    with socket.create_connection(control) as noise:
        noise.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
    context = zmq.Context()
    client = context.socket(zmq.DEALER)
    client.identity = b"0"
    client.connect(f"tcp://{control[0]}:{control[1]}")
    client.send(b"\x84\xa4type\xa6Failed\xa3seq\xc0\xa5error\xa1e\xa9traceback\xa0")
    time.sleep(0.3)
    client.close(linger=0)
    context.term()
