"""Object HalBench: objects found in texts, and mentions that are in no ground truth."""

import json
from pathlib import Path
from typing import Any

import nltk
import pytest
from benchmark_data import DATA, needs_data

from mdpo.evaluation.judging.wording import read_wording
from mdpo.evaluation.language import nouns
from mdpo.evaluation.language.nouns import approximate_noun, lemma_backend, tokens
from mdpo.evaluation.results import score_responses, to_json
from mdpo.evaluation.suite import Request, score_all, total
from mdpo.evaluation.suites.coco import Vocabulary
from mdpo.evaluation.suites.object_halbench import ObjectHalBenchSuite
from mdpo.evaluation.suites.object_halbench_llm import (
    EXTRACTION,
    ObjectHalBenchLLMSuite,
    official_list,
    robust_list,
)

SYNONYMS = """\
person, man, woman, child
dog, puppy
bird
train
toilet
chair, seat
tie
wine glass
dining table, table, coffee table
"""


def write(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Image 1 shows a dog, a dining table by its caption; image 2 shows nothing."""
    (tmp_path / "synonyms_refine.txt").write_text(SYNONYMS, encoding="utf-8")
    instances = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 18, "name": "dog"}],
        "annotations": [{"image_id": 1, "category_id": 18}] * 2,
    }
    write(tmp_path, "instances_val2014.json", instances)
    captions = [{"image_id": 1, "caption": "Puppies under a Coffee Table."}]
    write(tmp_path, "captions_val2014.json", {"annotations": captions})
    questions = [{"image_id": 1, "question": "Describe."}, {"image_id": 2, "question": "What?"}]
    lines = "".join(json.dumps(each) + "\n" for each in questions)
    (tmp_path / "obj_halbench_300_with_image.jsonl").write_text(lines, encoding="utf-8")
    return tmp_path


@pytest.fixture
def suite(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectHalBenchSuite:
    def missing() -> None:
        raise LookupError

    monkeypatch.setattr(nouns, "load_nouns", missing)
    return ObjectHalBenchSuite.load(folder)


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("Dogs and puppies.", ["dog", "puppy"]),
        ("A baby dog, an adult bird", ["dog", "bird"]),
        ("the passenger train on a train track", ["train"]),
        ("a bow tie", ["tie"]),
        ("two wine glasses on the tables", ["wine glass", "table"]),
        ("the toilet seat", ["toilet"]),
        ("a seat by the toilet", ["toilet"]),
        ("a seat", ["seat"]),
        ("One man. Men.", ["man"]),  # `men` is a noun of its own to WordNet
        ("a dog-like thing, a dog's bone", ["dog"]),
        ("coffee table", ["coffee table"]),
        ("coffee, table", ["table"]),
        ("", []),
    ],
)
def test_mentions(suite: ObjectHalBenchSuite, text: str, mentions: list[str]):
    found = suite.vocabulary.mentions(text)
    assert [each.word for each in found] == mentions
    for each in found:
        assert each.word[:2] in text[each.start : each.end].lower()


def test_metrics_by_hand(suite: ObjectHalBenchSuite):
    responses = {
        "1": "Assistant: A dog and two puppies sit by a man.",
        "1/2": "A coffee table with a woman and a woman.",
        "2": "Nothing to see.",
    }
    sums = total(score_all(suite, responses))
    found = {each.name: float(each.of(sums)) for each in suite.metrics}
    assert found["CHAIRs"] == pytest.approx(200 / 3)
    assert found["CHAIRs_refined"] == 100
    assert found["CHAIRi"] == 50  # man, woman, woman of six mentions
    assert found["object_recall"] == 50  # dog of two, dining table of two, nothing of nothing


def test_responses_of_one_image_are_one_cluster(suite: ObjectHalBenchSuite):
    assert suite.score("1/2", "A dog.").cluster == suite.score("1", "A dog.").cluster == "1"


def test_words_keep_their_place_behind_the_role_and_lists_are_stripped(folder: Path):
    (folder / "synonyms_refine.txt").write_text("dog,  puppy , pup\nbird \n", encoding="utf-8")
    suite = ObjectHalBenchSuite.load(folder)
    text = "Assistant: A puppy and birds."
    marked = suite.score("1", text).details["mentions"]
    assert [(text[each["start"] : each["end"]], each["object"]) for each in marked] == [
        ("puppy", "dog"),
        ("birds", "bird"),
    ]


def test_an_approximate_backend_says_so(suite: ObjectHalBenchSuite):
    assert suite.backend.startswith("approximate")
    assert suite.items == ["1", "2"]


def test_official_rows_are_read(suite: ObjectHalBenchSuite, tmp_path: Path):
    path = tmp_path / "answers.jsonl"
    rows = [{"question": "What?", "answer": "a"}, {"question": "What?", "answer": "b"}]
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    assert suite.read(path) == {"1": "a", "2": "b"}
    rows = [{"image_id": "1", "text": "a"}, {"image_id": 1, "text": "b"}]
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    assert suite.read(path) == {"1": "a", "1/2": "b"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image_id": 3, "answer": "a"}, r":1: image 3 is not in the ground truth"),
        ({"image_id": 1}, r":1: `caption` or .* is missing"),
        ({"image_id": "x.jpg", "answer": "a"}, r":1: `image_id` must be a COCO number"),
        ({"answer": "a"}, r"there must be 2, got 1"),
    ],
)
def test_broken_rows_are_refused(
    suite: ObjectHalBenchSuite, tmp_path: Path, row: dict[str, Any], message: str
):
    write(tmp_path, "answers.json", [row])
    with pytest.raises(ValueError, match=message):
        suite.read(tmp_path / "answers.json")


def test_missing_and_foreign_data_is_refused(folder: Path):
    write(folder, "instances_train2014.json", {"categories": [{"id": 1, "name": "kiwi"}]})
    with pytest.raises(ValueError, match=r"instances_train2014.json but not captions_train2014"):
        ObjectHalBenchSuite.load(folder)
    write(folder, "captions_train2014.json", {"annotations": []})
    with pytest.raises(ValueError, match=r"category 'kiwi' is not in the synonym list"):
        ObjectHalBenchSuite.load(folder)
    (folder / "captions_val2014.json").unlink()
    (folder / "captions_train2014.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"instances_train2014\.json"):
        ObjectHalBenchSuite.load(folder)


def test_sentences_end_before_words_are_split():
    assert tokens("a dog. a man's (dog)!") == [
        "a",
        "dog",
        ".",
        "a",
        "man",
        "'s",
        "(",
        "dog",
        ")",
        "!",
    ]


@needs_data
class TestWithWordNet:
    @pytest.fixture(autouse=True)
    def data(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nltk.data, "path", [str(DATA / "nltk_data")])

    def test_made_coco_set(self):
        """Counts of a plain restatement of the official script, with NLTK's own lemmatizer."""
        suite = ObjectHalBenchSuite.load(DATA)
        assert suite.backend.endswith("WordNet 3.0")
        responses = suite.read(DATA / "coco_synthetic/responses.json")
        sums = total(score_all(suite, dict(responses)))
        counts = ("responses", "hallucinating", "mentioning", "hallucinated", "mentions")
        assert [sums[name] for name in counts] == [16, 12, 15, 18, 49]
        assert [sums[name] for name in ("found", "objects")] == [29, 36]

    def test_the_approximate_backend_finds_nearly_the_same(self):
        suite = ObjectHalBenchSuite.load(DATA)
        objects = suite.vocabulary.objects
        known = frozenset(part for word in objects for part in word.split())
        joined = suite.vocabulary.joined
        approximate = Vocabulary(objects, joined, lambda token: approximate_noun(token, known))
        path = DATA / "pope/captions/Instruction1_mplug.json"
        lines = path.read_text(encoding="utf-8").splitlines()[:400]
        captions = [json.loads(line)["text"] for line in lines]
        same = [approximate.mentions(t) == suite.vocabulary.mentions(t) for t in captions]
        assert sum(same) >= 398

    def test_wordnet_is_chosen_where_it_is_found(self):
        lemma, backend = lemma_backend([])
        assert [lemma(word) for word in ("two", "teddies", "leaves")] == ["two", "teddy", "leaf"]
        assert "approximate" not in backend

    def test_the_folder_with_the_list_alone_takes_annotations_from_beside_it(self):
        suite = ObjectHalBenchSuite.load(DATA / "object_halbench")
        assert {path.parent.name for path in suite.data_files} == {
            "object_halbench",
            "coco_synthetic",
        }

    @pytest.mark.parametrize(
        ("phrase", "words"),
        [
            ("two men", ["man"]),
            ("smartphones", ["smartphone"]),
            ("vases", []),  # vas, also to spaCy  # codespell:ignore vas
            ("group of people", ["people"]),
            ("kitchen table", []),  # neighboring nouns are one
            ("large table", ["table"]),
            ("umbrellas", ["umbrella"]),  # taken for an adjective, but the only word
            ("man on a horse", ["man", "horse"]),
            ("TV", ["tv"]),
        ],
    )
    def test_nouns_by_tags(self, phrase: str, words: list[str]):
        suite = ObjectHalBenchLLMSuite.load(DATA / "object_halbench")
        objects = suite.vocabulary.objects
        assert [word for word in suite.nouns_of(phrase) if word in objects] == words

    def test_made_extractions_by_a_naive_loop(self):
        """Every phrase of the made set has its noun last or is a pair of the list."""
        suite = ObjectHalBenchLLMSuite.load(DATA / "object_halbench")
        replies = suite.read(DATA / "coco_synthetic/responses.json")
        rows = json.loads((DATA / "coco_synthetic/responses.json").read_text())
        assert len(replies) == len(rows)
        mentions = hallucinated = hallucinating = mentioning = 0
        for row in rows:
            truth = suite.truth.objects(str(row["image_id"]), suite.vocabulary)
            words = set()
            for phrase in row["extracted"] or []:
                found = suite.vocabulary.mentions(phrase)[-1:]
                # ski poles are no skis, neighbors being one; a cup of coffee is a cup
                rest = {each.word: phrase[each.end :] for each in found}
                words |= {word for word, more in rest.items() if more[:3] in ("", " of")}
            if "toilet" in words:
                words -= {"seat"}
            wrong = [word for word in words if suite.vocabulary.objects[word] not in truth]
            mentions += len(words)
            hallucinated += len(wrong)
            mentioning += bool(words)
            hallucinating += bool(wrong)
        sums = total(score_all(suite, replies))
        names = ("mentions", "hallucinated", "mentioning", "hallucinating")
        assert [sums[name] for name in names] == [
            *(mentions, hallucinated, mentioning, hallucinating),
        ]


@pytest.fixture
def llm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectHalBenchLLMSuite:
    def missing() -> None:
        raise LookupError

    monkeypatch.setattr(nouns, "load_nouns", missing)
    monkeypatch.setattr(nltk.data, "path", [])
    return ObjectHalBenchLLMSuite.load(folder)


@pytest.mark.parametrize(
    ("reply", "official", "robust"),
    [
        ('["dog", "cat"]', ["dog", "cat"], ["dog", "cat"]),
        ("[]", [], []),
        ('Objects:\n["dog"]', ["dog"], ["dog"]),
        ('```json\n["dog"]\n```', None, ["dog"]),
        ("['dog']", None, ["dog"]),
        ('["dog"]\nThat is all.', None, ["dog"]),
        ("a dog", None, None),
        ("[1, 2]", None, None),
        ('{"objects": "dog"}', None, None),
        ("", None, None),
        ("][", None, None),
        ('["dog"] it is; others:\n["cat"]', ["cat"], ["dog"]),
        ('First ["dog"], now:\n[]', [], ["dog"]),
        ("Objects:\n[]", None, []),
        ('[1] names ["dog"] and [2].', None, ["dog"]),
        ('see [here](x): ["dog", "a [big] cat"]', None, ["dog", "a [big] cat"]),
        ('["dog", "cat",]', None, ["dog", "cat"]),
        ('"dog"', None, None),
        ("[" * 2000, None, None),
    ],
)
def test_replies(reply: str, official: list[str] | None, robust: list[str] | None):
    assert official_list(reply) == official
    assert robust_list(reply) == robust


def test_extracted_objects_count_once(llm: ObjectHalBenchLLMSuite):
    scored = llm.score("1", '["dogs", "a dog", "puppy", "wine glasses", "men", "seat", "toilet"]')
    words = [each["word"] for each in scored.details["mentions"]]
    assert words == ["dog", "puppy", "wine glass", "man", "toilet"]
    assert scored.columns["hallucinated"] == 3
    assert scored.columns["found"] == 1
    assert llm.nouns_of("tall wine glass of water") == ["wine glass"]
    assert "approximate" in llm.backend


def test_replies_without_a_list_are_unscored_and_fenced_ones_are_counted(
    llm: ObjectHalBenchLLMSuite,
):
    results = score_responses(llm, {"1": "no list", "2": '```\n["dog"]\n```'})
    metrics = to_json(results)["metrics"]
    assert metrics["CHAIRs"]["value"] == 100.0
    assert metrics["CHAIRs"]["n"] == 1
    assert metrics["CHAIRs"]["unscored"] == 1
    assert metrics["disagreements"]["value"] == 1
    assert metrics["unreadable"]["value"] == 1


def test_short_answers_are_not_asked_about(llm: ObjectHalBenchLLMSuite):
    assert llm.request("1", "A dog.") == "[]"
    asked = llm.request("1", "A dog sits there.")
    assert isinstance(asked, Request)
    (message,) = asked.messages
    assert message["role"] == "system"
    assert "A dog sits there." in message["content"]
    assert "Describe." in message["content"]
    assert (asked.temperature, asked.max_tokens) == (0.2, 512)


def test_answers_without_a_list_are_asked_with_the_question_of_their_row(
    llm: ObjectHalBenchLLMSuite, tmp_path: Path
):
    rows = [
        {"image_id": 1, "question": "How many?", "answer": "A dog sits there."},
        {"image_id": 1, "prompt": "Who?", "text": "Assistant: Two men sit there.\n"},
        {"image_id": 2, "text": "Two men sit there."},
    ]
    write(tmp_path, "rows.json", {"overall": {}, "sentences": rows})
    answers = llm.read_answers(tmp_path / "rows.json")
    assert list(answers) == ["1", "1/2", "2"]
    asked = {}
    for item, text in answers.items():
        request = llm.request(item, text)
        assert isinstance(request, Request)
        asked[item] = request.messages[0]["content"]
    assert "<image> How many?\nAnswer: A dog sits there.\n" in asked["1"]
    assert "<image> Who?\nAnswer: Two men sit there.\n" in asked["1/2"]
    assert "<image> What?\nAnswer: Two men sit there.\n" in asked["2"]
    assert llm.request("1", "Assistant: A big dog.") == "[]"
    assert llm.question("2/3") == "What?"
    (file,) = llm.export({"2/2": "A dog."}, tmp_path / "out")
    assert json.loads(file.read_text())["question"] == "What?"


def test_the_official_script_gives_the_words(llm: ObjectHalBenchLLMSuite, tmp_path: Path):
    script = tmp_path / "eval_gpt_obj_halbench.py"
    script.write_text('prompt_template = """Q: <image> {question}\nA: {answer} [\\"x\\"]"""\n')
    llm.wording = read_wording(script, EXTRACTION.text.count("{}"))
    request = llm.request("1", "A dog sits {there}.")
    assert isinstance(request, Request)
    assert request.messages[0]["content"] == 'Q: <image> Describe.\nA: A dog sits {there}. ["x"]'
    assert llm.wording.official
    assert not EXTRACTION.official


@pytest.mark.parametrize(
    ("phrase", "nouns"),
    [
        ("two men", ["man"]),
        ("herd of dogs", ["herd", "dog"]),
        ("wine glasses of birds", ["wine glass"]),
        ("passenger train track", ["train"]),
        ("Train tracks", ["train track"]),
        ("an adult bird", ["bird"]),
        ("coffee tables", ["coffee table"]),
        ("kiwis", ["kiwis"]),
        ("", ["a"]),
    ],
)
def test_nouns_by_place(llm: ObjectHalBenchLLMSuite, phrase: str, nouns: list[str]):
    assert llm.nouns_of(phrase) == nouns


def test_lists_are_read_from_rows(llm: ObjectHalBenchLLMSuite, tmp_path: Path):
    rows = [
        {"image_id": 1, "answer": "x", "extracted": ["dog"]},
        {"image_id": 2, "answer": "A dog.", "extracted": None},
        {"image_id": 2, "answer": "A dog sits there.", "extracted": None},
        {"image_id": 1, "judge_reply": "no list"},
    ]
    write(tmp_path, "rows.json", rows)
    assert llm.read(tmp_path / "rows.json") == {"1": '["dog"]', "2": "[]", "1/2": "no list"}
    write(tmp_path, "rows.json", [{"image_id": 1, "answer": "x"}])
    with pytest.raises(ValueError, match="`mdpo score object-halbench` scores answers"):
        llm.read(tmp_path / "rows.json")


def test_prompts_carry_pictures_and_answers_go_out_with_questions(
    suite: ObjectHalBenchSuite, folder: Path, tmp_path: Path
):
    with pytest.raises(ValueError, match="must be base64"):
        suite.prompts()
    rows = [{"image_id": 1, "question": "Describe.", "image": "aGk="}]
    (folder / "obj_halbench_300_with_image.jsonl").write_text(json.dumps(rows[0]))
    again = ObjectHalBenchSuite.load(folder)
    (prompt,) = again.prompts()
    assert (prompt.item, list(prompt.images), prompt.text) == ("1", [b"hi"], "Describe.")
    (file,) = again.export({"1": "A dog."}, tmp_path / "out")
    row = {"image_id": 1, "question": "Describe.", "answer": "A dog."}
    assert json.loads(file.read_text()) == row
    assert again.read(file) == {"1": "A dog."}
    (folder / "obj_halbench_300_with_image.jsonl").unlink()
    with pytest.raises(ValueError, match="Generation needs obj_halbench_300"):
        ObjectHalBenchSuite.load(folder).prompts()
