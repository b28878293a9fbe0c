"""What is optimised: candidates, terms over them, and the catalogue of objectives."""

from mdpo.objectives.candidates import CHOSEN, REJECTED, REJECTED_IMAGE, Candidate
from mdpo.objectives.catalogue import CATALOGUE, make_objective
from mdpo.objectives.logps import Logps, implicit_reward
from mdpo.objectives.objective import Objective
from mdpo.objectives.terms import Anchor, Likelihood, Preference, Term

__all__ = [
    "CATALOGUE",
    "CHOSEN",
    "REJECTED",
    "REJECTED_IMAGE",
    "Anchor",
    "Candidate",
    "Likelihood",
    "Logps",
    "Objective",
    "Preference",
    "Term",
    "implicit_reward",
    "make_objective",
]
