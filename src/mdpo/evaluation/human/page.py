"""The blind page: one file that works without network, and the key that is kept apart."""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mdpo.evaluation.human.pairs import Pairs
from mdpo.evaluation.journal import content_key
from mdpo.evaluation.report.pictures import Pictures
from mdpo.evaluation.runs import write_whole

PAGE, KEY = "page.html", "key.json"
SIDE = 768
"""Longest side of images, in pixels."""

QUESTION = (
    "Which answer is better? Prefer the one that says nothing about the image that is not so, and, "
    "if both are true, the one that helps more."
)


def write_page(
    folder: Path,
    pairs: Pairs,
    *,
    names: Sequence[str],
    images: Path | None,
    question: str = QUESTION,
    seed: int = 0,
) -> str:
    """Write ``page.html`` for raters and ``key.json``, which they must not see.

    Args:
        folder: Made if missing.
        pairs: What is voted on.
        names: Of the two systems; they are in the key alone.
        images: Folder of images; None shows none.
        question: What raters are asked.
        seed: Of the pairs, for the key.

    Returns:
        Hash of the page, which votes carry.

    Raises:
        ValueError: If a folder of images is given and lacks one.
    """
    pictures = Pictures(images, side=SIDE)
    items = [
        {
            "question": pair.question,
            "images": pictures.take(pair.images),
            "answers": list(pair.answers),
        }
        for pair in pairs.shown
    ]
    if pictures.missing:
        raise ValueError(
            f"{len(pictures.missing)} images are missing below {images}, "
            f"{min(pictures.missing)!r} for example. Give their folder by --images."
        )
    digest = content_key([items, pictures.urls, question])
    data = {"page": digest, "items": items, "pictures": pictures.urls, "question": question}
    write_whole(folder / PAGE, _render(data))
    key = {
        "page": digest,
        "names": list(names),
        "question": question,
        "seed": seed,
        "items": [{"item": pair.item, "left": names[pair.left]} for pair in pairs.shown],
        "identical": list(pairs.identical),
        "unshared": list(pairs.unshared),
        "left_out": pairs.left_out,
    }
    write_whole(folder / KEY, json.dumps(key, indent=1, ensure_ascii=False) + "\n")
    return digest


def _render(data: dict[str, Any]) -> str:
    """Fill the template; texts reach it as JSON that the script turns into text."""
    here = Path(__file__).parent
    style, script, template = (
        (here / name).read_text(encoding="utf-8")
        for name in ("compare.css", "compare.js", "compare.html.j2")
    )
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    written = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    return environment.from_string(template).render(
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        data=Markup(written),
    )


def _hash(text: str) -> str:
    """Hash a style or script, as the page's policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
