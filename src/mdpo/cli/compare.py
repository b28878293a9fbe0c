"""``mdpo compare``: a blind page for people to vote on, and what their votes say."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

EPILOG = """\
`mdpo compare A B` writes OUT/page.html, one file that raters open in any browser, without network,
and OUT/key.json, which says who is who and must be kept from them. Each rater saves a file of
votes. `mdpo compare votes` counts them: wins, ties and losses with 95 % intervals over items, a
sign test, agreement between raters.

examples:
  mdpo compare runs/mdpo/mmhal runs/dpo/mmhal --images data/mmhal/images --out runs/vote
  mdpo compare ours.jsonl theirs.jsonl --names mdpo,llava --items 60 --out runs/vote
  mdpo compare votes runs/vote/key.json votes-*.json --json runs/vote/result.json
"""


def run(arguments: Sequence[str]) -> int:
    """Make a page, or count votes.

    Args:
        arguments: Command line after the verb.

    Returns:
        Exit status.
    """
    if arguments and arguments[0] == "votes":
        return _count(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="mdpo compare",
        allow_abbrev=False,
        usage="mdpo compare A B --out DIR [options]\n"
        "       mdpo compare votes KEY VOTES... [options]",
        description="Let people say which of two systems answers better, without knowing which is "
        "which.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("first", type=Path, metavar="A", help="run, or file of answers (JSON rows)")
    add("second", type=Path, metavar="B", help="the other system's")
    add("--out", type=Path, required=True, help="folder to write")
    add("--images", type=Path, help="folder of the images (default: that of run A)")
    add("--names", help="of the systems, with a comma (default: names of the folders)")
    add("--items", type=int, default=100, help="most pairs that are shown (default: 100)")
    add("--seed", type=int, default=0, help="of the drawing and the sides (default: 0)")
    add("--question", help="what raters are asked (default: which is better and true)")
    values = parser.parse_args(arguments)
    names = values.names.split(",") if values.names else _names(values.first, values.second)
    if len(names) != 2 or names[0] == names[1]:
        parser.error("--names must be two different names with a comma between them")
    if values.items < 1:
        parser.error("--items must be 1 or more")
    from mdpo.evaluation.human.page import KEY, PAGE, QUESTION, write_page
    from mdpo.evaluation.human.pairs import make_pairs, read_answers

    pairs = make_pairs(
        read_answers(values.first),
        read_answers(values.second),
        number=values.items,
        seed=values.seed,
    )
    write_page(
        values.out,
        pairs,
        names=names,
        images=values.images or _images_of(values.first),
        question=values.question or QUESTION,
        seed=values.seed,
    )
    print(
        f"{len(pairs.shown)} pairs; {len(pairs.identical)} items are answered alike, "
        f"{len(pairs.unshared)} by one system only, {pairs.left_out} not drawn",
        file=sys.stderr,
    )
    print(f"{values.out / PAGE}\n{values.out / KEY} (keep it from the raters)")
    return 0


def _count(arguments: Sequence[str]) -> int:
    """Count votes."""
    parser = argparse.ArgumentParser(
        prog="mdpo compare votes",
        allow_abbrev=False,
        description="Say what raters' votes amount to.",
        epilog="example: mdpo compare votes runs/vote/key.json votes-*.json",
    )
    parser.add_argument("key", type=Path, help="key.json beside the page")
    parser.add_argument("votes", type=Path, nargs="+", help="files that raters saved")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    values = parser.parse_args(arguments)
    from mdpo.evaluation.human.votes import count_votes, lines_of, read_ballots, to_json
    from mdpo.evaluation.runs import write_whole

    key = json.loads(values.key.read_text(encoding="utf-8"))
    outcome = count_votes(key, read_ballots(key, values.votes), seed=values.seed)
    print("\n".join(lines_of(outcome)))
    if values.json is not None:
        write_whole(values.json, json.dumps(to_json(outcome), indent=2) + "\n")
    return 0


def _names(first: Path, second: Path) -> list[str]:
    """Call systems by their folders, or those around them where these are alike."""
    places = [first.resolve(), second.resolve()]
    if places[0].name == places[1].name:
        places = [place.parent for place in places]
    return [place.name.removesuffix(".jsonl").removesuffix(".json") for place in places]


def _images_of(run: Path) -> Path | None:
    """Take the folder of images from a run."""
    settings = run / "generation.json"
    if not settings.is_file():
        return None
    root = json.loads(settings.read_text(encoding="utf-8")).get("image_root")
    return Path(root) if root else None
