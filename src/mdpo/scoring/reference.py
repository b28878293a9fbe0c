"""Where reference log-probabilities come from: adapters switched off, or a frozen copy."""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn

from mdpo.data.batch import Batch
from mdpo.objectives import Candidate
from mdpo.scoring.plain import Scorer


class Reference(Protocol):
    """From batch to reference log-probabilities of candidates."""

    def __call__(
        self, scorer: Scorer, batch: Batch, candidates: Iterable[Candidate]
    ) -> dict[Candidate, Float[Tensor, " b"]]:
        """Score candidates under the reference.

        Args:
            scorer: The one that scores the policy.
            batch: From collation.
            candidates: What to score.

        Returns:
            Summed response log-probabilities in nats, without gradient.
        """
        ...


class AdapterOff:
    """The policy itself with its adapters switched off."""

    def __init__(self, policy: nn.Module, *, unwrap: Callable[[nn.Module], nn.Module]) -> None:
        """Keep the policy.

        Args:
            policy: As wrapped for training.
            unwrap: Takes such wrapping away.

        Raises:
            TypeError: If the policy has no adapters: there would be nothing to switch off.
        """
        adapted = unwrap(policy)
        if not isinstance(adapted, PeftModel):
            raise TypeError(
                f"The reference by switching adapters off needs a PeftModel, got "
                f"{type(adapted).__name__}. Give `peft_config` or a `ref_model`."
            )
        self.policy, self.adapted = policy, adapted

    def __call__(
        self, scorer: Scorer, batch: Batch, candidates: Iterable[Candidate]
    ) -> dict[Candidate, Float[Tensor, " b"]]:
        """Score candidates with adapters off; they are on again whatever happens.

        Args:
            scorer: The one that scores the policy.
            batch: From collation.
            candidates: What to score.

        Returns:
            Summed response log-probabilities in nats, without gradient.
        """
        with torch.no_grad(), evaluating(self.adapted), self.adapted.disable_adapter():
            return scorer(self.policy, batch, candidates)


class FrozenCopy:
    """A second model that is never trained."""

    def __init__(self, model: nn.Module) -> None:
        """Freeze ``model``, which must not be the policy itself."""
        self.model = model.eval().requires_grad_(False)

    def __call__(
        self, scorer: Scorer, batch: Batch, candidates: Iterable[Candidate]
    ) -> dict[Candidate, Float[Tensor, " b"]]:
        """Score candidates under the copy.

        Args:
            scorer: The one that scores the policy.
            batch: From collation.
            candidates: What to score.

        Returns:
            Summed response log-probabilities in nats, without gradient.
        """
        with torch.no_grad():
            return scorer(self.model, batch, candidates)


def frozen_copy_of(policy: nn.Module) -> nn.Module:
    """Copy a policy before its first step.

    Args:
        policy: Without wrappers.

    Returns:
        A model of the same weights that shares none of them.
    """
    return copy.deepcopy(policy).eval().requires_grad_(False)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode, and each of its modules back as it was.

    Args:
        model: Any model.

    Yields:
        Nothing.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
