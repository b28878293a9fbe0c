"""AMBER: what the official scorer gives, its quirks one by one, and rules beside it."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nltk
import pytest
from benchmark_data import DATA, expected, needs_data

from mdpo.evaluation.language import nouns
from mdpo.evaluation.language.similarity import PAIRS, similar_words
from mdpo.evaluation.results import SHUFFLED, score_responses, to_json
from mdpo.evaluation.suites.amber import AmberSuite
from mdpo.evaluation.suites.amber_discriminative import official_answer
from mdpo.evaluation.suites.amber_generative import Annotation, Dictionary, nouns_by_rules

TYPES = {
    3: ("discriminative-hallucination", "no"),
    4: ("discriminative-attribute-state", "yes"),
    5: ("discriminative-attribute-number", "no"),
    6: ("discriminative-attribute-action", "no"),
    7: ("discriminative-relation", "yes"),
    8: ("relation", "no"),
}
RELATION = {
    "sky": [],
    "road": ["path", "street"],
    "path": ["trail"],
    "man": ["person"],
    "woman": [],
    "dog": [],
    "cat": [],
    "light": [],
    "can": [],
    "TV": [],
    "earrings": [],
    "apple": [],
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "amber"
    (folder / "query").mkdir(parents=True)
    annotations: list[dict[str, Any]] = [
        {"id": 1, "type": "generative", "truth": ["sky", "path", "road", "man"], "hallu": ["cat"]},
        {"id": 2, "type": "generative", "truth": ["apple"], "hallu": ["dog", "cat"]},
    ]
    annotations += [{"id": k, "type": kind, "truth": truth} for k, (kind, truth) in TYPES.items()]
    queries = [
        {"id": k, "image": f"AMBER_{1 + k % 2}.jpg", "query": f"question {k}?"} for k in range(1, 9)
    ]
    (folder / "annotations.json").write_text(json.dumps(annotations))
    (folder / "relation.json").write_text(json.dumps(RELATION))
    (folder / "safe_words.txt").write_text("light\nsign")
    (folder / "query" / "query_all.json").write_text(json.dumps(queries))
    return folder


def without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without NLTK's data."""

    def missing(*_: object) -> None:
        raise LookupError

    monkeypatch.setattr(nouns, "load_nouns", missing)
    monkeypatch.setattr(nltk.data, "find", missing)


@pytest.fixture
def suite(data: Path, monkeypatch: pytest.MonkeyPatch) -> AmberSuite:
    without_data(monkeypatch)
    return AmberSuite.load(data)


def metrics(suite: AmberSuite, responses: Mapping[str, str]) -> dict[str, Any]:
    return to_json(score_responses(suite, responses))["metrics"]


def columns(suite: AmberSuite, item: str, response: str) -> Mapping[str, float]:
    return suite.score(item, response).columns


def test_nouns_cover_are_hallucinated_or_safe(suite: AmberSuite):
    scored = suite.score(
        "1", "A man and a person see two skies, a light and a dog; a sign, apples."
    )
    assert scored.details["covered"] == ["sky", "man"]
    assert [each["word"] for each in scored.details["mentions"]] == [
        *("man", "person", "skies", "light", "dog", "apples"),
    ]
    # the sign is safe but not in the vocabulary; the dog is like the invented cat
    assert [each["object"] for each in scored.details["hallucinated"]] == ["dog", "apple"]
    assert scored.details["invented"] == ["cat"]
    text = "A man and a person see two skies, a light and a dog; a sign, apples."
    assert [text[each["start"] : each["end"]] for each in scored.details["hallucinated"]] == [
        "dog",
        "apples",
    ]
    assert scored.columns["nouns"] == 6
    assert scored.columns["covered"] == 2
    assert scored.columns["truth"] == 4
    assert scored.columns["clean"] == 0


def test_an_associated_word_is_looked_up_before_the_object(suite: AmberSuite):
    """Naming the path credits the road, whose association it is."""
    assert suite.score("1", "a path").details["covered"] == ["road"]
    assert suite.score("1", "a trail").details["covered"] == ["path"]


def test_a_similar_word_excuses(suite: AmberSuite):
    assert suite.score("1", "a woman").details["hallucinated"] == []
    assert suite.score("1", "a woman").details["covered"] == ["man"]
    assert suite.score("1", "a dog").details["invented"] == ["cat"]
    assert suite.score("2", "a dog").details["invented"] == ["dog"]
    # equal to the second, and like the first
    assert suite.score("2", "a cat").details["invented"] == ["dog", "cat"]


def test_truth_beats_hallu(data: Path, monkeypatch: pytest.MonkeyPatch):
    dictionary = Dictionary(RELATION, [])
    verdict = dictionary.judge(["cat", "dog"], Annotation(["cat"], ["cat", "dog"]))
    assert verdict.hallucinated == [False, False]
    assert verdict.covered == {0}
    # the cat is truth and ends there; the dog marks before it is excused
    assert verdict.invented == {0, 1}


def test_repeats_count_each_time(suite: AmberSuite):
    assert columns(suite, "1", "dog dog dog")["hallucinated"] == 3
    assert columns(suite, "1", "sky sky")["covered"] == 1


def test_case_counts_officially_and_not_robustly(suite: AmberSuite):
    scored = columns(suite, "1", "Dogs. a tv")
    assert scored["nouns"] == 0
    assert scored["robust/nouns"] == 2
    assert scored["disagreements"] == 1
    assert columns(suite, "1", "a dog")["disagreements"] == 0


def test_an_empty_description_is_clean(suite: AmberSuite):
    found = metrics(suite, {"1": "", "2": "nothing"})
    assert found["CHAIR"]["value"] == 0.0
    assert found["CHAIR"]["exact"] is None
    assert found["Hal"]["value"] == round(100 - 2 / 2.001 * 100, 1)
    assert found["Hal"]["exact"] == 0.0
    assert found["F1"]["value"] is found["AMBER"]["value"] is None
    assert found["F1"]["n"] == 0
    assert found["Cover"]["n"] == 2


def test_official_numbers_carry_offsets_and_rounding(suite: AmberSuite):
    found = metrics(suite, {"1": "a sky and a dog"})
    assert found["CHAIR"]["value"] == round(1 / 2.001 * 100, 1) == 50.0
    assert found["Cover"]["value"] == round(1 / 4.001 * 100, 1)
    assert found["Hal"]["value"] == 100.0
    assert found["Cog"]["value"] == round(1 / 1.001 * 100, 1) == 99.9
    assert found["Cog"]["exact"] == 100.0
    assert found["Cover"]["unscored"] == 1
    assert found["Accuracy"]["unscored"] == 6


def test_no_is_the_positive_class(suite: AmberSuite):
    answers = {"3": "No", "4": "Yes", "5": "Yes", "6": "No", "7": "No", "8": "no"}
    found = metrics(suite, answers)
    assert found["Accuracy"]["value"] == 50.0  # 3, 4 and 6
    assert found["Precision"]["value"] == 66.6  # 2 of 3.001
    assert found["Recall"]["value"] == 50.0  # 2 of 4.001
    assert found["F1"]["value"] == round(2 * 0.666 * 0.5 / (0.666 + 0.5 + 0.0001) * 100, 1)
    assert found["F1"]["exact"] == pytest.approx(100 * 4 / 7)
    assert found["existence/F1"]["value"] == round(2 * 0.999**2 / (2 * 0.999 + 0.001) * 100, 1)
    assert found["existence/Accuracy"]["n"] == 1
    assert found["attribute/Accuracy"]["n"] == 3
    assert found["attribute/Accuracy"]["value"] == round(2 / 3.003 * 100, 1)
    assert found["relation/Recall"]["value"] == 0.0
    assert found["robust/relation/Recall"]["value"] == 100.0
    assert found["disagreements"]["value"] == 1
    assert found["CHAIR"]["value"] is None
    assert found["AMBER"]["value"] is None


@pytest.mark.parametrize("answer", ["yes", "No.", "NO", "", " Yes", "No, there is none"])
def test_only_the_two_words_count_officially(answer: str):
    assert official_answer(answer) is None


def test_answers_that_say_neither_are_unscored_robustly(suite: AmberSuite):
    found = metrics(suite, {"3": "I cannot tell", "4": "Yes, it is."})
    assert found["robust/Accuracy"]["n"] == 1
    assert found["robust/Accuracy"]["value"] == 100.0
    assert found["Accuracy"]["n"] == 2
    assert found["Accuracy"]["value"] == 0.0
    assert found["unscored"]["value"] == 1


def test_both_halves_make_the_amber_score(suite: AmberSuite):
    answers = {"1": "a sky and a dog", "3": "No", "4": "Yes", "5": "No", "6": "No"}
    found = metrics(suite, answers)
    assert found["AMBER"]["value"] == (100 - found["CHAIR"]["value"] + found["F1"]["value"]) / 2
    assert found["AMBER"]["exact"] == 75.0
    assert found["AMBER"]["low"] is not None


def test_the_length_is_that_of_descriptions(suite: AmberSuite):
    found = metrics(suite, {"1": "a sky and a dog", "3": "No", "4": "Yes"})
    assert found["length"]["value"] == 5.0
    assert "length" not in metrics(suite, {"3": "No"})


def test_baselines_of_both_halves(suite: AmberSuite):
    found = metrics(suite, {"1": "a sky", "2": "an apple", "3": "No"})
    assert found["Accuracy"]["baseline"] == {
        "always Yes": pytest.approx(100 / 3),
        "always No": pytest.approx(200 / 3),
    }
    assert found["Cover"]["baseline"] == {"empty description": 0.0, SHUFFLED: 0.0}
    assert found["Hal"]["baseline"][SHUFFLED] == 100.0


def test_formats(suite: AmberSuite, tmp_path: Path):
    responses = {"1": "a sky", "3": "No"}
    (file,) = suite.export(responses, tmp_path / "out")
    assert json.loads(file.read_text()) == [
        {"id": 1, "response": "a sky"},
        {"id": 3, "response": "No"},
    ]
    assert suite.read(file) == responses
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"item_id": "1", "text": "a sky"}\n{"id": 3, "answer": "No"}\n')
    assert suite.read(lines) == responses
    lines.write_text('{"id": 9, "response": "x"}\n')
    with pytest.raises(ValueError, match=r"a.jsonl:1: item '9' is not in"):
        suite.read(lines)


def test_several_responses_to_an_item_all_count(suite: AmberSuite, tmp_path: Path):
    rows = [{"id": 1, "response": text} for text in ("a sky", "a dog", "a cat")]
    rows += [{"id": 3, "response": text} for text in ("No", "Yes")]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    responses = suite.read(tmp_path / "a.json")
    assert list(responses) == ["1", "1/2", "1/3", "3", "3/2"]
    found = metrics(suite, responses)
    assert found["Hal"]["exact"] == pytest.approx(200 / 3)
    assert found["Hal"]["n"] == 3
    assert found["Hal"]["unscored"] == 1
    assert found["existence/Accuracy"]["value"] == 50.0
    assert found["existence/Accuracy"]["n"] == 2
    (file,) = suite.export(responses, tmp_path)
    assert len(json.loads(file.read_text())) == 5


def test_prompts_name_images_and_items(suite: AmberSuite):
    first, *_, last = suite.prompts()
    assert (first.item, list(first.images), first.text) == ("1", ["AMBER_2.jpg"], "question 1?")
    assert last.item == "8"
    assert [item for item in suite.items if suite.describes(item)] == ["1", "2"]
    assert suite.score("3", "No").cluster == "AMBER_2.jpg"


def test_missing_files_are_named(data: Path):
    (data / "safe_words.txt").rename(data / "other.txt")
    with pytest.raises(FileNotFoundError, match=r"safe_words.txt is missing"):
        AmberSuite.load(data)
    (data / "other.txt").rename(data / "safe_words.txt")
    (data / "query" / "query_all.json").rename(data / "query_generative.json")
    rows = json.loads((data / "query_generative.json").read_text())
    (data / "query_generative.json").write_text(json.dumps(rows[:2]))
    with pytest.raises(ValueError, match=r"item 3 of annotations.json has no query"):
        AmberSuite.load(data)
    (data / "query_discriminative.json").write_text(json.dumps(rows[2:]))
    assert len(AmberSuite.load(data).prompts()) == 8


def test_metrics_are_known_without_data(suite: AmberSuite):
    answers = {"1": "a sky", "3": "No"}
    results = score_responses(suite, answers)
    found = {each.name for each in AmberSuite.metrics_for(results.items[0].columns)}
    assert found == {
        f"{rule}{m}" for rule in ("", "robust/") for m in ("CHAIR", "Cover", "Hal", "Cog")
    }
    assert {each.name for each in AmberSuite.metrics_for(results.items[1].columns)} >= {
        "F1",
        "robust/relation/Recall",
    }


def test_without_language_data_the_backend_says_approximate(suite: AmberSuite):
    assert suite.backend.count("approximate") == 2
    assert "NLTK_DATA" in suite.backend


def test_can_is_a_noun_only_where_it_cannot_be_a_verb():
    words = [*["you", "can", "see", "a", "can", "and", "two", "can", "in", "the"], "hot", "sun"]
    flagged = dict(zip(range(len(words)), nouns_by_rules(words), strict=True))
    assert [k for k, noun in flagged.items() if not noun] == [1, 10]


def test_similarity_is_symmetric_and_not_transitive():
    assert all(a in similar_words(b) and b in similar_words(a) for a, b in PAIRS)
    assert len(set(PAIRS)) == 20
    assert similar_words("pineapple") == {"pineapple", "banana", "strawberry"}
    assert similar_words("banana") == {"pineapple", "banana"}
    assert similar_words("x") == {"x"}


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> AmberSuite:
    folder = str(DATA / "nltk_data")
    monkeypatch.setattr(nltk.data, "path", [folder, *nltk.data.path])
    suite = AmberSuite.load(DATA / "amber")
    assert "approximate" not in suite.backend
    return suite


@needs_data
def test_published_cases(official: AmberSuite, tmp_path: Path):
    cases = expected("amber_generative")
    names = ("CHAIR", "Cover", "Hal", "Cog")
    for case in cases["items"]:
        item = str(case["id"])
        results = score_responses(official, {item: case["response"]})
        assert {name: results.official[name] for name in names} == {n: case[n] for n in names}
    rows = [{"id": case["id"], "response": case["response"]} for case in cases["items"]]
    (tmp_path / "all.json").write_text(json.dumps(rows))
    found = score_responses(official, official.read(tmp_path / "all.json")).official
    assert {name: found[name] for name in names} == cases["together"]


@needs_data
def test_published_constant_answers(official: AmberSuite):
    rows = {
        "Descriminative Task": "",
        "Exsitence": "existence/",  # codespell:ignore exsitence
        "Attribute": "attribute/",
        "State": "state/",
        "Number": "number/",
        "Action": "action/",
        "Relation": "relation/",
    }
    questions = [item for item in official.items if int(item) > 1004]
    truth = {item: official.annotations[item]["truth"].capitalize() for item in questions}
    answers = {
        "all_correct": truth,
        "all_yes": dict.fromkeys(questions, "Yes"),
        "all_no": dict.fromkeys(questions, "No"),
    }
    for name, results in expected("amber_discriminative_extremes")["results"].items():
        found = score_responses(official, answers[name]).official
        for row, values in results.items():
            assert {key: found[f"{rows[row]}{key}"] for key in values} == values, (name, row)


def naive(suite: AmberSuite, image: Annotation, nouns: list[str]) -> tuple[int, set[int], set[int]]:
    """The published procedure, step by step."""
    wrong, covered, marked = 0, set(), set()
    lists = []
    for objects in (image.truth, image.hallu):
        words, owners = [], []
        for place, name in enumerate(objects):
            for word in suite.dictionary.associated[name]:
                words.append(word)
                owners.append(place)
        lists.append((words + list(objects), owners + list(range(len(objects)))))
    (truth, truth_owners), (hallu, hallu_owners) = lists
    pairs = {frozenset(pair) for pair in PAIRS}
    for noun in nouns:
        if noun in suite.dictionary.safe:
            continue
        if noun in truth:
            covered.add(truth_owners[truth.index(noun)])
            continue
        if noun in hallu:
            marked.add(hallu_owners[hallu.index(noun)])
        for place, word in enumerate(hallu):
            if word == noun or frozenset((word, noun)) in pairs:
                marked.add(hallu_owners[place])
                break
        for place, word in enumerate(truth):
            if frozenset((word, noun)) in pairs:
                covered.add(truth_owners[place])
                break
        else:
            wrong += 1
    return wrong, covered, marked


@needs_data
def test_random_nouns_equal_a_naive_loop(official: AmberSuite):
    draw = random.Random(3)
    vocabulary = sorted(official.dictionary.words)
    likely = [word for pair in PAIRS for word in pair]
    for item in filter(official.describes, official.items):
        row = official.annotations[item]
        image = Annotation(row["truth"], row["hallu"])
        near = [*image.truth, *image.hallu, *likely]
        nouns = [draw.choice(near) for _ in range(6)] + [draw.choice(vocabulary) for _ in range(4)]
        verdict = official.dictionary.judge(nouns, image)
        found = (sum(verdict.hallucinated), verdict.covered, verdict.invented)
        assert found == naive(official, image, nouns)
