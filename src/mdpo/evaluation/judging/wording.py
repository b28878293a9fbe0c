"""The words in which a judge is asked: those of the user's copy, or ours."""

import ast
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

SLOTS = 4
"""Of the official MMHal-Bench text: image contents, question, human answer, model's answer."""

TEMPLATES = ("template", "prompt_template")
"""Variables of official scripts: of MMHal-Bench, of Object HalBench."""

NAMED = re.compile(r"\{(?:question|answer)\}")
"""Slots of Object HalBench's text, in the order in which they are filled."""


@dataclass(frozen=True)
class Wording:
    """A text with slots.

    Attributes:
        text: With ``{}`` for each slot.
        origin: Where it is from.
        official: Whether it was read from a copy of the official script.
    """

    text: str
    origin: str
    official: bool

    @property
    def sha256(self) -> str:
        """Hash of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def fill(self, *values: str) -> str:
        """Fill the slots.

        Args:
            *values: One per slot.

        Returns:
            The text.
        """
        first, *rest = self.text.split("{}")
        return first + "".join(value + piece for value, piece in zip(values, rest, strict=True))


def read_wording(path: Path, slots: int = SLOTS) -> Wording:
    """Read the words from a file.

    Args:
        path: The official Python script, whose variable ``template`` or ``prompt_template`` is
            taken without running anything, or a text file.
        slots: Number of ``{}`` that it must have.

    Returns:
        The wording, taken for official.

    Raises:
        ValueError: If there is no such text.
    """
    written = path.read_text(encoding="utf-8")
    text = NAMED.sub("{}", _template(written, path) if path.suffix == ".py" else written)
    if text.count("{}") != slots:
        raise ValueError(
            f"{path}: the prompt must have {slots} slots `{{}}`, got {text.count('{}')}."
        )
    return Wording(text, path.name, official=True)


def _template(written: str, path: Path) -> str:
    """Take the text of the prompt from a script."""
    try:
        tree = ast.parse(written)
    except SyntaxError as error:
        raise ValueError(f"{path}: not Python: {error}.") from None
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Assign)
            and any(isinstance(each, ast.Name) and each.id in TEMPLATES for each in node.targets)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            return node.value.value
    raise ValueError(
        f"{path}: no text is assigned to `template` or `prompt_template`. Give a text file instead."
    )
