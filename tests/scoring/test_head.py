"""The output head at response positions: values, gradients, chunks, types, and the stand-in."""

import pytest
import torch
from torch import Tensor, nn

from mdpo.scoring.head import ResponseHead

WIDTH, VOCABULARY = 6, 11


def head_of(*, bias: bool, trained: bool, dtype: torch.dtype = torch.float64) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(WIDTH, VOCABULARY, bias=bias, dtype=dtype).requires_grad_(trained)


def hidden_of(count: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, WIDTH, generator=generator, dtype=torch.float64).to(dtype)


def ids_of(count: int) -> Tensor:
    return (torch.arange(count) * 5 + 3) % VOCABULARY


def test_a_log_probability_worked_by_hand() -> None:
    head = nn.Linear(1, 2, bias=False).requires_grad_(False)
    head.weight.copy_(torch.tensor([[1.0], [3.0]]))
    # logits 0.5 and 1.5: log p(second) = -log(1 + exp(-1))
    logp = ResponseHead(head).logps(torch.tensor([[0.5]]), torch.tensor([1]))
    assert logp.item() == pytest.approx(-0.3132617, abs=1e-6)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_equals_full_logits_with_gradients(bias: bool, trained: bool, chunk: int) -> None:
    head = head_of(bias=bias, trained=trained)
    weights = torch.arange(1.0, 8.0, dtype=torch.float64)
    results = []
    for through_head in (True, False):
        head.zero_grad()
        hidden = hidden_of(7).requires_grad_()
        if through_head:
            logps = ResponseHead(head, chunk=chunk).logps(hidden, ids_of(7))
        else:
            logps = head(hidden).log_softmax(-1).gather(-1, ids_of(7)[:, None]).squeeze(-1)
        (logps * weights).sum().backward()
        grads = [hidden.grad, *(each.grad for each in head.parameters() if trained)]
        results.append((logps.detach(), grads))
    (got, got_grads), (expected, expected_grads) = results
    # A trained head scores in float32; the frozen one keeps float64 here.
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)
    for one, other in zip(got_grads, expected_grads, strict=True):
        assert one is not None
        assert other is not None
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_frozen_head_against_finite_differences() -> None:
    head = head_of(bias=True, trained=False)
    score = ResponseHead(head, chunk=2)
    hidden = hidden_of(5).requires_grad_()
    assert torch.autograd.gradcheck(lambda h: score.logps(h, ids_of(5)), (hidden,))


def test_without_gradient_nothing_is_kept() -> None:
    score = ResponseHead(head_of(bias=False, trained=False))
    with torch.no_grad():
        logps = score.logps(hidden_of(4), ids_of(4))
    assert not logps.requires_grad
    assert score.logps(hidden_of(4), ids_of(4)).grad_fn is None


@pytest.mark.parametrize("trained", [False, True])
def test_no_more_logits_than_a_chunk(trained: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    original = torch.Tensor.gather

    def watch(self: Tensor, dim: int, index: Tensor) -> Tensor:
        sizes.append(tuple(self.shape))
        return original(self, dim, index)

    monkeypatch.setattr(torch.Tensor, "gather", watch)
    score = ResponseHead(head_of(bias=False, trained=trained), chunk=3)
    score.logps(hidden_of(8).requires_grad_(), ids_of(8)).sum().backward()
    assert max(rows for rows, _ in sizes) == 3
    assert {columns for _, columns in sizes} == {VOCABULARY}


def test_half_precision_weights_give_float32_logits() -> None:
    head = head_of(bias=False, trained=False, dtype=torch.bfloat16)
    hidden = hidden_of(5, torch.bfloat16).requires_grad_()
    logps = ResponseHead(head).logps(hidden, ids_of(5))
    assert logps.dtype == torch.float32
    exact = hidden.double() @ head.weight.double().T
    expected = exact.log_softmax(-1).gather(-1, ids_of(5)[:, None]).squeeze(-1)
    # Rounding the logits to bfloat16 would be off by up to 4e-3 here.
    torch.testing.assert_close(logps.double(), expected, rtol=1e-6, atol=1e-6)
    logps.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.bfloat16


def test_autocast_computes_in_its_type() -> None:
    head = head_of(bias=True, trained=False, dtype=torch.float32)
    hidden = hidden_of(5, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = ResponseHead(head).logps(hidden, ids_of(5))
    rounded = hidden.bfloat16().double() @ head.weight.bfloat16().double().T
    rounded += head.bias.bfloat16().double()
    expected = rounded.log_softmax(-1).gather(-1, ids_of(5)[:, None]).squeeze(-1)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)


def test_stands_in_and_steps_back() -> None:
    head = head_of(bias=False, trained=False)
    score = ResponseHead(head)
    hidden = hidden_of(6)[None]
    positions, ids = torch.tensor([4, 0, 4]), torch.tensor([1, 2, 3])
    with score.scoring(positions, ids):
        got = head(hidden)
    torch.testing.assert_close(got, score.logps(hidden[0, positions], ids))
    assert "forward" not in vars(head)
    assert head(hidden).shape == (1, 6, VOCABULARY)


def test_steps_back_after_an_error_and_keeps_a_forward_set_by_others() -> None:
    head = head_of(bias=False, trained=False)
    original = head.forward
    head.forward = lambda input: original(input) * 2  # as hooks of other libraries do
    own = head.forward
    with (
        pytest.raises(RuntimeError, match="boom"),
        ResponseHead(head).scoring(ids_of(1), ids_of(1)),
    ):
        raise RuntimeError("boom")
    assert head.forward is own


def test_an_adapted_head_is_scored_through_its_adapter() -> None:
    class Adapted(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) + input.sum(-1, keepdim=True) * torch.arange(VOCABULARY)

    torch.manual_seed(0)
    head = Adapted(WIDTH, VOCABULARY).requires_grad_(False)
    hidden = hidden_of(4, torch.float32)
    got = ResponseHead(head, chunk=2).logps(hidden, ids_of(4))
    expected = head(hidden).log_softmax(-1).gather(-1, ids_of(4)[:, None]).squeeze(-1)
    torch.testing.assert_close(got, expected)
