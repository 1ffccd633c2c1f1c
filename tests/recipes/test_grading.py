"""Rewards of responses: verdicts, functions of one's own, several with weights, lengths."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from realrl.api.batch import PackedBatch, Sample, pack
from realrl.api.config import GenerationConfig
from realrl.api.data import DataConfig
from realrl.api.recipe import CallOutput
from realrl.recipes.grading import _scored, reward
from realrl.recipes.ppo_config import PPOConfig, PPOMathConfig, ScoreConfig
from realrl.rewards.gym import GymItem, GymTask, questions
from realrl.rewards.verdict import Verdict
from tests.tiny import tiny_tokenizer

RESPONSES = ["7", "so 7", "8", "", "1+6=7"]
CODE = """
def length(prompt, response, solutions):
    return len(response)

def echoes(prompt, response, solutions):
    assert prompt == "3+4=" and solutions == ["7"]
    return float(response == "8")

def broken(prompt, response, solutions):
    raise KeyError("no such thing")

def endless(prompt, response, solutions):
    return float("inf")
"""


def rollouts(responses: list[str] = RESPONSES) -> PackedBatch:
    tokenizer, prompt = tiny_tokenizer(), "3+4="
    ids = [torch.tensor(tokenizer.encode(prompt + text)) for text in responses]
    masks = [torch.arange(len(x)) >= len(tokenizer.encode(prompt)) for x in ids]
    samples = [Sample(i, 0) for i in range(len(responses))]
    ended = [torch.tensor([i != 2]) for i in range(len(responses))]
    return pack(samples, {"input_ids": ids, "loss_mask": masks}, {"ended": ended})


def rewarded(
    *,
    evaluating: bool = False,
    responses: list[str] = RESPONSES,
    item: GymItem | None = None,
    max_draws: int = 1,
    **settings,
) -> CallOutput:
    dataset = SimpleNamespace(prompt=lambda row: "3+4=", solutions=lambda row: ["7"], gym=lambda row: item)
    config = PPOMathConfig(
        batch_size=1,
        ppo=PPOConfig(group_size=len(responses), max_draws=max_draws),
        generation=GenerationConfig(max_new_tokens=8),
        **settings,
    )
    ctx = SimpleNamespace(
        config=config, dataset=dataset, tokenizer=tiny_tokenizer(), evaluating=evaluating, reduce=lambda x: x
    )
    return reward(ctx, rollouts(responses))


@pytest.fixture
def code(tmp_path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    return path


def mean(output: CallOutput, name: str) -> float:
    return output.metrics[name].total / output.metrics[name].weight


def test_the_verifier_rewards_by_scores():
    found = rewarded(scores=ScoreConfig(correct=5.0, wrong=-5.0))
    assert found.batch["rewards"].tolist() == [5.0, 5.0, -5.0, -5.0, 5.0]
    assert mean(found, "accuracy") == 0.6 and mean(found, "verdict_no_answer") == 0.2
    assert mean(found, "truncated") == 0.2 and mean(found, "pass_at_group") == 1.0
    assert mean(found, "groups_all_right") == mean(found, "groups_all_wrong") == 0.0
    assert mean(found, "response_tokens_right") == pytest.approx((1 + 4 + 5) / 3)
    assert mean(found, "response_tokens_wrong") == 0.5
    assert [record["verdict"] for record in found.records][3] == "no_answer"


def test_a_task_of_reasoning_gym_rewards_by_scores_too():
    """In part where an answer is right in part; only a whole one counts as right."""
    task = GymTask("chain_sum", 1, 1, None, "{}")
    right = questions((task,))[0].answer
    found = rewarded(
        reward="gym",
        data=DataConfig(path="gym:chain_sum"),
        scores=ScoreConfig(correct=3.0, wrong=-1.0),
        responses=[right, f"{right} {right}", "no", ""],
        item=GymItem(task, 0),
    )
    share = len(right) / (2 * len(right) + 1)
    assert found.batch["rewards"].tolist() == pytest.approx([3.0, -1.0 + 4.0 * share, -1.0, -1.0])
    assert (
        found.batch["is_graded"].all() and mean(found, "accuracy") == mean(found, "verdict_no_answer") == 0.25
    )


def test_functions_are_composed_with_weights(code):
    found = rewarded(reward={"math": 2.0, f"{code}:length": 0.5, f"{code}:echoes": -1.0})
    assert found.batch["rewards"].tolist() == [2.5, 4.0, -0.5, 0.0, 4.5]
    assert mean(found, "reward/length") == pytest.approx(11 / 5) and mean(found, "reward/math") == 0.6


def test_a_function_alone_has_no_verdicts(code):
    found = rewarded(reward=f"{code}:length")
    assert found.batch["rewards"].tolist() == [1.0, 4.0, 1.0, 0.0, 5.0] and found.batch["is_graded"].all()
    assert not {"accuracy", "reward/length", "pass_at_group"} & found.metrics.keys()
    assert found.records[1] == {"prompt": "3+4=", "response": "so 7", "solutions": ["7"], "reward": 4.0}


def test_lengths_and_shaping_count_in_training_alone():
    """An evaluation says what the responses are worth, not how training sees them."""
    scores = ScoreConfig(bias=1.0, scale=0.5, overlong_tokens=5, overlong_penalty=2.0)
    found = rewarded(scores=scores).batch["rewards"].tolist()
    assert found == pytest.approx([1.0, 1.0 - 2 * 1 / 5, 0.5, 0.5, 1.0 - 2 * 2 / 5])
    assert rewarded(scores=scores, evaluating=True).batch["rewards"].tolist() == [1.0, 1.0, 0.0, 0.0, 1.0]


def test_a_rank_may_have_nothing_to_reward(code):
    for how in ("math", f"{code}:length", {"math": 1.0, f"{code}:length": 1.0}):
        dataset, batch = SimpleNamespace(), rollouts().select([])
        config = PPOMathConfig(batch_size=1, reward=how)
        ctx = SimpleNamespace(
            config=config, dataset=dataset, tokenizer=None, evaluating=False, reduce=lambda x: x
        )
        assert len(reward(ctx, batch).batch["rewards"]) == 0


@pytest.mark.parametrize(
    ("responses", "is_kept"),
    [(["7", "8"], True), (["7", "so 7"], False), (["8", ""], False)],
)
def test_responses_all_alike_teach_nothing(responses, is_kept):
    """Where prompts are drawn again, such a one is rejected and takes no part; else all take part."""
    found = rewarded(responses=responses, max_draws=2)
    assert found.rejected == (() if is_kept else (0, 1))
    assert found.batch["is_graded"].tolist() == [is_kept] * 2 and mean(found, "redrawn") == (not is_kept)
    for settings in ({"max_draws": 1}, {"max_draws": 2, "evaluating": True}):
        other = rewarded(responses=responses, **settings)
        assert other.rejected == () and other.batch["is_graded"].all() and "redrawn" not in other.metrics


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "mine.py:broken raised KeyError: 'no such thing'; the response was '7'"),
        ("endless", "mine.py:endless gave inf; the response was '7'"),
    ],
)
def test_a_function_that_fails_ends_the_run(code, name, message):
    """By its name, with the response that it failed on."""
    with pytest.raises(RuntimeError, match=message):
        rewarded(reward=f"{code}:{name}")


def test_verdicts_become_rewards():
    """A check that broke or took too long is no wrong answer: it is left out, unless it has a score."""
    verdicts = list(Verdict)
    assert verdicts == ["correct", "wrong", "no_answer", "timeout", "error"]
    rewards, is_graded = _scored(ScoreConfig(correct=5.0, wrong=-5.0), verdicts, [1, 0, 0, 0, 0], [True] * 5)
    assert rewards.tolist() == [5.0, -5.0, -5.0, 0.0, 0.0]
    assert is_graded.tolist() == [True, True, True, False, False]
    rewards, is_graded = _scored(ScoreConfig(ungraded=-2.0), verdicts, [1, 0, 0, 0, 0], [True] * 5)
    assert rewards.tolist() == [1.0, 0.0, 0.0, -2.0, -2.0] and is_graded.all()


def test_what_was_cut_off_may_count_as_wrong():
    """Whatever its check says, and only where it is asked for; an evaluation reports the check."""
    ended = [True, False, False]
    verdicts = [Verdict.CORRECT, Verdict.CORRECT, Verdict.TIMEOUT]
    rewards, is_graded = _scored(ScoreConfig(wrong=-1.0, truncated="wrong"), verdicts, [1, 1, 0], ended)
    assert rewards.tolist() == [1.0, -1.0, -1.0] and is_graded.all()
    rewards, is_graded = _scored(ScoreConfig(wrong=-1.0), verdicts, [1, 1, 0], ended)
    assert rewards.tolist() == [1.0, 1.0, 0.0] and is_graded.tolist() == [True, True, False]
