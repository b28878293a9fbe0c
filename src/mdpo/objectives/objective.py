"""Objectives: named sums of terms, and their written form in YAML or JSON.

Shapes: ``b`` preference pairs.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mdpo.objectives.candidates import Candidate
from mdpo.objectives.logps import Logps
from mdpo.objectives.terms import Anchor, Likelihood, Preference, Term

TERM_KINDS: dict[str, type[Preference] | type[Anchor] | type[Likelihood]] = {
    kind.kind: kind for kind in (Preference, Anchor, Likelihood)
}


@dataclass(frozen=True)
class Objective:
    """What a run minimises: the weighted sum of its terms, averaged over pairs.

    Attributes:
        name: As it is called in logs and model cards.
        terms: Summands; their names differ.
        beta: Strength of the pull to the reference, for terms that set none of their own; > 0.
    """

    name: str
    terms: tuple[Term, ...]
    beta: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what cannot be minimised.

        Raises:
            ValueError: If there is no term with weight, two terms share a name, or beta is not
                positive.
        """
        if not (self.beta > 0 and math.isfinite(self.beta)):
            raise ValueError(f"`beta` must be > 0, got {self.beta}. The paper uses 0.1.")
        if not any(term.weight > 0 for term in self.terms):
            raise ValueError(f"Objective `{self.name}` must have a term with weight > 0, has none.")
        names = [term.name for term in self.terms]
        if len(set(names)) < len(names):
            raise ValueError(
                f"Terms of objective `{self.name}` must have different names, "
                f"got {', '.join(names)}."
            )

    @property
    def active_terms(self) -> tuple[Term, ...]:
        """Terms with weight; the others are not computed."""
        return tuple(term for term in self.terms if term.weight > 0)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """What must be scored, each once, in a fixed order."""
        return tuple(sorted({each for term in self.active_terms for each in term.candidates}))

    @property
    def needs_image(self) -> bool:
        """Whether a term compares images, so that rows without any do not serve it."""
        return any(term.needs_image for term in self.active_terms)

    def losses(self, logps: Logps) -> dict[str, Float[Tensor, " b"]]:
        """Compute the loss of each pair for each active term, unweighted.

        Args:
            logps: Log-probabilities of the batch.

        Returns:
            Losses by name of term; NaN where a term means nothing for a row, because it compares
            images and the row has none.
        """
        losses = {}
        for term in self.active_terms:
            loss = term(logps, beta=self.beta)
            if term.needs_image:
                loss = torch.where(logps.has_image, loss, torch.nan)
            losses[term.name] = loss
        return losses

    def total(
        self, losses: Mapping[str, Float[Tensor, " b"]], has_image: Bool[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        """Weigh, add and average over all pairs of the batch.

        A term that means nothing for a row adds nothing for it, and the row still counts in the
        average: so a text-only row weighs as much as any other, whatever batch it is in.

        Args:
            losses: From ``losses``.
            has_image: Whether the row has an image.

        Returns:
            The loss, a scalar.
        """
        parts = []
        for term in self.active_terms:
            loss = losses[term.name]
            if term.needs_image:
                loss = torch.where(has_image, loss, 0.0)
            parts.append(term.weight * loss)
        return torch.stack(parts).sum(dim=0).mean()

    def with_weights(self, weights: Sequence[float]) -> "Objective":
        """Set the weights of all terms, in their order.

        Args:
            weights: One per term; 0 switches a term off.

        Returns:
            The objective with these weights.

        Raises:
            ValueError: If there are more or fewer weights than terms.
        """
        if len(weights) != len(self.terms):
            names = ", ".join(term.name for term in self.terms)
            raise ValueError(
                f"`loss_weights` must have one weight per term of `{self.name}` ({names}), "
                f"got {len(weights)}."
            )
        terms = tuple(
            dataclasses.replace(term, weight=float(weight))  # pyright: ignore[reportArgumentType]  # terms are dataclasses
            for term, weight in zip(self.terms, weights, strict=True)
        )
        return dataclasses.replace(self, terms=terms)

    def to_spec(self) -> dict[str, Any]:
        """Write the objective down, as ``from_spec`` reads it.

        Returns:
            Plain numbers, strings, lists and dicts.
        """
        terms = []
        for term in self.terms:
            values = {
                field.name: getattr(term, field.name)
                for field in dataclasses.fields(term)  # pyright: ignore[reportArgumentType]  # terms are dataclasses
            }
            plain = {
                name: str(value) if isinstance(value, Candidate) else value
                for name, value in values.items()
                if value is not None
            }
            terms.append({"kind": term.kind, **plain})  # pyright: ignore[reportAttributeAccessIssue]  # one of TERM_KINDS
        return {"name": self.name, "beta": self.beta, "terms": terms}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> "Objective":
        """Read an objective from its written form.

        Args:
            spec: ``name``, ``beta`` (optional) and ``terms``: a list of records with ``kind``
                (preference, anchor, likelihood) and the fields of that term; candidates read
                IMAGE/RESPONSE.

        Returns:
            The objective.

        Raises:
            ValueError: If the form is not kept; the message names the key.
        """
        _refuse_unknown(spec, ("name", "beta", "terms"), "the objective")
        terms = spec.get("terms")
        if not isinstance(terms, Sequence) or isinstance(terms, str) or not terms:
            raise ValueError(f"`terms` of the objective must be a list of terms, got {terms!r}.")
        return cls(
            name=str(spec.get("name", "custom")),
            terms=tuple(_read_term(term) for term in terms),
            beta=_number(spec.get("beta", 0.1), "beta"),
        )


def _read_term(spec: Any) -> Term:
    """Read one term of an objective's written form."""
    if not isinstance(spec, Mapping) or str(spec.get("kind")) not in TERM_KINDS:
        raise ValueError(
            f"A term must be a mapping with `kind` one of {', '.join(TERM_KINDS)}, got {spec!r}."
        )
    kind = TERM_KINDS[spec["kind"]]
    known = [field.name for field in dataclasses.fields(kind)]
    _refuse_unknown(spec, ["kind", *known], f"a term of kind {kind.kind}")
    required = [f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING]
    if missing := [name for name in required if name not in spec]:
        raise ValueError(f"A term of kind {kind.kind} must have {', '.join(missing)}: {spec!r}.")
    values: dict[str, Any] = {}
    for name in known:
        if name not in spec:
            continue
        value = spec[name]
        if name in ("preferred", "other", "candidate"):
            values[name] = Candidate.parse(str(value))
        elif name in ("name", "link", "side"):
            values[name] = str(value)
        elif value is not None:
            values[name] = _number(value, name)
    return kind(**values)


def _number(value: Any, name: str) -> float:
    """Read a number; YAML hands ``1e-1`` on as text."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"`{name}` must be a number, got {value!r}.") from None


def _refuse_unknown(spec: Mapping[str, Any], known: Sequence[str], place: str) -> None:
    """Refuse keys that nothing reads."""
    for key in spec:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = "".join(f" Did you mean `{match}`?" for match in near)
            raise ValueError(f"`{key}` is not a key of {place}.{hint} Known: {', '.join(known)}.")
