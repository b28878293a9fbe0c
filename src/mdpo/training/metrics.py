"""What a run reports, under the names that TRL users plot where TRL has the quantity.

Metrics are kept as sums and counts on the device and reduced once per report.

Shapes: ``b`` preference pairs.
"""

from collections.abc import Iterator, Mapping

import torch
from accelerate import Accelerator
from jaxtyping import Bool, Float
from torch import Tensor

from mdpo.objectives import CHOSEN, REJECTED, REJECTED_IMAGE, Anchor, Logps, Objective

Metrics = dict[str, Float[Tensor, " b"]]
"""One value per pair, NaN where the quantity means nothing for the row."""


def pair_metrics(
    objective: Objective, logps: Logps, losses: Mapping[str, Float[Tensor, " b"]]
) -> Metrics:
    """Work out the metrics of each pair.

    Rewards use the objective's beta and are never scaled by loss weights.

    Args:
        objective: What is minimised.
        logps: Log-probabilities of the batch, with at least the chosen candidate.
        losses: Of the objective, by term, unweighted.

    Returns:
        Values per pair by name.
    """
    scored = logps.policy
    metrics = {f"loss/{name}": loss for name, loss in losses.items()}

    def reward(candidate: object) -> Float[Tensor, " b"]:
        return logps.reward(candidate, beta=objective.beta)  # pyright: ignore[reportArgumentType]

    if CHOSEN in scored:
        metrics["rewards/chosen"] = reward(CHOSEN)
        metrics["logps/chosen"] = scored[CHOSEN]
        floor = next(
            (
                term.floor
                for term in objective.active_terms
                if isinstance(term, Anchor) and term.candidate == CHOSEN and term.side == "above"
            ),
            0.0,
        )
        metrics["rewards/anchor_violations"] = (reward(CHOSEN) < floor).float()
    if REJECTED in scored:
        metrics["rewards/rejected"] = reward(REJECTED)
        metrics["logps/rejected"] = scored[REJECTED]
    if CHOSEN in scored and REJECTED in scored:
        margin = reward(CHOSEN) - reward(REJECTED)
        metrics["rewards/margins"] = margin
        metrics["rewards/accuracies"] = (margin > 0).float()
    if CHOSEN in scored and REJECTED_IMAGE in scored:
        margin = reward(CHOSEN) - reward(REJECTED_IMAGE)
        on_images = {
            "rewards/rejected_image": reward(REJECTED_IMAGE),
            "logps/rejected_image": scored[REJECTED_IMAGE],
            "rewards/image_margins": margin,
            "rewards/image_accuracies": (margin > 0).float(),
        }
        metrics |= {name: _only(value, logps.has_image) for name, value in on_images.items()}
    return {name: value.detach() for name, value in metrics.items()}


class MetricSums:
    """Sums of metrics since the last report, on the device, apart for training and evaluation."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._sums: dict[tuple[str, str], Float[Tensor, " 2"]] = {}

    def add(self, mode: str, metrics: Metrics) -> None:
        """Add the pairs of one batch.

        Args:
            mode: ``train`` or ``eval``.
            metrics: Values per pair; NaN is left out and not counted.
        """
        for name, values in metrics.items():
            counted = ~values.isnan()
            pair = torch.stack([values.nansum(), counted.sum().to(values.dtype)])
            key = (mode, name)
            self._sums[key] = self._sums[key] + pair if key in self._sums else pair

    def pop(self, mode: str, accelerator: Accelerator) -> dict[str, float]:
        """Reduce and forget what was added in a mode.

        Args:
            mode: ``train`` or ``eval``.
            accelerator: Of the run; one collective for all metrics.

        Returns:
            Means by name; a quantity that no pair had is left out.
        """
        keys = sorted(key for key in self._sums if key[0] == mode)
        if not keys:
            return {}
        stacked = torch.stack([self._sums.pop(key) for key in keys])
        totals = torch.as_tensor(accelerator.reduce(stacked, "sum")).tolist()
        return dict(_means((name for _, name in keys), totals))


def _means(names: Iterator[str], totals: list[list[float]]) -> Iterator[tuple[str, float]]:
    """Divide sums by counts where there are any."""
    for name, (total, count) in zip(names, totals, strict=True):
        if count:
            yield name, total / count


def _only(values: Float[Tensor, " b"], where: Bool[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Mark values that mean nothing."""
    return torch.where(where, values, torch.nan)
