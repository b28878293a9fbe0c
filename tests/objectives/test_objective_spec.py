"""The written form of an objective, as YAML or JSON hands it over."""

import json
import re
from typing import Any

import pytest

from mdpo.objectives import (
    CATALOGUE,
    CHOSEN,
    REJECTED,
    REJECTED_IMAGE,
    Anchor,
    Candidate,
    Likelihood,
    Objective,
    Preference,
    make_objective,
)

RESPONSE = {
    "kind": "preference",
    "name": "response",
    "preferred": "chosen/chosen",
    "other": "chosen/rejected",
}


def spec_with(**changes: Any) -> dict[str, Any]:
    return {"terms": [RESPONSE | changes]}


@pytest.mark.parametrize("name", sorted(CATALOGUE))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"beta": 0.3, "label_smoothing": 0.1, "anchor_floor": -0.5, "sft_weight": 0.2},
        {"link": "hinge"},
        {"link": "ipo"},
    ],
)
def test_catalogue_survives_being_written_down(name: str, options: dict[str, Any]):
    objective = make_objective(name, **options)
    written = json.dumps(objective.to_spec())
    assert Objective.from_spec(json.loads(written)) == objective


def test_every_field_survives_being_written_down():
    blind = Candidate("none", "chosen")
    objective = Objective(
        "mine",
        (
            Preference(name="a", preferred=CHOSEN, other=blind, weight=0.0, link="ipo", beta=0.7),
            Preference(name="b", preferred=REJECTED, other=CHOSEN, label_smoothing=0.25),
            Anchor(
                name="c",
                candidate=REJECTED_IMAGE,
                floor=0.5,
                side="below",
                weight=3.0,
                link="hinge",
                beta=0.2,
            ),
            Likelihood(name="d", candidate=REJECTED, weight=0.1),
        ),
        beta=0.05,
    )
    assert Objective.from_spec(json.loads(json.dumps(objective.to_spec()))) == objective


def test_written_form_of_mdpo_in_full():
    common = {"weight": 1.0, "link": "logsigmoid"}
    pair = {"kind": "preference", "preferred": "chosen/chosen", "label_smoothing": 0.0} | common
    assert make_objective("mdpo").to_spec() == {
        "name": "mdpo",
        "beta": 0.1,
        "terms": [
            pair | {"name": "response", "other": "chosen/rejected"},
            pair | {"name": "image", "other": "rejected/chosen"},
            {
                "kind": "anchor",
                "name": "anchor",
                "candidate": "chosen/chosen",
                "floor": 0.0,
                "side": "above",
            }
            | common,
        ],
    }


def test_least_that_must_be_written():
    objective = Objective.from_spec({"terms": [RESPONSE]})
    term = Preference(name="response", preferred=CHOSEN, other=REJECTED)
    assert objective == Objective("custom", (term,), beta=0.1)


def test_numbers_that_yaml_reads_as_text_are_numbers():
    objective = Objective.from_spec(
        {"beta": "1e-2", "name": "mine"} | spec_with(weight="2e0", beta="5e-1")
    )
    assert objective.beta == 0.01
    assert objective.name == "mine"
    assert (objective.terms[0].weight, getattr(objective.terms[0], "beta", 0)) == (2.0, 0.5)


def test_null_stands_for_the_default_of_a_term():
    assert Objective.from_spec(spec_with(beta=None)) == Objective.from_spec(spec_with())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"bta": 0.1, "terms": [RESPONSE]},
            "`bta` is not a key of the objective. Did you mean `beta`? Known: name, beta, terms.",
        ),
        (
            {"zzz": 0.1, "terms": [RESPONSE]},
            "`zzz` is not a key of the objective. Known: name, beta, terms.",
        ),
        (
            {7: 0.1, "terms": [RESPONSE]},
            "`7` is not a key of the objective. Known: name, beta, terms.",
        ),
        (
            spec_with(weights=2),
            "`weights` is not a key of a term of kind preference. Did you mean `weight`? "
            "Known: kind, name, preferred, other, weight, link, label_smoothing, beta.",
        ),
        (
            {"terms": [{"kind": "anchor", "name": "a", "candidate": "chosen/chosen", "floors": 1}]},
            "`floors` is not a key of a term of kind anchor. Did you mean `floor`? "
            "Known: kind, name, candidate, floor, side, weight, link, beta.",
        ),
        (
            {"terms": [{"kind": "likelihood", "name": "a", "candidate": "chosen/x"}]},
            "A candidate must read IMAGE/RESPONSE, got 'chosen/x'.",
        ),
        (spec_with(preferred="blurred/chosen"), "IMAGE/RESPONSE, got 'blurred/chosen'."),
        (spec_with(other="chosen/chosen"), "must compare two candidates"),
        (spec_with(link="exp"), "`link` must be one of logsigmoid, hinge, ipo, got 'exp'"),
        (spec_with(weight="much"), "`weight` must be a number, got 'much'."),
        (spec_with(label_smoothing=[0.1]), "`label_smoothing` must be a number, got [0.1]."),
        (spec_with(label_smoothing=0.5), "`label_smoothing` must be in [0, 0.5), got 0.5."),
        ({"beta": None, "terms": [RESPONSE]}, "`beta` must be a number, got None."),
        ({"beta": 0, "terms": [RESPONSE]}, "`beta` must be > 0, got 0.0."),
        ({}, "`terms` of the objective must be a list of terms, got None."),
        ({"terms": []}, "`terms` of the objective must be a list of terms, got []."),
        ({"terms": "mdpo"}, "`terms` of the objective must be a list of terms, got 'mdpo'."),
        ({"terms": {"kind": "anchor"}}, "`terms` of the objective must be a list of terms, got {"),
        (
            {"terms": ["response"]},
            "A term must be a mapping with `kind` one of preference, anchor, likelihood, "
            "got 'response'.",
        ),
        ({"terms": [{}]}, "`kind` one of preference, anchor, likelihood, got {}."),
        (spec_with(kind="prefer"), "`kind` one of preference, anchor, likelihood, got {"),
        (spec_with(kind=["anchor"]), "`kind` one of preference, anchor, likelihood, got {"),
        (
            {"terms": [{"kind": "preference", "name": "a"}]},
            "A term of kind preference must have preferred, other: {'kind': 'preference'",
        ),
        (
            {"terms": [{"kind": "anchor", "candidate": "chosen/chosen"}]},
            "A term of kind anchor must have name: {",
        ),
        ({"terms": [RESPONSE, RESPONSE]}, "`custom` must have different names"),
    ],
)
def test_what_is_not_understood_is_refused(spec: Any, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        Objective.from_spec(spec)
