"""One file an algorithm: its settings, its graph, the bodies of its calls; `parts` is what they share.

Nothing here imports torch before a body runs, so that help and completion are quick.
"""

from __future__ import annotations

from collections.abc import Mapping

from realrl.api.recipe import Recipe
from realrl.recipes.cispo import CISPO
from realrl.recipes.dapo import DAPO
from realrl.recipes.dpo import DPO
from realrl.recipes.dr_grpo import DR_GRPO
from realrl.recipes.gen import GEN
from realrl.recipes.gmpo import GMPO
from realrl.recipes.grpo import GRPO
from realrl.recipes.gspo import GSPO
from realrl.recipes.ipo import IPO
from realrl.recipes.kto import KTO
from realrl.recipes.orpo import ORPO
from realrl.recipes.ppo import PPO
from realrl.recipes.ppo_math import PPO_MATH
from realrl.recipes.raft import RAFT
from realrl.recipes.reinforce_pp import REINFORCE_PP
from realrl.recipes.rloo import RLOO
from realrl.recipes.rw import RW
from realrl.recipes.sapo import SAPO
from realrl.recipes.sft import SFT
from realrl.recipes.simpo import SIMPO

RECIPES: Mapping[str, Recipe] = {
    "ppo-math": PPO_MATH.of_any(),
    "ppo": PPO.of_any(),
    "grpo": GRPO.of_any(),
    "dr-grpo": DR_GRPO.of_any(),
    "rloo": RLOO.of_any(),
    "reinforce-pp": REINFORCE_PP.of_any(),
    "dapo": DAPO.of_any(),
    "gspo": GSPO.of_any(),
    "cispo": CISPO.of_any(),
    "sapo": SAPO.of_any(),
    "gmpo": GMPO.of_any(),
    "raft": RAFT.of_any(),
    "sft": SFT.of_any(),
    "rw": RW.of_any(),
    "dpo": DPO.of_any(),
    "ipo": IPO.of_any(),
    "simpo": SIMPO.of_any(),
    "orpo": ORPO.of_any(),
    "kto": KTO.of_any(),
    "gen": GEN.of_any(),
}
"""By name, in the order of the help."""
