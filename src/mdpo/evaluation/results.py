"""Score responses of a benchmark, and write items and metrics. No model is loaded."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mdpo.evaluation.statistics import Estimate
from mdpo.evaluation.suite import ItemScore, Suite, score_all, summarise, total
from mdpo.evaluation.suites import SUITES

ITEMS, METRICS = "items.jsonl", "metrics.json"


@dataclass(frozen=True)
class Results:
    """What a set of responses scores.

    Attributes:
        suite: The benchmark.
        items: Scored items, and groups of them where the benchmark has groups.
        estimates: By metric, with intervals over images.
        official: By metric, as the official scorer prints it; None where it is undefined.
        unscored: Items without a response.
    """

    suite: Suite
    items: Sequence[ItemScore]
    estimates: Mapping[str, Estimate]
    official: Mapping[str, float | None]
    unscored: int


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


def score_responses(suite: Suite, responses: Mapping[str, str], *, seed: int = 0) -> Results:
    """Score responses.

    Args:
        suite: The benchmark.
        responses: By item id.
        seed: Of the bootstrap.

    Returns:
        Items and metrics.

    Raises:
        ValueError: If there is no response.
    """
    if not responses:
        raise ValueError("There must be at least one response to score, got none.")
    items = score_all(suite, responses)
    sums = total(items)
    official = {}
    for metric in suite.metrics:
        value = metric.official(sums) if metric.official is not None else float(metric.of(sums))
        official[metric.name] = None if np.isnan(value) else value
    estimates = summarise(items, suite.metrics, seed=seed)
    return Results(suite, items, estimates, official, len(set(suite.items) - set(responses)))


def write_results(folder: Path, results: Results) -> None:
    """Write ``items.jsonl`` and ``metrics.json``; each is there whole or not at all.

    Args:
        folder: Made if missing.
        results: What to write.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in results.items]
    _write(folder / ITEMS, "".join(lines))
    _write(folder / METRICS, json.dumps(to_json(results), indent=2, ensure_ascii=False) + "\n")


def to_json(results: Results) -> dict[str, Any]:
    """Put results in the form of ``metrics.json``.

    Args:
        results: Of a set of responses.

    Returns:
        What JSON can hold.
    """
    suite = results.suite
    baselines: Mapping[str, Mapping[str, float]] = getattr(suite, "baselines", dict)()
    metrics = {}
    for metric in suite.metrics:
        metrics[metric.name] = results.estimates[metric.name].to_dict() | {
            "official": results.official[metric.name],
            "unscored": results.unscored,
            "direction": metric.direction,
            "baseline": {
                name: values[metric.name]
                for name, values in baselines.items()
                if metric.name in values
            },
        }
    return {
        "suite": suite.name,
        "mode": "official, and robust where the name says so",
        "backend": suite.backend,
        "metrics": metrics,
        "data": {path.name: _sha256(path) for path in suite.data_files},
        "versions": {name: version(name) for name in ("multimodal-dpo", "numpy")},
    }


def table(results: Results) -> list[str]:
    """Write results as an aligned table.

    Args:
        results: Of a set of responses.

    Returns:
        A head line, a line per metric, and how many responses it rests on.
    """
    rows = [("metric", "value", "95 % interval", "official")]
    for name, estimate in results.estimates.items():
        value = "undefined" if estimate.value is None else f"{estimate.value:.2f}"
        interval = "" if estimate.low is None else f"[{estimate.low:.2f}, {estimate.high:.2f}]"
        printed = results.official[name]
        rows.append((name, value, interval, "undefined" if printed is None else f"{printed:g}"))
    a, b, c, d = (max(len(row[column]) for row in rows) for column in range(4))
    lines = [
        f"{name:<{a}}  {value:>{b}}  {interval:>{c}}  {printed:>{d}}"
        for name, value, interval, printed in rows
    ]
    missing = f"; {results.unscored} items have no response" if results.unscored else ""
    return [*lines, "", f"{results.suite.name}: language by {results.suite.backend}{missing}"]


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _sha256(path: Path) -> str:
    """Hash a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
