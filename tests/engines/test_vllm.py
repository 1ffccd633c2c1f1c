"""vLLM's engine gives what ours gives, always by the weights that are due, and leaves nothing behind.

Where vLLM is not installed these are skipped; `bash scripts/peers.sh vllm` makes an environment that has it.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import psutil
import pytest
import torch
import transformers

from realrl.api.batch import PackedBatch, Sample, pack
from realrl.api.config import GenerationConfig
from realrl.api.engine import Preemption
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.datasets.stop_rules import ends_by
from realrl.engines.decoder_engine import DecoderEngine
from realrl.engines.options import EngineOptions
from realrl.engines.vllm import lending
from realrl.engines.vllm.engine import VLLMEngine
from realrl.engines.vllm.engine_process import Child
from realrl.engines.vllm.protocol import Ready, Sleep
from realrl.models.registry import read_decoder_config
from realrl.parallel.groups import local_groups
from tests.engines import lent
from tests.rehearsal import build, driver
from tests.tiny import VOCAB, tiny_llama, tiny_tokenizer

if find_spec("vllm") is None:
    pytest.skip("vllm is not installed: bash scripts/peers.sh vllm", allow_module_level=True)

ALONE = Placement(DeviceMesh((0,)), ParallelLayout())
EOS = 1
GREEDY = GenerationConfig(max_new_tokens=24, temperature=0.0, cache_mib=16)
SAMPLED = replace(GREEDY, temperature=1.3)
LENGTHS = [3, 200, 17, 3, 1]
"""Prompts; 200 tokens are more than a page of vLLM's cache."""
WHICH = [0, 1, 2, 0, 3]
"""Which samples have the same prompt."""
ATOL = 1e-4
STARTED_S = time.time()


@dataclass
class Pair:
    """Both engines on one model."""

    ours: DecoderEngine
    theirs: VLLMEngine
    initial: dict[str, torch.Tensor]

    def change(self, version: int) -> None:
        """Weights of a version's own, so far away that greedy answers differ."""
        generator = torch.Generator().manual_seed(version)
        arriving = self.theirs.local_tensors()
        for name, weight in self.ours.local_tensors().items():
            weight.copy_(self.initial[name] + 0.1 * torch.randn(weight.shape, generator=generator))
            arriving[name].copy_(weight)
        self.theirs.adopt(version=version)
        self.ours.version = version


def qwen2(directory: Path) -> Path:
    """Untied, with biases; heads of 32 dimensions, as vLLM wants them on a CPU."""
    config = transformers.Qwen2Config(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        initializer_range=0.2,
        eos_token_id=EOS,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.Qwen2ForCausalLM(config).save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return directory


MODELS: dict[str, Callable[[Path], Path]] = {
    "llama-tied": lambda directory: tiny_llama(directory, hidden=64, heads=2, kv_heads=1),
    "qwen2-untied": qwen2,
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Iterator[dict[str, Pair]]:
    """All start at once; each is waited for when it is first used."""
    found = {name: _pair(make(tmp_path_factory.mktemp(name))) for name, make in MODELS.items()}
    yield found
    for pair in found.values():
        pair.theirs.close()
        assert not is_running(pair.theirs.pid)


def _pair(directory: Path) -> Pair:
    decoder, groups = read_decoder_config(directory), local_groups(ALONE)
    common = {"dtype": torch.float32, "device": "cpu"}
    theirs = VLLMEngine(
        decoder, groups, directory=directory, generation=GREEDY, max_tokens=decoder.max_position, **common
    )
    ours = DecoderEngine(decoder, "lm", groups, EngineOptions(max_tokens_per_microbatch=400, **common))
    ours.load(directory)
    return Pair(ours, theirs, {name: tensor.clone() for name, tensor in ours.local_tensors().items()})


@pytest.fixture(params=MODELS)
def pair(request, pairs) -> Pair:
    """With weights of version 4."""
    pairs[request.param].change(4)
    return pairs[request.param]


@pytest.fixture
def llama(pairs) -> Pair:
    pairs["llama-tied"].change(4)
    return pairs["llama-tied"]


def prompts(indices: Sequence[int] = range(len(LENGTHS))) -> PackedBatch:
    ids = [
        torch.randint(3, 60, (n,), generator=torch.Generator().manual_seed(w)) for n, w in zip(LENGTHS, WHICH)
    ]
    return pack([Sample(i, WHICH[i]) for i in indices], {"prompts": [ids[i] for i in indices]})


def generated(
    engine: DecoderEngine | VLLMEngine, batch: PackedBatch, config: GenerationConfig, **options
) -> PackedBatch:
    return engine.generate(batch, config, seed=7, step=2, **options)


def responses(batch: PackedBatch) -> list[list[int]]:
    return [ids[m].tolist() for ids, m in zip(batch.unpacked("input_ids"), batch.unpacked("loss_mask"))]


def assert_same(found: PackedBatch, expected: PackedBatch) -> None:
    assert found.samples == expected.samples and torch.equal(found.cu_seqlens, expected.cu_seqlens)
    for key in ("input_ids", "loss_mask", "policy_versions", "ended"):
        assert torch.equal(found[key], expected[key]), key
    for key in ("logprobs", "raw_logprobs"):
        torch.testing.assert_close(found[key], expected[key], rtol=0, atol=ATOL, equal_nan=True)


def test_greedy_answers_are_ours(pair):
    """By the weights of each update, also where the prompt's keys and values of before were cached."""
    seen = []
    for version in (5, 6, 7):
        pair.change(version)
        found = generated(pair.theirs, prompts(), GREEDY)
        assert_same(found, generated(pair.ours, prompts(), GREEDY))
        assert set(found["policy_versions"][found["loss_mask"]].tolist()) == {version}
        seen.append(responses(found)[1])
    assert len(set(map(tuple, seen))) == 3, "the weights must matter, or this test shows nothing"


def test_weights_of_another_version_are_refused(llama):
    """Whatever the worker's side believes."""
    generated(llama.theirs, prompts(), GREEDY)
    llama.theirs.version = 5
    with pytest.raises(RuntimeError, match="vLLM has version 4 of the weights, not 5"):
        generated(llama.theirs, prompts(), GREEDY)
    llama.theirs.release()
    llama.theirs.version = 4
    with pytest.raises(RuntimeError, match="vLLM has version None of the weights, not 4"):
        generated(llama.theirs, prompts(), GREEDY)


def test_answers_after_its_sleep_are_those_before(pair):
    """With the same weights again: it has lost nothing that an update does not bring."""
    before = generated(pair.theirs, prompts(), GREEDY)
    pair.theirs.release()
    pair.change(4)
    assert_same(generated(pair.theirs, prompts(), GREEDY), before)


def test_vllm_reads_nothing_of_the_next_version(pair):
    """Weights that arrive in the very memory that it has read change nothing until they are handed over."""
    expected = generated(pair.theirs, prompts(), GREEDY)
    for weight in pair.theirs.local_tensors().values():
        weight.fill_(math.nan)
    pair.theirs._arriving = None
    assert_same(generated(pair.theirs, prompts(), GREEDY), expected)


@pytest.fixture(scope="module", params=["lent", "staged"])
def on_a_device(request, tmp_path_factory) -> Iterator[Pair]:
    """Weights arrive as on CUDA, and vLLM reads them there, or in parts from host memory."""
    if build.compiler() is None:
        pytest.skip("no g++ on this machine")
    library = driver.build(tmp_path_factory.mktemp("driver"))
    opens = {"lent": "opens", "staged": "refuses"}[request.param]
    with driver.rehearsed(library), mock.patch.object(lending, "_PART_BYTES", 32 << 10):
        with lent.processes(library, opens=opens, server="vllm"):
            pair = _pair(MODELS["llama-tied"](tmp_path_factory.mktemp("model")))
        lent.lend_device_memory(pair.theirs)
        yield pair
        pair.theirs.close()


def test_weights_of_a_device_are_read_there(on_a_device):
    """Version after version; none of a device's memory is kept, on either side."""
    for version in (5, 6):
        on_a_device.change(version)
        assert lent.maps(os.getpid(), lent.DEVICE_MEMORY), "else this test looks at the wrong place"
        found = generated(on_a_device.theirs, prompts(), GREEDY)
        assert_same(found, generated(on_a_device.ours, prompts(), GREEDY))
        for pid in (os.getpid(), on_a_device.theirs.pid):
            assert not lent.maps(pid, lent.DEVICE_MEMORY)


def test_a_sample_has_a_seed_of_its_own(pair):
    """The same tokens again, alone too; others for another sample of the prompt, step or seed."""
    together = generated(pair.theirs, prompts(), SAMPLED)
    assert_same(generated(pair.theirs, prompts(), SAMPLED), together)
    assert_same(generated(pair.theirs, prompts([3, 1]), SAMPLED), together.select([3, 1]))
    first, _, _, other, _ = responses(together)
    assert first != other
    assert first != responses(pair.theirs.generate(prompts(), SAMPLED, seed=7, step=3))[0]
    assert first != responses(pair.theirs.generate(prompts(), SAMPLED, seed=8, step=2))[0]


def test_logprobs_are_of_the_whole_distribution(pair):
    """At the sampling temperature, whatever top-k, top-p and the minimum leave out."""
    config = replace(SAMPLED, top_k=9, top_p=0.8, min_new_tokens=5)
    found = generated(pair.theirs, prompts(), config)
    expected = pair.ours.logprobs(found, temperature=1.3)
    torch.testing.assert_close(found["logprobs"], expected, rtol=0, atol=ATOL)
    assert found["raw_logprobs"][found["loss_mask"]].isnan().all()
    at_one = generated(pair.theirs, prompts(), replace(config, temperature=1.0))
    torch.testing.assert_close(at_one["raw_logprobs"], at_one["logprobs"])


def test_few_tokens_are_kept(llama):
    """One of the likeliest, or as good as none of the probability, is the greedy choice."""
    greedy = responses(generated(llama.theirs, prompts(), GREEDY))
    for kept in ({"top_k": 1}, {"top_p": 1e-6}):
        assert responses(generated(llama.theirs, prompts(), replace(SAMPLED, **kept))) == greedy


@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_tokens_come_as_often_as_they_should(llama, temperature):
    """First tokens of a prompt, against our own probabilities: total variation."""
    count, prompt = 2000, torch.tensor([5, 9])
    config = replace(SAMPLED, max_new_tokens=1, temperature=temperature)
    batch = pack([Sample(i, 0) for i in range(count)], {"prompts": [prompt] * count})
    tokens = torch.tensor(responses(generated(llama.theirs, batch, config)))[:, 0]
    every = torch.cat([prompt.repeat(VOCAB, 1), torch.arange(VOCAB)[:, None]], 1)
    mask = torch.tensor([False, False, True])
    scored = pack(
        [Sample(i, 0) for i in range(VOCAB)], {"input_ids": list(every), "loss_mask": [mask] * VOCAB}
    )
    expected = llama.ours.logprobs(scored, temperature=temperature)[2::3].exp()
    torch.testing.assert_close(expected.sum(), torch.tensor(1.0))
    found = torch.bincount(tokens, minlength=VOCAB) / count
    # A sample of this size is off by about sqrt(VOCAB / (2 pi count)) = 0.07 at most.
    assert 0.5 * (found - expected).abs().sum() < 0.1


def test_no_end_before_the_minimum(llama):
    """Neither the model's token nor one of the config's."""
    config = replace(SAMPLED, max_new_tokens=12, min_new_tokens=12, stop_token_ids=(5, 9))
    found = generated(llama.theirs, prompts(), config, ends=ends_by(config, None))
    tokens = found["input_ids"][found["loss_mask"]]
    assert len(tokens) == 12 * len(LENGTHS) and not found["ended"].any()
    assert not torch.isin(tokens, torch.tensor([EOS, 5, 9])).any()


def test_responses_end_where_they_are_asked_to(llama):
    """By a token, or once the text has a string; cut short, a response is what it was up to there."""
    whole, tokenizer = generated(llama.theirs, prompts(), SAMPLED), tiny_tokenizer()
    text, token = tokenizer.decode(responses(whole)[1]), responses(whole)[2][4]
    config = replace(SAMPLED, stop=(text[8:10], "no"), stop_token_ids=(token,))
    cut = generated(llama.theirs, prompts(), config, ends=ends_by(config, tokenizer))
    for response, found, ended in zip(responses(whole), responses(cut), cut["ended"].tolist(), strict=True):
        stops = [
            n
            for n in range(1, len(response) + 1)
            if response[n - 1] in (token, EOS) or text[8:10] in tokenizer.decode(response[:n])
        ]
        assert found == response[: min(stops, default=SAMPLED.max_new_tokens)]
        assert ended == bool(stops)
    assert len(responses(cut)[1]) <= 10 and len(responses(cut)[2]) <= 5


def test_what_else_ends_a_response_cuts_it(llama):
    """What vLLM knows nothing of."""
    whole = generated(llama.theirs, prompts(), replace(SAMPLED, min_new_tokens=3))
    cut = generated(
        llama.theirs, prompts(), replace(SAMPLED, min_new_tokens=3), ends=lambda tokens: sum(tokens) % 3 == 0
    )
    for response, found in zip(responses(whole), responses(cut)):
        stops = [n for n in range(4, len(response) + 1) if sum(response[:n]) % 3 == 0]
        assert found == response[: min(stops, default=len(response))]


def test_it_is_preempted_while_it_generates(llama):
    """And change nothing."""
    taken = []
    preemption = Preemption(pending=lambda: not taken, run=lambda: taken.append(True))
    found = generated(llama.theirs, prompts(), GREEDY, preemption=preemption)
    assert_same(found, generated(llama.ours, prompts(), GREEDY))
    assert taken


def test_no_samples(llama):
    assert len(generated(llama.theirs, prompts([]), SAMPLED)) == 0


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(happened: Callable[[], bool], within_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_nobody_can_connect_to_its_process(pair):
    """What vLLM's process group listened at is closed once it is at work; no connection is lost by it."""
    generated(pair.theirs, prompts(), GREEDY)
    connections = psutil.Process(pair.theirs.pid).net_connections("tcp")
    assert not [connection.laddr for connection in connections if connection.status == "LISTEN"]
    generated(pair.theirs, prompts(), GREEDY)


def test_it_dies_with_its_worker():
    """Killed, while vLLM is loading and listens to nothing."""
    code = """if True:
        import time
        from realrl.engines.vllm.engine_process import Child
        from realrl.engines.vllm.protocol import Start

        child = Child("cpu")
        limits = {"max_tokens": 9, "max_sequences": 1, "cache_bytes": 1 << 20}
        child.tell(Start(directory="none", dtype="float32", device="cpu", **limits))
        print(child.pid, flush=True)
        time.sleep(30)
    """
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as worker:
        child = int(worker.stdout.readline())
        wait_until(lambda: b"vllm.process" in Path(f"/proc/{child}/cmdline").read_bytes())
        time.sleep(1.0)
        assert is_running(child)
        worker.kill()
    wait_until(lambda: not is_running(child), within_s=1.0)


def test_its_death_is_told():
    """Whoever asks it."""
    child = Child("cpu")
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="vLLM's process ended with exit code -9"):
        child.ask(Sleep(), Ready)
    child.close()


ODD_TEXTS = """
def is_odd(prompt, response, solutions):
    return float(sum(map(ord, response)) % 2)
"""
"""A reward that tells a random model's responses apart, so that there is something to learn."""
ALLOCATIONS = ("actor_gen:d2,*:p2", "gen.d1+d1", "*:d1")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Iterator[dict[str, Run]]:
    """A run each, all at once: they mostly wait for what they load."""
    started = {allocation: Run(tmp_path_factory.mktemp("run"), allocation, 2) for allocation in ALLOCATIONS}
    started["endless"] = Run(tmp_path_factory.mktemp("run"), "*:d1", 1_000_000)
    yield started
    for run in started.values():
        run.process.kill()


class Run:
    """The command line on sums, as a person would start it.

    The learning rate is so large that the log-probabilities of weights of a step before would be far off.
    """

    def __init__(self, folder: Path, allocation: str, num_steps: int) -> None:
        (folder / "rewards.py").write_text(ODD_TEXTS)
        overrides = {
            "actor.model.path": tiny_llama(folder / "model", hidden=64, heads=2, kv_heads=1),
            "actor.model.dtype": "float32",
            "actor.optimizer.lr": 1e-2,
            "num_steps": num_steps,
            "batch_size": 4,
            "ppo.group_size": 4,
            "ppo.kl_coef": 0.1,
            "data.path": "sums",
            "reward": f"{folder / 'rewards.py'}:is_odd",
            "generation.engine": "vllm",
            "generation.max_new_tokens": 8,
            "generation.cache_mib": 16,
            "runs_dir": folder,
            "allocation": allocation,
        }
        self.marker = f"REALRL_TEST_MARKER={folder}"
        self.metrics = folder / "ppo-math" / "trial" / "metrics.jsonl"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "realrl.apps.quickstart", "ppo-math"]
            + [f"{key}={value}" for key, value in overrides.items()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | dict([self.marker.split("=")]),
        )

    def num_written(self) -> int:
        """Evaluations and steps so far."""
        return len(self.metrics.read_text().splitlines()) if self.metrics.exists() else 0

    def steps(self) -> list[dict]:
        """The metrics of each, once it has ended."""
        said, _ = self.process.communicate(timeout=180)
        assert self.process.returncode == 0, said
        lines = map(json.loads, self.metrics.read_text().splitlines())
        return [line for line in lines if line["kind"] == "train"]


def test_nothing_outlives_a_killed_worker(runs):
    """In the midst of a run; it is then a failed one."""
    run = runs["endless"]
    wait_until(lambda: run.process.poll() is not None or run.num_written() > 0, within_s=180)
    commands = processes_with(run.marker)
    assert any("vllm.process" in command for command in commands.values()), run.process.poll()
    (worker,) = (pid for pid, command in commands.items() if "realrl.apps.worker" in command)
    os.kill(worker, signal.SIGKILL)
    said, _ = run.process.communicate(timeout=60)
    assert run.process.returncode == 1 and "rank 0" in said
    assert not processes_with(run.marker)


@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_a_run_generates_with_it(runs, allocation):
    """Colocated, on ranks of its own, where the model lives: the trainer finds the log-probs it was given."""
    first, second = runs[allocation].steps()
    assert max(step["actor_logprob_diff_max"] for step in (first, second)) <= ATOL
    assert second["kl_to_ref"] > 0.01, "the weights must change, or this test shows nothing"
    assert not processes_with(runs[allocation].marker)


def test_no_shared_memory_has_a_name(runs):
    """Once all runs have ended."""
    for allocation in ALLOCATIONS:
        runs[allocation].process.wait(180)
    assert not [path for path in Path("/dev/shm").iterdir() if path.stat().st_mtime > STARTED_S]


def processes_with(setting: str) -> dict[int, str]:
    """The command of each that has it in its environment."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if setting.encode() in (process / "environ").read_bytes():
                found[int(process.name)] = (process / "cmdline").read_text()
    return found
