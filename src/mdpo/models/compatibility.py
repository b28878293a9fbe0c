"""What does not go together, found before compute is spent: model, processor, adapters."""

import inspect
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import torch
from peft import LoraConfig, PeftConfig
from peft.tuners.tuners_utils import check_target_module_exists
from torch import Tensor, nn
from transformers import PreTrainedModel

from mdpo.models.parts import Parts, linear_targets
from mdpo.models.quantization import is_quantized

ALL_LINEAR = "all-linear"
REMEDY = "Take the processor of the model: AutoProcessor.from_pretrained of the same folder."

UNUSABLE = (ValueError, RuntimeError, IndexError, TypeError, AttributeError, KeyError)
"""How a model says that it does not take an image as it was processed."""

SHOWN = 3
"""Names in a message, at most."""


class _CannotEncodeError(ValueError):
    """A model does not take an image as it was processed."""


def check_trains_adapters(model: PreTrainedModel) -> None:
    """Refuse to train quantized weights themselves.

    Args:
        model: Without adapters, all of whose weights are to be trained.

    Raises:
        ValueError: If its weights are quantized.
    """
    if is_quantized(model):
        raise ValueError(
            f"The weights of {model.config._name_or_path!r} are quantized, and quantized weights "
            "cannot be trained. Train adapters on them (`use_peft` true, or a `peft_config`), or "
            "leave `load_in_4bit` and `load_in_8bit` out."
        )


def check_targets(
    model: PreTrainedModel, config: PeftConfig, parts: Parts, *, frozen: set[str]
) -> None:
    """Refuse LoRA targets that match nothing, or reach what is to stay frozen.

    Args:
        model: Without adapters.
        config: Of the adapters; other kinds than LoRA are not looked at.
        parts: Of the model.
        frozen: Names of parts that are not trained.

    Raises:
        ValueError: With the names that are matched, and a pattern to take instead.
    """
    if not isinstance(config, LoraConfig) or config.target_modules is None:
        return
    targets = config.target_modules
    matched = [
        name for name, each in model.named_modules() if _is_target(model, config, name, each)
    ]
    empty = [] if isinstance(targets, str) else [each for each in targets if not _ends(model, each)]
    if empty or (not matched and not config.target_parameters):
        _refuse_no_match(model, parts, sorted(empty) or [str(targets)])
    reached = [name for name in matched if parts.part_of(name) in frozen]
    if reached:
        part = parts.part_of(reached[0])
        others = {"vision_tower", "projector", "language_model"} - frozen
        raise ValueError(
            f"`lora_target_modules` (`target_modules` of a `peft_config`) {_shown(targets)} reach "
            f"{_listed(reached)}, but the {part} is to stay frozen. Take "
            f"{_narrowed(model, parts, targets, others)!r} instead, leave them out to adapt all "
            f"linear layers that are not frozen, or set `{_flag(part)}` to false."
        )


def check_tokenizer(model: PreTrainedModel, processor: Any) -> None:
    """Refuse a tokenizer without the image token, or with tokens that the model does not have.

    Args:
        model: Without adapters.
        processor: With a tokenizer.

    Raises:
        ValueError: In either case.
    """
    tokenizer = processor.tokenizer
    token, ids = getattr(processor, "image_token", None), tokenizer.get_vocab()
    if token is not None and str(token) not in ids:
        raise ValueError(
            f"`processing_class`: the tokenizer of {type(processor).__name__} has no token "
            f"{str(token)!r}, which stands for images. {REMEDY}"
        )
    rows = _rows_of_embedding(model)
    if rows is not None and (largest := max(ids.values())) >= rows:
        beyond = tokenizer.convert_ids_to_tokens(largest)
        raise ValueError(
            f"`processing_class`: the tokenizer has token {largest} ({beyond!r}), but the "
            f"embedding of {type(model).__name__} has {rows} rows only. {REMEDY} If tokens were "
            "added on purpose, call `model.resize_token_embeddings` first."
        )


def check_image_token(model: PreTrainedModel, processor: Any, inputs: Mapping[str, Any]) -> None:
    """Refuse a processor that writes images as another token than the model looks for.

    Args:
        model: Without adapters.
        processor: That made the inputs.
        inputs: Of one prompt with one image.

    Raises:
        ValueError: If the model's image token is not among the tokens.
    """
    wanted = image_token_of(model)
    if wanted is None or bool((inputs["input_ids"] == wanted).any()):
        return
    raise ValueError(
        f"`processing_class`: {type(model).__name__} puts images where token {wanted} "
        f"({processor.tokenizer.convert_ids_to_tokens(wanted)!r} of this tokenizer) stands, but "
        f"{type(processor).__name__} writes none of these for an image. {REMEDY}"
    )


@torch.no_grad()
def check_image_features(model: PreTrainedModel, processor: Any, inputs: Mapping[str, Any]) -> None:
    """Encode one image, and refuse a processor that leaves room for another number of features.

    Args:
        model: Without adapters, on its device.
        processor: That made the inputs.
        inputs: Of one prompt with one image.

    Raises:
        ValueError: If the model cannot encode the image as it was processed, or makes more or
            fewer features of it than the prompt has image tokens.
    """
    encode, token = getattr(model, "get_image_features", None), image_token_of(model)
    if encode is None or token is None:
        return
    remedy = f"{_contradictions(model, processor)}{REMEDY}"
    try:
        num_features = _count_features(encode, model, inputs)
    except _CannotEncodeError as error:
        raise ValueError(
            f"`processing_class`: {type(model).__name__} cannot encode an image as "
            f"{type(processor).__name__} prepares it ({error}). {remedy}"
        ) from error
    num_tokens = int((inputs["input_ids"] == token).sum())
    if num_tokens != num_features:
        raise ValueError(
            f"`processing_class`: {type(processor).__name__} writes {num_tokens} image tokens for "
            f"an image of which {type(model).__name__} makes {num_features} features. {remedy}"
        )


def image_token_of(model: PreTrainedModel) -> int | None:
    """Look up which token a model replaces by image features.

    Args:
        model: Without adapters.

    Returns:
        Its id, or None if the config does not say.
    """
    config: Any = model.config
    names = ("image_token_id", "image_token_index")
    return next((i for name in names if isinstance(i := getattr(config, name, None), int)), None)


def _is_target(model: PreTrainedModel, config: LoraConfig, name: str, module: nn.Module) -> bool:
    """Whether LoRA goes on a module."""
    if config.target_modules == ALL_LINEAR:
        return isinstance(module, nn.Linear) and module is not model.get_output_embeddings()
    return bool(name and check_target_module_exists(config, name))


def _ends(model: PreTrainedModel, suffix: str) -> bool:
    """Whether the name of any module is, or ends in, a suffix."""
    return any(name == suffix or name.endswith(f".{suffix}") for name, _ in model.named_modules())


def _refuse_no_match(model: PreTrainedModel, parts: Parts, targets: list[str]) -> None:
    """Refuse targets that no module has, and name those that it has."""
    root = parts.language_model
    suffixes = dict.fromkeys(
        name.rsplit(".", 1)[1]
        for name, each in model.named_modules()
        if isinstance(each, nn.Linear) and name.startswith(f"{root}.")
    )
    near = get_close_matches(targets[0], suffixes, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    if targets[0] in suffixes:
        hint = f" A text is a pattern on full names; a list is of ends of names: {targets}."
    raise ValueError(
        f"`lora_target_modules` (`target_modules` of a `peft_config`): {_shown(targets)} is no "
        f"module of {type(model).__name__}.{hint} The linear layers of its language model are "
        f"called {', '.join(suffixes)}; their full names begin with {root!r}. Leave the setting "
        "out to adapt all of them."
    )


def _narrowed(model: PreTrainedModel, parts: Parts, targets: Any, adapted: set[str]) -> str:
    """Write the pattern that does what suffixes were meant to, within the adapted parts."""
    if isinstance(targets, str) or adapted != {"language_model"}:
        return linear_targets(model, parts, adapted)
    root = parts.language_model.replace(".", r"\.")
    return rf"{root}\..*\.({'|'.join(sorted(targets))})"


def _flag(part: str) -> str:
    """Setting that freezes a part."""
    return {"projector": "freeze_multi_modal_projector"}.get(part, f"freeze_{part}")


def _shown(targets: str | Iterable[str]) -> str:
    """Write targets as a user does."""
    return repr(targets) if isinstance(targets, str) else ", ".join(map(repr, sorted(targets)))


def _listed(names: list[str]) -> str:
    """Write some names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _rows_of_embedding(model: PreTrainedModel) -> int | None:
    """Tokens that a model's embedding knows; None where its weights lie on other devices."""
    weight = getattr(model.get_input_embeddings(), "weight", None)
    return int(weight.shape[0]) if isinstance(weight, Tensor) and weight.numel() else None


def _count_features(encode: Any, model: PreTrainedModel, inputs: Mapping[str, Any]) -> int:
    """Run an image through tower and projector, and count what comes out."""
    tower: Any = model.get_encoder(modality="image")
    weight = next(each for each in tower.parameters() if each.is_floating_point())
    accepted = inspect.signature(encode).parameters
    images = {
        key: each.to(weight.device, weight.dtype if each.is_floating_point() else None)
        for key, each in inputs.items()
        if isinstance(each, Tensor) and key in accepted
    }
    try:
        pooled = encode(**images, return_dict=True).pooler_output
    except UNUSABLE as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise _CannotEncodeError(f"{type(error).__name__}: {error}") from error
    parts = [pooled] if isinstance(pooled, Tensor) else list(pooled)
    return sum(each.shape[:-1].numel() for each in parts)


def _contradictions(model: PreTrainedModel, processor: Any) -> str:
    """Say where the sizes of a processor and of a model differ."""
    vision: Any = getattr(model.config, "vision_config", None)
    images = processor.image_processor
    size = getattr(images, "crop_size", None) or getattr(images, "size", None) or {}
    pairs = (
        ("patch_size", getattr(processor, "patch_size", None), "patch_size"),
        ("image_processor.patch_size", getattr(images, "patch_size", None), "patch_size"),
        ("image_processor.merge_size", getattr(images, "merge_size", None), "spatial_merge_size"),
        ("image_processor.size", dict(size).get("height"), "image_size"),
    )
    differing = [
        f"`{name}` of the processor is {ours}, `vision_config.{theirs}` of the model {value}"
        for name, ours, theirs in pairs
        if isinstance(ours, int)
        and isinstance(value := getattr(vision, theirs, None), int)
        and ours != value
    ]
    return "; ".join(differing) + ". " if differing else ""
