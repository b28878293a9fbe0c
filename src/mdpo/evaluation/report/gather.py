"""Read the scored runs that a report is about.

A run is a folder with ``metrics.json`` and ``items.jsonl``, or a folder of such folders, one per
benchmark. It is called by its folder, or, where that has the name of the benchmark as in
``runs/mdpo/pope``, by the folder around it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdpo.evaluation.runs import GENERATIONS, ITEMS, METRICS, read_run
from mdpo.evaluation.suite import ItemScore
from mdpo.evaluation.suites import SUITES, suite_name


@dataclass(frozen=True)
class Scored:
    """A system on a benchmark.

    Attributes:
        system: Its name in the report.
        suite: Name of the benchmark.
        folder: Where it was read.
        about: What ``metrics.json`` holds.
        items: Scored items and groups.
        responses: The model's answers by item, as far as they are known.
        asked: Records of generation by item, with ``prompt`` and ``images``, where there are any.
    """

    system: str
    suite: str
    folder: Path
    about: Mapping[str, Any]
    items: Sequence[ItemScore]
    responses: Mapping[str, str]
    asked: Mapping[str, Mapping[str, Any]]

    @property
    def metrics(self) -> Mapping[str, Mapping[str, Any]]:
        """Entries of metrics by name."""
        return self.about["metrics"]


def gather(runs: Sequence[Path], names: Sequence[str] = ()) -> list[Scored]:
    """Read runs.

    Args:
        runs: Folders.
        names: Of the systems, one per run; empty takes those of the folders. Runs of one name
            are of one system.

    Returns:
        One entry per run and benchmark, in the order given.

    Raises:
        ValueError: If names are not one per run, or two runs are of one system and benchmark.
    """
    if names and len(names) != len(runs):
        raise ValueError(
            f"`--names` must have one name per run, got {len(names)} for {len(runs)} runs."
        )
    scored: list[Scored] = []
    places: dict[tuple[str, str], Path] = {}
    for number, run in enumerate(runs):
        for folder in _folders(run):
            each = _read(folder, run, names[number] if names else None)
            if before := places.get((each.system, each.suite)):
                raise ValueError(
                    f"{before} and {folder} are both {each.suite} of {each.system!r}. Name the "
                    "systems apart with --names."
                )
            places[each.system, each.suite] = folder
            scored.append(each)
    return scored


def _folders(run: Path) -> list[Path]:
    """Find the folders with metrics: the run itself, or those in it."""
    if (run / METRICS).is_file():
        return [run]
    # A training run's folder has other metrics too, of rewards for example.
    folders = sorted(
        path.parent for path in run.glob(f"*/{METRICS}") if "suite" in path.read_text("utf-8")
    )
    if not folders:
        raise FileNotFoundError(
            f"{run} must hold {METRICS}, or folders that do; `mdpo score` writes it."
        )
    return folders


def _read(folder: Path, run: Path, name: str | None) -> Scored:
    """Read one folder."""
    about = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    suite = about.get("suite") if isinstance(about, dict) else None
    if suite not in SUITES or not isinstance(about.get("metrics"), dict):
        raise ValueError(
            f"{folder / METRICS}: `suite` must be one of {', '.join(SUITES)} beside `metrics`, got "
            f"{suite!r}. Score the run again with `mdpo score`."
        )
    rows = _rows(folder / ITEMS)
    asked = {}
    if (folder / GENERATIONS).is_file():
        asked = {each["item"]: each for each in read_run(folder).generations if "item" in each}
    responses = {
        item: each["response"] for item, each in asked.items() if each.get("response") is not None
    }
    responses |= {row["item"]: row["response"] for row in rows if row.get("response") is not None}
    items = [ItemScore(r["item"], r["cluster"], r["columns"], r["details"]) for r in rows]
    return Scored(name or _name(run, suite), suite, folder, about, items, responses, asked)


def _name(run: Path, suite: str) -> str:
    """Call a run by its folder, or by that around it."""
    path = run.resolve()
    return path.parent.name if suite_name(path.name) == suite else path.name


def _rows(path: Path) -> list[dict[str, Any]]:
    """Read ``items.jsonl``."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found. Score the run again with `mdpo score`.")
    rows = []
    # Not `splitlines`, which breaks at separators that JSON leaves as they are.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
            missing = {"item", "cluster", "columns", "details"} - row.keys()
        except (ValueError, AttributeError):
            raise ValueError(
                f"{path}:{number}: must be a JSON object, got {line[:80]!r}."
            ) from None
        if missing:
            raise ValueError(
                f"{path}:{number}: lacks `{min(missing)}`. Score the run again with `mdpo score`."
            )
        rows.append(row)
    return rows
