"""Terms: the comparisons and anchors that an objective adds up.

A term is a frozen record that maps the log-probabilities of a batch to one loss per pair. It
knows no model, image or device, so every number can be checked by hand.

Shapes: ``b`` preference pairs.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from jaxtyping import Float
from torch import Tensor

from mdpo.objectives.candidates import NO_IMAGE, Candidate
from mdpo.objectives.links import LINKS, LinkName
from mdpo.objectives.logps import Logps


class Term(Protocol):
    """One summand of an objective."""

    @property
    def name(self) -> str:
        """Under which its loss is logged: ``loss/<name>``."""
        ...

    @property
    def weight(self) -> float:
        """Factor of its loss in the objective; >= 0."""
        ...

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """What must be scored for it."""
        ...

    @property
    def needs_image(self) -> bool:
        """Whether it means nothing for a row without image."""
        ...

    def __call__(self, logps: Logps, *, beta: float) -> Float[Tensor, " b"]:
        """Compute the loss of each pair, unweighted.

        Args:
            logps: Log-probabilities of the batch.
            beta: Of the objective, for terms that set none of their own.

        Returns:
            Loss per pair.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Preference:
    """One candidate is to have a higher reward than another: DPO_m and CoPO in the paper.

    Attributes:
        name: Under which the loss is logged.
        preferred: Candidate whose reward should be the higher.
        other: Candidate it is compared with.
        weight: Factor in the objective; >= 0. The paper uses 1.
        link: From the reward margin to a loss.
        label_smoothing: Assumed share of pairs whose labels are swapped, in [0, 0.5); conservative
            DPO, with the ``logsigmoid`` link only.
        beta: Strength of the pull to the reference; None takes that of the objective.
    """

    kind: ClassVar[str] = "preference"
    name: str
    preferred: Candidate
    other: Candidate
    weight: float = 1.0
    link: LinkName = "logsigmoid"
    label_smoothing: float = 0.0
    beta: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be trained on.

        Raises:
            ValueError: If a value is out of range or the two candidates are one.
        """
        _check_common(self.name, self.weight, self.beta)
        if self.preferred == self.other:
            raise ValueError(
                f"Term `{self.name}` must compare two candidates, got {self.preferred} twice."
            )
        if self.link not in LINKS:
            raise ValueError(
                f"Term `{self.name}`: `link` must be one of {', '.join(LINKS)}, got {self.link!r}."
            )
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(
                f"Term `{self.name}`: `label_smoothing` must be in [0, 0.5), "
                f"got {self.label_smoothing}."
            )
        if self.label_smoothing and self.link != "logsigmoid":
            raise ValueError(
                f"Term `{self.name}`: `label_smoothing` is defined for the logsigmoid link only, "
                f"got link {self.link!r}. Set one of the two back."
            )

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The two it compares."""
        return (self.preferred, self.other)

    @property
    def needs_image(self) -> bool:
        """Whether the two differ in their image, or share another than the row's own."""
        images = (self.preferred.image, self.other.image)
        return images not in (("chosen", "chosen"), (NO_IMAGE, NO_IMAGE))

    def __call__(self, logps: Logps, *, beta: float) -> Float[Tensor, " b"]:
        """Compute the loss of each pair, unweighted.

        Source: ``response`` is Eq. DPO_m and ``image`` is CoPO of arXiv:2406.11839, Sec. 3;
        label smoothing is Eq. 3 of https://ericmitchell.ai/cdpo.pdf.

        Args:
            logps: Log-probabilities of the batch.
            beta: Of the objective, used unless the term sets its own.

        Returns:
            Loss per pair.
        """
        beta = beta if self.beta is None else self.beta
        link = LINKS[self.link]
        margin = logps.reward(self.preferred, beta=beta) - logps.reward(self.other, beta=beta)
        loss = link(margin, beta=beta)
        if self.label_smoothing:
            swapped = link(-margin, beta=beta)
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * swapped
        return loss


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """The reward of one candidate is to stay on one side of a floor: AncPO in the paper.

    Attributes:
        name: Under which the loss is logged.
        candidate: Whose reward is held.
        floor: Value it is held to, in units of reward; delta in the paper, which uses 0.
        side: ``above`` holds a chosen response up, ``below`` a rejected one down.
        weight: Factor in the objective; >= 0. The paper uses 1.
        link: From the distance to the floor to a loss; IPO has no meaning here.
        beta: Strength of the pull to the reference; None takes that of the objective.
    """

    kind: ClassVar[str] = "anchor"
    name: str
    candidate: Candidate
    floor: float = 0.0
    side: Literal["above", "below"] = "above"
    weight: float = 1.0
    link: LinkName = "logsigmoid"
    beta: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be trained on.

        Raises:
            ValueError: If a value is out of range.
        """
        _check_common(self.name, self.weight, self.beta)
        if not math.isfinite(self.floor):
            raise ValueError(f"Term `{self.name}`: `floor` must be finite, got {self.floor}.")
        if self.side not in ("above", "below"):
            raise ValueError(
                f"Term `{self.name}`: `side` must be above or below, got {self.side!r}."
            )
        if self.link not in LINKS or self.link == "ipo":
            raise ValueError(
                f"Term `{self.name}`: `link` of an anchor must be logsigmoid or hinge, "
                f"got {self.link!r}."
            )

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The one it holds."""
        return (self.candidate,)

    @property
    def needs_image(self) -> bool:
        """Whether it holds a reward under another image than the row's own."""
        return self.candidate.image not in ("chosen", NO_IMAGE)

    def __call__(self, logps: Logps, *, beta: float) -> Float[Tensor, " b"]:
        """Compute the loss of each pair, unweighted.

        Source: AncPO of arXiv:2406.11839, Sec. 3; ``below`` is the opposite direction of its
        Table 4.

        Args:
            logps: Log-probabilities of the batch.
            beta: Of the objective, used unless the term sets its own.

        Returns:
            Loss per pair.
        """
        beta = beta if self.beta is None else self.beta
        distance = logps.reward(self.candidate, beta=beta) - self.floor
        return LINKS[self.link](distance if self.side == "above" else -distance, beta=beta)


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """A candidate is to be likely in itself: the SFT term that MPO and RPO add.

    Attributes:
        name: Under which the loss is logged.
        candidate: Whose likelihood is raised.
        weight: Factor in the objective; >= 0.
    """

    kind: ClassVar[str] = "likelihood"
    name: str
    candidate: Candidate
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a weight or name that cannot be used."""
        _check_common(self.name, self.weight, None)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The one it raises."""
        return (self.candidate,)

    @property
    def needs_image(self) -> bool:
        """Whether it is about another image than the row's own."""
        return self.candidate.image not in ("chosen", NO_IMAGE)

    def __call__(self, logps: Logps, *, beta: float) -> Float[Tensor, " b"]:
        """Compute the mean negative log-likelihood of a response token, per pair.

        Source: the SFT part of MPO, arXiv:2411.10442, averaged over tokens as there.

        Args:
            logps: Log-probabilities of the batch.
            beta: Unused: no reference is involved.

        Returns:
            Loss per pair, in nats per token.
        """
        return -logps.policy[self.candidate] / logps.lengths[self.candidate.response]


def _check_common(name: str, weight: float, beta: float | None) -> None:
    """Check what all terms have."""
    if not name or not name.replace("_", "").replace("-", "").isalnum():
        raise ValueError(f"A term's `name` must be letters, digits, - and _, got {name!r}.")
    if not (weight >= 0 and math.isfinite(weight)):
        raise ValueError(f"Term `{name}`: `weight` must be >= 0, got {weight}.")
    if beta is not None and not (beta > 0 and math.isfinite(beta)):
        raise ValueError(f"Term `{name}`: `beta` must be > 0, got {beta}. The paper uses 0.1.")
