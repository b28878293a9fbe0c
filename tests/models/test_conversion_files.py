"""Round trips, what is refused, and what stays on disk."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from original_checkpoints import SIGLIP, SPACES, Original, save_sharded, write_bunny, write_llava
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, CodeGenTokenizer

from mdpo.cli import main
from mdpo.models.conversion import bunny_to_standard, llava_to_standard, to_original, writing
from mdpo.models.conversion.checkpoint import StoredTensor
from mdpo.models.conversion.towers import read_vision_config, siglip_config


def tensors(folder: Path) -> dict[str, Tensor]:
    return {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    """Equal names, types, shapes and bits."""
    return found.keys() == wanted.keys() and all(
        found[n].dtype == t.dtype
        and found[n].shape == t.shape
        and found[n].view(torch.uint8).equal(t.view(torch.uint8))
        for n, t in wanted.items()
    )


def content(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture
def bunny(tmp_path: Path) -> Original:
    return write_bunny(tmp_path / "original")


def convert(original: Original, name: str = "standard", **more: Any) -> Path:
    folder = original.folder.parent
    bunny_to_standard(original.folder, folder / name, vision_config=folder / "siglip.json", **more)
    return folder / name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_bunny_comes_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    original = write_bunny(tmp_path / "original", dtype=dtype)
    to_original(convert(original), tmp_path / "back", family="bunny")
    assert same(tensors(tmp_path / "back"), tensors(original.folder))
    for name in ("config.json", "generation_config.json", "added_tokens.json", "vocab.json"):
        assert content(tmp_path / "back" / name) == content(original.folder / name)
    assert not (tmp_path / "back.part").exists()


def test_what_is_written_is_what_transformers_saves(bunny: Original, tmp_path: Path) -> None:
    standard = convert(bunny)
    model = AutoModelForImageTextToText.from_pretrained(standard)
    model.save_pretrained(tmp_path / "saved")
    assert same(tensors(tmp_path / "saved"), tensors(standard))
    assert content(tmp_path / "saved" / "config.json") == content(standard / "config.json") | {
        key: content(tmp_path / "saved" / "config.json")[key]
        for key in ("text_config", "vision_config")
    }
    embedding = tensors(standard)["language_model.model.embed_tokens.weight"]
    assert embedding.shape[0] == 384
    assert embedding[323:].eq(0).all()


def test_a_trained_bunny_goes_back_with_its_training(bunny: Original, tmp_path: Path) -> None:
    standard = convert(bunny)
    model = AutoModelForImageTextToText.from_pretrained(standard, dtype=torch.bfloat16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    model.save_pretrained(tmp_path / "trained", max_shard_size="100KB")
    AutoProcessor.from_pretrained(standard).save_pretrained(tmp_path / "trained")
    to_original(tmp_path / "trained", tmp_path / "back", family="bunny")
    wanted = {n: t.bfloat16() * 1.5 for n, t in tensors(bunny.folder).items()}
    assert same(tensors(tmp_path / "back"), wanted)
    config = content(tmp_path / "back" / "config.json")
    assert config == bunny.config | {"torch_dtype": "bfloat16"}
    to_original(tmp_path / "trained", tmp_path / "half", family="bunny", dtype=torch.float16)
    assert {t.dtype for t in tensors(tmp_path / "half").values()} == {torch.float16}


@pytest.mark.parametrize("copied", [False, True])
def test_bunnys_tokenizer_comes_back(bunny: Original, tmp_path: Path, copied: bool) -> None:
    source = bunny.folder if copied else None
    to_original(convert(bunny), tmp_path / "back", family="bunny", tokenizer=source)
    before = CodeGenTokenizer.from_pretrained(bunny.folder)
    after = CodeGenTokenizer.from_pretrained(tmp_path / "back")
    assert after.get_vocab() == before.get_vocab()
    assert len(after) == bunny.config["vocab_size"]
    text = f"A red   boat <image>  and{SPACES[0]}two.<|endoftext|>x"
    assert after(text)["input_ids"] == before(text)["input_ids"]
    # Without tokenizer.json, from the files of the slow one.
    (tmp_path / "back" / "tokenizer.json").unlink()
    slow = CodeGenTokenizer.from_pretrained(tmp_path / "back")
    assert slow(text)["input_ids"] == before(text)["input_ids"]


def test_llava_comes_back_without_tower_and_buffers(tmp_path: Path) -> None:
    original = write_llava(tmp_path / "original")
    llava_to_standard(original.folder, tmp_path / "standard", vision_tower=tmp_path / "clip")
    with pytest.raises(ValueError, match=r"`--tokenizer` must be given for LLaVA"):
        to_original(tmp_path / "standard", tmp_path / "back", family="llava")
    to_original(tmp_path / "standard", tmp_path / "back", family="llava", tokenizer=original.folder)
    wanted = {n: t for n, t in tensors(original.folder).items() if "inv_freq" not in n}
    assert same(tensors(tmp_path / "back"), wanted)
    for name in ("config.json", "generation_config.json", "tokenizer.json"):
        assert content(tmp_path / "back" / name) == content(original.folder / name)


@pytest.mark.parametrize("fewer_levels", [False, True])
def test_the_tower_has_the_names_of_published_checkpoints(
    bunny: Original, tmp_path: Path, fewer_levels: bool
) -> None:
    standard = convert(bunny)
    names = [name for name in tensors(standard) if name.startswith("vision_tower.")]
    assert names
    # As in the files of llava-hf; vLLM, for one, knows no others.
    assert all(name.startswith("vision_tower.vision_model.") for name in names)
    if fewer_levels:
        # As transformers saves a model that was not loaded from a checkpoint.
        written = tensors(standard)
        renamed = {n.replace("_tower.vision_model.", "_tower."): t for n, t in written.items()}
        save_file(renamed, standard / "model.safetensors", {"format": "pt"})
        assert renamed.keys() != written.keys()
    to_original(standard, tmp_path / "back", family="bunny")
    assert same(tensors(tmp_path / "back"), tensors(bunny.folder))


def test_shards_and_their_index(
    bunny: Original, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing.write_weights, "__kwdefaults__", {"shard_bytes": 70_000})
    standard = convert(bunny)
    index = content(standard / "model.safetensors.index.json")
    files = sorted(standard.glob("*.safetensors"))
    assert len(files) > 2
    assert sorted(set(index["weight_map"].values())) == [file.name for file in files]
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors(standard).values())
    for file in files:
        assert sum(t.nbytes for t in load_file(file).values()) <= 70_000
        with safe_open(file, framework="pt") as opened:
            assert opened.metadata() == {"format": "pt"}
    AutoModelForImageTextToText.from_pretrained(standard)
    to_original(standard, tmp_path / "back", family="bunny")
    assert same(tensors(tmp_path / "back"), tensors(bunny.folder))


def test_no_more_than_one_tensor_is_in_memory(
    bunny: Original, monkeypatch: pytest.MonkeyPatch
) -> None:
    import weakref

    alive: list[Any] = []
    most = 0
    load = StoredTensor.load

    def counted(self: StoredTensor) -> Tensor:
        nonlocal most
        tensor = load(self)
        alive.append(weakref.ref(tensor))
        most = max(most, sum(each() is not None for each in alive))
        return tensor

    monkeypatch.setattr(StoredTensor, "load", counted)
    convert(bunny)
    assert len(alive) == len(tensors(bunny.folder))
    assert most == 1


def test_a_tokenizer_smaller_than_the_vocabulary(tmp_path: Path) -> None:
    # The image token takes the first free id, whose row the original keeps and never uses.
    original = write_bunny(tmp_path / "original", vocab_size=400)
    standard = convert(original)
    model = AutoModelForImageTextToText.from_pretrained(standard)
    assert model.config.image_token_index == 323
    assert model.config.text_config.vocab_size == 448
    assert model.config.real_vocab_size == 400
    assert model.generation_config.suppress_tokens == [323, *range(400, 448)]
    to_original(standard, tmp_path / "back", family="bunny")
    assert same(tensors(tmp_path / "back"), tensors(original.folder))


def test_other_types_are_stored_if_asked_for(bunny: Original, tmp_path: Path) -> None:
    standard = convert(bunny, dtype=torch.bfloat16)
    assert {t.dtype for t in tensors(standard).values()} == {torch.bfloat16}
    assert AutoModelForImageTextToText.from_pretrained(standard).dtype == torch.bfloat16
    weights = tensors(bunny.folder)
    weights["lm_head.weight"][0, 0] = 1e6
    save_sharded(bunny.folder, weights, shards=2)
    with pytest.raises(ValueError, match=r"`lm_head.weight` has values that do not fit"):
        convert(bunny, "half", dtype=torch.float16)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "original", "siglip.json", "standard"
    ]  # fmt: skip


# What is wrong with the weights


def spoil(original: Original, change: Callable[[dict[str, Tensor]], None]) -> None:
    weights = tensors(original.folder)
    change(weights)
    save_sharded(original.folder, weights, shards=2)


def drop(name: str) -> Callable[[dict[str, Tensor]], None]:
    def change(weights: dict[str, Tensor]) -> None:
        del weights[name]

    return change


def put(name: str, value: Tensor) -> Callable[[dict[str, Tensor]], None]:
    return lambda weights: weights.update({name: value})


TOWER = "model.vision_tower.vision_tower.vision_model."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("model.layers.1.mlp.fc2.bias"), r"1 of 89 are missing, `language_model.mod"),
        (put("model.extra.weight", torch.ones(2)), r"`model.extra.weight` is not part"),
        (put("lm_head.weight", torch.ones(3, 40)), r"must have shape \(323, 40\), got \(3, 40\)"),
        (put("lm_head.bias", torch.ones(323)), r"`lm_head.bias` must be missing or zero"),
        (put(f"{TOWER}head.probe", torch.ones(1)), r"head.probe` is not part of the model"),
        (put("lm_head.weight", torch.ones(323, 40).int()), r"must be of type F64.* got I32"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused_by_name(
    bunny: Original, change: Any, message: str
) -> None:
    spoil(bunny, change)
    with pytest.raises(ValueError, match=message):
        convert(bunny)
    assert not list(bunny.folder.parent.glob("standard*"))


def test_zero_bias_and_buffers_are_left_out(bunny: Original) -> None:
    def add(weights: dict[str, Tensor]) -> None:
        weights["lm_head.bias"] = torch.zeros(323)
        weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
        weights[f"{TOWER}embeddings.position_ids"] = torch.arange(9)[None]

    before = tensors(convert(bunny))
    spoil(bunny, add)
    assert same(tensors(convert(bunny, "again")), before)


def test_a_tower_with_all_its_layers_is_refused(bunny: Original) -> None:
    last = {n: t for n, t in bunny.weights.items() if f"{TOWER}encoder.layers.3." in n}
    spoil(bunny, lambda weights: weights.update(last))
    with pytest.raises(ValueError, match=r"encoder.layers.3.* is not part of the model"):
        convert(bunny)


def test_pickles_are_refused(bunny: Original) -> None:
    for file in bunny.folder.glob("model*"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no weights"):
        convert(bunny)
    (bunny.folder / "pytorch_model-00001-of-00002.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"must hold safetensors, got pytorch_model-00001"):
        convert(bunny)


def test_damaged_files_are_refused(bunny: Original) -> None:
    index = bunny.folder / "model.safetensors.index.json"
    kept = index.read_text()
    listed = content(index)
    listed["weight_map"].pop("lm_head.weight")
    index.write_text(json.dumps(listed))
    with pytest.raises(ValueError, match=r"`lm_head.weight` must be where the index says"):
        convert(bunny)
    index.write_text(kept)
    shard = bunny.folder / "model-00002-of-00002.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:1000])
    with pytest.raises(ValueError, match=r"00002-of-00002.safetensors is damaged"):
        convert(bunny)
    shard.unlink()
    with pytest.raises(OSError, match=r"model-00002-of-00002.safetensors is missing"):
        convert(bunny)
    (bunny.folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json must be JSON"):
        convert(bunny)


# What is wrong with the config


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model_type", "bunny-qwen", r"got 'bunny-qwen'. Of Bunny's language models only Phi-2"),
        ("model_type", "bunny-llama", r"got 'bunny-llama'"),
        ("model_type", "phi", r"`model_type` must be 'bunny-phi', 'llava' or 'llava_llama'"),
        ("model_type", "llava_llama", r"Use `mdpo convert llava`"),
        ("mm_projector_type", "linear", r"`mm_projector_type` must be 'mlp2x_gelu', got 'linear'"),
        ("image_aspect_ratio", "anyres", r"`image_aspect_ratio` must be 'pad' or"),
        ("rope_scaling", {"type": "linear"}, r"`rope_scaling` must be missing"),
        ("tie_word_embeddings", True, r"`tie_word_embeddings` must be missing or False"),
        ("use_s2", True, r"`use_s2` must be"),
        ("mm_hidden_size", 7, r"`mm_hidden_size` must be missing or 24, got 7"),
        ("partial_rotary_factor", None, r"`partial_rotary_factor` is missing"),
        ("vocab_size", "many", r"`vocab_size` must be a whole number, got 'many'"),
        ("vocab_size", 300, r"must have at most 300 tokens"),
        ("hidden_size", 80, r"must have shape"),
        ("num_hidden_layers", 3, r"are missing"),
    ],
)
def test_configs_that_are_not_converted(
    bunny: Original, field: str, value: Any, message: str
) -> None:
    config = {k: v for k, v in {**bunny.config, field: value}.items() if v is not None}
    (bunny.folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        convert(bunny)


def test_a_bunny_that_does_not_pad(bunny: Original) -> None:
    (bunny.folder / "config.json").write_text(
        json.dumps({**bunny.config, "image_aspect_ratio": "square"})
    )
    assert AutoProcessor.from_pretrained(convert(bunny)).image_processor.do_pad is False


def test_tokenizers_that_lost_something(bunny: Original) -> None:
    listed = bunny.folder / "added_tokens.json"
    listed.write_text(json.dumps({"lost": 322}))
    with pytest.raises(ValueError, match=r"token 'lost' of added_tokens.json"):
        convert(bunny)
    for name in ("tokenizer.json", "vocab.json"):
        (bunny.folder / name).unlink()
    with pytest.raises(ValueError, match=r"holds no tokenizer"):
        convert(bunny)


def test_sizes_of_the_tower(bunny: Original, tmp_path: Path) -> None:
    release = siglip_config("google/siglip-so400m-patch14-384", None)
    assert release["num_hidden_layers"] == 27
    assert release["num_attention_heads"] == 16
    with pytest.raises(ValueError, match=r"`mm_vision_tower` must be .* Pass `--vision-config"):
        bunny_to_standard(bunny.folder, tmp_path / "standard")
    tower = tmp_path / "tower"
    tower.mkdir()
    whole = {"model_type": "siglip", "vision_config": SIGLIP, "text_config": {}}
    (tower / "config.json").write_text(json.dumps(whole))
    assert siglip_config(str(tower), None) == SIGLIP
    assert siglip_config("google/siglip-so400m-patch14-384", tower) == SIGLIP
    with pytest.raises(ValueError, match=r"`model_type` must be 'clip' or 'clip_vision_model'"):
        read_vision_config(tower, "clip")
    (tower / "config.json").write_text(json.dumps({"model_type": "siglip"}))
    with pytest.raises(ValueError, match=r"`hidden_size` of the vision tower must be a whole"):
        read_vision_config(tower, "siglip")


# LLaVA


@pytest.fixture
def llava(tmp_path: Path) -> Original:
    return write_llava(tmp_path / "original")


def convert_llava(original: Original) -> None:
    folder = original.folder.parent
    llava_to_standard(original.folder, folder / "standard", vision_tower=folder / "clip")


def test_llava_hf_loads_as_it_is(llava: Original, model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"loads as it is"):
        llava_to_standard(model_dir, tmp_path / "x", vision_tower=tmp_path / "clip")
    with pytest.raises(ValueError, match=r"must have `original_config`"):
        to_original(model_dir, tmp_path / "x", family="llava", tokenizer=llava.folder)


def test_a_llava_with_its_own_tower_is_refused(llava: Original) -> None:
    spoil(llava, put(f"{TOWER}post_layernorm.bias", torch.zeros(24)))
    with pytest.raises(ValueError, match=r"a checkpoint of LLaVA-1.5 holds no tower"):
        convert_llava(llava)


def test_a_tower_that_was_saved_alone(llava: Original, tmp_path: Path) -> None:
    convert_llava(llava)
    clip = tmp_path / "clip"
    tower = {n: t for n, t in tensors(clip).items() if n.startswith("vision_model.")}
    bare = {n.removeprefix("vision_model."): t for n, t in tower.items()}
    save_file(bare, clip / "model.safetensors")
    config = content(clip / "config.json")
    alone = {**config["vision_config"], "model_type": "clip_vision_model"}
    (clip / "config.json").write_text(json.dumps(alone))
    llava_to_standard(llava.folder, tmp_path / "alone", vision_tower=clip)
    assert same(tensors(tmp_path / "alone"), tensors(tmp_path / "standard"))


def test_another_clip_is_refused(llava: Original, tmp_path: Path) -> None:
    path = tmp_path / "clip" / "config.json"
    config = content(path)
    config["vision_config"]["num_hidden_layers"] = 4
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"are missing, `vision_tower\.\S+\.encoder.layers.3"):
        convert_llava(llava)


def test_the_tokenizer_model_needs_two_packages(
    llava: Original, monkeypatch: pytest.MonkeyPatch
) -> None:
    (llava.folder / "tokenizer.json").rename(llava.folder / "tokenizer.model")
    monkeypatch.setattr("mdpo.models.conversion.tokenizers.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install sentencepiece protobuf"):
        convert_llava(llava)
    (llava.folder / "tokenizer.model").unlink()
    with pytest.raises(ValueError, match=r"neither tokenizer.json nor tokenizer.model"):
        convert_llava(llava)


# Where it is written


def test_nothing_is_overwritten_and_nothing_half_done_stays(
    bunny: Original, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    standard = tmp_path / "standard"
    standard.mkdir()
    (standard / "mine").write_text("kept")
    with pytest.raises(OSError, match=r"standard must be new or empty"):
        convert(bunny)
    (standard / "mine").unlink()
    (tmp_path / "standard.part").mkdir()
    with pytest.raises(OSError, match=r"standard.part is there"):
        convert(bunny)
    (tmp_path / "standard.part").rmdir()
    written = []

    def interrupted(*given: Any) -> None:
        written.append(given)
        if len(written) > 20:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writing, "_write_tensor", interrupted)
        with pytest.raises(KeyboardInterrupt):
            convert(bunny)
    assert not (tmp_path / "standard.part").exists()
    assert not list(standard.iterdir())
    assert (convert(bunny) / "config.json").exists()


def test_a_full_disk_is_seen_before_writing(
    bunny: Original, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"the disk has 0.0 GB free"):
        convert(bunny)
    assert not (tmp_path / "standard.part").exists()


def test_adapters_are_to_be_merged_first(bunny: Original, tmp_path: Path) -> None:
    standard = convert(bunny)
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    shutil.copy(standard / "config.json", adapters)
    (adapters / "adapter_config.json").write_text("{}")
    save_file({"x": torch.ones(1)}, adapters / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"Fold them in first: mdpo merge --adapter"):
        to_original(adapters, tmp_path / "back", family="bunny")


# The command line


def test_both_ways_from_the_command_line(
    bunny: Original, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, standard, back = map(str, (bunny.folder, tmp_path / "standard", tmp_path / "back"))
    vision = str(tmp_path / "siglip.json")
    assert main(["convert", "bunny", source, standard, "--vision-config", vision]) == 0
    assert capsys.readouterr().out == f"{standard}\n"
    assert main(["convert", "bunny", "--reverse", standard, back, "--dtype", "float16"]) == 0
    half = {n: t.half() for n, t in tensors(bunny.folder).items()}
    assert same(tensors(tmp_path / "back"), half)
    assert main(["convert", "bunny", source, standard, "--vision-config", vision]) == 1
    assert "mdpo convert: error: " in capsys.readouterr().err
    assert main(["convert", "llava", "--reverse", standard, str(tmp_path / "x")]) == 1
    assert "Use `mdpo convert bunny`" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "llava a b",
        "llava a b --vision-tower c --tokenizer d",
        "llava --reverse a b --vision-tower c",
        "bunny --reverse a b --vision-config c",
        "bunny a b --vision-tower c",
        "qwen a b",
        "bunny a",
    ],
)
def test_wrong_usage(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", *words.split()]) == 2
    assert "mdpo convert" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["bunny", "--help"], ["llava", "--help"]])
def test_help_has_examples(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", *words]) == 0
    assert "mdpo convert bunny --reverse runs/bunny-merged" in capsys.readouterr().out
