"""Singular forms of pattern.en 3.6: one word for each rule and list, with what pattern gives."""

import pytest

from mdpo.evaluation.language.singular import (
    ENDING_IN_IE,
    IRREGULAR,
    PREPOSITIONS,
    RULES,
    UNCHANGED,
    singularize,
)

BY_RULE = [
    *(("algae", "alga"), ("arthritis", "arthritis"), ("chateaux", "chateau"), ("quizzes", "quiz")),
    *(("matrices", "matrix"), ("vertices", "vertex"), ("oxenford", "oxford")),
    *(("statuses", "status"), ("a|i", "a|us"), ("crises", "crisis"), ("horseshoes", "horseshoe")),
    *(("echoes", "echo"), ("omnibuses", "omnibus"), ("|ice", "|ouse"), ("sandwiches", "sandwich")),
    *(("movies", "movie"), ("rombies", "rombie"), ("miniseries", "miniseries"), ("skies", "sky")),
    *(("wolves", "wolf"), ("sheaves", "sheaf"), ("scarves", "scarf"), ("nerves", "nerve")),
    *(("wives", "wife"), ("curves", "curf"), ("gloves", "glove"), ("hives", "hive")),
    *(("drives", "drife"), ("analyses", "analysis"), ("psychoanalyses", "psychoanalyasis")),
    *(
        ("biopses", "biopsis"),
        ("dialyses", "dialysis"),
        ("hoses", "hose"),
        ("fructose", "fructose"),
    ),
    *(("mitoses", "mitosis"), ("media", "medium"), ("renews", "renews"), ("cats", "cat")),
]
"""In the order of the rules, one word each."""


@pytest.mark.parametrize(
    ("rule", "word", "singular"), [(k, *pair) for k, pair in enumerate(BY_RULE)]
)
def test_each_rule(rule: int, word: str, singular: str):
    first = next(k for k, (ending, _) in enumerate(RULES) if ending.search(word))
    assert (first, singularize(word)) == (rule, singular)


def test_no_rule_is_left_out():
    assert len(BY_RULE) == len(RULES) == 38
    assert [len(each) for each in (PREPOSITIONS, UNCHANGED, ENDING_IN_IE, IRREGULAR)] == [
        *(40, 73, 42, 41),
    ]


@pytest.mark.parametrize(
    ("word", "singular"),
    [
        *(("bases", "basis"), ("diagnoses", "diagnosis"), ("axes", "axe")),
        *(("olives", "olife"), ("lives", "life"), ("executives", "executive")),
        *(
            ("queries", "query"),
            ("parties", "party"),
            ("octopi", "octopus"),
        ),
        *(("ice", "ice"), ("juice", "juice"), ("dice", "dice"), ("slice", "slouse")),
        *(("police", "polouse"), ("office", "office"), ("mice", "mouse"), ("tomice", "tomouse")),
        *(("roses", "rose"), ("purposes", "purpose"), ("nooses", "noose"), ("cases", "case")),
        *(("birdies", "birdies"), ("pies", "py"), ("pixies", "pixies"), ("zombies", "zombies")),
        *(("mongooses", "mongoose"), ("women", "woman"), ("your", "ymy"), ("moves", "move")),
        *(
            ("removes", "remove"),
            ("mothers-in-law", "mother-in-law"),
            ("men-at-arms", "man-at-arms"),
        ),
        *(("t-shirts", "t-shirt"), ("-", "-"), ("-in-law", "-in-law"), ("boss'", "bos's")),
        *(("glasses'", "glass's"), ("sheep", "sheep"), ("deer", "deer"), ("s", "s"), ("ss", "ss")),
        *(("is", "is"), ("his", "hi"), ("was", "wa"), ("as", "as"), ("gas", "ga")),
    ],
)
def test_words_that_meet_several_rules(word: str, singular: str):
    assert singularize(word) == singular
