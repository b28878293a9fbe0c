"""The catalogue: what each entry optimises, against plain loops over Python numbers."""

import math
from collections.abc import Callable
from math import log
from typing import Any

import pytest
import torch
from made_logps import column
from torch import Tensor
from torch.autograd import gradcheck
from torch.testing import assert_close

from mdpo.objectives import (
    CATALOGUE,
    CHOSEN,
    REJECTED,
    REJECTED_IMAGE,
    Anchor,
    Candidate,
    Likelihood,
    Logps,
    Objective,
    Preference,
    make_objective,
)

SLOTS = (CHOSEN, REJECTED, REJECTED_IMAGE)

TERMS = {
    "dpo": ["response"],
    "mdpo": ["response", "image", "anchor"],
    "mdpo-no-copo": ["response", "anchor"],
    "mdpo-no-anchor": ["response", "image"],
    "mdpo-anchor-responses": ["response", "image", "anchor", "anchor_rejected"],
    "mdpo-anchor-all": [
        "response",
        "image",
        "anchor",
        "anchor_rejected",
        "anchor_rejected_image",
    ],
}
"""Tables 2 and 4 of the paper."""


def made_columns(number: int = 7) -> list[Tensor]:
    """Policy and reference log-probabilities of the three candidates."""
    generator = torch.Generator().manual_seed(0)
    return [
        -20 + 8 * torch.randn(number, generator=generator, dtype=torch.float64) for _ in range(6)
    ]


def as_logps(columns: list[Tensor], has_image: list[bool]) -> Logps:
    number = len(has_image)
    return Logps(
        policy=dict(zip(SLOTS, columns[:3], strict=True)),
        reference=dict(zip(SLOTS, columns[3:], strict=True)),
        lengths={"chosen": torch.arange(3, 3 + number), "rejected": torch.arange(9, 9 + number)},
        has_image=torch.tensor(has_image),
    )


def softplus(value: float) -> float:
    """``log(1 + e^value)``: minus log sigmoid of the opposite."""
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))


def naive_link(link: str, margin: float, beta: float) -> float:
    if link == "hinge":
        return 1 - margin if margin < 1 else 0.0
    if link == "ipo":
        return (margin / beta) ** 2 - margin / beta**2 + 1 / (4 * beta**2)
    return softplus(-margin)


def naive_total(
    name: str,
    columns: list[list[float]],
    has_image: list[bool],
    *,
    beta: float = 0.1,
    link: str = "logsigmoid",
    label_smoothing: float = 0.0,
    anchor_floor: float = 0.0,
    sft_weight: float = 0.0,
) -> float:
    """The objective, written out pair by pair."""
    total = 0.0
    for row, shown in enumerate(has_image):
        chosen = beta * columns[0][row] - beta * columns[3][row]
        rejected = beta * columns[1][row] - beta * columns[4][row]
        spoilt = beta * columns[2][row] - beta * columns[5][row]
        right = naive_link(link, chosen - rejected, beta)
        swapped = naive_link(link, rejected - chosen, beta) if label_smoothing else 0.0
        total += right - label_smoothing * right + label_smoothing * swapped
        if "image" in TERMS[name] and shown:
            total += naive_link(link, chosen - spoilt, beta)
        if "anchor" in TERMS[name]:
            total += softplus(anchor_floor - chosen)
        if "anchor_rejected" in TERMS[name]:
            total += softplus(rejected - anchor_floor)
        if "anchor_rejected_image" in TERMS[name] and shown:
            total += softplus(spoilt - anchor_floor)
        total += sft_weight * -columns[0][row] / (3 + row)
    return total / len(has_image)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"beta": 0.4, "anchor_floor": 0.6},
    {"label_smoothing": 0.15, "sft_weight": 0.3},
    {"link": "hinge", "anchor_floor": -0.25},
    {"link": "ipo", "beta": 0.05},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", sorted(TERMS))
def test_every_entry_agrees_with_plain_loops(name: str, options: dict[str, Any]):
    columns, has_image = made_columns(), [True, True, False, True, False, True, True]
    logps, objective = as_logps(columns, has_image), make_objective(name, **options)
    loss = objective.total(objective.losses(logps), logps.has_image)
    expected = naive_total(name, [c.tolist() for c in columns], has_image, **options)
    assert_close(loss, column(expected)[0])


def as_function(objective: Objective, has_image: list[bool]) -> Callable[..., Tensor]:
    def function(*columns: Tensor) -> Tensor:
        logps = as_logps(list(columns), has_image)
        return objective.total(objective.losses(logps), logps.has_image)

    return function


@pytest.mark.parametrize("name", sorted(TERMS))
def test_gradients_agree_with_finite_differences(name: str):
    objective = make_objective(name, label_smoothing=0.1, anchor_floor=0.2, sft_weight=0.5)
    columns = [each.requires_grad_() for each in made_columns(3)]
    assert gradcheck(as_function(objective, [True, False, True]), columns)


@pytest.mark.parametrize("name", sorted(TERMS))
def test_step_0_loss_is_log_2_per_term(name: str):
    columns = made_columns()[:3]
    logps = as_logps([*columns, *columns], [True] * 7)
    objective = make_objective(name)
    loss = objective.total(objective.losses(logps), logps.has_image)
    assert_close(loss, column(len(TERMS[name]) * log(2))[0])


@pytest.mark.parametrize("name", sorted(TERMS))
def test_float32_agrees_with_float64_to_its_precision(name: str):
    columns, objective = made_columns(), make_objective(name)
    function = as_function(objective, [True] * 7)
    single = function(*(each.float() for each in columns))
    assert single.dtype == torch.float32
    # sums of up to 5 terms of size 1, each rounded to 2^-24
    assert_close(single.double(), function(*columns), rtol=1e-6, atol=1e-6)


def test_entries_are_those_of_the_paper():
    assert set(CATALOGUE) == set(TERMS)
    for name, terms in TERMS.items():
        objective = make_objective(name)
        assert objective.name == name
        assert [term.name for term in objective.terms] == terms
        assert all(term.weight == 1.0 for term in objective.terms)


def test_comparisons_of_mdpo():
    response, image, anchor = make_objective("mdpo").terms
    assert response == Preference(name="response", preferred=CHOSEN, other=REJECTED)
    assert image == Preference(name="image", preferred=CHOSEN, other=REJECTED_IMAGE)
    assert anchor == Anchor(name="anchor", candidate=CHOSEN, floor=0.0, side="above")


@pytest.mark.parametrize(
    ("name", "anchors"),
    [
        ("mdpo", [(CHOSEN, "above")]),
        ("mdpo-anchor-responses", [(CHOSEN, "above"), (REJECTED, "below")]),
        (
            "mdpo-anchor-all",
            [(CHOSEN, "above"), (REJECTED, "below"), (REJECTED_IMAGE, "below")],
        ),
    ],
)
def test_anchors_of_table_4(name: str, anchors: list[tuple[Candidate, str]]):
    terms = make_objective(name, anchor_floor=0.5).terms
    held = [term for term in terms if isinstance(term, Anchor)]
    assert [(term.candidate, term.side) for term in held] == anchors
    assert all(term.floor == 0.5 for term in held)


@pytest.mark.parametrize(
    ("name", "candidates"),
    [
        ("dpo", (CHOSEN, REJECTED)),
        ("mdpo-no-copo", (CHOSEN, REJECTED)),
        ("mdpo-no-anchor", SLOTS),
        ("mdpo", SLOTS),
        ("mdpo-anchor-responses", SLOTS),
        ("mdpo-anchor-all", SLOTS),
    ],
)
def test_what_must_be_scored(name: str, candidates: tuple[Candidate, ...]):
    objective = make_objective(name)
    assert objective.candidates == candidates
    assert objective.needs_image is (REJECTED_IMAGE in candidates)


def test_image_pairs_are_never_smoothed():
    smoothing = {
        term.name: term.label_smoothing
        for term in make_objective("mdpo", label_smoothing=0.2).terms
        if isinstance(term, Preference)
    }
    assert smoothing == {"response": 0.2, "image": 0.0}


def test_link_reaches_both_comparisons_and_no_anchor():
    links = {
        term.name: term.link
        for term in make_objective("mdpo-anchor-all", link="ipo").terms
        if isinstance(term, Preference | Anchor)
    }
    assert links == {
        "response": "ipo",
        "image": "ipo",
        "anchor": "logsigmoid",
        "anchor_rejected": "logsigmoid",
        "anchor_rejected_image": "logsigmoid",
    }


def test_sft_term_is_added_last_and_only_if_asked_for():
    assert make_objective("dpo", sft_weight=0.25).terms[-1] == Likelihood(
        name="sft", candidate=CHOSEN, weight=0.25
    )
    assert len(make_objective("dpo", sft_weight=0.25).terms) == 2
    assert len(make_objective("dpo").terms) == 1


def test_beta_goes_to_the_objective():
    assert make_objective("mdpo").beta == 0.1
    assert make_objective("mdpo", beta=0.4).beta == 0.4


def test_unknown_objectives_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"`objective` 'mpdo' is unknown") as caught:
        make_objective("mpdo")
    assert str(caught.value).endswith(f"Known: {', '.join(CATALOGUE)}.")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0.0}, r"`beta` must be > 0, got 0\.0"),
        ({"label_smoothing": 0.5}, r"Term `response`: `label_smoothing` must be in \[0, 0\.5\)"),
        ({"label_smoothing": 0.1, "link": "hinge"}, "defined for the logsigmoid link only"),
        ({"link": "exp"}, "`link` must be one of logsigmoid, hinge, ipo, got 'exp'"),
        ({"anchor_floor": float("nan")}, "Term `anchor`: `floor` must be finite, got nan"),
        ({"sft_weight": -1.0}, r"Term `sft`: `weight` must be >= 0, got -1\.0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        make_objective("mdpo", **options)
