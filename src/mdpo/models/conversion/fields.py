"""Fields of an original ``config.json``, checked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def require(config: Mapping[str, Any], names: Sequence[str], *, path: Path) -> dict[str, Any]:
    """Take fields that have no default.

    Args:
        config: Content of ``config.json``.
        names: Of the fields.
        path: Of the file, for messages.

    Returns:
        The fields.

    Raises:
        ValueError: If one is missing.
    """
    for name in names:
        if config.get(name) is None:
            raise ValueError(f"{path}: `{name}` is missing. Get the file of the release.")
    return {name: config[name] for name in names}


def require_value(
    config: Mapping[str, Any], name: str, allowed: Sequence[object], *, path: Path
) -> None:
    """Refuse a setting under which the model computes something else.

    Args:
        config: Content of ``config.json``.
        name: Of the field.
        allowed: Values that are converted; ``None`` stands for a missing field.
        path: Of the file, for messages.

    Raises:
        ValueError: If the value is none of them.
    """
    value = config.get(name)
    if value not in allowed:
        wanted = " or ".join("missing" if each is None else repr(each) for each in allowed)
        raise ValueError(
            f"{path}: `{name}` must be {wanted}, got {value!r}. This variant of the architecture "
            "is not converted."
        )


def given(config: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Take fields whose defaults are those of the class in transformers.

    Args:
        config: Content of ``config.json``.
        names: Of the fields.

    Returns:
        Those that are there.
    """
    return {name: config[name] for name in names if config.get(name) is not None}
