"""How answers are drawn, and the presets that papers of this line use."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from mdpo.evaluation.journal import content_key
from mdpo.evaluation.suite import Prompt

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
"""What LLaVA's own runs of POPE append to each question (Liu et al. 2023, arXiv:2310.03744)."""


@dataclass(frozen=True)
class Decoding:
    """Settings that answers depend on.

    Attributes:
        max_new_tokens: Longest answer, in tokens.
        num_beams: Of beam search; 1 is greedy.
        temperature: 0 takes the likeliest token; above, tokens are drawn.
        seed: Of drawn tokens; each item has its own generator.
        suffix: Appended to each prompt.
    """

    max_new_tokens: int = 256
    num_beams: int = 1
    temperature: float = 0.0
    seed: int = 0
    suffix: str = ""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.num_beams < 1 or self.temperature < 0:
            raise ValueError(
                "`--max-new-tokens` and `--num-beams` must be 1 or more and `--temperature` 0 or "
                f"more, got {self.max_new_tokens}, {self.num_beams} and {self.temperature}."
            )
        if self.temperature > 0 and self.num_beams > 1:
            raise ValueError("`--temperature` needs `--num-beams` 1: beams are not drawn.")

    def to_dict(self) -> dict[str, Any]:
        """Write it as plain values."""
        return asdict(self)


LENGTHS: Mapping[str, int] = {
    "amber": 512,
    "chair": 512,
    "hallusionbench": 512,
    "hallusionbench-judge": 512,
    "mme": 64,
    "mmhal": 1024,
    "muirbench": 64,
    "object-halbench": 512,
    "object-halbench-llm": 512,
    "pope": 64,
}
"""Longest answers where nothing else is said. MMHal-Bench: its script; CHAIR: OPERA's 512; the
others are ours, long enough not to cut an answer."""


PRESETS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "greedy": ("greedy, the suite's longest answer (default)", {}),
    "rlaif-v": ("3 beams, as RLAIF-V evaluates MMHal-Bench", {"num_beams": 3}),
    "chair-512": ("greedy, 512 tokens: CHAIR in OPERA and most papers", {"max_new_tokens": 512}),
    "chair-64": ("greedy, 64 tokens: CHAIR of short captions", {"max_new_tokens": 64}),
    "pope-short": ("greedy, with LLaVA's short-answer suffix", {"suffix": SHORT_ANSWER}),
}
"""Name to description and settings."""


def decoding_for(suite: str, preset: str = "greedy", **settings: Any) -> Decoding:
    """Choose how answers are drawn.

    Args:
        suite: Name of the benchmark.
        preset: Key of ``PRESETS``.
        **settings: Of ``Decoding``, over those of the preset; None leaves one as it is.

    Returns:
        The settings.

    Raises:
        ValueError: If there is no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"`--preset` must be one of {', '.join(PRESETS)}, got {preset!r}.")
    chosen = {name: value for name, value in settings.items() if value is not None}
    base = Decoding(max_new_tokens=LENGTHS.get(suite, 256))
    return replace(base, **{**PRESETS[preset][1], **chosen})


def seed_of(prompt: Prompt, decoding: Decoding) -> int:
    """Seed the drawing of one item's tokens, so that order and resuming change nothing.

    Args:
        prompt: Of the item.
        decoding: With the seed of the run.

    Returns:
        At least 0 and less than 2 to the 31st: servers take no more.
    """
    return int(content_key([decoding.seed, prompt.item])[:15], 16) % 2**31
