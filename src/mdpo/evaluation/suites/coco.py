"""Objects of COCO in texts and in annotations, as CHAIR and Object HalBench find them.

Rohrbach et al. 2018, arXiv:1809.02156. A text is put in lower case and split into words, each made
singular; two words that are one thing are joined; words of a synonym list name objects.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from mdpo.evaluation.language.nouns import spans, tokens
from mdpo.evaluation.suites.rows import Row, read_rows

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


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Words that name objects; no two are equal, so that results can be kept by vocabulary.

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
        words = self.join([self.singular(token) for token in found])
        return [(word, places[first][0], places[last][1]) for word, first, last in words]

    def join(self, words: Sequence[str]) -> list[tuple[str, int, int]]:
        """Join two words that are one thing, from left to right.

        Args:
            words: Singular.

        Returns:
            Words, each with the positions of its first and its last part.
        """
        found, position = [], 0
        while position < len(words):
            one = self.joined.get(" ".join(words[position : position + 2]))
            last = position + (one is not None)
            found.append((one or words[position], position, last))
            position = last + 1
        return found

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
    _known: dict[tuple[str, Vocabulary], frozenset[str]] = field(default_factory=dict, repr=False)

    def objects(self, image: str, vocabulary: Vocabulary) -> frozenset[str]:
        """Name the objects of one image.

        Args:
            image: Its id.
            vocabulary: What finds objects in captions.

        Returns:
            Objects segmented, and those named in captions.

        Raises:
            ValueError: If the image is not in the annotations.
        """
        if image not in self.segmented:
            raise ValueError(f"Image {image!r} is not in COCO's annotations of 2014 at hand.")
        if (image, vocabulary) not in self._known:
            named = {
                mention.object
                for caption in self.captions.get(image, ())
                for mention in vocabulary.mentions(caption)
            }
            found = frozenset(self.segmented[image] | named)
            self._known[image, vocabulary] = found
        return self._known[image, vocabulary]

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
            Annotations of all images listed; a category that is not in the synonym list is
            refused, and so is a file of another form.
        """
        truth = cls()
        for path in instances:
            with _coco_form(path):
                truth._add_instances(path, objects)
        for path in captions:
            with _coco_form(path):
                truth._add_captions(path)
        return truth

    def _add_instances(self, path: Path, objects: Mapping[str, str]) -> None:
        """Read segmented objects and the names of images."""
        written = json.loads(path.read_text(encoding="utf-8"))
        names = {each["id"]: each["name"] for each in written["categories"]}
        if unknown := sorted(set(names.values()) - set(objects)):
            raise ValueError(f"{path}: category {unknown[0]!r} is not in the synonym list.")
        for each in written["images"]:
            self.segmented[str(each["id"])] |= set()
            if "file_name" in each:
                self.files[str(each["id"])] = str(each["file_name"])
        for each in written["annotations"]:
            self.segmented[str(each["image_id"])].add(objects[names[each["category_id"]]])

    def _add_captions(self, path: Path) -> None:
        """Read reference captions."""
        for each in json.loads(path.read_text(encoding="utf-8"))["annotations"]:
            self.segmented[str(each["image_id"])] |= set()
            self.captions[str(each["image_id"])].append(each["caption"])


@contextmanager
def _coco_form(path: Path) -> Iterator[None]:
    """Name the file that is not as COCO writes it."""
    try:
        yield
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON: {error}. Is it whole?") from None
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: not in the form of COCO's annotations: {error!r}.") from None


def annotation_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Find COCO's annotations of 2014.

    Args:
        folder: Of a benchmark. The files lie in it, at any depth, or else in a folder beside it
            whose name begins with ``coco``: several benchmarks share them.

    Returns:
        Files of instances and of captions; empty if there are none. A split that has only one of
        the two is refused.
    """
    beside = [each for each in sorted(folder.resolve().parent.glob("coco*")) if each.is_dir()]
    for place in (folder, *beside):
        instances = sorted(place.rglob("instances_*2014.json"))
        captions = sorted(place.rglob("captions_*2014.json"))
        if instances and captions:
            _refuse_half_splits(place, instances, captions)
            return instances, captions
    return [], []


def _refuse_half_splits(place: Path, instances: Sequence[Path], captions: Sequence[Path]) -> None:
    """Make sure that each split has both files: objects may be named in captions only."""
    segmented = {path.name.removeprefix("instances_") for path in instances}
    described = {path.name.removeprefix("captions_") for path in captions}
    if half := sorted(segmented ^ described):
        there, missing = (
            ("instances", "captions") if half[0] in segmented else ("captions", "instances")
        )
        raise ValueError(
            f"{place} holds {there}_{half[0]} but not {missing}_{half[0]}: the ground truth needs "
            "both."
        )


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


def description_rows(file: Path) -> list[Row]:
    """Read rows, also from the dictionaries that the original scorer reads and writes.

    Args:
        file: A JSON array of objects, one object a line, ``{"imgToEval": {ID: object}}`` or
            ``{"sentences": [object]}``.

    Returns:
        Objects, in order.

    Raises:
        ValueError: If it is not of this form.
    """
    try:
        whole = json.loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError:
        return read_rows(file)
    names = ("imgToEval", "sentences") if isinstance(whole, dict) else ()
    name = next((each for each in names if each in whole), None)
    if name is None:
        return read_rows(file)
    rows = whole[name]
    rows = list(rows.values()) if isinstance(rows, dict) else rows
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{file}: `{name}` must hold objects, got {str(rows)[:60]!r}.")
    return rows


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
