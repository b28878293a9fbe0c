"""``mdpo eval``: generate, judge where needed, score and report, for several benchmarks."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mdpo.evaluation.suites import SUITES, suite_name

EPILOG = """\
Runs `mdpo generate`, `mdpo judge` (where a judge is needed), `mdpo score` and `mdpo report`, each
of which can be redone alone. What was done before is not done again: the same command takes up a
run that was cut off. Further flags go to `mdpo generate`; --judge PRESET and flags that begin with
--judge-, without that beginning, go to `mdpo judge`.

examples:
  mdpo eval chair,pope --model runs/playground/model --data runs/playground --out runs/base
  mdpo eval amber,mmhal --model llava-hf/llava-1.5-7b-hf --adapter runs/mdpo --data data \\
      --out runs/mdpo/eval --device cuda --judge gpt-4-1106-preview
"""


def run(arguments: Sequence[str]) -> int:
    """Evaluate a model on benchmarks.

    Args:
        arguments: Command line after the verb.

    Returns:
        Exit status: that of the first step that failed.
    """
    parser = argparse.ArgumentParser(
        prog="mdpo eval",
        allow_abbrev=False,
        usage="mdpo eval SUITE[,SUITE...] --data DIR --out DIR [flags of generate] "
        "[--judge PRESET] "
        "[--judge-FLAG ...]",
        description="Measure a model on benchmarks, from its answers to a report.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suites", help="benchmarks, separated by commas: " + ", ".join(SUITES))
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder with a folder per benchmark (data/pope for pope), or that of the only one",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder with a run per benchmark")
    parser.add_argument("--images", type=Path, help="folder of images (default: that of the data)")
    values, rest = parser.parse_known_args(arguments)
    names = [suite_name(each) for each in values.suites.split(",")]
    if unknown := [name for name in names if name not in SUITES]:
        parser.error(f"{unknown[0]!r} is not a benchmark; known are {', '.join(SUITES)}")
    generate_flags, judge_flags = divide(rest)
    generate_flags += ["--images", str(values.images)] if values.images else []
    folders = {name: data_folder(name, values.data, alone=len(names) == 1) for name in names}
    judged = _judged(folders)
    if judged and not judge_flags:
        parser.error(
            f"{', '.join(sorted(judged))} needs a judge: give --judge PRESET, or "
            "--judge-endpoint URL and --judge-model NAME"
        )
    for name in names:
        place, data = str(values.out / name), ["--data", str(folders[name])]
        steps = [["generate", name, *data, "--out", place, *generate_flags]]
        if name in judged:
            steps.append(["judge", place, *data, "--suite", name, *judge_flags])
        steps.append(["score", name, place, *data])
        for step in steps:
            if status := _call(step):
                return status
    images = str(values.images or values.data)
    return _call(["report", str(values.out), "--out", str(values.out), "--images", images])


def divide(flags: Sequence[str]) -> tuple[list[str], list[str]]:
    """Divide flags between the steps.

    Args:
        flags: With their values.

    Returns:
        Those of ``mdpo generate``, and those of ``mdpo judge`` without ``judge-``.
    """
    generate: list[str] = []
    judge: list[str] = []
    current = generate
    for word in flags:
        if word.startswith("--"):
            name = word.partition("=")[0]
            current = judge if name == "--judge" or name.startswith("--judge-") else generate
            word = word.replace("--judge-", "--", 1)
        current.append(word)
    return generate, judge


def data_folder(name: str, root: Path, *, alone: bool) -> Path:
    """Find the data of a benchmark.

    Args:
        name: Of the benchmark; scored by a judge or not, it has the same data.
        root: Folder with a folder per benchmark.
        alone: Whether ``root`` may be the data itself.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: If there is none.
    """
    base = name.removesuffix("-judge").removesuffix("-llm")
    for each in (name, base, base.replace("-", "_")):
        if (root / each).is_dir():
            return root / each
    if alone and root.is_dir():
        return root
    raise FileNotFoundError(
        f"{root} must hold a folder {base} with the data of {name}. `mdpo data fetch {base} --out "
        f"{root / base}` makes it."
    )


def _judged(folders: dict[str, Path]) -> set[str]:
    """Load all data before anything is generated, and name what needs a judge."""
    from mdpo.evaluation.results import load_suite
    from mdpo.evaluation.suite import Judged

    return {name for name, data in folders.items() if isinstance(load_suite(name, data), Judged)}


def _call(step: list[str]) -> int:
    """Run one verb."""
    from mdpo.cli import main

    print("$ mdpo " + " ".join(step), file=sys.stderr)
    return main(step)
