"""How far numbers that should be equal may differ, and why.

Every difference is relative to the larger of the value and 1 nat, so that a log-probability near 0
is not held to a precision that its summands do not have.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tolerances:
    """Largest differences that are rounding.

    Attributes:
        logps: Of log-probabilities that are computed in another order or shape (alone or in a
            batch, with or without cache, shared or plain).
        token: Of the log-probability of a single token.
        gradients: Of a parameter's gradient, relative to its norm and a tenth of the norm of all
            gradients: that of a key's bias, for one, is 0 but for rounding.
        effect: Smallest change that counts as one. The two sides have equal shapes and go through
            equal kernels, so without a cause they do not differ at all.
    """

    logps: float
    token: float
    gradients: float
    effect: float = 1e-6


FLOAT = Tolerances(logps=2e-5, token=2e-5, gradients=1e-4)
"""float32 and float64. A sum of tens of nats over some layers rounds to about 1e-7 to 1e-6;
mistakes of position, mask or image move it by 1e-3 and more."""

HALF = Tolerances(logps=3e-2, token=1.5e-1, gradients=2.5e-1)
"""bfloat16 and float16. Logits keep 8 or 11 bits, so one token is uncertain by a tenth of a nat
at worst, and a sum by a smaller share; the gradient of a layer keeps its direction and little
more."""


def tolerances_for(dtype: torch.dtype) -> Tolerances:
    """Look up the tolerances of a type.

    Args:
        dtype: Of the model's weights.

    Returns:
        Its tolerances.
    """
    return FLOAT if dtype in (torch.float32, torch.float64) else HALF


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """Compare two tensors of one shape.

    Args:
        found: Values.
        expected: What they should be.

    Returns:
        Largest difference relative to the larger of the expected value and 1; infinite where a
        value is no number.
    """
    if found.numel() == 0:
        return 0.0
    expected = expected.to(found.device)
    relative = (found - expected).abs() / expected.abs().clamp(min=1)
    return float(relative.nan_to_num(nan=torch.inf).max())
