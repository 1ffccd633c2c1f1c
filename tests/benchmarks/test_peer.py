"""Another system's process: its answers, its failures, and that nothing of it stays."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from benchmarks import peer as module
from benchmarks.peer import PEERS, GenerateJob, Peer, PeerFailed, StepJob, SumPrompt, command_of
from tests.tiny import tiny_llama

READY = "import json, sys, time, os\njob = json.loads(sys.stdin.readline())\n"
READY += 'print(json.dumps({"ready": True, "versions": {"fake": "1"}}), flush=True)\n'
ANSWERS = READY + "for line in sys.stdin:\n    round = json.loads(line)['round']\n"
FIGURES = '{"round": round, "seconds": 0.5, "tokens": job["max_new_tokens"] + round, '
FIGURES += '"peak_memory_bytes": os.getpid()}'
GOOD = ANSWERS + f"    print(json.dumps({FIGURES}), flush=True)\n"


def generate_job(**changed) -> GenerateJob:
    given = {"model": "none", "dtype": "float32", "threads": 1, "seed": 0, "prompts": [[3, 4], [5, 6, 7]]}
    return GenerateJob(**{**given, "group_size": 2, "max_new_tokens": 3, **changed})


@pytest.fixture
def fake(tmp_path):
    """A peer that runs the given Python."""

    def make(text: str, **options) -> Peer:
        script = tmp_path / "fake.py"
        script.write_text(text)
        return Peer("fake", generate_job(), [sys.executable, str(script)], **options)

    return make


def is_gone(pid: int, within_s: float = 5.0) -> bool:
    deadline_s = time.monotonic() + within_s
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return not Path(f"/proc/{pid}").exists()


def test_rounds_are_answered_in_turn(fake):
    """The script sees the job and each round; its versions are known, and leaving the block ends it."""
    with fake(GOOD) as peer:
        answers = [peer.round(index) for index in range(3)]
        assert peer.versions == {"fake": "1"}
    assert [answer.tokens for answer in answers] == [3, 4, 5]
    assert answers[0].seconds == 0.5 and answers[0].mean_reward is None
    assert answers[0].peak_memory_bytes == peer.pid and is_gone(peer.pid)


BAD_STARTS = {
    "crash": ("import sys\nprint('no such model', file=sys.stderr)\nsys.exit(3)", "ended with code 3"),
    "signal": ("import os\nos.kill(os.getpid(), 9)", "was killed by signal 9"),
    "hang": ("import time\ntime.sleep(600)", "gave no answer within 0.5 s"),
    "rubbish": ("print('hello', flush=True)\nimport time\ntime.sleep(600)", "said 'hello' for an answer"),
    "no versions": ("print('{\"ready\": true}', flush=True)\ninput()", "said '{\"ready\": true}'"),
    "half a line": ("print('{', end='', flush=True)\nimport time\ntime.sleep(600)", "gave no answer within"),
}


@pytest.mark.parametrize(("text", "reason"), BAD_STARTS.values(), ids=BAD_STARTS)
def test_a_bad_start_is_told_and_leaves_no_process(fake, text, reason):
    """The message names the peer, what it was doing and why, with the last of its stderr."""
    hangs = "sleep" in text and "hello" not in text
    peer = fake(text, start_s=0.5 if hangs else 30)
    with pytest.raises(PeerFailed) as failure, peer:
        pass
    message = str(failure.value)
    assert message.startswith(f"fake {reason}") and "getting ready" in message
    assert ("no such model" in message) == ("no such model" in text)
    assert is_gone(peer.pid)


BAD_ROUNDS = {
    "crash": ("    raise KeyError('what it fell over')\n", "ended with code 1, in round 7"),
    "hang": ("    time.sleep(600)\n", "gave no answer within 0.5 s, in round 7"),
    "rubbish": ('    print(\'{"seconds": "many"}\', flush=True)\n', "for an answer, in round 7"),
}


@pytest.mark.parametrize(("body", "reason"), BAD_ROUNDS.values(), ids=BAD_ROUNDS)
def test_a_bad_round_is_told_and_leaves_no_process(fake, body, reason):
    """Likewise once it has started."""
    with pytest.raises(PeerFailed, match="^fake ") as failure, fake(ANSWERS + body, round_s=0.5) as peer:
        peer.round(7)
    assert reason in str(failure.value)
    assert ("what it fell over" in str(failure.value)) == ("KeyError" in body)
    assert is_gone(peer.pid)


def test_an_answer_too_many_is_noticed(fake):
    """Else each round would get the figures of the one before."""
    twice = GOOD + f"    print(json.dumps({FIGURES}), flush=True)\n"
    with pytest.raises(PeerFailed, match="^fake answered for round 0, in round 1"), fake(twice) as peer:
        peer.round(0)
        peer.round(1)


def test_what_a_peer_started_ends_with_it(fake):
    """Also where it ignores the end of its input and polite signals."""
    stubborn = GOOD.replace("os.getpid()", "child") + "time.sleep(600)\n"
    child = "import subprocess, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    child += "child = subprocess.Popen(['sleep', '600']).pid\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "GRACE_S", 0.2)
        with fake(child + stubborn) as peer:
            child = peer.round(0).peak_memory_bytes
            assert not is_gone(child, 0)
    assert is_gone(child) and is_gone(peer.pid)


def test_a_job_longer_than_a_pipe_cannot_block_us(tmp_path):
    """The deadline holds where the peer never reads."""
    script = tmp_path / "deaf.py"
    script.write_text("import time\ntime.sleep(600)")
    job = generate_job(prompts=[[1] * 200_000])
    with pytest.raises(PeerFailed, match="gave no answer within 0.5 s"):
        Peer("deaf", job, [sys.executable, str(script)], start_s=0.5).__enter__()


@pytest.mark.parametrize("name", [name for name, (_, folder) in PEERS.items() if folder])
def test_a_missing_environment_names_the_command_that_makes_it(name, monkeypatch, tmp_path):
    """Before anything is started."""
    monkeypatch.setattr(module, "ROOT", tmp_path)
    with pytest.raises(ValueError, match=f"run: bash scripts/peers.sh {name}$"):
        Peer(name, generate_job())


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory) -> str:
    """vLLM's attention wants heads of 32 or more."""
    return str(tiny_llama(tmp_path_factory.mktemp("wide"), hidden=128))


def available(name: str) -> list[str]:
    try:
        return command_of(name)
    except ValueError as error:
        pytest.skip(f"{name}: {error}")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["transformers", "vllm"])
def test_generation_by_a_peer(name, dtype, wide_model, monkeypatch):
    """Every response has its full length, round after round, and stdout stays ours."""
    monkeypatch.setenv("VLLM_CPU_CI_ENV", "1")  # traced but not compiled, which takes half a minute
    job = generate_job(
        model=wide_model, dtype=dtype, prompts=[[5], [6, 7, 8, 9], [10, 11]], max_new_tokens=40
    )
    with Peer(name, job, available(name)) as peer:
        answers = [peer.round(index) for index in range(2)]
    assert [answer.tokens for answer in answers] == [3 * 2 * 40] * 2
    assert all(answer.seconds > 0 and answer.peak_memory_bytes > 50 << 20 for answer in answers)
    assert "torch" in peer.versions and is_gone(peer.pid)


@pytest.mark.slow
@pytest.mark.parametrize("fixed_length", [True, False])
def test_steps_by_trl(fixed_length, wide_model):
    """Lengths are as asked, and the last number of a response comes to be the right one."""
    job = StepJob(
        model=wide_model,
        dtype="float32",
        threads=1,
        seed=0,
        prompts=[SumPrompt("a", "3"), SumPrompt("b c", "3")],
        prompts_per_step=2,
        group_size=16,
        max_new_tokens=6,
        fixed_length=fixed_length,
        lr=2e-2,
        kl_coef=0.0,
    )
    with Peer("trl", job, available("trl")) as peer:
        answers = [peer.round(index) for index in range(12)]
    tokens = {answer.tokens for answer in answers}
    assert tokens == {2 * 16 * 6} if fixed_length else max(tokens) <= 2 * 16 * 6
    assert sum(a.mean_reward for a in answers[-3:]) > sum(a.mean_reward for a in answers[:3])
