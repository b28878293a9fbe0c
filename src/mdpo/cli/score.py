"""``mdpo score``: score answers of a benchmark. No model is loaded."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mdpo.evaluation.suites import SUITES

CHAIR = "chair"

EPILOG = """\
Writes items.jsonl and metrics.json. Responses may be in any format of the benchmark's own scorers;
what an official rule reads wrongly is scored by a robust rule beside it (`robust/...`).

examples:
  mdpo score chair runs/mdpo/chair --data runs/playground/chair --out runs/mdpo/chair
  mdpo score pope --responses answers.jsonl --data data/pope --out runs/pope
"""


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
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "suite",
        choices=(CHAIR, *SUITES),
        metavar="SUITE",
        help="benchmark: " + ", ".join((CHAIR, *SUITES)),
    )
    parser.add_argument("run", type=Path, nargs="?", help="folder that `generate` wrote (chair)")
    parser.add_argument("--responses", type=Path, help="instead: a file of answers")
    parser.add_argument("--data", type=Path, required=True, help="folder of the benchmark's data")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    values = parser.parse_args(arguments)
    if (values.run is None) == (values.responses is None):
        parser.error("give either RUN or --responses")
    if values.suite == CHAIR:
        return _score_chair(values)
    if values.responses is None:
        parser.error("`mdpo generate` writes runs of chair only: give --responses")
    from mdpo.evaluation.results import load_suite, score_responses, table, write_results

    suite = load_suite(values.suite, values.data)
    results = score_responses(suite, suite.read(values.responses), seed=values.seed)
    write_results(values.out, results)
    print("\n".join(table(results)))
    return 0


def _score_chair(values: argparse.Namespace) -> int:
    """Score captions by exact words."""
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
