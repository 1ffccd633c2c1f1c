"""What recipes share. These submodules are imported when they are first used.

`calls`, `config`, `settings` and `symptoms` are light: a recipe imports them as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from realrl.base.lazy import lazy_submodules

if TYPE_CHECKING:
    from realrl.recipes.parts import (
        critic,
        data,
        estimates,
        grading,
        pairs,
        reference,
        report,
        rollout,
        sample_records,
        update,
    )
else:
    __getattr__ = lazy_submodules(
        __name__,
        "critic",
        "data",
        "estimates",
        "grading",
        "pairs",
        "reference",
        "report",
        "rollout",
        "sample_records",
        "update",
    )

__all__ = [
    "critic",
    "data",
    "estimates",
    "grading",
    "pairs",
    "reference",
    "report",
    "rollout",
    "sample_records",
    "update",
]
