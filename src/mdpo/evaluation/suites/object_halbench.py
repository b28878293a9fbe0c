"""Object HalBench: which of the 80 COCO objects does a response invent?

Rohrbach et al. 2018 (CHAIR) in the version of Yu et al. 2024 (RLHF-V, arXiv:2312.00849): 300 COCO
images with a request for a description each. Words are made singular nouns and looked up in a
refined list of synonyms; a mention is hallucinated if its object is neither segmented in the image
nor named, by the same routine, in one of its reference captions.

``CHAIRs`` is the share of responses with a hallucinated mention, ``CHAIRs_refined`` that among
responses that mention any object: it is what papers print. ``CHAIRi`` is the share of mentions,
``object_recall`` the share of objects in the images that responses mention.

Papers let a language model list the objects of a response first (``object-halbench-llm``); then an
object counts once per response, however often it is named. Rule mode (``object-halbench``) reads
all words. The two are not comparable, and neither are lists by different language models.
"""

import ast
import base64
import binascii
import json
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import nltk

from mdpo.evaluation.judging.wording import Wording
from mdpo.evaluation.language.nouns import lemma_backend, tokens
from mdpo.evaluation.language.tagger import load_tagger
from mdpo.evaluation.suite import ItemScore, Metric, Prompt, Request, count, share
from mdpo.evaluation.suites.amber_generative import TAGGER
from mdpo.evaluation.suites.coco import (
    JOINED,
    GroundTruth,
    Vocabulary,
    annotation_files,
    counts,
    details,
    image_number,
    read_synonyms,
)
from mdpo.evaluation.suites.rows import Row, read_rows, response_files, value_of

SYNONYMS = "synonyms_refine.txt"
QUESTIONS = "obj_halbench_300_with_image.jsonl"
ANSWERS = ("caption", "text", "answer", "response")
REPLIES = ("extracted", "judge_reply", "reply")
EXPORT = "object_halbench_answers.jsonl"
SHORT = 3
"""Answers of at most so many words are officially taken to name no object."""

EXTRACTION = Wording(
    """\
You are given a request about an image and the answer that a model gave. List the objects that the \
answer says can be seen. Take the answer to be true.

Request: <image> {}
Answer: {}

Name only objects that the answer itself mentions, each by its noun without color, number or other \
attributes. Leave out what is said to be absent. Reply with one JSON list of strings and nothing \
else; if no object is mentioned, reply with [].""",
    "mdpo's own words",
    official=False,
)
"""Figures made with it are not comparable with published ones."""


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
    def load(cls, folder: Path) -> "ObjectHalBenchSuite":
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
        lists, questions = sorted(folder.rglob(SYNONYMS)), sorted(folder.rglob(QUESTIONS))
        instances, captions = annotation_files(folder)
        if not lists or not instances:
            raise FileNotFoundError(
                f"{folder} must hold, at any depth, {SYNONYMS} of RLHF-V (one object a line: its "
                "name, then synonyms) and COCO's annotations of 2014: instances_train2014.json, "
                "instances_val2014.json, captions_train2014.json, captions_val2014.json. These may "
                "lie in a folder beside it whose name begins with coco."
            )
        objects = read_synonyms(lists[0])
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
        return {
            item: value_of(row, ANSWERS, place) for item, row, place in self._rows_by_item(path)
        }

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
        mentions = self.vocabulary.mentions(response.replace("Assistant:", " " * 10))
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
        asked = self._asked()
        rows = [
            {
                "image_id": int(item.split("/")[0]),
                "question": asked.get(item, ""),
                "answer": text,
            }
            for item, text in responses.items()
        ]
        out.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (out / EXPORT).write_text("".join(lines), encoding="utf-8")
        return [out / EXPORT]

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

    def _asked(self) -> dict[str, str]:
        """Questions by item."""
        pairs = zip(self.items, self.questions, strict=True)
        return {item: str(row.get("question", "")) for item, row in pairs}

    def _rows_by_item(self, path: Path) -> list[tuple[str, Row, str]]:
        """Read rows, each with its item and its place in the file."""
        found: dict[str, tuple[Row, str]] = {}
        for file in response_files(path):
            for number, row in enumerate(self._with_images(read_rows(file), file), start=1):
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


class ObjectHalBenchLLMSuite(ObjectHalBenchSuite):
    """Object HalBench with objects that a language model lists."""

    name: str = "object-halbench-llm"

    def __init__(
        self,
        vocabulary: Vocabulary,
        truth: GroundTruth,
        questions: Sequence[Row],
        data_files: Sequence[Path],
        backend: str,
    ) -> None:
        super().__init__(vocabulary, truth, questions, data_files, backend)
        self.wording = EXTRACTION
        try:
            nltk.data.find(TAGGER)
        except LookupError:
            self._tagged, tags = False, "the last word of a phrase is its noun"
        else:
            self._tagged, tags = True, "nouns by nltk's averaged perceptron"
        self.backend = f"{backend}; approximate: {tags}, officially by en_core_web_trf"

    def read(self, path: Path) -> Mapping[str, str]:
        """Read lists of objects: JSON rows with ``image_id`` and ``extracted``.

        ``extracted`` is a list, a reply that holds one, or null: then short answers name nothing,
        and others are left out.

        Args:
            path: A file, or a folder with several.

        Returns:
            Replies by item id.

        Raises:
            ValueError: If a row has no list.
        """
        replies = {}
        for item, row, place in self._rows_by_item(path):
            name = next((each for each in REPLIES if each in row), None)
            if name is None:
                raise ValueError(
                    f"{place}: {' or '.join(REPLIES)} is missing. {self.name} scores lists of "
                    "objects that `mdpo judge` asks for; `mdpo score object-halbench` scores "
                    "answers as they are."
                )
            if isinstance(row[name], list):
                replies[item] = json.dumps(row[name])
            elif row[name] is not None:
                replies[item] = str(row[name])
            elif len(value_of(row, ANSWERS, place).split()) <= SHORT:
                replies[item] = "[]"
        return replies

    def request(self, item: str, response: str) -> Request | str:
        """Ask for the objects of an answer.

        Args:
            item: Id.
            response: The model's answer.

        Returns:
            The request; an empty list for short answers, as officially.
        """
        if len(response.split()) <= SHORT:
            return "[]"
        text = self.wording.fill(self._asked().get(item, ""), response)
        return Request([{"role": "system", "content": text}], temperature=0.2, max_tokens=512)

    def score(self, item: str, response: str) -> ItemScore:
        """Score one list of objects.

        Args:
            item: Id: the image's.
            response: The language model's reply.

        Returns:
            Mentions and hallucinations; nothing but ``unreadable`` if there is no list.
        """
        image = item.split("/")[0]
        official = official_list(response)
        phrases = robust_list(response) if official is None else official
        if phrases is None:
            return ItemScore(item, image, {"unreadable": 1.0}, {"reply": response})
        truth = self.truth.objects(image, self.vocabulary)
        words = dict.fromkeys(word for phrase in phrases for word in self.nouns_of(phrase))
        if "toilet" in words:  # its seat is no chair
            words.pop("seat", None)
        named = [
            (word, self.vocabulary.objects[word])
            for word in words
            if word in self.vocabulary.objects
        ]
        columns = counts("", named, truth) | {"disagreements": float(official is None)}
        mentions = [{"word": word, "object": each} for word, each in named]
        wrong = [each for each in mentions if each["object"] not in truth]
        found = {"mentions": mentions, "hallucinated": wrong, "truth": sorted(truth)}
        return ItemScore(item, image, columns, found | {"extracted": phrases})

    def read_answers(self, path: Path) -> Mapping[str, str]:
        """Read a model's answers, to have their objects listed.

        Args:
            path: A file, or a folder with several.

        Returns:
            Answers by item id.
        """
        return super().read(path)

    def describes(self, item: str) -> bool:
        """Tell that replies of a judge are no descriptions.

        Args:
            item: Id.

        Returns:
            False.
        """
        return False

    @classmethod
    def metrics_for(cls, columns: Collection[str]) -> Sequence[Metric]:
        """List the metrics, which are always the same.

        Args:
            columns: Of items.

        Returns:
            Metrics.
        """
        return [*super().metrics_for(columns), count("disagreements"), count("unreadable")]

    def nouns_of(self, phrase: str) -> list[str]:
        """Take the nouns of a phrase, neighbors joined.

        Args:
            phrase: Such as ``two old women``.

        Returns:
            Singular nouns; only pairs of the vocabulary if there is one.
        """
        words = tokens(f"a {phrase.lower()}")
        singular = [self.vocabulary.singular(word) for word in words]
        pairs = map(" ".join, pairwise(singular))
        if joined := [
            self.vocabulary.joined[pair] for pair in pairs if pair in self.vocabulary.joined
        ]:
            return joined
        if not self._tagged:
            return singular[-1:]
        groups, open_group = [], False
        for word, tag in zip(singular, load_tagger().tag(words), strict=True):
            if not tag.startswith("NN"):
                open_group = False
            elif open_group:
                groups[-1] += f" {word}"
            else:
                groups.append(word)
                open_group = True
        return groups


def official_list(reply: str) -> list[str] | None:
    """Read a reply as the official script does: a JSON list, or one in the last line.

    Args:
        reply: Of a language model.

    Returns:
        Phrases; None where the script asks again.
    """
    last = reply.strip().rpartition("\n")[2]
    for written in (reply, *([last] if '["' in last else [])):
        if (phrases := _phrases(written, json.loads)) is not None:
            return phrases
    return None


def robust_list(reply: str) -> list[str] | None:
    """Read the first list in a reply, with text or fences around it and any quotation marks.

    Args:
        reply: Of a language model.

    Returns:
        Phrases; None if there is no list of texts.
    """
    start, end = reply.find("["), reply.rfind("]")
    if start < 0 or end < start:
        return None
    written = reply[start : end + 1]
    phrases = _phrases(written, json.loads)
    return _phrases(written, ast.literal_eval) if phrases is None else phrases


def _phrases(written: str, parse: Any) -> list[str] | None:
    """Parse a list of texts."""
    try:
        phrases = parse(written)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    fits = isinstance(phrases, list) and all(isinstance(each, str) for each in phrases)
    return phrases if fits else None
