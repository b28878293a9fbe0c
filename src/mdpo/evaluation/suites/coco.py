"""Objects of COCO in texts and in annotations, as CHAIR and Object HalBench find them.

Rohrbach et al. 2018, arXiv:1809.02156. A text is put in lower case and split into words, each made
singular; two words that are one thing are joined; words of a synonym list name objects.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from mdpo.evaluation.language.nouns import spans, tokens

ANIMALS = (
    *("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"),
    *("animal", "cub"),
)
JOINED = {
    "home plate": "home plate",
    "train track": "train track",
    "passenger jet": "jet",
    "passenger train": "train",
    "bow tie": "tie",
    "toilet seat": "toilet",
    "wine glas": "wine glass",
    **{f"{age} {animal}": animal for age in ("baby", "adult") for animal in ANIMALS},
}
"""Two words that are joined besides those of the synonym list: a baby bird is no person."""


class Mention(NamedTuple):
    """A word of the synonym list in a text.

    Attributes:
        word: As in the list.
        object: That it names.
        start: Where it begins in the text, in characters.
        end: Where it ends.
    """

    word: str
    object: str
    start: int
    end: int


@dataclass(frozen=True)
class Vocabulary:
    """Words that name objects.

    Attributes:
        objects: From word to the object it names.
        joined: Two words that are joined, and what they become.
        singular: What makes a word, in lower case, singular.
    """

    objects: Mapping[str, str]
    joined: Mapping[str, str]
    singular: Callable[[str], str]

    def words(self, text: str) -> list[tuple[str, int, int]]:
        """Split a text into singular words and joined pairs.

        Args:
            text: A description.

        Returns:
            Words, each with its start and end in the text.
        """
        found = tokens(text.lower())
        places = spans(text, found)
        words = [self.singular(token) for token in found]
        joined, position = [], 0
        while position < len(words):
            one = self.joined.get(" ".join(words[position : position + 2]))
            last = position + (0 if one is None else 1)
            joined.append((one or words[position], places[position][0], places[last][1]))
            position = last + 1
        return joined

    def mentions(self, text: str) -> list[Mention]:
        """Find the words of a text that name objects.

        Args:
            text: A description.

        Returns:
            Mentions in order; repeats stay.
        """
        words = self.words(text)
        if "toilet" in {word for word, _, _ in words}:  # its seat is no chair
            words = [each for each in words if each[0] != "seat"]
        return [
            Mention(word, self.objects[word], start, end)
            for word, start, end in words
            if word in self.objects
        ]

    @cached_property
    def parts(self) -> frozenset[str]:
        """Single words of all entries."""
        return frozenset(part for entry in (*self.objects, *self.joined) for part in entry.split())


def read_synonyms(path: Path) -> dict[str, str]:
    """Read a synonym list: one object a line, its name first, separated by a comma and a blank.

    Args:
        path: A file.

    Returns:
        From word to object. Only lines are stripped: the official list has two entries that
        begin with a second blank, which therefore never match.
    """
    objects: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        words = [word for word in line.strip().split(", ") if word]
        objects |= {word: words[0] for word in words}
    return objects


@dataclass
class GroundTruth:
    """What COCO's annotators found in images.

    Attributes:
        segmented: Objects by image.
        captions: Reference captions by image.
        files: Names of image files.
    """

    segmented: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    captions: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    files: dict[str, str] = field(default_factory=dict)
    _known: dict[str, frozenset[str]] = field(default_factory=dict, repr=False)

    def objects(self, image: str, vocabulary: Vocabulary) -> frozenset[str]:
        """Name the objects of one image.

        Args:
            image: Its id.
            vocabulary: What finds objects in captions; the same in all calls.

        Returns:
            Objects segmented, and those named in captions.
        """
        if image not in self._known:
            named = {
                mention.object
                for caption in self.captions.get(image, ())
                for mention in vocabulary.mentions(caption)
            }
            self._known[image] = frozenset(self.segmented.get(image, set()) | named)
        return self._known[image]

    @classmethod
    def load(
        cls, instances: Iterable[Path], captions: Iterable[Path], objects: Mapping[str, str]
    ) -> "GroundTruth":
        """Read COCO annotation files.

        Args:
            instances: Such as ``instances_val2014.json``.
            captions: Such as ``captions_val2014.json``.
            objects: From category to object.

        Returns:
            Annotations of all images listed.

        Raises:
            ValueError: If a category is not in the synonym list.
        """
        truth = cls()
        for path in instances:
            written = json.loads(path.read_text(encoding="utf-8"))
            names = {each["id"]: each["name"] for each in written["categories"]}
            if unknown := sorted(set(names.values()) - set(objects)):
                raise ValueError(f"{path}: category {unknown[0]!r} is not in the synonym list.")
            for each in written["images"]:
                truth.segmented[str(each["id"])] |= set()
                if "file_name" in each:
                    truth.files[str(each["id"])] = str(each["file_name"])
            for each in written["annotations"]:
                truth.segmented[str(each["image_id"])].add(objects[names[each["category_id"]]])
        for path in captions:
            for each in json.loads(path.read_text(encoding="utf-8"))["annotations"]:
                truth.captions[str(each["image_id"])].append(each["caption"])
        return truth


def annotation_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Find COCO's annotations of 2014.

    Args:
        folder: Of a benchmark. The files lie in it, at any depth, or else in a folder beside it
            whose name begins with ``coco``: several benchmarks share them.

    Returns:
        Files of instances and of captions; empty if there are none.
    """
    beside = [each for each in sorted(folder.resolve().parent.glob("coco*")) if each.is_dir()]
    for place in (folder, *beside):
        instances = sorted(place.rglob("instances_*2014.json"))
        captions = sorted(place.rglob("captions_*2014.json"))
        if instances and captions:
            return instances, captions
    return [], []


def image_number(written: str) -> str:
    """Take the number of an image from its name.

    Args:
        written: Such as ``COCO_val2014_000000310196.jpg``, ``310196`` or ``000310196``.

    Returns:
        The number without leading zeros; the text itself if it ends in no number.
    """
    stem = written.rpartition("/")[2].rpartition(".")[0] or written
    digits = stem[len(stem.rstrip("0123456789")) :]
    return str(int(digits)) if digits else written


def counts(
    rule: str, mentions: Sequence[tuple[str, str]], truth: frozenset[str]
) -> dict[str, float]:
    """Count what one description adds.

    Args:
        rule: Prefix of the columns.
        mentions: Words and the objects they name.
        truth: Objects of the image.

    Returns:
        Columns.
    """
    wrong = sum(each not in truth for _, each in mentions)
    return {
        f"{rule}responses": 1.0,
        f"{rule}mentioning": float(bool(mentions)),
        f"{rule}hallucinating": float(wrong > 0),
        f"{rule}mentions": float(len(mentions)),
        f"{rule}hallucinated": float(wrong),
        f"{rule}objects": float(len(truth)),
        f"{rule}found": float(len({each for _, each in mentions} & truth)),
    }


def details(mentions: Sequence[Mention], truth: frozenset[str]) -> dict[str, object]:
    """Say which words were found and which of them are hallucinated.

    Args:
        mentions: In a description.
        truth: Objects of the image.

    Returns:
        What JSON can hold.
    """
    return {
        "mentions": [each._asdict() for each in mentions],
        "hallucinated": [each._asdict() for each in mentions if each.object not in truth],
        "truth": sorted(truth),
    }
