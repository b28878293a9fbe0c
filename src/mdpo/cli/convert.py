"""``mdpo convert``: original checkpoints of Bunny and LLaVA to transformers' classes and back."""

import argparse
from collections.abc import Sequence
from pathlib import Path

EPILOG = """\
examples:
  mdpo convert bunny downloads/Bunny-v1_0-3B models/bunny-v1.0-3b-hf
  mdpo convert bunny --reverse runs/bunny-merged runs/bunny-original
  mdpo convert llava downloads/llava-v1.5-7b models/llava-v1.5-7b \\
      --vision-tower downloads/clip-vit-large-patch14-336
  mdpo convert llava --reverse runs/llava-merged runs/llava-original \\
      --tokenizer downloads/llava-v1.5-7b

Fold trained adapters in before going back: mdpo merge. See docs/convert.md."""

BUNNY = "Bunny-v1.0 with Phi-2 and SigLIP."
LLAVA = "LLaVA-v1.5 in the form of its own project. (llava-hf folders load as they are.)"


def run(arguments: Sequence[str]) -> int:
    """Convert a checkpoint.

    Args:
        arguments: Command line after the verb.

    Returns:
        Exit status.
    """
    parser = _parser()
    values = parser.parse_args(arguments)
    if values.reverse:
        for name in ("vision_config", "vision_tower"):
            if getattr(values, name, None) is not None:
                parser.error(f"--{name.replace('_', '-')} is not used with --reverse")
    elif values.tokenizer is not None:
        parser.error("--tokenizer is used with --reverse only")
    elif values.family == "llava" and values.vision_tower is None:
        parser.error("llava needs --vision-tower, the folder of the CLIP model")
    _convert(values)
    print(values.destination)
    return 0


def _convert(values: argparse.Namespace) -> None:
    """Do what the options say."""
    from transformers.utils import logging

    from mdpo.models.conversion import bunny_to_standard, llava_to_standard, to_original
    from mdpo.models.conversion.checkpoint import DTYPES

    # On vocabularies and missing files: all that matters is checked here.
    logging.set_verbosity_error()
    kinds = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
    dtype = None if values.dtype == "auto" else DTYPES[kinds[values.dtype]]
    source, destination = values.source, values.destination
    if values.reverse:
        to_original(
            source, destination, family=values.family, tokenizer=values.tokenizer, dtype=dtype
        )
    elif values.family == "bunny":
        bunny_to_standard(source, destination, vision_config=values.vision_config, dtype=dtype)
    else:
        llava_to_standard(source, destination, vision_tower=values.vision_tower, dtype=dtype)


def _parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = argparse.ArgumentParser(
        prog="mdpo convert",
        allow_abbrev=False,
        description="Convert an original checkpoint to a folder that transformers loads without "
        "remote code, with its prompt and image preprocessing; or back. safetensors only.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    families = parser.add_subparsers(dest="family", required=True, metavar="{bunny,llava}")
    bunny = _family(families, "bunny", BUNNY)
    bunny.add_argument(
        "--vision-config",
        type=Path,
        metavar="FILE_OR_DIR",
        help="config of the vision tower; default: looked up by `mm_vision_tower`",
    )
    llava = _family(families, "llava", LLAVA)
    llava.add_argument(
        "--vision-tower",
        type=Path,
        metavar="DIR",
        help="folder of the CLIP model, whose weights the checkpoint lacks",
    )
    return parser


def _family(families: argparse._SubParsersAction, name: str, text: str) -> argparse.ArgumentParser:
    """Add what both families take."""
    parser: argparse.ArgumentParser = families.add_parser(
        name,
        allow_abbrev=False,
        help=text,
        description=text,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, metavar="SRC", help="folder to read")
    parser.add_argument(
        "destination", type=Path, metavar="DST", help="folder to write; new or empty"
    )
    parser.add_argument("--reverse", action="store_true", help="from transformers' form back")
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="DIR",
        help="with --reverse: original checkpoint whose tokenizer files are copied",
    )
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=("auto", "bfloat16", "float16", "float32"),
        help="to store weights in (default: as in the files)",
    )
    return parser
