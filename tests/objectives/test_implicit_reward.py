"""The implicit reward: beta, sign, shapes."""

import jaxtyping
import pytest
import torch
from made_logps import column
from torch.testing import assert_close

from mdpo.objectives import CHOSEN, REJECTED, Logps, implicit_reward


def test_reward_is_beta_times_policy_less_reference():
    # 0.1 * (-3 - -5) = 0.2 and 0.1 * (-8 - -4) = -0.4
    reward = implicit_reward(column(-3, -8), column(-5, -4), beta=0.1)
    assert_close(reward, column(0.2, -0.4))


def test_gradient_is_beta_for_the_policy_and_minus_beta_for_the_reference():
    policy, reference = column(-3).requires_grad_(), column(-5).requires_grad_()
    implicit_reward(policy, reference, beta=0.3).sum().backward()
    assert_close(policy.grad, column(0.3))
    assert_close(reference.grad, column(-0.3))


def test_reward_of_a_candidate_takes_its_own_two_columns():
    logps = Logps(
        policy={CHOSEN: column(-1), REJECTED: column(-2)},
        reference={CHOSEN: column(-4), REJECTED: column(-8)},
        lengths={},
        has_image=torch.tensor([True]),
    )
    # 2 * (-1 + 4) = 6 and 2 * (-2 + 8) = 12
    assert_close(logps.reward(CHOSEN, beta=2.0), column(6))
    assert_close(logps.reward(REJECTED, beta=2.0), column(12))


@pytest.mark.parametrize("beta", [0.0, -0.1, float("nan")])
def test_beta_that_is_not_positive_is_refused(beta: float):
    with pytest.raises(ValueError, match=r"`beta` must be > 0, got .* The paper uses 0\.1\."):
        implicit_reward(column(-1), column(-1), beta=beta)


@pytest.mark.parametrize("shape", [(3, 1), (1,), (2,), ()])
def test_unequal_shapes_are_refused_not_broadcast(shape: tuple[int, ...]):
    with pytest.raises(jaxtyping.TypeCheckError):
        implicit_reward(torch.zeros(3), torch.zeros(shape), beta=0.1)
    with pytest.raises(jaxtyping.TypeCheckError):
        implicit_reward(torch.zeros(shape), torch.zeros(3), beta=0.1)


def test_counts_in_place_of_log_probabilities_are_refused():
    with pytest.raises(jaxtyping.TypeCheckError):
        implicit_reward(torch.zeros(3, dtype=torch.int64), torch.zeros(3), beta=0.1)
