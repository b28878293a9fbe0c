r"""Cost of one optimizer step of preference training: ours beside TRL and the authors' pattern.

Each side runs in its own process, sides take turns within each round, all on the same rows.

Examples:
  # CPU, both geometries; on two cores an hour or two
  python benchmarks/step_cost.py

  # a look at it in a minute: a tiny model, figures without meaning
  python benchmarks/step_cost.py --width tiny --batch-size 2 --rounds 2 --threads 1

  # a GPU, the shape of the 7B models, bfloat16
  python benchmarks/step_cost.py --device cuda --width full

  # cost against response length, prompt length and number of images
  python benchmarks/step_cost.py --sweep --rounds 3

  # two sides only, with a token budget for ours
  python benchmarks/step_cost.py --geometry llava-1.5 --sides trl-dpo mdpo-cached \
      --max-tokens-per-batch 8192
"""

import argparse
import dataclasses
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tqdm import tqdm

from child import measure
from geometry import FAMILIES, WIDTHS, Family, TextLengths
from sides import DEFAULT_SIDES, SIDES, RunSpec, missing_settings
from table import format_summary, format_sweep, summarise

HERE = Path(__file__).resolve().parent

SWEEP_SIDES = ("dpo-cached", "mdpo-cached")
SWEEP: dict[str, tuple[int, ...]] = {
    "response": (32, 64, 128, 256),
    "prompt": (20, 80, 160),
    "images": (1, 2, 3),
}
SWEEP_FIXED = {"response": 110, "prompt": 50, "images": 1}
"""Tokens and images of what is not varied."""


@dataclass(frozen=True)
class Task:
    """One process to run.

    Attributes:
        spec: A ``RunSpec``.
        group: To which table its result belongs.
        varied: In a sweep, what is varied and its value.
    """

    spec: RunSpec
    group: str
    varied: tuple[str, int] | None = None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark, or one process of it.

    Args:
        arguments: Of the command line; None takes those of the program.
    """
    args = make_parser().parse_args(arguments)
    if args.child is not None:
        result = measure(RunSpec.from_json(args.child))
        print(json.dumps(result))
        return
    run_all(args)


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line.

    Returns:
        The parser.
    """
    description, _, examples = str(__doc__).partition("Examples:")
    parser = argparse.ArgumentParser(
        description=description,
        epilog="Examples:" + examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--device", choices=("cpu", "cuda"), default="cpu", help="cpu: float32; cuda: bfloat16")
    add("--geometry", choices=(*FAMILIES, "both"), default="both", help="shape of model and rows")
    add("--width", choices=WIDTHS, default="small", help="full: the 7B shape (default small)")
    add("--sides", nargs="+", choices=tuple(SIDES), default=list(DEFAULT_SIDES), metavar="SIDE",
        help=f"of {', '.join(SIDES)} (default: the first six)")  # fmt: skip
    add("--rounds", type=positive, default=5, help="times each side is run (default 5)")
    add("--steps-per-round", type=positive, default=1, help="timed steps per run (default 1)")
    add("--warm-up", type=positive,
        help="steps before those (default: 1 on cpu, 3 with cuda)")  # fmt: skip
    add("--batch-size", type=positive, default=4, help="pairs per step (default 4)")
    add("--max-tokens-per-batch", type=positive, help="token budget handed to ours")
    add("--gradient-checkpointing", action=argparse.BooleanOptionalAction,
        help="for all sides (default: off on cpu, on with cuda)")  # fmt: skip
    add("--lora-rank", type=positive, default=16, help="alpha is twice that (default 16)")
    add("--image-tokens", type=positive,
        help="per image, to the nearest square (default 576 and 1296)")  # fmt: skip
    add("--threads", type=positive, default=len(os.sched_getaffinity(0)),
        help="of each process, on the CPU (default: all usable cores)")  # fmt: skip
    add("--seed", type=int, default=0, help="of weights and rows (default 0)")
    add("--sweep", action="store_true",
        help="cost of our cached sides against lengths and images instead")  # fmt: skip
    add("--out", type=Path, help="result file (default benchmarks/results/step_cost-DEVICE.json)")
    add("--child", help=argparse.SUPPRESS)
    return parser


def positive(text: str) -> int:
    """Read a whole number of at least 1.

    Args:
        text: Of the command line.

    Returns:
        The number.

    Raises:
        argparse.ArgumentTypeError: If it is less.
    """
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def run_all(args: argparse.Namespace) -> None:
    """Run all processes, print the tables and write the result file.

    Args:
        args: Of the command line.
    """
    kind = "step_cost-sweep" if args.sweep else "step_cost"
    out = args.out or HERE / "results" / f"{kind}-{args.device}.json"
    result: dict[str, Any] = {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "commit": commit(),
        "began": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "settings": {k: v for k, v in vars(args).items() if k not in ("child", "out")},
        "note": device_note(args.device),
        "machine": None,
        "fills": [],
        "runs": [],
    }
    with tempfile.TemporaryDirectory() as cache:
        tasks = list(sweep_tasks(args, cache) if args.sweep else comparison_tasks(args, cache))
        with tqdm(tasks, unit="run", file=sys.stderr) as bar:
            for task in bar:
                bar.set_description(describe(task))
                keep_result(result, task, run_child(task.spec))
                write_json(out, result)  # what is done stays, whatever happens later
    result["tables"] = make_tables(result["runs"], sweep=args.sweep)
    write_json(out, result)
    print_tables(result)
    print(f"\nWritten to {out}")


def commit() -> str:
    """Name the state of the source.

    Returns:
        The commit, with ``-dirty`` if files were changed; ``unknown`` outside a repository.
    """
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def device_note(device: str) -> str:
    """Say what was not measured.

    Args:
        device: What was measured.

    Returns:
        A sentence.
    """
    if device == "cpu":
        return "Measured on CPU in float32. Not measured on GPU."
    return "Measured on GPU in bfloat16."


def comparison_tasks(args: argparse.Namespace, cache: str) -> Iterator[Task]:
    """List the processes of the comparison: caches first, then rounds with all sides in turn.

    Args:
        args: Of the command line.
        cache: Folder for reference log-probabilities.

    Yields:
        Tasks.
    """
    for family in families(args):
        specs = [make_spec(args, side, family, cache) for side in args.sides]
        yield from (Task(each, family) for each in fill_specs(specs))
        for number in range(args.rounds):
            for spec in specs:
                yield Task(dataclasses.replace(spec, round=number), family)


def sweep_tasks(args: argparse.Namespace, cache: str) -> Iterator[Task]:
    """List the processes of the sweep; a round goes through all points.

    Args:
        args: Of the command line.
        cache: Folder for reference log-probabilities.

    Yields:
        Tasks.
    """
    for family in families(args):
        points = [
            ((name, value), make_spec(args, side, family, cache, text=fixed_lengths(name, value)))
            for name, values in SWEEP.items()
            for value in values
            for side in SWEEP_SIDES
        ]
        for varied, spec in points:
            yield from (Task(each, family, varied) for each in fill_specs([spec]))
        for number in range(args.rounds):
            for varied, spec in points:
                yield Task(dataclasses.replace(spec, round=number), family, varied)


def fixed_lengths(varied: str, value: int) -> TextLengths:
    """Set lengths without any spread.

    Args:
        varied: Key of ``SWEEP_FIXED``.
        value: What it is set to.

    Returns:
        The lengths.
    """
    sizes = SWEEP_FIXED | {varied: value}
    return TextLengths(
        prompt=(sizes["prompt"], sizes["prompt"]),
        median_response=sizes["response"],
        spread=0.0,
        images=sizes["images"],
    )


def families(args: argparse.Namespace) -> tuple[Family, ...]:
    """List the geometries that were asked for.

    Args:
        args: Of the command line.

    Returns:
        Their names.
    """
    return FAMILIES if args.geometry == "both" else (args.geometry,)


def make_spec(
    args: argparse.Namespace,
    side: str,
    family: Family,
    cache: str,
    *,
    text: TextLengths | None = None,
) -> RunSpec:
    """Describe one process.

    Args:
        args: Of the command line.
        side: Which side.
        family: Which geometry.
        cache: Folder for reference log-probabilities.
        text: Lengths of prompts and responses; None keeps the geometry's.

    Returns:
        A ``RunSpec`` for round 0.
    """
    checkpointing = args.gradient_checkpointing
    return RunSpec(
        side=side,
        family=family,
        width=args.width,
        device=args.device,
        batch_size=args.batch_size,
        warm_up=args.warm_up or (3 if args.device == "cuda" else 1),
        steps=args.steps_per_round,
        round=0,
        rounds=args.rounds,
        seed=args.seed,
        rank=args.lora_rank,
        threads=args.threads,
        checkpointing=args.device == "cuda" if checkpointing is None else checkpointing,
        max_tokens_per_batch=args.max_tokens_per_batch,
        image_tokens=args.image_tokens,
        text=text,
        cache=cache,
    )


def fill_specs(specs: Sequence[RunSpec]) -> list[RunSpec]:
    """Describe the processes that fill caches, so that measured ones only read them.

    Args:
        specs: Of measured processes.

    Returns:
        One for each that reads a cache.
    """
    return [
        dataclasses.replace(spec, only_fill=True)
        for spec in specs
        if SIDES[spec.side].cached and not missing_settings(spec)
    ]


def describe(task: Task) -> str:
    """Name a process for the progress bar.

    Args:
        task: Which.

    Returns:
        A short text.
    """
    point = f" {task.varied[0]}={task.varied[1]}" if task.varied else ""
    what = "cache" if task.spec.only_fill else f"round {task.spec.round + 1}"
    return f"{task.group} {task.spec.side}{point} {what}"


def run_child(spec: RunSpec) -> dict[str, Any]:
    """Run one process.

    Args:
        spec: A ``RunSpec``.

    Returns:
        What it measured, or ``error`` with the end of what it wrote.
    """
    environment = os.environ | {
        "OMP_NUM_THREADS": str(spec.threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    environment.setdefault("CUDA_VISIBLE_DEVICES", "0" if spec.device == "cuda" else "")
    done = subprocess.run(
        [
            sys.executable,
            str(HERE / "step_cost.py"),
            "--child",
            spec.to_json(),
        ],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode != 0:
        end = done.stderr.strip()[-4000:] or f"ended with status {done.returncode}"
        return {"side": spec.side, "round": spec.round, "error": end}
    return json.loads(done.stdout.strip().splitlines()[-1])


def keep_result(result: dict[str, Any], task: Task, measured: dict[str, Any]) -> None:
    """File what a process measured.

    Args:
        result: Of the benchmark; changed in place.
        task: What was run.
        measured: From ``run_child``.
    """
    result["machine"] = measured.pop("machine", None) or result["machine"]
    record = {"group": task.group, "batch_size": task.spec.batch_size, **measured}
    if task.varied:
        record["varied"], record["value"] = task.varied
    result["fills" if task.spec.only_fill else "runs"].append(record)
    if "error" in measured:
        tqdm.write(f"{describe(task)} failed:\n{measured['error']}", file=sys.stderr)


def make_tables(runs: Sequence[dict[str, Any]], *, sweep: bool) -> dict[str, Any]:
    """Summarise, geometry by geometry.

    Args:
        runs: Records of measured processes.
        sweep: Whether lengths were varied.

    Returns:
        By geometry: ``summary`` and ``text``.
    """
    tables = {}
    for group in dict.fromkeys(run["group"] for run in runs):
        own = [run for run in runs if run["group"] == group]
        if sweep:
            tables[group] = {"text": format_sweep(sweep_points(own))}
        else:
            summary = summarise(own)
            tables[group] = {"summary": summary, "text": format_summary(summary)}
    return tables


def sweep_points(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Bring the runs of a sweep together by point and side.

    Args:
        runs: Of one geometry.

    Returns:
        Points for ``table.format_sweep``.
    """
    keys = dict.fromkeys((run["varied"], run["value"], run["side"]) for run in runs)
    return [
        {
            "varied": varied,
            "value": value,
            "side": side,
            "runs": [r for r in runs if (r["varied"], r["value"], r["side"]) == key],
        }
        for key in keys
        for varied, value, side in [key]
    ]


def print_tables(result: dict[str, Any]) -> None:
    """Print what the reader wants to see.

    Args:
        result: Of the benchmark.
    """
    settings, machine = result["settings"], result["machine"] or {}
    where = machine.get("gpu") or f"{machine.get('processor')}, {settings['threads']} threads"
    print(
        f"\nOne optimizer step, {settings['batch_size']} pairs, width {settings['width']}. {where}."
    )
    print(f"{result['note']} Median [smallest, largest] of {settings['rounds']} rounds.")
    for group, table in result["tables"].items():
        print(f"\n{group}\n{table['text']}")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file whole or not at all.

    Args:
        path: Where to; its folder is made.
        content: What to write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    part.replace(path)


if __name__ == "__main__":
    main()
