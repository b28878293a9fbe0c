"""What is scored of a run or a file, what is left out, and what is said of it."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pytest

from mdpo.evaluation.answers import answers_of_file, answers_of_run
from mdpo.evaluation.judging.wording import Wording
from mdpo.evaluation.results import SHUFFLED, Answers, score_responses, table, to_json
from mdpo.evaluation.suite import (
    ItemScore,
    Metric,
    Prompt,
    Request,
    count,
    score_all,
    share,
    shuffled,
)

OBJECTS = {"a/1": "cat", "a/2": "cat", "b/1": "dog", "c/1": "cup"}


class Naming:
    """A made benchmark: name the object of an image; items ``IMAGE/NUMBER``."""

    name = "naming"
    backend = "words"
    data_files: Sequence[Path] = ()
    items: Sequence[str] = tuple(OBJECTS)
    metrics: Sequence[Metric] = (
        Metric("named", "higher", share("named", "asked"), lambda sums: float(sums["named"])),
        Metric("named a", "higher", share("named a", "asked a"), within=lambda i: i[0] == "a"),
        Metric("robust/named", "higher", share("robust/named", "robust/asked")),
        count("unscored"),
    )

    def read(self, path: Path) -> Mapping[str, str]:
        return json.loads(path.read_text(encoding="utf-8"))

    def score(self, item: str, response: str) -> ItemScore:
        named = float(OBJECTS[item] in response)
        columns = {"named": named, "asked": 1.0}
        if item[0] == "a":
            columns |= {"named a": named, "asked a": 1.0}
        if response:
            columns |= {"robust/named": named, "robust/asked": 1.0}
        else:
            columns["unscored"] = 1.0
        return ItemScore(item, item[0], columns, {})

    def prompts(self) -> Sequence[Prompt]:
        return [Prompt(item, [f"{item[0]}.png"], "What is it?") for item in OBJECTS]

    def export(self, responses: Mapping[str, str], out: Path) -> Sequence[Path]:
        raise NotImplementedError

    def describes(self, item: str) -> bool:
        return True

    @classmethod
    def metrics_for(cls, columns: Collection[str]) -> Sequence[Metric]:
        return cls.metrics


class Judging(Naming):
    """The same, scored by replies."""

    wording = Wording("{}", "made", official=False)

    def read_answers(self, path: Path) -> Mapping[str, str]:
        return self.read(path)

    def request(self, item: str, response: str) -> Request | str:
        return Request([{"role": "user", "content": response}])


def write_run(folder: Path, *records: Mapping[str, object], judged: bool = False) -> Path:
    folder.mkdir(exist_ok=True)
    name = "judgments.jsonl" if judged else "generations.jsonl"
    (folder / name).write_text("".join(json.dumps(each) + "\n" for each in records))
    return folder


def test_a_run_gives_its_answers_and_names_what_failed(tmp_path: Path):
    run = write_run(
        tmp_path,
        {"item": "a/1", "response": "a cat"},
        {"item": "a/2", "error": "broken image"},
        {"item": "b/1", "error": "timeout"},
        {"item": "b/1", "response": "a dog"},
    )
    (tmp_path / "generation.json").write_text('{"model": "m"}')
    answers = answers_of_run(Naming(), run)
    assert answers.responses == answers.texts == {"a/1": "a cat", "b/1": "a dog"}
    assert answers.failed == ["a/2"]
    assert answers.about == {"generation": {"model": "m"}}
    results = score_responses(Naming(), answers)
    assert results.estimates["named"].value == 100.0
    written = to_json(results)
    assert written["responses"] == {"scored": 2, "failed": 1, "missing": 2}
    assert written["generation"] == {"model": "m"}
    assert table(results)[-1] == "2 items have no answer (1 failed); they are left out"


def test_items_of_other_data_are_refused(tmp_path: Path):
    run = write_run(tmp_path, {"item": "x/1", "response": "a cat"})
    with pytest.raises(ValueError, match=r"'x/1' is not in the data of naming \(1 such items\)"):
        answers_of_run(Naming(), run)


def test_a_judged_benchmark_scores_the_first_reply_and_measures_the_answer(tmp_path: Path):
    write_run(tmp_path, {"item": "a/1", "response": "it is a dog"})
    with pytest.raises(ValueError, match="Run `mdpo judge"):
        answers_of_run(Judging(), tmp_path)
    replies = [
        {"item": "a/1", "repeat": 1, "reply": "no"},
        {"item": "a/1", "repeat": 0, "reply": "a cat"},
        {"item": "b/1", "repeat": 0, "error": "timeout"},
    ]
    write_run(tmp_path, *replies, judged=True)
    (tmp_path / "judge.json").write_text('{"model": "j"}')
    answers = answers_of_run(Judging(), tmp_path)
    assert answers.responses == {"a/1": "a cat"}
    assert answers.failed == ["b/1"]
    assert answers.about["judge"] == {"model": "j"}
    results = score_responses(Judging(), answers)
    assert results.estimates["length"].value == 4.0


def test_replies_in_a_file_have_no_known_answers(tmp_path: Path):
    (tmp_path / "a.json").write_text('{"a/1": "a cat"}')
    assert answers_of_file(Judging(), tmp_path / "a.json").texts == {}
    assert answers_of_file(Naming(), tmp_path / "a.json").texts == {"a/1": "a cat"}
    names = [
        each.name
        for each in score_responses(
            Judging(), answers_of_file(Judging(), tmp_path / "a.json")
        ).metrics
    ]
    assert "length" not in names


def test_numbers_of_items_are_those_the_metric_is_about():
    results = score_responses(Naming(), {"a/1": "cat", "b/1": "", "c/1": "dog"})
    assert results.scored == {
        "named": 3,
        "named a": 1,
        "robust/named": 2,
        "unscored": 3,
        "length": 3,
    }
    assert results.unscored["named"] == 1
    assert results.unscored["named a"] == 1
    assert results.unscored["robust/named"] == 2
    assert results.clusters["named"] == 3
    assert results.clusters["named a"] == 1


def test_a_metric_of_no_scored_item_is_null_even_if_officially_zero():
    written = to_json(score_responses(Naming(), {"b/1": "dog"}))["metrics"]["named a"]
    assert (written["value"], written["exact"], written["n"]) == (None, None, 0)


def test_value_is_what_the_official_scorer_prints():
    written = to_json(score_responses(Naming(), {"a/1": "cat", "b/1": "cat"}))["metrics"]["named"]
    assert (written["value"], written["exact"]) == (1.0, 50.0)


def test_missing_answers_are_scored_as_empty_ones_only_where_asked():
    given = {"a/1": "cat"}
    assert score_responses(Naming(), given).estimates["named"].value == 100.0
    filled = score_responses(Naming(), given, official=True)
    assert filled.estimates["named"].value == 25.0
    assert filled.filled == 3
    assert to_json(filled)["mode"] == "official, 3 items without an answer scored as empty answers"
    assert filled.estimates["length"].value == 1.0
    assert to_json(filled)["responses"] == {"scored": 1, "failed": 0, "missing": 3}


def test_the_floor_gives_every_image_the_responses_of_another():
    suite = Naming()
    responses = {"a/1": "cat", "a/2": "cat", "b/1": "dog", "c/1": "cup"}
    items = score_all(suite, responses)
    for seed in range(5):
        floor = shuffled(suite, items, responses, seed=seed)
        assert sorted(each.item for each in floor) == sorted(responses)
        assert not any(each.columns["named"] for each in floor)
    turned = dict(reversed(responses.items()))
    assert shuffled(suite, score_all(suite, turned), turned) == shuffled(suite, items, responses)
    assert score_responses(suite, responses).baselines[SHUFFLED]["named"] == 0.0
    assert not score_responses(suite, {"a/1": "cat", "a/2": "cat"}).baselines


def test_the_floor_takes_the_other_images_words():
    responses = {"a/1": "a dog", "b/1": "a cat"}
    floor = shuffled(Naming(), score_all(Naming(), responses), responses)
    assert [each.columns["named"] for each in floor] == [1.0, 1.0]


def test_known_lengths_do_not_change_scores():
    bare = score_responses(Naming(), Answers({"a/1": "cat", "b/1": "x"}))
    full = score_responses(Naming(), {"a/1": "cat", "b/1": "x"})
    for name, estimate in bare.estimates.items():
        assert full.estimates[name] == estimate
