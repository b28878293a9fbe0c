"""``mdpo data``: check a data set, look at it, or fetch that of a benchmark."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mdpo.cli.data_fetch import add_arguments, fetch_data

EPILOG = """examples:
  mdpo data inspect pairs.jsonl --image-root images --model llava-hf/llava-1.5-7b-hf
  mdpo data preview pairs.jsonl --image-root images --corruption crop_keep --out preview.png
  mdpo data fetch amber --out data/amber"""


def run(arguments: Sequence[str]) -> int:
    """Inspect or preview a data set, or fetch one.

    Args:
        arguments: Command line after the verb.

    Returns:
        Exit status; ``inspect`` gives 1 if a row is bad.
    """
    parser = argparse.ArgumentParser(
        prog="mdpo data",
        allow_abbrev=False,
        description="Check a set of preference pairs, look at it, or fetch a benchmark.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("source", help="JSON, JSONL or Parquet file, save_to_disk folder, hub id")
    shared.add_argument("--split", default="train", help="split of the source (default: train)")
    shared.add_argument("--config", help="configuration of a hub data set")
    shared.add_argument("--revision", help="branch, tag or commit of a hub data set")
    shared.add_argument(
        "--image-root", type=Path, help="folder of the images (default: that of the data file)"
    )
    inspect = verbs.add_parser(
        "inspect", parents=[shared], help="validate every row and report what is in the set"
    )
    inspect.add_argument("--model", help="processor to count tokens with: folder or hub id")
    inspect.add_argument("--max-length", type=int, help="longest row, in tokens")
    inspect.add_argument(
        "--chat-template-kwargs",
        type=json.loads,
        default={},
        help="variables of the chat template, as JSON",
    )
    inspect.add_argument("--json", action="store_true", help="print the report as JSON")
    preview = verbs.add_parser(
        "preview", parents=[shared], help="write a contact sheet of rows with both images and texts"
    )
    preview.add_argument("--out", type=Path, default=Path("preview.png"), help="PNG to write")
    preview.add_argument("--rows", type=int, default=8, help="rows to show (default: 8)")
    preview.add_argument("--corruption", default="crop_keep", help="how rejected images are made")
    preview.add_argument(
        "--corruption-options", type=json.loads, default={}, help="options, as JSON"
    )
    preview.add_argument("--seed", type=int, default=42, help="of the draws (default: 42)")
    preview.add_argument(
        "--font", type=Path, help="TrueType font file, for texts that are not in Latin letters"
    )
    fetch = verbs.add_parser(
        "fetch", allow_abbrev=False, help="fetch the data of a benchmark, checked"
    )
    add_arguments(fetch)
    values = parser.parse_args(arguments)
    return {"inspect": _inspect, "preview": _preview, "fetch": fetch_data}[values.verb](values)


def _inspect(values: argparse.Namespace) -> int:
    """Check every row and print the report."""
    from mdpo.data.encoding import Encoder, TokenCounter
    from mdpo.data.reading import Rows
    from mdpo.data.report import check_rows
    from mdpo.data.sources import load_raw

    counter = None
    if values.model is not None:
        from mdpo.models.processors import load_processor

        encoder = Encoder(
            load_processor(values.model), chat_template_kwargs=values.chat_template_kwargs
        )
        counter = TokenCounter(encoder)
    elif values.max_length is not None:
        raise ValueError("`--max-length` needs `--model`: tokens are counted by its processor.")
    rows = Rows(
        load_raw(values.source, split=values.split, config=values.config, revision=values.revision)
    )
    report = check_rows(
        rows,
        image_root=values.image_root or rows.root,
        counter=counter,
        max_length=values.max_length,
    )
    if values.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print("\n".join(report.lines()))
    if report.problems:
        print(f"\n{len(report.problems)} bad rows:", file=sys.stderr)
        print("\n".join(report.problem_lines(most=len(report.problems))), file=sys.stderr)
    return 1 if report.problems else 0


def _preview(values: argparse.Namespace) -> int:
    """Write a contact sheet."""
    from mdpo.data.dataset import PreferenceDataset
    from mdpo.data.preview import contact_sheet
    from mdpo.data.reading import Rows
    from mdpo.data.rejected_images import make_rejected_image_source
    from mdpo.data.sources import load_raw

    if values.rows < 1:
        raise ValueError(f"`--rows` must be at least 1, got {values.rows}.")
    rows = Rows(
        load_raw(values.source, split=values.split, config=values.config, revision=values.revision)
    )
    shown = min(values.rows, len(rows))
    with_image = [index for index in range(len(rows)) if rows[index].images]
    dataset = PreferenceDataset(
        rows,
        image_root=values.image_root or rows.root,
        rejected_image=make_rejected_image_source(values.corruption, values.corruption_options),
        seed=values.seed,
        donors=with_image,
    )
    # Spread over the whole set: data files are often sorted by origin.
    positions = [k * len(dataset) // shown for k in range(shown)]
    examples = [dataset[position] for position in positions]
    sheet = contact_sheet(examples, values.corruption, font_file=values.font)
    sheet.save(values.out)
    print(values.out)
    return 0
