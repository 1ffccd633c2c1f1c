"""Weights in host memory and back."""

import pytest
import torch

from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.engines.decoder_engine import DecoderEngine
from realrl.engines.host_copies import HostCopy
from realrl.engines.options import EngineOptions
from realrl.models.registry import read_decoder_config
from realrl.parallel.groups import local_groups
from tests.engines.test_engine import own_batch
from tests.tiny import tiny_llama


def test_what_comes_back_is_what_was_put_away():
    """A copy of its own, whatever becomes of the tensor meanwhile; it can be had again and again."""
    tensor = torch.randn(1000)
    expected, host = tensor.clone(), HostCopy(tensor)
    tensor.zero_()
    for _ in range(2):
        found = host.bring_back().wait()
        assert torch.equal(found, expected)
        found.zero_()


@pytest.fixture
def engine(tmp_path) -> DecoderEngine:
    model = tiny_llama(tmp_path)
    groups = local_groups(Placement(DeviceMesh((0,)), ParallelLayout()))
    engine = DecoderEngine(
        read_decoder_config(model),
        "lm",
        groups,
        EngineOptions(dtype=torch.float32, device="cpu", max_tokens_per_microbatch=40),
    )
    engine.load(model)
    return engine


def test_an_offloaded_engine_answers_as_before(engine):
    """Whether it is brought back before it is used or not; its version stays."""
    batch = own_batch(engine.groups)
    expected = engine.logprobs(batch, temperature=1.0)
    for brought_back in (True, False):
        engine.offload()
        assert not engine.weights.is_on_device and engine.version == 0
        if brought_back:
            engine.onload()
        assert torch.equal(engine.logprobs(batch, temperature=1.0), expected)


def test_weights_that_did_not_change_are_not_copied_again(engine):
    """The copy in host memory is of one version."""
    engine.offload()
    first = engine.weights._host
    engine.onload()
    engine.offload()
    assert engine.weights._host is first
    engine.onload()
    engine.local_tensors()["norm"].fill_(2.0)
    engine.version = 1
    engine.offload()
    assert engine.weights._host is not first
    engine.onload()
    assert (engine.local_tensors()["norm"] == 2.0).all()
