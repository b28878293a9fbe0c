"""Candidates: the (image, response) combinations whose likelihoods an objective compares."""

from dataclasses import dataclass

NO_IMAGE = "none"
"""Image slot of a candidate that is scored without any image."""


@dataclass(frozen=True, order=True)
class Candidate:
    """One (image, response) combination, by the names of its slots.

    Attributes:
        image: ``chosen`` (the row's own image), ``rejected`` (the spoilt one) or ``none``.
        response: ``chosen`` or ``rejected``.
    """

    image: str
    response: str

    @classmethod
    def parse(cls, text: str) -> "Candidate":
        """Read the form that ``str`` gives: ``rejected/chosen``.

        Args:
            text: Image slot, a slash, response slot.

        Returns:
            The candidate.

        Raises:
            ValueError: If the text has another form or names an unknown slot.
        """
        image, slash, response = text.partition("/")
        if not slash or image not in IMAGE_SLOTS or response not in RESPONSE_SLOTS:
            raise ValueError(
                f"A candidate must read IMAGE/RESPONSE, got {text!r}. "
                f"Images: {', '.join(IMAGE_SLOTS)}; responses: {', '.join(RESPONSE_SLOTS)}."
            )
        return cls(image, response)

    def __str__(self) -> str:
        return f"{self.image}/{self.response}"


IMAGE_SLOTS: tuple[str, ...] = ("chosen", "rejected", NO_IMAGE)
RESPONSE_SLOTS: tuple[str, ...] = ("chosen", "rejected")

CHOSEN = Candidate("chosen", "chosen")
"""The chosen response under the true image: (m_w, y_w) in the paper."""

REJECTED = Candidate("chosen", "rejected")
"""The rejected response under the true image: (m_w, y_l)."""

REJECTED_IMAGE = Candidate("rejected", "chosen")
"""The chosen response under the rejected image: (m_l, y_w)."""
