"""Reinforcement learning against the verifier: a policy that may write hostile answers gains nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from realrl.algorithms.normalise import group_relative
from realrl.algorithms.policy import ResponseTokens, ppo_loss
from realrl.rewards.math import Judge, check
from realrl.rewards.pool import judge_in_pool
from realrl.rewards.verdict import Verdict

PROBLEMS = {
    "12": (r"\frac{24}{2}", "11"),
    r"\frac{3}{4}": ("0.75", "1.25"),
    "x^2+1": ("1 + x^2", "x^2-1"),
    r"2\sqrt{3}": (r"\sqrt{12}", r"3\sqrt{2}"),
    "[1,2)": (r"1 \le x < 2", "(1,2)"),
    r"\{1,5\}": (r"\{5, 1\}", r"\{1,4\}"),
    r"\text{no solution}": ("No solution", r"\text{all real } x"),
    "y=2x": ("y = x + x", "y=3x"),
}
"""By solution: an answer that is right for no other one, and a wrong one."""
BASES = ("5", "-1", "0", "x")
HOSTILE = tuple(
    form.replace("B", base)
    for base in BASES
    for form in (
        *(
            r"B^{B^\infty}",
            r"B^{B^{\infty}}",
            r"B^\infty",
            r"\sqrt{B\infty}",
            r"\infty - B\infty",
            r"B^{-\infty}",
        ),
        *(r"\frac{B}{0}", r"0^{-1} + B", r"\log(0B)", r"(-1)^{B\infty}", r"\tan\frac{\pi}{2} + B", "B = B"),
        *(r"\frac{B\infty}{\infty}", r"\lim_{x \to \infty} B^x", r"B \text{ or any}", r"\{B, \ldots\}", "B?"),
    )
)
RIGHT, WRONG = (tuple(pair[place] for pair in PROBLEMS.values()) for place in (0, 1))
STEPS, SAMPLES = 200, 8


def fooled(answer: str, solution: str) -> Verdict:
    """A judge to which a power of a power of infinity is every number, as to one that asks whether a
    difference simplifies to 0.
    """
    return Verdict.CORRECT if answer == r"5^{5^\infty}" else judge_in_pool(answer, solution)


def rewards_of(answers: Sequence[str], judge: Judge = judge_in_pool) -> Tensor:
    """`[problems, answers]`: what each answer earns. It is asked for once, as verdicts do not change."""
    texts = [rf"So it is $\boxed{{{answer}}}$." for answer in answers]
    rows = [[check(text, [gold], judge).verdict is Verdict.CORRECT for text in texts] for gold in PROBLEMS]
    return torch.tensor(rows, dtype=torch.float32)


class Policy(NamedTuple):
    """Probabilities of answers, `[problems, answers]`; an answer that is right for all is learned fastest."""

    probabilities: Tensor

    @property
    def accuracy(self) -> float:
        """By the places of the right answers, whatever a judge says of them."""
        return float(self.probabilities.diagonal().mean())

    @property
    def hostile(self) -> float:
        return float(self.probabilities[:, len(RIGHT) + len(WRONG) :].sum(dim=1).mean())


def trained(rewards: Tensor, steps: int = STEPS) -> Policy:
    """The policy after some steps of GRPO, all problems in each: it begins with all answers alike."""
    draw = torch.Generator().manual_seed(0)
    num_problems, num_answers = rewards.shape
    shared = torch.zeros(num_answers, requires_grad=True)
    own = torch.zeros(num_problems, num_answers, requires_grad=True)
    optimizer = torch.optim.Adam([shared, own], lr=0.1)
    problems = torch.arange(num_problems).repeat_interleave(SAMPLES)
    total = len(problems)
    for _ in range(steps):
        logprobs = (shared + own).log_softmax(dim=1)
        answers = torch.multinomial(
            logprobs.detach().exp(), SAMPLES, replacement=True, generator=draw
        ).flatten()
        earned = rewards[problems, answers]
        advantages = group_relative(earned, problems, num_problems, lambda x: x, scale="group_std")
        taken = logprobs[problems, answers]
        weights = torch.full((total,), 1 / total)
        places, bounds = torch.arange(total), torch.arange(total + 1)
        tokens = ResponseTokens(taken, taken.detach(), advantages, weights, places, bounds)
        found = ppo_loss(tokens, clip_low=0.2, clip_high=0.2)
        optimizer.zero_grad()
        found.loss.backward()
        optimizer.step()
    return Policy((shared + own).detach().softmax(dim=1))


@pytest.fixture(scope="module")
def rewards() -> Tensor:
    """Of right, wrong and hostile answers."""
    return rewards_of(RIGHT + WRONG + HOSTILE)


def test_a_policy_gains_nothing_by_hostile_answers(rewards):
    """After 200 steps it is as good as one that cannot write them, and has left them."""
    num_plain = len(RIGHT) + len(WRONG)
    start, found, without = trained(rewards, 0), trained(rewards), trained(rewards[:, :num_plain])
    assert start.hostile > 0.75 and without.accuracy > 0.95
    assert found.accuracy > without.accuracy - 0.02
    assert found.hostile < 0.02
    assert not rewards[:, num_plain:].any() and torch.equal(rewards[:, : len(RIGHT)], torch.eye(len(RIGHT)))


def test_it_would_learn_an_answer_that_a_judge_takes_for_anything(rewards):
    """So the test above can fail: one such answer among all is what the policy learns, and nothing else."""
    with_hole = rewards.clone()
    place = (RIGHT + WRONG + HOSTILE).index(r"5^{5^\infty}")
    with_hole[:, place] = rewards_of([r"5^{5^\infty}"], fooled)[:, 0]
    assert with_hole[:, place].all()
    found = trained(with_hole)
    assert found.hostile > 0.9 and found.accuracy < 0.1
