"""Blind comparison: pairs, page, votes and what they amount to."""

import json
from pathlib import Path
from typing import Any

import pytest
from devtools import chromium, needs_chromium
from PIL import Image

from mdpo.cli import main
from mdpo.evaluation.human.page import write_page
from mdpo.evaluation.human.pairs import Answered, make_pairs, read_answers
from mdpo.evaluation.human.votes import count_votes, krippendorff_alpha, lines_of, read_ballots

SCRIPT = "</script><script>document.title = 'broken'</script>"


def answers(*texts: str) -> dict[str, Answered]:
    return {f"i{k}": Answered(f"What {k}?", [f"{k}.png"], text) for k, text in enumerate(texts)}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for k in range(12):
        Image.new("RGB", (64, 48), (20 * k, 99, 180)).save(folder / f"{k}.png")
    return folder


def test_sides_depend_on_seed_and_item_alone():
    ours, theirs = answers(*"abcdefghijkl"), answers(*"ABCDEFGHIJKL")
    pairs = make_pairs(ours, theirs, number=99, seed=0)
    sides = {pair.item: pair.left for pair in pairs.shown}
    assert 2 <= sum(sides.values()) <= 10
    for pair in pairs.shown:
        expected = (ours[pair.item].response, theirs[pair.item].response)
        assert pair.answers == (expected if pair.left == 0 else expected[::-1])
    fewer = {key: each for key, each in ours.items() if key != "i3"}
    again = make_pairs(fewer, theirs, number=99, seed=0)
    assert {pair.item: pair.left for pair in again.shown} == {
        item: left for item, left in sides.items() if item != "i3"
    }
    other = make_pairs(ours, theirs, number=99, seed=1)
    assert {pair.item: pair.left for pair in other.shown} != sides
    assert [pair.item for pair in other.shown] != [pair.item for pair in pairs.shown]


def test_what_is_not_shown_is_counted():
    ours, theirs = answers("a", "b", "c ", "d"), answers("A", "B", "c")
    pairs = make_pairs(ours, theirs, number=1, seed=0)
    assert (list(pairs.identical), list(pairs.unshared), pairs.left_out) == (["i2"], ["i3"], 1)
    with pytest.raises(ValueError, match="share 1 items and answer all of them alike"):
        make_pairs(answers("a"), answers("a "), number=1, seed=0)


def test_runs_and_files_of_answers_are_read(tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    records = [
        {"item": "a", "prompt": "What?", "images": ["x.png"], "response": "one"},
        {"item": "b", "error": "broken"},
    ]
    (run / "generations.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    assert read_answers(run) == {"a": Answered("What?", ["x.png"], "one")}
    rows = [{"question_id": 1, "question": "Q?", "image": "x.png", "text": "t"}]
    file = tmp_path / "a.json"
    file.write_text(json.dumps(rows))
    assert read_answers(file) == {"1": Answered("Q?", ["x.png"], "t")}
    file.write_text(json.dumps(rows * 2))
    with pytest.raises(ValueError, match=r"a.json:2: item '1' is answered twice"):
        read_answers(file)


def key_of(number: int, **more: Any) -> dict[str, Any]:
    items = [{"item": f"i{k}", "left": "A" if k % 2 else "B"} for k in range(number)]
    return {"page": "p", "names": ["A", "B"], "items": items, "identical": [], **more}


def vote_file(folder: Path, rater: str, votes: dict[int, str], page: str = "p") -> Path:
    path = folder / f"votes-{rater}.json"
    written = {"page": page, "rater": rater, "votes": {str(k): v for k, v in votes.items()}}
    path.write_text(json.dumps(written))
    return path


def test_votes_by_hand(tmp_path: Path):
    key = key_of(4, identical=["x"])
    # A stands on the right of items 0 and 2, on the left of 1 and 3
    files = [
        vote_file(tmp_path, "Ann", {0: "right", 1: "left", 2: "both", 3: "right"}),
        vote_file(tmp_path, "Bob", {0: "right", 1: "neither", 2: "right"}),
    ]
    outcome = count_votes(key, read_ballots(key, files))
    values = {name: each.value for name, each in outcome.shares.items()}
    assert values == {
        "win": pytest.approx(400 / 7),
        "tie": pytest.approx(200 / 7),
        "loss": pytest.approx(100 / 7),
    }
    assert (outcome.items, outcome.votes, outcome.missing) == (4, 7, 1)
    assert outcome.majority == {"win": 3, "tie": 0, "loss": 1}
    assert outcome.p == pytest.approx(2 * 5 / 16)
    assert outcome.raters["Ann"] == {
        **{"win": 2, "tie": 1, "loss": 1},
        **{"left": 1, "right": 2, "both": 1, "neither": 0},
    }
    text = "\n".join(lines_of(outcome))
    assert "A better" in text
    assert "7 votes of 2 raters on 4 items, 1 missing" in text
    assert "1 items were answered alike" in text
    alone = count_votes(key, read_ballots(key, files[:1]))
    assert alone.agreement is None
    assert "not measured" in "\n".join(lines_of(alone))


def test_intervals_draw_items_and_not_votes(tmp_path: Path):
    """Ten people who agree on four items know no more than one."""
    key = key_of(4)
    votes = {0: "right", 1: "left", 2: "left", 3: "right"}
    one = read_ballots(key, [vote_file(tmp_path, "r0", votes)])
    ten = read_ballots(key, [vote_file(tmp_path, f"r{k}", votes) for k in range(10)])
    assert count_votes(key, ten).shares == count_votes(key, one).shares
    assert count_votes(key, one).shares["win"].value == 50.0


def test_krippendorffs_alpha():
    # his example of nominal data: 12 units, 4 people, missing votes (2011, section C): 0.743
    table = [
        *("1*11", "2232", "3333", "3333", "2222", "1234", "4444", "1121", "2222", "*555", "**11"),
        "**3*",
    ]
    units = [[vote for vote in row if vote != "*"] for row in table]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha([["a", "a"], ["b", "b"]]) == 1.0
    # two people, always apart: coincidences 2 and 2, so 1 - 3 * 4 / 8
    assert krippendorff_alpha([["a", "b"], ["b", "a"]]) == pytest.approx(-0.5)
    assert krippendorff_alpha([["a"], ["b"]]) is None
    assert krippendorff_alpha([["a", "a"], ["a", "a"]]) is None
    assert krippendorff_alpha([]) is None


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"page": "q", "rater": "a", "votes": {}}, "on another page"),
        ({"page": "p", "rater": " ", "votes": {}}, "`rater` must be a name"),
        ({"page": "p", "rater": "a", "votes": {"9": "left"}}, "'9': 'left' is not one"),
        ({"page": "p", "rater": "a", "votes": {"0": "up"}}, "'0': 'up' is not one"),
        ({"page": "p", "rater": "a", "votes": {"-1": "left"}}, "'-1': 'left' is not one"),
        ([], "must be what the page saves"),
    ],
)
def test_foreign_votes_are_refused(tmp_path: Path, written: Any, message: str):
    path = tmp_path / "v.json"
    path.write_text(json.dumps(written))
    with pytest.raises(ValueError, match=message):
        read_ballots(key_of(2), [path])


def test_a_person_votes_once(tmp_path: Path):
    key = key_of(2)
    first = vote_file(tmp_path, "a", {0: "left"})
    (tmp_path / "copy.json").write_text(first.read_text())
    assert len(read_ballots(key, [first, tmp_path / "copy.json"])) == 1
    (tmp_path / "copy.json").write_text(first.read_text().replace("left", "right"))
    with pytest.raises(ValueError, match="'a' has voted in another file too"):
        read_ballots(key, [first, tmp_path / "copy.json"])
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        read_ballots(key, [tmp_path / "bad.json"])
    with pytest.raises(ValueError, match="at least one vote"):
        count_votes(key, [])


def test_the_page_does_not_tell_who_is_who(tmp_path: Path, images: Path):
    pairs = make_pairs(answers("a", SCRIPT), answers("A", "B"), number=9, seed=0)
    digest = write_page(tmp_path, pairs, names=["secretone", "secrettwo"], images=images)
    page = (tmp_path / "page.html").read_text()
    key = json.loads((tmp_path / "key.json").read_text())
    assert "secret" not in page
    assert "i0" not in page
    assert SCRIPT not in page
    assert digest in page
    assert key["page"] == digest
    for pair, row in zip(pairs.shown, key["items"], strict=True):
        assert row == {"item": pair.item, "left": ["secretone", "secrettwo"][pair.left]}
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="2 images are missing"):
        write_page(tmp_path, pairs, names=["a", "b"], images=tmp_path / "none")
    again = write_page(tmp_path, pairs, names=["a", "b"], images=images)
    assert again == digest
    other = write_page(tmp_path, pairs, names=["a", "b"], images=images, question="Why?")
    assert other != digest


def test_from_the_command_line(tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]):
    for name, text in (("mdpo", "a dog"), ("dpo", "a cat")):
        rows = [{"item": str(k), "image": f"{k}.png", "text": f"{text} {k}"} for k in range(5)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    both = [str(tmp_path / "mdpo.json"), str(tmp_path / "dpo.json")]
    out = tmp_path / "vote"
    assert main(["compare", *both, "--images", str(images), "--out", str(out), "--items", "4"]) == 0
    told = capsys.readouterr()
    assert "4 pairs; 0 items are answered alike, 0 by one system only, 1 not drawn" in told.err
    key = json.loads((out / "key.json").read_text())
    assert key["names"] == ["mdpo", "dpo"]
    votes = {k: "left" if row["left"] == "mdpo" else "right" for k, row in enumerate(key["items"])}
    file = vote_file(tmp_path, "Ann", votes, key["page"])
    result = tmp_path / "result.json"
    assert main(["compare", "votes", str(out / "key.json"), str(file), "--json", str(result)]) == 0
    assert "100.0 [100.0, 100.0] %" in capsys.readouterr().out
    assert json.loads(result.read_text())["majority"] == {"win": 4, "tie": 0, "loss": 0}
    assert main(["compare", *both, "--names", "x", "--out", str(out)]) == 2
    assert main(["compare", "--help"]) == 0


@needs_chromium
class TestPage:
    @pytest.fixture
    def page_file(self, tmp_path: Path, images: Path) -> Path:
        pairs = make_pairs(answers("a", SCRIPT, "c"), answers("A", "B", "C"), number=9, seed=0)
        write_page(tmp_path, pairs, names=["x", "y"], images=images)
        return tmp_path / "page.html"

    def test_a_vote_is_stored_and_can_be_changed(self, page_file: Path):
        with chromium() as page:
            page.open(page_file)
            shown = "document.getElementById('count').textContent"
            assert page.evaluate(shown) == "1 of 3, 0 voted"
            assert page.evaluate("document.querySelectorAll('[data-vote]').length") == 4
            assert page.evaluate("document.querySelector('#images img').naturalWidth") == 64
            assert page.evaluate("document.title") == "Which answer is better?"
            page.press("1")
            assert page.evaluate(shown) == "2 of 3, 1 voted"
            page.press("4")
            stored = "JSON.parse(localStorage.getItem('mdpo-compare-' + data.page)).votes"
            assert page.evaluate(stored) == {"0": "left", "1": "neither"}
            page.press("Backspace")
            page.press("2")
            assert page.evaluate(stored) == {"0": "left", "1": "right"}
            page.evaluate("document.querySelector('[data-vote=both]').click()")
            assert page.evaluate(shown) == "3 of 3, 3 voted"
            assert "All votes are given" in page.evaluate(
                "document.getElementById('message').textContent"
            )
            page.open(page_file)
            assert page.evaluate(shown) == "3 of 3, 3 voted"
            assert page.evaluate("document.getElementById('second').className") == "chosen"
            assert not page.errors
            assert all(each.startswith(("file:", "data:")) for each in page.requests)

    def test_votes_are_saved_under_a_name(self, page_file: Path):
        with chromium() as page:
            page.open(page_file)
            page.press("2")
            page.press("s")
            assert "Write your name" in page.evaluate(
                "document.getElementById('message').textContent"
            )
            page.evaluate(
                "document.getElementById('rater').value = 'Ann B.';"
                "document.getElementById('rater').dispatchEvent(new Event('input'));"
                "document.getElementById('rater').blur()"
            )
            saved = json.loads(page.evaluate("asFile()"))
            assert saved["rater"] == "Ann B."
            assert saved["votes"] == {"0": "right"}
            key = json.loads((page_file.parent / "key.json").read_text())
            assert saved["page"] == key["page"]
            page.evaluate("load(new File([JSON.stringify({page: 'other', votes: {}})], 'v.json'))")
            assert "does not hold votes" in page.evaluate(
                "document.getElementById('message').textContent"
            )
            good = json.dumps({"page": key["page"], "rater": "Eve", "votes": {"2": "both"}})
            page.evaluate(f"load(new File([{json.dumps(good)}], 'v.json'))")
            assert page.evaluate("Object.keys(state.votes).join()") == "2"
            assert page.evaluate("document.getElementById('rater').value") == "Eve"
            assert not page.errors

    def test_it_fits_narrow_windows(self, page_file: Path):
        with chromium() as page:
            for width in (360, 800, 1600):
                page.open(page_file, width=width)
                assert page.evaluate("document.documentElement.scrollWidth") <= width
