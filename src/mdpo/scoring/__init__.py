"""From model and batch to log-probabilities of candidates."""

from mdpo.scoring.plain import PlainScorer, Scorer
from mdpo.scoring.reference import AdapterOff, FrozenCopy, Reference, frozen_copy_of

__all__ = ["AdapterOff", "FrozenCopy", "PlainScorer", "Reference", "Scorer", "frozen_copy_of"]
