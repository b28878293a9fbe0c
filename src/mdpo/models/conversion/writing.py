"""Write a checkpoint folder: tensors streamed into safetensors shards, all files or none.

The format of a safetensors file is 8 bytes with the length of a JSON header, the header, and the
bytes of the tensors, https://huggingface.co/docs/safetensors. It is written here tensor by tensor,
so that no more than one of them is in memory.
"""

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from tqdm.auto import tqdm

from mdpo.models.conversion.checkpoint import DTYPES, INDEX, WEIGHTS, StoredTensor

SHARD_BYTES = 5_000_000_000
"""Largest shard, as in the releases; a single tensor may exceed it."""

BLOCK = 1 << 24
"""Bytes written at a time."""

_KINDS = {dtype: kind for kind, dtype in DTYPES.items()}


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor to be written.

    Attributes:
        name: To write it under.
        source: Where its values are.
        dtype: To write it in.
        shape: To write; a first dimension longer than that of the source is filled with zeros, a
            shorter one cuts rows off.
    """

    name: str
    source: StoredTensor
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Size in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object.

    Args:
        path: Of the file.
        content: What to write; the order of keys is kept.
    """
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def staged(folder: Path, *, num_bytes: int) -> Iterator[Path]:
    """Give a folder its name only when it is complete.

    Args:
        folder: To appear; it may exist if it is empty.
        num_bytes: Of the weights.

    Yields:
        A folder beside it to write to. It is removed if anything goes wrong.

    Raises:
        OSError: If ``folder`` holds anything, an earlier attempt left its own, or the disk has
            too little room.
    """
    check_free(folder)
    part = folder.with_name(folder.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    free, needed = shutil.disk_usage(part.parent).free, num_bytes + 2 * BLOCK
    if free < needed:
        raise OSError(
            f"{folder} needs {needed / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free. Make "
            "room, or write elsewhere."
        )
    part.mkdir()
    try:
        yield part
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def check_free(folder: Path) -> None:
    """Refuse to write where something is.

    Args:
        folder: To be written.

    Raises:
        FileExistsError: If it holds anything, or an earlier attempt left its part.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} must be new or empty. Give another folder, or remove it.")
    part = folder.with_name(folder.name + ".part")
    if part.exists():
        raise FileExistsError(
            f"{part} is there: a conversion is running, or was killed. Remove it if none runs."
        )


def write_weights(
    folder: Path, tensors: Sequence[PlannedTensor], *, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write tensors, with an index if they need several files.

    Args:
        folder: Exists.
        tensors: In the order to write.
        shard_bytes: Largest file; a single tensor may exceed it.
    """
    shards = _shards(tensors, shard_bytes)
    width = f"-of-{len(shards):05d}.safetensors"
    names = [f"model-{k + 1:05d}{width}" for k in range(len(shards))]
    names = [WEIGHTS] if len(shards) == 1 else names
    with tqdm(total=len(tensors), desc="converting", unit="tensor") as bar:
        for name, shard in zip(names, shards, strict=True):
            with (folder / name).open("wb") as file:
                _write_header(file, shard)
                for each in shard:
                    _write_tensor(file, each)
                    bar.update()
    if len(shards) > 1:
        places = {t.name: name for name, shard in zip(names, shards, strict=True) for t in shard}
        total = sum(each.num_bytes for each in tensors)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        write_json(folder / INDEX, index)


def _shards(tensors: Sequence[PlannedTensor], shard_bytes: int) -> list[list[PlannedTensor]]:
    """Cut a sequence of tensors where a file would grow too large."""
    shards: list[list[PlannedTensor]] = [[]]
    size = 0
    for each in tensors:
        if shards[-1] and size + each.num_bytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(each)
        size += each.num_bytes
    return shards


def _write_header(file: BinaryIO, shard: Sequence[PlannedTensor]) -> None:
    """Write what is where in a file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for each in shard:
        end = begin + each.num_bytes
        header[each.name] = {
            "dtype": _KINDS[each.dtype],
            "shape": list(each.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)


def _write_tensor(file: BinaryIO, planned: PlannedTensor) -> None:
    """Write the bytes of one tensor."""
    tensor = planned.source.load()
    if planned.shape:
        tensor = tensor[: planned.shape[0]]
    # Views of the mapped file, turned into another type a block at a time.
    flat = tensor.reshape(-1)
    for block in flat.split(BLOCK // planned.dtype.itemsize):
        file.write(_converted(block, planned).view(torch.uint8).numpy().data)
    lacking = planned.num_bytes - flat.numel() * planned.dtype.itemsize
    while lacking > 0:
        file.write(bytes(min(lacking, BLOCK)))
        lacking -= BLOCK


def _converted(block: Tensor, planned: PlannedTensor) -> Tensor:
    """Turn values into the type to write, unless they do not fit."""
    if block.dtype == planned.dtype:
        return block
    result = block.to(planned.dtype)
    if not torch.equal(result.isfinite(), block.isfinite()):
        raise ValueError(
            f"{planned.source.file}: `{planned.source.name}` has values that do not fit in "
            f"{planned.dtype}. Use `--dtype bfloat16` or `--dtype float32`."
        )
    return result
