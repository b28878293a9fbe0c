"""Flags over file over defaults, and what is refused before anything is loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mdpo.training.arguments import SettingsError, help_lines, parse_settings, write_settings

NEEDED = ["--model_name_or_path", "m", "--dataset_name", "d", "--output_dir", "o", "--use_cpu"]
RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


def write(folder: Path, text: str) -> str:
    path = folder / "run.yaml"
    path.write_text(text)
    return str(path)


def test_flag_beats_file_beats_default(tmp_path: Path) -> None:
    path = write(tmp_path, "beta: 0.2\nanchor_floor: 0.5\nlora_r: 8\n")
    training, model, data, _ = parse_settings([*NEEDED, "--config", path, "--beta", "0.3"])
    assert (training.beta, training.anchor_floor, training.link) == (0.3, 0.5, "logsigmoid")
    assert (model.lora_r, model.lora_alpha, data.dataset_name) == (8, 128, "d")


def test_required_settings_may_stand_in_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "model_name_or_path: m\ndataset_name: d\noutput_dir: o\nuse_cpu: true\n")
    training, model, data, _ = parse_settings(["--config", path])
    assert (training.output_dir, model.model_name_or_path, data.dataset_name) == ("o", "m", "d")


def test_exponent_without_a_dot_is_a_number(tmp_path: Path) -> None:
    path = write(tmp_path, "learning_rate: 2e-5\n")
    assert parse_settings([*NEEDED, "--config", path]).training.learning_rate == 2e-5


def test_structured_settings_come_from_file_and_flag(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "loss_weights: [1, 0.5]\n"
        "corruption_options: {area_low: 0.2, area_high: 0.5}\n"
        "objective:\n"
        "  name: mine\n"
        "  beta: 1e-1\n"
        "  terms:\n"
        "    - {kind: preference, name: image, preferred: chosen/chosen, other: rejected/chosen}\n"
        "    - {kind: anchor, name: up, candidate: chosen/chosen, floor: 0.5}\n",
    )
    training = parse_settings([*NEEDED, "--config", path]).training
    objective = training.make_objective()
    assert [(term.name, term.weight) for term in objective.terms] == [("image", 1.0), ("up", 0.5)]
    assert training.corruption_options == {"area_low": 0.2, "area_high": 0.5}
    flags = ["--corruption_options", '{"area_low": 0.1}', "--loss_weights", "1", "0", "2"]
    training = parse_settings([*NEEDED, *flags]).training
    assert training.corruption_options == {"area_low": 0.1}
    assert training.loss_weights == [1.0, 0.0, 2.0]


def test_false_is_false(tmp_path: Path) -> None:
    path = write(tmp_path, "use_peft: false\nfreeze_vision_tower: false\n")
    training, model, _, _ = parse_settings([*NEEDED, "--config", path])
    assert (training.freeze_vision_tower, model.use_peft) == (False, False)
    assert model.lora() is None
    assert parse_settings([*NEEDED, "--use_peft", "false"]).model.use_peft is False


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bta: 0.2", "`bta` is not a setting. Did you mean `beta`?"),
        ("beta: [0.2]", r"`beta` must be a single value, got \[0.2\]"),
        ("beta: {a: 1}", "`beta` must be a single value"),
        ("- beta", "must hold `setting: value` lines"),
        ("beta: [", "not YAML"),
        ("beta: 0", "`beta` must be > 0, got 0"),
        ("corruption: cropp", "`corruption` 'cropp' is unknown"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        parse_settings([*NEEDED, "--config", write(tmp_path, text)])


def test_a_missing_file_is_named() -> None:
    with pytest.raises(SettingsError, match=r"`--config` 'no.yaml' not found"):
        parse_settings([*NEEDED, "--config", "no.yaml"])


def test_unknown_flags_name_their_neighbour_and_are_never_abbreviations() -> None:
    with pytest.raises(SettingsError, match=r"`--bet` is not a setting. Did you mean `--beta`?"):
        parse_settings([*NEEDED, "--bet", "0.2"])


def test_a_value_that_is_no_number_is_wrong_usage() -> None:
    with pytest.raises(SystemExit) as stop:
        parse_settings([*NEEDED, "--beta", "much"])
    assert stop.value.code == 2


def test_lora_dropout_that_has_no_effect_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"`lora_dropout` 0.1 has no effect"):
        parse_settings([*NEEDED, "--lora_dropout", "0.1"])
    flags = ["--lora_dropout", "0.1", "--disable_dropout", "false"]
    lora = parse_settings([*NEEDED, *flags]).model.lora()
    assert lora is not None
    assert lora.lora_dropout == 0.1


def test_kinds_of_adapters_reach_peft() -> None:
    flags = ["--use_dora", "true", "--use_rslora", "true", "--model_revision", "v2"]
    flags += ["--lora_modules_to_save", "lm_head", "norm"]
    lora = parse_settings([*NEEDED, *flags]).model.lora()
    assert lora is not None
    assert (lora.use_dora, lora.use_rslora, lora.revision) == (True, True, "v2")
    assert lora.modules_to_save == ["lm_head", "norm"]
    plain = parse_settings(NEEDED).model.lora()
    assert plain is not None
    assert (plain.use_dora, plain.use_rslora, plain.modules_to_save) == (False, False, None)


@pytest.mark.parametrize(
    ("given", "targets"),
    [
        (["q_proj"], {"q_proj"}),
        (["q_proj", "v_proj"], {"q_proj", "v_proj"}),
        ([r".*\.q_proj"], r".*\.q_proj"),
        (["all-linear"], "all-linear"),
    ],
)
def test_one_target_is_a_name_or_a_pattern(given: list[str], targets: Any) -> None:
    lora = parse_settings([*NEEDED, "--lora_target_modules", *given]).model.lora()
    assert lora is not None
    assert lora.target_modules == targets


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--load_in_4bit", "--load_in_8bit"], "`load_in_4bit` and `load_in_8bit` are both true"),
        (["--load_in_4bit", "--use_peft", "false"], "`load_in_4bit` true needs adapters"),
        (["--load_in_8bit", "--use_peft", "false"], "`load_in_8bit` true needs adapters"),
        (["--bnb_4bit_quant_type", "fp4"], "`bnb_4bit_quant_type` has no effect without `load_in"),
        (["--use_bnb_nested_quant", "--load_in_8bit"], "`use_bnb_nested_quant` has no effect with"),
        (["--device_map", "{"], "`device_map` must be a name or JSON"),
        (["--adapter_name_or_path", "a", "--lora_r", "8"], "`lora_r` has no effect with `adapter"),
        (["--adapter_name_or_path", "a", "--use_dora"], "`use_dora` has no effect with `adapter"),
        (["--adapter_name_or_path", "a", "--use_peft", "false"], "needs `use_peft` true.*mdpo me"),
        (["--adapter_name_or_path", "./o"], "`output_dir` must be another folder than `adapter"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(flags: list[str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        parse_settings([*NEEDED, *flags])


def test_quantization_computes_in_the_runs_mixed_precision() -> None:
    pytest.importorskip("bitsandbytes")

    def of(*flags: str) -> Any:
        settings = parse_settings([*NEEDED, *flags])
        return settings.model.quantization(settings.training)

    assert of() is None
    assert of("--load_in_8bit").bits == 8
    assert of("--load_in_4bit").compute_dtype is None
    four = of("--load_in_4bit", "--bf16", "--use_bnb_nested_quant", "--bnb_4bit_quant_type", "fp4")
    assert (four.compute_dtype, four.nested, four.quant_type) == (torch.bfloat16, True, "fp4")


def test_devices_and_template_variables_may_be_mappings(tmp_path: Path) -> None:
    text = "device_map: {'': 0}\nchat_template_kwargs: {answer_space: ''}\n"
    settings = parse_settings([*NEEDED, "--config", write(tmp_path, text)])
    assert settings.model.devices() == {"": 0}
    assert settings.training.chat_template_kwargs == {"answer_space": ""}
    write_settings(tmp_path / "again.yaml", settings)
    again = parse_settings(["--config", str(tmp_path / "again.yaml")])
    assert again.training.chat_template_kwargs == {"answer_space": ""}
    assert again.model == settings.model
    assert parse_settings([*NEEDED, "--device_map", "auto"]).model.devices() == "auto"


def test_lora_defaults_are_the_papers() -> None:
    lora = parse_settings(NEEDED).model.lora()
    assert lora is not None
    assert (lora.r, lora.lora_alpha, lora.target_modules) == (64, 128, None)


def test_the_written_file_repeats_the_run(tmp_path: Path) -> None:
    flags = ["--beta", "0.3", "--learning_rate", "5e-5", "--lora_r", "8", "--seed", "7"]
    flags += ["--loss_weights", "1", "2", "3", "--logging_steps", "500", "--bf16", "false"]
    flags += ["--resume_from_checkpoint", "true"]
    first = parse_settings([*NEEDED, *flags])
    write_settings(tmp_path / "config.yaml", first)
    second = parse_settings(["--config", str(tmp_path / "config.yaml")])
    assert second.model == first.model
    assert second.data == first.data
    ours, theirs = first.training.to_dict(), second.training.to_dict()
    differing = {key for key in ours if ours[key] != theirs[key]}
    assert differing <= {"resume_from_checkpoint"}
    written = (tmp_path / "config.yaml").read_text()
    assert "beta: 0.3" in written
    assert "logging_steps: 500" in written
    assert "label_smoothing" not in written
    assert "resume_from_checkpoint" not in written


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
def test_every_recipe_loads(path: Path, tmp_path: Path) -> None:
    # bf16 and tf32 are refused on a machine without a GPU
    flags = ["--use_cpu", "true", "--bf16", "false", "--tf32", "false", "--output_dir", "o"]
    settings = parse_settings(["--config", str(path), *flags])
    assert settings.training.make_objective().name == "mdpo"
    assert settings.model.model_name_or_path
    assert all("#" in line for line in path.read_text().splitlines()[:1])


def test_there_are_recipes_for_playground_and_paper() -> None:
    names = {path.stem for path in RECIPES}
    assert names >= {"playground", "llava-1.5-7b", "bunny-v1.0-3b"}


def test_help_names_our_settings_with_their_defaults() -> None:
    text = "\n".join(help_lines())
    for words in ("--beta\n", "--corruption\n", "--lora_r\n", "--dataset_name\n", "[default 0.1]"):
        assert words in text
    assert "%%" not in text
    assert "--adam_beta1" not in text
