"""What a config may say of rewards: by source, by a judge, and one by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from realrl.api.config import GenerationConfig
from realrl.api.data import DataConfig, DataSetConfig
from realrl.recipes.grpo import GRPO, GRPOConfig, GRPOSettings
from realrl.recipes.parts import estimates
from realrl.recipes.parts.calls import rewards
from realrl.recipes.parts.config import CriticConfig, ScoreConfig
from realrl.recipes.parts.reward_names import part_keys, part_names
from realrl.recipes.ppo_math import PPOMathConfig, PPOMathSettings
from realrl.recipes.rloo import RLOOConfig, RLOOSettings
from realrl.rewards.judge_config import JudgeConfig

JUDGE = JudgeConfig(url="http://h/v1", model="m", prompt="judge.txt")
CODE = """
def texts(prompt, response, solutions):
    return 1.0

def one(sample):
    return 1.0
"""


@pytest.fixture
def code(tmp_path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    return path


def sets(**own: object) -> DataConfig:
    """Return data of a set for each name, with a reward of its own unless that is None."""
    named = {name: DataSetConfig(path=f"{name}.jsonl", reward=reward) for name, reward in own.items()}
    return DataConfig(sets=named)


def test_every_reward_of_a_run_is_named_once():
    """Those of `reward` first; a set without one has the run's."""
    data = sets(a=None, b="mine.py:f", c={"mine.py:f": 2.0, "mine.py:g": 0.0})
    config = GRPOConfig(reward={"math": 0.5}, data=data)
    assert config.reward_names == ("math", "mine.py:f", "mine.py:g")
    assert config.weights_for("a") == config.weights_for("") == {"math": 0.5}
    assert config.weights_for("b") == {"mine.py:f": 1.0}
    assert config.weights_for("c") == {"mine.py:f": 2.0, "mine.py:g": 0.0}


def test_a_call_has_whole_groups_where_a_function_may_look_at_them(code):
    """Also where only a set has such a function; else samples are shared out one by one."""
    for reward, needs in (("math", False), (f"{code}:texts", False), (f"{code}:one", True)):
        assert rewards(GRPOConfig(reward=reward))[0].whole_rows is needs
        assert rewards(GRPOConfig(data=sets(a=reward)))[0].whole_rows is needs
    with_judge = GRPOConfig(reward={"math": 1.0, "judge": 1.0}, judge=JUDGE)
    assert not rewards(with_judge)[0].whole_rows


def test_rewards_one_by_one_are_made_where_an_estimator_sees_them(code):
    both = {"math": 1.0, f"{code}:one": 0.5}
    assert part_keys(GRPOConfig(reward=both)) == part_keys(GRPOConfig(reward=both, advantage="rloo")) == ()
    scores = ScoreConfig(overlong_tokens=2)
    seen = GRPOConfig(
        reward=both, advantage="gdpo", scores=scores, generation=GenerationConfig(max_new_tokens=8)
    )
    assert part_names(seen) == ("math", f"{code}:one", "overlong")
    keys = part_keys(seen)
    assert set(keys) <= set(GRPO.graph(seen).calls["advantages"].inputs)
    for graph in (GRPO.graph(seen), GRPO.eval_graph(seen)):
        assert set(keys) <= set(graph.calls["reward"].outputs) & graph.per_sample
    assert len(part_keys(GRPOConfig(reward=both, advantage=f"{code}:texts"))) == 2


def test_a_judge_and_its_section_go_together():
    for settings in ({"reward": "judge"}, {"judge": JUDGE}, {"data": sets(a="judge")}):
        with pytest.raises(ValueError, match="^judge is for the reward `judge`: give both"):
            GRPOConfig(**settings)
    assert GRPOConfig(data=sets(a={"judge": 0.5}), judge=JUDGE).reward_names == ("math", "judge")


def test_a_question_must_end_before_its_call_counts_as_hanging():
    """Four tries of 60 s and three waits are 420 s."""
    with pytest.raises(ValueError, match="^judge: a question may take 420 s, .* call_timeout_s is 420"):
        GRPOConfig(reward="judge", judge=JUDGE, call_timeout_s=420.0)
    assert GRPOConfig(reward="judge", judge=JUDGE, call_timeout_s=421.0).judge == JUDGE


def test_a_template_and_a_key_are_looked_for_at_the_start(tmp_path, monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    file = tmp_path / "judge.txt"
    judge = JudgeConfig(url="http://h/v1", model="m", prompt=str(file), api_key_env="JUDGE_KEY")
    config = GRPOConfig(reward="judge", judge=judge, ppo=GRPOSettings(kl_coef=0.0))
    with pytest.raises(ValueError, match="^judge.prompt: .*cannot read the template"):
        GRPO.validate(config, {})
    file.write_text("{prompt} {response}")
    with pytest.raises(ValueError, match="^judge.api_key_env: the environment variable JUDGE_KEY is not set"):
        GRPO.validate(config, {})
    monkeypatch.setenv("JUDGE_KEY", "k")
    GRPO.validate(config, {})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (GRPOConfig(advantage="gdpo", scores=ScoreConfig(clip=5.0)), "scores.clip, which change their sum"),
        (GRPOConfig(advantage="gdpo", scores=ScoreConfig(bias=1.0)), "scores.clip, which change their sum"),
        (GRPOConfig(advantage="gdpo", scores=ScoreConfig(scale=2.0)), "scores.clip, which change their sum"),
        (
            GRPOConfig(advantage="gdpo", reward="mine.py:f", scores=ScoreConfig(truncated="wrong")),
            "scores.truncated=wrong cannot bound their sum",
        ),
        (
            PPOMathConfig(advantage="gdpo", critic=CriticConfig(), ppo=PPOMathSettings(group_size=1)),
            "set ppo.group_size to 2",
        ),
    ],
)
def test_gdpo_refuses_what_it_would_not_see(config, message):
    with pytest.raises(ValueError, match=f"^advantage: gdpo .*{message}"):
        estimates.check(config)
    alone = GRPOConfig(advantage="gdpo", scores=ScoreConfig(truncated="wrong"))
    estimates.check(alone)


def test_gdpo_and_a_kl_in_a_sum_do_not_go_together():
    with pytest.raises(ValueError, match="^advantage: gdpo looks at each reward by itself, and rloo takes"):
        RLOOConfig(advantage="gdpo")
    assert RLOOConfig(advantage="gdpo", ppo=RLOOSettings(kl_coef=0.0)).advantage == "gdpo"
