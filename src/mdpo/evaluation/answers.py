"""Collect what is scored: from a run, or from a file that another program wrote."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mdpo.evaluation.judging.noise import noise
from mdpo.evaluation.results import Answers
from mdpo.evaluation.runs import JUDGE, Run, read_run
from mdpo.evaluation.suite import Judged, Suite


def answers_of_file(suite: Suite, path: Path) -> Answers:
    """Read responses in any of the formats that a benchmark knows.

    Args:
        suite: The benchmark.
        path: A file, or a folder of files.

    Returns:
        Responses; of a benchmark with a judge they are the judge's replies, and the model's
        answers are not known.
    """
    responses = suite.read(path)
    return Answers(responses, {} if isinstance(suite, Judged) else responses)


def answers_of_run(suite: Suite, folder: Path) -> Answers:
    """Take the answers of a run, or the judge's replies where a benchmark scores these.

    Args:
        suite: The benchmark.
        folder: Of the run.

    Returns:
        Responses, and which items failed.

    Raises:
        ValueError: If the run is of other items, or has not been judged and must be.
    """
    run = read_run(folder)
    texts = run.responses()
    responses = run.replies() if isinstance(suite, Judged) else texts
    if isinstance(suite, Judged) and not responses:
        raise ValueError(
            f"{folder} has no judge's replies, and {suite.name} scores these. Run `mdpo judge "
            f"{folder}` first."
        )
    known = set(suite.items)
    if known and (foreign := [item for item in responses if item not in known]):
        raise ValueError(
            f"{folder}: item {foreign[0]!r} is not in the data of {suite.name} ({len(foreign)} "
            "such items). Give the --data that the answers were generated with."
        )
    records = run.judgments if isinstance(suite, Judged) else run.generations
    failed = {each["item"] for each in records if "error" in each} - set(responses)
    return Answers(responses, texts, sorted(failed), _about(suite, run))


def _about(suite: Suite, run: Run) -> Mapping[str, Any]:
    """What ``metrics.json`` says of the origin of answers and replies."""
    about: dict[str, Any] = {}
    if run.settings:
        about["generation"] = dict(run.settings)
    if isinstance(suite, Judged) and (run.folder / JUDGE).is_file():
        about["judge"] = json.loads((run.folder / JUDGE).read_text(encoding="utf-8"))
    if isinstance(suite, Judged) and (measured := noise(suite, run)):
        about["judge_noise"] = measured
    return about
