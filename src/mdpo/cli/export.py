"""``mdpo export``: write a run's answers in the format that the official scorer reads."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mdpo.evaluation.suites import SUITES, suite_name


def run(arguments: Sequence[str]) -> int:
    """Write answers for the official scorer.

    Args:
        arguments: Command line after the verb.

    Returns:
        Exit status.

    Raises:
        ValueError: If the run does not say which benchmark it is of.
    """
    parser = argparse.ArgumentParser(
        prog="mdpo export",
        allow_abbrev=False,
        description="Write a run's answers in the format that the official scorer reads.",
        epilog="example: mdpo export runs/mdpo/pope --data data/pope --out runs/mdpo/pope/official",
    )
    parser.add_argument("run", type=Path, help="folder that `mdpo generate` wrote")
    parser.add_argument("--data", type=Path, required=True, help="folder of the benchmark's data")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--suite", type=suite_name, choices=SUITES, metavar="SUITE", help="default: the run's"
    )
    values = parser.parse_args(arguments)
    from mdpo.evaluation.results import load_suite
    from mdpo.evaluation.runs import read_run

    record = read_run(values.run)
    name = values.suite or record.settings.get("suite")
    if name not in SUITES:
        raise ValueError(f"{values.run} does not say which benchmark it is of. Give --suite.")
    responses = record.responses()
    for path in load_suite(name, values.data).export(responses, values.out):
        print(path)
    failed = len({each["item"] for each in record.generations} - set(responses))
    print(f"{len(responses)} answers{f'; {failed} failed items are left out' if failed else ''}")
    return 0
