"""The catalogue of objectives by name.

A new published method is one more function here: terms over candidates. Nothing else changes.
"""

from collections.abc import Callable

from mdpo.objectives.candidates import CHOSEN, REJECTED, REJECTED_IMAGE
from mdpo.objectives.links import LinkName
from mdpo.objectives.objective import Objective
from mdpo.objectives.terms import Anchor, Likelihood, Preference, Term


def _response(link: LinkName, label_smoothing: float) -> Preference:
    """Chosen over rejected response under the true image: DPO_m."""
    return Preference(
        name="response",
        preferred=CHOSEN,
        other=REJECTED,
        link=link,
        label_smoothing=label_smoothing,
    )


def _image(link: LinkName) -> Preference:
    """True over rejected image for the chosen response: CoPO."""
    return Preference(name="image", preferred=CHOSEN, other=REJECTED_IMAGE, link=link)


def _anchor(floor: float) -> Anchor:
    """Reward of the chosen response above the floor: AncPO."""
    return Anchor(name="anchor", candidate=CHOSEN, floor=floor)


def _anchor_rejected(floor: float) -> Anchor:
    """Reward of the rejected response below the floor: second row of Table 4."""
    return Anchor(name="anchor_rejected", candidate=REJECTED, floor=floor, side="below")


def _anchor_rejected_image(floor: float) -> Anchor:
    """Reward under the rejected image below the floor: third row of Table 4."""
    return Anchor(name="anchor_rejected_image", candidate=REJECTED_IMAGE, floor=floor, side="below")


TermsOf = Callable[[LinkName, float, float], tuple[Term, ...]]
"""From link, label smoothing and anchor floor to the terms of an objective."""

CATALOGUE: dict[str, TermsOf] = {
    "dpo": lambda link, smoothing, floor: (_response(link, smoothing),),
    "mdpo": lambda link, smoothing, floor: (
        _response(link, smoothing),
        _image(link),
        _anchor(floor),
    ),
    "mdpo-no-copo": lambda link, smoothing, floor: (_response(link, smoothing), _anchor(floor)),
    "mdpo-no-anchor": lambda link, smoothing, floor: (_response(link, smoothing), _image(link)),
    "mdpo-anchor-responses": lambda link, smoothing, floor: (
        _response(link, smoothing),
        _image(link),
        _anchor(floor),
        _anchor_rejected(floor),
    ),
    "mdpo-anchor-all": lambda link, smoothing, floor: (
        _response(link, smoothing),
        _image(link),
        _anchor(floor),
        _anchor_rejected(floor),
        _anchor_rejected_image(floor),
    ),
}


def make_objective(
    name: str,
    *,
    beta: float = 0.1,
    link: LinkName = "logsigmoid",
    label_smoothing: float = 0.0,
    anchor_floor: float = 0.0,
    sft_weight: float = 0.0,
) -> Objective:
    """Make an objective of the catalogue; the defaults are the paper's.

    Args:
        name: Key of ``CATALOGUE``.
        beta: Strength of the pull to the reference, > 0.
        link: Link of the comparisons; anchors keep the log-sigmoid.
        label_smoothing: Assumed share of swapped response labels, in [0, 0.5). The comparison of
            images has no label that could be wrong and is never smoothed.
        anchor_floor: Delta of the anchors, in units of reward.
        sft_weight: Weight of an added likelihood term on the chosen response; 0 adds none.

    Returns:
        The objective.

    Raises:
        ValueError: If the name is unknown or a value out of range.
    """
    if name not in CATALOGUE:
        raise ValueError(f"`objective` {name!r} is unknown. Known: {', '.join(CATALOGUE)}.")
    terms = CATALOGUE[name](link, label_smoothing, anchor_floor)
    if sft_weight:
        terms += (Likelihood(name="sft", candidate=CHOSEN, weight=sft_weight),)
    return Objective(name=name, terms=terms, beta=beta)
