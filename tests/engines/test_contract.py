"""The contract of `api.engine`, held against every engine that can run here.

vLLM's runs where it is installed: `bash scripts/peers.sh vllm`, then pytest in that environment.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from realrl.api.batch import PackedBatch, Sample, pack
from realrl.api.config import GenerationConfig, OptimizerConfig
from realrl.api.engine import NO_WEIGHTS, CallEngine, Engine, Generates, HoldsWeights, Preemption
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.engines.decoder_engine import DecoderEngine
from realrl.engines.options import EngineOptions
from realrl.engines.refusal import NoEngine
from realrl.engines.vllm.engine import VLLMEngine
from realrl.models.registry import read_decoder_config
from realrl.parallel.groups import Groups, create_groups, local_groups
from tests.tiny import tiny_llama
from tests.world import run_world

ALONE = Placement(DeviceMesh((0,)), ParallelLayout())
EOS = 1
ATOL = 1e-4
PROMPTS = ([5, 9, 11], [7], [5, 9, 11], [20, 21, 22, 23, 24])
CONFIG = GenerationConfig(max_new_tokens=12, temperature=1.3, cache_mib=16)
SCORING = ("logprobs", "logprobs_and_entropies", "values", "train_logprobs", "train_values")


def decoder_engine(folder: Path, groups: Groups, **options) -> DecoderEngine:
    common = {"dtype": torch.float32, "device": "cpu", "max_tokens_per_microbatch": 400}
    return DecoderEngine(read_decoder_config(folder), "lm", groups, EngineOptions(**common, **options))


def vllm_engine(folder: Path, groups: Groups) -> VLLMEngine:
    if find_spec("vllm") is None:
        pytest.skip("vllm is not installed: bash scripts/peers.sh vllm")
    decoder = read_decoder_config(folder)
    common = {"dtype": torch.float32, "device": "cpu"}
    return VLLMEngine(decoder, groups, directory=folder, generation=CONFIG, max_tokens=256, **common)


SCORES = {DecoderEngine: True, VLLMEngine: False}
"""Whether an implementation can do more than generate."""
ENGINES: dict[str, Callable[[Path, Groups], Engine]] = {"realrl": decoder_engine, "vllm": vllm_engine}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"), hidden=64, heads=2, kv_heads=1)


@pytest.fixture(scope="module")
def reference(model) -> DecoderEngine:
    """realrl's own engine with the checkpoint's weights."""
    engine = decoder_engine(model, local_groups(ALONE))
    engine.load(model)
    return engine


@pytest.fixture(scope="module", params=ENGINES)
def made(request, model) -> Iterator[Engine]:
    engine = ENGINES[request.param](model, local_groups(ALONE))
    assert engine.version == NO_WEIGHTS
    yield engine
    engine.close()


@pytest.fixture
def engine(made, reference) -> Engine:
    """With the reference's weights, as version 4."""
    bring(made, reference.local_tensors(), version=4)
    return made


def bring(engine: Engine, weights: dict[str, Tensor], version: int, factor: float = 1.0) -> None:
    """Do as a reallocation does."""
    arriving = engine.local_tensors()
    engine.version = NO_WEIGHTS
    for name, weight in weights.items():
        arriving[name].copy_(weight * factor)
    engine.version = version


def prompts(*chosen: int) -> PackedBatch:
    """A batch of some of the samples, which keep their ids."""
    which = chosen or range(len(PROMPTS))
    return pack([Sample(i, 0) for i in which], {"prompts": [torch.tensor(PROMPTS[i]) for i in which]})


def generated(
    engine: Engine, batch: PackedBatch, config: GenerationConfig = CONFIG, **options
) -> PackedBatch:
    return engine.generate(batch, config, seed=7, step=2, **options)


def responses(batch: PackedBatch) -> list[list[int]]:
    pairs = zip(batch.unpacked("input_ids"), batch.unpacked("loss_mask"))
    return [ids[mask].tolist() for ids, mask in pairs]


def test_a_batch_of_responses_has_every_key(engine):
    """Prompts come first and are not masked; their entries are neutral."""
    batch = prompts()
    found = generated(engine, batch)
    assert found.samples == batch.samples
    dtypes = {name: tensor.dtype for name, tensor in found.tokens.items()}
    assert dtypes == {
        "input_ids": torch.int64,
        "loss_mask": torch.bool,
        "logprobs": torch.float32,
        "raw_logprobs": torch.float32,
        "policy_versions": torch.int64,
    }
    assert found["ended"].dtype is torch.bool
    mask = found["loss_mask"]
    for prompt, ids, its_mask in zip(PROMPTS, found.unpacked("input_ids"), found.unpacked("loss_mask")):
        assert ids[: len(prompt)].tolist() == list(prompt)
        assert its_mask.tolist() == [False] * len(prompt) + [True] * (len(ids) - len(prompt))
    assert not found["logprobs"][~mask].any() and not found["raw_logprobs"][~mask].any()
    assert set(found["policy_versions"][~mask].tolist()) == {-1}
    assert set(found["policy_versions"][mask].tolist()) == {4}
    assert len(generated(engine, batch.select([]))) == 0


def test_logprobs_are_those_of_the_whole_distribution(engine, reference):
    """At the sampling temperature, whatever top-k and top-p leave out; raw ones at 1, or NaN."""
    found = generated(engine, prompts(), replace(CONFIG, top_k=9, top_p=0.8))
    mask = found["loss_mask"]
    expected = reference.logprobs(found, temperature=1.3)
    torch.testing.assert_close(found["logprobs"], expected, rtol=0, atol=ATOL)
    raw = found["raw_logprobs"][mask]
    expected_raw = reference.logprobs(found, temperature=1.0)[mask]
    known = ~raw.isnan()
    torch.testing.assert_close(raw[known], expected_raw[known], rtol=0, atol=ATOL)
    at_one = generated(engine, prompts(), replace(CONFIG, temperature=1.0))
    torch.testing.assert_close(at_one["raw_logprobs"], at_one["logprobs"])


def test_a_sample_depends_on_its_seed_alone(engine):
    """The same among others and alone; another one for another step, seed or id."""
    together = generated(engine, prompts())
    for chosen in ((3, 1), (0,)):
        alone = generated(engine, prompts(*chosen))
        assert responses(alone) == responses(together.select(list(chosen)))
    first, _, third, _ = responses(together)
    assert first != third, "samples of one prompt have seeds of their own"
    assert first != responses(engine.generate(prompts(), CONFIG, seed=7, step=3))[0]
    assert first != responses(engine.generate(prompts(), CONFIG, seed=8, step=2))[0]


def test_a_response_ends_as_asked(engine):
    """By the model's token, by the config's, by `ends`; none within the minimum."""
    whole = generated(engine, prompts(), replace(CONFIG, min_new_tokens=12))
    assert [len(response) for response in responses(whole)] == [12] * len(PROMPTS)
    assert not whole["ended"].any()
    stop = responses(whole)[1][4]
    config = replace(CONFIG, stop_token_ids=(stop,), min_new_tokens=2)
    cut = generated(engine, prompts(), config, ends=lambda tokens: sum(tokens) % 7 == 0)
    for response, ended in zip(responses(cut), cut["ended"].tolist(), strict=True):
        ends = [
            length
            for length in range(3, len(response) + 1)
            if response[length - 1] in (EOS, stop) or sum(response[:length]) % 7 == 0
        ]
        assert ended == bool(ends)
        assert len(response) == (ends[0] if ends else 12)


def test_tokens_have_the_version_that_drew_them(engine, reference):
    """New weights draw other tokens, which say so; released weights are none."""
    greedy = replace(CONFIG, temperature=0.0, min_new_tokens=12)
    before = generated(engine, prompts(), greedy)
    bring(engine, reference.local_tensors(), version=5, factor=1.7)
    after = generated(engine, prompts(), greedy)
    assert set(after["policy_versions"][after["loss_mask"]].tolist()) == {5}
    assert responses(after) != responses(before)
    engine.release()
    assert engine.version == NO_WEIGHTS
    bring(engine, reference.local_tensors(), version=6)
    assert responses(generated(engine, prompts(), greedy)) == responses(before)


def test_it_is_preempted_and_tells_its_progress(engine):
    """While it generates; neither changes a token."""
    expected = generated(engine, prompts())
    taken, told = [], []
    preemption = Preemption(pending=lambda: not taken, run=lambda: taken.append(True))
    with engine.reporting(lambda *numbers: told.append(numbers)):
        found = generated(engine, prompts(), preemption=preemption)
    assert responses(found) == responses(expected) and taken
    before = len(told)
    generated(engine, prompts())
    assert len(told) == before, "nothing is told behind the context"


@pytest.mark.parametrize("name", ENGINES)
def test_no_response_is_made_of_weights_that_are_no_numbers(name, model, reference):
    """An error comes instead of a batch. Such an engine is not used again: vLLM keeps NaN in its cache."""
    engine = ENGINES[name](model, local_groups(ALONE))
    try:
        bring(engine, reference.local_tensors(), version=7, factor=math.nan)
        with pytest.raises(FloatingPointError, match="not finite at token 1 of a response"):
            generated(engine, prompts(1))
    finally:
        engine.close()


def scored(engine: CallEngine, method: str, batch: PackedBatch) -> object:
    options = {"lr": 1e-3} if method.startswith("train") else {}
    if "logprobs" in method:
        options["temperature"] = 1.0
    arguments = [batch, lambda numbers, micro: (numbers.sum(), {})] if method.startswith("train") else [batch]
    return getattr(engine, method)(*arguments, **options)


def test_it_scores_or_refuses_to(engine, reference):
    """A refusal names the method and says what to do; else log-probabilities are the reference's."""
    batch = generated(reference, prompts())
    if SCORES[type(engine)]:
        assert torch.equal(scored(engine, "logprobs", batch), reference.logprobs(batch, temperature=1.0))
        return
    for method in SCORING:
        with pytest.raises(ValueError, match=f"engine.{method}: .*set generation.engine=realrl"):
            scored(engine, method, batch)
    assert engine.version == 4


def test_a_call_without_a_model_refuses_everything():
    """Its name is in the error."""
    engine = NoEngine("reward")
    batch = pack([Sample(0, 0)], {"input_ids": [torch.tensor([3])]})
    for method in SCORING:
        with pytest.raises(ValueError, match=f"engine.{method}: the call reward has no model"):
            scored(engine, method, batch)
    with pytest.raises(ValueError, match="engine.generate: the call reward has no model"):
        engine.generate(prompts(), CONFIG, seed=1, step=0)


@pytest.mark.parametrize("implementation", [DecoderEngine, VLLMEngine])
def test_every_method_takes_what_the_contract_says(implementation):
    """Parameters by name, kind and default; mypy checks the types where an engine is used as a protocol."""
    for protocol in (Generates, HoldsWeights, CallEngine):
        for name, method in inspect.getmembers(protocol, inspect.isfunction):
            if name.startswith("_"):
                continue
            expected = inspect.signature(method).parameters.values()
            found = inspect.signature(getattr(implementation, name)).parameters.values()
            assert [(p.name, p.kind, p.default is p.empty) for p in found] == [
                (p.name, p.kind, p.default is p.empty) for p in expected
            ], name


def test_results_come_on_the_ranks_that_the_contract_says(model):
    """In a pipeline: responses on every rank, log-probabilities on the last stage alone."""
    run_world(_check_ranks, 2, model)


def check_entropies(model: Path, batch: PackedBatch, both: tuple[Tensor, Tensor], logprobs: Tensor) -> None:
    """Against transformers, sequence by sequence; 0 at prompts; log-probabilities are those without them."""
    theirs = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    assert torch.equal(both[0], logprobs)
    of_samples = both[1].split(batch.lengths)
    for ids, mask, found in zip(batch.unpacked("input_ids"), batch.unpacked("loss_mask"), of_samples):
        with torch.no_grad():
            logits = theirs(ids[None]).logits[0].double() / 1.3
        entropies = torch.distributions.Categorical(logits=logits).entropy().roll(1)
        torch.testing.assert_close(found[mask].double(), entropies[mask], rtol=0, atol=ATOL)
        assert not found[~mask].any()


def _check_ranks(rank: int, model: Path) -> None:
    placement = Placement(DeviceMesh((0, 1)), ParallelLayout(pp=2))
    engine = decoder_engine(model, create_groups([placement], rank)[placement], optimizer=OptimizerConfig())
    engine.load(model)
    alone = decoder_engine(model, local_groups(Placement(DeviceMesh((rank,)), ParallelLayout())))
    alone.load(model)
    found = generated(engine, prompts())
    assert responses(found) == responses(generated(alone, prompts()))
    logprobs = engine.logprobs(found, temperature=1.3)
    both = engine.logprobs_and_entropies(found, temperature=1.3)
    assert (logprobs is not None) == (both is not None) == (rank == 1)
    if logprobs is not None:
        check_entropies(model, found, both, logprobs)
        torch.testing.assert_close(logprobs, found["logprobs"], rtol=0, atol=ATOL)
    metrics = engine.train_logprobs(
        found, lambda numbers, micro: (-numbers.sum(), {}), lr=1e-3, temperature=1.0
    )
    assert {"grad_norm", "lr", "skipped_updates"} <= metrics.keys()
