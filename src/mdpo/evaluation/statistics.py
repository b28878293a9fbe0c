"""Intervals for rates and means: a seeded bootstrap over images.

Shapes: ``n`` clusters, here images; items of one image stay together.
"""

from dataclasses import asdict, dataclass

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
