"""Links: from a reward margin to a loss. Each is 0 or tends to 0 where the margin is as wanted.

Shapes: ``b`` preference pairs. Margins are in units of reward.
"""

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

LinkName = Literal["logsigmoid", "hinge", "ipo"]


def logsigmoid_loss(margin: Float[Tensor, " b"], *, beta: float) -> Float[Tensor, " b"]:
    """Negative log-likelihood of the preference under Bradley-Terry: ``-log sigmoid(margin)``.

    Source: DPO, arXiv:2305.18290; every term of mDPO, arXiv:2406.11839, Sec. 3.

    Args:
        margin: Preferred reward less the other.
        beta: Unused: the margin carries it.

    Returns:
        Loss per pair, > 0; log 2 at margin 0.
    """
    return -F.logsigmoid(margin)


def hinge_loss(margin: Float[Tensor, " b"], *, beta: float) -> Float[Tensor, " b"]:
    """Hinge at margin 1: ``max(0, 1 - margin)``.

    Source: SLiC-HF, arXiv:2305.10425, with the margin measured in implicit rewards as RSO,
    arXiv:2309.06657, does.

    Args:
        margin: Preferred reward less the other.
        beta: Unused: the margin carries it.

    Returns:
        Loss per pair, >= 0.
    """
    return F.relu(1 - margin)


def ipo_loss(margin: Float[Tensor, " b"], *, beta: float) -> Float[Tensor, " b"]:
    """Square distance of the log-ratio difference from ``1 / (2 beta)``.

    Source: IPO, arXiv:2310.12036, Eq. 17, with ``beta`` for its tau.
    Differs: TRL divides log-probabilities by response length first; here they are sums, as in the
    equation.

    Args:
        margin: Preferred reward less the other: beta times the log-ratio difference.
        beta: Strength of the pull to the reference; > 0.

    Returns:
        Loss per pair, >= 0.
    """
    return (margin / beta - 1 / (2 * beta)) ** 2


LINKS: dict[str, Callable[..., Float[Tensor, " b"]]] = {
    "logsigmoid": logsigmoid_loss,
    "hinge": hinge_loss,
    "ipo": ipo_loss,
}
