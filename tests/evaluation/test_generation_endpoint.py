"""Answers through a server, and the chain from answers to a report on the command line."""

import base64
import concurrent.futures
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from judge_stub import judge_stub
from PIL import Image

from mdpo.cli import main
from mdpo.cli.eval import data_folder, divide
from mdpo.evaluation.asking import HOPELESS
from mdpo.evaluation.chat import ChatClient
from mdpo.evaluation.generation.decoding import Decoding, seed_of
from mdpo.evaluation.generation.endpoint import Endpoint, with_images
from mdpo.evaluation.generation.images import ImageFolder
from mdpo.evaluation.generation.run import Answer, Outcome
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


def ask(endpoint: Endpoint, prompts: Sequence[Prompt]) -> tuple[dict[str, Outcome], str | None]:
    outcomes = dict[str, Outcome]()

    def tell(prompt: Prompt, outcome: Outcome) -> None:
        assert prompt.item not in outcomes
        outcomes[prompt.item] = outcome

    stopped = endpoint.answer_all(prompts, tell)
    return outcomes, stopped


def asking(texts: Sequence[str]) -> list[Prompt]:
    return [Prompt(str(k), ["a.png"], text) for k, text in enumerate(texts)]


def test_answers_belong_to_their_prompts_and_failures_stay_alone(pictures: Path):
    prompts = asking(["one", "[[always500]]", "[[right]]", "[[nousage]]", "[[echo]]"])
    with judge_stub() as stub:
        client = ChatClient(stub.url, "m", sleep=lambda _: None, attempts=2)
        decoding = Decoding(max_new_tokens=7, temperature=0.5, seed=3)
        outcomes, stopped = ask(Endpoint(client, ImageFolder(pictures), decoding, 2), prompts)
        assert stopped is None
        assert stub.most <= 2
        assert {body["max_tokens"] for body in stub.bodies} == {7}
        assert {body["temperature"] for body in stub.bodies} == {0.5}
        sent = {body["messages"][0]["content"][-1]["text"]: body["seed"] for body in stub.bodies}
    assert sent == {each.text: seed_of(each, decoding) for each in prompts}
    assert len(set(sent.values())) == len(prompts)
    assert outcomes["0"] == Answer("It is fine.\nRating: 5", "stop", 3, 10, model="m")
    assert outcomes["2"] == Answer("correct", "stop", 3, 10, model="m")
    assert "answered 500" in str(outcomes["1"])
    assert outcomes["3"] == Answer("It is fine.\nRating: 5", "stop", None, None, model="m")
    assert "answered 400" in str(outcomes["4"])
    with pytest.raises(ValueError, match="must be 1 at an endpoint"):
        Endpoint(client, ImageFolder(pictures), Decoding(num_beams=3), 1)


def test_the_likeliest_token_needs_no_seed(pictures: Path):
    with judge_stub() as stub:
        endpoint = Endpoint(ChatClient(stub.url, "m"), ImageFolder(pictures), Decoding(), 2)
        ask(endpoint, asking(["one"]))
        assert "seed" not in stub.bodies[0]
        assert stub.bodies[0]["temperature"] == 0


def test_a_slow_answer_holds_up_no_other(pictures: Path):
    with judge_stub() as stub:
        client = ChatClient(stub.url, "m")
        endpoint = Endpoint(client, ImageFolder(pictures), Decoding(), 2)
        outcomes, _ = ask(endpoint, asking(["[[slow]]", *"abcdefg"]))
    assert list(outcomes)[-1] == "0"
    assert len(outcomes) == 8


def test_a_refused_key_ends_it_and_marks_no_item(pictures: Path):
    prompts = asking([f"[[locked]] {k}" for k in range(9)])
    with judge_stub() as stub:
        client = ChatClient(stub.url, "m", key="bad")
        endpoint = Endpoint(client, ImageFolder(pictures), Decoding(), 3)
        outcomes, stopped = ask(endpoint, prompts)
        assert outcomes == {}
        assert len(stub.bodies) <= 3
    assert "answered 401" in str(stopped)
    assert "--key-env" in str(stopped)


def test_a_row_of_failures_ends_it(pictures: Path):
    prompts = asking(["fine", *(f"[[echo]] {k}" for k in range(2 * HOPELESS))])
    with judge_stub() as stub:
        endpoint = Endpoint(ChatClient(stub.url, "m"), ImageFolder(pictures), Decoding(), 1)
        outcomes, stopped = ask(endpoint, prompts)
    assert len(outcomes) == 1 + HOPELESS
    assert str(stopped).startswith(f"{HOPELESS} requests in a row failed, at last: The server")
    mixed = asking(["fine" if k % HOPELESS == 7 else f"[[echo]] {k}" for k in range(24)])
    with judge_stub() as stub:
        endpoint = Endpoint(ChatClient(stub.url, "m"), ImageFolder(pictures), Decoding(), 1)
        outcomes, stopped = ask(endpoint, mixed)
    assert (len(outcomes), stopped) == (24, None)


def test_an_interrupt_loses_no_answer(pictures: Path, monkeypatch: pytest.MonkeyPatch):
    real, waits, told = concurrent.futures.wait, [], []

    def interrupted(running: Any, **how: Any) -> Any:
        waits.append(len(running))
        if len(waits) == 3:
            raise KeyboardInterrupt
        return real(running, **how)

    monkeypatch.setattr("mdpo.evaluation.asking.wait", interrupted)
    with judge_stub(pause=0.02) as stub:
        endpoint = Endpoint(ChatClient(stub.url, "m"), ImageFolder(pictures), Decoding(), 3)
        with pytest.raises(KeyboardInterrupt):
            endpoint.answer_all(asking("abcdefghijkl"), lambda prompt, _: told.append(prompt.item))
        assert 2 <= len(told) == len(set(told)) == len(stub.bodies) < 12
    assert waits[0] == 3


def test_a_broken_image_fails_alone(pictures: Path):
    (pictures / "b.jpg").write_bytes(b"not a picture")
    prompts = [Prompt("good", ["a.png"], "?"), Prompt("bad", ["b.jpg"], "?")]
    with judge_stub() as stub:
        endpoint = Endpoint(ChatClient(stub.url, "m"), ImageFolder(pictures), Decoding(), 2)
        outcomes, _ = ask(endpoint, prompts)
        assert len(stub.bodies) == 1
    assert isinstance(outcomes["good"], Answer)
    assert "must be JPEG, PNG" in str(outcomes["bad"])


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
    questions.write_text(questions.read_text().replace("dog 2", "[[echo]]"))
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


def test_a_run_goes_on_at_another_address_with_the_right_key(
    data: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    questions = data / "pope" / "coco_pope_random.json"
    questions.write_text(questions.read_text().replace("dog 2", "[[locked]]"))
    command = ["generate", "pope", "--model", "m", "--data", str(data / "pope")]
    command += ["--images", str(pictures), "--out", str(tmp_path / "run"), "--key-env", "MINE"]
    monkeypatch.setenv("MINE", "bad-secret")
    with judge_stub() as stub:
        assert main([*command, "--endpoint", stub.url, "--concurrency", "1"]) == 1
        told = capsys.readouterr().err
    assert "answered 401" in told
    assert "1 answers are missing. The same command goes on." in told
    monkeypatch.setenv("MINE", "good")
    with judge_stub() as stub:
        assert main([*command, "--endpoint", stub.url]) == 0
        assert len(stub.bodies) == 1
        assert stub.keys == ["Bearer good"]
    assert len(read_run(tmp_path / "run").responses()) == 2
    for path in (tmp_path / "run").iterdir():
        assert "secret" not in path.read_text()
    assert "secret" not in told


def test_answers_of_another_model_are_taken_on_request(
    data: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    questions = data / "pope" / "coco_pope_random.json"
    questions.write_text(questions.read_text().replace("dog", "[[dated]]"))
    with judge_stub() as stub:
        command = ["generate", "pope", "--endpoint", stub.url, "--model", "m"]
        command += ["--data", str(data / "pope"), "--images", str(pictures)]
        command += ["--out", str(tmp_path / "run")]
        assert main(command) == 1
        assert "--allow-model-mismatch" in capsys.readouterr().err
        assert main([*command, "--retry-failed", "--allow-model-mismatch"]) == 0
    records = [each for each in read_run(tmp_path / "run").generations if "response" in each]
    assert [each["model"] for each in records] == ["m-0613", "m-0613"]


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
