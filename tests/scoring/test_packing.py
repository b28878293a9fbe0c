"""Packed rows: the layout worked by hand, and the masks of all three kinds of attention."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mdpo.data.batch import Batch
from mdpo.objectives import CHOSEN, REJECTED, REJECTED_IMAGE
from mdpo.scoring.attention import (
    PackedAttention,
    block_mask,
    branch_attention,
    dense_mask,
    places_in_batch,
)
from mdpo.scoring.layout import CandidateRows
from mdpo.scoring.packing import PackedRow, allowed, pack


def plain_positions(rows: CandidateRows) -> Tensor:
    ids = rows.inputs["input_ids"]
    return torch.arange(ids.shape[1]).expand(1, *ids.shape)


def padded(rows: list[list[int]], *, left: bool = False) -> dict[str, Tensor]:
    longest = max(map(len, rows))
    ids, mask = [], []
    for row in rows:
        gap, ones = [0] * (longest - len(row)), [1] * len(row)
        ids.append(gap + row if left else row + gap)
        mask.append(gap + ones if left else ones + gap)
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


@pytest.fixture(params=[False, True], ids=["right", "left"])
def batch(request: pytest.FixtureRequest) -> Batch:
    return Batch(
        prompts={
            "chosen": padded([[1, 2, 3], [4, 5]], left=request.param),
            "rejected": padded([[6, 7, 8], [9, 10]], left=request.param),
        },
        responses={"chosen": padded([[20], [21, 22]]), "rejected": padded([[30, 31], [32]])},
        image_keys={},
        has_image=torch.tensor([True, True]),
        rows=torch.tensor([0, 1]),
        digests=torch.tensor([0, 0]),
    )


def test_a_layout_worked_by_hand(batch: Batch) -> None:
    packed = pack(batch, (CHOSEN, REJECTED, REJECTED_IMAGE), plain_positions)
    assert packed.rows == (
        PackedRow(3, (1, 2)),
        PackedRow(2, (2, 1)),
        PackedRow(3, (1,)),
        PackedRow(2, (2,)),
    )
    # fmt: off
    ids =       [1, 2, 3, 20, 30, 31,  4, 5, 21, 22, 32,  6, 7, 8, 20,  9, 10, 21, 22]
    positions = [0, 1, 2,  3,  3,  4,  0, 1,  2,  3,  2,  0, 1, 2,  3,  0,  1,  2,  3]
    # fmt: on
    assert packed.inputs["input_ids"].tolist() == [ids]
    assert packed.inputs["position_ids"].tolist() == [positions]
    assert "attention_mask" not in packed.inputs
    assert packed.response_ids.tolist() == [20, 30, 31, 21, 22, 32, 20, 21, 22]
    # The first token of each response is predicted by the last of its prompt.
    assert packed.predictors.tolist() == [2, 2, 4, 7, 8, 7, 13, 16, 17]
    # Two pairs per candidate: chosen 0 and 1, rejected 2 and 3, rejected image 4 and 5.
    assert packed.owners.tolist() == [0, 2, 2, 1, 1, 3, 4, 5, 5]


def test_three_axes_of_positions_stay_three(batch: Batch) -> None:
    def positions(rows: CandidateRows) -> Tensor:
        return torch.cat([plain_positions(rows) * k for k in (1, 2, 3)])

    packed = pack(batch, (CHOSEN, REJECTED), positions)
    assert packed.inputs["position_ids"].shape == (3, 1, 11)
    assert packed.inputs["position_ids"][2, 0, :6].tolist() == [0, 3, 6, 9, 9, 12]


def test_a_response_sees_its_prompt_and_itself() -> None:
    assert allowed(PackedRow(2, (1, 2))).int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 0, 1, 1],
    ]


ROWS = (PackedRow(3, (2, 4)), PackedRow(2, (3,)), PackedRow(4, (1, 2, 3)))


def whole_mask() -> Tensor:
    return torch.block_diag(*(allowed(row).float() for row in ROWS)).bool()


def test_dense_masks_are_those_of_the_rows() -> None:
    mask = dense_mask(ROWS)
    assert mask.shape == (3, 1, 10, 10)
    for number, row in enumerate(ROWS):
        assert torch.equal(mask[number, 0, : row.length, : row.length], allowed(row))
    assert mask.any(dim=-1).all(), "a query that sees nothing has no softmax"
    assert not mask[1, 0, :5, 5:].any(), "padding is not seen"
    assert places_in_batch(ROWS).tolist() == [*range(9), *range(10, 15), *range(20, 30)]


def test_the_block_mask_is_the_same() -> None:
    mask = block_mask(ROWS, torch.device("cpu"))
    size = sum(row.length for row in ROWS)
    index = torch.arange(size)
    zero = torch.tensor(0)
    got = mask.mask_mod(zero, zero, index[:, None], index[None, :])
    assert torch.equal(got, whole_mask())


@pytest.mark.parametrize("groups", [4, 2, 1])
def test_attention_by_branches_equals_one_masked_product(groups: int) -> None:
    generator = torch.Generator().manual_seed(0)
    size = sum(row.length for row in ROWS)

    def made(heads: int) -> Tensor:
        return torch.randn(1, heads, size, 8, generator=generator).requires_grad_()

    query, key, value = made(4), made(groups), made(groups)
    weights = torch.randn(1, size, 4, 8, generator=generator)
    attend: Any = branch_attention
    got, _ = attend(
        torch.nn.Identity(), query, key, value, None, scaling=0.3, packed=PackedAttention(ROWS)
    )
    grads = torch.autograd.grad((got * weights).sum(), (query, key, value))
    repeated = [each.repeat_interleave(4 // groups, dim=1) for each in (key, value)]
    scores = (query @ repeated[0].transpose(-1, -2)) * 0.3
    scores = scores.masked_fill(~whole_mask(), -torch.inf)
    expected = (scores.softmax(-1) @ repeated[1]).transpose(1, 2)
    expected_grads = torch.autograd.grad((expected * weights).sum(), (query, key, value))
    torch.testing.assert_close(got, expected)
    for one, other in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(one, other)


def test_without_packed_rows_it_is_causal_attention() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 4, 5, 8, generator=generator) for _ in range(3))
    module = torch.nn.Identity()
    attend: Any = branch_attention
    got, _ = attend(module, query, key, value, None)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(got, expected.transpose(1, 2))
