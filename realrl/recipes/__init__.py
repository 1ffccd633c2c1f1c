"""One file an algorithm: its graph and the bodies of its calls; `NAME_config.py` is what can be set of it."""

from realrl.recipes.dpo_config import DPOConfig
from realrl.recipes.gen_config import GenConfig
from realrl.recipes.ppo_config import PPOMathConfig
from realrl.recipes.registry import RecipeEntry, RecipeTable
from realrl.recipes.rw_config import RewardModelConfig
from realrl.recipes.sft_config import SFTConfig
from realrl.recipes.variants import VARIANTS

_PPO_MATH = "realrl.recipes.ppo_math:PPO_MATH"

RECIPES = RecipeTable(
    RecipeEntry("ppo-math", PPOMathConfig(), _PPO_MATH),
    *(RecipeEntry(config.experiment, config, _PPO_MATH) for config in (make() for make in VARIANTS)),
    RecipeEntry("sft", SFTConfig(), "realrl.recipes.sft:SFT"),
    RecipeEntry("rw", RewardModelConfig(), "realrl.recipes.rw:RW"),
    RecipeEntry("dpo", DPOConfig(), "realrl.recipes.dpo:DPO"),
    RecipeEntry("gen", GenConfig(), "realrl.recipes.gen:GEN"),
)
