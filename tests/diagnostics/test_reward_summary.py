"""Summary of rewards at inference, by hand."""

import pytest

from mdpo.diagnostics.rewards import PairRewards, summarise_rewards
from mdpo.evaluation.statistics import Estimate

REWARDS = [
    PairRewards("a", chosen=1.0, rejected=0.5, rejected_image=1.5),
    PairRewards("b", chosen=-1.0, rejected=2.0, rejected_image=-3.0),
    PairRewards("c", chosen=0.0, rejected=-0.5, rejected_image=None),
    PairRewards("d", chosen=2.0, rejected=2.0, rejected_image=0.0),
]


def test_summary_by_hand():
    # margins 0.5, -3, 0.5, 0; image margins -0.5, 2, none, 2; a tie is no success
    summary = summarise_rewards(REWARDS)
    assert {name: estimate.value for name, estimate in summary.items()} == pytest.approx(
        {
            "rewards/accuracies": 50.0,
            "rewards/image_accuracies": 200 / 3,
            "rewards/margins": -0.5,
            "rewards/image_margins": 3.5 / 3,
            "rewards/chosen": 0.5,
        }
    )


def test_pairs_without_image_are_counted_for_responses_alone():
    counts = {name: estimate.n for name, estimate in summarise_rewards(REWARDS).items()}
    assert counts == {
        "rewards/accuracies": 4,
        "rewards/image_accuracies": 3,
        "rewards/margins": 4,
        "rewards/image_margins": 3,
        "rewards/chosen": 4,
    }


def test_text_alone_leaves_images_unmeasured():
    summary = summarise_rewards(REWARDS[2:3])
    assert summary["rewards/image_accuracies"] == Estimate(None, None, None, 0)
    assert summary["rewards/image_margins"] == Estimate(None, None, None, 0)
    assert summary["rewards/margins"] == Estimate(0.5, 0.5, 0.5, 1)


def test_seed_reaches_the_intervals():
    rewards = [PairRewards(str(k), k % 7 - 3.0, k % 5 - 2.0, k % 3 - 1.0) for k in range(100)]
    assert summarise_rewards(rewards, seed=1) == summarise_rewards(rewards, seed=1)
    assert summarise_rewards(rewards, seed=1) != summarise_rewards(rewards, seed=2)


def test_rewards_are_written_as_plain_values():
    assert REWARDS[2].to_dict() == {
        "row_id": "c",
        "chosen": 0.0,
        "rejected": -0.5,
        "rejected_image": None,
    }
