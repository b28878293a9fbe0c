"""Links from margin to loss, against numbers worked by hand and TRL's formulas."""

from math import exp, log
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from made_logps import column
from torch.autograd import gradcheck
from torch.testing import assert_close

from mdpo.objectives.links import LINKS, LinkName, hinge_loss, ipo_loss, logsigmoid_loss


def test_logsigmoid_by_hand():
    # -log(1 / (1 + e^-m)) at m = log 3, 0, -log 3: log(4/3), log 2, log 4
    losses = logsigmoid_loss(column(log(3), 0, -log(3)), beta=0.1)
    assert_close(losses, column(log(4 / 3), log(2), log(4)))


def test_logsigmoid_does_not_scale_the_margin_by_beta_again():
    margin = column(-1.5, 0.5)
    assert_close(logsigmoid_loss(margin, beta=0.1), logsigmoid_loss(margin, beta=7.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logsigmoid_is_finite_far_out(dtype: torch.dtype):
    margin = torch.tensor([1e4, -1e4], dtype=dtype, requires_grad=True)
    losses = logsigmoid_loss(margin, beta=0.1)
    losses.sum().backward()
    assert losses.tolist() == [0.0, 1e4]
    assert margin.grad is not None
    assert margin.grad.tolist() == [0.0, -1.0]


def test_hinge_by_hand():
    # max(0, 1 - m)
    losses = hinge_loss(column(-2, 0, 0.75, 1, 3), beta=0.1)
    assert_close(losses, column(3, 1, 0.25, 0, 0))


def test_ipo_by_hand():
    # beta 0.5: (m / 0.5 - 1)^2 at m = 0.5, 0, -1, 2: 0, 1, 9, 9
    losses = ipo_loss(column(0.5, 0, -1, 2), beta=0.5)
    assert_close(losses, column(0, 1, 9, 9))
    # beta 0.1: (m / 0.1 - 5)^2 at m = 0.5, 0.2: 0, 9
    assert_close(ipo_loss(column(0.5, 0.2), beta=0.1), column(0, 9))


@pytest.mark.parametrize("beta", [0.05, 0.1, 1.0])
def test_links_agree_with_trl(beta: float):
    # TRL's delta_score is the log-ratio difference; the margin is beta times that.
    delta = torch.linspace(-40, 40, 81, dtype=torch.float64)
    margin = beta * delta
    assert_close(logsigmoid_loss(margin, beta=beta), -F.logsigmoid(beta * delta))
    assert_close(hinge_loss(margin, beta=beta), torch.relu(1 - beta * delta))
    assert_close(ipo_loss(margin, beta=beta), (delta - 1 / (2 * beta)) ** 2)


@pytest.mark.parametrize("link", sorted(LINKS))
def test_gradients_agree_with_finite_differences(link: str):
    margin = column(-3, -0.4, 0.3, 2.2).requires_grad_()
    assert gradcheck(lambda m: LINKS[link](m, beta=0.3), (margin,))


def test_gradient_of_logsigmoid_is_minus_sigmoid_of_the_opposite_margin():
    margin = column(-2, 0, 0.7).requires_grad_()
    logsigmoid_loss(margin, beta=0.1).sum().backward()
    assert_close(margin.grad, column(*(-1 / (1 + exp(m)) for m in (-2, 0, 0.7))))


def test_links_are_known_by_name():
    assert {"logsigmoid": logsigmoid_loss, "hinge": hinge_loss, "ipo": ipo_loss} == LINKS
    assert get_args(LinkName) == tuple(LINKS)
