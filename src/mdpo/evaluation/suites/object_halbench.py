"""Object HalBench: which of the 80 COCO objects does a response invent?

Rohrbach et al. 2018 (CHAIR) in the version of Yu et al. 2024 (RLHF-V, arXiv:2312.00849): 300 COCO
images with a request for a description each. Words are made singular nouns and looked up in a
refined list of synonyms; a mention is hallucinated if its object is neither segmented in the image
nor named, by the same routine, in one of its reference captions.

``CHAIRs`` is the share of responses with a hallucinated mention, ``CHAIRs_refined`` that among
responses that mention any object: it is what papers print. ``CHAIRi`` is the share of mentions,
``object_recall`` the share of objects in the images that responses mention.

This is the rule mode, which reads all words. Papers let a language model list the objects of a
response first, see ``object_halbench_llm``; the two are not comparable.
"""

import base64
import binascii
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mdpo.evaluation.language.nouns import lemma_backend
from mdpo.evaluation.language.places import look_beside
from mdpo.evaluation.suite import ItemScore, Metric, Prompt, share
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

if TYPE_CHECKING:
    from typing_extensions import Self  # of Python 3.11

SYNONYMS = "synonyms_refine.txt"
QUESTIONS = "obj_halbench_300_with_image.jsonl"
REQUESTS = ("prompt", "question")
ANSWERS = ("caption", "text", "answer", "response")
EXPORT = "object_halbench_answers.jsonl"
ROLE = "Assistant:"
"""Some models begin their answers so."""


def coco_vocabulary(objects: Mapping[str, str]) -> tuple[Vocabulary, str]:
    """Match words as the official scorer does.

    Args:
        objects: The synonym list.

    Returns:
        The vocabulary, and the name of the language backend.
    """
    pairs = {word: word for word in objects if len(word.split()) == 2}
    lemma, backend = lemma_backend([*objects, *JOINED])
    return Vocabulary(objects, pairs | JOINED, lemma), backend


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
        self.items: Sequence[str] = [image_number(str(row["image_id"])) for row in questions]
        self.metrics: Sequence[Metric] = self.metrics_for(())

    @classmethod
    def load(cls, folder: Path) -> "Self":
        """Read the synonym list, COCO's annotations and, where they are, the questions.

        Args:
            folder: With ``synonyms_refine.txt``, ``instances_*2014.json`` and
                ``captions_*2014.json`` of COCO, and ``obj_halbench_300_with_image.jsonl``; files
                may lie in folders below. COCO's annotations may also lie in a folder beside it
                whose name begins with ``coco``.

        Returns:
            The benchmark; without questions it has no list of items.

        Raises:
            FileNotFoundError: If synonyms or annotations are missing.
        """
        look_beside(folder)
        lists, questions = sorted(folder.rglob(SYNONYMS)), sorted(folder.rglob(QUESTIONS))
        instances, captions = annotation_files(folder)
        if not lists or not instances:
            raise FileNotFoundError(
                f"{folder} must hold, at any depth, {SYNONYMS} of RLHF-V (one object a line: its "
                "name, then synonyms) and COCO's annotations of 2014: instances_train2014.json, "
                "instances_val2014.json, captions_train2014.json, captions_val2014.json. These may "
                "lie in a folder beside it whose name begins with coco."
            )
        listed = read_synonyms(lists[0])
        objects = {word.strip(): named.strip() for word, named in listed.items()}  # as officially
        vocabulary, backend = coco_vocabulary(objects)
        return cls(
            vocabulary,
            GroundTruth.load(instances, captions, objects),
            read_rows(questions[0]) if questions else [],
            [lists[0], *instances, *captions, *questions[:1]],
            backend,
        )

    def read(self, path: Path) -> Mapping[str, str]:
        """Read responses: JSON rows with ``image_id`` and ``answer``, ``text`` or ``caption``.

        Rows without ``image_id`` are in the order of the questions.

        Args:
            path: A file, or a folder with several.

        Returns:
            Responses by item id; an image's second response is ``ID/2``, and so on.
        """
        return {item: value_of(row, ANSWERS, place) for item, row, place in self.rows_by_item(path)}

    def score(self, item: str, response: str) -> ItemScore:
        """Score one response.

        Args:
            item: Id: the image's.
            response: A description.

        Returns:
            Mentions and hallucinations.
        """
        image = item.split("/")[0]
        truth = self.truth.objects(image, self.vocabulary)
        # Officially cut out; blanks keep the places of what follows.
        mentions = self.vocabulary.mentions(response.replace(ROLE, " " * len(ROLE)))
        columns = counts("", [each[:2] for each in mentions], truth)
        return ItemScore(item, image, columns, details(mentions, truth))

    def prompts(self) -> Sequence[Prompt]:
        """List what a model is asked.

        Returns:
            The official requests with their images.

        Raises:
            ValueError: If there are no questions, or an image is not base64.
        """
        if not self.questions:
            raise ValueError(
                f"Generation needs {QUESTIONS} of RLHF-V beside {SYNONYMS}: rows with `image_id`, "
                "`question` and `image` (base64)."
            )
        prompts = []
        for item, row in zip(self.items, self.questions, strict=True):
            try:
                image = base64.b64decode(str(row["image"]), validate=True)
            except (KeyError, binascii.Error) as error:
                raise ValueError(
                    f"{QUESTIONS}: `image` of {item} must be base64: {error}."
                ) from None
            prompts.append(Prompt(item, [image], value_of(row, ["question"], QUESTIONS)))
        return prompts

    def export(self, responses: Mapping[str, str], out: Path) -> Sequence[Path]:
        """Write JSON lines with ``image_id``, ``question`` and ``answer``.

        Args:
            responses: By item id.
            out: Folder.

        Returns:
            The file.
        """
        rows = [
            {
                "image_id": int(item.split("/")[0]),
                "question": self.question(item),
                "answer": text,
            }
            for item, text in responses.items()
        ]
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
        return [
            Metric("CHAIRs", "lower", share("hallucinating", "responses")),
            Metric("CHAIRs_refined", "lower", share("hallucinating", "mentioning")),
            Metric("CHAIRi", "lower", share("hallucinated", "mentions")),
            Metric("object_recall", "higher", share("found", "objects")),
        ]

    @cached_property
    def _asked(self) -> Mapping[str, str]:
        """Questions by image."""
        pairs = zip(self.items, self.questions, strict=True)
        return {item: str(row.get("question", "")) for item, row in pairs}

    def question(self, item: str) -> str:
        """Take what was asked about an image.

        Args:
            item: Id.

        Returns:
            The question; empty where the questions are not at hand.
        """
        return self._asked.get(item.split("/")[0], "")

    def rows_by_item(self, path: Path) -> list[tuple[str, Row, str]]:
        """Read rows of responses.

        Args:
            path: A file, or a folder with several.

        Returns:
            Items, each with its row and its place in the file.

        Raises:
            ValueError: If a row is of no image that is known.
        """
        found: dict[str, tuple[Row, str]] = {}
        for file in response_files(path):
            rows = self._with_images(description_rows(file), file)
            for number, row in enumerate(rows, start=1):
                place = f"{file}:{number}"
                written = value_of(row, ["image_id", "item", "item_id"], place)
                image = image_number(written.split("/")[0])
                if not image.isdecimal():
                    raise ValueError(f"{place}: `image_id` must be a COCO number, got {written!r}.")
                if image not in self.truth.segmented:
                    raise ValueError(f"{place}: image {image} is not in the ground truth.")
                item, further = image, 1
                while item in found:
                    further += 1
                    item = f"{image}/{further}"
                found[item] = row, place
        return [(item, row, place) for item, (row, place) in found.items()]

    def _with_images(self, rows: Sequence[Row], file: Path) -> Sequence[Row]:
        """Give rows without an image that of the question at their place."""
        if any(name in row for row in rows for name in ("image_id", "item", "item_id")):
            return rows
        if len(rows) != len(self.questions):
            raise ValueError(
                f"{file}: rows without `image_id` are joined to questions by position, so there "
                f"must be {len(self.questions)}, got {len(rows)}."
            )
        pairs = zip(rows, self.questions, strict=True)
        return [{**row, "image_id": asked["image_id"]} for row, asked in pairs]
