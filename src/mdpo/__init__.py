"""mdpo: preference optimization that teaches vision-language models to look at the picture.

Public names are looked up when first used, so that ``mdpo --help`` loads none of torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdpo.objectives import Candidate, Objective, make_objective
    from mdpo.training.config import MDPOConfig
    from mdpo.training.trainer import MDPOTrainer

__all__ = ["Candidate", "MDPOConfig", "MDPOTrainer", "Objective", "make_objective"]

_HOME = {
    "Candidate": "mdpo.objectives",
    "MDPOConfig": "mdpo.training.config",
    "MDPOTrainer": "mdpo.training.trainer",
    "Objective": "mdpo.objectives",
    "make_objective": "mdpo.objectives",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mdpo' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
