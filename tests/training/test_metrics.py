"""What a run reports, by hand: signs, floors, rows without image, and sums over batches."""

import math

import pytest
import torch
from accelerate import Accelerator

from mdpo.objectives import CHOSEN, REJECTED, REJECTED_IMAGE, Logps, make_objective
from mdpo.training.metrics import MetricSums, pair_metrics


def logps() -> Logps:
    """With beta 0.5: rewards 2, -1 (chosen), -1, 0 (rejected), 1, -3 (rejected image)."""
    zeros = torch.zeros(2)
    return Logps(
        policy={
            CHOSEN: torch.tensor([4.0, -2.0]),
            REJECTED: torch.tensor([-2.0, 0.0]),
            REJECTED_IMAGE: torch.tensor([2.0, -6.0]),
        },
        reference={CHOSEN: zeros, REJECTED: zeros, REJECTED_IMAGE: zeros},
        lengths={"chosen": torch.tensor([1, 1]), "rejected": torch.tensor([1, 1])},
        has_image=torch.tensor([True, False]),
    )


def test_values_of_each_pair_by_hand() -> None:
    objective = make_objective("mdpo", beta=0.5, anchor_floor=2.5).with_weights([5, 6, 7])
    scored = logps()
    metrics = pair_metrics(objective, scored, objective.losses(scored))
    expected = {
        "rewards/chosen": [2.0, -1.0],
        "rewards/rejected": [-1.0, 0.0],
        "rewards/margins": [3.0, -1.0],
        "rewards/accuracies": [1.0, 0.0],
        "logps/chosen": [4.0, -2.0],
        "logps/rejected": [-2.0, 0.0],
        "rewards/anchor_violations": [1.0, 1.0],
        # the second row has no image: nothing about images is said of it
        "rewards/rejected_image": [1.0, math.nan],
        "rewards/image_margins": [1.0, math.nan],
        "rewards/image_accuracies": [1.0, math.nan],
        "logps/rejected_image": [2.0, math.nan],
        "loss/response": [math.log1p(math.exp(-3)), math.log1p(math.exp(1))],
        "loss/image": [math.log1p(math.exp(-1)), math.nan],
        "loss/anchor": [math.log1p(math.exp(0.5)), math.log1p(math.exp(3.5))],
    }
    assert metrics.keys() == expected.keys()
    for name, values in expected.items():
        assert metrics[name].tolist() == pytest.approx(values, nan_ok=True), name


def test_violations_are_of_the_chosen_rewards_own_floor() -> None:
    scored = logps()
    for name in ("dpo", "mdpo-anchor-all"):
        objective = make_objective(name, beta=0.5)
        metrics = pair_metrics(objective, scored, objective.losses(scored))
        assert metrics["rewards/anchor_violations"].tolist() == [0.0, 1.0]


def test_means_are_over_pairs_that_have_the_value_and_are_reported_once() -> None:
    sums, accelerator = MetricSums(), Accelerator(cpu=True)
    sums.add("train", {"a": torch.tensor([1.0, math.nan]), "b": torch.tensor([math.nan])})
    sums.add("train", {"a": torch.tensor([4.0, 7.0])})
    sums.add("eval", {"a": torch.tensor([100.0])})
    assert sums.pop("train", accelerator) == {"a": 4.0}
    assert sums.pop("train", accelerator) == {}
    assert sums.pop("eval", accelerator) == {"a": 100.0}
