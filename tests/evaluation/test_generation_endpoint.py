"""Answers through a server, and the chain from answers to a report on the command line."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from judge_stub import judge_stub
from PIL import Image

from mdpo.cli import main
from mdpo.cli.eval import data_folder, divide
from mdpo.evaluation.chat import ChatClient
from mdpo.evaluation.generation.decoding import Decoding
from mdpo.evaluation.generation.endpoint import Endpoint, with_images
from mdpo.evaluation.generation.images import ImageFolder
from mdpo.evaluation.generation.run import Answer
from mdpo.evaluation.runs import read_run
from mdpo.evaluation.suite import Prompt


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (8, 8), (9, 9, 9)).save(folder / name)
    return folder


def test_images_are_sent_as_they_are(pictures: Path):
    prompt = Prompt("1", ["a.png", (pictures / "b.jpg").read_bytes()], "<image> or <image>?")
    parts = with_images(prompt, ImageFolder(pictures), " Now.")["content"]
    assert [part["type"] for part in parts] == ["image_url", "text", "image_url", "text"]
    assert parts[-1]["text"] == "? Now."
    for part, name, kind in ((parts[0], "a.png", "png"), (parts[2], "b.jpg", "jpeg")):
        head, _, data = part["image_url"]["url"].partition(",")
        assert head == f"data:image/{kind};base64"
        assert base64.b64decode(data) == (pictures / name).read_bytes()
    with pytest.raises(ValueError, match="must be JPEG, PNG"):
        with_images(Prompt("1", [b"text"], "?"), ImageFolder(pictures))


def test_answers_come_in_order_and_failures_stay_alone(pictures: Path):
    texts = ["one", "[[always500]]", "three", "[[nousage]]"]
    prompts = [Prompt(str(k), ["a.png"], text) for k, text in enumerate(texts)]
    with judge_stub() as stub:
        client = ChatClient(stub.url, "m", sleep=lambda _: None, attempts=2)
        decoding = Decoding(max_new_tokens=7, temperature=0.5, seed=3)
        outcomes = Endpoint(client, ImageFolder(pictures), decoding, 2).answer(prompts)
        assert stub.most <= 2
        assert {body["max_tokens"] for body in stub.bodies} == {7}
        assert {body["seed"] for body in stub.bodies} == {3}
    first, second, third, fourth = outcomes
    assert first == third == Answer("It is fine.\nRating: 5", "stop", 3, 10)
    assert isinstance(second, str)
    assert "answered 500" in second
    assert fourth == Answer("It is fine.\nRating: 5", "stop", None, None)
    with pytest.raises(ValueError, match="must be 1 at an endpoint"):
        Endpoint(client, ImageFolder(pictures), Decoding(num_beams=3), 1)


@pytest.fixture
def data(tmp_path: Path, pictures: Path) -> Path:
    """Data of POPE and MMHal-Bench in one folder."""
    folder = tmp_path / "data"
    (folder / "pope").mkdir(parents=True)
    rows = [
        {"question_id": k, "image": "a.png", "text": f"Is there a dog {k}?", "label": label}
        for k, label in enumerate(("yes", "no"), start=1)
    ]
    (folder / "pope" / "coco_pope_random.json").write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
    )
    (folder / "mmhal").mkdir()
    row: dict[str, Any] = {
        "question_type": "attribute",
        "image_id": "i0",
        "image_src": "https://example.org/b.jpg",
        "image_content": ["Dog"],
        "question": "What?",
        "gt_answer": "A dog.",
    }
    (folder / "mmhal" / "mmhal-bench_answer_template.json").write_text(json.dumps([row]))
    return folder


def test_a_chain_of_benchmarks(
    data: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "served"
    with judge_stub() as stub:
        command = ["eval", "pope,mmhal", "--data", str(data), "--out", str(out)]
        command += ["--endpoint", stub.url, "--model", "m", "--images", str(pictures)]
        assert main(command) == 2
        assert "mmhal needs a judge" in capsys.readouterr().err
        assert not stub.bodies
        judge = ["--judge-endpoint", stub.url, "--judge-model", "j"]
        assert main([*command, *judge]) == 0
        asked = len(stub.bodies)
        assert asked == 2 + 1 + 1
        assert {body["model"] for body in stub.bodies} == {"m", "j"}
        assert main([*command, *judge]) == 0
        assert len(stub.bodies) == asked
    pope = json.loads((out / "pope" / "metrics.json").read_text())
    assert pope["metrics"]["accuracy"]["value"] == 50.0  # "fine" is a yes officially
    assert pope["generation"]["endpoint"] == stub.url
    mmhal = json.loads((out / "mmhal" / "metrics.json").read_text())
    assert mmhal["metrics"]["score"]["value"] == 5.0
    assert mmhal["judge"]["model"] == "j"
    assert (out / "report.html").is_file()
    assert (out / "report.md").is_file()
    answers = tmp_path / "official"
    assert (
        main(["export", str(out / "pope"), "--data", str(data / "pope"), "--out", str(answers)])
        == 0
    )
    row = json.loads((answers / "coco_pope_random_answers.json").read_text().split("\n")[0])
    assert row == {
        "question_id": 1,
        "image": "a.png",
        "question": "Is there a dog 1?",
        "answer": "It is fine.\nRating: 5",
    }


def test_failed_items_are_told_and_tried_again(
    data: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    questions = data / "pope" / "coco_pope_random.json"
    questions.write_text(questions.read_text().replace("dog 2", "[[forbidden]]"))
    with judge_stub() as stub:
        command = ["generate", "pope", "--endpoint", stub.url, "--model", "m"]
        command += ["--data", str(data / "pope"), "--images", str(pictures)]
        command += ["--out", str(tmp_path / "run")]
        assert main(command) == 1
        assert "1 items failed, 'coco/random/2'" in capsys.readouterr().err
        assert main(command) == 1
        assert len(stub.bodies) == 2
        assert main([*command, "--retry-failed"]) == 1
        assert len(stub.bodies) == 3
    assert set(read_run(tmp_path / "run").responses()) == {"coco/random/1"}


def test_flags_go_to_their_step():
    flags = ["--model", "m", "--judge", "gpt-4", "--judge-key-env=K", "--preset", "greedy"]
    generate, judge = divide(flags)
    assert generate == ["--model", "m", "--preset", "greedy"]
    assert judge == ["--judge", "gpt-4", "--key-env=K"]


def test_data_folders_by_name(tmp_path: Path):
    for name in ("pope", "object_halbench", "hallusionbench"):
        (tmp_path / name).mkdir()
    found = {
        name: data_folder(name, tmp_path, alone=False).name
        for name in ("pope", "object-halbench", "object-halbench-llm", "hallusionbench-judge")
    }
    assert list(found.values()) == [
        *("pope", "object_halbench", "object_halbench", "hallusionbench"),
    ]
    assert data_folder("amber", tmp_path, alone=True) == tmp_path
    with pytest.raises(FileNotFoundError, match="mdpo data fetch amber"):
        data_folder("amber", tmp_path, alone=False)


def test_unknown_benchmarks_are_refused(capsys: pytest.CaptureFixture[str]):
    assert main(["eval", "pope,nope", "--data", "d", "--out", "o"]) == 2
    assert "'nope' is not a benchmark" in capsys.readouterr().err
