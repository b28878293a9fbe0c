"""Encode once: each distinct image of a step goes through the vision tower once.

Policy and reference share the features as long as tower and projector are the same frozen weights
for both. A cache may keep the features of images that come again in the next epoch.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol
from weakref import WeakKeyDictionary

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from mdpo.data.batch import SEQUENCE_KEYS, Batch, Inputs
from mdpo.models.parts import find_parts

ImageFeatures = dict[str, Tensor]
"""What the language model takes of one image: ``pooled``, and ``deepstack.K`` where it has any."""


class FeatureCache(Protocol):
    """Features of images by the hash of their pixels."""

    def get(self, key: int) -> ImageFeatures | None:
        """Look up the features of an image; None if they are not there."""
        ...

    def put(self, key: int, features: ImageFeatures) -> None:
        """Keep the features of an image."""
        ...


class MemoryCache:
    """Features in main memory."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._features: dict[int, ImageFeatures] = {}

    def get(self, key: int) -> ImageFeatures | None:
        """Look up the features of an image; None if they are not there."""
        return self._features.get(key)

    def put(self, key: int, features: ImageFeatures) -> None:
        """Keep the features of an image."""
        self._features[key] = {name: each.cpu() for name, each in features.items()}


class DiskCache:
    """Features in files, one per image, shared between runs of the same weights."""

    def __init__(self, folder: Path) -> None:
        """Open a folder, which belongs to one set of weights and one processor."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: int) -> ImageFeatures | None:
        """Look up the features of an image; None if they are not there."""
        path = self._path(key)
        return load_file(path) if path.exists() else None

    def put(self, key: int, features: ImageFeatures) -> None:
        """Keep the features of an image; the file is there whole or not at all."""
        path = self._path(key)
        part = path.with_suffix(f".{id(self)}.part")
        save_file({name: each.contiguous().cpu() for name, each in features.items()}, part)
        part.replace(path)

    def _path(self, key: int) -> Path:
        """File of an image."""
        return self.folder / f"{key % 2**64:016x}.safetensors"


STANDARD_FIELDS = ("last_hidden_state", "pooler_output", "hidden_states", "attentions")
"""Of an output with image features; of these, ``pooler_output`` is what goes on."""

DEEPSTACK = "deepstack_features"
"""Features for inner layers of the decoder: by layer, those of all images."""

SHARED_FIELDS = ("visual_indicator_features",)
"""Fields that belong to the weights, not to an image."""


@dataclass(frozen=True)
class _Form:
    """How a model writes image features down.

    Attributes:
        output: Class of its output.
        pooled: Whether ``pooler_output`` lists images, stacks them, or strings their tiles.
        shared: Fields that are the same for all images.
    """

    output: type
    pooled: Literal["list", "stack", "tiles"]
    shared: dict[str, Any]


@dataclass(frozen=True)
class _Encoded:
    """Features of the images of one slot, in the order of the batch.

    Attributes:
        form: Of the model's own output.
        images: Of each image, or None where they cannot be told apart by image.
        whole: The model's own output, where ``images`` is None.
    """

    form: _Form
    images: list[ImageFeatures] | None
    whole: Any = None


class ImageEncoder:
    """Turns the images of a batch into what the language model takes.

    Attributes:
        policy: The trained model, without wrappers.
        is_frozen: Whether its tower and projector carry neither trained weights nor adapters.
        cache: Keeps features for later epochs; None keeps those of the current batch only.
        cached_slots: Image slots whose images come again.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        *,
        cache: FeatureCache | None = None,
        cached_slots: Sequence[str] = (),
    ) -> None:
        """Look at the policy's parts.

        Args:
            policy: The trained model, without wrappers.
            cache: Keeps features for later epochs.
            cached_slots: Image slots whose images come again.

        Raises:
            ValueError: If features are to be cached that training changes.
        """
        self.policy, self.cache, self.cached_slots = policy, cache, tuple(cached_slots)
        self.is_frozen = is_frozen_encoder(policy)
        if cache is not None and not self.is_frozen:
            raise ValueError(
                "`feature_cache` needs a frozen vision tower and projector: features of weights "
                "that are trained change at each step. Set it to none."
            )
        self._same: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()
        self._batch: Batch | None = None
        self._encoded: dict[str, _Encoded] = {}
        self._form: _Form | None = None

    def __call__(self, model: PreTrainedModel, batch: Batch, slots: Sequence[str]) -> Any:
        """Encode the images of some slots, each distinct one once.

        Args:
            model: Policy or reference, without wrappers.
            batch: From collation.
            slots: Image slots, in the order in which their rows stand.

        Returns:
            What ``mm_encoder_outputs["image"]`` takes, or None if there is no image.
        """
        if self._batch is not batch:
            self._batch, self._encoded = batch, {}
        encoded = [
            self._slot(model, batch, slot) for slot in slots if image_inputs(batch["prompts"][slot])
        ]
        return _joined(encoded) if encoded else None

    def separates(self, batch: Batch, slot: str) -> bool:
        """Find out whether features can be told apart by image.

        Only then is an image that stands in a batch twice encoded once, and can be cached.

        Args:
            batch: From collation.
            slot: With images.

        Returns:
            Whether they can.
        """
        with torch.no_grad():
            return self._slot(self.policy, batch, slot).images is not None

    def _slot(self, model: PreTrainedModel, batch: Batch, slot: str) -> _Encoded:
        """Encode the images of one slot, or take what is known of them."""
        if not self._shares(model):
            frozen = is_frozen_encoder(model)
            with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
                count = len(batch["image_keys"][slot])
                return _encode(model, batch["prompts"][slot], count, _units(batch, slot))
        # The policy's adapters lie outside of its frozen tower, so its features serve both.
        if slot not in self._encoded:
            with torch.no_grad():
                self._encoded[slot] = self._shared(batch, slot)
            self._form = self._encoded[slot].form
        return self._encoded[slot]

    def _shared(self, batch: Batch, slot: str) -> _Encoded:
        """Encode what neither this batch nor the cache has yet."""
        inputs, keys = batch["prompts"][slot], batch["image_keys"][slot]
        known = self._known(batch, slot)
        missing = [key for key in dict.fromkeys(keys) if key not in known]
        if not missing and self._form is None:
            # A cache of an earlier run says nothing about the form; one image does.
            missing = [keys[0]]
        if not missing:
            assert self._form is not None
            return _Encoded(self._form, [known[key] for key in keys])
        units = _units(batch, slot)
        places = [keys.index(key) for key in missing]
        chosen = select_images(inputs, places, len(keys), units)
        if chosen is None:
            return self._uncached(_encode(self.policy, inputs, len(keys), units), slot)
        chosen_units = None if units is None else [units[place] for place in places]
        encoded = _encode(self.policy, chosen, len(missing), chosen_units)
        if encoded.images is None:
            return self._uncached(_encode(self.policy, inputs, len(keys), units), slot)
        new = dict(zip(missing, encoded.images, strict=True))
        if self.cache is not None and slot in self.cached_slots:
            for key in missing:
                self.cache.put(key, new[key])
        return _Encoded(encoded.form, [(known | new)[key] for key in keys])

    def _uncached(self, encoded: _Encoded, slot: str) -> _Encoded:
        """Pass features on that cannot be told apart by image; they cannot be kept by image."""
        if self.cache is not None and slot in self.cached_slots:
            raise ValueError(
                f"`feature_cache` cannot keep features of {type(self.policy).__name__}: they "
                "cannot be told apart by image. Set it to none."
            )
        return encoded

    def _known(self, batch: Batch, slot: str) -> dict[int, ImageFeatures]:
        """Features of this slot's images that other slots or the cache have."""
        known: dict[int, ImageFeatures] = {}
        for other, encoded in self._encoded.items():
            known |= dict(zip(batch["image_keys"][other], encoded.images or [], strict=False))
        if self.cache is None or slot not in self.cached_slots:
            return known
        device = batch["rows"].device
        for key in set(batch["image_keys"][slot]) - set(known):
            if (found := self.cache.get(key)) is not None:
                known[key] = {name: each.to(device) for name, each in found.items()}
        return known

    def _shares(self, model: PreTrainedModel) -> bool:
        """Whether a model's image features are the policy's."""
        if not self.is_frozen:
            return False
        if model is self.policy:
            return True
        if model not in self._same:
            self._same[model] = same_encoder(self.policy, model)
        return self._same[model]


def image_inputs(prompt: Inputs) -> Inputs:
    """Take the inputs that belong to images.

    Args:
        prompt: Of a batch, for one slot.

    Returns:
        Pixels and what describes them; nothing for a slot without images.
    """
    return {key: value for key, value in prompt.items() if key not in SEQUENCE_KEYS}


def is_frozen_encoder(model: PreTrainedModel) -> bool:
    """Find out whether vision tower and projector stay as they are.

    Args:
        model: Without wrappers; adapters may be in it.

    Returns:
        Whether no weight of them is trained and no adapter lies in them.
    """
    parts = find_parts(model)
    image = ("vision_tower", "projector")
    return not any(
        each.requires_grad
        for name, each in model.named_parameters()
        if parts.part_of(name) in image
    ) and not any(
        isinstance(each, BaseTunerLayer)
        for name, each in model.named_modules()
        if parts.part_of(name) in image
    )


def same_encoder(one: PreTrainedModel, other: PreTrainedModel) -> bool:
    """Compare vision towers and projectors.

    Args:
        one: Without wrappers.
        other: Without wrappers.

    Returns:
        Whether both encode images with equal weights, neither of them trained.
    """
    if not is_frozen_encoder(other):
        return False
    weights = [_encoder_weights(one), _encoder_weights(other)]
    if weights[0].keys() != weights[1].keys():
        return False
    return all(
        a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b.to(a.device))
        for a, b in ((weights[0][name], weights[1][name]) for name in weights[0])
    )


def _encoder_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """Parameters and buffers of tower and projector."""
    parts = find_parts(model)
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: each for name, each in named if parts.part_of(name) != "language_model"}


def select_images(
    inputs: Inputs, chosen: Sequence[int], count: int, units: Sequence[int] | None = None
) -> Inputs | None:
    """Take some of the images of a slot.

    Args:
        inputs: Of a slot.
        chosen: Numbers of images, in the order of the rows.
        count: How many images there are.
        units: Rows of pixels that each image takes, where it is not one.

    Returns:
        Inputs of the chosen images, or None where they cannot be told apart.
    """
    images = image_inputs(inputs)
    if "pixel_attention_mask" in images:
        # Idefics lays pixels out by row of text, too.
        return None
    index = torch.tensor(chosen)
    grid = images.get("image_grid_thw")
    # Qwen lays the patches of all images end to end, InternVL their tiles.
    units = grid.prod(dim=-1).tolist() if grid is not None else units
    selected = {}
    for key, value in images.items():
        if units is not None and len(value) == sum(units):
            parts = value.split(list(units))
            selected[key] = torch.cat([parts[number] for number in chosen])
        elif len(value) == count:
            selected[key] = value[index.to(value.device)]
        else:
            return None
    return selected


def _units(batch: Batch, slot: str) -> list[int] | None:
    """Rows of pixels that each image of a slot takes, where it is not one."""
    return batch.get("image_units", {}).get(slot)


def _encode(
    model: PreTrainedModel, inputs: Inputs, count: int, units: Sequence[int] | None
) -> _Encoded:
    """Run images through tower and projector."""
    encode: Any = model.get_image_features
    accepted = inspect.signature(encode).parameters
    images = {key: each for key, each in image_inputs(inputs).items() if key in accepted}
    output = encode(**images, return_dict=True)
    pooled, kind = output.pooler_output, "stack"
    by_image: Sequence[Tensor] | None = pooled if len(pooled) == count else None
    if not isinstance(pooled, Tensor):
        kind = "list"
    elif units is not None and len(pooled) == sum(units):
        by_image, kind = pooled.split(list(units)), "tiles"
    extra = {name: each for name, each in output.items() if name not in STANDARD_FIELDS}
    form = _Form(type(output), kind, {each: extra.pop(each, None) for each in SHARED_FIELDS})
    if not set(extra) <= {DEEPSTACK}:
        raise NotImplementedError(f"image features of {type(model).__name__}: {', '.join(extra)}")
    # Idefics lists features by row of text, and a row may have several images or none.
    if by_image is None or "pixel_attention_mask" in images:
        return _Encoded(form, None, output)
    features = [{"pooled": each} for each in by_image]
    for layer, values in enumerate(extra.get(DEEPSTACK) or ()):
        for image, part in zip(features, _split(values, by_image), strict=True):
            image[f"deepstack.{layer}"] = part
    return _Encoded(form, features)


def _split(values: Tensor | Sequence[Tensor], images: Sequence[Tensor]) -> Sequence[Tensor]:
    """Split features of a layer by image, if they are not yet."""
    if not isinstance(values, Tensor):
        return values
    return values.split([each.shape[:-1].numel() for each in images])


def _joined(encoded: Sequence[_Encoded]) -> Any:
    """Put features of several slots in a row, in the form the model's own output has."""
    form = encoded[0].form
    shared = {name: each for name, each in form.shared.items() if each is not None}
    if any(each.images is None for each in encoded):
        if len(encoded) == 1:
            return encoded[0].whole
        return form.output(pooler_output=_joined_whole(encoded), **shared)
    images = [image for each in encoded for image in each.images or ()]
    pooled: Any = [image["pooled"] for image in images]
    if form.pooled == "stack":
        pooled = torch.stack(pooled)
    elif form.pooled == "tiles":
        pooled = torch.cat(pooled)
    layers = [name for name in images[0] if name.startswith("deepstack.")]
    if layers:
        shared[DEEPSTACK] = [[image[name] for image in images] for name in layers]
    return form.output(pooler_output=pooled, **shared)


def _joined_whole(encoded: Sequence[_Encoded]) -> Any:
    """Put features in a row that are not split by image in every slot."""
    parts = [_joined([each]).pooler_output for each in encoded]
    if encoded[0].form.pooled == "list":
        return [each for part in parts for each in part]
    if any(each.whole is not None and each.whole.get(DEEPSTACK) is not None for each in encoded):
        raise NotImplementedError("features for inner layers that cannot be told apart by image")
    return torch.cat(parts)


def feature_bytes(model: PreTrainedModel, image_tokens: int) -> int:
    """Work out what the features of images take.

    Args:
        model: Without wrappers.
        image_tokens: Of all images together.

    Returns:
        Bytes.
    """
    width = model.config.get_text_config().hidden_size
    vision = getattr(model.config, "vision_config", None)
    # Where inner layers of the tower reach into the decoder, each adds features of the same shape.
    inner = getattr(vision, "deepstack_visual_indexes", None) or ()
    dtype = next(model.parameters()).dtype
    return image_tokens * width * (1 + len(inner)) * dtype.itemsize
