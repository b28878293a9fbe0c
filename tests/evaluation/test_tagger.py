"""Words and tags: faster than NLTK's, and the same."""

import json
import random

import pytest
from benchmark_data import DATA, needs_data
from nltk.tag.perceptron import PerceptronTagger

from mdpo.evaluation.language.nouns import SENTENCE_END, TOKENIZER, spans, tokens
from mdpo.evaluation.language.tagger import Tagger, _kind_and_value

WORDS = (
    "A dog, the cat. It's cannot wanna gonna is! no? isn't 3,4 x-y (so) e.g. \"big\" dogs' , . ! :"
)


def made_texts(number: int) -> list[str]:
    draw = random.Random(0)
    pieces = WORDS.split(" ")
    return [
        draw.choice([" ", " ", "  ", ""]).join(draw.choices(pieces, k=draw.randint(0, 12)))
        for _ in range(number)
    ]


def test_tokens_are_nltks():
    for text in [*made_texts(3000), "We wanna go", "Gimme, more.", "a, b, c", "a,b", "A. b c"]:
        sentences = SENTENCE_END.split(text)
        assert tokens(text) == [word for part in sentences for word in TOKENIZER.tokenize(part)]


def test_spans_point_to_tokens():
    text = 'Two Dogs run. "A dog" isn\'t a cat, cannot be (so).'
    words = tokens(text)
    places = spans(text, words)
    assert len(places) == len(words)
    for word, (start, end) in zip(words, places, strict=True):
        if word not in ("``", "''"):
            assert text[start:end] == word
    assert spans("The DOG", ["the", "dog"]) == [(0, 3), (4, 7)]
    assert spans("\u0130 dog", ["\u0130", "dog"]) == [(0, 1), (2, 5)]


def toy(**weights: dict[str, float]) -> tuple[Tagger, PerceptronTagger]:
    model = PerceptronTagger(load=False)
    named = {name.replace("_", " "): value for name, value in weights.items()}
    model.decode_json_params((named, {"the": "DT"}, ["DT", "NN", "VB"]))
    return Tagger(model), model


def both(tagger: Tagger, model: PerceptronTagger, words: list[str]) -> list[str]:
    theirs = [tag for _, tag in model.tag(words)]
    assert tagger.tag(words) == theirs
    return theirs


def test_a_made_model_by_hand():
    tagger, model = toy(bias={"NN": 0.5}, i_suffix_uns={"VB": 1.0})
    assert both(tagger, model, ["the", "dog", "rugs"]) == ["DT", "NN", "NN"]
    assert both(tagger, model, ["guns"]) == ["VB"]
    assert both(tagger, model, []) == []


def test_equal_scores_go_to_the_last_tag_of_the_alphabet():
    tagger, model = toy(bias={"NN": 0.1, "VB": 0.1})
    assert both(tagger, model, ["dog"]) == ["VB"]
    # equal in thousandths; floats may differ, and theirs decide
    weights = {"bias": {"NN": 0.1, "VB": 0.3}, "i pref1 d": {"NN": 0.2}}
    model = PerceptronTagger(load=False)
    model.decode_json_params((weights, {}, ["NN", "VB"]))
    assert both(Tagger(model), model, ["dog"]) == ["NN"]


def test_random_models_agree():
    draw = random.Random(1)
    words = ["dog", "Dogs", "2024", "12a", "x-ray", "-", "-x", "the", "a", "running", "is", "."]
    tags = ["DT", "NN", "VB", "JJ"]
    for _ in range(40):
        normal = [*words, "!YEAR", "!DIGITS", "!HYPHEN", "dogs", "-START-", "-END-", "-START2-"]
        kinds = [f"i{k} word" for k in ("", "-1", "-2", "+1", "+2")]
        features = [f"{kind} {word}" for kind in kinds for word in normal]
        features += [f"i{k} suffix {w[-3:]}" for k in ("", "-1", "+1") for w in normal]
        features += [f"i-{k} tag {tag}" for k in (1, 2) for tag in [*tags, "-START-", "-START2-"]]
        features += [f"i tag+i-2 tag {a} {b}" for a in tags for b in [*tags, "-START-"]]
        features += [f"i-1 tag+i word {a} {b}" for a in tags for b in normal]
        features += ["bias", *(f"i pref1 {word[0]}" for word in words)]
        weights = {
            name: {tag: round(draw.uniform(-3, 3), 3) for tag in draw.sample(tags, 2)}
            for name in draw.sample(features, 150)
        }
        model = PerceptronTagger(load=False)
        model.decode_json_params((weights, {"a": "DT"}, tags))
        tagger = Tagger(model)
        for _ in range(10):
            both(tagger, model, draw.choices(words, k=9))


def test_features_are_taken_apart():
    assert _kind_and_value("i-1 tag+i word DT dog") == ("i-1 tag+i word", "DT dog")
    assert _kind_and_value("i tag+i-2 tag NN DT") == ("i tag+i-2 tag", "NN DT")
    assert _kind_and_value("bias") == ("bias", "")
    assert _kind_and_value("i word ") == ("i word", "")
    with pytest.raises(ValueError, match="'i shape Xx' is not one of"):
        _kind_and_value("i shape Xx")


@needs_data
def test_captions_are_tagged_as_nltk_does(monkeypatch: pytest.MonkeyPatch):
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(DATA / "nltk_data"), *nltk.data.path])
    model = PerceptronTagger()
    tagger = Tagger(model)
    for name in ("Instruction1_mplug", "Instruction2_llava"):
        with (DATA / "pope" / "captions" / f"{name}.json").open() as file:
            for _, line in zip(range(150), file, strict=False):
                both(tagger, model, tokens(json.loads(line)["text"]))
