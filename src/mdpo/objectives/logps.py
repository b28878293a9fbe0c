"""What a term may look at: log-probabilities of a batch, and the rewards they imply.

Shapes: ``b`` preference pairs. Log-probabilities are natural logs (nats) summed over response
tokens; rewards are those times ``beta``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from beartype import beartype
from jaxtyping import Bool, Float, Int, jaxtyped
from torch import Tensor

from mdpo.objectives.candidates import Candidate


@jaxtyped(typechecker=beartype)  # checked in use too: a (b,) less a (b, 1) would broadcast
def implicit_reward(
    policy_logps: Float[Tensor, " b"], reference_logps: Float[Tensor, " b"], *, beta: float
) -> Float[Tensor, " b"]:
    """Compute the reward that DPO reads off a policy and its reference.

    Source: mDPO paper, arXiv:2406.11839, Sec. 2.1 (partition term dropped, as there).

    Args:
        policy_logps: Response log-probabilities under the trained model, in nats.
        reference_logps: The same under the frozen reference, in nats.
        beta: Strength of the pull to the reference; > 0. The paper uses 0.1.

    Returns:
        ``beta * (policy_logps - reference_logps)``.

    Raises:
        ValueError: If ``beta`` is not positive.
    """
    if not beta > 0:
        raise ValueError(f"`beta` must be > 0, got {beta}. The paper uses 0.1.")
    return beta * (policy_logps - reference_logps)


@dataclass(frozen=True)
class Logps:
    """Log-probabilities of the candidates of one batch, with facts about its rows.

    Attributes:
        policy: Under the trained model, in nats, by candidate.
        reference: Under the reference, in nats, by candidate; no gradient.
        lengths: Number of response tokens, by response slot.
        has_image: Whether the row has an image at all; a comparison of images means nothing
            where it has none.
    """

    policy: Mapping[Candidate, Float[Tensor, " b"]]
    reference: Mapping[Candidate, Float[Tensor, " b"]]
    lengths: Mapping[str, Int[Tensor, " b"]]
    has_image: Bool[Tensor, " b"]

    def reward(self, candidate: Candidate, *, beta: float) -> Float[Tensor, " b"]:
        """Compute the implicit reward of a candidate.

        Args:
            candidate: One that was scored.
            beta: Strength of the pull to the reference; > 0.

        Returns:
            Rewards, one per pair.
        """
        return implicit_reward(self.policy[candidate], self.reference[candidate], beta=beta)


def joined(parts: Sequence[Logps]) -> Logps:
    """Put the pairs of several batches in a row.

    Args:
        parts: With the same candidates.

    Returns:
        Log-probabilities of all pairs, in order.
    """
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    return Logps(
        policy={key: torch.cat([each.policy[key] for each in parts]) for key in first.policy},
        reference={
            key: torch.cat([each.reference[key] for each in parts]) for key in first.reference
        },
        lengths={key: torch.cat([each.lengths[key] for each in parts]) for key in first.lengths},
        has_image=torch.cat([each.has_image for each in parts]),
    )
