"""What a run was made of: settings, versions, data. Written before its first step."""

import json
import os
import platform
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from mdpo.data.report import DataReport
from mdpo.objectives import Objective

RECORD = "run.json"
REPORT = "data_report.json"
PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "pillow", "numpy")


def versions() -> dict[str, str]:
    """Look up the versions that results depend on.

    Returns:
        Versions of Python, mdpo and the libraries beneath, by name.
    """
    found = {name: version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "mdpo": version("multimodal-dpo"), **found}


def write_run_record(
    folder: Path,
    *,
    args: TrainingArguments,
    objective: Objective,
    reports: Mapping[str, DataReport],
    starting_adapters: str | None = None,
) -> None:
    """Write ``run.json`` and ``data_report.json`` into a run's folder.

    Args:
        folder: Where checkpoints go; made if missing.
        args: Settings.
        objective: What is minimised.
        reports: Of the data, by split.
        starting_adapters: Hash of the adapters that training starts from, and that the reference
            has; None if it starts from none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": versions(),
        "objective": objective.to_spec(),
        "data": {split: report.fingerprint for split, report in reports.items()},
        "starting_adapters": starting_adapters,
        "settings": args.to_dict(),
    }
    write_json(folder / RECORD, record)
    write_json(folder / REPORT, {split: each.to_dict() for split, each in reports.items()})


def check_same_data(folder: Path, reports: Mapping[str, DataReport]) -> None:
    """Refuse to resume a run on other data than it began with.

    Args:
        folder: Of the run.
        reports: Of the data at hand, by split.

    Raises:
        ValueError: If the fingerprint of the training data differs from the recorded one.
    """
    path = folder / RECORD
    if not path.exists() or "train" not in reports:
        return
    before = json.loads(path.read_text(encoding="utf-8"))["data"].get("train")
    now = reports["train"].fingerprint
    if before is not None and before != now:
        raise ValueError(
            f"{path}: this run began with other training data (fingerprint {before}, now {now}). "
            "Give the data it began with, or another `output_dir`."
        )


def check_same_start(folder: Path, starting_adapters: str | None) -> None:
    """Refuse to resume a run from other adapters than it began with: they are its reference.

    Args:
        folder: Of the run.
        starting_adapters: Hash of those at hand; None if there are none.

    Raises:
        ValueError: If they are not the recorded ones.
    """
    path = folder / RECORD
    if not path.exists():
        return
    before = json.loads(path.read_text(encoding="utf-8")).get("starting_adapters")
    if before != starting_adapters:
        raise ValueError(
            f"{path}: this run began with other adapters (fingerprint {before}, now "
            f"{starting_adapters}), which are its reference. Give `adapter_name_or_path` as at the "
            "beginning, or another `output_dir`."
        )


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that the file is either whole or not there.

    Args:
        path: Of the file.
        value: What to write.
    """
    whole = path.with_name(f".{path.name}.{os.getpid()}")
    whole.write_text(json.dumps(value, indent=2, default=str) + "\n", encoding="utf-8")
    whole.replace(path)
