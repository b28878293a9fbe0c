"""How much a judge's own wavering moves a result: each of several repeats scored by itself."""

from collections.abc import Mapping
from statistics import mean, stdev
from typing import Any

from mdpo.evaluation.results import official_value
from mdpo.evaluation.runs import Run
from mdpo.evaluation.suite import Suite, score_all, total


def noise(suite: Suite, run: Run) -> dict[str, Mapping[str, Any]]:
    """Score each repeat.

    Args:
        suite: The benchmark.
        run: With its judgments.

    Returns:
        By metric its values, their mean and standard deviation; empty if there is one repeat.
        Repeats count only as far as they have a reply to every item that has one in all.
    """
    repeats = sorted({each.get("repeat", 0) for each in run.judgments if "reply" in each})
    if len(repeats) < 2:
        return {}
    replies = [run.replies(repeat) for repeat in repeats]
    shared = set.intersection(*(set(each) for each in replies))
    if not shared:
        return {}
    sums = [total(score_all(suite, {k: each[k] for k in sorted(shared)})) for each in replies]
    measured = {}
    for metric in suite.metrics:
        values = [official_value(metric, each) for each in sums]
        known = [value for value in values if value is not None]
        if metric.direction and len(known) == len(values):
            measured[metric.name] = {"mean": mean(known), "sd": stdev(known), "values": known}
    return measured
