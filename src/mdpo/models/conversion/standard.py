"""From an original checkpoint to a folder that transformers loads with its own classes."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LlavaConfig, LlavaForConditionalGeneration

from mdpo.models.conversion.checkpoint import StoredTensor, read_json, read_tensors
from mdpo.models.conversion.configs import (
    bunny_config,
    family_of,
    llava_config,
    pads_to_square,
)
from mdpo.models.conversion.naming import (
    CLIP_TOWER,
    EMBEDDING,
    HEAD,
    SAVED_TOWER,
    is_buffer,
    saved_of_native,
    saved_of_original,
)
from mdpo.models.conversion.processing import bunny_processor, llava_processor
from mdpo.models.conversion.tokenizers import bunny_tokenizer, llava_tokenizer
from mdpo.models.conversion.towers import read_vision_config, siglip_config
from mdpo.models.conversion.writing import PlannedTensor, check_free, staged, write_weights

HEAD_BIAS = "lm_head.bias"


def bunny_to_standard(
    source: Path,
    destination: Path,
    *,
    vision_config: Path | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Convert a Bunny with Phi-2 and SigLIP.

    Args:
        source: Folder of the original checkpoint.
        destination: To write; new or empty.
        vision_config: ``config.json`` of the tower, or its folder; None looks the tower up.
        dtype: To store weights in; None keeps theirs.
    """
    check_free(destination)
    path = source / "config.json"
    original = _original_config(path, "bunny")
    vision = siglip_config(original.get("mm_vision_tower") or "", vision_config)
    tensors = read_tensors(source)
    _check_head_bias(tensors)
    tokenizer = bunny_tokenizer(source, vocab_size=_vocab_size(original, path))
    config = bunny_config(original, vision, token_ids(tokenizer), path=path)
    stored = {saved_of_original(each.name): each for each in _weights(tensors.values())}
    planned = _plan(stored, config, source, dtype)
    processor = bunny_processor(tokenizer, vision, pad=pads_to_square(original))
    _write(destination, planned, config, processor, source)


def llava_to_standard(
    source: Path,
    destination: Path,
    *,
    vision_tower: Path,
    dtype: torch.dtype | None = None,
) -> None:
    """Convert a LLaVA-1.5 with Llama and CLIP.

    Args:
        source: Folder of the original checkpoint.
        destination: To write; new or empty.
        vision_tower: Folder of the CLIP model, whose weights the checkpoint lacks.
        dtype: To store weights in; None keeps theirs.

    Raises:
        ValueError: If the checkpoint brings a tower of its own.
    """
    check_free(destination)
    path = source / "config.json"
    original = _original_config(path, "llava")
    vision = read_vision_config(vision_tower, "clip")
    tokenizer = llava_tokenizer(source, vocab_size=_vocab_size(original, path))
    config = llava_config(original, vision, token_ids(tokenizer), path=path)
    weights = _weights(read_tensors(source).values())
    stored = {saved_of_original(each.name): each for each in weights}
    own = next((each for name, each in stored.items() if name.startswith(SAVED_TOWER)), None)
    if own is not None:
        raise ValueError(
            f"{own.file}: `{own.name}` is not expected: a checkpoint of LLaVA-1.5 holds no tower. "
            "One whose tower was trained is not converted."
        )
    stored |= _clip_tower(vision_tower)
    planned = _plan(stored, config, source, dtype)
    processor = llava_processor(tokenizer, vision, pad=pads_to_square(original))
    _write(destination, planned, config, processor, source)


def token_ids(tokenizer: Any) -> dict[str, int]:
    """Look up the ids that configs name.

    Args:
        tokenizer: With an image token.

    Returns:
        Ids of ``image``, ``pad``, ``bos``, ``eos``.
    """
    return {
        "image": tokenizer.convert_tokens_to_ids("<image>"),
        "pad": tokenizer.pad_token_id,
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
    }


def expected_shapes(config: LlavaConfig) -> dict[str, tuple[int, ...]]:
    """List what a model of a config has; none of it is made.

    Args:
        config: Of the model.

    Returns:
        Shapes by saved name.
    """
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    return {saved_of_native(name): tuple(each.shape) for name, each in model.state_dict().items()}


def check_tensors(
    stored: Mapping[str, StoredTensor], expected: Mapping[str, tuple[int, ...]], folder: Path
) -> None:
    """Refuse a checkpoint that does not fit its config.

    Args:
        stored: By saved name.
        expected: Shapes by saved name.
        folder: Of the checkpoint, for messages.

    Raises:
        ValueError: If a tensor is unknown, missing or misshaped.
    """
    for name, each in stored.items():
        if name not in expected:
            raise ValueError(
                f"{each.file}: `{each.name}` is not part of the model that config.json describes. "
                "Get the config of this checkpoint."
            )
        if each.shape != expected[name]:
            raise ValueError(
                f"{each.file}: `{each.name}` must have shape {expected[name]}, got {each.shape}. "
                "Get the config of this checkpoint."
            )
    missing = sorted(expected.keys() - stored.keys())
    if missing:
        raise ValueError(
            f"{folder} must hold all weights, {len(missing)} of {len(expected)} are missing, "
            f"`{missing[0]}` (by its name in transformers) the first. Get all shards."
        )


def _original_config(path: Path, family: str) -> dict[str, Any]:
    """Read the original config and make sure that it is of the family."""
    original = read_json(path)
    found = family_of(original, path=path)
    if found != family:
        raise ValueError(
            f"{path}: `model_type` is {original['model_type']!r}. Use `mdpo convert {found}`."
        )
    return original


def _vocab_size(original: Mapping[str, Any], path: Path) -> int:
    """Rows of the embedding, which the tokenizer must fit."""
    size = original.get("vocab_size")
    if not isinstance(size, int):
        raise ValueError(f"{path}: `vocab_size` must be a whole number, got {size!r}.")
    return size


def _weights(tensors: Iterable[StoredTensor]) -> list[StoredTensor]:
    """Leave out buffers, and the bias of the head, which is zero."""
    return [each for each in tensors if not is_buffer(each.name) and each.name != HEAD_BIAS]


def _clip_tower(folder: Path) -> dict[str, StoredTensor]:
    """Tensors of the tower by saved name; those of CLIP's other parts are left out."""
    tensors = _weights(read_tensors(folder).values())
    within = [each for each in tensors if each.name.startswith(CLIP_TOWER)]
    # A tower that was saved alone has no beginning of its own.
    return {SAVED_TOWER + each.name.removeprefix(CLIP_TOWER): each for each in within or tensors}


def _check_head_bias(tensors: Mapping[str, StoredTensor]) -> None:
    """Refuse a head whose bias does something; there is no place for it."""
    bias = tensors.get(HEAD_BIAS)
    if bias is not None and bias.load().any():
        raise ValueError(
            f"{bias.file}: `{HEAD_BIAS}` must be missing or zero, got other values. The head of "
            "LlavaForConditionalGeneration has no bias."
        )


def _plan(
    stored: Mapping[str, StoredTensor],
    config: LlavaConfig,
    source: Path,
    dtype: torch.dtype | None,
) -> list[PlannedTensor]:
    """Check tensors, and say what is to be written: embedding and head grow by rows of zeros."""
    shapes = expected_shapes(config)
    num_rows: int = vars(config)["real_vocab_size"]
    before = {name: (num_rows, *shapes[name][1:]) for name in (EMBEDDING, HEAD)}
    check_tensors(stored, {**shapes, **before}, source)
    config.dtype = stored[HEAD].dtype if dtype is None else dtype
    return [
        PlannedTensor(name, each, dtype or each.dtype, shapes[name])
        for name, each in stored.items()
    ]


def _write(
    destination: Path,
    planned: list[PlannedTensor],
    config: LlavaConfig,
    processor: Any,
    source: Path,
) -> None:
    """Write all files of the folder."""
    path = source / "generation_config.json"
    extra: Any = config
    extra.original_generation_config = read_json(path) if path.is_file() else None
    with staged(destination, num_bytes=sum(each.num_bytes for each in planned)) as folder:
        write_weights(folder, planned)
        config.save_pretrained(folder)
        generation_config(config).save_pretrained(folder)
        processor.save_pretrained(folder)


def generation_config(config: LlavaConfig) -> GenerationConfig:
    """Keep generation from writing tokens that the original model does not have.

    Args:
        config: Converted.

    Returns:
        Ids of the special tokens, and those that are suppressed.
    """
    text: Any = config.text_config
    first_added: int = vars(config)["real_vocab_size"]
    unused = {*range(first_added, text.vocab_size), config.image_token_index}
    return GenerationConfig(
        bos_token_id=text.bos_token_id,
        eos_token_id=text.eos_token_id,
        pad_token_id=text.pad_token_id,
        suppress_tokens=sorted(unused),
    )
