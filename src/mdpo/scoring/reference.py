"""Where reference log-probabilities come from.

Adapters switched off, trained weights as they were at the start, or a frozen copy.
"""

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


class AtStart:
    """The policy itself with its trained weights as they were at the start.

    For a policy that trains on with adapters it came with: switching these off would give another
    model than the one that training starts from. Copies of the trained weights alone are kept; they
    are put in the place of the policy's for the time of a pass. The policy's own are neither read
    nor written meanwhile, so they may have a graph that waits for its backward pass.
    """

    def __init__(self, policy: nn.Module, *, unwrap: Callable[[nn.Module], nn.Module]) -> None:
        """Copy the trained weights.

        Args:
            policy: Before its first step, as wrapped for training.
            unwrap: Takes such wrapping away.
        """
        self.policy, self.core = policy, unwrap(policy)
        # Weights that several modules share are copied once, and shared again.
        copies: dict[nn.Parameter, nn.Parameter] = {}
        self._places: list[tuple[nn.Module, str, nn.Parameter]] = []
        for module in self.core.modules():
            for name, each in module.named_parameters(recurse=False, remove_duplicate=False):
                if each.requires_grad:
                    copies.setdefault(each, nn.Parameter(each.detach().clone(), False))
                    self._places.append((module, name, copies[each]))

    def __call__(
        self, scorer: Scorer, batch: Batch, candidates: Iterable[Candidate]
    ) -> dict[Candidate, Float[Tensor, " b"]]:
        """Score candidates with the weights of the start; the trained ones return whatever happens.

        Args:
            scorer: The one that scores the policy.
            batch: From collation.
            candidates: What to score.

        Returns:
            Summed response log-probabilities in nats, without gradient.
        """
        with torch.no_grad(), evaluating(self.core), self._at_start():
            return scorer(self.policy, batch, candidates)

    @contextmanager
    def _at_start(self) -> Iterator[None]:
        """Put the copies in, and the trained weights back."""
        trained = [getattr(module, name) for module, name, _ in self._places]
        try:
            for (module, name, copied), now in zip(self._places, trained, strict=True):
                # The policy may have been moved since; other parameters, not other values in the
                # same ones, because autocast keeps casts by parameter.
                copied.data = copied.data.to(now.device)
                setattr(module, name, copied)
            yield
        finally:
            for (module, name, _), now in zip(self._places, trained, strict=True):
                setattr(module, name, now)


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
