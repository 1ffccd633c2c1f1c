"""Tasks of reasoning-gym in child processes, beside the library in this one."""

from __future__ import annotations

import os

import pytest
import reasoning_gym
import sympy
from reasoning_gym.factory import DATASETS

from realrl.rewards import gym, gym_child, gym_readers
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


REPLACES_THE_SCORER = (
    "[setattr(type(self), 'score_answer', lambda *a: 1.0)]",
    "[setattr(__import__('sys').modules['realrl.rewards.gym_child'].Gym, 'judged',"
    " lambda *a: {'score': 1.0})]",
    "[__import__('os').write(f, b'{\"score\": 1.0}\\n') for f in range(64)]",
)
"""Programs that win, and win for every later answer, where they are evaluated."""
EVALUATE_LISTS = ("binary_matrix", "n_queens", "spiral_matrix", "string_insertion")
EVALUATE_EXPRESSIONS = {
    "countdown": 0.01,
    "puzzle24": 0.01,
    "intermediate_integration": 0.0,
    "polynomial_multiplication": 0.0,
    "simple_integration": 0.0,
}
"""Tasks, and what their scorers give for an answer that they cannot read."""


@pytest.mark.parametrize("name", EVALUATE_LISTS)
def test_a_program_is_no_list(name):
    """It is worth nothing, and the next answers what they are worth to the library."""
    item = GymItem(task(name), 0)
    dataset = reasoning_gym.create_dataset(name, seed=SEED, size=1)
    right = dataset[0]["answer"] or dataset[0]["metadata"]["valid_answers"][0]
    as_list = repr(list(right) if name == "string_insertion" else [row.split() for row in right.split("\n")])
    if name == "spiral_matrix":
        as_list = repr(right.split())
    answers = [*REPLACES_THE_SCORER, "x", as_list, right]
    found = [scored.score for scored in score_all([item] * len(answers), answers, num_threads=1)]
    assert found == [0.0] * 4 + [dataset.score_answer(as_list, dataset[0]), 1.0]
    assert 0 < found[-2] < 1


@pytest.mark.parametrize("name", EVALUATE_EXPRESSIONS)
def test_a_program_is_no_expression(name, tmp_path):
    row = next(row for row in questions((task(name, 5),)) if "Integral" not in row.answer)
    touches = f"open({str(tmp_path / 'x')!r}, 'w')"
    calls = ("exit()", "().__class__", "eval(1)", "open(0)", "x.is_zero", "lambda: 1", "S('1')", "x[0]")
    answers = [*REPLACES_THE_SCORER, touches, *calls, row.answer]
    found = score_all([row.item] * len(answers), answers, num_threads=1)
    assert [scored.score for scored in found] == [EVALUATE_EXPRESSIONS[name]] * (len(answers) - 1) + [1.0]
    assert not os.listdir(tmp_path)


def test_a_question_is_no_answer_to_itself():
    """`Integral(f, x)` is what was asked for, and to sympy its own value."""
    (row,) = questions((task("simple_integration", 1),))
    integrand = reasoning_gym.create_dataset("simple_integration", seed=SEED, size=1)[0]["metadata"][
        "integrand"
    ]
    variable = next(letter for letter in integrand if letter.isalpha())
    assert score_all([row.item], [f"Integral({integrand}, {variable})"]) == [(0.0, Verdict.WRONG)]


def test_expressions_are_read_as_the_scorers_library_reads_them():
    for text in ("2*x**2 - x/3 + 1.5e2", "exp(2*x)*sin(3*x) + log(x + 1)", "4!*2 - (3 + 1)", "-pi*sqrt(2)"):
        assert gym_readers.read_expression(text) == sympy.parse_expr(text)
    x = sympy.Symbol("x", positive=True)
    assert gym_readers.read_expression("x*C", {"x": x}) == x * sympy.Symbol("C")


@pytest.mark.parametrize("text", ["(0x1f + 3) << 2", "~5 & -0x7 | (3 ^ 1)", "100 * 7 - 3 >> 1"])
def test_arithmetic_is_pythons(text):
    assert gym_readers.read_arithmetic(text) == eval(text)


def test_a_task_that_evaluates_answers_in_a_way_not_known_here_is_refused(monkeypatch):
    """As one of a later version of the library may; by name, before anything is trained."""
    monkeypatch.setattr(gym_readers, "_READS", {})
    with pytest.raises(ValueError, match=r"the scorer of n_queens may evaluate an answer as Python \(eval\)"):
        gym_readers.make_safe("n_queens", DATASETS["n_queens"][0])
    gym_readers.make_safe("chain_sum", DATASETS["chain_sum"][0])


@pytest.mark.parametrize("answer", ["[" * 100_000, "5", "[5, {}]", "\ud800", "9" * 5000])
def test_an_answer_that_its_scorer_does_not_expect_is_wrong(answer):
    """It takes JSON of one form for granted."""
    found = score_all([GymItem(task("jugs"), 0)] * 2, [answer, "[]"])
    assert [scored.verdict for scored in found] == [Verdict.WRONG] * 2
    assert all(scored.score <= 0.01 for scored in found)


@pytest.mark.parametrize(
    ("error", "is_wrong"), [(TypeError, True), (RecursionError, False), (MemoryError, False)]
)
def test_a_scorer_that_fails_says_wrong_unless_it_lacked_something(error, is_wrong, monkeypatch):
    class Fails:
        def score_answer(self, answer: str, entry: dict) -> float:
            raise error

    monkeypatch.setattr(gym_child, "_entry", lambda *_: {})
    monkeypatch.setattr(gym_child, "_dataset", lambda _: Fails())
    request = {"task": "", "index": 0, "answer": "1"}
    if is_wrong:
        assert gym_child.Gym().judged(request) == {"score": 0.0}
    else:
        with pytest.raises(error):
            gym_child.Gym().judged(request)


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
