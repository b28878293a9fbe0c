"""Reports: what is read, what is compared and what is refused; the text and the JSON."""

import base64
import io
import json
from pathlib import Path

import pytest
from made_runs import change, make_data, make_run
from PIL import Image

from mdpo.cli import main
from mdpo.evaluation.comparison import Difference
from mdpo.evaluation.published import PUBLISHED
from mdpo.evaluation.report.browsing import ABSENT, PLAIN, THERE, browsable, pieces
from mdpo.evaluation.report.findings import findings, to_json
from mdpo.evaluation.report.gather import gather
from mdpo.evaluation.report.markdown import aligned, as_markdown, difference_text, p_text
from mdpo.evaluation.report.page import _Scale
from mdpo.evaluation.report.pictures import Pictures


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make_data(folder / "data")
    make_run(folder / "data", folder / "runs", "base")
    make_run(folder / "data", folder / "runs", "mdpo")
    return folder


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> Path:
    """Runs that a test may change."""
    for system in ("base", "mdpo"):
        make_run(made / "data", tmp_path, system)
    return tmp_path


def systems(folder: Path) -> list[Path]:
    return [folder / "base", folder / "mdpo"]


def test_runs_are_called_by_their_folders(made: Path):
    scored = gather(systems(made / "runs"))
    assert [(each.system, each.suite) for each in scored] == [
        ("base", "chair"),
        ("base", "pope"),
        ("mdpo", "chair"),
        ("mdpo", "pope"),
    ]
    single = gather([made / "runs/base/pope", made / "runs/mdpo/pope"])
    assert [each.system for each in single] == ["base", "mdpo"]


def test_runs_of_one_name_are_of_one_system(made: Path):
    folders = [made / "runs/base/pope", made / "runs/base/chair"]
    (found, other) = findings(gather(folders))
    assert (list(found.runs), list(other.runs)) == (["base"], ["base"])
    named = gather(systems(made / "runs"), ["a", "b"])
    assert {each.system for each in named} == {"a", "b"}


def test_one_system_twice_is_refused(made: Path):
    with pytest.raises(ValueError, match=r"both chair of 'a'.*--names"):
        gather(systems(made / "runs"), ["a", "a"])
    with pytest.raises(ValueError, match="one name per run, got 1 for 2"):
        gather(systems(made / "runs"), ["a"])


def test_folders_without_metrics_are_refused(runs: Path):
    with pytest.raises(FileNotFoundError, match=r"metrics\.json"):
        gather([runs / "nowhere"])
    (runs / "base/pope/items.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"items\.jsonl not found"):
        gather([runs / "base"])


@pytest.mark.parametrize(
    ("line", "said"),
    [("[1]", "JSON object"), ("{", "JSON object"), ('{"item": "1"}', "lacks `cluster`")],
)
def test_broken_items_are_refused_by_line(runs: Path, line: str, said: str):
    path = runs / "base/pope/items.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"items\.jsonl:7: .*{said}"):
        gather([runs / "base"])


def test_foreign_metrics_are_refused(runs: Path):
    change(runs / "base/pope/metrics.json", suite="bogus")
    with pytest.raises(ValueError, match=r"pope/metrics\.json: `suite` must be .*'bogus'"):
        gather([runs / "base"])


def test_differences_by_hand(made: Path):
    chair, pope = findings(gather(systems(made / "runs")))
    # base: 3 of 4 captions, mdpo: 1 of 4; words 9 with 3 absent, 5 with 1 absent
    found = chair.comparisons["mdpo"].differences
    assert found["CHAIRs"].value == pytest.approx(-50)
    assert found["CHAIRi"].value == pytest.approx(100 * (1 / 5 - 3 / 9))
    # of 6 objects 6 and 4
    assert found["Recall"].value == pytest.approx(100 * (4 / 6 - 6 / 6))
    # the official rule reads "I cannot tell" as yes: right are 1, 3 against 1, 2, 3, 4
    counts = pope.comparisons["mdpo"].right_or_wrong
    assert counts is not None
    assert (counts.both, counts.only_baseline, counts.only_system, counts.neither) == (2, 0, 2, 2)
    assert pope.comparisons["mdpo"].differences["accuracy"].value == pytest.approx(100 / 3)


def test_coverage_is_warned_about(made: Path):
    chair, pope = findings(gather(systems(made / "runs")))
    assert "CHAIRs and CHAIRi fell, but Recall fell too, by 33.3" in chair.warnings["mdpo"][0]
    assert "shorter" in chair.warnings["mdpo"][1]
    assert not any("fell too" in said for said in pope.warnings["mdpo"])


def test_another_baseline_turns_signs(made: Path):
    chair, _ = findings(gather(systems(made / "runs")), "mdpo")
    assert chair.baseline == "mdpo"
    assert chair.comparisons["base"].differences["CHAIRs"].value == pytest.approx(50)
    assert chair.warnings["base"] == []
    with pytest.raises(ValueError, match="one of base, mdpo, got 'sft'"):
        findings(gather(systems(made / "runs")), "sft")


def test_benchmarks_without_the_baseline_take_the_first_system(made: Path):
    scored = gather([made / "runs/base/chair", made / "runs/mdpo"])
    assert [each.baseline for each in findings(scored)] == ["base", "mdpo"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("data", {"coco_pope_random.json": "0" * 64}, "data differs: coco_pope_random.json"),
        ("backend", "approximate: none", "backend differs: 'approximate: none', base has 'string"),
        ("mode", "official, 3 items without an answer", "mode differs"),
        ("judge", {"model": "another"}, "judge differs"),
    ],
)
def test_runs_made_otherwise_are_not_compared(runs: Path, key: str, value: object, said: str):
    change(runs / "mdpo/pope/metrics.json", **{key: value})
    chair, pope = findings(gather(systems(runs)))
    assert pope.apart["mdpo"][0].startswith(said)
    assert pope.comparisons == {}
    assert list(chair.comparisons) == ["mdpo"]
    text = as_markdown([pope], [])
    assert f"**NOT COMPARABLE: mdpo with base: {said}" in text
    assert "mdpo (not comparable)" in text
    assert ": less base" not in text
    assert to_json([pope])["suites"]["pope"]["not_comparable"]["mdpo"] == pope.apart["mdpo"]


def test_runs_without_a_shared_item_are_not_compared(runs: Path):
    path = runs / "mdpo/pope/items.jsonl"
    text = path.read_text(encoding="utf-8").replace("coco/random/", "coco/random/9")
    path.write_text(text, encoding="utf-8")
    _, pope = findings(gather(systems(runs)))
    assert pope.apart["mdpo"] == ["no item was answered by both"]


def test_items_of_one_system_are_left_out_and_said(runs: Path):
    path = runs / "mdpo/pope/items.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:4]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    _, pope = findings(gather(systems(runs)))
    assert "mdpo against base: 4 shared items; left out: 2 that only base answered." in (
        as_markdown([pope], [])
    )


def test_other_settings_of_generation_are_said(runs: Path):
    for system, tokens in (("base", 64), ("mdpo", 128)):
        settings = {
            "suite": "chair",
            "weights": [system],
            "decoding": {"max_new_tokens": tokens, "num_beams": 1},
            "model": system,
            "image_root": f"/images/{system}",
            "may_differ": ["image_root", "model"],
        }
        change(runs / system / "chair/metrics.json", generation=settings)
    chair, _ = findings(gather(systems(runs)))
    assert chair.warnings["mdpo"][0] == (
        "Note: answers were generated with other settings than the baseline's: max_new_tokens "
        "128 (64)."
    )


def test_judges_differ_by_model_and_prompt_and_not_by_where_they_are(runs: Path):
    judge = {"model": "j", "prompt": "a.py", "prompt_sha256": "00", "endpoint": "http://a"}
    judge |= {"repeats": 1, "may_differ": ["endpoint", "repeats"]}
    change(runs / "base/pope/metrics.json", judge=judge)
    moved = {"prompt": "b.py", "endpoint": "http://b", "repeats": 3}
    change(runs / "mdpo/pope/metrics.json", judge=judge | moved)
    assert findings(gather(systems(runs)))[1].apart["mdpo"] == []
    change(runs / "mdpo/pope/metrics.json", judge=judge | {"prompt_sha256": "11", "model": "k"})
    assert findings(gather(systems(runs)))[1].apart["mdpo"] == [
        "judge differs: model, prompt_sha256"
    ]


def test_noise_of_judges_is_said_for_what_papers_print(runs: Path):
    measured = {"mean": 1.0, "sd": 0.25, "values": [0.75, 1.0, 1.25]}
    noise = {"accuracy": measured, "robust/accuracy": measured}
    change(runs / "base/pope/metrics.json", judge_noise=noise)
    _, pope = findings(gather(systems(runs)))
    assert pope.notes() == [
        "base: accuracy has a standard deviation of 0.25 over 3 judgments of the same answers."
    ]


def test_approximate_backends_and_own_judges_are_marked_in_tables(runs: Path):
    judge = {"model": "j", "comparable": False, "why": "our wording"}
    for system in ("base", "mdpo"):
        change(runs / system / "pope/metrics.json", backend="approximate: no tagger", judge=judge)
    _, pope = findings(gather(systems(runs)))
    text = as_markdown([pope], [])
    assert text.count("| pope (approximate, own judge)") == 2
    assert "- Language backend: approximate: no tagger." in text
    assert "base: not comparable with published numbers" in text
    assert "(our wording)" in text
    assert list(pope.comparisons) == ["mdpo"]


def test_markdown_has_values_floors_and_counts(made: Path):
    text = as_markdown(findings(gather(systems(made / "runs"))), [])
    (accuracy,) = [line for line in text.split("\n") if line.startswith("| accuracy ")][:1]
    assert "higher is better" in accuracy
    assert "33.3 [" in accuracy
    assert "66.7 [" in accuracy
    assert "always yes 50.0, always no 50.0" in accuracy
    assert "| mdpo   |      6 |      0 |       0 |" in text
    assert "mdpo: 2 items right that base has wrong, 0 the other way round" in text
    assert "yes_ratio" not in text
    tables = [line for line in text.split("\n") if line.startswith("|")]
    assert tables
    blocks = text.split("\n\n")
    for block in blocks:
        lines = [line for line in block.split("\n") if line.startswith("|")]
        assert len({len(line) for line in lines}) <= 1


def test_published_tables_are_marked(made: Path):
    text = as_markdown(findings(gather([made / "runs/base"])), PUBLISHED)
    assert "## Published, not measured here" in text
    headings = [line for line in text.split("\n") if line.startswith("### ")]
    assert len(headings) == len(PUBLISHED)
    assert all(line.endswith("(published)") for line in headings)
    assert "| Bunny-v1.0-3B + mDPO " in text


def test_floors_of_each_system_stand_side_by_side(made: Path):
    chair, pope = findings(gather(systems(made / "runs")))
    assert pope.floors("accuracy") == {"always yes": [50.0], "always no": [50.0]}
    (shuffled,) = chair.floors("Recall").values()
    assert len(shuffled) == 2
    assert f"shuffled images {shuffled[0]:.1f}/{shuffled[1]:.1f}" in as_markdown([chair], [])


def test_ratings_have_two_decimals_and_other_numbers_one(made: Path):
    make_run(made / "data", made / "judged", "base", ("mmhal",))
    (mmhal,) = findings(gather([made / "judged/base/mmhal"]))
    assert [mmhal.digits(name) for name in ("score", "robust/score", "other")] == [2, 2, 2]
    assert mmhal.digits("robust/hallucination_rate") == 1
    assert [mmhal.headline(name) for name in ("score", "attribute", "robust/score")] == [
        True,
        False,
        False,
    ]
    items, _ = browsable(mmhal, Pictures(None), 10)
    answers = [each["answers"]["base"] for each in items]
    assert [each["hallucinated"] for each in answers] == [k % 7 < 3 for k in range(8)]
    assert answers[2]["verdict"] == "rated 2 of 6, hallucinated"


def test_separators_inside_answers_are_no_line_ends(runs: Path):
    path = runs / "base/pope/items.jsonl"
    text = path.read_text(encoding="utf-8").replace('"No."', '"No\u2028."')
    path.write_text(text, encoding="utf-8")
    assert len(gather([runs / "base"])[1].items) == 6


def test_images_of_items_without_records_are_named_by_their_cluster(made: Path):
    _, pope = findings(gather(systems(made / "runs")))
    items, _ = browsable(pope, Pictures(made / "data/images"), 10)
    assert [each["images"] for each in items] == [[0], [0], [1], [1], [2], [2]]


def test_what_is_shown_as_zero_has_no_sign():
    assert difference_text(Difference(-0.01, -0.04, 0.06, 0.5), 1) == ("0.0", "[0.0, +0.1]")
    assert difference_text(Difference(2, -1, 5, 0.5), 2) == ("+2.00", "[-1.00, +5.00]")
    assert difference_text(None, 1) == ("-", "")


def test_cells_cannot_end_their_table():
    assert aligned(["a", "b"], [["x|y", "1\n2"]])[2] == "| x\\|y | 1 2 |"


def test_undefined_metrics_are_named_and_not_shown(runs: Path):
    for system in ("base", "mdpo"):
        path = runs / system / "pope/metrics.json"
        metrics = json.loads(path.read_text(encoding="utf-8"))["metrics"]
        metrics["recall"] |= {"value": None, "exact": None, "low": None, "high": None}
        change(path, metrics=metrics)
    _, pope = findings(gather(systems(runs)))
    text = as_markdown([pope], [])
    assert "not shown: recall." in text
    assert "| recall " not in text


def test_p_values_are_never_zero():
    assert [p_text(each) for each in (None, 0.0004999, 0.0204, 1.0)] == [
        "",
        "< 0.001",
        "0.020",
        "1.000",
    ]


def test_pieces_mark_words_and_keep_the_answer():
    text = "a dog, a cat, a dog"
    details = {
        "mentions": [
            {"word": "dog", "start": 2, "end": 5},
            {"word": "cat", "start": 9, "end": 12},
            {"word": "far", "start": 90, "end": 93},
            {"word": "dog, a", "start": 4, "end": 8},
        ],
        "hallucinated": [{"word": "cat", "start": 9, "end": 12}],
    }
    cut = pieces(text, details)
    assert cut == [
        ("a ", PLAIN),
        ("dog", THERE),
        (", a ", PLAIN),
        ("cat", ABSENT),
        (", a dog", PLAIN),
    ]
    assert "".join(piece for piece, _ in cut) == text
    assert pieces("plain", {"mentions": [["dog", "dog"]]}) == [("plain", PLAIN)]


def test_items_on_which_systems_differ_come_first(made: Path):
    chair, pope = findings(gather(systems(made / "runs")))
    items, number = browsable(pope, Pictures(None), 2)
    assert number == 6
    assert [each["item"] for each in items] == ["coco/random/2", "coco/random/4"]
    everything, _ = browsable(pope, Pictures(None), 100)
    assert [each["differ"] for each in everything] == [False, True, False, True, False, False]
    described, _ = browsable(chair, Pictures(None), 100)
    assert [each["differ"] for each in described] == [True] * 4
    assert described[0]["truth"] == "in the image: dog, tree"
    assert described[0]["question"] == "Describe <it>."


def test_scales_hold_all_values_between_round_ends():
    scale = _Scale([83.1, 88.4, 50.0])
    assert scale.ends() == ("50", "90")
    assert scale.at(70) == 50
    assert _Scale([3.0, 3.0]).at(3.0) <= 100
    assert _Scale([]).ends() == ("0", "1")
    for values in ([0.0, 100.0], [4.6, 8.9], [2.1, 2.96], [0.0, 0.0], [-0.3, 0.2]):
        ends = [_Scale(values).at(value) for value in values]
        assert 0 <= min(ends) <= max(ends) <= 100


def test_pictures_are_found_small_and_kept_once(made: Path):
    pictures = Pictures(made / "data/images")
    assert [pictures.take([name]) for name in ("1.png", "1", "deep/2.png")] == [[0], [0], [1]]
    assert pictures.take(["1.png", "3"]) == [0, 2]
    copy = Image.open(io.BytesIO(base64.b64decode(pictures.urls[0].partition(",")[2])))
    assert copy.size == (320, 160)
    assert all(url.startswith("data:image/jpeg;base64,") for url in pictures.urls)
    assert pictures.take(["none.png", "../../data/images/1.jpg"]) == []
    assert pictures.missing == {"none.png", "../../data/images/1.jpg"}
    assert Pictures(None).take(["1.png"]) == []


def test_pictures_outside_the_folder_are_not_read(made: Path):
    pictures = Pictures(made / "data/images")
    (made / "data/secret.png").write_bytes((made / "data/images/1.png").read_bytes())
    assert pictures.take(["../secret.png", str(made / "data/secret.png")]) == []


def test_names_of_two_files_are_nobodys(tmp_path: Path, made: Path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_bytes((made / "data/images/1.png").read_bytes())
    pictures = Pictures(tmp_path)
    assert pictures.take(["1.png"]) == []
    assert pictures.take(["a/1.png"]) == [0]


def test_command_writes_text_page_and_json(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "report"
    folders = [str(each) for each in systems(made / "runs")]
    assert main(["report", *folders, "--out", str(out), "--max-items", "3"]) == 0
    printed = capsys.readouterr().out
    assert (out / "report.md").read_text(encoding="utf-8") == printed
    assert "Published" not in printed  # neither benchmark is in the paper
    data = json.loads((out / "report.json").read_text(encoding="utf-8"))
    compared = data["suites"]["chair"]["comparisons"]["mdpo"]
    assert compared["differences"]["CHAIRs"]["value"] == pytest.approx(-50)
    assert (out / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert main(["report", folders[0], "--published"]) == 0
    assert "Published, not measured here" in capsys.readouterr().out


def test_same_runs_give_the_same_files(made: Path, tmp_path: Path):
    folders = [str(each) for each in systems(made / "runs")]
    for name in ("a", "b"):
        main(["report", *folders, "--out", str(tmp_path / name)])
    for name in ("report.md", "report.html", "report.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_command_refuses_wrong_usage(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = str(made / "runs/base")
    assert main(["report", run, "--max-items", "-1"]) == 2
    assert main(["report", run, "--images", str(tmp_path / "none")]) == 2
    assert main(["report", str(tmp_path)]) == 1
    (tmp_path / "empty").mkdir()
    out = ["--out", str(tmp_path / "out"), "--images", str(tmp_path / "empty")]
    assert main(["report", run, *out]) == 1
    assert "holds none of the images, such as '1.png'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_help_has_examples(capsys: pytest.CaptureFixture[str]):
    assert main(["report", "--help"]) == 0
    assert "mdpo report runs/base runs/dpo runs/mdpo --out" in capsys.readouterr().out
