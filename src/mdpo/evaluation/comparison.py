"""Compare two systems on the same items: paired differences, and whether they are chance.

Two systems answer the same questions about the same images, so their errors go together, and the
difference of two values is known better than either value. Images are drawn once for both
systems, each metric makes its two values of the sums, and the interval is of their difference.

A difference is ``system`` less ``baseline``. Its p-value is a bootstrap one
(``statistics.bootstrap_p``); of questions that are right or wrong there is McNemar's exact test
too, which takes items as independent, though several may be about one image.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from mdpo.evaluation.results import LENGTH
from mdpo.evaluation.statistics import bootstrap_p, mcnemar_p, resampled_totals
from mdpo.evaluation.suite import DRAWS, ItemScore, Metric, columns_of, tabulate
from mdpo.evaluation.suites import SUITES

COVERAGE: Mapping[str, tuple[str, Sequence[str]]] = {
    "amber": ("Cover", ("CHAIR", "Hal")),
    "chair": ("Recall", ("CHAIRs", "CHAIRi")),
    "object-halbench": ("object_recall", ("CHAIRs", "CHAIRs_refined", "CHAIRi")),
    "object-halbench-llm": ("object_recall", ("CHAIRs", "CHAIRs_refined", "CHAIRi")),
}
"""By suite: what measures how much of an image is named, and what is bought by naming less."""

SHORTER = 0.2
"""A fall of the mean length by more than this share is warned about."""


@dataclass(frozen=True)
class Difference:
    """A metric of a system less that of the baseline, in the unit of the metric.

    Attributes:
        value: None if the metric is undefined for either.
        low: Lower end of the 95 % interval.
        high: Upper end.
        p: Two-sided bootstrap p-value.
    """

    value: float | None
    low: float | None
    high: float | None
    p: float | None


@dataclass(frozen=True)
class RightOrWrong:
    """Which of two systems is right, over shared items.

    Attributes:
        both: Items that both have right.
        only_baseline: Items that only the baseline has right.
        only_system: Items that only the system has right.
        neither: Items that both have wrong.
        p: Two-sided p-value of McNemar's exact test.
    """

    both: int
    only_baseline: int
    only_system: int
    neither: int
    p: float


@dataclass(frozen=True)
class Comparison:
    """A system beside the baseline.

    Attributes:
        items: Number of items that both have answered.
        clusters: Number of their images.
        left_out_baseline: Items that only the baseline has answered.
        left_out_system: Items that only the system has answered.
        differences: By metric.
        right_or_wrong: None where items are not right or wrong.
    """

    items: int
    clusters: int
    left_out_baseline: int
    left_out_system: int
    differences: Mapping[str, Difference]
    right_or_wrong: RightOrWrong | None


def load_metrics(name: str, columns: Collection[str]) -> list[Metric]:
    """List the metrics of a benchmark from the columns of its items, without its data.

    Args:
        name: Of the benchmark, one of ``SUITES``.
        columns: Names of the columns that items have.

    Returns:
        Metrics that say which way is better, and the length of responses where it is known.

    Raises:
        ValueError: If there is no such benchmark.
    """
    if name not in SUITES:
        raise ValueError(f"`suite` must be one of {', '.join(SUITES)}, got {name!r}.")
    module, _, kind = SUITES[name].partition(":")
    metrics = getattr(import_module(module), kind).metrics_for(columns)
    length = [LENGTH] if "length/words" in columns else []
    return [each for each in metrics if each.direction] + length


def compare(
    baseline: Sequence[ItemScore],
    system: Sequence[ItemScore],
    metrics: Sequence[Metric],
    *,
    seed: int = 0,
    draws: int = DRAWS,
) -> Comparison:
    """Compare a system with the baseline on the items that both have answered.

    Args:
        baseline: Scored items, and groups of them.
        system: The same of the system, in any order.
        metrics: What to compare.
        seed: Of the draws.
        draws: Number of bootstrap samples.

    Returns:
        Differences, system less baseline.

    Raises:
        ValueError: If the systems share no item.
    """
    first, second = shared_items(baseline, system)
    if not first:
        raise ValueError(
            "Systems must have answered the same items to be compared, but share none. Give runs "
            "on the same data."
        )
    questions = sum(not is_group(each) for each in first)
    return Comparison(
        items=questions,
        clusters=len({each.cluster for each in first}),
        left_out_baseline=sum(not is_group(each) for each in baseline) - questions,
        left_out_system=sum(not is_group(each) for each in system) - questions,
        differences=differences(first, second, metrics, seed=seed, draws=draws),
        right_or_wrong=_right_or_wrong(first, second),
    )


def differences(
    first: Sequence[ItemScore],
    second: Sequence[ItemScore],
    metrics: Sequence[Metric],
    *,
    seed: int = 0,
    draws: int = DRAWS,
) -> dict[str, Difference]:
    """Work out each metric of both systems over the same draws of images.

    Args:
        first: Scored items of the baseline.
        second: Of the system, about the same images; an image may have more of them.
        metrics: What to compare.
        seed: Of the draws.
        draws: Number of bootstrap samples.

    Returns:
        Differences by metric, second less first.
    """
    names = [columns_of(each) for each in (first, second)]
    tables = [tabulate(each, columns) for each, columns in zip((first, second), names, strict=True)]
    drawn = resampled_totals(tables, seed=seed, draws=draws)
    before, after = (
        (dict(zip(columns, table.sum(axis=0), strict=True)), dict(zip(columns, sums, strict=True)))
        for columns, table, sums in zip(names, tables, drawn, strict=True)
    )
    return {
        each.name: _difference(
            each.of(after[0]) - each.of(before[0]), each.of(after[1]) - each.of(before[1])
        )
        for each in metrics
    }


def shared_items(
    first: Sequence[ItemScore], second: Sequence[ItemScore]
) -> tuple[list[ItemScore], list[ItemScore]]:
    """Restrict two systems to the items that both have answered.

    Groups of items, such as the two questions about an image, are kept where all items of their
    image are shared: elsewhere they may be made of different items.

    Args:
        first: Scored items and groups.
        second: Of the other system.

    Returns:
        Scores of each system, in the same order.

    Raises:
        ValueError: If an item is about different images, which is not the same data.
    """
    ones, others = ({each.item: each for each in each_of} for each_of in (first, second))
    unshared = {
        each.cluster
        for each in (*first, *second)
        if not is_group(each) and not (each.item in ones and each.item in others)
    }
    kept = [
        item
        for item, each in sorted(ones.items())
        if item in others and not (is_group(each) and each.cluster in unshared)
    ]
    for item in kept:
        if ones[item].cluster != others[item].cluster:
            raise ValueError(
                f"Item {item!r} is about {ones[item].cluster!r} in one run and about "
                f"{others[item].cluster!r} in the other. Give runs on the same data."
            )
    return [ones[item] for item in kept], [others[item] for item in kept]


def is_group(score: ItemScore) -> bool:
    """Tell a group of items from an item.

    Args:
        score: Of either.

    Returns:
        Whether it says of how many questions it is made.
    """
    return "questions" in score.details


def coverage_warnings(
    suite: str, differences: Mapping[str, Difference], lengths: tuple[float | None, float | None]
) -> list[str]:
    """Warn of a hallucination that falls because less is said.

    Args:
        suite: Name of the benchmark.
        differences: System less baseline.
        lengths: Mean words of a response of the baseline and of the system, where known.

    Returns:
        Sentences; those that begin with ``Strong`` have the evidence of an interval.
    """
    warnings = []
    coverage, rates = COVERAGE.get(suite, ("", ()))
    fallen = [name for name in rates if (_value(differences.get(name)) or 0) < 0]
    named = differences.get(coverage)
    value = _value(named)
    if named is not None and value is not None and value < 0 and fallen:
        evident = named.high is not None and named.high < 0
        lead = "Strong warning" if evident else "Note"
        warnings.append(
            f"{lead}: {' and '.join(fallen)} fell, but {coverage} fell too, by {-value:.1f} "
            f"[{_end(named.low)}, {_end(named.high)}]: part of the gain may come from naming less."
        )
    before, after = lengths
    if before and after is not None and after < (1 - SHORTER) * before:
        share = 100 * (1 - after / before)
        warnings.append(
            f"Note: responses are {share:.0f} % shorter ({after:.1f} words, baseline "
            f"{before:.1f}): rates of hallucination fall when less is said."
        )
    return warnings


def _difference(value: Any, drawn: Any) -> Difference:
    """Sum up one difference; draws in which it is undefined are left out."""
    drawn = np.atleast_1d(drawn)
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(value) or not len(drawn):
        return Difference(None, None, None, None)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Difference(float(value), float(low), float(high), bootstrap_p(drawn))


def _right_or_wrong(first: Sequence[ItemScore], second: Sequence[ItemScore]) -> RightOrWrong | None:
    """Count who is right, where both runs say so."""
    pairs = [
        (bool(one.details["right"]), bool(other.details["right"]))
        for one, other in zip(first, second, strict=True)
        if "right" in one.details and "right" in other.details
    ]
    if not pairs:
        return None
    both, one, other, neither = (
        pairs.count(each) for each in ((True, True), (True, False), (False, True), (False, False))
    )
    return RightOrWrong(both, one, other, neither, mcnemar_p(one, other))


def _value(difference: Difference | None) -> float | None:
    """Take the value, if there is one."""
    return None if difference is None else difference.value


def _end(end: float | None) -> str:
    """Write an end of an interval."""
    return "" if end is None else f"{end:+.1f}"
