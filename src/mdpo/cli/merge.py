"""``mdpo merge``: fold trained adapters into the weights of their base."""

import argparse
from collections.abc import Sequence
from pathlib import Path


def run(arguments: Sequence[str]) -> int:
    """Merge and save.

    Args:
        arguments: Command line after the verb.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(
        prog="mdpo merge",
        allow_abbrev=False,
        description="Fold LoRA adapters into the weights, so that the model loads without peft.",
        epilog="example: mdpo merge --adapter runs/llava --out runs/llava-merged --dtype bfloat16",
    )
    parser.add_argument("--adapter", type=Path, required=True, help="folder of the adapters")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--model", help="base model; default: the one that the adapters name")
    parser.add_argument("--dtype", default="auto", help="of the weights (default: as in the files)")
    values = parser.parse_args(arguments)
    from mdpo.models.adapted import merge_adapter

    merge_adapter(values.adapter, values.out, model=values.model, dtype=values.dtype)
    print(values.out)
    return 0
