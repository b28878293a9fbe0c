"""From adapters to adapters on the command line: train on, score against the start, merge."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from peft import PeftConfig
from safetensors.torch import load_file

from mdpo.cli import main


@pytest.fixture
def pairs(tmp_path: Path, make_rows: Any) -> Path:
    path = tmp_path / "pairs.jsonl"
    lines = []
    for k, row in enumerate(make_rows(4)):
        row["images"][0].save(tmp_path / f"{k}.png")
        lines.append(json.dumps(row | {"images": [f"{k}.png"]}))
    path.write_text("\n".join(lines) + "\n")
    return path


def train(model_dir: Path, pairs: Path, out: Path, *more: str | Path) -> int:
    words = ["train", "--model_name_or_path", model_dir, "--dataset_name", pairs]
    words += ["--output_dir", out, "--use_cpu", "--max_steps", "2", "--warmup_steps", "0"]
    words += ["--learning_rate", "1e-2", "--disable_tqdm", "true", "--save_strategy", "no"]
    words += ["--gradient_accumulation_steps", "1", "--report_to", "none", *more]
    return main([str(word) for word in words])


def test_a_second_run_goes_on_from_the_first(
    model_dir: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert train(model_dir, pairs, first, "--lora_r", "4", "--use_rslora", "true") == 0
    assert train(model_dir, pairs, second, "--adapter_name_or_path", first) == 0
    config: Any = PeftConfig.from_pretrained(str(second))
    assert (config.r, config.use_rslora) == (4, True)
    before, after = (load_file(each / "adapter_model.safetensors") for each in (first, second))
    assert before.keys() == after.keys()
    assert any(not before[name].equal(after[name]) for name in before)
    given = yaml.safe_load((second / "config.yaml").read_text())
    assert given["adapter_name_or_path"] == str(first)

    scoring = ["rewards", str(pairs), "--adapter", str(second), "--out", str(tmp_path / "scores")]
    capsys.readouterr()
    assert main(scoring) == 1
    assert "`--reference` must be given" in capsys.readouterr().err
    rewards = {}
    for reference in (first, second, model_dir):
        assert main([*scoring, "--reference", str(reference)]) == 0
        rows = (tmp_path / "scores" / "rewards.jsonl").read_text().splitlines()
        rewards[reference] = [json.loads(row)["chosen"] for row in rows]
    # against itself nothing is gained, and against the base more than against the start
    assert rewards[second] == pytest.approx([0] * 4, abs=1e-5)
    assert all(
        abs(start) > 1e-3 and abs(base - start) > 1e-3
        for start, base in zip(rewards[first], rewards[model_dir], strict=True)
    )

    assert main(["merge", "--adapter", str(second), "--out", str(tmp_path / "merged")]) == 0
    assert (tmp_path / "merged" / "model.safetensors").exists()


def test_quantized_training_from_the_command_line(
    model_dir: Path, pairs: Path, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    out = tmp_path / "run"
    assert train(model_dir, pairs, out, "--load_in_4bit", "true", "--lora_r", "4") == 0
    assert (out / "adapter_model.safetensors").exists()
    assert main(["merge", "--adapter", str(out), "--out", str(tmp_path / "merged")]) == 0


def test_wrong_adapters_end_in_a_message(
    model_dir: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, words in (("nowhere", "no such folder"), (".", "adapter_config.json is missing")):
        adapter = tmp_path / name
        assert train(model_dir, pairs, tmp_path / "run", "--adapter_name_or_path", adapter) == 1
        assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_template_variables_reach_the_counts(
    model_dir: Path, pairs: Path, processor: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    template = tmp_path / "model"
    processor.save_pretrained(template)
    jinja = template / "chat_template.jinja"
    jinja.write_text("{{ opening | default('') }}" + jinja.read_text())
    counted = []
    for more in ([], ["--chat-template-kwargs", '{"opening": "USER: USER: USER: "}']):
        words = ["data", "inspect", str(pairs), "--model", str(template), "--json", *more]
        assert main(words) == 0
        counted.append(json.loads(capsys.readouterr().out))
    assert counted[0] != counted[1]
