"""Object HalBench: which of the 80 COCO objects does a response invent? Rule mode.

Rohrbach et al. 2018 (CHAIR) in the version of Yu et al. 2024 (RLHF-V, arXiv:2312.00849): 300 COCO
images with a request for a description each. A response is put in lower case, split into words,
each made a singular noun; two words that are one object are joined; words of the synonym list
are objects. A mention is hallucinated if its object is neither segmented in the image nor named,
by the same routine, in one of its reference captions.

``CHAIRs`` is the share of responses with a hallucinated mention, ``CHAIRs_refined`` that among
responses that mention any object: it is what papers print. ``CHAIRi`` is the share of mentions,
``object_recall`` the share of objects in the images that responses mention.

Papers extract objects with a language model first; rule mode reads all words and is not
comparable with their numbers.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mdpo.evaluation.language.nouns import Nouns, noun_backend
from mdpo.evaluation.suite import ItemScore, Metric, share
from mdpo.evaluation.suites.rows import Row, read_rows, response_files, value_of

SYNONYMS = "synonyms_refine.txt"
QUESTIONS = "obj_halbench_300_with_image.jsonl"
ANSWERS = ("caption", "text", "answer", "response")
ANIMALS = "bird cat dog horse sheep cow elephant bear zebra giraffe animal cub"
JOINED = {
    "home plate": "home plate",
    "train track": "train track",
    "passenger jet": "jet",
    "passenger train": "train",
    "bow tie": "tie",
    "toilet seat": "toilet",
    "wine glas": "wine glass",
    **{f"{age} {animal}": animal for age in ("baby", "adult") for animal in ANIMALS.split()},
}
"""Two words that are joined besides those of the synonym list."""


def read_synonyms(path: Path) -> dict[str, str]:
    """Read the synonym list: one object a line, its name first, separated by commas.

    Args:
        path: A file.

    Returns:
        From word to object.
    """
    objects: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        words = [word.strip() for word in line.split(", ")]
        objects |= {word: words[0] for word in words if word}
    return objects


@dataclass(frozen=True)
class Vocabulary:
    """Words that name COCO objects.

    Attributes:
        objects: From word to the object it names.
        nouns: What splits a text into words.
    """

    objects: Mapping[str, str]
    nouns: Nouns

    def mentions(self, text: str) -> list[str]:
        """Find the words of a text that name objects.

        Args:
            text: A description.

        Returns:
            Words of the synonym list, in order; repeats stay.
        """
        words, position, joined = self.nouns(text.lower()), 0, []
        while position < len(words):
            pair = " ".join(words[position : position + 2])
            known = JOINED.get(pair) or (pair if " " in pair and pair in self.objects else None)
            joined.append(known or words[position])
            position += 2 if known else 1
        if "toilet" in joined:  # its seat is no chair
            joined = [word for word in joined if word != "seat"]
        return [word for word in joined if word in self.objects]


@dataclass
class GroundTruth:
    """What COCO's annotators found in images.

    Attributes:
        segmented: Objects by image.
        captions: Reference captions by image.
    """

    segmented: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    captions: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def objects(self, image: str, vocabulary: Vocabulary) -> set[str]:
        """Name the objects of one image.

        Args:
            image: Its id.
            vocabulary: What finds objects in captions.

        Returns:
            Objects segmented, and those named in captions.
        """
        named = {
            vocabulary.objects[word]
            for caption in self.captions.get(image, ())
            for word in vocabulary.mentions(caption)
        }
        return self.segmented.get(image, set()) | named

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
            for each in written["annotations"]:
                truth.segmented[str(each["image_id"])].add(objects[names[each["category_id"]]])
        for path in captions:
            for each in json.loads(path.read_text(encoding="utf-8"))["annotations"]:
                truth.captions[str(each["image_id"])].append(each["caption"])
        return truth


class ObjectHalBenchSuite:
    """Object HalBench in rule mode."""

    name: str = "object-halbench"

    def __init__(
        self,
        vocabulary: Vocabulary,
        truth: GroundTruth,
        questions: Sequence[Row],
        data_files: Sequence[Path],
        backend: str,
    ) -> None:
        self.vocabulary, self.truth, self.questions = vocabulary, truth, questions
        self.backend, self.data_files = backend, data_files
        self.items: Sequence[str] = [str(row["image_id"]) for row in questions]
        self.metrics: Sequence[Metric] = [
            Metric("CHAIRs", "lower", share("hallucinating", "responses")),
            Metric("CHAIRs_refined", "lower", share("hallucinating", "mentioning")),
            Metric("CHAIRi", "lower", share("hallucinated", "mentions")),
            Metric("object_recall", "higher", share("found", "objects")),
            Metric("length", None, share("words", "responses", scale=1.0)),
        ]

    @classmethod
    def load(cls, folder: Path) -> "ObjectHalBenchSuite":
        """Read the synonym list, COCO's annotations and, where they are, the questions.

        Args:
            folder: With ``synonyms_refine.txt``, ``instances_*2014.json`` and
                ``captions_*2014.json`` of COCO, and ``obj_halbench_300_with_image.jsonl``; files
                may lie in folders below.

        Returns:
            The benchmark; without questions it has no list of items.

        Raises:
            FileNotFoundError: If synonyms or annotations are missing.
        """
        lists, questions = sorted(folder.rglob(SYNONYMS)), sorted(folder.rglob(QUESTIONS))
        instances = sorted(folder.rglob("instances_*2014.json"))
        captions = sorted(folder.rglob("captions_*2014.json"))
        if not lists or not instances or not captions:
            raise FileNotFoundError(
                f"{folder} must hold, at any depth, {SYNONYMS} of RLHF-V (one object a line: its "
                "name, then synonyms) and COCO's annotations of 2014: instances_train2014.json, "
                "instances_val2014.json, captions_train2014.json, captions_val2014.json."
            )
        objects = read_synonyms(lists[0])
        nouns, backend = noun_backend([*objects, *JOINED])
        return cls(
            Vocabulary(objects, nouns),
            GroundTruth.load(instances, captions, objects),
            read_rows(questions[0]) if questions else [],
            [lists[0], *instances, *captions, *questions[:1]],
            backend,
        )

    def read(self, path: Path) -> Mapping[str, str]:
        """Read responses: JSON rows with ``image_id`` and ``answer``, ``text`` or ``caption``.

        Rows without ``image_id`` are in the order of the questions.

        Args:
            path: A file, or a run's folder.

        Returns:
            Responses by item id; an image's second response is ``ID/2``, and so on.

        Raises:
            ValueError: If an image is not in the ground truth, or rows without ids are not as
                many as questions.
        """
        responses: dict[str, str] = {}
        for file in response_files(path):
            rows = read_rows(file)
            for number, row in enumerate(self._with_images(rows, file), start=1):
                place = f"{file}:{number}"
                image = value_of(row, ["image_id"], place)
                if not image.isdecimal():
                    raise ValueError(f"{place}: `image_id` must be a COCO number, got {image!r}.")
                image = str(int(image))
                if image not in self.truth.segmented:
                    raise ValueError(f"{place}: image {image} is not in the ground truth.")
                item, further = image, 1
                while item in responses:
                    further += 1
                    item = f"{image}/{further}"
                responses[item] = value_of(row, ANSWERS, place)
        return responses

    def score(self, item: str, response: str) -> ItemScore:
        """Score one response.

        Args:
            item: Id: the image's.
            response: A description.

        Returns:
            Mentions and hallucinations.
        """
        image = item.split("/")[0]
        text = response.replace("Assistant:", "").strip()
        truth = self.truth.objects(image, self.vocabulary)
        words = self.vocabulary.mentions(text)
        named = [(word, self.vocabulary.objects[word]) for word in words]
        wrong = [(word, each) for word, each in named if each not in truth]
        columns = {
            "responses": 1.0,
            "mentioning": float(bool(words)),
            "hallucinating": float(bool(wrong)),
            "mentions": float(len(words)),
            "hallucinated": float(len(wrong)),
            "objects": float(len(truth)),
            "found": float(len({each for _, each in named} & truth)),
            "words": float(len(text.split(" "))),
        }
        details = {"mentions": named, "hallucinated": wrong, "truth": sorted(truth)}
        return ItemScore(item, image, columns, details)

    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        """No constant answer means anything for descriptions.

        Returns:
            Nothing.
        """
        return {}

    def _with_images(self, rows: Sequence[Row], file: Path) -> Sequence[Row]:
        """Give rows without an image that of the question at their place."""
        if any("image_id" in row for row in rows):
            return rows
        if len(rows) != len(self.questions):
            raise ValueError(
                f"{file}: rows without `image_id` are joined to questions by position, so there "
                f"must be {len(self.questions)}, got {len(rows)}."
            )
        pairs = zip(rows, self.questions, strict=True)
        return [{**row, "image_id": asked["image_id"]} for row, asked in pairs]
