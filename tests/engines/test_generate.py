"""Generation: a sample is its own, whatever is around it, however small the cache, whatever comes between."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from realrl.api.batch import PackedBatch, Sample, pack
from realrl.api.config import GenerationConfig
from realrl.api.engine import Preemption
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.datasets.stop_rules import ends_by
from realrl.engines.decoder_engine import DecoderEngine
from realrl.engines.options import EngineOptions
from realrl.models import decoding, generation
from realrl.models.decoding import Decoding
from realrl.models.registry import read_decoder_config
from realrl.ops.cache import KeyValueCache
from realrl.ops.linear import has_bf16_products
from realrl.parallel.groups import Groups, create_groups, local_groups
from tests.models.families import tiny_model
from tests.models.test_graphs import Again
from tests.tiny import tiny_llama, tiny_tokenizer
from tests.world import run_world

ALONE = Placement(DeviceMesh((0,)), ParallelLayout())
EOS = 1
LENGTHS = [3, 90, 3, 17, 64, 90, 1]
WHICH = [0, 1, 0, 2, 3, 1, 4]
"""Which samples have the same prompt."""
ALL = range(len(LENGTHS))
USUAL = GenerationConfig(max_new_tokens=40, temperature=1.3)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"), "qwen2")


@pytest.fixture(scope="module")
def engine(model) -> DecoderEngine:
    return loaded(model)


def loaded(
    model: Path,
    groups=None,
    max_tokens: int = 200,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> DecoderEngine:
    engine = DecoderEngine(
        read_decoder_config(model),
        "lm",
        groups or local_groups(ALONE),
        EngineOptions(dtype=dtype, device=device, max_tokens_per_microbatch=max_tokens),
    )
    engine.load(model)
    return engine


def prompts(indices: Sequence[int] = ALL) -> PackedBatch:
    """A batch of some of the samples, which keep their numbers."""
    ids = [
        torch.randint(3, 60, (n,), generator=torch.Generator().manual_seed(w)) for n, w in zip(LENGTHS, WHICH)
    ]
    return pack([Sample(i, WHICH[i]) for i in indices], {"prompts": [ids[i] for i in indices]})


def generated(
    engine: DecoderEngine, batch: PackedBatch, config: GenerationConfig = USUAL, **options
) -> PackedBatch:
    return engine.generate(batch, config, seed=7, step=2, **options)


def assert_same(found: PackedBatch, expected: PackedBatch) -> None:
    assert found.samples == expected.samples and torch.equal(found.cu_seqlens, expected.cu_seqlens)
    for key in ("input_ids", "loss_mask"):
        assert torch.equal(found[key], expected[key])
    for key in ("logprobs", "raw_logprobs"):
        torch.testing.assert_close(found[key], expected[key], rtol=0, atol=1e-5)
    assert torch.equal(found["ended"], expected["ended"])


def test_a_sample_does_not_depend_on_the_others(engine):
    """Alone, in another order, or beside samples of its own prompt."""
    together = generated(engine, prompts())
    for indices in ([6, 5, 4, 3, 2, 1, 0], [0], [5, 0], [1, 5]):
        assert_same(generated(engine, prompts(indices)), together.select(indices))
    first, _, third, *_ = responses(together)
    assert first != third, "samples of one prompt have seeds of their own"


@pytest.mark.parametrize(("max_sequences", "num_pages"), [(1, 3), (2, 4), (3, 100), (7, 7), (7, 3)])
def test_a_small_cache_changes_nothing(engine, monkeypatch, max_sequences, num_pages):
    """Samples wait for room, or give it up and are computed again."""
    expected = generated(engine, prompts())
    monkeypatch.setattr(KeyValueCache, "page_bytes", lambda **_: (1 << 20) // num_pages)
    config = GenerationConfig(max_new_tokens=40, temperature=1.3, max_sequences=max_sequences, cache_mib=1)
    assert_same(generated(engine, prompts(), config), expected)


def test_a_cache_too_small_for_one_sample_is_refused(engine, monkeypatch):
    monkeypatch.setattr(KeyValueCache, "page_bytes", lambda **_: 1 << 19)
    config = GenerationConfig(max_new_tokens=40, cache_mib=1)
    with pytest.raises(ValueError, match="generation.cache_mib: the longest sample needs 2 MiB .*, got 1"):
        generated(engine, prompts(), config)


class Interruptions:
    """Preemptions after the tokens of some turns, in which `work` is done."""

    def __init__(self, turns: Container[int], work: Callable[[], None] = lambda: None) -> None:
        self.taken = 0
        self._turns, self._work, self._turn = turns, work, itertools.count(1)

    def preemption(self) -> Preemption:
        return Preemption(pending=lambda: next(self._turn) in self._turns, run=self._take)

    def _take(self) -> None:
        self.taken += 1
        self._work()


@pytest.mark.parametrize("every", [1, 2, 9])
@pytest.mark.parametrize("brings_weights", [True, False])
def test_after_a_break_a_sample_goes_on_where_it_was(model, engine, every, brings_weights):
    """As if nothing had been, where the engine is used for something else meanwhile; also when weights come,
    which are the same here, so that all is computed again.
    """
    expected, other = generated(engine, prompts()), loaded(model)

    def work() -> None:
        generated(other, prompts([2]))
        other.version += brings_weights

    found = Interruptions(range(0, 1000, every), work)
    assert_same(generated(other, prompts(), preemption=found.preemption()), expected)
    assert found.taken >= 40 // every


def test_progress_counts_what_is_done(engine):
    """Few at a time, so that it moves; and each token is told of, though no sample has ended by it."""
    said = []
    config = GenerationConfig(max_new_tokens=5, min_new_tokens=5, max_sequences=2)
    with engine.reporting(lambda *numbers: said.append(numbers)):
        generated(engine, prompts(), config)
    assert {total for _, total in said} == {len(LENGTHS)}
    assert [done for done, _ in said] == sorted(done for done, _ in said)
    assert said[0][0] == 0 and len({done for done, _ in said}) > 2
    assert len(said) >= 5 * len(LENGTHS) / 2


def as_on_cuda(monkeypatch) -> Again:
    """Record steps, and launch each before the one before it is read; returns the recorder."""
    record = Again()
    monkeypatch.setattr(Decoding, "is_recordable", True)
    monkeypatch.setattr(decoding, "CudaRecorder", lambda: record)
    monkeypatch.setattr(decoding, "_RECORDING_PAYS", 1)
    monkeypatch.setitem(generation.UNREAD_STEPS, "cpu", 1)
    return record


@pytest.mark.parametrize(("max_sequences", "num_pages"), [(7, 100), (2, 4), (7, 9), (7, 3)])
def test_generation_is_the_same_by_recorded_steps(model, engine, monkeypatch, max_sequences, num_pages):
    """Rows that no sequence has write to a page that no sequence has, and recording advances none. A step is
    under way while rollouts end, or have to wait for room."""
    config = GenerationConfig(max_new_tokens=80, min_new_tokens=70, temperature=1.3)
    expected = generated(engine, prompts(), config)
    record = as_on_cuda(monkeypatch)
    monkeypatch.setattr(KeyValueCache, "page_bytes", lambda **_: (1 << 20) // num_pages)
    config = replace(config, max_sequences=max_sequences, cache_mib=1)
    assert_same(generated(loaded(model), prompts(), config), expected)
    assert record.num_recorded and record.num_replayed > record.num_recorded


@pytest.mark.parametrize("every", [1, 9])
@pytest.mark.parametrize("brings_weights", [True, False])
def test_a_break_waits_for_the_step_under_way(model, engine, monkeypatch, every, brings_weights):
    """Its tokens were drawn with the weights from before the break."""
    expected, other = generated(engine, prompts()), loaded(model)
    as_on_cuda(monkeypatch)

    def work() -> None:
        other.version += brings_weights

    found = Interruptions(range(0, 1000, every), work)
    rollout = generated(other, prompts(), preemption=found.preemption())
    assert_same(rollout, expected)
    assert found.taken >= 40 // every // 2
    versions = rollout["policy_versions"][rollout["loss_mask"]]
    assert len(versions.unique()) > 1 or not brings_weights


def test_a_break_that_stays_due_is_taken_once(model, monkeypatch):
    """A worker's is due until it is taken, so that the step under way says so too."""
    as_on_cuda(monkeypatch)
    turn, waiting = itertools.count(1), []

    def is_due() -> bool:
        if next(turn) == 10:
            waiting.append("a sign")
        return bool(waiting)

    # Fails where nothing waits.
    generated(loaded(model), prompts(), preemption=Preemption(pending=is_due, run=waiting.pop))
    assert not waiting


def test_what_is_dropped_is_free_at_once(model, monkeypatch):
    """Cache and recordings, without Python's search for cycles: whoever needs the memory next has it."""
    own, made = loaded(model), []
    as_on_cuda(monkeypatch)
    begin = KeyValueCache.__init__

    def noted(cache: KeyValueCache, *args, **options) -> None:
        begin(cache, *args, **options)
        made.append(weakref.ref(cache))

    monkeypatch.setattr(KeyValueCache, "__init__", noted)
    gc.collect()
    gc.disable()
    try:
        generated(own, prompts([0]))
        generated(own, prompts())
        assert [cache() is None for cache in made] == [True, False], "a larger one has taken its place"
        own.end_decoding()
        with pytest.raises(ZeroDivisionError):
            generated(own, prompts(), ends=lambda tokens: 1 // 0)
        assert all(cache() is None for cache in made) and len(made) == 3
    finally:
        gc.enable()


def test_recordings_are_kept_until_something_else_is_done(model, engine, monkeypatch):
    """Or until the weights are elsewhere, or a generation needs more room. Tokens are the same throughout."""
    expected, own = generated(engine, prompts()), loaded(model)
    record = as_on_cuda(monkeypatch)

    def num_recorded() -> int:
        record.num_recorded = 0
        assert_same(generated(own, prompts()), expected)
        return record.num_recorded

    generated(own, prompts([0]))
    whole = num_recorded()
    assert whole > 1, "one sequence's room is not enough for all"
    assert num_recorded() == 0
    generated(own, prompts([6, 0]))
    assert num_recorded() == 0, "fewer and shorter sequences have room in what is kept"
    own.logprobs(expected, temperature=1.0)
    assert num_recorded() == whole
    own.offload()
    assert num_recorded() == whole
    own.weights.copy_to_host(own.version)
    own.weights.drop()
    assert num_recorded() == whole, "the weights have moved"
    own.version += 1
    assert num_recorded() == 0, "new weights in the same place"


def test_in_a_break_the_engine_itself_can_be_used(tmp_path):
    """For log-probabilities by weights that have just come, though decoding has the old ones laid out."""
    model, found = tiny_llama(tmp_path, hidden=64, intermediate=128), []
    engine, other = loaded(model, dtype=torch.bfloat16), loaded(model, dtype=torch.bfloat16)
    rollouts = generated(other, prompts([1]))

    def bring() -> None:
        for some in (engine, other):
            some.local_tensors()["layers.0.qkv"].mul_(1.5)
            some.version += 1
            found.append(some.logprobs(rollouts, temperature=1.0))

    generated(engine, prompts([1]), preemption=Interruptions([10], bring).preemption())
    assert torch.equal(*found)
    with engine.model.packed(1):
        assert bool(engine.model._packed) == has_bf16_products(), "what is laid out anew is what may be"


@pytest.mark.parametrize("is_late", [False, True])
def test_each_token_says_which_weights_drew_it(model, monkeypatch, is_late):
    """New weights come between two tokens: those after it are drawn with them alone, keys and values too.

    A step that is under way when the break is seen was launched with the weights from before.
    """
    engine = loaded(model)
    before = generated(engine, prompts([1]))
    if is_late:
        as_on_cuda(monkeypatch)

    def bring() -> None:
        engine.local_tensors()["layers.0.qkv"].mul_(1.5)
        engine.version = 5

    engine.version = 4
    whole = generated(engine, prompts([1]), preemption=Interruptions([10], bring).preemption())
    written = 90 + 10 + is_late
    assert whole["policy_versions"][:90].tolist() == [-1] * 90
    assert whole["policy_versions"][90:].tolist() == [4] * (10 + is_late) + [5] * (
        len(whole["input_ids"]) - written
    )
    assert torch.equal(whole["input_ids"][:written], before["input_ids"][:written])
    assert torch.equal(whole["logprobs"][:written], before["logprobs"][:written])
    found = engine.logprobs(whole, temperature=1.3)
    torch.testing.assert_close(found[written:], whole["logprobs"][written:], rtol=0, atol=1e-5)
    assert (found[90:written] - whole["logprobs"][90:written]).abs().max() > 1e-2


def test_no_end_before_the_minimum(engine):
    """Neither the model's token nor one of the config's; the logprobs are still of the whole distribution."""
    config = GenerationConfig(max_new_tokens=12, min_new_tokens=12, temperature=1.3, stop_token_ids=(5, 9))
    rollout = generated(engine, prompts(), config, ends=ends_by(config, None))
    tokens = rollout["input_ids"][rollout["loss_mask"]]
    assert len(tokens) == 12 * len(LENGTHS) and not rollout["ended"].any()
    assert not torch.isin(tokens, torch.tensor([EOS, 5, 9])).any()
    found = engine.logprobs(rollout, temperature=1.3)
    torch.testing.assert_close(found, rollout["logprobs"], rtol=0, atol=1e-5)


def test_responses_end_where_they_are_asked_to(engine):
    """By a token, or once the text has a string; cut short, a response is what it was up to there."""
    whole, tokenizer = generated(engine, prompts()), tiny_tokenizer()
    text = tokenizer.decode(responses(whole)[1])
    config = GenerationConfig(
        max_new_tokens=40, temperature=1.3, stop=(text[8:10], "no"), stop_token_ids=(60,)
    )
    cut = generated(engine, prompts(), config, ends=ends_by(config, tokenizer))
    for response, found in zip(responses(whole), responses(cut), strict=True):
        stops = [
            n for n in range(1, 41) if 60 in response[:n] or text[8:10] in tokenizer.decode(response[:n])
        ]
        assert found == response[: min(stops, default=40)]
    assert cut["ended"][1] and len(responses(cut)[1]) <= 10


def responses(batch: PackedBatch) -> list[list[int]]:
    return [ids[m].tolist() for ids, m in zip(batch.unpacked("input_ids"), batch.unpacked("loss_mask"))]


@pytest.mark.slow
def test_every_layout_generates_the_same(model, engine, tmp_path):
    """Sampled, interrupted now and then, with a cache that is too small; by recorded steps too."""
    torch.save(generated(engine, prompts()), tmp_path / "expected")
    run_world(_check_layouts, 4, model, tmp_path / "expected")


def _check_layouts(rank: int, model: Path, expected: Path) -> None:
    together = torch.load(expected, weights_only=False)
    layouts = [{"tp": 2}, {"pp": 2}, {"pp": 2, "tp": 2}, {"dp": 2, "tp": 2}, {"tp": 4}]
    placements = [
        Placement(DeviceMesh(tuple(range(x.size))), x) for x in (ParallelLayout(**y) for y in layouts)
    ]
    KeyValueCache.page_bytes = classmethod(lambda cls, **_: (1 << 20) // 7)
    groups = sorted(create_groups(placements, rank).items())
    _check_each_layout(rank, model, together, groups)
    with pytest.MonkeyPatch.context() as patch:
        record = as_on_cuda(patch)
        _check_each_layout(rank, model, together, groups)
    assert record.num_replayed


def _check_each_layout(
    rank: int, model: Path, together: PackedBatch, layouts: Sequence[tuple[Placement, Groups]]
) -> None:
    config = GenerationConfig(max_new_tokens=40, temperature=1.3, cache_mib=1)
    for placement, groups in layouts:
        mine = range(groups.place.dp_rank, len(LENGTHS), placement.layout.dp)
        engine = loaded(model, groups)
        # Only the output rank's word counts.
        is_asked = rank == placement.output_ranks(groups.place.dp_rank)[0]
        found = Interruptions([13] if is_asked else [], lambda e=engine: setattr(e, "version", e.version + 1))
        rollouts = generated(engine, prompts(mine), config, preemption=found.preemption())
        assert_same(rollouts, together.select(mine))
        assert found.taken == 1
