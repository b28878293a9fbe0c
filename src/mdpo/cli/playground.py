"""``mdpo playground``: write the tiny model and the made data."""

import argparse
from collections.abc import Sequence
from pathlib import Path


def run(arguments: Sequence[str]) -> int:
    """Write the playground.

    Args:
        arguments: Command line after the verb.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(
        prog="mdpo playground",
        allow_abbrev=False,
        description="Write a tiny vision-language model, preference pairs and held-out scenes, "
        "in the formats of real ones.",
        epilog="example: mdpo playground --out runs/playground && mdpo data preview "
        "runs/playground/train.jsonl",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of the data (default: 0)")
    values = parser.parse_args(arguments)
    from mdpo.playground.files import write_playground

    write_playground(values.out, seed=values.seed)
    print(values.out)
    return 0
