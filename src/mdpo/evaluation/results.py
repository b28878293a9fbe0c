"""Score responses of a benchmark, and write items and metrics. No model is loaded."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mdpo.evaluation.runs import ITEMS, METRICS, write_whole
from mdpo.evaluation.statistics import Estimate
from mdpo.evaluation.suite import (
    Describing,
    ItemScore,
    Judged,
    Metric,
    Suite,
    score_all,
    share,
    shuffled,
    summarise,
    total,
)
from mdpo.evaluation.suites import SUITES

LENGTH = Metric("length", None, share("length/words", "length/responses", scale=1.0))
"""Mean number of words of a response: hallucination is easily lowered by saying less."""

SHUFFLED = "shuffled images"


@dataclass(frozen=True)
class Answers:
    """What is scored.

    Attributes:
        responses: By item: answers, or the replies of a judge where the benchmark scores these.
        texts: The model's answers by item, as far as they are known.
        failed: Items whose answer or judgment failed.
        about: What ``metrics.json`` says of their origin.
    """

    responses: Mapping[str, str]
    texts: Mapping[str, str] = field(default_factory=dict)
    failed: Sequence[str] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    def missing(self, suite: Suite) -> list[str]:
        """List the items that should have an answer and have none.

        Args:
            suite: The benchmark. Where it takes any images and has no list of items, what failed
                is what is missing.

        Returns:
            Items, in order.
        """
        return [item for item in suite.items or self.failed if item not in self.responses]


@dataclass(frozen=True)
class Results:
    """What a set of responses scores.

    Attributes:
        suite: The benchmark.
        metrics: Those of the benchmark, and the length of responses.
        answers: What was scored.
        items: Scored items, and groups of them where the benchmark has groups.
        estimates: Exact values by metric, with intervals over images.
        official: By metric, as the official scorer prints it; None where it is undefined.
        scored: Number of items that a metric rests on.
        unscored: Number of items that it should rest on and does not.
        clusters: Number of images that it rests on.
        baselines: Metrics of answers that were given without looking, by name.
        filled: Number of items without an answer that were scored as empty answers.
    """

    suite: Suite
    metrics: Sequence[Metric]
    answers: Answers
    items: Sequence[ItemScore]
    estimates: Mapping[str, Estimate]
    official: Mapping[str, float | None]
    scored: Mapping[str, int]
    unscored: Mapping[str, int]
    clusters: Mapping[str, int]
    baselines: Mapping[str, Mapping[str, float]]
    filled: int = 0


def load_suite(name: str, data: Path) -> Suite:
    """Load a benchmark.

    Args:
        name: One of ``SUITES``.
        data: Folder of its data.

    Returns:
        The benchmark.
    """
    module, _, kind = SUITES[name].partition(":")
    return getattr(import_module(module), kind).load(data)


def score_responses(
    suite: Suite, answers: Answers | Mapping[str, str], *, seed: int = 0, official: bool = False
) -> Results:
    """Score responses.

    Args:
        suite: The benchmark.
        answers: Responses by item id, with or without what else is known of them.
        seed: Of the bootstrap, and of the exchange of images.
        official: Whether items without an answer are scored as empty answers, as official
            scripts do after a failed call. Otherwise they are left out and counted.

    Returns:
        Items and metrics.

    Raises:
        ValueError: If there is no response.
    """
    if not isinstance(answers, Answers):
        answers = Answers(answers, answers)
    if not answers.responses:
        raise ValueError("There must be at least one response to score, got none.")
    responses = dict(answers.responses)
    empty = answers.missing(suite) if official else []
    responses |= dict.fromkeys(empty, "")
    plain = score_all(suite, responses)
    texts = _measured(suite, answers.texts)
    items = [_with_length(each, texts) for each in plain]
    metrics = [*suite.metrics, *([LENGTH] if texts else [])]
    estimates = summarise(items, metrics, seed=seed)
    reach = _reaches(metrics, suite.items or answers.failed, items, set(responses))
    scored = {name: numbers[0] for name, numbers in reach.items()}
    sums = total(items)
    floor = shuffled(suite, plain, responses, seed=seed)
    baselines = dict(getattr(suite, "baselines", dict)())
    if floor:
        baselines[SHUFFLED] = _values(suite.metrics, floor)
    return Results(
        suite=suite,
        metrics=metrics,
        answers=answers,
        items=items,
        estimates=estimates,
        official={
            each.name: official_value(each, sums) if scored[each.name] else None for each in metrics
        },
        scored=scored,
        unscored={name: numbers[1] for name, numbers in reach.items()},
        clusters={name: numbers[2] for name, numbers in reach.items()},
        baselines=baselines,
        filled=len(empty),
    )


def official_value(metric: Metric, sums: Mapping[str, Any]) -> float | None:
    """Work out a metric as the official scorer prints it.

    Args:
        metric: Of a benchmark.
        sums: Of its columns.

    Returns:
        The exact value where the official scorer does not round; None if it is undefined.
    """
    value = metric.official(sums) if metric.official is not None else float(metric.of(sums))
    return None if np.isnan(value) else float(value)


def write_results(folder: Path, results: Results) -> None:
    """Write ``items.jsonl`` and ``metrics.json``; each is there whole or not at all.

    Args:
        folder: Made if missing.
        results: What to write.
    """
    lines = []
    for each in results.items:
        row = asdict(each)
        if each.item in results.answers.responses:
            row["response"] = results.answers.texts.get(each.item)
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_whole(folder / ITEMS, "".join(lines))
    write_whole(folder / METRICS, json.dumps(to_json(results), indent=2, ensure_ascii=False) + "\n")


def to_json(results: Results) -> dict[str, Any]:
    """Put results in the form of ``metrics.json``.

    Args:
        results: Of a set of responses.

    Returns:
        What JSON can hold. ``value`` is what the official scorer prints, ``exact`` the same
        without its rounding and offsets, which is what ``low`` and ``high`` are about.
    """
    suite, metrics = results.suite, {}
    for metric in results.metrics:
        name, estimate = metric.name, results.estimates[metric.name]
        metrics[name] = {
            "value": results.official[name],
            "exact": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "n": results.scored[name],
            "clusters": results.clusters[name],
            "unscored": results.unscored[name],
            "direction": metric.direction,
            "baseline": {
                baseline: values[name]
                for baseline, values in results.baselines.items()
                if name in values
            },
        }
    return {
        "suite": suite.name,
        "mode": _mode(results),
        "backend": suite.backend,
        "metrics": metrics,
        "responses": {
            "scored": len(results.answers.responses),
            "failed": len(results.answers.failed),
            "missing": len(results.answers.missing(suite)),
        },
        **results.answers.about,
        "data": {path.name: _sha256(path) for path in suite.data_files},
        "versions": {name: version(name) for name in ("multimodal-dpo", "nltk", "numpy")},
    }


def table(results: Results) -> list[str]:
    """Write results as an aligned table.

    Args:
        results: Of a set of responses.

    Returns:
        A head line, a line per metric, and how many responses it rests on.
    """
    rows = [("metric", "value", "95 % interval", "n", "without looking")]
    for name, estimate in results.estimates.items():
        printed = results.official[name]
        value = "undefined" if printed is None else f"{printed:.2f}"
        interval = "" if estimate.low is None else f"[{estimate.low:.2f}, {estimate.high:.2f}]"
        floors = [
            f"{baseline} {values[name]:.1f}"
            for baseline, values in results.baselines.items()
            if name in values
        ]
        rows.append((name, value, interval, str(results.scored[name]), ", ".join(floors)))
    a, b, c, d = (max(len(row[column]) for row in rows) for column in range(4))
    lines = [
        f"{name:<{a}}  {value:>{b}}  {interval:>{c}}  {number:>{d}}  {floor}".rstrip()
        for name, value, interval, number, floor in rows
    ]
    lines += ["", f"{results.suite.name}, {_mode(results)}: language by {results.suite.backend}"]
    missing = len(results.answers.missing(results.suite))
    if missing and not results.filled:
        failed = len(results.answers.failed)
        lines.append(f"{missing} items have no answer ({failed} failed); they are left out")
    return lines


def _reaches(
    metrics: Sequence[Metric], known: Sequence[str], items: Sequence[ItemScore], answered: set[str]
) -> dict[str, tuple[int, int, int]]:
    """Count by metric the items that it rests on, those that it should and does not, and images."""
    counted: dict[Any, tuple[int, int, int]] = {}
    reaches = {}
    for metric in metrics:
        within, robust = metric.within, metric.name.startswith("robust/")
        if (within, robust) not in counted:
            read = [
                each
                for each in items
                if each.item in answered
                and (within is None or within(each.item))
                and not each.columns.get("unreadable")
                and not (robust and each.columns.get("unscored"))
            ]
            expected = {item for item in known if within is None or within(item)}
            expected |= {each.item for each in read}
            images = {each.cluster for each in read}
            counted[within, robust] = len(read), len(expected) - len(read), len(images)
        reaches[metric.name] = counted[within, robust]
    return reaches


def _measured(suite: Suite, texts: Mapping[str, str]) -> Mapping[str, str]:
    """Choose the answers whose length says something: descriptions, where there are any."""
    if isinstance(suite, Judged) or not isinstance(suite, Describing):
        return texts
    return {item: text for item, text in texts.items() if suite.describes(item)}


def _with_length(item: ItemScore, texts: Mapping[str, str]) -> ItemScore:
    """Add the length of the response."""
    if item.item not in texts:
        return item
    words = float(len(texts[item.item].split()))
    columns = {**item.columns, "length/words": words, "length/responses": 1.0}
    return replace(item, columns=columns)


def _values(metrics: Sequence[Metric], items: Sequence[ItemScore]) -> dict[str, float]:
    """Work out exact values of metrics, those that are defined and have a direction."""
    sums = total(items)
    values = {each.name: float(each.of(sums)) for each in metrics if each.direction}
    return {name: value for name, value in values.items() if not np.isnan(value)}


def _mode(results: Results) -> str:
    """Say how items without an answer were scored."""
    if not results.filled:
        return "official"
    return f"official, {results.filled} items without an answer scored as empty answers"


def _sha256(path: Path) -> str:
    """Hash a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
