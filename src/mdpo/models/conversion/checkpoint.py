"""What a checkpoint folder holds: its JSON files, and its safetensors one tensor at a time."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""Types of weights, by their names in safetensors files."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file.

    Attributes:
        name: In the file.
        file: Where it is.
        kind: Its type, as safetensors writes it.
        shape: Its shape.
    """

    name: str
    file: Path
    kind: str
    shape: tuple[int, ...]

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights.

        Raises:
            ValueError: If it is none of ``DTYPES``.
        """
        if self.kind not in DTYPES:
            raise ValueError(
                f"{self.file}: `{self.name}` must be of type {', '.join(DTYPES)}, got {self.kind}. "
                "Convert weights that are not quantized."
            )
        return DTYPES[self.kind]

    def load(self) -> Tensor:
        """Read it.

        The file is opened for this tensor alone: pages of a file that stays open count as memory
        of the process.

        Returns:
            The tensor, on the CPU.
        """
        with safe_open(self.file, framework="pt") as file:
            return file.get_tensor(self.name)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: Of the file.

    Returns:
        Its content.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it holds no JSON object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} holds no checkpoint: {path.name} is missing.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be JSON: {error}. Get the file again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(content).__name__}.")
    return content


def read_tensors(folder: Path) -> dict[str, StoredTensor]:
    """List the tensors of a checkpoint; no weights are read.

    Args:
        folder: With ``model.safetensors``, or with shards and their index.

    Returns:
        Tensors by name, in the order of the files.

    Raises:
        ValueError: If index and shards differ.
    """
    files = _files(folder)
    found = {each.name: each for file in files for each in _tensors_of(file)}
    if (folder / INDEX).is_file():
        listed = read_json(folder / INDEX).get("weight_map", {})
        for name in sorted(listed.keys() | found.keys()):
            has = found[name].file.name if name in found else "no shard"
            if listed.get(name) != has:
                raise ValueError(
                    f"{folder / INDEX}: `{name}` must be where the index says, got "
                    f"{listed.get(name, 'no entry')} in the index and {has} in the folder. Get the "
                    "files again."
                )
    return found


def _files(folder: Path) -> list[Path]:
    """Files of weights, or why there are none that can be read."""
    if (folder / INDEX).is_file():
        names = sorted(set(read_json(folder / INDEX).get("weight_map", {}).values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{folder} must hold all shards of its index, {missing[0]} is missing. Get it."
            )
        return [folder / name for name in names]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / "adapter_config.json").is_file():
        raise ValueError(
            f"{folder} holds adapters, not a model. Fold them in first: "
            f"mdpo merge --adapter {folder} --out FOLDER"
        )
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in (".bin", ".pt"))
    if pickles:
        raise ValueError(
            f"{folder} must hold safetensors, got {pickles[0]}, a pickle, which can run code when "
            "it is read. Get the files in safetensors form, or write them so as docs/convert.md "
            "shows."
        )
    raise FileNotFoundError(f"{folder} holds no weights: neither {WEIGHTS} nor {INDEX} is there.")


def _tensors_of(file: Path) -> Iterator[StoredTensor]:
    """Entries of a file's header."""
    try:
        with safe_open(file, framework="pt") as opened:
            for name in opened.offset_keys():
                entry = opened.get_slice(name)
                yield StoredTensor(name, file, entry.get_dtype(), tuple(entry.get_shape()))
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged: {error}. Get it again.") from error
