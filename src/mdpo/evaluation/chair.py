"""CHAIR: which objects does a description name that the picture does not show?

Rohrbach et al. 2018, arXiv:1809.02156. A word that names an object is looked up in a list of
synonyms; it is hallucinated if its object is not in the ground truth of the image.

This module matches words exactly as they stand in the list. The official scorer makes words
singular first; on COCO captions the figures therefore differ from published ones.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mdpo.evaluation.statistics import Estimate, ratio_of_sums

WORD = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*")


@dataclass(frozen=True)
class Mention:
    """An object named in a description.

    Attributes:
        object: Its name in the ground truth: the first word of its line of synonyms.
        start: Where the words begin in the text, in characters.
        end: Where they end.
    """

    object: str
    start: int
    end: int


@dataclass(frozen=True)
class ScoredCaption:
    """One description, scored.

    Attributes:
        image_id: Of the image.
        text: The description.
        mentions: All objects named, in order; repeats count.
        hallucinated: Those of them that are not in the image.
        num_named: Different true objects named.
        num_true: Objects in the image.
        num_words: Words separated by blanks.
    """

    image_id: str
    text: str
    mentions: tuple[Mention, ...]
    hallucinated: tuple[Mention, ...]
    num_named: int
    num_true: int
    num_words: int


@dataclass(frozen=True)
class ChairData:
    """Synonyms and ground truth.

    Attributes:
        synonyms: From words, in lower case, to the name of the object.
        truth: From image id to the objects it shows.
    """

    synonyms: dict[str, str]
    truth: dict[str, frozenset[str]]

    @classmethod
    def load(cls, folder: Path) -> "ChairData":
        """Read ``synonyms.txt`` and ``ground_truth*.json``.

        Args:
            folder: With the two files.

        Returns:
            The data.

        Raises:
            FileNotFoundError: If one is missing.
            ValueError: If there are several ground truths, or one is not lists of objects.
        """
        lists = sorted(folder.glob("ground_truth*.json"))
        if not (folder / "synonyms.txt").exists() or not lists:
            raise FileNotFoundError(
                f"{folder} must hold synonyms.txt (one object a line: its name, then synonyms, "
                'separated by commas) and ground_truth.json ({"image id": ["object", ...]}).'
            )
        if len(lists) > 1:
            names = ", ".join(path.name for path in lists)
            raise ValueError(f"{folder} must hold one ground truth, got {names}.")
        synonyms: dict[str, str] = {}
        for line in (folder / "synonyms.txt").read_text(encoding="utf-8").splitlines():
            words = [word.strip().lower() for word in line.split(",") if word.strip()]
            synonyms |= {word: words[0] for word in words}
        truth = json.loads(lists[0].read_text(encoding="utf-8"))
        for key, value in truth.items():
            if not isinstance(value, list):
                raise ValueError(
                    f"{lists[0]}: objects of image {key!r} must be a list, got {value!r}."
                )
        return cls(synonyms, {str(key): frozenset(value) for key, value in truth.items()})

    def mentions(self, text: str) -> list[Mention]:
        """Find the objects that a text names; two words are tried before one.

        Two words belong together if only blanks lie between them: ``a hot, dog`` is a dog.

        Args:
            text: A description.

        Returns:
            Mentions in order.
        """
        words = list(WORD.finditer(text))
        found, position = [], 0
        while position < len(words):
            for length in (2, 1):
                group = words[position : position + length]
                start, end = group[0].start(), group[-1].end()
                phrase = " ".join(text[start:end].lower().split())
                if len(group) == length and phrase in self.synonyms:
                    found.append(Mention(self.synonyms[phrase], start, end))
                    position += length
                    break
            else:
                position += 1
        return found

    def score(self, image_id: str, text: str) -> ScoredCaption:
        """Score one description.

        Args:
            image_id: Of the image it is about.
            text: The description.

        Returns:
            Its mentions, true and hallucinated.

        Raises:
            ValueError: If the image has no ground truth.
        """
        if image_id not in self.truth:
            raise ValueError(f"Image {image_id!r} has no entry in the ground truth.")
        truth = self.truth[image_id]
        mentions = self.mentions(text)
        return ScoredCaption(
            image_id=image_id,
            text=text,
            mentions=tuple(mentions),
            hallucinated=tuple(each for each in mentions if each.object not in truth),
            num_named=len({each.object for each in mentions} & truth),
            num_true=len(truth),
            num_words=len(text.split()),
        )


Counts = tuple[np.ndarray, np.ndarray]
"""Numerators and denominators of a ratio, one per image."""


def chair_counts(captions: Sequence[ScoredCaption]) -> dict[str, Counts]:
    """Count per image what the metrics divide; several captions of one image are added up.

    Args:
        captions: Of one system.

    Returns:
        By metric: ``CHAIRs`` hallucinating captions of all, ``CHAIRi`` hallucinated mentions of
        all, ``Recall`` true objects named of all, ``words`` words of captions. Images are in
        sorted order.
    """
    order = {key: k for k, key in enumerate(sorted({each.image_id for each in captions}))}
    counts = {name: (np.zeros(len(order)), np.zeros(len(order))) for name in METRICS}
    for each in captions:
        of_caption = {
            "CHAIRs": (bool(each.hallucinated), 1),
            "CHAIRi": (len(each.hallucinated), len(each.mentions)),
            "Recall": (each.num_named, each.num_true),
            "words": (each.num_words, 1),
        }
        for name, (above, below) in of_caption.items():
            counts[name][0][order[each.image_id]] += above
            counts[name][1][order[each.image_id]] += below
    return counts


METRICS: dict[str, float] = {"CHAIRs": 100.0, "CHAIRi": 100.0, "Recall": 100.0, "words": 1.0}
"""Metrics with their scale: shares in percent, lengths in words."""


DIRECTIONS: dict[str, str | None] = {
    "CHAIRs": "lower",
    "CHAIRi": "lower",
    "Recall": "higher",
    "words": None,
}
"""Which way is better."""


def summarise(captions: Sequence[ScoredCaption], *, seed: int = 0) -> dict[str, Estimate]:
    """Work out CHAIRs, CHAIRi, Recall and mean length, with intervals over images.

    Args:
        captions: Of one system; at least one.
        seed: Of the bootstrap.

    Returns:
        Estimates by metric.

    Raises:
        ValueError: If there is no caption.
    """
    if not captions:
        raise ValueError("There must be at least one caption to score, got none.")
    counts = chair_counts(captions)
    return {
        name: ratio_of_sums(*counts[name], scale=scale, seed=seed)
        for name, scale in METRICS.items()
    }


def write_scores(
    folder: Path, captions: Sequence[ScoredCaption], summary: dict[str, Estimate]
) -> None:
    """Write ``items.jsonl`` and ``metrics.json``.

    Args:
        folder: Made if missing.
        captions: Of one system.
        summary: From ``summarise``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    items = "".join(json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in captions)
    (folder / "items.jsonl").write_text(items, encoding="utf-8")
    metrics = {
        name: estimate.to_dict() | {"direction": DIRECTIONS[name]}
        for name, estimate in summary.items()
    }
    written = {"suite": "chair", "mode": "exact words", "metrics": metrics}
    (folder / "metrics.json").write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
