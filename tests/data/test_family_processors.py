"""What processors of other families ask of encoding, and processors without torchvision."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from mdpo.conformance.rows import ONE_IMAGE, SEVERAL_SIZES, make_rows
from mdpo.conformance.tiny import TINY_MODELS
from mdpo.data.collation import PreferenceCollator
from mdpo.data.encoding import Encoder
from mdpo.models.processors import NoVideos, load_processor

PICTURE = Image.new("RGB", (40, 32), "red")


def encoder_of(name: str) -> Encoder:
    return Encoder(TINY_MODELS[name]().processor)


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("user: <image>\nWhat is <image>?\nassistant: ", 1),
        ("user: <image>\nWhat?\nassistant: ", 0),
        ("user: <image>\nWhat?\nassistant: ", 2),
    ],
)
def test_image_tokens_and_images_must_agree(text: str, images: int) -> None:
    with pytest.raises(ValueError, match=rf"image tokens '<image>' and {images} images"):
        encoder_of("llava").prompts([text], [[PICTURE] * images])


def test_labels_of_a_prompt_are_left_out() -> None:
    inputs = encoder_of("paligemma").prompts(["user: <image>What?\nassistant: "], [[PICTURE]])
    assert "labels" not in inputs
    assert "token_type_ids" in inputs


def test_responses_of_paligemma_see_only_what_stands_before_them() -> None:
    responses = encoder_of("paligemma").responses([[5, 6, 7], [8]])
    assert responses["input_ids"].shape == (2, 3)
    assert responses["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert responses["token_type_ids"].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert "token_type_ids" not in encoder_of("gemma3").responses([[5]])


@pytest.mark.parametrize("name", ["internvl", "aya_vision"])
def test_tiles_are_counted_by_image(name: str) -> None:
    encoder = encoder_of(name)
    batch = PreferenceCollator(encoder)(make_rows(0)[SEVERAL_SIZES])
    for slot in ("chosen", "rejected"):
        units = batch.get("image_units", {})[slot]
        assert sum(units) == len(batch["prompts"][slot]["pixel_values"])
        rows = [example["images"][slot] for example in make_rows(0)[SEVERAL_SIZES]]
        alone = [encoder.processor.image_processor(each)["pixel_values"] for each in rows]
        assert units == [len(each) for each in alone]


@pytest.mark.parametrize("name", ["llava", "smolvlm", "llava_next"])
def test_units_that_do_not_add_up_are_not_given(name: str) -> None:
    batch = PreferenceCollator(encoder_of(name))(make_rows(0)[ONE_IMAGE])
    assert batch.get("image_units") == {}


@pytest.mark.parametrize(
    "name", ["qwen2_5_vl", "qwen3_vl", "internvl", "smolvlm", "llava_onevision", "glm4v"]
)
def test_processor_with_videos_loads_without_torchvision(name: str, tmp_path: Path) -> None:
    tiny = TINY_MODELS[name]()
    tiny.processor.save_pretrained(tmp_path)
    tiny.config.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "processor_config.json").read_text())
    settings["video_processor"] = {"merge_size": 2, "do_sample_frames": True}
    (tmp_path / "processor_config.json").write_text(json.dumps(settings))
    loaded = load_processor(tmp_path)
    assert type(loaded) is type(tiny.processor)
    assert isinstance(loaded.video_processor, NoVideos)
    with pytest.raises(ValueError, match="Videos need torchvision"):
        loaded.video_processor([])
    loaded.save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "processor_config.json").read_text())
    assert again["video_processor"] == settings["video_processor"]
    prompt = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    first, second = Encoder(tiny.processor), Encoder(loaded)
    text = first.prompt_text(prompt)  # pyright: ignore[reportArgumentType]
    assert second.prompt_text(prompt) == text  # pyright: ignore[reportArgumentType]
    expected, found = (each.prompts([text], [[PICTURE]]) for each in (first, second))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_settings_of_videos_may_stand_in_a_file_of_their_own(tmp_path: Path) -> None:
    tiny = TINY_MODELS["qwen2_vl"]()
    tiny.processor.save_pretrained(tmp_path)
    tiny.config.save_pretrained(tmp_path)
    (tmp_path / "video_preprocessor_config.json").write_text('{"merge_size": 7}')
    assert load_processor(tmp_path).video_processor.merge_size == 7
