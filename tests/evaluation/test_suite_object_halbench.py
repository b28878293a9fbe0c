"""Object HalBench: objects found in texts, and mentions that are in no ground truth."""

import json
from pathlib import Path
from typing import Any

import nltk
import pytest
from benchmark_data import DATA, needs_data

from mdpo.evaluation.language import nouns
from mdpo.evaluation.language.nouns import approximate_noun, noun_backend, tokens
from mdpo.evaluation.suite import score_all, total
from mdpo.evaluation.suites.object_halbench import ObjectHalBenchSuite, Vocabulary

SYNONYMS = """\
person, man, woman, child
dog, puppy
bird
train
toilet
chair, seat
tie
wine glass
dining table, table, coffee table
"""


def write(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Image 1 shows a dog, a dining table by its caption; image 2 shows nothing."""
    (tmp_path / "synonyms_refine.txt").write_text(SYNONYMS, encoding="utf-8")
    instances = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 18, "name": "dog"}],
        "annotations": [{"image_id": 1, "category_id": 18}] * 2,
    }
    write(tmp_path, "instances_val2014.json", instances)
    captions = [{"image_id": 1, "caption": "Puppies under a Coffee Table."}]
    write(tmp_path, "captions_val2014.json", {"annotations": captions})
    questions = [{"image_id": 1, "question": "Describe."}, {"image_id": 2, "question": "What?"}]
    lines = "".join(json.dumps(each) + "\n" for each in questions)
    (tmp_path / "obj_halbench_300_with_image.jsonl").write_text(lines, encoding="utf-8")
    return tmp_path


@pytest.fixture
def suite(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectHalBenchSuite:
    class Missing:
        def ensure_loaded(self) -> None:
            raise LookupError

    monkeypatch.setattr(nouns, "wordnet", Missing())
    return ObjectHalBenchSuite.load(folder)


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("Dogs and puppies.", ["dog", "puppy"]),
        ("A baby dog, an adult bird", ["dog", "bird"]),
        ("the passenger train on a train track", ["train"]),
        ("a bow tie", ["tie"]),
        ("two wine glasses on the tables", ["wine glass", "table"]),
        ("the toilet seat", ["toilet"]),
        ("a seat by the toilet", ["toilet"]),
        ("a seat", ["seat"]),
        ("One man. Men.", ["man"]),  # `men` is a noun of its own to WordNet
        ("a dog-like thing, a dog's bone", ["dog"]),
        ("coffee table", ["coffee table"]),
        ("coffee, table", ["table"]),
        ("", []),
    ],
)
def test_mentions(suite: ObjectHalBenchSuite, text: str, mentions: list[str]):
    assert suite.vocabulary.mentions(text) == mentions


def test_metrics_by_hand(suite: ObjectHalBenchSuite):
    responses = {
        "1": "Assistant: A dog and two puppies sit by a man.",
        "1/2": "A coffee table with a woman and a woman.",
        "2": "Nothing to see.",
    }
    sums = total(score_all(suite, responses))
    found = {each.name: float(each.of(sums)) for each in suite.metrics}
    assert found["CHAIRs"] == pytest.approx(200 / 3)
    assert found["CHAIRs_refined"] == 100
    assert found["CHAIRi"] == 50  # man, woman, woman of six mentions
    assert found["object_recall"] == 50  # dog of two, dining table of two, nothing of nothing
    assert found["length"] == pytest.approx((9 + 9 + 3) / 3)


def test_responses_of_one_image_are_one_cluster(suite: ObjectHalBenchSuite):
    assert suite.score("1/2", "A dog.").cluster == suite.score("1", "A dog.").cluster == "1"


def test_an_approximate_backend_says_so(suite: ObjectHalBenchSuite):
    assert suite.backend.startswith("approximate")
    assert suite.items == ["1", "2"]


def test_official_rows_are_read(suite: ObjectHalBenchSuite, tmp_path: Path):
    path = tmp_path / "answers.jsonl"
    rows = [{"question": "What?", "answer": "a"}, {"question": "What?", "answer": "b"}]
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    assert suite.read(path) == {"1": "a", "2": "b"}
    rows = [{"image_id": "1", "text": "a"}, {"image_id": 1, "text": "b"}]
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    assert suite.read(path) == {"1": "a", "1/2": "b"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image_id": 3, "answer": "a"}, r":1: image 3 is not in the ground truth"),
        ({"image_id": 1}, r":1: `caption` or .* is missing"),
        ({"image_id": "x.jpg", "answer": "a"}, r":1: `image_id` must be a COCO number"),
        ({"answer": "a"}, r"there must be 2, got 1"),
    ],
)
def test_broken_rows_are_refused(
    suite: ObjectHalBenchSuite, tmp_path: Path, row: dict[str, Any], message: str
):
    write(tmp_path, "answers.json", [row])
    with pytest.raises(ValueError, match=message):
        suite.read(tmp_path / "answers.json")


def test_missing_and_foreign_data_is_refused(folder: Path):
    write(folder, "instances_train2014.json", {"categories": [{"id": 1, "name": "kiwi"}]})
    with pytest.raises(ValueError, match=r"category 'kiwi' is not in the synonym list"):
        ObjectHalBenchSuite.load(folder)
    (folder / "captions_val2014.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"instances_train2014\.json"):
        ObjectHalBenchSuite.load(folder)


def test_sentences_end_before_words_are_split():
    assert tokens("a dog. a man's (dog)!") == [
        "a",
        "dog",
        ".",
        "a",
        "man",
        "'s",
        "(",
        "dog",
        ")",
        "!",
    ]


@needs_data
class TestWithWordNet:
    @pytest.fixture(autouse=True)
    def data(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nltk.data, "path", [str(DATA / "nltk_data")])

    def test_made_coco_set(self):
        """Counts of a plain restatement of the official script, with NLTK's own lemmatizer."""
        suite = ObjectHalBenchSuite.load(DATA)
        assert suite.backend.endswith("WordNet 3.0")
        responses = suite.read(DATA / "coco_synthetic/responses.json")
        sums = total(score_all(suite, dict(responses)))
        counts = ("responses", "hallucinating", "mentioning", "hallucinated", "mentions")
        assert [sums[name] for name in counts] == [16, 12, 15, 18, 49]
        assert [sums[name] for name in ("found", "objects", "words")] == [29, 36, 199]

    def test_the_approximate_backend_finds_nearly_the_same(self):
        suite = ObjectHalBenchSuite.load(DATA)
        objects = suite.vocabulary.objects
        known = frozenset(part for word in objects for part in word.split())
        approximate = Vocabulary(
            objects, lambda text: [approximate_noun(token, known) for token in tokens(text)]
        )
        path = DATA / "pope/captions/Instruction1_mplug.json"
        lines = path.read_text(encoding="utf-8").splitlines()[:400]
        captions = [json.loads(line)["text"] for line in lines]
        same = [approximate.mentions(t) == suite.vocabulary.mentions(t) for t in captions]
        assert sum(same) >= 398

    def test_wordnet_is_chosen_where_it_is_found(self):
        find, backend = noun_backend([])
        assert list(find("two teddies, leaves")) == ["two", "teddy", ",", "leaf"]
        assert "approximate" not in backend
