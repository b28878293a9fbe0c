"""Layout: one row of tokens per candidate, and the sum of its response log-probabilities.

Shapes: ``b`` rows, ``p`` prompt tokens, ``r`` response tokens, ``s`` tokens of a whole row, ``n``
response tokens of all rows together, ``v`` vocabulary.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mdpo.data.batch import REPEATED_KEYS, SEQUENCE_KEYS, Inputs


@dataclass(frozen=True)
class CandidateRows:
    """Model inputs for one candidate, with the places of its response.

    Attributes:
        inputs: Arguments of ``forward``; rows are [prompt | response | padding].
        is_response: Which tokens belong to the response.
    """

    inputs: Inputs
    is_response: Bool[Tensor, "b s"]

    @property
    def predicts_response(self) -> Bool[Tensor, "b s"]:
        """Positions whose logits score a response token: each one before such a token."""
        before = torch.zeros_like(self.is_response)
        before[:, :-1] = self.is_response[:, 1:]
        return before

    @property
    def response_ids(self) -> Int[Tensor, " n"]:
        """Response tokens of all rows, row after row."""
        return self.inputs["input_ids"][self.is_response]

    @property
    def row_of_token(self) -> Int[Tensor, " n"]:
        """Row of each of ``response_ids``."""
        return self.is_response.nonzero()[:, 0]


def lay_out(prompt: Inputs, response: Inputs) -> CandidateRows:
    """Append responses to prompts and move all padding to the right.

    Padding on the right leaves every token its natural position, whatever the model derives
    positions from.

    Args:
        prompt: Of a batch, for one image slot; padded on either side.
        response: Of a batch, for one response slot.

    Returns:
        Rows as long as the longest of them needs.
    """
    joined = {}
    mask = torch.cat([prompt["attention_mask"], response["attention_mask"]], dim=1).bool()
    # A stable sort by "is padding" keeps the order of the real tokens.
    order = torch.argsort(~mask, dim=1, stable=True)[:, : int(mask.sum(dim=1).max())]
    for key in SEQUENCE_KEYS:
        if key not in prompt:
            continue
        if key in REPEATED_KEYS:
            tail = _repeated(prompt[key], prompt["attention_mask"], response["input_ids"].shape[1])
        else:
            # Token types are 0 for plain text, where the processor has no other for responses.
            tail = response.get(key, torch.zeros_like(response["input_ids"]))
        values = torch.cat([prompt[key], tail], dim=1)
        places = order.reshape(*order.shape, *[1] * (values.ndim - 2))
        joined[key] = values.gather(1, places.expand(*order.shape, *values.shape[2:]))
    is_response = torch.cat(
        [torch.zeros_like(prompt["attention_mask"]), response["attention_mask"]], dim=1
    )
    images = {key: value for key, value in prompt.items() if key not in SEQUENCE_KEYS}
    return CandidateRows(joined | images, is_response.gather(1, order).bool())


def _repeated(values: Tensor, mask: Int[Tensor, "b p"], length: int) -> Tensor:
    """Take what each row has at its last real token, ``length`` times."""
    places = torch.arange(mask.shape[1], device=mask.device)
    last = (places * mask.bool()).amax(dim=1)
    row = values[torch.arange(len(values), device=values.device), last]
    return row[:, None].expand(-1, length, *values.shape[2:])


def token_logps(logits: Float[Tensor, "n v"], ids: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Read off the log-probability of each token, in float32.

    Args:
        logits: Scores of the positions that predict the tokens, any float dtype.
        ids: The tokens.

    Returns:
        Log-probabilities in nats.
    """
    return logits.float().log_softmax(dim=-1).gather(-1, ids[:, None]).squeeze(-1)


def sum_by_row(
    values: Float[Tensor, " n"], row_of_token: Int[Tensor, " n"], num_rows: int
) -> Float[Tensor, " b"]:
    """Add up token values row by row.

    Args:
        values: One per response token.
        row_of_token: Row of each.
        num_rows: Number of rows.

    Returns:
        Sums, never averaged over length.
    """
    return values.new_zeros(num_rows).index_add(0, row_of_token, values)
