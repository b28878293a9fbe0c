"""Put the results of the demo's runs together: per system, over all seeds."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdpo.evaluation.chair import ChairData, Counts, chair_counts
from mdpo.evaluation.responses import read_responses
from mdpo.evaluation.statistics import Estimate, paired_difference, ratio_of_sums

SYSTEMS = ("base", "dpo", "dpo-no-image", "mdpo")

CHAIR_NAMES = {
    "chair_s": ("CHAIRs", 100.0),
    "chair_i": ("CHAIRi", 100.0),
    "cover": ("Recall", 100.0),
    "mean_length": ("words", 1.0),
}
"""Names in the summary, with the metric of CHAIR and its scale."""

COLUMNS = {
    "chair_s": "CHAIRs",
    "chair_i": "CHAIRi",
    "cover": "Cover",
    "mean_length": "words",
    "reward_accuracy": "response acc.",
    "image_accuracy": "image acc.",
}
"""Headings of the table."""


def summarise_systems(out: Path, *, seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Summarise each system over its seeds.

    Intervals are over pictures, which all systems and seeds share: a picture's captions of all
    seeds are drawn together. Beside each hallucination metric stands the paired difference from
    the base.

    Args:
        out: Folder of the demo.
        seeds: Of the training runs.

    Returns:
        Metrics by system. Accuracies are shares in 0..1, the others as CHAIR reports them.
    """
    data = ChairData.load(out / "playground" / "chair")
    counts: dict[str, dict[str, Counts]] = {}
    systems: dict[str, dict[str, Any]] = {}
    for system in SYSTEMS:
        folders = [out / "base"] if system == "base" else [out / f"{system}-{s}" for s in seeds]
        scored = [
            [data.score(image_id, text) for image_id, text in read_responses(folder / "chair")]
            for folder in folders
        ]
        counts[system] = chair_counts([caption for captions in scored for caption in captions])
        systems[system] = _chair_metrics(counts[system], counts["base"])
        per_seed = [chair_counts(captions) for captions in scored]
        systems[system]["per_seed"] = {
            name: [_value(each[metric], scale) for each in per_seed]
            for name, (metric, scale) in CHAIR_NAMES.items()
        }
        if system != "base":
            systems[system] |= _accuracies(folders)
    return systems


def table_lines(systems: dict[str, dict[str, Any]]) -> list[str]:
    """Write the summary as an aligned table.

    Args:
        systems: From ``summarise_systems``.

    Returns:
        Lines of text.
    """
    rows = [["", *COLUMNS.values()]]
    for system, metrics in systems.items():
        rows.append([system, *(_cell(name, metrics.get(name)) for name in COLUMNS)])
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _chair_metrics(counts: dict[str, Counts], base: dict[str, Counts]) -> dict[str, Any]:
    """Estimate the metrics of CHAIR, and their differences from the base."""
    metrics: dict[str, Any] = {}
    for name, (metric, scale) in CHAIR_NAMES.items():
        estimate = ratio_of_sums(*counts[metric], scale=scale)
        difference = paired_difference(counts[metric], base[metric], scale=scale)
        metrics[name] = estimate.to_dict() | {"less_base": difference.to_dict()}
    return metrics


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


def _value(counts: Counts, scale: float) -> float:
    """The plain ratio of one run."""
    return round(float(scale * counts[0].sum() / counts[1].sum()), 2)


def _cell(name: str, metric: dict[str, Any] | None) -> str:
    """Write one estimate for the table."""
    if metric is None:
        return "-"
    digits = 2 if name.endswith("accuracy") else 1
    value, low, high = (f"{metric[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
