"""``mdpo score``: score answers of a benchmark. No model is loaded."""

import argparse
from collections.abc import Sequence
from pathlib import Path

SUITES = ("chair",)


def run(arguments: Sequence[str]) -> int:
    """Score a run's answers and write items and metrics.

    Args:
        arguments: Command line after the verb.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(
        prog="mdpo score",
        allow_abbrev=False,
        description="Score answers of a benchmark, with 95 % intervals over images.",
        epilog="example: mdpo score chair runs/mdpo/chair --data runs/playground/chair "
        "--out runs/mdpo/chair",
    )
    parser.add_argument("suite", choices=SUITES, help="benchmark")
    parser.add_argument("run", type=Path, nargs="?", help="folder that `generate` wrote")
    parser.add_argument(
        "--responses", type=Path, help="instead: JSON lines with `image_id` and `caption` or `text`"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the benchmark's data")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    values = parser.parse_args(arguments)
    if (values.run is None) == (values.responses is None):
        parser.error("give either RUN or --responses")
    from mdpo.evaluation.chair import ChairData, summarise, write_scores
    from mdpo.evaluation.responses import read_responses

    data = ChairData.load(values.data)
    rows = read_responses(values.responses or values.run)
    scored = [data.score(image_id, text) for image_id, text in rows]
    summary = summarise(scored, seed=values.seed)
    write_scores(values.out, scored, summary)
    for name, estimate in summary.items():
        print(f"{name:<8} {estimate}  n {estimate.n}")
    return 0
