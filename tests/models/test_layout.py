"""A decoder's layouts, by painting every element."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from transformers import LlamaForCausalLM

from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.models.config import DecoderConfig
from realrl.models.layout import check_fits, decoder_layout, kv_heads, local_tensors, whole_tensors
from realrl.models.registry import read_decoder_config
from realrl.realloc import checkpoint
from tests.models.families import ONE_EACH, reference_model, tiny_model
from tests.tiny import tiny_llama

LAYOUTS = [ParallelLayout(pp=pp, dp=dp, tp=tp) for pp in (1, 2, 3) for dp in (1, 2) for tp in (1, 2, 4)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("tiny"), tie=True)


def placed(layout: ParallelLayout) -> Placement:
    return Placement(DeviceMesh(tuple(range(layout.size))), layout)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_each_data_parallel_slice_holds_every_element(model, layout):
    """And no rank keeps two boxes in one place of a local tensor."""
    placement = placed(layout)
    shards = decoder_layout(read_decoder_config(model), placement, "lm")
    expected = LlamaForCausalLM.from_pretrained(model).state_dict()
    del expected["lm_head.weight"]
    for dp_rank in range(layout.dp):
        painted = {name: torch.zeros_like(weight) for name, weight in expected.items()}
        for rank in placement.dp_slice(dp_rank):
            for shard in shards.shards(rank):
                box = tuple(slice(a, b) for a, b in zip(shard.box.start, shard.box.stop, strict=True))
                painted[shard.box.tensor][box] += 1
        assert all((paint >= 1).all() for paint in painted.values())


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_pieces_fill_local_tensors_without_overlap(model, layout):
    """Only the vocabulary's padding stays empty."""
    decoder, placement = read_decoder_config(model), placed(layout)
    for rank in placement.ranks:
        for local in local_tensors(decoder, layout, placement.coordinate(rank), "lm"):
            painted = torch.zeros(local.shape)
            for piece in local.pieces:
                place = tuple(slice(o, o + n) for o, n in zip(piece.offset, piece.box.shape, strict=True))
                painted[place] += 1
            assert painted.max() <= 1
            assert local.name in ("embed", "head") or painted.min() == 1


@pytest.mark.parametrize("row", ONE_EACH)
def test_whole_tensors_are_those_of_the_checkpoint(tmp_path, row):
    """In every family, however it fuses or turns them; as views, which cost no memory."""
    directory, placement = tiny_model(tmp_path, row), placed(ParallelLayout())
    decoder = read_decoder_config(directory)
    locals = local_tensors(decoder, placement.layout, placement.coordinate(0), "lm")
    tensors = {local.name: torch.zeros(local.shape) for local in locals}
    checkpoint.load(directory, decoder_layout(decoder, placement, "lm"), 0, tensors, base=decoder.names.base)
    found, expected = whole_tensors(locals, tensors), reference_model(directory).state_dict()
    assert expected.keys() - found.keys() <= {"lm_head.weight"}
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name
    storages = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    assert {tensor.untyped_storage().data_ptr() for tensor in found.values()} <= storages


def test_key_value_heads_are_shared_evenly():
    """Two heads over eight ranks: each is held by four neighbours."""
    decoder = DecoderConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_layers=1, num_heads=8, num_kv_heads=2,
        head_dim=1, max_position=8, norm_eps=1e-5, tied=False, eos_token_ids=(),
    )  # fmt: skip
    holders = Counter(head for tp_rank in range(8) for head in kv_heads(decoder, 8, tp_rank))
    assert holders == {0: 4, 1: 4}


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        (ParallelLayout(tp=3), "t3 must divide the model's 4 attention heads"),
        (ParallelLayout(pp=5), "p5 needs at least 5 layers, the model has 4"),
    ],
)
def test_what_does_not_fit_is_refused(model, layout, says):
    with pytest.raises(ValueError, match="allocation: " + says):
        check_fits(read_decoder_config(model), layout, "allocation")


@pytest.mark.parametrize("row", ONE_EACH)
@pytest.mark.parametrize("tp", [2, 4])
def test_a_role_says_what_the_boxes_show(row, tp, tmp_path):
    """What ranks sum, all of them have whole; what they have in part is summed only by key/value heads."""
    decoder = read_decoder_config(tiny_model(tmp_path, row))
    layout = ParallelLayout(tp=tp)
    for head in ("lm", "scalar"):
        ranks = [local_tensors(decoder, layout, layout.coordinate(rank), head) for rank in range(tp)]
        for tensors in zip(*ranks, strict=True):
            role = tensors[0].role
            assert {tensor.role for tensor in tensors} == {role}
            boxes = [{piece.box for piece in tensor.pieces} for tensor in tensors]
            is_whole = all(own == boxes[0] for own in boxes)
            is_shared = any(boxes[0] & own for own in boxes[1:])
            name = tensors[0].name
            assert is_whole or role.summed_over_tp == "never", name
            assert role.summed_over_tp != "never" or not is_whole or role.is_product, name
            shares_heads = role.has_kv_heads and tp > decoder.num_kv_heads
            assert is_shared == (is_whole or shares_heads), name
            assert len(tensors[0].shape) == 2 or not role.is_product, name
            assert role.is_vocabulary == (name in ("embed", "head") and not is_whole), name
