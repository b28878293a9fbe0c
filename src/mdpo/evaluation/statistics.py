"""Intervals for rates and means: a seeded bootstrap over images. Tests of differences.

Shapes: ``n`` clusters, here images; items of one image stay together.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float

Array = np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: The number; None if there was nothing to measure.
        low: Lower end of the 95 % interval.
        high: Upper end.
        n: Number of clusters it rests on.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int

    def to_dict(self) -> dict[str, float | int | None]:
        """Write it as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        if self.value is None or self.low is None or self.high is None:
            return "not measured"
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"


def ratio_of_sums(
    numerators: Float[Array, " n"],
    denominators: Float[Array, " n"],
    *,
    scale: float = 1.0,
    seed: int = 0,
    draws: int = 2000,
) -> Estimate:
    """Estimate ``sum(numerators) / sum(denominators)`` with a percentile bootstrap interval.

    Clusters are drawn with replacement, numerator and denominator together, as the ratio of sums
    asks for; a mean is the case of denominators that count items.

    Args:
        numerators: Per cluster.
        denominators: Per cluster, >= 0.
        scale: Factor of the result; 100 gives percent.
        seed: Of the draws.
        draws: Number of bootstrap samples.

    Returns:
        The estimate; without value if the denominators sum to 0.
    """
    number = len(numerators)
    if number == 0 or denominators.sum() <= 0:
        return Estimate(None, None, None, number)
    above, below = resampled_sums(numerators, denominators, seed=seed, draws=draws)
    ratios = scale * above[below > 0] / below[below > 0]
    low, high = np.quantile(ratios, [0.025, 0.975])
    value = scale * numerators.sum() / denominators.sum()
    return Estimate(float(value), float(low), float(high), number)


def resampled_sums(
    numerators: Float[Array, " n"], denominators: Float[Array, " n"], *, seed: int, draws: int
) -> tuple[Float[Array, " draws"], Float[Array, " draws"]]:
    """Sum both arrays over the same bootstrap samples of clusters.

    Args:
        numerators: Per cluster.
        denominators: Per cluster.
        seed: Of the draws; the same seed and ``n`` draw the same clusters.
        draws: Number of samples.

    Returns:
        Sums of the two, one per sample.
    """
    number = len(numerators)
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(number, np.full(number, 1 / number), size=draws)
    return counts @ numerators, counts @ denominators


def paired_difference(
    first: tuple[Float[Array, " n"], Float[Array, " n"]],
    second: tuple[Float[Array, " n"], Float[Array, " n"]],
    *,
    scale: float = 1.0,
    seed: int = 0,
    draws: int = 2000,
) -> Estimate:
    """Estimate the difference of two ratios measured on the same clusters, first less second.

    Args:
        first: Numerators and denominators of one system.
        second: Of the other, in the same order of clusters.
        scale: Factor of the result.
        seed: Of the draws; both systems are drawn together.
        draws: Number of bootstrap samples.

    Returns:
        The estimate.

    Raises:
        ValueError: If the systems were not measured on the same number of clusters.
    """
    if len(first[0]) != len(second[0]):
        raise ValueError(
            f"Paired systems must be measured on the same items, got {len(first[0])} and "
            f"{len(second[0])}."
        )
    number = len(first[0])
    if number == 0 or first[1].sum() <= 0 or second[1].sum() <= 0:
        return Estimate(None, None, None, number)
    above_1, below_1 = resampled_sums(*first, seed=seed, draws=draws)
    above_2, below_2 = resampled_sums(*second, seed=seed, draws=draws)
    usable = (below_1 > 0) & (below_2 > 0)
    differences = above_1[usable] / below_1[usable] - above_2[usable] / below_2[usable]
    low, high = np.quantile(scale * differences, [0.025, 0.975])
    value = first[0].sum() / first[1].sum() - second[0].sum() / second[1].sum()
    return Estimate(float(scale * value), float(low), float(high), number)


def resampled_totals(
    tables: Sequence[Float[Array, "n _k"]], *, seed: int, draws: int
) -> list[Float[Array, "_k draws"]]:
    """Sum the columns of several tables over the same bootstrap samples of clusters.

    Args:
        tables: One per system, rows in the same order of clusters.
        seed: Of the draws.
        draws: Number of samples.

    Returns:
        Per table the sums of its columns, one per sample.

    Raises:
        ValueError: If the tables differ in their number of clusters, or have none.
    """
    sizes = sorted({len(table) for table in tables})
    if len(sizes) != 1 or sizes[0] == 0:
        raise ValueError(f"Systems must be measured on the same images, 1 or more, got {sizes}.")
    number = sizes[0]
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(number, np.full(number, 1 / number), size=draws)
    return [(counts @ table).T for table in tables]


def bootstrap_p(differences: Float[Array, " draws"]) -> float:
    """Test whether a difference is 0, from bootstrap samples of it.

    The percentile interval is turned round: twice the share of samples on or beyond 0 on the side
    where fewer are, with one added above and below the line, as a sample of the samples cannot
    show that a share is 0 (Davison and Hinkley 1997, section 4.2). So the least possible value is
    ``2 / (draws + 1)``, and it is under 0.05 about where the 95 % interval leaves out 0.

    Args:
        differences: One per sample, at least one.

    Returns:
        Two-sided p-value.
    """
    beyond = min((differences <= 0).sum(), (differences >= 0).sum())
    return min(1.0, 2 * (int(beyond) + 1) / (len(differences) + 1))


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Test whether two systems are right equally often: McNemar's test in its exact form.

    Items on which both are right, or both wrong, say nothing. Were the systems equally good, the
    others would fall to either side like a fair coin, so the p-value is that of a two-sided
    binomial test. It is summed in whole numbers, so it is exact for any count.

    Args:
        only_first: Items that only the first system has right.
        only_second: Items that only the second has right.

    Returns:
        Two-sided p-value; 1 if the systems never differ.
    """
    number, fewer = only_first + only_second, min(only_first, only_second)
    term = tail = 1
    for k in range(1, fewer + 1):
        term = term * (number - k + 1) // k
        tail += term
    return min(1.0, float(Fraction(2 * tail, 2**number)))
