"""Intervals: against the normal approximation, by hand, and under changes of the data."""

import numpy as np
import pytest

from mdpo.evaluation.statistics import Estimate, paired_difference, ratio_of_sums, resampled_sums

Counts = tuple[np.ndarray, np.ndarray]


def made_counts(number: int = 400, seed: int = 0) -> Counts:
    """Errors among 1 to 6 items per image."""
    generator = np.random.default_rng(seed)
    items = generator.integers(1, 7, number)
    return generator.binomial(items, 0.3).astype(float), items.astype(float)


def ends(estimate: Estimate) -> tuple[float, float]:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.high


def width(estimate: Estimate) -> float:
    low, high = ends(estimate)
    return high - low


def test_ratio_by_hand():
    # (1 + 0 + 4) / (2 + 3 + 5) = 0.5, not the mean of the ratios 0.5, 0, 0.8
    estimate = ratio_of_sums(np.array([1.0, 0.0, 4.0]), np.array([2.0, 3.0, 5.0]))
    assert estimate.value == 0.5
    assert estimate.n == 3


def test_interval_of_two_clusters_by_hand():
    # Draws of two from {0/1, 1/1}: ratios 0, 1/2, 1 with chances 1/4, 1/2, 1/4
    estimate = ratio_of_sums(np.array([0.0, 1.0]), np.ones(2))
    assert (estimate.value, estimate.low, estimate.high) == (0.5, 0.0, 1.0)


def test_numerator_and_denominator_are_drawn_together():
    # every cluster has the ratio 1/4, so every sample has
    denominators = np.array([4.0, 8.0, 20.0, 100.0])
    estimate = ratio_of_sums(denominators / 4, denominators)
    assert (estimate.value, estimate.low, estimate.high) == (0.25, 0.25, 0.25)


def test_scale_multiplies_value_and_interval():
    plain, percent = (ratio_of_sums(*made_counts(), scale=scale) for scale in (1.0, 100.0))
    assert (percent.value, *ends(percent)) == pytest.approx(
        (100 * (plain.value or 0), *(100 * end for end in ends(plain)))
    )


def test_interval_of_a_mean_agrees_with_the_normal_approximation():
    values = np.random.default_rng(1).normal(3.0, 2.0, 1000)
    estimate = ratio_of_sums(values, np.ones(1000), draws=8000)
    error = 1.96 * values.std() / np.sqrt(1000)
    # Monte-Carlo error of the 2.5 % point of 8000 draws: 1.5 % of its distance
    assert ends(estimate) == pytest.approx(
        (values.mean() - error, values.mean() + error), abs=0.05 * error
    )


def test_interval_of_a_ratio_agrees_with_the_delta_method():
    above, below = made_counts(500)
    estimate = ratio_of_sums(above, below, draws=8000)
    ratio = above.sum() / below.sum()
    error = 1.96 * (above - ratio * below).std() / np.sqrt(500) / below.mean()
    assert ends(estimate) == pytest.approx((ratio - error, ratio + error), abs=0.05 * error)


def test_tails_hold_two_and_a_half_percent_each():
    # skewed: one image in a hundred has the only error, so samples hold Poisson(1) of them
    above = np.zeros(100)
    above[0] = 1.0
    # P(0) = 0.366 > 2.5 %; P(<= 2) = 0.921 and P(<= 3) = 0.982
    assert ends(ratio_of_sums(above, np.ones(100))) == (0.0, 0.03)


def test_interval_covers_the_truth_as_often_as_it_says():
    covered = 0
    for seed in range(200):
        low, high = ends(ratio_of_sums(*made_counts(150, seed), seed=seed, draws=400))
        covered += low <= 0.3 <= high
    # 95 % of 200 is 190; four standard errors of a binomial are 12
    assert 178 <= covered <= 200


def test_same_seed_gives_the_same_interval_and_another_seed_another():
    first, again, other = (ratio_of_sums(*made_counts(), seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert ends(first) != ends(other)
    assert first.value == other.value


def test_interval_is_about_as_wide_with_another_seed():
    widths = [width(ratio_of_sums(*made_counts(), seed=seed)) for seed in range(5)]
    assert max(widths) < 1.1 * min(widths)


def test_duplicated_clusters_shrink_the_interval_by_root_2():
    above, below = made_counts()
    once = ratio_of_sums(above, below, draws=8000)
    twice = ratio_of_sums(np.tile(above, 2), np.tile(below, 2), draws=8000)
    assert twice.value == once.value
    assert twice.n == 2 * once.n
    assert width(once) / width(twice) == pytest.approx(np.sqrt(2), rel=0.05)


def test_duplicated_items_inside_clusters_change_nothing():
    above, below = made_counts()
    assert ratio_of_sums(2 * above, 2 * below) == ratio_of_sums(above, below)


def test_samples_are_as_large_as_the_data():
    ones, _ = resampled_sums(np.ones(50), np.zeros(50), seed=0, draws=30)
    assert ones.tolist() == [50.0] * 30


def test_samples_are_drawn_with_replacement_evenly():
    marks, _ = resampled_sums(np.eye(5)[1], np.zeros(5), seed=0, draws=20_000)
    # copies of one cluster of five: Binomial(5, 1/5), mean 1 and variance 0.8
    assert marks.mean() == pytest.approx(1.0, abs=0.03)
    assert marks.var() == pytest.approx(0.8, abs=0.03)


def test_sums_are_of_the_two_arrays_in_order():
    first, second = resampled_sums(np.full(4, 2.0), np.full(4, 3.0), seed=0, draws=2)
    assert first.tolist() == [8.0, 8.0]
    assert second.tolist() == [12.0, 12.0]


@pytest.mark.parametrize("number", [0, 3])
def test_nothing_to_measure_is_not_zero(number: int):
    zeros = np.zeros(number)
    assert ratio_of_sums(zeros, zeros) == Estimate(None, None, None, number)
    assert paired_difference((zeros, zeros), (zeros, zeros)) == Estimate(None, None, None, number)


def test_difference_needs_something_to_measure_in_both_systems():
    full, empty = (np.ones(3), np.ones(3)), (np.zeros(3), np.zeros(3))
    assert paired_difference(full, empty) == Estimate(None, None, None, 3)
    assert paired_difference(empty, full) == Estimate(None, None, None, 3)


def test_samples_without_denominator_are_left_out():
    # one image of three names anything: 8 of 27 samples miss it, all others have the ratio 1/2
    above, below = np.array([1.0, 0.0, 0.0]), np.array([2.0, 0.0, 0.0])
    assert ratio_of_sums(above, below) == Estimate(0.5, 0.5, 0.5, 3)
    other = (np.array([0.0, 1.0, 0.0]), np.array([0.0, 4.0, 0.0]))
    assert paired_difference((above, below), other) == Estimate(0.25, 0.25, 0.25, 3)


def test_denominators_below_one_are_measured():
    estimate = ratio_of_sums(np.array([0.1, 0.1]), np.array([0.2, 0.2]))
    assert (estimate.value, *ends(estimate)) == pytest.approx((0.5, 0.5, 0.5))
    half = (np.array([0.1, 0.1]), np.array([0.2, 0.2]))
    difference = paired_difference(half, (np.zeros(2), half[1]))
    assert (difference.value, *ends(difference)) == pytest.approx((0.5, 0.5, 0.5))


def test_difference_is_first_less_second():
    first = (np.array([3.0, 1.0]), np.array([4.0, 4.0]))
    second = (np.array([1.0, 0.0]), np.array([2.0, 2.0]))
    # 4/8 - 1/4, in percent
    assert paired_difference(first, second, scale=100.0).value == pytest.approx(25.0)
    assert paired_difference(second, first, scale=100.0).value == pytest.approx(-25.0)


def test_interval_of_a_difference_by_hand():
    # pairs differ by 0 or 1 only: samples of two have mean 0, 1/2 or 1
    first, second = (np.array([5.0, 8.0]), np.ones(2)), (np.array([5.0, 7.0]), np.ones(2))
    assert paired_difference(first, second, scale=10.0) == Estimate(5.0, 0.0, 10.0, 2)


def test_identical_systems_differ_by_exactly_nothing():
    counts = made_counts()
    assert paired_difference(counts, counts) == Estimate(0.0, 0.0, 0.0, 400)


def test_difference_agrees_with_the_normal_approximation():
    generator = np.random.default_rng(2)
    first = generator.normal(1.0, 1.0, 1000)
    second = first + generator.normal(0.5, 0.3, 1000)
    ones = np.ones(1000)
    estimate = paired_difference((second, ones), (first, ones), draws=8000)
    change = second - first
    error = 1.96 * change.std() / np.sqrt(1000)
    assert ends(estimate) == pytest.approx(
        (change.mean() - error, change.mean() + error), abs=0.05 * error
    )


def test_pairing_narrows_the_interval_of_correlated_systems():
    generator = np.random.default_rng(3)
    hardness = generator.normal(0.0, 1.0, 500)
    first, second = (hardness + generator.normal(0, 0.2, 500) for _ in range(2))
    ones = np.ones(500)
    paired = paired_difference((first, ones), (second, ones))
    shuffled = paired_difference((first, ones), (generator.permutation(second), ones))
    assert shuffled.value == pytest.approx(paired.value)
    # deviations sqrt(2) * 0.2 against sqrt(2 * 1.04)
    assert width(shuffled) / width(paired) == pytest.approx(np.sqrt(1.04) / 0.2, rel=0.15)


def test_difference_depends_on_its_seed_alone():
    systems = made_counts(seed=0), made_counts(seed=1)
    first, again, other = (paired_difference(*systems, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert ends(first) != ends(other)


def test_paired_systems_of_different_length_are_refused():
    with pytest.raises(
        ValueError, match=r"Paired systems must be measured on the same items, got 3 and 2"
    ):
        paired_difference((np.ones(3), np.ones(3)), (np.ones(2), np.ones(2)))


def test_default_number_of_draws_is_2000():
    assert ratio_of_sums(*made_counts()) == ratio_of_sums(*made_counts(), draws=2000, seed=0)
    assert ratio_of_sums(*made_counts()) != ratio_of_sums(*made_counts(), draws=1999, seed=0)
    systems = made_counts(seed=0), made_counts(seed=1)
    assert paired_difference(*systems) == paired_difference(*systems, draws=2000, seed=0)
    assert paired_difference(*systems) != paired_difference(*systems, draws=1999, seed=0)


def test_estimate_reads_as_value_and_interval():
    assert str(Estimate(12.345, 10.06, 15.0, 40)) == "12.3 [10.1, 15.0]"
    assert str(Estimate(None, None, None, 0)) == "not measured"
    assert str(Estimate(0.0, 0.0, 0.0, 4)) == "0.0 [0.0, 0.0]"


def test_estimate_is_written_with_its_n():
    estimate = Estimate(1.0, 0.5, 1.5, 7)
    assert estimate.to_dict() == {"value": 1.0, "low": 0.5, "high": 1.5, "n": 7}
