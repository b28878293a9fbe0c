"""Builders of made log-probabilities, in float64."""

import torch
from torch import Tensor

from mdpo.objectives import Candidate, Logps

OFFSETS = {"chosen": -7.0, "rejected": -11.0, "none": -13.0}
"""Reference log-probabilities differ by slot, so that leaving the reference out shows."""


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def logps_of_rewards(
    beta: float,
    rewards: dict[str, list[float]],
    *,
    has_image: list[bool] | None = None,
    requires_grad: bool = False,
) -> Logps:
    """Log-probabilities that imply the rewards given, by candidate: ``rejected/chosen``."""
    policy, reference = {}, {}
    for text, values in rewards.items():
        candidate = Candidate.parse(text)
        offset = OFFSETS[candidate.image] + 0.5 * OFFSETS[candidate.response]
        reference[candidate] = torch.full((len(values),), offset, dtype=torch.float64)
        policy[candidate] = (column(*values) / beta + offset).requires_grad_(requires_grad)
    number = len(next(iter(rewards.values())))
    return Logps(
        policy=policy,
        reference=reference,
        lengths={
            "chosen": torch.arange(2, 2 + number),
            "rejected": torch.arange(5, 5 + number),
        },
        has_image=torch.tensor(has_image if has_image is not None else [True] * number),
    )
