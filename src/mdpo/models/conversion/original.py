"""From a standard folder back to the layout of the original project.

The folder may have been written by a conversion or by ``save_pretrained`` after training: what is
needed travels in the config, under ``original_config``.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import LlavaConfig

from mdpo.models.conversion.checkpoint import StoredTensor, read_json, read_tensors
from mdpo.models.conversion.configs import family_of
from mdpo.models.conversion.naming import (
    EMBEDDING,
    HEAD,
    SAVED_TOWER,
    is_buffer,
    original_of_saved,
    saved_of_native,
)
from mdpo.models.conversion.standard import check_tensors, expected_shapes
from mdpo.models.conversion.tokenizers import copy_tokenizer, write_bunny_tokenizer
from mdpo.models.conversion.writing import (
    PlannedTensor,
    check_free,
    staged,
    write_json,
    write_weights,
)


def to_original(
    source: Path,
    destination: Path,
    *,
    family: str,
    tokenizer: Path | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a checkpoint that the code of the original project loads.

    Args:
        source: Standard folder, converted by mdpo, trained or not.
        destination: To write; new or empty.
        family: ``bunny`` or ``llava``.
        tokenizer: Original checkpoint whose tokenizer files are copied. None writes Bunny's anew;
            LLaVA's cannot be written anew.
        dtype: To store weights in; None keeps theirs.

    Raises:
        ValueError: If the folder was not converted by mdpo, or is of another family.
    """
    check_free(destination)
    path = source / "config.json"
    content = read_json(path)
    original = content.get("original_config")
    if content.get("model_type") != "llava" or not isinstance(original, dict):
        raise ValueError(
            f"{path} must have `original_config`, as `mdpo convert {family}` writes it and "
            "`save_pretrained` keeps it. Only what was converted so is converted back."
        )
    found = family_of(original, path=path)
    if found != family:
        raise ValueError(f"{path} is of a {found} checkpoint. Use `mdpo convert {found}`.")
    if family == "llava" and tokenizer is None:
        raise ValueError(
            "`--tokenizer` must be given for LLaVA: its code reads tokenizer.model, which cannot "
            "be written anew. Pass the folder of the original checkpoint."
        )
    stored = _stored(source, content)
    kept = {
        name: each
        for name, each in stored.items()
        # LLaVA's code takes the tower from the CLIP model.
        if family == "bunny" or not name.startswith(SAVED_TOWER)
    }
    planned = [_planned(name, each, original, dtype) for name, each in kept.items()]
    with staged(destination, num_bytes=sum(each.num_bytes for each in planned)) as folder:
        write_weights(folder, planned)
        write_json(folder / "config.json", _with_dtype(original, dtype or stored[HEAD].dtype))
        if content.get("original_generation_config"):
            write_json(folder / "generation_config.json", content["original_generation_config"])
        if tokenizer is not None:
            copy_tokenizer(tokenizer, folder)
        else:
            write_bunny_tokenizer(source, folder)


def _stored(source: Path, content: dict[str, Any]) -> dict[str, StoredTensor]:
    """Tensors of the folder by saved name, checked against its config."""
    tensors = [each for each in read_tensors(source).values() if not is_buffer(each.name)]
    stored = {saved_of_native(each.name): each for each in tensors}
    check_tensors(stored, expected_shapes(LlavaConfig.from_dict(content)), source)
    return stored


def _planned(
    name: str, stored: StoredTensor, original: dict[str, Any], dtype: torch.dtype | None
) -> PlannedTensor:
    """Name a tensor as the original does, without the rows that were added."""
    rows = (original["vocab_size"],) if name in (EMBEDDING, HEAD) else stored.shape[:1]
    shape = (*rows, *stored.shape[1:])
    return PlannedTensor(original_of_saved(name), stored, dtype or stored.dtype, shape)


def _with_dtype(original: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """The original config, with the type that the weights are now in."""
    name = "dtype" if "dtype" in original and "torch_dtype" not in original else "torch_dtype"
    return {**original, name: str(dtype).removeprefix("torch.")}
