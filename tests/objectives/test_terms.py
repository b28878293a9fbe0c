"""Terms, each pinned to numbers worked by hand."""

import math
from math import log
from typing import Any

import jaxtyping
import pytest
import torch
from made_logps import column, logps_of_rewards
from torch.testing import assert_close

from mdpo.objectives import (
    CHOSEN,
    REJECTED,
    REJECTED_IMAGE,
    Anchor,
    Candidate,
    Likelihood,
    Logps,
    Preference,
)

BLIND = Candidate("none", "chosen")


def preference(**options: Any) -> Preference:
    return Preference(**({"name": "response", "preferred": CHOSEN, "other": REJECTED} | options))


def anchor(**options: Any) -> Anchor:
    return Anchor(**({"name": "anchor", "candidate": CHOSEN} | options))


def test_preference_by_hand():
    # margins log 3 - 0 = log 3 and -1 - (log 7 - 1) = -log 7: losses log(4/3) and log 8
    logps = logps_of_rewards(
        0.5, {"chosen/chosen": [log(3), -1], "chosen/rejected": [0, log(7) - 1]}
    )
    assert_close(preference()(logps, beta=0.5), column(log(4 / 3), log(8)))


def test_preference_of_images_by_hand():
    # margins 2 - (2 - log 3) and 0 - log 3
    logps = logps_of_rewards(
        0.1, {"chosen/chosen": [2, 0], "rejected/chosen": [2 - log(3), log(3)]}
    )
    term = preference(other=REJECTED_IMAGE)
    assert_close(term(logps, beta=0.1), column(log(4 / 3), log(4)))


def test_preference_gradients_push_the_two_apart_by_beta():
    # at margin 0 each logp moves by beta / 2: -sigmoid(0) * beta
    rewards = {"chosen/chosen": [0.0], "chosen/rejected": [0.0]}
    logps = logps_of_rewards(0.1, rewards, requires_grad=True)
    preference()(logps, beta=0.1).sum().backward()
    assert_close(logps.policy[CHOSEN].grad, column(-0.05))
    assert_close(logps.policy[REJECTED].grad, column(0.05))


def test_label_smoothing_by_hand():
    # 0.9 log(4/3) + 0.1 log 4 at margin log 3
    logps = logps_of_rewards(0.1, {"chosen/chosen": [log(3)], "chosen/rejected": [0]})
    loss = preference(label_smoothing=0.1)(logps, beta=0.1)
    assert_close(loss, column(0.9 * log(4 / 3) + 0.1 * log(4)))


def test_label_smoothing_agrees_with_trl():
    delta = torch.linspace(-30, 30, 61, dtype=torch.float64)
    margins = {"chosen/chosen": (0.1 * delta).tolist(), "chosen/rejected": [0.0] * 61}
    loss = preference(label_smoothing=0.2)(logps_of_rewards(0.1, margins), beta=0.1)
    ours = torch.nn.functional.logsigmoid
    assert_close(loss, -ours(0.1 * delta) * 0.8 - ours(-0.1 * delta) * 0.2)


def test_preference_with_hinge_and_ipo_by_hand():
    # margin 0.25 at beta 0.5: hinge 0.75; IPO (0.5 - 1)^2 = 0.25
    logps = logps_of_rewards(0.5, {"chosen/chosen": [1.25], "chosen/rejected": [1]})
    assert_close(preference(link="hinge")(logps, beta=0.5), column(0.75))
    assert_close(preference(link="ipo")(logps, beta=0.5), column(0.25))


def test_beta_of_a_preference_goes_before_that_of_the_objective():
    # rewards log 3 at beta 0.1 are 2 log 3 = log 9 at beta 0.2: loss log(10/9)
    logps = logps_of_rewards(0.1, {"chosen/chosen": [log(3)], "chosen/rejected": [0]})
    assert_close(preference(beta=0.2)(logps, beta=0.1), column(log(10 / 9)))
    assert_close(preference(beta=0.2)(logps, beta=99.0), column(log(10 / 9)))
    assert_close(preference()(logps, beta=0.2), column(log(10 / 9)))


def test_beta_of_a_preference_reaches_the_ipo_link():
    # log-ratio difference 1: (1 - 1 / (2 * 0.25))^2 = 1
    logps = logps_of_rewards(0.1, {"chosen/chosen": [0.1], "chosen/rejected": [0]})
    assert_close(preference(link="ipo", beta=0.25)(logps, beta=0.1), column(1))


def test_anchor_holds_a_reward_above_the_floor():
    # distances log 3 - 0 and -log 3 - 0
    logps = logps_of_rewards(0.1, {"chosen/chosen": [log(3), -log(3)]})
    assert_close(anchor()(logps, beta=0.1), column(log(4 / 3), log(4)))


def test_anchor_below_is_the_opposite_direction():
    logps = logps_of_rewards(0.1, {"chosen/rejected": [log(3), -log(3)]})
    term = anchor(candidate=REJECTED, side="below")
    assert_close(term(logps, beta=0.1), column(log(4), log(4 / 3)))


def test_floor_is_subtracted_on_both_sides():
    # reward 1 + log 3, floor 1: distance log 3
    logps = logps_of_rewards(0.1, {"chosen/chosen": [1 + log(3)]})
    assert_close(anchor(floor=1.0)(logps, beta=0.1), column(log(4 / 3)))
    assert_close(anchor(floor=1.0, side="below")(logps, beta=0.1), column(log(4)))


def test_floor_is_in_units_of_reward_not_of_nats():
    # beta 0.2: reward 2 log 3, less floor log 3
    logps = logps_of_rewards(0.1, {"chosen/chosen": [log(3)]})
    assert_close(anchor(floor=log(3), beta=0.2)(logps, beta=0.1), column(log(4 / 3)))


def test_anchor_with_hinge_by_hand():
    # 1 - (0.5 - 0.25) = 0.75; below: 1 + 0.25
    logps = logps_of_rewards(0.1, {"chosen/chosen": [0.5]})
    assert_close(anchor(floor=0.25, link="hinge")(logps, beta=0.1), column(0.75))
    assert_close(anchor(floor=0.25, link="hinge", side="below")(logps, beta=0.1), column(1.25))


def test_beta_of_an_anchor_goes_before_that_of_the_objective():
    logps = logps_of_rewards(0.1, {"chosen/chosen": [log(3)]})
    assert_close(anchor(beta=0.2)(logps, beta=0.1), column(log(10 / 9)))
    assert_close(anchor()(logps, beta=0.2), column(log(10 / 9)))


def test_anchor_gradients_by_side():
    logps = logps_of_rewards(0.1, {"chosen/chosen": [0.0]}, requires_grad=True)
    anchor()(logps, beta=0.1).sum().backward()
    assert_close(logps.policy[CHOSEN].grad, column(-0.05))
    logps = logps_of_rewards(0.1, {"chosen/chosen": [0.0]}, requires_grad=True)
    anchor(side="below")(logps, beta=0.1).sum().backward()
    assert_close(logps.policy[CHOSEN].grad, column(0.05))


def test_likelihood_is_nats_per_token_of_the_policy_alone():
    # 12 nats over 4 tokens, 9 over 6; the reference and beta play no part
    logps = Logps(
        policy={CHOSEN: column(-12, -9)},
        reference={},
        lengths={"chosen": torch.tensor([4, 6]), "rejected": torch.tensor([1, 1])},
        has_image=torch.tensor([True, True]),
    )
    term = Likelihood(name="sft", candidate=CHOSEN)
    assert_close(term(logps, beta=0.1), column(3, 1.5))
    assert_close(term(logps, beta=5.0), column(3, 1.5))


def test_likelihood_divides_by_the_length_of_its_own_response():
    logps = Logps(
        policy={CHOSEN: column(-12), REJECTED: column(-6)},
        reference={},
        lengths={"chosen": torch.tensor([4]), "rejected": torch.tensor([3])},
        has_image=torch.tensor([True]),
    )
    assert_close(Likelihood(name="sft", candidate=REJECTED)(logps, beta=0.1), column(2))


@pytest.mark.parametrize(
    "term", [preference(), preference(label_smoothing=0.1), anchor(), anchor(side="below")]
)
def test_terms_are_log_2_where_policy_and_reference_agree(term: Preference | Anchor):
    logps = logps_of_rewards(0.1, {"chosen/chosen": [0, 0], "chosen/rejected": [0, 0]})
    assert_close(term(logps, beta=0.1), column(log(2), log(2)))


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_terms_are_finite_far_out_with_their_gradients(size: float):
    rewards = {"chosen/chosen": [size], "chosen/rejected": [-size]}
    logps = logps_of_rewards(1.0, rewards, requires_grad=True)
    for term in (preference(), preference(label_smoothing=0.1), anchor(), anchor(side="below")):
        loss = term(logps, beta=1.0)
        loss.sum().backward()
        assert math.isfinite(loss.item())
    for policy in logps.policy.values():
        assert policy.grad is not None
        assert policy.grad.isfinite().all()


def test_columns_of_different_shape_are_refused_not_broadcast():
    logps = Logps(
        policy={CHOSEN: column(-1, -2), REJECTED: column(-1, -2)},
        reference={CHOSEN: column(-1, -2), REJECTED: column(-1, -2)[:, None]},
        lengths={},
        has_image=torch.tensor([True, True]),
    )
    with pytest.raises(jaxtyping.TypeCheckError):
        preference()(logps, beta=0.1)


def test_a_candidate_that_was_not_scored_is_an_error():
    logps = logps_of_rewards(0.1, {"chosen/chosen": [0]})
    with pytest.raises(KeyError):
        preference()(logps, beta=0.1)


def test_candidates_of_the_terms():
    assert preference().candidates == (CHOSEN, REJECTED)
    assert anchor(candidate=REJECTED).candidates == (REJECTED,)
    assert Likelihood(name="sft", candidate=REJECTED_IMAGE).candidates == (REJECTED_IMAGE,)


@pytest.mark.parametrize(
    ("preferred", "other", "needs_image"),
    [
        ("chosen/chosen", "chosen/rejected", False),
        ("none/chosen", "none/rejected", False),
        ("chosen/chosen", "rejected/chosen", True),
        ("chosen/chosen", "none/chosen", True),
        ("none/chosen", "chosen/rejected", True),
        ("rejected/chosen", "rejected/rejected", True),
    ],
)
def test_preferences_that_mean_nothing_without_image(preferred: str, other: str, needs_image: bool):
    """Two responses under the rejected image were once counted for text-only rows as well."""
    term = preference(preferred=Candidate.parse(preferred), other=Candidate.parse(other))
    assert term.needs_image is needs_image


@pytest.mark.parametrize(
    ("candidate", "needs_image"),
    [(CHOSEN, False), (REJECTED, False), (BLIND, False), (REJECTED_IMAGE, True)],
)
def test_anchors_and_likelihoods_that_mean_nothing_without_image(
    candidate: Candidate, needs_image: bool
):
    assert anchor(candidate=candidate).needs_image is needs_image
    assert Likelihood(name="sft", candidate=candidate).needs_image is needs_image


def test_defaults_are_those_of_the_paper():
    assert (preference().weight, preference().link, preference().label_smoothing) == (
        1.0,
        "logsigmoid",
        0.0,
    )
    assert (anchor().weight, anchor().link, anchor().floor, anchor().side) == (
        1.0,
        "logsigmoid",
        0.0,
        "above",
    )
    assert preference().beta is None
    assert anchor().beta is None
    assert Likelihood(name="sft", candidate=CHOSEN).weight == 1.0


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("make", [preference, anchor])
@pytest.mark.parametrize("beta", [0.0, -0.1, NAN, INF])
def test_beta_out_of_range_is_refused(make: Any, beta: float):
    with pytest.raises(ValueError, match=r"^Term `\w+`: `beta` must be > 0, got "):
        make(beta=beta)


@pytest.mark.parametrize("weight", [-1e-9, NAN, INF])
def test_weight_out_of_range_is_refused(weight: float):
    for make in (preference, anchor):
        with pytest.raises(ValueError, match=r"^Term `\w+`: `weight` must be >= 0, got "):
            make(weight=weight)
    with pytest.raises(ValueError, match=r"^Term `sft`: `weight` must be >= 0, got "):
        Likelihood(name="sft", candidate=CHOSEN, weight=weight)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "-", "loss."])
def test_names_that_cannot_be_logged_are_refused(name: str):
    rule = "A term's `name` must be letters, digits, - and _, got "
    for make in (preference, anchor):
        with pytest.raises(ValueError, match=rule) as caught:
            make(name=name)
        assert repr(name) in str(caught.value)
    with pytest.raises(ValueError, match=rule):
        Likelihood(name=name, candidate=CHOSEN)


def test_names_with_dash_and_underscore_are_taken():
    assert preference(name="image-2_b").name == "image-2_b"


def test_comparing_a_candidate_with_itself_is_refused():
    with pytest.raises(
        ValueError, match=r"Term `response` must compare two candidates, got chosen/chosen twice"
    ):
        preference(other=CHOSEN)


def test_unknown_links_are_refused():
    with pytest.raises(
        ValueError,
        match=r"Term `response`: `link` must be one of logsigmoid, hinge, ipo, got 'exp'",
    ):
        preference(link="exp")


@pytest.mark.parametrize("link", ["ipo", "exp"])
def test_anchors_take_no_ipo(link: str):
    with pytest.raises(
        ValueError,
        match=f"Term `anchor`: `link` of an anchor must be logsigmoid or hinge, got '{link}'",
    ):
        anchor(link=link)


@pytest.mark.parametrize("label_smoothing", [0.5, 0.7, -0.1, NAN])
def test_label_smoothing_out_of_range_is_refused(label_smoothing: float):
    with pytest.raises(
        ValueError, match=r"Term `response`: `label_smoothing` must be in \[0, 0\.5\), got "
    ):
        preference(label_smoothing=label_smoothing)


@pytest.mark.parametrize("link", ["hinge", "ipo"])
def test_label_smoothing_with_another_link_is_refused(link: str):
    with pytest.raises(
        ValueError,
        match=f"Term `response`: `label_smoothing` is defined for the logsigmoid link only, "
        f"got link '{link}'",
    ):
        preference(label_smoothing=0.1, link=link)


@pytest.mark.parametrize("floor", [NAN, INF, -INF])
def test_floor_must_be_finite(floor: float):
    with pytest.raises(ValueError, match=r"Term `anchor`: `floor` must be finite, got "):
        anchor(floor=floor)


def test_unknown_sides_are_refused():
    with pytest.raises(
        ValueError, match=r"Term `anchor`: `side` must be above or below, got 'left'"
    ):
        anchor(side="left")
