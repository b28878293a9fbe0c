"""Answers of a run: batches, resuming, failures, images, and how answers are drawn."""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tqdm.auto import tqdm

from mdpo.cli import main
from mdpo.conformance.tiny import TINY_MODELS
from mdpo.evaluation.generation.decoding import LENGTHS, PRESETS, Decoding, decoding_for
from mdpo.evaluation.generation.images import ImageFolder
from mdpo.evaluation.generation.local import LocalModel
from mdpo.evaluation.generation.messages import message_of
from mdpo.evaluation.generation.run import Answer, Outcome, batches, generate
from mdpo.evaluation.journal import read_journal
from mdpo.evaluation.runs import read_run
from mdpo.evaluation.suite import Prompt
from mdpo.evaluation.suites import SUITES


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    for k in range(6):
        color = (40 * k, 255 - 30 * k, 10)
        Image.new("RGB", (48 + 16 * (k % 2), 48), color).save(folder / "deep" / f"{k}.png")
    return folder


def made_prompts(number: int) -> list[Prompt]:
    return [
        Prompt(f"i{k}", [f"deep/{k % 6}.png"], "What is it? " + "Say more. " * (k % 4))
        for k in range(number)
    ]


class Echo:
    """Answers with the prompt, and counts what it is asked."""

    def __init__(self, *, wrong: Sequence[str] = ()) -> None:
        self.asked: list[str] = []
        self.sizes: list[int] = []
        self.wrong = wrong

    def answer(self, prompts: Sequence[Prompt]) -> list[Outcome]:
        self.asked += [each.item for each in prompts]
        self.sizes.append(len(prompts))
        return [
            "no" if each.item in self.wrong else Answer(f"{each.item}: {each.text}", "stop", 3, 9)
            for each in prompts
        ]


def run(answerer: Any, prompts: Sequence[Prompt], pictures: Path, out: Path, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "images": ImageFolder(pictures),
        "out": out,
        "settings": {"weights": ["w"]},
        "about": {"image_root": str(pictures)},
        "decoding": Decoding(),
        "batch_size": 4,
    }
    return generate(answerer, prompts, **settings | changes)


def test_every_item_is_answered_once_and_found_again(pictures: Path, tmp_path: Path):
    echo, prompts = Echo(), made_prompts(10)
    assert run(echo, prompts[:7], pictures, tmp_path / "run").answered == 7
    again = Echo()
    tally = run(again, prompts, pictures, tmp_path / "run", about={"image_root": "moved"})
    assert (tally.answered, tally.failed, tally.cut) == (10, {}, 0)
    assert sorted(again.asked) == ["i7", "i8", "i9"]
    assert sorted(echo.asked) == [f"i{k}" for k in range(7)]
    responses = read_run(tmp_path / "run").responses()
    assert responses == {each.item: f"{each.item}: {each.text}" for each in prompts}
    third = Echo()
    run(third, prompts, pictures, tmp_path / "run")
    assert third.asked == []


def test_records_say_what_was_asked_and_shown(pictures: Path, tmp_path: Path):
    run(Echo(), made_prompts(1), pictures, tmp_path / "run", decoding=Decoding(suffix=" Now."))
    (record,) = read_journal(tmp_path / "run" / "generations.jsonl")
    assert record["prompt"] == "What is it?  Now."
    assert record["images"] == ["deep/0.png"]
    assert len(record["image_sha256"][0]) == len(record["key"]) == 64
    assert (record["finish_reason"], record["num_tokens"], record["num_prompt_tokens"]) == (
        *("stop", 3, 9),
    )
    settings = json.loads((tmp_path / "run" / "generation.json").read_text())
    assert settings["decoding"]["suffix"] == " Now."
    assert settings["weights"] == ["w"]


def test_other_settings_prompts_and_images_are_refused(pictures: Path, tmp_path: Path):
    prompts = made_prompts(2)
    run(Echo(), prompts, pictures, tmp_path / "run")
    with pytest.raises(ValueError, match="records made with `weights`"):
        run(Echo(), prompts, pictures, tmp_path / "run", settings={"weights": ["v"]})
    with pytest.raises(ValueError, match="records made with `decoding`"):
        run(Echo(), prompts, pictures, tmp_path / "run", decoding=Decoding(num_beams=2))
    other = [Prompt("i0", prompts[0].images, "Other?")]
    with pytest.raises(ValueError, match="another prompt or image of item 'i0'"):
        run(Echo(), other, pictures, tmp_path / "run")
    Image.new("RGB", (8, 8)).save(pictures / "deep" / "0.png")
    with pytest.raises(ValueError, match="another prompt or image of item 'i0'"):
        run(Echo(), prompts, pictures, tmp_path / "run")


def test_failures_are_recorded_and_tried_again_on_request_only(pictures: Path, tmp_path: Path):
    prompts, out = made_prompts(4), tmp_path / "run"
    tally = run(Echo(wrong=["i1", "i3"]), prompts, pictures, out)
    assert (tally.answered, tally.failed) == (2, {"i1": "no", "i3": "no"})
    second = Echo()
    assert run(second, prompts, pictures, out).failed == {"i1": "no", "i3": "no"}
    assert second.asked == []
    tally = run(second, prompts, pictures, out, retry_failed=True)
    assert sorted(second.asked) == ["i1", "i3"]
    assert (tally.answered, tally.failed) == (4, {})
    assert len(read_run(out).responses()) == 4


def test_missing_images_are_named_before_anything_is_asked(pictures: Path, tmp_path: Path):
    echo = Echo()
    prompts = [*made_prompts(1), Prompt("x", ["a.png"], "?"), Prompt("y", ["b.png"], "?")]
    with pytest.raises(FileNotFoundError, match=r"2 images are missing below .*a.png, b.png"):
        run(echo, prompts, pictures, tmp_path / "run")
    assert echo.asked == []
    assert not (tmp_path / "run").exists()


def test_images_are_found_by_path_or_by_a_name_that_is_unique(pictures: Path):
    images = ImageFolder(pictures)
    assert images.find("deep/1.png") == images.find("1.png") == images.find("other/1.png")
    assert images.find("9.png") is None
    (pictures / "twice").mkdir()
    Image.new("RGB", (8, 8)).save(pictures / "twice" / "1.png")
    with pytest.raises(ValueError, match="could be"):
        ImageFolder(pictures).find("1.png")
    with pytest.raises(ValueError, match="lies outside"):
        images.find("../secret.png")
    data = (pictures / "deep" / "1.png").read_bytes()
    assert images.open(data).size == images.open("1.png").size == (64, 48)
    assert images.sha256(data) == images.sha256("deep/1.png")
    with pytest.raises(FileNotFoundError, match="must be a folder"):
        ImageFolder(pictures / "none")


def test_long_prompts_come_first_and_prompts_without_images_stand_apart():
    prompts = [
        Prompt("short", ["a"], "x"),
        Prompt("blind", [], "x" * 50),
        Prompt("long", ["a"], "x" * 9),
        Prompt("two", ["a", "b"], "x"),
    ]
    assert [[each.item for each in batch] for batch in batches(prompts, 2)] == [
        ["two", "long"],
        ["short"],
        ["blind"],
    ]


def test_marks_in_a_prompt_place_its_images():
    parts = message_of(Prompt("a", ["x", "y"], "Here <image> and <image>?"))["content"]
    assert [each.get("text", "IMAGE") for each in parts] == [
        "Here ",
        "IMAGE",
        " and ",
        "IMAGE",
        "?",
    ]
    parts = message_of(Prompt("a", ["x", "y"], "Which?"), " Now.")["content"]
    assert [each.get("text", "IMAGE") for each in parts] == ["IMAGE", "IMAGE", "Which? Now."]
    with pytest.raises(ValueError, match="marks 1 images by <image> and has 2"):
        message_of(Prompt("a", ["x", "y"], "<image>?"))


def tiny(name: str) -> tuple[Any, Any]:
    made = TINY_MODELS[name]()
    return made.model().eval(), made.processor


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_batches_change_no_answer(name: str, pictures: Path):
    model, processor = tiny(name)
    decoding = Decoding(max_new_tokens=8)
    local = LocalModel(model, processor, ImageFolder(pictures), decoding)
    prompts = [*made_prompts(7), Prompt("none", [], "What is it?")]
    alone = {each.item: local.answer([each])[0] for each in prompts}
    together = {
        each.item: outcome
        for batch in batches(prompts, 8)
        for each, outcome in zip(batch, local.answer(batch), strict=True)
    }
    assert together == alone
    assert all(isinstance(each, Answer) for each in alone.values())
    assert len({each.text for each in alone.values() if isinstance(each, Answer)}) > 1


def test_beams_and_drawn_tokens(pictures: Path):
    model, processor = tiny("llava")
    images, prompts = ImageFolder(pictures), made_prompts(3)

    def answers(**settings: Any) -> list[Outcome]:
        decoding = Decoding(max_new_tokens=6, **settings)
        return LocalModel(model, processor, images, decoding).answer(prompts)

    before = torch.random.get_rng_state()
    drawn = answers(temperature=1.5)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert drawn == answers(temperature=1.5)
    assert drawn != answers(temperature=1.5, seed=1)
    local = LocalModel(model, processor, images, Decoding(max_new_tokens=6, temperature=1.5))
    assert [local.answer([each])[0] for each in prompts] == drawn
    assert answers(num_beams=3) == answers(num_beams=3)


def test_a_broken_image_fails_alone(pictures: Path):
    model, processor = tiny("llava")
    (pictures / "deep" / "0.png").write_bytes(b"not a picture")
    local = LocalModel(model, processor, ImageFolder(pictures), Decoding(max_new_tokens=2))
    first, second = local.answer(made_prompts(2))
    assert isinstance(first, str)
    assert "0.png" in first
    assert isinstance(second, Answer)


def test_a_batch_that_does_not_fit_is_halved(pictures: Path, monkeypatch: pytest.MonkeyPatch):
    model, processor = tiny("llava")
    local = LocalModel(model, processor, ImageFolder(pictures), Decoding(max_new_tokens=2))
    whole = local.answer(made_prompts(5))
    real, sizes = model.generate, []

    def scarce(**inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 1:
            raise torch.OutOfMemoryError
        return real(**inputs)

    monkeypatch.setattr(model, "generate", scarce)
    assert local.answer(made_prompts(5)) == whole
    assert sizes == [5, 2, 1, 1, 3, 1, 2, 1, 1]


def test_presets_and_settings():
    assert decoding_for("mmhal").max_new_tokens == 1024
    assert decoding_for("chair", "chair-64").max_new_tokens == 64
    assert decoding_for("chair", "chair-64", max_new_tokens=9).max_new_tokens == 9
    assert decoding_for("mmhal", "rlaif-v").num_beams == 3
    assert decoding_for("pope", "pope-short").suffix.endswith("single word or phrase.")
    assert set(LENGTHS) == set(SUITES)
    assert all(decoding_for("pope", name) for name in PRESETS)
    with pytest.raises(ValueError, match="`--preset` must be one of greedy"):
        decoding_for("pope", "fast")
    with pytest.raises(ValueError, match="1 or more"):
        Decoding(max_new_tokens=0)
    with pytest.raises(ValueError, match="beams are not drawn"):
        Decoding(num_beams=2, temperature=1.0)


class Slow(Echo):
    """Takes a moment per batch, and logs what it was asked to a file that survives it."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self.log = log

    def answer(self, prompts: Sequence[Prompt]) -> list[Outcome]:
        time.sleep(0.004)
        with self.log.open("a") as file:
            file.write("".join(f"{each.item}\n" for each in prompts))
        return super().answer(prompts)


def test_killed_at_random_moments(pictures: Path, tmp_path: Path):
    """Each item exists once; only a batch that was under way when killed is asked again."""
    prompts, draw = made_prompts(60), random.Random(0)
    # The default lock is shared with forked children, and one that is killed never frees it.
    tqdm.set_lock(threading.RLock())
    run(Echo(), prompts, pictures, tmp_path / "whole", batch_size=3)
    undisturbed = read_run(tmp_path / "whole").responses()
    out, log = tmp_path / "killed", tmp_path / "asked.txt"
    log.touch()
    recorded_twice = 0
    for _ in range(20):
        known = {each["item"] for each in read_journal(out / "generations.jsonl")}
        asked = len(log.read_text().splitlines())
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            try:
                run(Slow(log), prompts, pictures, out, batch_size=3)
            finally:
                os._exit(0)
        time.sleep(draw.uniform(0.0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        recorded_twice += len(known & set(log.read_text().splitlines()[asked:]))
    assert recorded_twice == 0
    run(Slow(log), prompts, pictures, out, batch_size=3)
    records = read_journal(out / "generations.jsonl")
    assert sorted(each["item"] for each in records) == sorted(each.item for each in prompts)
    assert read_run(out).responses() == undisturbed
    assert len(log.read_text().splitlines()) <= len(prompts) + 20 * 3


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    made = TINY_MODELS["llava"]()
    made.model().save_pretrained(tmp_path / "model")
    made.processor.save_pretrained(tmp_path / "model")
    data = tmp_path / "chair"
    (data / "images").mkdir(parents=True)
    rows = []
    for k in range(3):
        Image.new("RGB", (48, 48), (80 * k, 0, 0)).save(data / "images" / f"{k}.png")
        rows.append({"image_id": str(k), "image": f"images/{k}.png", "prompt": "Describe."})
    (data / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (data / "synonyms.txt").write_text("dog\n")
    (data / "ground_truth.json").write_text(json.dumps({str(k): ["dog"] for k in range(3)}))
    out = tmp_path / "run"
    command = ["generate", "chair", "--model", str(tmp_path / "model"), "--data", str(data)]
    command += ["--out", str(out), "--max-new-tokens", "4", "--limit", "2"]
    assert main(command) == 0
    assert "were cut at 4 tokens" in capsys.readouterr().err
    assert set(read_run(out).responses()) == {"0", "1"}
    assert main([*command[:-2], "--dtype", "float32"]) == 1
    assert "records made with `dtype`" in capsys.readouterr().err
    assert main(["score", "chair", str(out), "--data", str(data)]) == 0
    assert "1 items have no answer (0 failed)" in capsys.readouterr().out
    written = json.loads((out / "metrics.json").read_text())
    assert written["generation"]["decoding"]["max_new_tokens"] == 4
    assert written["metrics"]["CHAIRs"]["unscored"] == 1
    assert main(["generate", "chair", "--help"]) == 0
    assert "rlaif-v" in capsys.readouterr().out
    assert main(["generate", "chair", "--endpoint", "http://x", "--data", "d", "--out", "o"]) == 2
