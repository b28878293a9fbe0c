"""CHAIR: published figures, the official routine word by word, and the robust rule beside it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from benchmark_data import DATA, expected, needs_data

from mdpo.evaluation.language.singular import singularize
from mdpo.evaluation.results import SHUFFLED, score_responses, to_json
from mdpo.evaluation.suite import score_all
from mdpo.evaluation.suites.chair import ChairSuite
from mdpo.evaluation.suites.coco import annotation_files, image_number

SYNONYMS = """\
person, man, woman, people
bus, minibus
cow, bison{blank}
couch, sofa, chesterfield{blank}
cake,  cheesecake, cupcake
motorcycle, scooter,  motor bike
tennis racket, racket
dining table, table
toilet
chair, seat
tie, bow tie
wine glass
dog, puppy
blue cup
""".replace("{blank}", " ")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "chair"
    folder.mkdir()
    (folder / "synonyms.txt").write_text(SYNONYMS)
    truth = {"7": ["dog", "person"], "00009": ["bus"], "3": []}
    (folder / "ground_truth.json").write_text(json.dumps(truth))
    return folder


@pytest.fixture
def suite(folder: Path) -> ChairSuite:
    return ChairSuite.load(folder)


def words(suite: ChairSuite, text: str, *, robust: bool = False) -> list[str]:
    vocabulary = suite.robust if robust else suite.official
    found = vocabulary.mentions(text)
    assert all(text[each.start : each.end] for each in found)
    return [each.word for each in found]


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("bus", "bu"),  # codespell:ignore bu
        *(("dogs", "dog"), ("buses", "bus"), ("tennis", "tenni"), ("ties", "ty")),
        *(("glass", "glas"), ("glasses", "glass"), ("women", "woman"), ("people", "person")),
        *(("canoes", "cano"), ("magpies", "magpy"), ("knives", "knife"), ("leaves", "leaf")),
        *(("hour", "hmy"), ("ice", "ice"), ("ring", "ring"), ("cookies", "cookies")),
        *(("dogs'", "dog's"), ("mothers-in-law", "mother-in-law"), ("well-known", "well-known")),
        *(("potatoes", "potato"), ("shoes", "shoe"), ("mice", "mouse"), ("bases", "basis")),
        *(("psychoanalyses", "psychoanalyasis"), ("", ""), ("''", "'s's"), ("boxes", "box")),
        *(("media", "medium"), ("police", "polouse"), ("olives", "olife"), ("wolves", "wolf")),
        *(("quizzes", "quiz"), ("series", "series"), ("news", "news"), ("octopi", "octopus")),
        *(("scissors", "scissors"), ("ponies", "pony"), ("movies", "movie"), ("oxen", "ox")),
    ],
)
def test_singular_forms_are_those_of_the_official_scorer(plural: str, singular: str):
    assert singularize(plural) == singular


@pytest.mark.parametrize(
    ("text", "official", "robust"),
    [
        ("Dogs and PUPPIES.", ["dog", "puppy"], ["dog", "puppy"]),
        ("a bus, two buses", ["bus"], ["bus", "bus"]),
        ("a cheesecake, cupcakes", ["cupcake"], ["cheesecake", "cupcake"]),
        ("a motor bike", [], ["motor bike"]),
        ("a bison on a chesterfield", ["bison", "chesterfield"], ["bison", "chesterfield"]),
        ("a tennis racket", ["racket"], ["tennis racket"]),
        ("the dining table", ["table"], ["dining table"]),
        ("ties and a bow tie", ["tie"], ["tie", "tie"]),
        ("two wine glasses, a wine glass", ["wine glass", "wine glass"], ["wine glass"] * 2),
        ("the seat by the toilet", ["toilet"], ["toilet"]),
        ("the toilet seat", ["toilet"], ["toilet"]),
        ("a seat", ["seat"], ["seat"]),
        ("a baby dog", ["dog"], ["dog"]),
        ("a blue cup", ["blue cup"], ["blue cup"]),
        ("men, women, people", ["man", "woman", "person"], ["man", "woman", "people"]),
        ("", [], []),
    ],
)
def test_mentions(suite: ChairSuite, text: str, official: list[str], robust: list[str]):
    assert words(suite, text) == official
    assert words(suite, text, robust=True) == robust


def test_metrics_by_hand(suite: ChairSuite):
    captions = {
        "7": "A dog, a dog and a bus by two buses.",  # the bus is lost, the buses are not
        "7/2": "Nothing.",
        "00009": "Minibuses and a sofa, a sofa.",
        "3": "A man.",
    }
    found = to_json(score_responses(suite, captions))["metrics"]
    assert found["CHAIRs"]["value"] == 75.0
    assert found["CHAIRi"]["value"] == pytest.approx(100 * 4 / 7)
    assert found["Recall"]["value"] == pytest.approx(100 * 2 / 5)  # dog; none; bus; none
    assert found["robust/CHAIRi"]["value"] == pytest.approx(100 * 5 / 8)
    assert found["disagreements"]["value"] == 1
    assert found["CHAIRs"]["clusters"] == 3
    assert found["CHAIRs"]["n"] == 4
    assert found["CHAIRs"]["baseline"].keys() == {SHUFFLED}


def test_details_point_into_the_caption(suite: ChairSuite):
    text = 'A "Dog" on the sofa.'
    scored = suite.score("7", text)
    marked = [
        (text[each["start"] : each["end"]], each["object"]) for each in scored.details["mentions"]
    ]
    assert marked == [("Dog", "dog"), ("sofa", "couch")]
    assert [each["word"] for each in scored.details["hallucinated"]] == ["sofa"]
    assert scored.details["truth"] == ["dog", "person"]


def test_rows_in_all_formats(suite: ChairSuite, tmp_path: Path):
    path = tmp_path / "captions.json"
    rows: list[dict[str, Any]] = [
        {"image_id": 7, "caption": "a"},
        {"image_id": "COCO_val2014_000000000007.jpg", "text": "b"},
        {"image_id": "00009", "text": "c"},
    ]
    path.write_text(json.dumps(rows))
    assert suite.read(path) == {"7": "a", "7/2": "b", "00009": "c"}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert suite.read(path) == {"7": "a", "7/2": "b", "00009": "c"}
    path.write_text(
        json.dumps({"overall": {}, "imgToEval": {"7": {"image_id": 7, "caption": "a"}}})
    )
    assert suite.read(path) == {"7": "a"}
    (file,) = suite.export({"7": "a", "7/2": "b", "00009": "c"}, tmp_path / "out")
    assert json.loads(file.read_text().split("\n")[0]) == {"image_id": 7, "caption": "a"}
    assert suite.read(file) == {"7": "a", "7/2": "b", "00009": "c"}
    path.write_text('{"image_id": 8, "caption": "a"}')
    with pytest.raises(ValueError, match=r":1: image '8' has no entry"):
        suite.read(path)


@pytest.mark.parametrize(
    ("written", "number"),
    [
        *(("COCO_val2014_000000310196.jpg", "310196"), ("310196", "310196"), ("a/b/07.png", "7")),
        *(("000", "0"), ("x.jpg", "x.jpg"), ("img-12", "12")),
    ],
)
def test_numbers_in_names(written: str, number: str):
    assert image_number(written) == number


def test_items_are_the_prompts_where_there_are_any(suite: ChairSuite, folder: Path):
    assert list(suite.items) == []
    names = {prompt.item: list(prompt.images) for prompt in suite.prompts()}
    assert names["7"] == ["COCO_val2014_000000000007.jpg"]
    prompt = {"image_id": "00009", "image": "images/9.png", "prompt": "Describe."}
    (folder / "prompts.jsonl").write_text(json.dumps(prompt))
    suite = ChairSuite.load(folder)
    assert list(suite.items) == ["00009"]
    (asked,) = suite.prompts()
    assert (list(asked.images), asked.text) == (["images/9.png"], "Describe.")
    (folder / "prompts.jsonl").write_text('{"image_id": 1}')
    with pytest.raises(ValueError, match=r"prompts.jsonl:1: `image` is missing"):
        ChairSuite.load(folder)


def test_data_that_is_missing_or_double_is_refused(folder: Path):
    (folder / "ground_truth_2.json").write_text("{}")
    with pytest.raises(ValueError, match=r"got ground_truth.json, ground_truth_2.json"):
        ChairSuite.load(folder)
    (folder / "ground_truth_2.json").unlink()
    (folder / "ground_truth.json").write_text('{"1": "dog"}')
    with pytest.raises(ValueError, match="objects of image '1' must be a list"):
        ChairSuite.load(folder)
    (folder / "ground_truth.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"instances_train2014.json"):
        ChairSuite.load(folder)


def test_annotations_lie_in_the_folder_or_beside_it(folder: Path):
    beside = folder.parent / "coco2014"
    beside.mkdir()
    for name in ("instances_val2014.json", "captions_val2014.json"):
        (beside / name).write_text("{}")
    assert annotation_files(folder)[0] == [beside / "instances_val2014.json"]
    for name in ("instances_val2014.json", "captions_val2014.json"):
        (folder / name).write_text("{}")
    assert annotation_files(folder)[0] == [folder / "instances_val2014.json"]


@needs_data
@pytest.mark.parametrize("name", ["Instruction2_llava", "Instruction1_mplug"])
def test_published_captions(name: str):
    suite = ChairSuite.load(DATA / "chair")
    captions = suite.read(DATA / "pope" / "captions" / f"{name}.json")
    found = score_responses(suite, captions).official
    results = expected("chair_published_captions")["results"][name]
    assert {key: round(found[key] or 0, 1) for key in results} == results


@needs_data
def test_made_coco_set(tmp_path: Path):
    case = expected("chair_synthetic")
    shutil.copy(DATA / "chair" / "synonyms.txt", tmp_path)
    for name in case["inputs"]["annotations"]:
        shutil.copy(DATA / name, tmp_path)
    suite = ChairSuite.load(tmp_path)
    captions = suite.read(DATA / "coco_synthetic" / "responses.json")
    found = score_responses(suite, captions)
    assert {key: (found.official[key] or 0) / 100 for key in case["overall"]} == pytest.approx(
        case["overall"]
    )
    scored = score_all(suite, captions)
    assert len(scored) == len(case["items"])
    for (item, text), score, row in zip(captions.items(), scored, case["items"], strict=True):
        assert item.split("/")[0] == str(row["image_id"])
        assert score.details["truth"] == sorted(row["mscoco_gt_words"])
        named = [each["object"] for each in score.details["mentions"]]
        assert named == row["mscoco_generated_words"]
        wrong = [[each["word"], each["object"]] for each in score.details["hallucinated"]]
        assert wrong == row["mscoco_hallucinated_words"]
        assert [word for word, _, _ in suite.official.words(text)] == row["words"]
