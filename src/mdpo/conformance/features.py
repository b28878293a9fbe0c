"""Image features, as the model makes them, and the tokens that they take the place of."""

import inspect
from typing import Any

import torch
from torch import Tensor

from mdpo.conformance.subject import NotApplicable, Subject, image_token_id
from mdpo.data.batch import Inputs
from mdpo.scoring.images import image_inputs


def features_of(subject: Subject, inputs: Inputs) -> list[Tensor]:
    """Run images through vision tower and projector.

    Args:
        subject: Model and processor.
        inputs: Of a processor.

    Returns:
        Image features in one or several tensors; the last axis is the language model's width.

    Raises:
        NotApplicable: If the model has no image features that go in the places of tokens.
    """
    model = subject.model
    if not subject.takes_features:
        raise NotApplicable(f"{type(model).__name__} has no get_image_features")
    owner: Any = model if hasattr(model, "get_image_features") else model.base_model
    encode: Any = owner.get_image_features
    accepted = inspect.signature(encode).parameters
    given = {key: each for key, each in image_inputs(inputs).items() if key in accepted}
    output = encode(**given, return_dict=True)
    pooled = getattr(output, "pooler_output", output)
    return [pooled] if isinstance(pooled, Tensor) else list(pooled)


def num_features(subject: Subject, inputs: Inputs) -> int:
    """Count the features that images become.

    Args:
        subject: Model and processor.
        inputs: Of a processor, with images.

    Returns:
        How many tokens they fill.
    """
    with torch.no_grad():
        return sum(each.shape[:-1].numel() for each in features_of(subject, inputs))


def num_image_tokens(subject: Subject, inputs: Inputs) -> int:
    """Count image tokens.

    Args:
        subject: Model and processor.
        inputs: Of a processor.

    Returns:
        How many there are in all rows.
    """
    return int((inputs["input_ids"] == image_token_id(subject)).sum())
