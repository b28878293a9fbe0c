"""``mdpo generate``: let a model answer the prompts of a benchmark."""

import argparse
from collections.abc import Sequence
from pathlib import Path

SUITES = ("chair",)


def run(arguments: Sequence[str]) -> int:
    """Answer prompts; a run that was cut off is taken up where it stopped.

    Args:
        arguments: Command line after the verb.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(
        prog="mdpo generate",
        allow_abbrev=False,
        description="Let a model answer the prompts of a benchmark, greedily.",
        epilog="example: mdpo generate chair --adapter runs/mdpo --data runs/playground/chair "
        "--out runs/mdpo/chair",
    )
    parser.add_argument("suite", choices=SUITES, help="benchmark")
    parser.add_argument("--model", help="folder or hub id (default: the base of the adapters)")
    parser.add_argument("--adapter", type=Path, help="trained adapters")
    parser.add_argument("--data", type=Path, required=True, help="folder of the benchmark's data")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--batch-size", type=int, default=16, help="prompts per batch")
    parser.add_argument("--max-new-tokens", type=int, default=256, help="longest answer")
    parser.add_argument("--dtype", default="auto", help="of the weights")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ... (default: cpu)")
    values = parser.parse_args(arguments)
    from mdpo.evaluation.generation import generate, read_prompts
    from mdpo.models.adapted import load_adapted, weights_fingerprint
    from mdpo.models.processors import load_processor

    prompts = read_prompts(values.data)
    model = load_adapted(values.model, values.adapter, dtype=values.dtype)
    generate(
        model.to(values.device),  # pyright: ignore[reportArgumentType]  # a device name
        load_processor(values.adapter or values.model),
        prompts,
        image_root=values.data,
        out=values.out,
        settings={
            "suite": values.suite,
            "model": values.model and str(values.model),
            "adapter": values.adapter and str(values.adapter),
            "weights": [
                weights_fingerprint(each) for each in (values.model, values.adapter) if each
            ],
            "dtype": values.dtype,
        },
        batch_size=values.batch_size,
        max_new_tokens=values.max_new_tokens,
    )
    print(values.out)
    return 0
