"""What all benchmarks of the registry have in common."""

import importlib
from pathlib import Path

import pytest
from benchmark_data import DATA, needs_data

from mdpo.evaluation.suite import score_all, summarise
from mdpo.evaluation.suites import SUITES


@pytest.mark.parametrize("name", sorted(SUITES))
def test_names_lead_to_classes_that_say_which_files_they_need(name: str, tmp_path: Path):
    module, _, kind = SUITES[name].partition(":")
    suite = getattr(importlib.import_module(module), kind)
    with pytest.raises(FileNotFoundError, match=r"must hold\b.*\.(json|txt)"):
        suite.load(tmp_path)


@needs_data
@pytest.mark.parametrize(
    ("name", "folder", "answers"),
    [
        ("pope", "pope", ("Yes", "No.", "NO", "Hm")),
        ("hallusionbench", "hallusionbench", ("Yes", "No.", "Nope", "Hm")),
        ("hallusionbench-judge", "hallusionbench", ("0", "1", "2", "correct")),
        ("mmhal", "mmhal", ("Rating: 4", "Rating: 1", "**Rating**: 3", "none")),
    ],
)
def test_the_order_of_items_changes_no_score(name: str, folder: str, answers: tuple[str, ...]):
    module, _, kind = SUITES[name].partition(":")
    suite = getattr(importlib.import_module(module), kind).load(DATA / folder)
    responses = {item: answers[k % 4] for k, item in enumerate(suite.items)}
    turned = dict(reversed(responses.items()))
    first = summarise(score_all(suite, responses), suite.metrics, draws=50)
    assert summarise(score_all(suite, turned), suite.metrics, draws=50) == first
    assert first["disagreements"].value is not None
