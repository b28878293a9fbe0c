"""From model and batch to log-probabilities of candidates."""

from mdpo.scoring.plain import PlainScorer, Scorer
from mdpo.scoring.reference import AdapterOff, AtStart, FrozenCopy, Reference, frozen_copy_of
from mdpo.scoring.reference_cache import CachedReference, LogpStore
from mdpo.scoring.shared_prefix import SharedPrefixScorer

__all__ = [
    "AdapterOff",
    "AtStart",
    "CachedReference",
    "FrozenCopy",
    "LogpStore",
    "PlainScorer",
    "Reference",
    "Scorer",
    "SharedPrefixScorer",
    "frozen_copy_of",
]
