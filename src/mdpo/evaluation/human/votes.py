"""What votes on a blind page say: wins, ties and losses with intervals, and agreement.

Votes of several people on one item are not independent, so items are drawn for the intervals. The
sign test looks at items by the majority of their votes, ties left out. Agreement is Krippendorff's
alpha for names (2011, "Computing Krippendorff's Alpha-Reliability"), which takes any number of
people and does not mind votes that are missing: 1 is full agreement, 0 that of chance.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

from mdpo.evaluation.statistics import Estimate, mcnemar_p
from mdpo.evaluation.suite import ItemScore, Metric, share, summarise

CHOICES = ("left", "right", "both", "neither")
OUTCOMES = ("win", "tie", "loss")


@dataclass(frozen=True)
class Ballot:
    """One person's votes.

    Attributes:
        rater: Name.
        votes: By item: ``win`` of the first system, ``tie`` or ``loss``.
        choices: How often each choice was made; ties are of two kinds.
    """

    rater: str
    votes: Mapping[str, str]
    choices: Mapping[str, int]


@dataclass(frozen=True)
class Outcome:
    """What votes say.

    Attributes:
        names: Of the two systems.
        shares: Percent of votes that are wins, ties and losses of the first, with intervals.
        items: Number of items with a vote.
        votes: Number of votes.
        missing: Votes that raters left out.
        majority: Items won, tied and lost by the majority of their votes.
        p: Of the sign test on items won and lost.
        agreement: Krippendorff's alpha; None if no item has two votes, or all votes are alike.
        raters: Counts of each person.
        identical: Items that both systems answered alike, and nobody voted on.
    """

    names: tuple[str, str]
    shares: Mapping[str, Estimate]
    items: int
    votes: int
    missing: int
    majority: Mapping[str, int]
    p: float
    agreement: float | None
    raters: Mapping[str, Mapping[str, int]]
    identical: int


def read_ballots(key: Mapping[str, Any], files: Sequence[Path]) -> list[Ballot]:
    """Read files of votes.

    Args:
        key: What ``key.json`` holds.
        files: That raters saved.

    Returns:
        One ballot per person.

    Raises:
        ValueError: If a file is not of this page, or a person has voted twice.
    """
    ballots: dict[str, Ballot] = {}
    for path in files:
        written = _read(path)
        if written.get("page") != key["page"]:
            raise ValueError(f"{path}: these votes are on another page than the key's.")
        ballot = _ballot(key, written, path)
        before = ballots.get(ballot.rater)
        if before is not None and before != ballot:
            raise ValueError(
                f"{path}: {ballot.rater!r} has voted in another file too, otherwise. Keep one."
            )
        ballots[ballot.rater] = ballot
    return list(ballots.values())


def count_votes(key: Mapping[str, Any], ballots: Sequence[Ballot], *, seed: int = 0) -> Outcome:
    """Count.

    Args:
        key: What ``key.json`` holds.
        ballots: Of all raters.
        seed: Of the bootstrap.

    Returns:
        The outcome.

    Raises:
        ValueError: If there is no vote.
    """
    of_item: dict[str, Counter[str]] = {}
    for ballot in ballots:
        for item, vote in ballot.votes.items():
            of_item.setdefault(item, Counter())[vote] += 1
    if not of_item:
        raise ValueError("There must be at least one vote, got none.")
    scores = [
        ItemScore(item, item, {"votes": sum(c.values()), **{o: c[o] for o in OUTCOMES}}, {})
        for item, c in of_item.items()
    ]
    metrics = [Metric(outcome, None, share(outcome, "votes")) for outcome in OUTCOMES]
    leads = [counts["win"] - counts["loss"] for counts in of_item.values()]
    majority = {
        "win": sum(lead > 0 for lead in leads),
        "tie": sum(lead == 0 for lead in leads),
        "loss": sum(lead < 0 for lead in leads),
    }
    number = sum(len(ballot.votes) for ballot in ballots)
    first, second = key["names"]
    return Outcome(
        names=(first, second),
        shares=summarise(scores, metrics, seed=seed),
        items=len(of_item),
        votes=number,
        missing=len(ballots) * len(key["items"]) - number,
        majority=majority,
        p=mcnemar_p(majority["win"], majority["loss"]),
        agreement=krippendorff_alpha([list(counts.elements()) for counts in of_item.values()]),
        raters={
            each.rater: {
                **{o: list(each.votes.values()).count(o) for o in OUTCOMES},
                **each.choices,
            }
            for each in ballots
        },
        identical=len(key["identical"]),
    )


def krippendorff_alpha(units: Sequence[Sequence[str]]) -> float | None:
    """Work out Krippendorff's alpha for names.

    Args:
        units: Votes on each item; items with one vote say nothing.

    Returns:
        1 less observed over expected disagreement; None if no item has two votes, or all votes
        are alike, so that no disagreement is expected.
    """
    pairs: Counter[tuple[str, str]] = Counter()
    for votes in units:
        for one, other in permutations(votes, 2):
            pairs[one, other] += 1 / (len(votes) - 1)  # pyright: ignore[reportArgumentType]
    totals: Counter[str] = Counter()
    for (one, _), weight in pairs.items():
        totals[one] += weight
    number = sum(totals.values())
    expected = number**2 - sum(each**2 for each in totals.values())
    if not pairs or expected < 1e-9:
        return None
    observed = sum(weight for (one, other), weight in pairs.items() if one != other)
    return 1 - (number - 1) * observed / expected


def lines_of(outcome: Outcome) -> list[str]:
    """Write an outcome for people.

    Args:
        outcome: Of the votes.

    Returns:
        Lines.
    """
    first, second = outcome.names
    titles = {"win": f"{first} better", "tie": "tie", "loss": f"{second} better"}
    width = max(map(len, titles.values()))
    lines = [
        f"{titles[name]:<{width}}  {estimate!s:>20} %   items by majority: {outcome.majority[name]}"
        for name, estimate in outcome.shares.items()
    ]
    agreement = "not measured" if outcome.agreement is None else f"{outcome.agreement:.2f}"
    lines += [
        "",
        f"{outcome.votes} votes of {len(outcome.raters)} raters on {outcome.items} items, "
        f"{outcome.missing} missing; intervals over items",
        f"sign test on items won and lost: p = {outcome.p:.3g}",
        f"agreement of raters (Krippendorff's alpha): {agreement}",
    ]
    if outcome.identical:
        lines.append(f"{outcome.identical} items were answered alike and nobody was asked")
    names = max(len(rater) for rater in outcome.raters)
    lines.append("")
    for rater, counts in outcome.raters.items():
        shown = ", ".join(f"{titles[o]} {counts[o]}" for o in OUTCOMES)
        kinds = f"ties: {counts['both']} both good, {counts['neither']} both bad"
        lines.append(f"{rater:<{names}}  {shown}  ({kinds})")
    return lines


def to_json(outcome: Outcome) -> dict[str, Any]:
    """Put an outcome in plain values.

    Args:
        outcome: Of the votes.

    Returns:
        What JSON can hold.
    """
    return asdict(outcome)


def _read(path: Path) -> dict[str, Any]:
    """Read one file of votes."""
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}.") from None
    if not isinstance(written, dict) or not isinstance(written.get("votes"), dict):
        raise ValueError(f"{path}: must be what the page saves, with `page`, `rater`, `votes`.")
    return written


def _ballot(key: Mapping[str, Any], written: Mapping[str, Any], path: Path) -> Ballot:
    """Turn sides into wins and losses of the first system."""
    rater = str(written.get("rater", "")).strip()
    if not rater:
        raise ValueError(f"{path}: `rater` must be a name.")
    first = key["names"][0]
    votes = {}
    for place, choice in written["votes"].items():
        if not place.isdecimal() or int(place) >= len(key["items"]) or choice not in CHOICES:
            raise ValueError(f"{path}: vote {place!r}: {choice!r} is not one on this page.")
        asked = key["items"][int(place)]
        if choice in ("both", "neither"):
            votes[asked["item"]] = "tie"
        else:
            votes[asked["item"]] = (
                "win" if (asked["left"] == first) == (choice == "left") else "loss"
            )
    counts = Counter(written["votes"].values())
    return Ballot(rater, votes, {choice: counts[choice] for choice in CHOICES})
