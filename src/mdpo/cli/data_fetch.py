"""``mdpo data fetch``: fetch the data of a benchmark, checked, with its licence and citation."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mdpo.evaluation.sources import Source, sources
from mdpo.evaluation.suites import suite_name

if TYPE_CHECKING:
    from mdpo.evaluation.fetching import Kept

MIRROR = "MDPO_MIRROR"
EPILOG = """\
Files come from their official places at fixed revisions and are checked by SHA-256; what was cut
is resumed. COCO's annotations (250 MB), which chair and object-halbench need, go to a folder coco
beside --out. Images and data given on request are not fetched: it says where to get them.

examples:
  mdpo data fetch amber --out data/amber
  mdpo data fetch chair --out data/chair
  mdpo data fetch language --out data/nltk_data && export NLTK_DATA=data/nltk_data
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line.

    Args:
        parser: Of ``mdpo data fetch``.
    """
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "suite",
        type=suite_name,
        choices=sources(),
        metavar="SUITE",
        help="benchmark or other data: " + ", ".join(sources()),
    )
    parser.add_argument("--out", type=Path, help="folder to write (default: data/SUITE)")
    parser.add_argument(
        "--mirror",
        metavar="URL",
        default=os.environ.get(MIRROR),
        help="server to ask in place of the official ones, for the same paths; only https, but "
        f"for this machine (default: environment variable {MIRROR})",
    )


def fetch_data(values: argparse.Namespace) -> int:
    """Fetch, and say what is there, what is not, and what to cite.

    Args:
        values: Of the command line.

    Returns:
        Exit status.
    """
    from mdpo.evaluation.download import Web
    from mdpo.evaluation.fetching import fetch, folders

    source = sources()[values.suite]
    out = Path("data", source.folder) if values.out is None else values.out
    web = Web(mirror=values.mirror)
    try:
        kept = fetch(values.suite, out, web)
        for each in kept:
            print(_line(each))
        if not all(each.checked for each in kept):
            print(
                "What is not checked was taken as it came: there is no hash to check it by. Its "
                "own is now recorded in SOURCES.json, and demanded from here on."
            )
    finally:
        # Also where a server failed: the rest may have to be got by hand.
        for each in folders(values.suite, out) or [values.suite]:
            _describe(each, sources()[each])
        if missing := source.missing(str(out.resolve())):
            print("\nnot fetched:", *(f"- {text}" for text in missing), sep="\n")
    return 0


def _line(kept: "Kept") -> str:
    """One file."""
    did = "fetched" if kept.fetched else "there"
    return (
        f"{kept.path}  {kept.size:,} bytes  {did}, {'checked' if kept.checked else 'not checked'}"
    )


def _describe(name: str, source: Source) -> None:
    """Print licence and citation."""
    print(f"\n{name}: licence {source.licence}\ncite:\n{source.citation.rstrip()}")
