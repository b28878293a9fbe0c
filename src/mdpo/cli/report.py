"""``mdpo report``: compare scored runs, as text and as one HTML page."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

EPILOG = """\
A RUN is a folder with metrics.json and items.jsonl, which `mdpo score` writes, or a folder of such
folders, one per benchmark. Systems are compared with the first one, or with --baseline, on the
items that both have answered. The Markdown goes to standard output; --out adds report.md,
report.html and report.json.

examples:
  mdpo report runs/base runs/dpo runs/mdpo --out runs/report --images data/images
  mdpo report runs/base/pope runs/mdpo/pope --out runs/report
  mdpo report theirs/amber ours/amber --names published-weights,ours --no-published
"""


def run(arguments: Sequence[str]) -> int:
    """Compare runs.

    Args:
        arguments: Command line after the verb.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(
        prog="mdpo report",
        allow_abbrev=False,
        description="Compare scored runs: values, intervals, paired differences, answers.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="scored run")
    parser.add_argument("--names", help="of the systems, separated by commas, one per run")
    parser.add_argument("--out", type=Path, help="folder to write")
    parser.add_argument("--baseline", help="system to compare with (default: the first)")
    parser.add_argument("--images", type=Path, help="folder of images to put into the page")
    parser.add_argument(
        "--max-items",
        type=int,
        default=200,
        help="items per benchmark in the page, with their images; those on which systems differ "
        "first (default: 200)",
    )
    parser.add_argument(
        "--published",
        action=argparse.BooleanOptionalAction,
        help="tables of the mDPO paper (default: those about the benchmarks of the runs)",
    )
    values = parser.parse_args(arguments)
    if values.max_items < 0:
        parser.error(f"--max-items must be 0 or more, got {values.max_items}")
    if values.images is not None and not values.images.is_dir():
        parser.error(f"--images must be a folder, got {values.images}")
    from mdpo.evaluation.published import PUBLISHED
    from mdpo.evaluation.report.findings import findings, to_json
    from mdpo.evaluation.report.gather import gather
    from mdpo.evaluation.report.markdown import as_markdown
    from mdpo.evaluation.report.page import as_page
    from mdpo.evaluation.runs import write_whole

    names = [each.strip() for each in values.names.split(",")] if values.names else []
    found = findings(gather(values.runs, names), values.baseline)
    suites = [each.suite for each in found]
    published = [
        table
        for table in PUBLISHED
        if values.published or (values.published is None and any(map(table.about, suites)))
    ]
    text = as_markdown(found, published)
    if values.out is not None:
        page = as_page(found, published, images=values.images, max_items=values.max_items)
        write_whole(values.out / "report.html", page)
        write_whole(values.out / "report.md", text)
        data = json.dumps(to_json(found), indent=2, ensure_ascii=False)
        write_whole(values.out / "report.json", data + "\n")
    print(text, end="")
    return 0
