"""CHAIR: which objects does a description name that the image does not show?

Rohrbach et al. 2018, arXiv:1809.02156. Words are made singular by the rules of pattern.en, and
looked up in a list of synonyms; a mention is hallucinated if its object is not in the ground truth:
segmented, or named by the same routine in a reference caption. ``CHAIRs`` is the share of captions
with a hallucinated mention, ``CHAIRi`` the share of mentions, repeats included; ``Recall``, which
later versions of the scorer add, is the share of the images' objects that captions name.

The singular rules lose words: ``bus``, ``ties`` and ``tennis racket`` are not found, nor are two
entries of the list that begin with a blank. The robust rule beside it takes a word of the list as
it stands, or in any singular that is one; in reference captions too, where the ground truth is made
of them.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from mdpo.evaluation.language.singular import singularize
from mdpo.evaluation.language.wordnet import ENDINGS
from mdpo.evaluation.suite import ItemScore, Metric, Prompt, count, share
from mdpo.evaluation.suites.coco import (
    JOINED,
    GroundTruth,
    Vocabulary,
    annotation_files,
    counts,
    description_rows,
    details,
    image_number,
    read_synonyms,
)
from mdpo.evaluation.suites.rows import Row, read_rows, response_files, value_of, write_rows

SYNONYMS, TRUTHS, PROMPTS = "synonyms.txt", "ground_truth*.json", "prompts.jsonl"
IDS = ("image_id", "item", "item_id")
ANSWERS = ("caption", "text", "response", "answer")
REQUEST = "Please describe this image in detail."
EXPORT = "chair_captions.jsonl"


PAIRS = (
    *("motor bike", "motor cycle", "air plane", "traffic light", "street light"),
    *("traffic signal", "stop light", "fire hydrant", "stop sign", "parking meter", "suit case"),
    *("sports ball", "baseball bat", "baseball glove", "tennis racket", "wine glass", "hot dog"),
    *("cell phone", "mobile phone", "teddy bear", "hair drier", "potted plant"),
    "laptop computer",
)
"""Two words that the official scorer joins, whether or not they are entries of the list."""


def official_vocabulary(objects: Mapping[str, str]) -> Vocabulary:
    """Match words as the official scorer does.

    Args:
        objects: The synonym list.

    Returns:
        The vocabulary. Lists other than COCO's have their own pairs joined too, unless the second
        word alone names the same object: the scorer leaves ``dining table`` apart.
    """
    own = [word for word in objects if len(word.split(" ")) == 2]
    own = [word for word in own if objects.get(word.split(" ")[1]) != objects[word]]
    joined = {pair: pair for pair in (*PAIRS, *own)}
    return Vocabulary(objects, joined | JOINED, singularize)


def robust_vocabulary(objects: Mapping[str, str]) -> Vocabulary:
    """Match words however they stand.

    Args:
        objects: The synonym list.

    Returns:
        The vocabulary.
    """
    stripped = {word.strip().lower(): each for word, each in objects.items()}
    pairs = {word: word for word in stripped if len(word.split()) == 2}
    known = Vocabulary(stripped, pairs | JOINED, singularize).parts

    def singular(word: str) -> str:
        forms = [word, singularize(word)]
        forms += [word[: -len(old)] + new for old, new in ENDINGS if word.endswith(old)]
        return next((form for form in forms if form in known), word)

    return Vocabulary(stripped, pairs | JOINED, singular)


class ChairSuite:
    """CHAIR on captions of COCO images, or of any others with a ground truth."""

    name: str = "chair"
    backend: str = "nltk tokens and singular forms of pattern.en"

    def __init__(
        self,
        objects: Mapping[str, str],
        truth: Mapping[str, Sequence[str]] | GroundTruth,
        prompts: Sequence[Row],
        data_files: Sequence[Path],
    ) -> None:
        self.official, self.robust = official_vocabulary(objects), robust_vocabulary(objects)
        self.truth, self.rows, self.data_files = truth, prompts, data_files
        self.items: Sequence[str] = [str(row["image_id"]) for row in prompts]
        self.metrics: Sequence[Metric] = self.metrics_for(())
        self._mentions: dict[str, tuple] = {}

    @classmethod
    def load(cls, folder: Path) -> "ChairSuite":
        """Read the synonym list and the ground truth.

        Args:
            folder: With ``synonyms.txt`` and ``ground_truth*.json`` (objects by image id), or
                COCO's annotation files in place of the latter, in it or in a folder beside it
                whose name begins with ``coco``; and ``prompts.jsonl``, if what is asked is not
                the usual request for images of COCO.

        Returns:
            The benchmark; without prompts it has no list of items.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If there are several ground truths, or one is not lists of objects.
        """
        truths = sorted(folder.glob(TRUTHS))
        instances, captions = ([], []) if truths else annotation_files(folder)
        if not (folder / SYNONYMS).is_file() or not (truths or instances):
            raise FileNotFoundError(
                f"{folder} must hold {SYNONYMS} (one object a line: its name, then synonyms, "
                "separated by commas) and ground_truth.json ("
                '{"image id": ["object", ...]}'
                "), or instead of that COCO's annotations of 2014 (instances_train2014.json, "
                "instances_val2014.json, captions_train2014.json, captions_val2014.json), which "
                "may lie in a folder beside it whose name begins with coco."
            )
        if len(truths) > 1:
            names = ", ".join(path.name for path in truths)
            raise ValueError(f"{folder} must hold one ground truth, got {names}.")
        objects = read_synonyms(folder / SYNONYMS)
        prompts = folder / PROMPTS
        truth = _read_truth(truths[0]) if truths else GroundTruth.load(instances, captions, objects)
        files = [folder / SYNONYMS, *truths, *instances, *captions]
        if not prompts.is_file():
            return cls(objects, truth, [], files)
        return cls(objects, truth, _read_prompts(prompts), [*files, prompts])

    def read(self, path: Path) -> Mapping[str, str]:
        """Read captions: JSON rows with ``image_id`` and ``caption`` or ``text``.

        The dictionaries that the original scorer reads (``imgToEval``) and writes
        (``sentences``) are known too. An image may have several captions: ``ID``, ``ID/2`` and
        so on.

        Args:
            path: A file, or a folder with several.

        Returns:
            Captions by item id.
        """
        captions: dict[str, str] = {}
        for file in response_files(path):
            for number, row in enumerate(description_rows(file), start=1):
                place = f"{file}:{number}"
                image = self._image(value_of(row, IDS, place), place)
                item, further = image, 1
                while item in captions:
                    further += 1
                    item = f"{image}/{further}"
                captions[item] = value_of(row, ANSWERS, place)
        return captions

    def score(self, item: str, response: str) -> ItemScore:
        """Score one caption.

        Args:
            item: Id: the image's.
            response: The caption.

        Returns:
            Mentions and hallucinations, by each rule.
        """
        image = self._image_of(item)
        if response not in self._mentions:  # captions are scored again against other images
            rules = (self.official, self.robust)
            self._mentions[response] = tuple(each.mentions(response) for each in rules)
        official, robust = self._mentions[response]
        truth = self._objects(image, self.official)
        columns = counts("", [each[:2] for each in official], truth)
        shown = self._objects(image, self.robust)
        columns |= counts("robust/", [each[:2] for each in robust], shown)
        differ = [each.object for each in official] != [each.object for each in robust]
        columns["disagreements"] = float(differ)
        return ItemScore(item, image, columns, details(official, truth))

    def prompts(self) -> Sequence[Prompt]:
        """List what a model is asked.

        Returns:
            The rows of ``prompts.jsonl``; without it, the usual request for each image.
        """
        if self.rows:
            return [
                Prompt(str(row["image_id"]), [str(row["image"])], str(row["prompt"]))
                for row in self.rows
            ]
        if isinstance(self.truth, GroundTruth):
            files = self.truth.files
            return [Prompt(image, [name], REQUEST) for image, name in files.items()]
        return [Prompt(image, [_coco_file(image)], REQUEST) for image in self.truth]

    def export(self, responses: Mapping[str, str], out: Path) -> Sequence[Path]:
        """Write JSON lines with ``image_id`` and ``caption``.

        Args:
            responses: By item id.
            out: Folder.

        Returns:
            The file.
        """
        rows = []
        for item, text in responses.items():
            image = self._image_of(item)
            number = int(image) if image.isdecimal() and image == str(int(image)) else image
            rows.append({"image_id": number, "caption": text})
        return [write_rows(out / EXPORT, rows)]

    def describes(self, item: str) -> bool:
        """Tell that all items ask for a description.

        Args:
            item: Id.

        Returns:
            True.
        """
        return True

    @classmethod
    def metrics_for(cls, columns: Collection[str]) -> Sequence[Metric]:
        """List the metrics, which are always the same.

        Args:
            columns: Of items.

        Returns:
            Metrics.
        """
        metrics: list[Metric] = []
        for rule in ("", "robust/"):
            metrics += [
                Metric(f"{rule}CHAIRs", "lower", share(f"{rule}hallucinating", f"{rule}responses")),
                Metric(f"{rule}CHAIRi", "lower", share(f"{rule}hallucinated", f"{rule}mentions")),
                Metric(f"{rule}Recall", "higher", share(f"{rule}found", f"{rule}objects")),
            ]
        return [*metrics, count("disagreements")]

    def _objects(self, image: str, vocabulary: Vocabulary) -> frozenset[str]:
        """Name what an image shows."""
        if isinstance(self.truth, GroundTruth):
            return self.truth.objects(image, vocabulary)
        return frozenset(self.truth[image])

    @property
    def _images(self) -> Mapping[str, Collection[str]]:
        """Images of the ground truth."""
        return self.truth.segmented if isinstance(self.truth, GroundTruth) else self.truth

    @cached_property
    def _numbered(self) -> Mapping[str, Sequence[str]]:
        """Images by their number, leading zeros aside."""
        numbered = defaultdict(list)
        for image in self._images:
            if image.isdecimal() or image.startswith("COCO_"):
                numbered[image_number(image)].append(image)
        return numbered

    def _image_of(self, item: str) -> str:
        """Find the image of an item, which may be one of several captions: ``ID/2``."""
        image = item if item in self._images else item.rpartition("/")[0]
        if image not in self._images:
            raise ValueError(
                f"Item {item!r} has no image in the ground truth. Give the --data that its answer "
                "was generated with."
            )
        return image

    def _image(self, written: str, place: str) -> str:
        """Find an image by its id, or by the number in its name."""
        if written in self._images:
            return written
        found = self._numbered.get(image_number(written), [])
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(map(repr, found))
            raise ValueError(f"{place}: image {written!r} could be {listed}; write it out.")
        raise ValueError(f"{place}: image {written!r} has no entry in the ground truth.")


def _read_truth(path: Path) -> dict[str, list[str]]:
    """Read objects by image."""
    try:
        truth = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON: {error}.") from None
    if not isinstance(truth, dict):
        raise ValueError(f"{path} must be an object of lists by image id, got {str(truth)[:60]!r}.")
    for image, objects in truth.items():
        if not isinstance(objects, list):
            raise ValueError(f"{path}: objects of image {image!r} must be a list, got {objects!r}.")
    return truth


def _read_prompts(path: Path) -> list[Row]:
    """Read what is asked."""
    rows = read_rows(path)
    for number, row in enumerate(rows, start=1):
        for name in ("image_id", "image", "prompt"):
            value_of(row, [name], f"{path}:{number}")
    return rows


def _coco_file(image: str) -> str:
    """Name the file of a COCO image."""
    return f"COCO_val2014_{int(image):012d}.jpg" if image.isdecimal() else image
