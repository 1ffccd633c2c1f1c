"""What a message on too long rows advises makes them fit."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from realrl.api.config import GenerationConfig
from realrl.api.data import DataConfig
from realrl.apps.context import check_context
from realrl.datasets.digests import RowsDigest
from realrl.planner.run_inputs import RowFacts
from realrl.recipes.gen import GenConfig
from realrl.recipes.sft import SFTConfig

LIMIT = 100


def facts(*lengths: int) -> RowFacts:
    return RowFacts(
        max(lengths), lengths, "rows.jsonl:1", 0, "rows.jsonl:1", (), "", RowsDigest(len(lengths), "")
    )


def refusal(lengths: tuple[int, ...], config: GenConfig) -> str:
    with pytest.raises(ValueError) as refused:
        check_context("data.path", facts(*lengths), config, "actor", LIMIT)
    return str(refused.value)


@pytest.mark.parametrize("drop_long", [True, False])
@pytest.mark.parametrize(
    ("lengths", "new_tokens", "means"),
    [
        ((10, 20, 60), 50, {"max_new_tokens", "max_prompt_tokens"}),
        ((10, 20, 200), 50, {"max_prompt_tokens"}),
        ((10, 20, 60), 1024, {"max_new_tokens"}),
        ((60, 70), 50, {"max_new_tokens"}),
        ((100, 200), 100, set()),
    ],
)
def test_all_that_is_advised_helps(lengths, new_tokens, means, drop_long):
    """Each setting that a message names lets the rows pass that it keeps, and there are some of them."""
    config = GenConfig(
        generation=GenerationConfig(max_new_tokens=new_tokens), data=DataConfig(drop_long=drop_long)
    )
    message = refusal(lengths, config)
    fewer = re.search(r"set generation.max_new_tokens to at most (\d+)", message)
    shorter = re.search(r"set data.max_prompt_tokens=(\d+)( and data.drop_long=true)?", message)
    advised = {"max_new_tokens": fewer, "max_prompt_tokens": shorter}
    assert {name for name, found in advised.items() if found} == means
    if fewer:
        generation = GenerationConfig(max_new_tokens=int(fewer[1]))
        check_context("data.path", facts(*lengths), replace(config, generation=generation), "actor", LIMIT)
    if shorter:
        kept = [length for length in lengths if length <= int(shorter[1])]
        check_context("data.path", facts(*kept), config, "actor", LIMIT)
        assert bool(shorter[2]) != drop_long
    if not means:
        assert message.endswith("shorten the prompts, or take a model with more context than 200")


def test_responses_of_a_file_are_left_out_by_their_own_limit():
    message = refusal((10, 200), SFTConfig())
    assert message.endswith("set data.max_response_tokens and data.drop_long=true to leave such rows out")
