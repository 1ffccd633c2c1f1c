"""Tasks of reasoning-gym in child processes, beside the library in this one."""

from __future__ import annotations

import os

import pytest
import reasoning_gym

from realrl.rewards import gym, gym_child
from realrl.rewards.gym import GymItem, GymTask, answer_of, questions, score_all
from realrl.rewards.verdict import Verdict

SEED = 5
CHAIN_SUM = GymTask("chain_sum", SEED, 2, None, '{"max_terms": 3}')
UNSTEADY = {"isomorphic_strings": 3, "list_functions": 32, "polynomial_multiplication": 3, "ransom_note": 3}
"""Tasks that draw from the global generator, or go by the order of a set; and how many rows show it."""


def task(name: str, size: int = 3, level: int | None = None, parameters: str = "{}") -> GymTask:
    return GymTask(name, SEED, size, level, parameters)


def test_rows_are_the_librarys():
    dataset = reasoning_gym.create_dataset("chain_sum", seed=SEED, size=2, max_terms=3)
    expected = [(entry["question"], entry["answer"]) for entry in dataset]
    assert [(row.text, row.answer) for row in questions((CHAIN_SUM,))] == expected


def test_rows_are_the_same_in_every_process_and_their_answers_right():
    """Also of tasks whose rows depend on what was drawn before; each is made anew to be scored."""
    tasks = tuple(task(name, size) for name, size in UNSTEADY.items())
    first = questions(tasks)
    questions.cache_clear()
    gym._pool_of(os.getpid()).close()
    reverse = questions(tasks[::-1])
    assert sorted(first) == sorted(reverse) and len(first) == sum(UNSTEADY.values())
    found = score_all([row.item for row in first], [f"<answer>{row.answer}</answer>" for row in first])
    assert set(found) == {(1.0, Verdict.CORRECT)}


def test_scores_are_the_librarys():
    """In part, too; only all of it is right."""
    dataset = reasoning_gym.create_dataset("chain_sum", seed=SEED, size=2, max_terms=3)
    right = dataset[1]["answer"]
    answers = [right, f"{right}.0", f"it is {right}", "a", "-"]
    found = score_all([GymItem(CHAIN_SUM, 1)] * 5, [f"so <answer> {text} </answer>" for text in answers])
    assert [scored.score for scored in found] == [dataset.score_answer(text, dataset[1]) for text in answers]
    assert [scored.verdict for scored in found] == ["correct", "correct", "wrong", "wrong", "wrong"]
    assert 0 < found[2].score < 1
    assert score_all([GymItem(CHAIN_SUM, 1)], ["<think>7</think> "]) == [(0.0, Verdict.NO_ANSWER)]


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<answer>1</answer> no: <answer>\n2\n</answer> yes", "2"),
        ("<think>\\boxed{1}</think> it is \\boxed{2}.", "2"),
        ("<think>well</think>\n1 2\n3 4\n", "1 2\n3 4"),
        (" A,B ", "A,B"),
        ("<answer></answer>", ""),
        ("<think><answer>1</answer></think> 2", "2"),
        ("<answer>1</answer> no: <answer>2", ""),
        ("\\boxed{1} no: \\boxed{2", ""),
        ("<think>1\n2", ""),
    ],
)
def test_the_answer_in_a_response(response, answer):
    assert answer_of(response) == answer


def test_an_answer_that_is_a_program_touches_nothing(tmp_path):
    """Some scorers evaluate what they get; other programs get what they are worth there."""
    item = GymItem(task("string_insertion"), 0)
    (row, *_) = questions((item.task,))
    program = f"[str(len(str([open({str(tmp_path / 'x')!r}, 'w'), __import__('os').system('true')])))]"
    harmless = repr(list(row.answer))
    found = score_all([item] * 2, [program, harmless])
    assert [scored.score for scored in found] == [0.0, 0.1] and not os.listdir(tmp_path)


def test_an_endless_answer_is_a_timeout(monkeypatch):
    monkeypatch.setattr(gym, "SCORE_DEADLINE_S", 1.0)
    item = GymItem(task("puzzle24"), 0)
    assert score_all([item], ["9**9**9**9"]) == [(0.0, Verdict.TIMEOUT)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (task("chain_sums"), "reasoning-gym has no task 'chain_sums'; did you mean chain_sum?"),
        (
            task("chain_sum", parameters='{"terms": 3}'),
            r"data\.gym\.parameters\.chain_sum: unknown name 'terms'",
        ),
        (task("chain_sum", level=11), r"data\.gym\.levels: the curriculum of chain_sum ends with level 10"),
        (task("acre", level=0), r"data\.gym\.levels: acre has no curriculum"),
        (
            task("chain_sum", level=0, parameters='{"max_terms": 3}'),
            "chain_sum: max_terms is set by data.gym",
        ),
    ],
)
def test_tasks_that_do_not_fit(given, message):
    with pytest.raises(ValueError, match=message):
        gym_child._dataset(given.as_json)


def test_a_level_is_that_of_the_curriculum():
    """Attributes of fewer levels stay at their highest; what the curriculum leaves alone can be set."""
    config = gym_child._dataset(
        task("chain_sum", level=10, parameters='{"allow_negation": true}').as_json
    ).config
    assert (config.max_terms, config.max_digits, config.allow_negation) == (12, 10, True)
    assert gym_child._dataset(task("chain_sum", level=1).as_json).config.max_terms == 3
