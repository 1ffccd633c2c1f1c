"""One file an algorithm: its graph and the bodies of its calls."""

from realrl.api.recipe import Recipe
from realrl.recipes.dpo import DPO
from realrl.recipes.gen import GEN
from realrl.recipes.ppo_math import PPO_MATH
from realrl.recipes.rw import RW
from realrl.recipes.sft import SFT
from realrl.recipes.variants import VARIANTS

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (PPO_MATH, *VARIANTS, SFT, RW, DPO, GEN)}
