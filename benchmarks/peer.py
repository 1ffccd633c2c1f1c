"""Runs another system beside ours: a script of `benchmarks.peers` in that system's environment.

with Peer("trl", StepJob(...)) as peer:
    answer = peer.round(0)
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

import msgspec

from benchmarks import ROOT
from benchmarks.options import BenchmarkFailed

_SCRIPTS = Path(__file__).resolve().parent / "peers"

PEERS: Mapping[str, tuple[str, str | None]] = {
    "trl": ("trl_step.py", ".venv-trl"),
    "transformers": ("transformers_generate.py", None),
    "vllm": ("vllm_generate.py", ".venv-vllm"),
}
"""Each peer's script, and the environment in the project's folder that it runs in; None is our own."""

START_S, ROUND_S, GRACE_S = 600.0, 300.0, 2.0
_TAIL_BYTES, _TAIL_LINES, _SHOWN = 8192, 12, 200


class PeerFailed(BenchmarkFailed):
    """A peer ended, stalled or said what it should not; the message has the last that it wrote to stderr."""


class GenerateJob(msgspec.Struct, frozen=True, kw_only=True):
    """A round samples `group_size` responses of exactly `max_new_tokens` tokens to each prompt."""

    model: str
    """Directory of a Hugging Face model."""
    dtype: Literal["float32", "bfloat16"]
    threads: int
    seed: int
    prompts: list[list[int]]
    """Token ids, of any lengths."""
    group_size: int
    max_new_tokens: int


class SumPrompt(msgspec.Struct, frozen=True):
    """A question, and the whole number that answers it."""

    prompt: str
    solution: str


class StepJob(msgspec.Struct, frozen=True, kw_only=True):
    """A round is one GRPO step: generation, rewards and one optimizer step."""

    model: str
    """Directory of a Hugging Face model."""
    dtype: Literal["float32", "bfloat16"]
    """Of the weights, their gradients and the optimizer's states."""
    threads: int
    seed: int
    prompts: list[SumPrompt]
    """As the rounds take them, from the start again at the end; a multiple of `prompts_per_step`."""
    prompts_per_step: int
    group_size: int
    max_new_tokens: int
    fixed_length: bool
    """Whether each response has exactly so many tokens; else it ends with its end-of-sequence token."""
    lr: float
    kl_coef: float


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A round's figures."""

    round: int
    seconds: float
    tokens: int
    """Generated in the round."""
    peak_memory_bytes: int
    """Most resident memory of the peer's process in the round."""
    mean_reward: float | None = None
    """Over the samples of a step."""


class _Ready(msgspec.Struct, frozen=True):
    ready: bool
    versions: dict[str, str]


def command_of(name: str) -> list[str]:
    """What starts a peer.

    Raises:
        ValueError: its environment is not there, with the command that makes it.
    """
    script, folder = PEERS[name]
    if folder is None:
        return [sys.executable, str(_SCRIPTS / script)]
    if not (ROOT / folder / "realrl.stamp").is_file():
        raise ValueError(f"--against {name}: {folder} is not there; run: bash scripts/peers.sh {name}")
    return [str(ROOT / folder / "bin" / "python"), str(_SCRIPTS / script)]


class Peer:
    """One process, from its start to its end; a context manager."""

    def __init__(
        self,
        name: str,
        job: GenerateJob | StepJob,
        command: Sequence[str] | None = None,
        *,
        start_s: float = START_S,
        round_s: float = ROUND_S,
    ) -> None:
        """`start_s` and `round_s` are the longest that getting ready and a round may take."""
        self.name = name
        self._job, self._start_s, self._round_s = job, start_s, round_s
        self._command = list(command or command_of(name))
        self._received = b""
        self.versions: dict[str, str] = {}

    def __enter__(self) -> Peer:
        self._stderr = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            self._command,
            env=_environment(self._job.threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,
        )
        os.set_blocking(self._process.stdin.fileno(), False)
        try:
            self.versions = self._ask(self._job, _Ready, "getting ready", self._start_s).versions
        except BaseException:
            self._stop(0)
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop(GRACE_S if error is None else 0)

    @property
    def pid(self) -> int:
        return self._process.pid

    def round(self, index: int) -> Answer:
        """Have it run one round.

        Raises:
            PeerFailed: there is no answer, or not one of figures.
        """
        answer = self._ask({"round": index}, Answer, f"in round {index}", self._round_s)
        if answer.round != index:
            raise self._failed(f"in round {index}", f"answered for round {answer.round}")
        return answer

    def _ask(self, question: msgspec.Struct | dict, kind: type, what: str, limit_s: float):
        """Send one line and wait for one."""
        self._exchange(msgspec.json.encode(question) + b"\n", what, limit_s)
        line, _, self._received = self._received.partition(b"\n")
        try:
            return msgspec.json.decode(line, type=kind)
        except msgspec.MsgspecError:
            raise self._failed(what, f"said {_shown(line)} for an answer") from None

    def _exchange(self, pending: bytes, what: str, limit_s: float) -> None:
        """Write `pending` while the peer takes it, and read until a line is there."""
        stdin, stdout = self._process.stdin.fileno(), self._process.stdout.fileno()
        deadline_s = time.monotonic() + limit_s
        while b"\n" not in self._received:
            left_s = max(0.0, deadline_s - time.monotonic())
            readable, writable, _ = select.select([stdout], [stdin] if pending else [], [], left_s)
            if not (readable or writable):
                raise self._failed(what, f"gave no answer within {limit_s:g} s")
            if writable:
                pending = pending[_written(stdin, pending) :]
            if readable:
                chunk = os.read(stdout, 1 << 16)
                if not chunk:
                    raise self._ended(what)
                self._received += chunk

    def _ended(self, what: str) -> PeerFailed:
        try:
            code = self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            return self._failed(what, "closed its output")
        return self._failed(what, f"was killed by signal {-code}" if code < 0 else f"ended with code {code}")

    def _failed(self, what: str, reason: str) -> PeerFailed:
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _TAIL_BYTES))
        lines = self._stderr.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
        said = "".join(f"\n    {line}" for line in lines if line.strip())
        return PeerFailed(
            f"{self.name} {reason}, {what}" + (f"; the last that it wrote:{said}" if said else "")
        )

    def _stop(self, grace_s: float) -> None:
        """End it and whatever it started: by the end of its input, else by force."""
        self._process.stdin.close()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:  # nothing of it is left
            pass
        self._process.wait()
        self._process.stdout.close()
        self._stderr.close()


def _environment(threads: int) -> dict[str, str]:
    """Ours, without what would lead the peer's Python to our packages; nothing is fetched from a hub."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    counts = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return {**kept, **counts, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def _written(stdin: int, pending: bytes) -> int:
    try:
        return os.write(stdin, pending)
    except BrokenPipeError:  # it has ended, as the end of its output will say
        return len(pending)


def _shown(line: bytes) -> str:
    return repr(line[:_SHOWN].decode(errors="replace"))
