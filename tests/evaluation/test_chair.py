"""CHAIR on captions labelled by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from mdpo.evaluation.chair import (
    ChairData,
    Mention,
    ScoredCaption,
    chair_counts,
    summarise,
    write_scores,
)
from mdpo.evaluation.statistics import Estimate

SYNONYMS = """\
dog, puppy, dogs
Hot Dog,  hotdog

dining table, table, desk
cat
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "synonyms.txt").write_text(SYNONYMS, encoding="utf-8")
    truth = {"1": ["dog", "cat"], "2": ["hot dog"], "3": []}
    (tmp_path / "ground_truth.json").write_text(json.dumps(truth), encoding="utf-8")
    return tmp_path


@pytest.fixture
def data(folder: Path) -> ChairData:
    return ChairData.load(folder)


def named(data: ChairData, text: str) -> list[tuple[str, str]]:
    """Objects with the words that name them, cut out of the text by their span."""
    return [(each.object, text[each.start : each.end]) for each in data.mentions(text)]


def test_first_word_of_a_line_is_the_object(data: ChairData):
    assert data.synonyms == {
        "dog": "dog",
        "puppy": "dog",
        "dogs": "dog",
        "hot dog": "hot dog",
        "hotdog": "hot dog",
        "dining table": "dining table",
        "table": "dining table",
        "desk": "dining table",
        "cat": "cat",
    }


def test_ground_truth_is_read_by_image(data: ChairData):
    assert data.truth == {"1": {"dog", "cat"}, "2": {"hot dog"}, "3": frozenset()}


def test_mentions_have_exact_spans(data: ChairData):
    # 0123456789012345678901234567
    # A puppy on a dining table.
    assert data.mentions("A puppy on a dining table.") == [
        Mention("dog", 2, 7),
        Mention("dining table", 13, 25),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("...", []),
        ("A bird.", []),
        ("dog", [("dog", "dog")]),
        ("A Dog and a PUPPY", [("dog", "Dog"), ("dog", "PUPPY")]),
        ("a hot dog", [("hot dog", "hot dog")]),
        ("a Hot  Dog, a table", [("hot dog", "Hot  Dog"), ("dining table", "table")]),
        ("a hot\ndog", [("hot dog", "hot\ndog")]),
        ("a hot cat", [("cat", "cat")]),
        ("hot hot dog dog", [("hot dog", "hot dog"), ("dog", "dog")]),
        ("dining, table", [("dining table", "table")]),
        ("It is hot. Dog and cat.", [("dog", "Dog"), ("cat", "cat")]),
        ("hotdogs, doghouse, category", []),
        ("the dog's bowl, a cat-like toy", []),
        ("desk/table", [("dining table", "desk"), ("dining table", "table")]),
        ("'dog' (cat)", [("dog", "dog"), ("cat", "cat")]),
        ("dog dog dog", [("dog", "dog")] * 3),
    ],
)
def test_mentions_of_captions_labelled_by_hand(
    data: ChairData, text: str, expected: list[tuple[str, str]]
):
    assert named(data, text) == expected


def test_two_words_are_tried_before_one():
    data = ChairData({"dog": "dog", "hot dog": "food", "dog house": "house"}, {})
    # once taken, a word is not used again: `hot dog` leaves `house` alone
    assert named(data, "hot dog house") == [("food", "hot dog")]
    assert named(data, "a dog house") == [("house", "dog house")]


def test_words_with_apostrophe_or_hyphen_are_found_if_listed():
    data = ChairData({"teddy-bear": "toy", "child's bed": "bed"}, {})
    assert named(data, "A teddy-bear in a child's bed") == [
        ("toy", "teddy-bear"),
        ("bed", "child's bed"),
    ]


def test_spans_hold_after_letters_that_grow_in_lower_case(data: ChairData):
    """A capital I with dot is two characters in lower case, which moved all spans after it."""
    assert data.mentions("İİ, a dog.") == [Mention("dog", 6, 9)]


def test_words_on_both_sides_of_a_comma_are_not_one_object(data: ChairData):
    """``hot, dog`` was taken for a hot dog."""
    assert named(data, "It is hot, dogs and a hot, dog") == [("dog", "dogs"), ("dog", "dog")]


def test_score_by_hand(data: ChairData):
    text = "A puppy, a dog and a table; no hot dog on the desk."
    scored = data.score("1", text)
    assert scored == ScoredCaption(
        image_id="1",
        text=text,
        mentions=(
            Mention("dog", 2, 7),
            Mention("dog", 11, 14),
            Mention("dining table", 21, 26),
            Mention("hot dog", 31, 38),
            Mention("dining table", 46, 50),
        ),
        hallucinated=(
            Mention("dining table", 21, 26),
            Mention("hot dog", 31, 38),
            Mention("dining table", 46, 50),
        ),
        num_named=1,
        num_true=2,
        num_words=13,
    )


def test_empty_caption_names_nothing(data: ChairData):
    assert data.score("1", "") == ScoredCaption("1", "", (), (), 0, 2, 0)


def test_everything_named_in_an_empty_picture_is_hallucinated(data: ChairData):
    scored = data.score("3", "a cat")
    assert scored.hallucinated == scored.mentions == (Mention("cat", 2, 5),)
    assert (scored.num_named, scored.num_true) == (0, 0)


def test_images_without_ground_truth_are_refused(data: ChairData):
    with pytest.raises(ValueError, match=r"Image '99' has no entry in the ground truth"):
        data.score("99", "a dog")


@pytest.mark.parametrize("missing", ["synonyms.txt", "ground_truth.json"])
def test_missing_files_are_refused_with_what_they_must_hold(folder: Path, missing: str):
    (folder / missing).unlink()
    with pytest.raises(FileNotFoundError, match=r"must hold synonyms\.txt .* and ground_truth"):
        ChairData.load(folder)


def test_several_ground_truths_are_refused_by_name(folder: Path):
    (folder / "ground_truth_val.json").write_text("{}", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"must hold one ground truth, got ground_truth\.json, ground_truth_val"
    ):
        ChairData.load(folder)


def test_ground_truth_may_carry_a_longer_name(folder: Path):
    (folder / "ground_truth.json").rename(folder / "ground_truth_val.json")
    assert set(ChairData.load(folder).truth) == {"1", "2", "3"}


def test_ground_truth_that_is_no_list_is_refused(folder: Path):
    """Text was taken for a list of its letters."""
    (folder / "ground_truth.json").write_text('{"1": ["dog"], "2": "dog"}', encoding="utf-8")
    with pytest.raises(
        ValueError,
        match=r"ground_truth\.json: objects of image '2' must be a list, got 'dog'",
    ):
        ChairData.load(folder)


def made_captions(data: ChairData) -> list[ScoredCaption]:
    """Two images; the second has two captions and comes first."""
    return [
        data.score("2", "A hot dog beside a cat and a dog."),  # 3 mentions, 2 wrong; 9 words
        data.score("1", "A dog."),  # 1 mention, right; 2 words
        data.score("2", "Food."),  # none; 1 word
    ]


def test_counts_are_added_up_per_image(data: ChairData):
    counts = chair_counts(made_captions(data))
    assert {name: (a.tolist(), b.tolist()) for name, (a, b) in counts.items()} == {
        "CHAIRs": ([0, 1], [1, 2]),
        "CHAIRi": ([0, 2], [1, 3]),
        "Recall": ([1, 1], [2, 2]),
        "words": ([2, 10], [1, 2]),
    }


def test_repeated_objects_count_as_often_as_they_are_named(data: ChairData):
    # hallucinated: cat twice, desk once, of five mentions; Recall counts the hot dog once
    counts = chair_counts([data.score("2", "A cat, a cat, a desk, a hotdog, a hot dog.")])
    assert [total.tolist() for total in counts["CHAIRi"]] == [[3], [5]]
    assert [total.tolist() for total in counts["Recall"]] == [[1], [1]]


def test_summary_by_hand(data: ChairData):
    summary = summarise(made_captions(data))
    assert list(summary) == ["CHAIRs", "CHAIRi", "Recall", "words"]
    assert summary["CHAIRs"].value == pytest.approx(100 * 1 / 3)
    assert summary["CHAIRi"].value == pytest.approx(100 * 2 / 4)
    assert summary["Recall"].value == pytest.approx(100 * 2 / 4)
    assert summary["words"].value == pytest.approx(12 / 3)
    assert {estimate.n for estimate in summary.values()} == {2}


def test_intervals_are_over_images_by_hand(data: ChairData):
    # samples: image 1 twice, both once, image 2 twice; each end has a chance of 1/4
    summary = summarise(made_captions(data))
    assert (summary["CHAIRs"].low, summary["CHAIRs"].high) == pytest.approx((0, 50))
    assert (summary["CHAIRi"].low, summary["CHAIRi"].high) == pytest.approx((0, 200 / 3))
    assert (summary["words"].low, summary["words"].high) == pytest.approx((2, 5))


def test_intervals_depend_on_the_seed_and_not_on_the_order_of_captions(data: ChairData):
    generator = np.random.default_rng(0)
    data.truth.update({str(k): frozenset({"dog"}) for k in range(100)})
    texts = ["a dog", "a cat and a dog", "a cat", "a desk, a cat, a dog"]
    captions = [data.score(str(k), str(generator.choice(texts))) for k in range(100)]
    assert summarise(captions, seed=1) == summarise(captions[::-1], seed=1)
    assert summarise(captions, seed=1) != summarise(captions, seed=2)
    assert summarise(captions) == summarise(captions, seed=0)


def test_captions_that_name_nothing_leave_chair_i_unmeasured(data: ChairData):
    summary = summarise([data.score("1", ""), data.score("2", "Sky.")])
    assert summary["CHAIRs"] == Estimate(0.0, 0.0, 0.0, 2)
    assert summary["CHAIRi"] == Estimate(None, None, None, 2)
    assert summary["Recall"].value == 0.0


def test_duplicated_captions_change_nothing(data: ChairData):
    captions = made_captions(data)
    assert summarise(captions * 2) == summarise(captions)


def test_no_captions_are_refused():
    with pytest.raises(ValueError, match=r"at least one caption to score, got none"):
        summarise([])


def test_items_are_written_one_a_line(data: ChairData, tmp_path: Path):
    captions = [data.score("1", "Ein Café, a table."), data.score("3", "")]
    out = tmp_path / "a" / "b"
    write_scores(out, captions, summarise(captions))
    lines = (out / "items.jsonl").read_text(encoding="utf-8").splitlines()
    assert "Café" in lines[0]
    mention = {"object": "dining table", "start": 12, "end": 17}
    assert [json.loads(line) for line in lines] == [
        {
            "image_id": "1",
            "text": "Ein Café, a table.",
            "mentions": [mention],
            "hallucinated": [mention],
            "num_named": 0,
            "num_true": 2,
            "num_words": 4,
        },
        {
            "image_id": "3",
            "text": "",
            "mentions": [],
            "hallucinated": [],
            "num_named": 0,
            "num_true": 0,
            "num_words": 0,
        },
    ]


def test_metrics_are_written_with_interval_n_and_direction(data: ChairData, tmp_path: Path):
    summary = {
        "CHAIRs": Estimate(33.0, 20.0, 40.0, 5),
        "CHAIRi": Estimate(None, None, None, 5),
        "Recall": Estimate(50.0, 40.0, 60.0, 5),
        "words": Estimate(4.0, 3.0, 5.0, 5),
    }
    write_scores(tmp_path, made_captions(data), summary)
    assert json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8")) == {
        "suite": "chair",
        "mode": "exact words",
        "metrics": {
            "CHAIRs": {"value": 33.0, "low": 20.0, "high": 40.0, "n": 5, "direction": "lower"},
            "CHAIRi": {"value": None, "low": None, "high": None, "n": 5, "direction": "lower"},
            "Recall": {"value": 50.0, "low": 40.0, "high": 60.0, "n": 5, "direction": "higher"},
            "words": {"value": 4.0, "low": 3.0, "high": 5.0, "n": 5, "direction": None},
        },
    }


def test_scores_are_written_over_older_ones(data: ChairData, tmp_path: Path):
    captions = made_captions(data)
    write_scores(tmp_path, captions, summarise(captions))
    write_scores(tmp_path, captions[:1], summarise(captions[:1]))
    assert len((tmp_path / "items.jsonl").read_text(encoding="utf-8").splitlines()) == 1
