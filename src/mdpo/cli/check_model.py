"""``mdpo check-model``: whether a model behaves as training, scoring and generation assume."""

import argparse
from collections.abc import Sequence

EPILOG = """\
Rows and pictures are made; nothing is downloaded and the folder is not changed. Saving and loading
are checked in a temporary folder, for which there must be room. Exit status 1 if a check failed.
docs/check-model.md says what each check proves.

examples:
  mdpo check-model runs/playground/model
  mdpo check-model models/llava-1.5-7b-hf --dtype bfloat16 --device cuda --json
  mdpo check-model runs/playground/model --check "batch = single"
"""


def run(arguments: Sequence[str]) -> int:
    """Check a model and print the report.

    Args:
        arguments: Command line after the verb.

    Returns:
        Exit status: 1 if a check failed.
    """
    parser = argparse.ArgumentParser(
        prog="mdpo check-model",
        allow_abbrev=False,
        description="Check a vision-language model and its processor before training on them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="folder of model and processor, or hub id")
    parser.add_argument("--dtype", default="float32", help="of the weights (default: float32)")
    parser.add_argument(
        "--attn-implementation", help="as in transformers (default: its choice for the model)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ... (default: cpu)")
    parser.add_argument(
        "--check", action="append", metavar="NAME", help="run this check only; may be repeated"
    )
    parser.add_argument("--seed", type=int, default=0, help="of pictures and adapters (default: 0)")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run code from the model's repository"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    values = parser.parse_args(arguments)
    return _check(values)


def _check(values: argparse.Namespace) -> int:
    """Load, check and print."""
    import warnings

    from transformers.utils import logging

    from mdpo.conformance import check_model
    from mdpo.models.loading import load_model
    from mdpo.models.processors import load_processor

    # What a check finds stands in the table; advice on training and generation does not belong.
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    trusted = values.trust_remote_code
    processor = load_processor(values.model, trust_remote_code=trusted)
    model = load_model(
        values.model,
        dtype=values.dtype,
        attn_implementation=values.attn_implementation,
        trust_remote_code=trusted,
    )
    model.to(values.device)
    report = check_model(model, processor, names=values.check, seed=values.seed, show_progress=True)
    print(report.to_json() if values.json else "\n".join(report.lines()))
    return 0 if report.passed else 1
