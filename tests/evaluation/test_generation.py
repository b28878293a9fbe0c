"""Answers of a run: batches, resuming, failures, images, and how answers are drawn."""

import io
import json
import os
import random
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tqdm.auto import tqdm

from mdpo.cli import main
from mdpo.conformance.tiny import TINY_MODELS
from mdpo.evaluation.generation.decoding import LENGTHS, PRESETS, Decoding, decoding_for
from mdpo.evaluation.generation.images import ImageFolder
from mdpo.evaluation.generation.local import LocalModel, batches
from mdpo.evaluation.generation.messages import message_of, without_images
from mdpo.evaluation.generation.run import Answer, Outcome, Tell, generate
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
        self.wrong = wrong

    def answer_all(self, prompts: Sequence[Prompt], tell: Tell) -> None:
        for each in prompts:
            self.asked.append(each.item)
            answer = Answer(f"{each.item}: {each.text}", "stop", 3, 9, seconds=0.5)
            tell(each, "no" if each.item in self.wrong else answer)


def run(answerer: Any, prompts: Sequence[Prompt], pictures: Path, out: Path, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "images": ImageFolder(pictures),
        "out": out,
        "settings": {"weights": ["w"]},
        "about": {"image_root": str(pictures)},
        "decoding": Decoding(),
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
    told = ("finish_reason", "num_tokens", "num_prompt_tokens", "seconds")
    assert [record[name] for name in told] == ["stop", 3, 9, 0.5]
    assert "model" not in record
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


def test_an_image_that_was_mended_is_tried_again(pictures: Path, tmp_path: Path):
    prompts, out = made_prompts(3), tmp_path / "run"
    run(Echo(wrong=["i0", "i1"]), prompts, pictures, out)
    Image.new("RGB", (8, 8)).save(pictures / "deep" / "0.png")
    echo = Echo()
    assert set(run(echo, prompts, pictures, out).failed) == {"i1"}
    assert echo.asked == ["i0"]


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


def test_links_out_of_the_folder_are_refused(pictures: Path, tmp_path: Path):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    (pictures / "deep" / "link.png").symlink_to(secret)
    images = ImageFolder(pictures)
    for name in ("deep/link.png", "link.png", str(secret)):
        for reading in (images.content, images.open, images.sha256, images.size):
            with pytest.raises(ValueError, match=r"lies outside .* Give --images"):
                reading(name)


def test_long_prompts_come_first_and_prompts_without_images_stand_apart():
    lengths = {"short": (1, 1), "blind": (0, 50), "long": (1, 9), "two": (2, 1)}
    prompts = [Prompt(item, ["a"] * images, "x") for item, (images, _) in lengths.items()]
    assert [[each.item for each in batch] for batch in batches(prompts, 2, lengths)] == [
        ["two", "long"],
        ["short"],
        ["blind"],
    ]


@pytest.mark.parametrize(("name", "first"), [("qwen2_5_vl", "large"), ("llava", "wordy")])
def test_images_count_as_much_as_the_model_makes_of_them(name: str, first: str, pictures: Path):
    Image.new("RGB", (224, 224)).save(pictures / "large.png")
    made = TINY_MODELS[name]()
    local = LocalModel(None, made.processor, ImageFolder(pictures), Decoding(), batch_size=1)  # pyright: ignore[reportArgumentType]
    order: list[str] = []
    local.answer = lambda prompts: ["none" for _ in prompts]
    prompts = [Prompt("wordy", ["0.png"], "word " * 9), Prompt("large", ["large.png"], "?")]
    local.answer_all(prompts, lambda prompt, _: order.append(prompt.item))
    assert order[0] == first
    assert len(order) == 2


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
    assert without_images(Prompt("a", ["x"], "<image>\nWhich?")) == Prompt("a", (), "Which?")


def test_prompts_that_cannot_be_asked_are_refused_before_any_is(pictures: Path, tmp_path: Path):
    echo = Echo()
    prompts = [*made_prompts(2), Prompt("x", ["0.png"], "<image> or <image>?")]
    with pytest.raises(ValueError, match="Item 'x' marks 2 images"):
        run(echo, prompts, pictures, tmp_path / "run")
    assert echo.asked == []


def test_a_second_writer_is_refused(pictures: Path, tmp_path: Path):
    class Greedy(Echo):
        def answer_all(self, prompts: Sequence[Prompt], tell: Tell) -> None:
            with pytest.raises(ValueError, match="is being written by another process"):
                run(Echo(), prompts, pictures, tmp_path / "run")
            super().answer_all(prompts, tell)

    assert run(Greedy(), made_prompts(2), pictures, tmp_path / "run").answered == 2


def test_corrupted_images(pictures: Path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(pictures / "a.png")
    original, noisy = ImageFolder(pictures), ImageFolder(pictures, condition="noise")
    assert noisy.open("a.png").tobytes() == noisy.open("a.png").tobytes()
    assert noisy.open("a.png").tobytes() != original.open("a.png").tobytes()
    assert noisy.sha256("a.png") == original.sha256("a.png")
    assert original.content("a.png") == (pictures / "a.png").read_bytes()
    sent = Image.open(io.BytesIO(noisy.content("a.png")))
    assert sent.tobytes() == noisy.open("a.png").tobytes()
    with pytest.raises(ValueError, match="'fog' is unknown"):
        ImageFolder(pictures, condition="fog")


def tiny(name: str) -> tuple[Any, Any]:
    made = TINY_MODELS[name]()
    return made.model().eval(), made.processor


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_batches_change_no_answer(name: str, pictures: Path):
    model, processor = tiny(name)
    decoding = Decoding(max_new_tokens=8)
    local = LocalModel(model, processor, ImageFolder(pictures), decoding)
    prompts = [
        *made_prompts(5),
        Prompt("two", ["0.png", "3.png"], "Which?"),
        Prompt("marked", ["4.png", "1.png"], "Is it <image> or <image>? Say."),
        Prompt("none", [], "What is it?"),
        Prompt("none either", [], "What is it then, if it is not that?"),
    ]
    alone = {each.item: local.answer([each])[0] for each in prompts}
    together = dict[str, Outcome]()
    local.batch_size = 8
    local.answer_all(prompts, lambda prompt, outcome: together.update({prompt.item: outcome}))
    assert together == alone
    mixed = local.answer(prompts[3:7])
    assert mixed == [alone[each.item] for each in prompts[3:7]]
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


def test_a_models_own_settings_of_generation_do_not_count(pictures: Path):
    model, processor = tiny("llava")
    local = LocalModel(model, processor, ImageFolder(pictures), Decoding(max_new_tokens=8))
    plain = local.answer(made_prompts(3))
    own = model.generation_config
    own.repetition_penalty, own.no_repeat_ngram_size, own.min_length = 9.0, 1, 400
    own.do_sample, own.temperature, own.top_k, own.min_p = True, 0.3, 3, 0.2
    assert local.answer(made_prompts(3)) == plain
    local.decoding = Decoding(max_new_tokens=8, temperature=2.0)
    drawn = local.answer(made_prompts(3))
    own.repetition_penalty, own.top_k, own.min_p, own.typical_p = 1.0, None, None, 0.1
    assert local.answer(made_prompts(3)) == drawn


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


def test_what_does_not_fit_alone_or_cannot_be_encoded_fails_alone(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
):
    model, processor = tiny("llava")
    local = LocalModel(model, processor, ImageFolder(pictures), Decoding(max_new_tokens=2))
    prompts = made_prompts(4)
    whole = local.answer(prompts)
    real = local._answer

    def scarce(prompts: Sequence[Prompt], images: Sequence[Any]) -> list[Answer]:
        items = {each.item for each in prompts}
        if "i1" in items:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")
        if "i2" in items:
            raise ValueError("The image is too narrow.")
        return real(prompts, images)

    monkeypatch.setattr(local, "_answer", scarce)
    outcomes = local.answer(prompts)
    assert outcomes[0] == whole[0]
    assert outcomes[3] == whole[3]
    assert outcomes[1] == "It does not fit into the memory of the device, even alone."
    assert outcomes[2] == "The image is too narrow."


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


class Slow:
    """Takes a moment per batch of three, and logs what it was asked to a file that survives it."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def answer_all(self, prompts: Sequence[Prompt], tell: Tell) -> None:
        for start in range(0, len(prompts), 3):
            batch = prompts[start : start + 3]
            with self.log.open("a") as file:
                file.write("".join(f"{each.item}\n" for each in batch))
            time.sleep(0.004)
            Echo().answer_all(batch, tell)


def test_killed_at_random_moments(pictures: Path, tmp_path: Path):
    """Each item exists once; only a batch that was under way when killed is asked again."""
    prompts, draw = made_prompts(120), random.Random(0)
    # The default lock is shared with forked children, and one that is killed never frees it.
    tqdm.set_lock(threading.RLock())
    run(Echo(), prompts, pictures, tmp_path / "whole")
    undisturbed = read_run(tmp_path / "whole").responses()
    out, log = tmp_path / "killed", tmp_path / "asked.txt"
    log.touch()
    recorded_twice, sizes = 0, set[int]()
    for _ in range(20):
        known = {each["item"] for each in read_journal(out / "generations.jsonl")}
        sizes.add(len(known))
        asked = len(log.read_text().splitlines())
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            try:
                run(Slow(log), prompts, pictures, out)
            finally:
                os._exit(0)
        # Wait until it is at work, however busy the machine is, and a random while longer.
        deadline = time.monotonic() + 5
        while len(log.read_text().splitlines()) == asked and time.monotonic() < deadline:
            time.sleep(0.0005)
        time.sleep(draw.uniform(0.0, 0.016))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        recorded_twice += len(known & set(log.read_text().splitlines()[asked:]))
    assert recorded_twice == 0
    assert len(sizes) > 3
    run(Slow(log), prompts, pictures, out)
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
    assert main([*command[:-1], "0"]) == 2
    settings = json.loads((out / "generation.json").read_text())
    assert settings["preset"] == "greedy"
    assert settings["image_root"] == settings["data"] == str(data)
    assert set(settings["versions"]) == {"multimodal-dpo", "torch", "transformers"}
    assert "image_condition" not in settings
    for condition in ("none", "black"):
        blind = [*command, "--out", str(tmp_path / condition), "--image-condition", condition]
        assert main(blind) == 0
        settings = json.loads((tmp_path / condition / "generation.json").read_text())
        assert settings["image_condition"] == condition
        records = read_journal(tmp_path / condition / "generations.jsonl")
        assert [len(each["images"]) for each in records] == [int(condition == "black")] * 2
        assert len({each["response"] for each in records}) == 1  # there is nothing to tell apart
    assert main([*command, "--image-condition", "black"]) == 1
    assert "records made with `image_condition` None, now 'black'" in capsys.readouterr().err
