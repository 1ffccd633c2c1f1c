"""Rewards of responses: verdicts, functions of one's own, several with weights, lengths."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from realrl.api.batch import PackedBatch, Sample, pack
from realrl.api.config import GenerationConfig
from realrl.api.data import DataConfig, DataSetConfig
from realrl.api.evals import HELD_OUT
from realrl.api.recipe import CallOutput
from realrl.base.progress import Progress, no_progress
from realrl.recipes.parts.checks import score
from realrl.recipes.parts.config import ScoreConfig
from realrl.recipes.parts.grading import reward
from realrl.recipes.ppo_math import PPOMathConfig, PPOMathSettings
from realrl.rewards.functions import load_function
from realrl.rewards.gym import GymItem, GymTask, questions
from realrl.rewards.math import check_all
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

def huge(prompt, response, solutions):
    return 1e39

def large(prompt, response, solutions):
    return 1e29

def leaves(prompt, response, solutions):
    raise SystemExit(0)

def undecided(prompt, response, solutions):
    return None if response == "8" else len(response)

def place(sample):
    assert sample in sample.group and sample.metadata == {"level": 3} and sample.prompt == "3+4="
    return len(sample.tokens) + 100 * sample.ended + 1000 * len(sample.group)

async def share_right(samples):
    right = [sum(other.verdict == "correct" for other in sample.group) for sample in samples]
    return [number / len(sample.group) for number, sample in zip(right, samples)]
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
    progress: Progress = no_progress,
    source: str = "",
    **settings,
) -> CallOutput:
    dataset = SimpleNamespace(
        prompt=lambda row: "3+4=",
        solutions=lambda row: ["7"],
        gym=lambda row: item,
        source=lambda row: source,
        metadata=lambda row: {"level": 3},
    )
    config = PPOMathConfig(
        batch_size=1,
        ppo=PPOMathSettings(group_size=len(responses), max_draws=max_draws),
        generation=GenerationConfig(max_new_tokens=8),
        **settings,
    )
    ctx = SimpleNamespace(
        config=config,
        dataset=dataset,
        tokenizer=tiny_tokenizer(),
        eval_set=HELD_OUT if evaluating else "",
        evaluating=evaluating,
        reduce=lambda x: x,
        progress=progress,
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
    assert [record["answer"] for record in found.records] == ["7", "7", "8", None, "7"]


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


def test_a_function_sees_the_row_the_tokens_and_the_group(code):
    """And the verdicts, whatever order the rewards are named in; an evaluation's group is the row's."""
    found = rewarded(reward=f"{code}:place")
    assert found.batch["rewards"].tolist() == [5101.0, 5104.0, 5001.0, 5100.0, 5105.0]
    assert rewarded(reward=f"{code}:place", evaluating=True).batch["rewards"].tolist()[0] == 5101.0
    found = rewarded(reward={f"{code}:share_right": 1.0, "math": 2.0})
    assert found.batch["rewards"].tolist() == pytest.approx([2.6, 2.6, 0.6, 0.6, 2.6])
    alone = rewarded(reward=f"{code}:share_right")
    assert alone.batch["rewards"].tolist() == [0.0] * 5


def context(config: PPOMathConfig, sources: list[str]) -> SimpleNamespace:
    """Return what the call `reward` sees: rows with a source each."""
    dataset = SimpleNamespace(
        prompt=lambda row: "3+4=",
        solutions=lambda row: ["7"],
        source=lambda row: sources[row],
        metadata=lambda row: {"level": 3},
    )
    return SimpleNamespace(
        config=config,
        dataset=dataset,
        tokenizer=tiny_tokenizer(),
        evaluating=False,
        eval_set="",
        reduce=lambda x: x,
        progress=no_progress,
    )


def test_a_row_that_is_twice_in_a_step_is_two_groups(code):
    """A group is what was sampled for one place of the batch."""
    config = PPOMathConfig(batch_size=2, reward=f"{code}:place", ppo=PPOMathSettings(group_size=2))
    found = reward(context(config, [""]), rollouts(["7", "8", "7", "8"]))
    assert [number // 1000 for number in found.batch["rewards"].tolist()] == [2] * 4


def test_rows_of_each_source_are_asked_for_their_own_rewards(code):
    """A truncated response has no more than a wrong one; `math` is reported of the rows that have it."""
    own = DataSetConfig(path="b.jsonl", reward={f"{code}:length": 2.0, "math": 0.0})
    other = DataSetConfig(path="c.jsonl", reward=f"{code}:length")
    config = PPOMathConfig(
        batch_size=3,
        data=DataConfig(sets={"a": DataSetConfig(path="a.jsonl"), "b": own, "c": other}),
        ppo=PPOMathSettings(group_size=2),
        scores=ScoreConfig(wrong=-1.0, truncated="wrong"),
    )
    # The third response is truncated, and so is the fifth.
    batch = rollouts(["7", "8", "so 7", "8", "so 7", "7"])
    samples = [Sample(sample.id, sample.id // 2) for sample in batch.samples]
    ended = torch.tensor([True, True, False, True, False, True])
    batch = replace(batch, samples=tuple(samples), per_sample={"ended": ended})
    found = reward(context(config, ["a", "b", "c"]), batch)
    # The bound of a response that no verdict weighs in is `wrong` with the weight 1, or 0 with the weight 0.
    assert found.batch["rewards"].tolist() == [1.0, -1.0, 0.0, 2.0, -1.0, 1.0]
    assert found.batch["is_graded"].all()
    verdicts = [record.get("verdict") for record in found.records]
    assert verdicts == ["correct", "wrong", "wrong", "wrong", None, None]
    assert mean(found, "accuracy") == 0.25 and found.metrics["accuracy"].weight == 4
    assert mean(found, "reward/math") == pytest.approx((1 - 1 - 1 - 1) / 4)
    assert mean(found, "reward/length") == pytest.approx((4 + 1 + 4 + 1) / 4)
    assert mean(found, "pass_at_group") == 0.5


def test_a_function_alone_has_no_verdicts(code):
    found = rewarded(reward=f"{code}:length")
    assert found.batch["rewards"].tolist() == [1.0, 4.0, 1.0, 0.0, 5.0] and found.batch["is_graded"].all()
    assert not {"accuracy", "reward/length", "pass_at_group"} & found.metrics.keys()
    assert found.records[1] == {
        **{"row": 0, "group": 0, "sample": 1, "num_tokens": 4, "tokens": list("so 7")},
        "prompt": "3+4=",
        "response": "so 7",
        "solutions": ["7"],
        "reward": 4.0,
        "ended": True,
    }


def test_lengths_and_shaping_count_in_training_alone():
    """An evaluation says what the responses are worth, not how training sees them."""
    scores = ScoreConfig(bias=1.0, scale=0.5, overlong_tokens=5, overlong_penalty=2.0)
    found = rewarded(scores=scores).batch["rewards"].tolist()
    assert found == pytest.approx([1.0, 1.0 - 2 * 1 / 5, 0.5, 0.5, 1.0 - 2 * 2 / 5])
    assert rewarded(scores=scores, evaluating=True).batch["rewards"].tolist() == [1.0, 1.0, 0.0, 0.0, 1.0]


def test_each_answer_is_progress(code):
    """By the verifier and by a function, so that slow ones do not make the call late."""
    said, each = [], [(done, len(RESPONSES)) for done in range(1, len(RESPONSES) + 1)]
    for how in ("math", f"{code}:length"):
        rewarded(reward=how, progress=lambda *numbers: said.append(numbers))
    assert said == 2 * each


def test_a_rank_may_have_nothing_to_reward(code):
    for how in ("math", f"{code}:length", {"math": 1.0, f"{code}:length": 1.0}):
        dataset, batch = SimpleNamespace(), rollouts().select([])
        config = PPOMathConfig(batch_size=1, reward=how)
        ctx = SimpleNamespace(
            config=config,
            dataset=dataset,
            tokenizer=None,
            eval_set="",
            evaluating=False,
            reduce=lambda x: x,
            progress=no_progress,
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
        ("endless", "mine.py:endless gave inf, expected a number from -1e\\+30 to .*; the response was '7'"),
        ("huge", "mine.py:huge gave 1e\\+39, expected a number from -1e\\+30 to .*; the response was '7'"),
        ("leaves", "mine.py:leaves raised SystemExit: 0; the response was '7'"),
    ],
)
def test_a_function_that_fails_ends_the_run(code, name, message):
    """By its name, with the response that it failed on."""
    with pytest.raises(RuntimeError, match=message):
        rewarded(reward=f"{code}:{name}")


def test_a_sum_that_overflows_is_named(code):
    """By weights or by scaling, though each part is a number."""
    message = "the weighted sum is .* after scores.bias and scores.scale.*; the response was '7'"
    for settings in ({}, {"scores": ScoreConfig(scale=1e2)}):
        weight = 1.0 if settings else 1e9
        with pytest.raises(RuntimeError, match=message):
            rewarded(reward={f"{code}:large": weight}, **settings)
    with pytest.raises(ValueError, match="^correct must be from -1e\\+30 to 1e\\+30, got 1e\\+39"):
        ScoreConfig(correct=1e39)
    with pytest.raises(ValueError, match="^reward.math: expected a weight from -1e\\+30"):
        rewarded(reward={"math": 1e39})


def test_a_function_may_have_no_opinion(code):
    """Such a response takes no part, is counted, and is in no mean; where the function has no weight, it does
    take part."""
    found = rewarded(reward={"math": 1.0, f"{code}:undecided": 0.5})
    assert found.batch["is_graded"].tolist() == [True, True, False, True, True]
    assert mean(found, "ungraded") == 0.2 and found.records[2]["reward"] is None
    assert mean(found, "reward") == pytest.approx((1.5 + 3.0 + 0.0 + 3.5) / 4)
    assert mean(found, "reward/undecided") == pytest.approx((1 + 4 + 0 + 5) / 4)
    reported = rewarded(reward={f"{code}:undecided": 0.0, "math": 1.0})
    assert reported.batch["is_graded"].all() and mean(reported, "ungraded") == 0


def test_a_reward_file_that_ends_the_process_is_named(tmp_path, monkeypatch):
    """As a script without a guard does: the run must not end without a word, and with exit code 0. Its path
    may begin with the home directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "script.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(
        ValueError, match=r"~/script.py cannot be loaded \(SystemExit: 0\); it ends the process"
    ):
        load_function("~/script.py:score")
    (tmp_path / "guarded.py").write_text("def score(prompt, response, solutions):\n    return 1.0\n")
    assert load_function("~/guarded.py:score").function("", "", []) == 1.0


@pytest.mark.parametrize(
    "code",
    [
        "def score(*texts): return 1.0",
        "def score(prompt, response, answers, weight=1.0, **more): return weight",
        "import functools\nscore = functools.partial(lambda weight, p, r, s: weight, 1.0)",
        "class Score:\n    def __call__(self, p, r, s): return 1.0\nscore = Score()",
        "score = max",
    ],
)
def test_a_reward_function_may_be_anything_that_takes_three(tmp_path, code):
    """Also one whose signature cannot be looked at, which is only called."""
    file = tmp_path / "reward.py"
    file.write_text(code)
    assert load_function(f"{file}:score").takes == "texts"


def test_verdicts_become_rewards():
    """A check that broke or took too long is no wrong answer: it is left out, unless it has a score."""
    verdicts = list(Verdict)
    assert verdicts == ["correct", "wrong", "no_answer", "timeout", "error"]

    def scored(scores: ScoreConfig) -> list[float | None]:
        return [score(scores, verdict, verdict is Verdict.CORRECT) for verdict in verdicts]

    assert scored(ScoreConfig(correct=5.0, wrong=-5.0)) == [5.0, -5.0, -5.0, None, None]
    assert scored(ScoreConfig(ungraded=-2.0)) == [1.0, 0.0, 0.0, -2.0, -2.0]


CUT = ["8", "so 7", "7", "7"]
"""Responses of which the third is truncated, and right."""


@pytest.mark.parametrize("evaluating", [False, True])
def test_what_was_cut_off_may_count_as_wrong(evaluating):
    """In rewards and in all that says how many are right, which `keep_best` goes by."""
    which = "greedy_accuracy" if evaluating else "accuracy"
    graded = rewarded(responses=CUT, evaluating=evaluating)
    assert graded.batch["rewards"].tolist() == [0.0, 1.0, 1.0, 1.0] and mean(graded, which) == 0.75
    scores = ScoreConfig(wrong=-1.0, truncated="wrong")
    wrong = rewarded(responses=CUT, scores=scores, evaluating=evaluating)
    assert wrong.batch["rewards"].tolist() == [-1.0, 1.0, -1.0, 1.0] and mean(wrong, which) == 0.5
    assert [record["verdict"] for record in wrong.records] == ["wrong", "correct", "wrong", "correct"]
    all_right = rewarded(responses=["7", "so 7", "7"], scores=scores)
    assert mean(all_right, "groups_all_right") == 0 and mean(all_right, "pass_at_group") == 1


def test_what_was_cut_off_counts_as_wrong_by_any_reward(code):
    """A function, or several with a verifier, give it no more than a wrong answer gets; nor does it matter
    that one has no opinion."""
    scores = ScoreConfig(wrong=-1.0, truncated="wrong")
    alone = rewarded(responses=CUT, reward=f"{code}:length", scores=scores)
    assert alone.batch["rewards"].tolist() == [1.0, 4.0, -1.0, 1.0]
    together = rewarded(responses=CUT, reward={"math": 2.0, f"{code}:length": 1.0}, scores=scores)
    assert together.batch["rewards"].tolist() == [-1.0, 6.0, -2.0, 3.0]
    punished = rewarded(responses=CUT, reward={"math": 2.0, f"{code}:length": -1.0}, scores=scores)
    assert punished.batch["rewards"].tolist() == [-3.0, -2.0, -3.0, 1.0]
    undecided = rewarded(responses=["7", "8", "8"], reward=f"{code}:undecided", scores=scores)
    assert undecided.batch["is_graded"].tolist() == [True, False, True]
    assert undecided.batch["rewards"].tolist() == [1.0, 0.0, -1.0]


def test_what_is_left_out_cannot_make_a_prompt_worth_learning_from():
    """Rewards 1, 1, 0, 1, of which the 0 is truncated and takes no part: the others are all alike."""
    responses = ["7", "so 7", "8", "7"]
    kept = rewarded(responses=responses, max_draws=2)
    assert kept.rejected == ()
    found = rewarded(responses=responses, max_draws=2, scores=ScoreConfig(truncated="left_out"))
    assert found.rejected == (0, 1, 2, 3) and mean(found, "redrawn") == 1


STRICT = ["7", r"so \boxed{7}", r"\boxed{8}", ""]


def test_an_answer_may_count_in_one_form_only():
    """In a box: without one there is no answer. A response in the form is rewarded, right or wrong."""
    scores = ScoreConfig(form="box", correct=1.0, wrong=-1.0)
    found = rewarded(reward={"math": 1.0, "format": 0.5}, scores=scores, responses=STRICT)
    assert found.batch["rewards"].tolist() == pytest.approx([-1.0, 1.5, -0.5, -1.0])
    assert mean(found, "accuracy") == pytest.approx(0.25)
    assert mean(found, "reward/format") == pytest.approx(0.5)
    assert mean(found, "verdict_no_answer") == pytest.approx(0.5)
    anywhere = rewarded(responses=STRICT)
    assert mean(anywhere, "accuracy") == pytest.approx(0.5)


def test_an_answer_may_be_rounded():
    """0.33 for 1/3 with two digits."""
    texts, solutions = ["0.33", "0.333333"], [["1/3"], ["1/3"]]
    for digits, expected in ((2, [True, True]), (6, [False, True])):
        leniency = ScoreConfig(answer_digits=digits).leniency
        found = check_all(texts, solutions, leniency=leniency)
        assert [each.verdict is Verdict.CORRECT for each in found] == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ScoreConfig(form="orx"), "^form: expected one of any, box, "),
        (lambda: ScoreConfig(answer_digits=0), "^answer_digits must be from 1 to"),
        (lambda: PPOMathConfig(reward={"math": 1.0, "format": 1.0}), "^reward: `format` rewards the form"),
    ],
)
def test_forms_that_there_are_not_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
