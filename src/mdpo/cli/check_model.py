"""``mdpo check-model``: whether a model behaves as training, scoring and generation assume."""

import argparse
from collections.abc import Sequence
from pathlib import Path

EPILOG = """\
Rows and pictures are made; nothing is downloaded and the folder is not changed. Saving and loading
are checked in a temporary folder, for which there must be room. Exit status 1 if a check failed.
docs/check-model.md says what each check proves.

examples:
  mdpo check-model runs/playground/model
  mdpo check-model models/llava-1.5-7b-hf --dtype bfloat16 --device cuda --json
  mdpo check-model runs/playground/model --check "batch = single"
  mdpo check-model --family qwen3_vl
  mdpo check-model --family all --page docs/models.md
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
    parser.add_argument("model", nargs="?", help="folder of model and processor, or hub id")
    parser.add_argument(
        "--family",
        metavar="NAME",
        help="check a tiny random model of a family instead, with the libraries installed here; "
        "all: of each family",
    )
    parser.add_argument(
        "--page", type=Path, help="with `--family all`: write what was found to this page"
    )
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
    if (values.model is None) == (values.family is None):
        parser.error("give a model, or `--family`")
    if values.page is not None and values.family != "all":
        parser.error("`--page` needs `--family all`")
    _quiet()
    return _check(values) if values.family is None else _prove(values)


def _quiet() -> None:
    """Silence advice on training and generation: what a check finds stands in the table."""
    import warnings

    from transformers.utils import logging

    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _prove(values: argparse.Namespace) -> int:
    """Check tiny models of families and print what was found."""
    from mdpo.conformance.families import prove, write_page
    from mdpo.models.families import FAMILIES

    names = list(FAMILIES) if values.family == "all" else [values.family]
    proofs = []
    for name in names:
        proofs.append(prove(name, show_progress=True))
        report = proofs[-1].report
        print(report.to_json() if values.json else "\n".join([name, *report.lines(), ""]))
    if values.page is not None:
        write_page(values.page, proofs)
    return 0 if all(each.report.passed for each in proofs) else 1


def _check(values: argparse.Namespace) -> int:
    """Load, check and print."""
    from mdpo.conformance import check_model
    from mdpo.models.loading import load_model
    from mdpo.models.processors import load_processor

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
