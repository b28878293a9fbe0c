"""Prompts of benchmarks as chat messages."""

from dataclasses import replace

from mdpo.data.rows import Message
from mdpo.evaluation.suite import Prompt

MARK = "<image>"


def message_of(prompt: Prompt, suffix: str = "") -> Message:
    """Put a prompt into a chat message.

    Args:
        prompt: Of a benchmark.
        suffix: Appended to its text.

    Returns:
        A user's turn, with images where the text marks them, otherwise first.

    Raises:
        ValueError: If the text marks another number of images than there are.
    """
    pieces = (prompt.text + suffix).split(MARK)
    if len(pieces) == 1:
        parts: list[dict[str, str]] = [{"type": "image"} for _ in prompt.images]
        return {"role": "user", "content": [*parts, {"type": "text", "text": pieces[0]}]}
    if len(pieces) - 1 != len(prompt.images):
        raise ValueError(
            f"Item {prompt.item!r} marks {len(pieces) - 1} images by {MARK} and has "
            f"{len(prompt.images)}."
        )
    content: list[dict[str, str]] = []
    for place, piece in enumerate(pieces):
        content += [{"type": "image"}] if place else []
        content += [{"type": "text", "text": piece}] if piece.strip() else []
    return {"role": "user", "content": content}


def without_images(prompt: Prompt) -> Prompt:
    """Ask the same without showing anything.

    Args:
        prompt: Of a benchmark.

    Returns:
        The prompt without images and their marks.
    """
    return replace(prompt, images=(), text=prompt.text.replace(MARK, "").strip())
