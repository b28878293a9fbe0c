"""``mdpo score``: score answers of a benchmark. No model is loaded."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mdpo.evaluation.suites import SUITES, suite_name

EPILOG = """\
Writes items.jsonl and metrics.json. Responses may be in any format of the benchmark's own scorers;
what an official rule reads wrongly is scored by a robust rule beside it (`robust/...`). Items
without an answer are left out and counted.

examples:
  mdpo score chair runs/mdpo/chair --data data/chair
  mdpo score pope --responses answers.jsonl --data data/pope --out runs/pope
  mdpo score mmhal runs/mdpo/mmhal --data data/mmhal
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
        type=suite_name,
        choices=SUITES,
        metavar="SUITE",
        help="benchmark: " + ", ".join(SUITES),
    )
    parser.add_argument("run", type=Path, nargs="?", help="folder that `mdpo generate` wrote")
    parser.add_argument("--responses", type=Path, help="instead: a file of answers")
    parser.add_argument("--data", type=Path, required=True, help="folder of the benchmark's data")
    parser.add_argument("--out", type=Path, help="folder to write (default: RUN)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    parser.add_argument(
        "--official",
        action="store_true",
        help="score items without an answer as empty answers, as official scripts do",
    )
    values = parser.parse_args(arguments)
    if (values.run is None) == (values.responses is None):
        parser.error("give either RUN or --responses")
    out = values.out or values.run
    if out is None:
        parser.error("--responses needs --out, the folder to write")
    from mdpo.evaluation.answers import answers_of_file, answers_of_run
    from mdpo.evaluation.results import load_suite, score_responses, table, write_results

    suite = load_suite(values.suite, values.data)
    if values.run is None:
        answers = answers_of_file(suite, values.responses)
    else:
        answers = answers_of_run(suite, values.run)
    results = score_responses(suite, answers, seed=values.seed, official=values.official)
    write_results(out, results)
    print("\n".join(table(results)))
    return 0
