"""Packing: candidates that share prompt and images share one row, and rows follow one another.

A row is [prompt | response | response ...]. The prompt stands once; each response branches off
from its end, sees the prompt and itself, and has the positions it would have alone. Rows are laid
end to end in one sequence without padding. For one pair under mDPO::

    chosen image:    [prompt + image | chosen | rejected]
    rejected image:  [prompt + image | chosen]

Shapes: ``t`` tokens of the packed sequence, ``n`` response tokens, ``b`` pairs, ``s`` tokens of a
row with one response, ``k`` axes of a position: 1, or 3 for rotary positions in time, height and
width.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mdpo.data.batch import SEQUENCE_KEYS, Batch, Inputs
from mdpo.objectives import Candidate
from mdpo.scoring.layout import CandidateRows, lay_out

Positions = Callable[[CandidateRows], Int[Tensor, "k b s"]]
"""From rows with one response each to the positions of their tokens."""


@dataclass(frozen=True)
class PackedRow:
    """One row of the packed sequence.

    Attributes:
        prompt: Tokens of the prompt, image tokens included.
        responses: Tokens of each response.
    """

    prompt: int
    responses: tuple[int, ...]

    @property
    def trunk(self) -> int:
        """Tokens of prompt and first response: a plain causal sequence."""
        return self.prompt + self.responses[0]

    @property
    def length(self) -> int:
        """Tokens of the row."""
        return self.prompt + sum(self.responses)

    def branches(self) -> Int[Tensor, " s"]:
        """Number the branch of each token: 0 for the prompt, 1 for the first response, ..."""
        sizes = torch.tensor([self.prompt, *self.responses])
        return torch.repeat_interleave(torch.arange(len(sizes)), sizes)


@dataclass(frozen=True)
class Packed:
    """A packed sequence, with the places of its responses.

    Attributes:
        rows: The rows, in their order; their lengths add up to ``t``.
        inputs: ``input_ids`` and the like, ``(1, t)``, and ``position_ids``, ``(1, t)`` or
            ``(3, 1, t)``.
        predictors: For each response token the place whose output predicts it: the token before
            it, which for the first token of each response is the prompt's last.
        response_ids: The response tokens.
        owners: Number of the (candidate, pair) of each response token: candidates in their order,
            ``b`` pairs each.
    """

    rows: tuple[PackedRow, ...]
    inputs: Inputs
    predictors: Int[Tensor, " n"]
    response_ids: Int[Tensor, " n"]
    owners: Int[Tensor, " n"]


def by_image(candidates: Iterable[Candidate]) -> dict[str, list[Candidate]]:
    """Group candidates by image slot.

    Args:
        candidates: Any, in any order.

    Returns:
        By slot, in a fixed order, its candidates in a fixed order.
    """
    groups: dict[str, list[Candidate]] = {}
    for each in sorted(set(candidates)):
        groups.setdefault(each.image, []).append(each)
    return groups


def pack(batch: Batch, candidates: Sequence[Candidate], positions: Positions) -> Packed:
    """Lay the candidates of a batch out in one packed sequence.

    Args:
        batch: From collation; it must hold the slots that the candidates name.
        candidates: What to score, each once.
        positions: The model's rule for the positions of a row's tokens.

    Returns:
        The sequence, slot after slot and pair after pair, on the batch's device.
    """
    laid = {
        each: lay_out(batch["prompts"][each.image], batch["responses"][each.response])
        for each in candidates
    }
    prompts = {slot: _lengths(batch["prompts"][slot]) for slot in by_image(candidates)}
    responses = {each.response: _lengths(batch["responses"][each.response]) for each in candidates}
    num_pairs = len(batch["rows"])
    first_of, offset = {}, 0
    for each in candidates:
        first_of[each] = offset
        offset += laid[each].inputs["input_ids"].numel()

    rows, taken, predictors, owners, place = [], [], [], [], 0
    for slot, group in by_image(candidates).items():
        for pair in range(num_pairs):
            prompt = prompts[slot][pair]
            rows.append(PackedRow(prompt, tuple(responses[c.response][pair] for c in group)))
            begin = place
            for number, (each, length) in enumerate(zip(group, rows[-1].responses, strict=True)):
                row = first_of[each] + pair * laid[each].inputs["input_ids"].shape[1]
                # The prompt comes with the first response only.
                taken.append(torch.arange(row + prompt * (number > 0), row + prompt + length))
                place += len(taken[-1])
                before = torch.arange(place - length - 1, place - 1)
                before[0] = begin + prompt - 1
                predictors.append(before)
                owners.append(torch.full((length,), candidates.index(each) * num_pairs + pair))
    device = batch["rows"].device
    order = torch.cat(taken).to(device)
    inputs = {
        key: torch.cat([laid[each].inputs[key].flatten() for each in candidates])[order][None]
        for key in SEQUENCE_KEYS
        if key != "attention_mask" and all(key in each.inputs for each in laid.values())
    }
    places = torch.cat([positions(laid[each]).flatten(1) for each in candidates], dim=1)[:, order]
    inputs["position_ids"] = places if len(places) == 1 else places[:, None]
    starts = torch.tensor([row.length for row in rows]).cumsum(0) - torch.tensor(
        [row.length for row in rows]
    )
    is_response = torch.cat([row.branches() > 0 for row in rows])
    assert int(starts[-1]) + rows[-1].length == len(order)
    return Packed(
        rows=tuple(rows),
        inputs=inputs,
        predictors=torch.cat(predictors).to(device),
        response_ids=inputs["input_ids"][0, is_response.to(device)],
        owners=torch.cat(owners).to(device),
    )


def allowed(row: PackedRow) -> Bool[Tensor, "s s"]:
    """Write down which tokens of a row each of its tokens may attend to.

    Args:
        row: Of a packed sequence.

    Returns:
        True where the query (first axis) sees the key: itself, what stands before it in its own
        response, and the prompt.
    """
    branch = row.branches()
    same = (branch[:, None] == branch[None, :]) | (branch[None, :] == 0)
    return same & torch.ones(row.length, row.length, dtype=torch.bool).tril()


def _lengths(inputs: Inputs) -> list[int]:
    """Real tokens of each row."""
    return inputs["attention_mask"].sum(dim=1).tolist()
