"""A run: what a model was asked and answered, what a judge said of it, and how it scored.

::

    RUN/generation.json     what the answers depend on
    RUN/generations.jsonl   one record per answer or failure
    RUN/judge.json          what the judge's replies depend on
    RUN/judgments.jsonl     one record per reply or failure
    RUN/items.jsonl         scores of items
    RUN/metrics.json        the result

Nothing here loads a model, so scoring stays light.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdpo.evaluation.journal import Record, read_journal

GENERATION, GENERATIONS = "generation.json", "generations.jsonl"
JUDGE, JUDGMENTS = "judge.json", "judgments.jsonl"
ITEMS, METRICS = "items.jsonl", "metrics.json"


@dataclass(frozen=True)
class Run:
    """The records of a run.

    Attributes:
        folder: Where it lies.
        settings: What its answers depend on.
        generations: Records of answers and failures.
        judgments: Records of a judge's replies and failures.
    """

    folder: Path
    settings: Mapping[str, Any]
    generations: Sequence[Record]
    judgments: Sequence[Record]

    def responses(self) -> dict[str, str]:
        """Take the answers.

        Returns:
            By item; failures are left out.
        """
        return {each["item"]: each["response"] for each in self.generations if "response" in each}

    def replies(self, repeat: int = 0) -> dict[str, str]:
        """Take a judge's replies.

        Args:
            repeat: Which of several replies to the same request.

        Returns:
            By item; failures are left out.
        """
        return {
            each["item"]: each["reply"]
            for each in self.judgments
            if "reply" in each and each.get("repeat", 0) == repeat
        }


def read_run(folder: Path) -> Run:
    """Read the records of a run.

    Args:
        folder: Of the run.

    Returns:
        The run.

    Raises:
        FileNotFoundError: If it holds no answers.
    """
    if not (folder / GENERATIONS).is_file():
        raise FileNotFoundError(f"{folder} must hold {GENERATIONS}, which `mdpo generate` writes.")
    settings = folder / GENERATION
    return Run(
        folder,
        json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {},
        read_journal(folder / GENERATIONS),
        read_journal(folder / JUDGMENTS),
    )


def claim(
    path: Path, settings: Mapping[str, Any], *, about: Mapping[str, Any] | None = None
) -> None:
    """Write down what the records of a run depend on, or check that it is the same.

    Args:
        path: ``generation.json`` or ``judge.json`` of the run.
        settings: What the records depend on.
        about: What is written down too and may differ from time to time, such as folders.

    Raises:
        ValueError: If the run was made with other settings.
    """
    loose = dict(about or {})
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        for key in before | dict(settings):
            if key in loose or (key not in settings and key in before.get("may_differ", ())):
                continue
            if key != "may_differ" and before.get(key) != settings.get(key):
                raise ValueError(
                    f"{path.parent} holds records made with `{key}` {before.get(key)!r}, now "
                    f"{settings.get(key)!r}. Take another folder."
                )
    written = {**settings, **loose, **({"may_differ": sorted(loose)} if loose else {})}
    write_whole(path, json.dumps(written, indent=2, ensure_ascii=False) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Args:
        path: Of the file; its folder is made if missing.
        text: What it holds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
