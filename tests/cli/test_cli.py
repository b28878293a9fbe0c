"""The command line as a user meets it: real processes, exit codes, one-line errors."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def mdpo(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mdpo", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=ENVIRONMENT,
        check=False,
    )


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The last line of standard error that is ours; no traceback may stand there."""
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("mdpo")]
    assert lines, done.stderr
    return lines[-1]


@pytest.fixture
def pairs(tmp_path: Path, make_rows: Any) -> Path:
    """A native data set on disk, images beside it."""
    path = tmp_path / "pairs.jsonl"
    lines = []
    for k, row in enumerate(make_rows(8)):
        row["images"][0].save(tmp_path / f"{k}.png")
        lines.append(json.dumps(row | {"images": [f"{k}.png"], "id": f"pair-{k}"}))
    path.write_text("\n".join(lines) + "\n")
    return path


def training(model_dir: Path, pairs: Path, out: Path, *more: str | Path) -> list[str | Path]:
    words: list[str | Path] = ["train", "--model_name_or_path", model_dir]
    words += ["--dataset_name", pairs, "--output_dir", out, "--use_cpu", "--lora_r", "4"]
    words += ["--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "1"]
    return [*words, "--learning_rate", "1e-3", "--disable_tqdm", "true", *more]


def test_help_is_quick_because_nothing_heavy_is_loaded() -> None:
    code = (
        "import sys; from mdpo.cli import main; main(['--help']); "
        "print(sorted({'torch', 'transformers', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "mdpo VERB [options]" in done.stdout


def test_status_2_for_wrong_usage() -> None:
    assert mdpo().returncode == 2
    assert mdpo("fly").returncode == 2
    assert mdpo("merge").returncode == 2
    assert mdpo("--version").returncode == 0


@pytest.mark.parametrize(
    "verb",
    [
        "train",
        "plan",
        "merge",
        "convert",
        "check-model",
        "data",
        "rewards",
        "generate",
        "score",
        "playground",
        "demo",
    ],
)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    done = mdpo(verb, "--help")
    assert done.returncode == 0
    assert "example" in done.stdout
    assert "%%" not in done.stdout


def test_train_save_merge_and_use(model_dir: Path, pairs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = ["--max_steps", "2", "--dataset_test_split", "train", "--eval_dataset_name", pairs]
    done = mdpo(*training(model_dir, pairs, run, *flags))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(run)
    for name in ("config.yaml", "run.json", "data_report.json", "README.md", "trainer_state.json"):
        assert (run / name).exists()

    again = mdpo("train", "--config", run / "config.yaml", "--output_dir", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    first = load_file(run / "adapter_model.safetensors")
    second = load_file(tmp_path / "again" / "adapter_model.safetensors")
    assert all(first[name].equal(second[name]) for name in first)

    assert mdpo("merge", "--adapter", run, "--out", tmp_path / "merged").returncode == 0
    assert (tmp_path / "merged" / "model.safetensors").exists()

    done = mdpo("rewards", pairs, "--adapter", run, "--out", tmp_path / "rewards")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "rewards" / "metrics.json").read_text())["metrics"]
    assert metrics["rewards/accuracies"]["n"] == 8
    rows = (tmp_path / "rewards" / "rewards.jsonl").read_text().splitlines()
    assert [json.loads(row)["row_id"] for row in rows] == [f"pair-{k}" for k in range(8)]


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_very_same_weights(
    model_dir: Path, pairs: Path, tmp_path: Path
) -> None:
    flags = ["--max_steps", "12", "--save_strategy", "steps", "--save_steps", "2"]
    flags += ["--corruption_per_epoch", "true", "--corruption", "noise", "--eval_strategy", "no"]
    whole = mdpo(*training(model_dir, pairs, tmp_path / "whole", *flags))
    assert whole.returncode == 0, whole.stderr

    cut = tmp_path / "cut"
    words = [sys.executable, "-m", "mdpo", *map(str, training(model_dir, pairs, cut, *flags))]
    process = subprocess.Popen(
        words, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (cut / "checkpoint-4" / "trainer_state.json").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (cut / "adapter_model.safetensors").exists()

    resumed = mdpo(*training(model_dir, pairs, cut, *flags, "--resume_from_checkpoint", "true"))
    assert resumed.returncode == 0, resumed.stderr
    first = load_file(tmp_path / "whole" / "adapter_model.safetensors")
    second = load_file(cut / "adapter_model.safetensors")
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)


def spoil(pairs: Path, **changes: Any) -> None:
    """Change the fields of the third row."""
    lines = pairs.read_text().splitlines()
    lines[2] = json.dumps(json.loads(lines[2]) | changes)
    pairs.write_text("\n".join(lines) + "\n")


USER = {"role": "user"}
TWO_PLACES = [{**USER, "content": "<image> and <image>: what is shown?"}]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": ["gone.png"]}, ["`images`", "gone.png", "not found"]),
        ({"images": ["torn.jpg"]}, ["`images`", "torn.jpg"]),
        ({"images": ["../outside.png"]}, ["outside.png", "image_root"]),
        ({"images": ["bomb.png"]}, ["bomb.png", "pixels"]),
        ({"chosen": [{"role": "assistant", "content": ""}]}, ["chosen", "must not be empty"]),
        ({"prompt": TWO_PLACES}, ["prompt", "2", "1"]),
    ],
    ids=["missing", "torn", "outside", "bomb", "empty", "two-places"],
)
def test_a_bad_row_is_named_with_field_and_place(
    model_dir: Path, pairs: Path, tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    whole = (tmp_path / "0.png").read_bytes()
    Image.open(tmp_path / "0.png").save(tmp_path / "whole.jpg")
    (tmp_path / "torn.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-300])
    (tmp_path.parent / "outside.png").write_bytes(whole)
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    spoil(pairs, **changes)
    done = mdpo("data", "inspect", pairs)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert "pairs.jsonl:3" in line
    for word in words:
        assert word in line


def test_training_makes_the_same_checks_and_can_skip(
    model_dir: Path, pairs: Path, tmp_path: Path
) -> None:
    spoil(pairs, images=["gone.png"])
    run = tmp_path / "run"
    done = mdpo(*training(model_dir, pairs, run, "--max_steps", "1"))
    assert done.returncode == 1
    assert "1 of 8 rows of the train data cannot be trained on" in error_of(done)
    assert "pairs.jsonl:3" in done.stderr
    assert not (run / "run.json").exists()
    skipped = mdpo(*training(model_dir, pairs, run, "--max_steps", "1", "--on_bad_row", "skip"))
    assert skipped.returncode == 0, skipped.stderr
    assert "dropped: " in skipped.stderr
    report = json.loads((run / "data_report.json").read_text())["train"]
    assert (report["num_good"], report["dropped"]) == (7, [2])


def test_a_prompt_without_a_place_for_its_image_is_accepted(pairs: Path) -> None:
    spoil(pairs, prompt=[{**USER, "content": [{"type": "text", "text": "What is shown?"}]}])
    assert mdpo("data", "inspect", pairs).returncode == 0


def test_inspect_counts_tokens_and_prints_json(model_dir: Path, pairs: Path) -> None:
    done = mdpo("data", "inspect", pairs, "--model", model_dir, "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0
    assert (report["format_name"], report["num_good"]) == ("native", 8)
    assert report["prompt_tokens"]["low"] > 36


def test_preview_writes_a_picture(pairs: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    assert mdpo("data", "preview", pairs, "--rows", "3", "--out", sheet).returncode == 0
    with Image.open(sheet) as image:
        assert image.height > 3 * 224


@pytest.mark.parametrize(
    ("flags", "status", "words"),
    [
        (["--beta", "0"], 2, "`beta` must be > 0, got 0.0. The paper uses 0.1."),
        (["--bta", "0.2"], 2, "`--bta` is not a setting. Did you mean `--beta`?"),
        (["--config", "unknown.yaml"], 2, "`anchr_floor` is not a setting. Did you mean"),
        (["--dataset_name", "gone.jsonl"], 1, "gone.jsonl"),
        (["--dataset_name", "columns.jsonl"], 1, "columns"),
        (["--model_name_or_path", "text-model"], 1, "must be a vision-language model"),
        (["--corruption", "crop"], 2, "`corruption` 'crop' is unknown"),
    ],
    ids=["beta", "flag", "key", "file", "columns", "text-model", "corruption"],
)
def test_wrong_settings_end_in_one_line(
    model_dir: Path, pairs: Path, tmp_path: Path, flags: list[str], status: int, words: str
) -> None:
    (tmp_path / "unknown.yaml").write_text("anchr_floor: 1\n")
    (tmp_path / "columns.jsonl").write_text('{"question": "?", "answer": "!"}\n')
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "text-model")
    done = mdpo(*training(model_dir, pairs, tmp_path / "run", *flags), cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert words in error_of(done)
    assert not (tmp_path / "run").exists()


def untimed(path: Path) -> list[dict[str, Any]]:
    """Records of a run less the time that each took."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: each[name] for name in each if name != "seconds"} for each in records]


def test_generate_and_score(model_dir: Path, tmp_path: Path, make_picture: Any) -> None:
    data = tmp_path / "chair"
    data.mkdir()
    rows = []
    for k in range(3):
        make_picture(k).save(data / f"{k}.png")
        rows.append({"image_id": str(k), "image": f"{k}.png", "prompt": "What is shown?"})
    (data / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (data / "synonyms.txt").write_text("boat, ship\ncup\n")
    (data / "ground_truth.json").write_text(json.dumps({str(k): ["boat"] for k in range(3)}))
    run = tmp_path / "run"
    words = ["generate", "chair", "--model", model_dir, "--data", data, "--out", run]
    assert mdpo(*words, "--max-new-tokens", "6").returncode == 0
    before = (run / "generations.jsonl").read_text()
    whole = untimed(run / "generations.jsonl")
    assert len(whole) == 3

    # a run cut off in the middle of a line is taken up where it stopped
    (run / "generations.jsonl").write_text(before[: len(before) // 2])
    assert mdpo(*words, "--max-new-tokens", "6").returncode == 0
    assert untimed(run / "generations.jsonl") == whole
    other = mdpo(*words, "--max-new-tokens", "7")
    assert other.returncode == 1
    assert "Take another folder" in error_of(other)

    # other weights in the same folder do not pass for those that gave the answers
    moved = tmp_path / "moved"
    shutil.copytree(model_dir, moved)
    words[words.index(model_dir)] = moved
    other_run = [tmp_path / "other" if word == run else word for word in words]
    assert mdpo(*other_run, "--max-new-tokens", "6").returncode == 0
    weights = load_file(moved / "model.safetensors")
    save_file({name: 1.01 * value for name, value in weights.items()}, moved / "model.safetensors")
    changed = mdpo(*other_run, "--max-new-tokens", "6")
    assert changed.returncode == 1
    assert "holds records made with `weights`" in error_of(changed)

    done = mdpo("score", "chair", run, "--data", data, "--out", run)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((run / "metrics.json").read_text())["metrics"]
    assert metrics["CHAIRs"]["n"] == 3
    responses = tmp_path / "others.jsonl"
    responses.write_text('{"image_id": 0, "caption": "a boat and a cup"}\n')
    scored = ["score", "chair", "--responses", responses, "--data", data, "--out", tmp_path / "o"]
    assert mdpo(*scored).returncode == 0
    metrics = json.loads((tmp_path / "o" / "metrics.json").read_text())["metrics"]
    assert (metrics["CHAIRs"]["value"], metrics["CHAIRi"]["value"]) == (100.0, 50.0)
