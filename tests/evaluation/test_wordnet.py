"""Singular nouns: NLTK's lemmatizer, from two files instead of all."""

import json
from pathlib import Path
from typing import Any

import nltk
import pytest
from benchmark_data import DATA, needs_data
from nltk.corpus.reader import wordnet as reader

from mdpo.evaluation.language.nouns import tokens
from mdpo.evaluation.language.places import look_beside
from mdpo.evaluation.language.wordnet import ENDINGS, Nouns, load_nouns


@pytest.mark.parametrize(
    ("word", "lemma"),
    [
        *(("dogs", "dog"), ("dog", "dog"), ("geese", "goose"), ("us", "u"), ("Dogs", "Dogs")),
        *(("boxes", "box"), ("women", "woman"), ("ponies", "pony"), ("xyzs", "xyzs")),
        *(("children", "child"), ("", "")),
    ],
)
def test_by_hand(word: str, lemma: str):
    known = frozenset(["dog", "goose", "us", "u", "box", "woman", "pony", "child"])
    nouns = Nouns(known, {"geese": ("goose",), "children": ("kid", "child")}, "3.0")
    assert nouns.lemma(word) == lemma


def test_files_are_read_where_nltk_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nltk.data, "path", [])
    with pytest.raises(LookupError):
        load_nouns()
    folder = tmp_path / "nltk_data" / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    (folder / "index.noun").write_text("  1 WordNet 9.1 Copyright\ndog n 1 0 1 1 00001740\n")
    (folder / "noun.exc").write_text("hounds dog\n")
    look_beside(tmp_path / "amber")
    nouns = load_nouns()
    assert (nouns.version, nouns.lemma("hounds"), nouns.lemma("dogs")) == ("9.1", "dog", "dog")
    look_beside(tmp_path / "chair")
    assert nltk.data.path == [str(tmp_path / "nltk_data")]


@needs_data
def test_words_of_captions_and_of_wordnet(monkeypatch: pytest.MonkeyPatch):
    """Against NLTK's own procedure, fed with the same words."""
    monkeypatch.setattr(nltk.data, "path", [str(DATA / "nltk_data")])
    nouns = load_nouns()
    assert nouns.version == "3.0"
    assert tuple(reader.WordNetCorpusReader.MORPHOLOGICAL_SUBSTITUTIONS["n"]) == ENDINGS
    theirs: Any = object.__new__(reader.WordNetCorpusReader)
    theirs._exception_map = {"n": {k: list(v) for k, v in nouns.exceptions.items()}}
    theirs._lemma_pos_offset_map = {word: {"n": [1]} for word in nouns.known}
    words = {word + ending for word in nouns.known for ending in ("", "s", "es")}
    words |= {word[:-1] + "ies" for word in nouns.known} | set(nouns.exceptions)
    for name in ("Instruction1_mplug", "Instruction2_llava"):
        lines = (DATA / "pope" / "captions" / f"{name}.json").read_text().splitlines()[:300]
        words |= {word for line in lines for word in tokens(json.loads(line)["text"])}
    assert len(words) > 300_000
    for word in sorted(words)[::3]:
        found = theirs._morphy(word, "n")
        assert nouns.lemma(word) == (min(found, key=len) if found else word)
