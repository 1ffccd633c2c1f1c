"""The guards of a run that is rewarded by verdicts."""

from __future__ import annotations

from realrl.recipes.parts.answer_guards import ChangingVerdicts, RightElsewhere, UniversalAnswers
from realrl.recipes.parts.config import PolicyConfig
from realrl.recipes.parts.guards import Guard, Guards
from realrl.recipes.parts.share_guards import JumpingShare
from realrl.rewards.functions import GYM, MATH
from realrl.rewards.verdict import Verdict


def watch_verdicts(config: PolicyConfig) -> Guards:
    """Return what looks at the verdicts of a run's steps; without verdicts it finds nothing."""
    names = config.reward_names
    is_math = MATH in names and GYM not in names
    # A truncated response that is right counts as wrong there, whatever its answer is.
    with_truncated = config.scores.truncated != "wrong"
    guards: list[Guard] = [ChangingVerdicts(by_row=not is_math, with_truncated=with_truncated)]
    if is_math:
        # Tasks of reasoning-gym have rows with many right answers, of which the solution is one.
        guards += [UniversalAnswers(), RightElsewhere()]
    guards += [JumpingShare(verdict) for verdict in (Verdict.ERROR, Verdict.TIMEOUT, Verdict.NO_ANSWER)]
    return Guards(*guards)
