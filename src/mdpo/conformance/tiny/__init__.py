"""Tiny random models of each family, with their processors, built from config: no download.

They have every part and every quirk of the large ones: kinds of positions, tiles, grids,
resamplers, windows. Widths, depths and vocabularies are small.
"""

from collections.abc import Callable

from mdpo.conformance.tiny.base import TinyModel
from mdpo.conformance.tiny.gemma import gemma3, paligemma
from mdpo.conformance.tiny.grids import glm4v, qwen2_5_vl, qwen2_vl, qwen3_vl
from mdpo.conformance.tiny.idefics import idefics2, idefics3, smolvlm
from mdpo.conformance.tiny.llava import bunny, llava, llava_next, llava_onevision
from mdpo.conformance.tiny.others import deepseek_vl, mllama
from mdpo.conformance.tiny.tiles import aya_vision, internvl, ovis2

TINY_MODELS: dict[str, Callable[[], TinyModel]] = {
    each.__name__: each
    for each in (
        llava,
        bunny,
        llava_next,
        llava_onevision,
        qwen2_vl,
        qwen2_5_vl,
        qwen3_vl,
        internvl,
        smolvlm,
        idefics3,
        idefics2,
        gemma3,
        paligemma,
        glm4v,
        aya_vision,
        ovis2,
        deepseek_vl,
        mllama,
    )
}
"""By name of the family, as in ``mdpo.models.families``."""
