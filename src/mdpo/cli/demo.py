"""``mdpo demo``: train the playground's model by DPO and by mDPO, and compare."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

EPILOG = """\
Writes OUT/summary.json, OUT/index.html (open it in a browser) and a folder per run. Flags after
`--` go to every `mdpo train`.

examples:
  mdpo demo --out runs/demo
  mdpo demo --out runs/quick --seeds 0 -- --max_steps 4"""


def run(arguments: Sequence[str]) -> int:
    """Run the demo and print its table.

    Args:
        arguments: Command line after the verb.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(
        prog="mdpo demo",
        allow_abbrev=False,
        description="Train a tiny vision-language model by DPO, by DPO without images and by mDPO, "
        "and measure hallucination and use of the image. No network, no GPU.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder to write")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the training runs"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="runs at a time (default: cores)"
    )
    words = list(arguments)
    extra = words[words.index("--") + 1 :] if "--" in words else []
    values = parser.parse_args(words[: words.index("--")] if "--" in words else words)
    from mdpo.playground.demo import run_demo

    lines = run_demo(values.out, seeds=values.seeds, workers=values.workers, extra=extra)
    print("\n".join(["", *lines, "", f"{values.out / 'summary.json'}"]))
    print(f"{values.out / 'index.html'}")
    return 0
