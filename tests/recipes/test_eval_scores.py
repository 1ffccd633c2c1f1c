"""Scores of an evaluation on a named set, against counting by hand; and the checks of its settings."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realrl.api.configure import build_config
from realrl.recipes.parts.eval_scores import criteria, scores
from realrl.recipes.ppo_math import PPO_MATH, PPOMathConfig
from realrl.runtime.master.best import best_set_of, criterion_of

SETS = "{greedy: {path: a.jsonl}, sampled: {path: b.jsonl, n: 3, temperature: 0.7}}"


def config_with(*overrides: str) -> PPOMathConfig:
    return build_config(PPO_MATH.default_config, None, ["data.path=t.jsonl", f"evals={SETS}", *overrides])


def records_of(problems, ended=True):
    """Answers of each problem as `(text, verdict)`, in the form of rollouts."""
    found = []
    for group, answers in enumerate(problems):
        for sample, (answer, verdict) in enumerate(answers):
            place = {"group": group, "row": group, "sample": sample}
            about = {"answer": answer, "verdict": verdict, "ended": ended, "reward": float(len(answer or ""))}
            found.append(place | about)
    return found


ANSWERS = st.sampled_from([("1/2", "correct"), ("0.5", "correct"), ("7", "wrong"), (" 7 ", "wrong")])
MORE = st.sampled_from([("8", "wrong"), (None, "no_answer"), ("9", "timeout")])


@given(st.lists(st.lists(st.one_of(ANSWERS, MORE), min_size=3, max_size=3), min_size=1, max_size=5))
def test_scores_are_those_of_counting_by_hand(problems):
    """The share of right answers, of pairs and triples with a right one, and of right votes."""
    found = scores(config_with(), "sampled", records_of(problems))
    number = len(problems)
    right = [[verdict == "correct" for _, verdict in answers] for answers in problems]
    assert found["avg@3"] == pytest.approx(sum(map(sum, right)) / (3 * number))
    for k in (2, 3):
        shares = [sum(map(any, combinations(each, k))) / len([*combinations(each, k)]) for each in right]
        assert found[f"pass@{k}"] == pytest.approx(sum(shares) / number)
    won = 0.0
    for answers in problems:
        texts = ["=" if verdict == "correct" else text.strip() for text, verdict in answers if text]
        counts = {text: texts.count(text) for text in texts}
        best = [text for text in counts if counts[text] == max(counts.values())]
        won += best.count("=") / len(best) if best else 0.0
    assert found["maj@3"] == pytest.approx(won / number)
    for name in ("avg@3", "pass@2", "pass@3", "maj@3"):
        assert found[f"{name}_low"] <= found[name] + 1e-9 and found[name] <= found[f"{name}_high"] + 1e-9


def test_what_is_cut_off_votes_for_nothing_where_it_counts_as_wrong():
    problems = [[("7", "wrong"), ("7", "wrong"), ("1", "correct")]]
    cut_off = records_of(problems, ended=False)
    cut_off[2]["ended"] = True
    assert scores(config_with(), "sampled", cut_off)["maj@3"] == 0
    assert scores(config_with("scores.truncated=wrong"), "sampled", cut_off)["maj@3"] == 1


def test_a_greedy_set_and_a_reward_without_verdicts_have_intervals_too():
    """Of the held-out rows, nothing is added to what calls report."""
    records = records_of([[("1", "correct")], [("22", "wrong")]])
    greedy = scores(config_with(), "greedy", records)
    assert greedy["greedy_accuracy"] == 0.5 and set(greedy) == {
        "greedy_accuracy",
        "greedy_accuracy_low",
        "greedy_accuracy_high",
    }
    by_function = config_with("reward=file.py:f")
    records.append(records[0] | {"group": 2, "reward": None})
    assert scores(by_function, "greedy", records)["reward"] == 1.5
    assert scores(config_with(), "held_out", records) == {}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["evals={a: {n: 2}}"], "evals.a.path: expected the set's problems"),
        (["evals={a: {path: a, n: 2}}"], "evals.a.n: 2 answers at temperature 0 would all be the same"),
        (["evals={a: {path: a, top_p: 0.9}}"], "evals.a.top_p: 0.9 does nothing at temperature 0"),
        (["evals={a: {path: a, temperature: 0.001}}"], "evals.a.temperature must be 0 or at least 0.01"),
        (["evals={held_out: {path: a}}"], "evals.held_out: this is the name of the held-out rows"),
        (["evals={a/b: {path: a}}"], "evals: a name has letters, digits"),
        (["evals={a: {path: a, every: -1}}"], "evals.a.every must be at least 0"),
        (["evals={a: {path: a, template: orz, system: b}}"], "evals.a.system is for chat templates"),
        (["reward=gym", "data.path=gym:x"], "give evals such paths"),
    ],
)
def test_settings_that_cannot_be_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        config_with(*overrides)


def test_keys_that_are_left_out_are_those_of_the_run():
    """And those that are given replace them, for this set alone."""
    overrides = [
        "data.suffix=Box it.",
        "data.fields={prompt: question}",
        "data.eval_split=dev",
        "generation.max_new_tokens=99",
        "generation.min_new_tokens=9",
    ]
    more = ["evals.greedy.template=plain", "evals.sampled.max_new_tokens=5", "evals.sampled.suffix="]
    config = config_with(*overrides, *more)
    greedy = config.evals["greedy"].data(config.data)
    sampled = config.evals["sampled"].data(config.data)
    assert (greedy.template, sampled.template) == ("plain", "chat")
    assert (greedy.suffix, sampled.suffix) == ("Box it.", "")
    assert greedy.held_out_path == "a.jsonl" and greedy.held_out_split == "dev"
    assert greedy.fields == {"prompt": "question"}
    generation = config.evals["sampled"].generation(config.generation)
    assert (generation.max_new_tokens, generation.min_new_tokens, generation.temperature) == (5, 5, 0.7)
    assert config.evals["greedy"].generation(config.generation).max_new_tokens == 99


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["data.eval_path=h.jsonl"], ("held_out", "greedy_accuracy")),
        ([], ("greedy", "greedy_accuracy")),
        (["keep_best=sampled/pass@2"], ("sampled", "pass@2")),
        (["keep_best=sampled/reward"], ("sampled", "reward")),
        (["keep_best=held_out/reward", "data.eval_path=h.jsonl"], ("held_out", "reward")),
        (["reward=file.py:f"], ("greedy", "reward")),
    ],
)
def test_keep_best_says_by_which_set_and_metric(overrides, expected):
    config = config_with(*overrides)
    assert (best_set_of(config), criterion_of(PPO_MATH, config).metric) == expected
    assert criterion_of(PPO_MATH, config) in criteria(config, expected[0])


@pytest.mark.parametrize(
    ("keep_best", "message"),
    [
        ("other/avg@3", "one of the sets greedy, sampled, got 'other/avg@3'"),
        ("held_out/reward", "one of the sets greedy, sampled"),
        ("sampled/avg@4", "expected one of sampled/avg@3, sampled/pass@2, sampled/pass@3, sampled/maj@3"),
        ("sampled", "expected one of sampled/avg@3"),
    ],
)
def test_a_best_that_nothing_decides_is_refused(keep_best, message):
    with pytest.raises(ValueError, match=message):
        criterion_of(PPO_MATH, config_with(f"keep_best={keep_best}"))
