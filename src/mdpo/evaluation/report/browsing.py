"""The items of a report, side by side by system, in the form that its page reads."""

from collections.abc import Mapping
from typing import Any

from mdpo.evaluation.comparison import is_group
from mdpo.evaluation.report.findings import Finding
from mdpo.evaluation.report.gather import Scored
from mdpo.evaluation.report.pictures import Pictures
from mdpo.evaluation.suite import ItemScore

PLAIN, THERE, ABSENT = 0, 1, 2
"""Kinds of pieces of an answer: plain text, an object that is there, one that is not."""

HALLUCINATED_BELOW = 3
"""Ratings of MMHal-Bench under this say that an answer has hallucinations."""


def browsable(
    finding: Finding, pictures: Pictures, max_items: int
) -> tuple[list[dict[str, Any]], int]:
    """Lay out the items of a benchmark.

    Args:
        finding: Of the benchmark.
        pictures: Takes the images of items.
        max_items: Most items; those on which systems differ are taken first.

    Returns:
        Items in the order of the data, and how many there are in all.
    """
    scores = {
        system: {each.item: each for each in run.items if not is_group(each)}
        for system, run in finding.runs.items()
    }
    order = list(dict.fromkeys(item for of in scores.values() for item in of))
    differing = {
        item
        for item in order
        if len({_verdict(of[item]) for of in scores.values() if item in of}) > 1
    }
    chosen = sorted(order, key=lambda item: item not in differing)[:max_items]
    kept = set(chosen)
    items = [
        _item(
            finding,
            item,
            {system: of[item] for system, of in scores.items() if item in of},
            pictures,
            differ=item in differing,
        )
        for item in order
        if item in kept
    ]
    return items, len(order)


def pieces(text: str, details: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Cut an answer at the words that its score rests on.

    Args:
        text: The answer.
        details: Of its score, with ``mentions`` and ``hallucinated`` as character spans.

    Returns:
        Pieces with their kind; together they are the answer. Spans that overlap one before them,
        or lie outside the text, are left out.
    """
    wrong = {_span(each) for each in details.get("hallucinated") or ()}
    spans = {_span(each) for each in details.get("mentions") or ()} | wrong
    cut: list[tuple[str, int]] = []
    position = 0
    for start, end in sorted(each for each in spans if each):
        if not position <= start < end <= len(text):
            continue
        cut.append((text[position:start], PLAIN))
        cut.append((text[start:end], ABSENT if (start, end) in wrong else THERE))
        position = end
    cut.append((text[position:], PLAIN))
    return [piece for piece in cut if piece[0]]


def _item(
    finding: Finding,
    item: str,
    scores: Mapping[str, ItemScore],
    pictures: Pictures,
    *,
    differ: bool,
) -> dict[str, Any]:
    """Lay out one item."""
    first = next(iter(scores.values()))
    asked = next((run.asked[item] for run in finding.runs.values() if item in run.asked), {})
    named = [name for name in asked.get("images") or () if isinstance(name, str)]
    return {
        "suite": finding.suite,
        "item": item,
        "images": pictures.take(named or [first.cluster]),
        "question": str(asked.get("prompt") or ""),
        "truth": _truth(first.details),
        "differ": differ,
        "answers": {system: _answer(finding.runs[system], each) for system, each in scores.items()},
    }


def _answer(run: Scored, score: ItemScore) -> dict[str, Any]:
    """Lay out one answer with what its score says."""
    text = run.responses.get(score.item)
    right, hallucinated = _right(score), _hallucinated(score)
    return {
        "pieces": None if text is None else pieces(text, score.details),
        "right": right,
        "hallucinated": hallucinated,
        "verdict": _said(score, right, hallucinated),
    }


def _verdict(score: ItemScore) -> tuple[Any, ...]:
    """What makes systems differ: right or wrong, the rating, the words that are absent."""
    absent = sorted({_word(each) for each in score.details.get("hallucinated") or ()})
    return _right(score), _rating(score), tuple(absent)


def _right(score: ItemScore) -> bool | None:
    """Whether the answer is right, where answers are."""
    right = score.details.get("right")
    return right if isinstance(right, bool) else None


def _rating(score: ItemScore) -> int | None:
    """The judge's rating, where there is one."""
    rating = score.details.get("official")
    rated = "rating" in score.columns and isinstance(rating, int)
    return rating if rated and not isinstance(rating, bool) else None


def _hallucinated(score: ItemScore) -> bool | None:
    """Whether the answer names what is not there, where answers are read for that."""
    rating = _rating(score)
    if rating is not None:
        return rating < HALLUCINATED_BELOW
    absent = score.details.get("hallucinated")
    return None if absent is None else bool(absent)


def _said(score: ItemScore, right: bool | None, hallucinated: bool | None) -> str:
    """Put a score into few words."""
    details, rating = score.details, _rating(score)
    if rating is not None:
        return f"rated {rating} of 6{', hallucinated' if hallucinated else ''}"
    if right is not None:
        read = details.get("official")
        said = f", read as {read}" if isinstance(read, str) and len(read) < 20 else ""
        return f"{'right' if right else 'wrong'}{said}"
    if hallucinated is None:
        return ""
    absent = len(details["hallucinated"])
    return f"{absent} of {len(details.get('mentions') or ())} named objects absent"


def _truth(details: Mapping[str, Any]) -> str:
    """Say what is true: objects in the image, or the right answer."""
    if isinstance(details.get("truth"), list):
        return "in the image: " + (", ".join(map(str, details["truth"])) or "nothing listed")
    for name in ("label", "answer", "gt_answer"):
        if name in details:
            return f"right answer: {details[name]}"
    if "category" in details:
        return f"category: {details['category']}"
    return ""


def _span(mention: Any) -> tuple[int, int] | None:
    """Take the place of a mention in the answer, if it is known."""
    if isinstance(mention, dict) and isinstance(mention.get("start"), int):
        return mention["start"], int(mention["end"])
    return None


def _word(mention: Any) -> str:
    """Name what a mention is of."""
    if isinstance(mention, dict):
        return str(mention.get("object") or mention.get("word"))
    return str(mention)
