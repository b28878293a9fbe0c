"""Vision towers: their sizes, which the original checkpoints do not hold."""

from pathlib import Path
from typing import Any

from mdpo.models.conversion.checkpoint import read_json

SIGLIP_SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}
"""SigLIP-SO400M/14 at 384 pixels, https://huggingface.co/google/siglip-so400m-patch14-384."""

KNOWN_SIGLIP = {"google/siglip-so400m-patch14-384": SIGLIP_SO400M}

_FIELDS = (
    *SIGLIP_SO400M,
    "num_channels",
    "hidden_act",
    "layer_norm_eps",
    "attention_dropout",
)
_KINDS = {"siglip": "siglip_vision_model", "clip": "clip_vision_model"}


def read_vision_config(path: Path, kind: str) -> dict[str, Any]:
    """Read the sizes of a tower from its ``config.json``.

    Args:
        path: The file, or the folder that holds it.
        kind: ``siglip`` or ``clip``.

    Returns:
        Fields of the vision config.

    Raises:
        ValueError: If it describes another kind of model, or lacks a size.
    """
    path = path / "config.json" if path.is_dir() else path
    content = read_json(path)
    found = content.get("model_type")
    if found == kind:
        content = content.get("vision_config") or {}
    elif found != _KINDS[kind]:
        raise ValueError(
            f"{path}: `model_type` must be {kind!r} or {_KINDS[kind]!r}, got {found!r}. Give the "
            "config of the tower that the checkpoint was trained with."
        )
    missing = [name for name in SIGLIP_SO400M if not isinstance(content.get(name), int)]
    if missing:
        raise ValueError(
            f"{path}: `{missing[0]}` of the vision tower must be a whole number, got "
            f"{content.get(missing[0])!r}. Write the value that the tower was built with."
        )
    return {name: content[name] for name in _FIELDS if name in content}


def siglip_config(tower: str, given: Path | None) -> dict[str, Any]:
    """Find the sizes of a SigLIP tower.

    Args:
        tower: ``mm_vision_tower`` of the original config.
        given: The user's file or folder, which goes first.

    Returns:
        Fields of the vision config.

    Raises:
        ValueError: If they are not known.
    """
    if given is not None:
        return read_vision_config(given, "siglip")
    if tower in KNOWN_SIGLIP:
        return dict(KNOWN_SIGLIP[tower])
    if tower and (Path(tower) / "config.json").is_file():
        return read_vision_config(Path(tower), "siglip")
    raise ValueError(
        f"`mm_vision_tower` must be {', '.join(KNOWN_SIGLIP)} or a folder with its config.json, "
        f"got {tower!r}; the sizes of the tower are not in the checkpoint. Pass "
        "`--vision-config FILE_OR_DIR`."
    )
