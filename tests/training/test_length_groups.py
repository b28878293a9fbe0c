"""Pairs of like length: every pair once, the longest first, the same order for the same epoch."""

import pytest

from mdpo.training.length_groups import LengthGroups

LENGTHS = [(7 * k) % 101 for k in range(200)]


def order(epoch: int, seed: int = 3) -> list[int]:
    groups = LengthGroups(8, lengths=LENGTHS, seed=seed)
    groups.set_epoch(epoch)
    return list(groups)


def test_every_pair_once_and_the_longest_first() -> None:
    got = order(0)
    assert sorted(got) == list(range(200))
    assert LENGTHS[got[0]] == max(LENGTHS)


def test_batches_hold_like_lengths() -> None:
    got = order(0)
    batches = [[LENGTHS[k] for k in got[begin : begin + 8]] for begin in range(8, 192, 8)]
    spread = sum(max(each) - min(each) for each in batches) / len(batches)
    assert spread < 20, "random batches of 8 spread over about 80"


def test_order_depends_on_epoch_and_seed_alone() -> None:
    assert order(2) == order(2)
    assert order(2) != order(1)
    assert order(2, seed=4) != order(2)
    repeated = LengthGroups(8, lengths=LENGTHS, seed=3)
    list(repeated)
    list(repeated)
    repeated.set_epoch(2)
    assert list(repeated) == order(2), "what was drawn before changes nothing"


def test_its_settings_are_refused_where_they_do_nothing() -> None:
    from mdpo.training.config import MDPOConfig

    with pytest.raises(ValueError, match="group_by_length"):
        MDPOConfig(output_dir="x", train_sampling_strategy="batch_rebalance")
