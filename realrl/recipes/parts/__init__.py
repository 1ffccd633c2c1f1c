"""What recipes share. These submodules are imported when they are first used.

`calls`, `config`, `critic`, `grading`, `policy_recipe`, `settings` and `symptoms` are light: a recipe imports
them as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from realrl.base.lazy import lazy_submodules

if TYPE_CHECKING:
    from realrl.recipes.parts import (
        actor,
        checks,
        data,
        estimates,
        graders,
        pairs,
        reference,
        report,
        sample_records,
        score_scale,
        update,
    )
else:
    __getattr__ = lazy_submodules(
        __name__,
        "actor",
        "checks",
        "data",
        "estimates",
        "graders",
        "pairs",
        "reference",
        "report",
        "sample_records",
        "score_scale",
        "update",
    )

__all__ = [
    "actor",
    "checks",
    "data",
    "estimates",
    "graders",
    "pairs",
    "reference",
    "report",
    "sample_records",
    "score_scale",
    "update",
]
