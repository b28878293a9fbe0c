"""The objective: weights, means over pairs, rows without image, what must be scored."""

from math import log
from typing import Any

import pytest
import torch
from made_logps import column, logps_of_rewards
from torch import Tensor
from torch.testing import assert_close

from mdpo.objectives import (
    CHOSEN,
    REJECTED,
    REJECTED_IMAGE,
    Anchor,
    Likelihood,
    Logps,
    Objective,
    Preference,
    make_objective,
)

RESPONSE = Preference(name="response", preferred=CHOSEN, other=REJECTED)
IMAGE = Preference(name="image", preferred=CHOSEN, other=REJECTED_IMAGE)
ANCHOR = Anchor(name="anchor", candidate=CHOSEN)
MDPO = Objective("mdpo", (RESPONSE, IMAGE, ANCHOR))


def made_logps(**options: Any) -> Logps:
    """Rewards with margins (log 3, -log 3), (log 7, log 3) and distances (log 3, 0)."""
    return logps_of_rewards(
        0.1,
        {
            "chosen/chosen": [log(3), 0],
            "chosen/rejected": [0, log(3)],
            "rejected/chosen": [log(3) - log(7), -log(3)],
        },
        **options,
    )


def total(objective: Objective, logps: Logps) -> Tensor:
    return objective.total(objective.losses(logps), logps.has_image)


def test_losses_by_hand_under_the_names_of_the_terms():
    losses = MDPO.losses(made_logps())
    assert list(losses) == ["response", "image", "anchor"]
    assert_close(losses["response"], column(log(4 / 3), log(4)))
    assert_close(losses["image"], column(log(8 / 7), log(4 / 3)))
    assert_close(losses["anchor"], column(log(4 / 3), log(2)))


def test_total_is_the_mean_over_pairs_of_the_sum_of_terms():
    # ((4/3 * 8/7 * 4/3) * (4 * 4/3 * 2)) under the log, over two pairs
    expected = log(4 / 3 * 8 / 7 * 4 / 3 * 4 * 4 / 3 * 2) / 2
    assert_close(total(MDPO, made_logps()), column(expected)[0])


def test_weights_scale_the_total_and_not_the_losses():
    weighted = MDPO.with_weights([2, 0.5, 3])
    losses = weighted.losses(made_logps())
    assert_close(losses["image"], column(log(8 / 7), log(4 / 3)))
    expected = (
        2 * (log(4 / 3) + log(4)) + 0.5 * (log(8 / 7) + log(4 / 3)) + 3 * (log(4 / 3) + log(2))
    ) / 2
    assert_close(total(weighted, made_logps()), column(expected)[0])


def test_losses_use_the_beta_of_the_objective_except_where_a_term_has_its_own():
    # log 3 at beta 0.1 is log 9 at 0.2 and log 27 at 0.3
    objective = Objective("two", (RESPONSE, Anchor(name="a", candidate=CHOSEN, beta=0.3)), beta=0.2)
    losses = objective.losses(made_logps())
    assert_close(losses["response"][0], column(log(10 / 9))[0])
    assert_close(losses["a"][0], column(log(28 / 27))[0])


def test_step_0_loss_of_mdpo_is_3_log_2():
    zeros = {str(candidate): [0.0] * 5 for candidate in (CHOSEN, REJECTED, REJECTED_IMAGE)}
    assert_close(total(MDPO, logps_of_rewards(0.1, zeros)), column(3 * log(2))[0])


def test_rows_without_image_have_no_image_loss_and_still_count_in_the_mean():
    logps = made_logps(has_image=[True, False])
    losses = MDPO.losses(logps)
    assert_close(losses["image"], column(log(8 / 7), float("nan")), equal_nan=True)
    assert_close(losses["response"], column(log(4 / 3), log(4)))
    assert_close(losses["anchor"], column(log(4 / 3), log(2)))
    expected = (log(4 / 3) + log(8 / 7) + log(4 / 3) + log(4) + log(2)) / 2
    assert_close(total(MDPO, logps), column(expected)[0])


def test_rows_without_image_leak_no_gradient_through_the_image_term():
    logps = made_logps(has_image=[True, False], requires_grad=True)
    total(MDPO, logps).backward()
    text_only = Objective("text", (RESPONSE, ANCHOR))
    plain = made_logps(requires_grad=True)
    total(text_only, plain).backward()
    spoilt, chosen, without = (
        logps.policy[REJECTED_IMAGE].grad,
        logps.policy[CHOSEN].grad,
        plain.policy[CHOSEN].grad,
    )
    assert spoilt is not None
    assert chosen is not None
    assert without is not None
    # first row: beta * sigmoid(-log 7) / 2 pairs = 0.1 / 8 / 2
    assert_close(spoilt, column(0.1 / 16, 0))
    assert_close(chosen, without + column(-0.1 / 16, 0))


def test_batch_of_text_alone_has_a_finite_loss():
    logps = made_logps(has_image=[False, False])
    expected = (log(4 / 3) + log(4) + log(4 / 3) + log(2)) / 2
    assert_close(total(MDPO, logps), column(expected)[0])
    assert MDPO.losses(logps)["image"].isnan().all()


def test_a_text_only_row_weighs_the_same_alone_and_in_a_batch():
    both = total(MDPO, made_logps(has_image=[True, False]))
    parts = []
    for row in (0, 1):
        logps = made_logps(has_image=[True, False])
        one = Logps(
            policy={key: value[row : row + 1] for key, value in logps.policy.items()},
            reference={key: value[row : row + 1] for key, value in logps.reference.items()},
            lengths={},
            has_image=logps.has_image[row : row + 1],
        )
        parts.append(total(MDPO, one))
    assert_close(both, (parts[0] + parts[1]) / 2)


@pytest.mark.parametrize("candidate", [CHOSEN, REJECTED, REJECTED_IMAGE])
def test_a_nan_on_a_row_with_image_makes_the_total_nan(candidate: Any):
    logps = made_logps(has_image=[True, False])
    logps.policy[candidate][0] = float("nan")
    assert total(MDPO, logps).isnan()


def test_a_nan_in_another_term_of_a_row_without_image_makes_the_total_nan():
    logps = made_logps(has_image=[True, False])
    logps.policy[REJECTED][1] = float("nan")
    assert total(MDPO, logps).isnan()


def test_precision_of_the_log_probabilities_is_kept():
    logps = made_logps(has_image=[True, False])
    assert total(MDPO, logps).dtype == torch.float64
    single = Logps(
        policy={key: value.float() for key, value in logps.policy.items()},
        reference={key: value.float() for key, value in logps.reference.items()},
        lengths={},
        has_image=logps.has_image,
    )
    assert total(MDPO, single).dtype == torch.float32


def test_candidates_are_listed_once_in_a_fixed_order():
    assert MDPO.candidates == (CHOSEN, REJECTED, REJECTED_IMAGE)
    turned = Objective("turned", (ANCHOR, IMAGE, RESPONSE))
    assert turned.candidates == (CHOSEN, REJECTED, REJECTED_IMAGE)
    assert Objective("image", (IMAGE,)).candidates == (CHOSEN, REJECTED_IMAGE)


def test_terms_without_weight_are_not_scored_nor_computed():
    blind = MDPO.with_weights([1, 0, 0])
    assert blind.candidates == (CHOSEN, REJECTED)
    assert not blind.needs_image
    assert [term.name for term in blind.active_terms] == ["response"]
    logps = logps_of_rewards(0.1, {"chosen/chosen": [log(3)], "chosen/rejected": [0]})
    assert list(blind.losses(logps)) == ["response"]
    assert_close(total(blind, logps), column(log(4 / 3))[0])


def test_objective_needs_images_if_an_active_term_does():
    assert MDPO.needs_image
    assert not Objective("text", (RESPONSE, ANCHOR)).needs_image


def test_with_weights_sets_all_in_order_and_keeps_the_rest():
    objective = make_objective("mdpo", beta=0.3, label_smoothing=0.1, anchor_floor=0.7)
    weighted = objective.with_weights([1, 2, 0])
    assert [term.weight for term in weighted.terms] == [1.0, 2.0, 0.0]
    assert all(isinstance(term.weight, float) for term in weighted.terms)
    assert weighted.with_weights([1, 1, 1]) == objective
    assert [term.weight for term in objective.terms] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("weights", [[], [1.0], [1.0] * 4])
def test_wrong_number_of_weights_is_refused(weights: list[float]):
    with pytest.raises(ValueError, match=r"one weight per term of `mdpo`") as caught:
        MDPO.with_weights(weights)
    assert str(caught.value).startswith("`loss_weights` must have")
    assert f"(response, image, anchor), got {len(weights)}." in str(caught.value)


def test_weights_that_leave_nothing_are_refused():
    with pytest.raises(ValueError, match=r"`mdpo` must have a term with weight > 0, has none"):
        MDPO.with_weights([0, 0, 0])


def test_negative_weights_are_refused():
    with pytest.raises(ValueError, match=r"Term `image`: `weight` must be >= 0, got -1\.0"):
        MDPO.with_weights([1, -1, 1])


def test_no_terms_are_refused():
    with pytest.raises(ValueError, match=r"Objective `empty` must have a term with weight > 0"):
        Objective("empty", ())


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan"), float("inf")])
def test_beta_out_of_range_is_refused_by_the_objective(beta: float):
    with pytest.raises(ValueError, match=r"^`beta` must be > 0, got .* The paper uses 0\.1\."):
        Objective("x", (RESPONSE,), beta=beta)


def test_two_terms_of_one_name_are_refused():
    other = Likelihood(name="response", candidate=CHOSEN)
    with pytest.raises(
        ValueError,
        match=r"Terms of objective `x` must have different names, got response, anchor, response",
    ):
        Objective("x", (RESPONSE, ANCHOR, other))


def test_default_beta_is_that_of_the_paper():
    assert MDPO.beta == 0.1
