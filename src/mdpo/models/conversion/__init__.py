"""Checkpoints of Bunny and of the original LLaVA, to transformers' own classes and back."""

from mdpo.models.conversion.original import to_original
from mdpo.models.conversion.standard import bunny_to_standard, llava_to_standard

__all__ = ["bunny_to_standard", "llava_to_standard", "to_original"]
