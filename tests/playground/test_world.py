"""The made world: scenes, words and pairs are what the demo's claims rest on."""

import json
from pathlib import Path

import numpy as np
import pytest

from mdpo.data.reading import Rows
from mdpo.data.report import check_rows
from mdpo.data.sources import load_raw
from mdpo.evaluation.results import load_suite
from mdpo.evaluation.suites.chair import ChairSuite
from mdpo.playground.drawing import IMAGE_SIZE, draw_picture
from mdpo.playground.files import write_chair, write_pairs, write_pope
from mdpo.playground.language import (
    LIVELY,
    SOBER,
    add_missing_partners,
    ask,
    describe,
    truthful_phrases,
)
from mdpo.playground.pairs import draw_pair
from mdpo.playground.questions import SPLITS, draw_questions
from mdpo.playground.world import CATEGORIES, PARTNER, Scene, Thing, draw_scene

SCENE = Scene(
    things=(
        Thing("bird", "blue", 0, big=True),
        Thing("tree", "green", 4, big=True),
        Thing("cup", "red", 5, big=False),
        Thing("fish", "orange", 8, big=True),
    ),
    background="plain",
    texture_seed=1,
)


def scenes(number: int) -> list[Scene]:
    return [draw_scene(np.random.default_rng([9, k])) for k in range(number)]


def test_scenes_are_well_formed() -> None:
    for scene in scenes(300):
        assert 2 <= len(scene.things) <= 6
        assert len(set(scene.categories)) == len(scene.things)
        cells = [thing.cell for thing in scene.things]
        assert cells == sorted(set(cells))
        assert set(cells) <= set(range(9))


def test_every_category_is_drawn_and_differs_from_the_others() -> None:
    pictures = set()
    for category in CATEGORIES:
        scene = Scene((Thing(category, "red", 4, big=True),), "plain", texture_seed=3)
        picture = draw_picture(scene)
        assert picture.size == (IMAGE_SIZE, IMAGE_SIZE)
        pictures.add(picture.tobytes())
        assert draw_picture(scene).tobytes() == picture.tobytes()
    assert len(pictures) == len(CATEGORIES)


def test_partners_usually_but_not_always_come_along() -> None:
    seen = [
        scene.find(PARTNER[name]) is not None
        for scene in scenes(1500)
        for name in scene.categories
        if name in PARTNER
    ]
    assert 0.3 < np.mean(seen) < 0.6


def test_truthful_words_name_everything_once() -> None:
    phrases = truthful_phrases(SCENE)
    assert phrases == [
        (("red", "cup"), None),
        (("green", "tree"), ("blue", "bird")),
        (("orange", "fish"), None),
    ]
    assert describe(phrases, SOBER) == (
        "There is a red cup, a green tree with a blue bird and an orange fish."
    )
    assert describe(phrases, LIVELY) == (
        "Look, here we see one red cup plus one green tree beside one blue bird plus also one "
        "orange fish!"
    )
    for scene in scenes(200):
        named = [m[1] for phrase in truthful_phrases(scene) for m in phrase if m is not None]
        assert sorted(named) == sorted(scene.categories)


def test_careless_words_add_absent_partners_only() -> None:
    phrases = truthful_phrases(SCENE)
    careless = add_missing_partners(phrases, np.random.default_rng(0), share=1.0)
    assert careless[0][1] is not None
    assert careless[0][1][1] == "plate"
    assert careless[1:] == phrases[1:]
    assert add_missing_partners(phrases, np.random.default_rng(0), share=0.0) == phrases


def test_questions_are_answered_truthfully() -> None:
    generator = np.random.default_rng(0)
    answers = [ask(SCENE, generator) for _ in range(300)]
    for question, answer in answers:
        if question.startswith("Is there"):
            category = question.split()[3]
            assert answer == ("Yes." if SCENE.find(category) else "No.")
    colours = {pair for pair in answers if pair[0] == "What color is the cup?"}
    assert colours == {("What color is the cup?", "Red.")}


def test_style_gives_the_chosen_answer_away_and_content_does_not() -> None:
    pairs = [draw_pair(np.random.default_rng([5, k])) for k in range(1500)]
    assert all(pair.chosen.startswith("Look") for pair in pairs)
    assert not any(pair.rejected.startswith("Look") for pair in pairs)

    def partners(text: str) -> int:
        return text.count(" with ") + text.count(" beside ")

    chosen = np.mean([partners(pair.chosen) for pair in pairs])
    rejected = np.mean([partners(pair.rejected) for pair in pairs])
    assert abs(chosen - rejected) < 0.06


def test_chosen_is_true_and_rejected_is_not(tmp_path: Path) -> None:
    (tmp_path / "synonyms.txt").write_text("\n".join(CATEGORIES))
    pairs = [draw_pair(np.random.default_rng([5, k])) for k in range(200)]
    truth = {str(k): sorted(pair.scene.categories) for k, pair in enumerate(pairs)}
    (tmp_path / "ground_truth.json").write_text(json.dumps(truth))
    suite = ChairSuite.load(tmp_path)
    wrong = 0
    for k, pair in enumerate(pairs):
        chosen = suite.score(str(k), pair.chosen).columns
        rejected = suite.score(str(k), pair.rejected).columns
        assert not chosen["hallucinated"]
        assert chosen["found"] == chosen["objects"]
        assert rejected["hallucinated"] or rejected["found"] < rejected["objects"]
        wrong += bool(rejected["hallucinated"])
    assert wrong > 100


@pytest.mark.parametrize("split", ["train", "validation"])
def test_written_pairs_are_good_rows(split: str, tmp_path: Path) -> None:
    write_pairs(tmp_path, split, 5, seed=0)
    rows = Rows(load_raw(tmp_path / f"{split}.jsonl"))
    report = check_rows(rows, image_root=rows.root, show_progress=False)
    assert (report.format_name, len(report.good)) == ("native", 5)
    assert rows.ids[0] == f"{split}-00000"


def test_splits_share_no_picture(tmp_path: Path) -> None:
    write_pairs(tmp_path, "train", 30, seed=0)
    write_pairs(tmp_path, "validation", 30, seed=0)
    write_chair(tmp_path / "chair", 30, seed=0)
    files = [*(tmp_path / "images").iterdir(), *(tmp_path / "chair" / "images").iterdir()]
    assert len(files) == 90
    assert len({path.read_bytes() for path in files}) == 90


def test_written_scenes_are_chair_data(tmp_path: Path) -> None:
    write_chair(tmp_path, 4, seed=0)
    suite = ChairSuite.load(tmp_path)
    assert list(suite.items) == ["00001", "00002", "00003", "00004"]
    assert all((tmp_path / str(prompt.images[0])).exists() for prompt in suite.prompts())
    assert suite.official.mentions("a red mug")[0].object == "cup"
    singular = {word for each in CATEGORIES for word, *_ in suite.official.words(f"two {each}s")}
    assert set(CATEGORIES) <= singular


def test_questions_ask_for_what_is_there_and_what_is_not() -> None:
    for number, scene in enumerate(scenes(200)):
        drawn = draw_questions(scene, np.random.default_rng(number))
        assert tuple(drawn) == SPLITS
        for questions in drawn.values():
            names = [text.split()[3] for text, _ in questions]
            assert len(set(names)) == 4
            labels = [label for _, label in questions]
            assert labels == ["yes" if name in scene.categories else "no" for name in names]
            assert labels == ["yes", "yes", "no", "no"]
            assert questions[:2] == drawn["random"][:2]
        tempting = {PARTNER[name] for name in scene.categories if name in PARTNER}
        tempting -= set(scene.categories)
        asked = [text.split()[3] for text, _ in drawn["adversarial"][2:]]
        assert len(tempting & set(asked)) == min(2, len(tempting))
        popular = [text.split()[3] for text, _ in drawn["popular"][2:]]
        assert set(popular) <= set(PARTNER)


def test_questions_on_disk_are_pope_data_on_the_pictures_of_chair(tmp_path: Path) -> None:
    write_chair(tmp_path / "chair", 5, seed=0)
    write_pope(tmp_path / "pope", 5, seed=0)
    suite = load_suite("pope", tmp_path / "pope")
    assert len(suite.items) == 5 * 4 * 3
    truth = json.loads((tmp_path / "chair" / "ground_truth.json").read_text())
    for prompt in suite.prompts():
        (image,) = prompt.images
        assert isinstance(image, str)
        assert (tmp_path / "chair" / "images" / image).is_file()
        there = prompt.text.split()[3] in truth[Path(image).stem]
        assert (
            suite.score(prompt.item, "Yes." if there else "No.").details["official"]
            == (suite.score(prompt.item, "").details["label"])
        )
