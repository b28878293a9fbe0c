"""Attention of packed rows: each response sees its prompt and itself.

Three ways to compute the same thing:

- ``branches``: one plain causal product per row for prompt and first response, one masked product
  for its further responses. Nothing is computed for other rows or for padding.
- ``flex``: FlexAttention over the whole sequence with a block mask. Needs a GPU to train.
- ``dense``: rows side by side in a padded batch, with a mask of all pairs of tokens. For models
  that take no other arguments, and for eager attention.

Shapes: ``h`` heads, ``g`` key-value heads, ``t`` tokens of the packed sequence, ``d`` head size,
``r`` rows, ``s`` tokens of the longest row.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from mdpo.scoring.packing import PackedRow, allowed

BRANCHES = "mdpo_branches"
"""Name of ``branch_attention`` among transformers' attention implementations."""


class PackedAttention:
    """Masks of one packed sequence, made once for all layers.

    An object of its own, so that compiled code passes it through without looking inside.
    """

    def __init__(self, rows: Sequence[PackedRow]) -> None:
        """Keep the rows."""
        self.rows = tuple(rows)
        self._masks: dict[tuple[int, torch.device, torch.dtype], Tensor] = {}

    def further_responses(
        self, number: int, *, device: torch.device, dtype: torch.dtype
    ) -> Float[Tensor, "q s"]:
        """Mask of the responses after the first of a row, over the whole row.

        Args:
            number: Of the row.
            device: Of the queries.
            dtype: Of the queries.

        Returns:
            0 where a key is seen, minus infinity where not.
        """
        key = (number, device, dtype)
        if key not in self._masks:
            row = self.rows[number]
            seen = allowed(row)[row.trunk :].to(device)
            mask = torch.zeros(seen.shape, dtype=dtype, device=device)
            self._masks[key] = mask.masked_fill_(~seen, -torch.inf)
        return self._masks[key]


@torch.compiler.disable
def branch_attention(
    module: nn.Module,
    query: Float[Tensor, "1 h t d"],
    key: Float[Tensor, "1 g t d"],
    value: Float[Tensor, "1 g t d"],
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packed: PackedAttention | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "1 t h d"], None]:
    """Attend within packed rows; without ``packed`` as SDPA does.

    Args:
        module: The attention layer.
        query: Queries.
        key: Keys.
        value: Values.
        attention_mask: Ignored with ``packed``.
        dropout: Share of weights dropped.
        scaling: Of the products; None takes the inverse root of ``d``.
        packed: Masks of the sequence.
        **kwargs: Given on to SDPA without ``packed``.

    Returns:
        Outputs, and None for the weights.
    """
    if packed is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **kwargs
        )
    # Splitting has one backward for all parts; slices would fill the whole sequence with zeros
    # for each of them.
    parts = [size for row in packed.rows for size in (row.trunk, row.length - row.trunk) if size]
    queries = iter(query.split(parts, dim=2))
    lengths = [row.length for row in packed.rows]
    outputs = []
    for number, (row, k, v) in enumerate(
        zip(packed.rows, key.split(lengths, dim=2), value.split(lengths, dim=2), strict=True)
    ):
        # `narrow` costs a copy in backward, so it is left out where the row is all trunk.
        whole = row.trunk == row.length
        trunk_k, trunk_v = (
            (k, v) if whole else (k.narrow(2, 0, row.trunk), v.narrow(2, 0, row.trunk))
        )
        outputs.append(_attend(next(queries), trunk_k, trunk_v, None, dropout, scaling))
        if not whole:
            rest = next(queries)
            mask = packed.further_responses(number, device=rest.device, dtype=rest.dtype)
            outputs.append(_attend(rest, k, v, mask, dropout, scaling))
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _attend(
    query: Float[Tensor, "1 h q d"],
    key: Float[Tensor, "1 g s d"],
    value: Float[Tensor, "1 g s d"],
    mask: Float[Tensor, "q s"] | None,
    dropout: float,
    scaling: float | None,
) -> Float[Tensor, "1 h q d"]:
    """Attend causally, or by a mask."""
    grouped = key.shape[1] != query.shape[1]
    if grouped and mask is not None:
        # With a mask the fast kernels of a GPU take no grouped heads.
        times = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(times, dim=1), value.repeat_interleave(times, dim=1)
        grouped = False
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=grouped,
    )


def block_mask(rows: Sequence[PackedRow], device: torch.device) -> BlockMask:
    """Make the mask of a packed sequence for FlexAttention.

    Args:
        rows: Of the sequence.
        device: Of the queries.

    Returns:
        The mask, by blocks.
    """
    branch = torch.cat([row.branches() for row in rows]).to(device)
    lengths = torch.tensor([row.length for row in rows])
    owner = torch.repeat_interleave(torch.arange(len(rows)), lengths).to(device)

    def seen(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        same_branch = (branch[k] == 0) | (branch[k] == branch[q])
        return (owner[q] == owner[k]) & same_branch & (k <= q)

    size = len(branch)
    return create_block_mask(seen, None, None, size, size, device=str(device))


def dense_mask(rows: Sequence[PackedRow]) -> Bool[Tensor, "r 1 s s"]:
    """Make the mask of rows in a padded batch.

    Args:
        rows: One per row of the batch.

    Returns:
        True where a query sees a key. Padding sees itself, since a query that sees nothing has
        no softmax.
    """
    longest = max(row.length for row in rows)
    mask = torch.eye(longest, dtype=torch.bool).repeat(len(rows), 1, 1)
    for number, row in enumerate(rows):
        mask[number, : row.length, : row.length] = allowed(row)
    return mask[:, None]


def places_in_batch(rows: Sequence[PackedRow]) -> Int[Tensor, " t"]:
    """Say where each token of the packed sequence stands in a padded batch, flattened.

    Args:
        rows: Of the sequence.

    Returns:
        Row times longest row plus place in the row.
    """
    longest = max(row.length for row in rows)
    return torch.cat([torch.arange(row.length) + n * longest for n, row in enumerate(rows)])


AttentionInterface.register(BRANCHES, branch_attention)
AttentionMaskInterface.register(BRANCHES, sdpa_mask)
