"""Put the results of the demo's runs together: per system, over all seeds."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from mdpo.evaluation.comparison import differences, load_metrics
from mdpo.evaluation.report.gather import Scored, gather
from mdpo.evaluation.statistics import Estimate, ratio_of_sums
from mdpo.evaluation.suite import ItemScore, summarise

SYSTEMS = ("base", "dpo", "dpo-no-image", "mdpo")

NAMES: Mapping[str, tuple[str, str]] = {
    "chair_s": ("chair", "CHAIRs"),
    "chair_i": ("chair", "CHAIRi"),
    "cover": ("chair", "Recall"),
    "mean_length": ("chair", "length"),
    "pope_accuracy": ("pope", "accuracy"),
    "pope_adversarial": ("pope", "adversarial/accuracy"),
}
"""Names in the summary, with benchmark and metric."""

SUITES = tuple(dict.fromkeys(suite for suite, _ in NAMES.values()))

COLUMNS = {
    "chair_s": "CHAIRs",
    "chair_i": "CHAIRi",
    "cover": "Cover",
    "mean_length": "words",
    "pope_accuracy": "POPE acc.",
    "pope_adversarial": "POPE adv.",
    "reward_accuracy": "response acc.",
    "image_accuracy": "image acc.",
}
"""Headings of the table."""


def summarise_systems(out: Path, *, seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Summarise each system over its seeds.

    Intervals are over pictures, which all systems and seeds share: a picture's answers of all
    seeds are drawn together. Beside each metric stands the paired difference from the base.

    Args:
        out: Folder of the demo.
        seeds: Of the training runs.

    Returns:
        Metrics by system. Accuracies of rewards are shares in 0..1, the others as the benchmarks
        report them.
    """
    base = _by_suite([out / "base"])
    systems: dict[str, dict[str, Any]] = {}
    for system in SYSTEMS:
        folders = [out / "base"] if system == "base" else [out / f"{system}-{s}" for s in seeds]
        systems[system] = _metrics(_by_suite(folders), base)
        if system != "base":
            systems[system] |= _accuracies(folders)
    return systems


def table_lines(systems: dict[str, dict[str, Any]]) -> list[str]:
    """Write the summary as aligned tables: values, and differences from the base.

    Args:
        systems: From ``summarise_systems``.

    Returns:
        Lines of text.
    """
    rows = [["", *COLUMNS.values()]]
    for system, metrics in systems.items():
        rows.append([system, *(_cell(name, metrics.get(name)) for name in COLUMNS)])
    less = [["less base", *(COLUMNS[name] for name in NAMES)]]
    for system, metrics in systems.items():
        if system != "base":
            less.append([system, *(_change(metrics[name]["less_base"]) for name in NAMES)])
    return [*_aligned(rows), "", *_aligned(less)]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Write rows with columns under one another."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _by_suite(folders: Sequence[Path]) -> dict[str, list[Scored]]:
    """Read scored runs of one system, by benchmark."""
    found: dict[str, list[Scored]] = defaultdict(list)
    for folder in folders:
        for suite in SUITES:
            found[suite] += gather([folder / suite])
    return found


def _metrics(
    runs: Mapping[str, Sequence[Scored]], base: Mapping[str, Sequence[Scored]]
) -> dict[str, Any]:
    """Estimate metrics, and their differences from the base."""
    found: dict[str, Any] = {}
    for suite in SUITES:
        items, before = _of_all_seeds(runs[suite]), _of_all_seeds(base[suite])
        metrics = load_metrics(suite, {name for each in items for name in each.columns})
        estimates = summarise(items, metrics)
        changes = differences(before, items, metrics)
        for name, (of, metric) in NAMES.items():
            if of == suite:
                per_seed = [_value(each, metric) for each in runs[suite]]
                found[name] = estimates[metric].to_dict() | {
                    "less_base": asdict(changes[metric]),
                    "per_seed": per_seed,
                }
    found["per_seed"] = {name: found[name].pop("per_seed") for name in NAMES}
    return found


def _of_all_seeds(runs: Sequence[Scored]) -> list[ItemScore]:
    """Take the items of several runs, each under a name of its own."""
    return [
        replace(item, item=f"{number}/{item.item}")
        for number, run in enumerate(runs)
        for item in run.items
    ]


def _value(run: Scored, metric: str) -> float | None:
    """Take the value of one run."""
    value = run.metrics[metric]["exact"]
    return None if value is None else round(value, 2)


def _accuracies(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Estimate reward accuracies, a pair's rewards of all seeds drawn together."""
    by_pair: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for folder in folders:
        text = (folder / "rewards" / "rewards.jsonl").read_text(encoding="utf-8")
        for line in text.splitlines():
            row = json.loads(line)
            by_pair[row["row_id"]].append(row)

    def accuracy(other: str) -> Estimate:
        hits = [[each["chosen"] > each[other] for each in rows] for rows in by_pair.values()]
        return ratio_of_sums(
            np.array([float(sum(each)) for each in hits]),
            np.array([float(len(each)) for each in hits]),
        )

    return {
        "reward_accuracy": accuracy("rejected").to_dict(),
        "image_accuracy": accuracy("rejected_image").to_dict(),
    }


def _cell(name: str, metric: dict[str, Any] | None) -> str:
    """Write one estimate for the table."""
    if metric is None:
        return "-"
    if metric["value"] is None:
        return "undefined"
    digits = 2 if COLUMNS[name].endswith(("response acc.", "image acc.")) else 1
    value, low, high = (f"{metric[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _change(change: dict[str, Any]) -> str:
    """Write one difference for the table."""
    if change["value"] is None:
        return "undefined"
    return f"{change['value']:+.1f} [{change['low']:+.1f}, {change['high']:+.1f}]"
