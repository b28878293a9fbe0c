"""Checks of saving and loading: model, processor and adapters come back as they were."""

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from mdpo.conformance.invariances import judge
from mdpo.conformance.preserving import adapted, preserving
from mdpo.conformance.subject import CheckFailed, Finding, Subject, shown_names
from mdpo.conformance.tolerances import relative_difference
from mdpo.data.encoding import Encoder
from mdpo.models.loading import load_model
from mdpo.models.processors import load_processor


def model_comes_back(subject: Subject) -> Finding:
    """A saved model has the same weights and log-probabilities when it is loaded.

    Args:
        subject: Model and processor.

    Returns:
        Largest relative difference.
    """
    batches = {kind: subject.batch(rows) for kind, rows in subject.rows.items()}
    expected = {kind: subject.logps(batch) for kind, batch in batches.items()}
    with TemporaryDirectory() as folder:
        subject.model.save_pretrained(folder)
        attention = subject.model.config.get_text_config()._attn_implementation
        loaded: Any = load_model(
            folder,
            attn_implementation=attention,
            trust_remote_code=_is_remote(subject.model),
        )
        loaded = loaded.to(subject.model.device)
        _compare_weights(subject.model, loaded)
        differences = {
            kind: relative_difference(subject.logps(batch, model=loaded), expected[kind])
            for kind, batch in batches.items()
        }
    return judge(differences, subject.tolerances.logps, "saved and loaded log-probabilities")


def _compare_weights(model: PreTrainedModel, loaded: PreTrainedModel) -> None:
    """Refuse a loaded model whose tensors are not those that were saved."""
    saved, found = model.state_dict(), loaded.state_dict()
    for what, names in (
        ("lost", sorted(saved.keys() - found.keys())),
        ("new", sorted(found.keys() - saved.keys())),
        ("changed", [n for n in saved if n in found and not _is_same(saved[n], found[n])]),
    ):
        if names:
            raise CheckFailed(f"{what} by saving: {shown_names(names)}", float(len(names)))


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same type, shape and values."""
    return one.dtype == other.dtype and torch.equal(one, other.to(one.device))


def processor_comes_back(subject: Subject) -> Finding:
    """A saved processor gives the same ids and pixels when it is loaded.

    Args:
        subject: Model and processor.

    Returns:
        What was compared.

    Raises:
        CheckFailed: If it comes back as another class.
    """
    kind = type(subject.processor)
    with TemporaryDirectory() as folder:
        subject.processor.save_pretrained(folder)
        # Its class is looked up by the model's type, which the model's config says.
        subject.model.config.save_pretrained(folder)
        if kind.__module__.partition(".")[0] in ("transformers", "transformers_modules"):
            loaded = load_processor(folder, trust_remote_code=_is_remote(subject.processor))
            remark = "ids and pixels equal"
        else:
            loaded = kind.from_pretrained(folder)
            remark = f"ids and pixels equal; loaded by {kind.__name__}, not by AutoProcessor"
    if type(loaded) is not kind:
        raise CheckFailed(f"saved as {kind.__name__}, loaded as {type(loaded).__name__}")
    encoder = Encoder(loaded, chat_template_kwargs=subject.encoder.chat_template_kwargs)
    again = dataclasses.replace(subject, encoder=encoder)
    for kind_of_rows, rows in subject.collated.items():
        one, other = subject.batch(rows), again.batch(rows)
        for part in ("prompts", "responses"):
            for slot, inputs in one[part].items():
                _compare_inputs(f"{kind_of_rows}, {part} of {slot}", inputs, other[part][slot])
    return Finding(remark=remark)


def _compare_inputs(what: str, one: dict[str, Any], other: dict[str, Any]) -> None:
    """Refuse inputs that differ."""
    if one.keys() != other.keys():
        raise CheckFailed(
            f"{what}: {', '.join(sorted(one.keys() ^ other.keys()))} on one side only"
        )
    for name, value in one.items():
        if not torch.equal(value, other[name]):
            raise CheckFailed(f"{what}: {name} differs")


def adapters_come_back(subject: Subject) -> Finding:
    """Saved adapters give the same policy when they are put on the model again.

    Args:
        subject: Model and processor.

    Returns:
        Largest relative difference.

    Raises:
        CheckFailed: If they are saved as pickle.
    """
    batches = {kind: subject.batch(rows) for kind, rows in subject.rows.items()}
    with TemporaryDirectory() as folder:
        with adapted(subject, strong=True) as policy:
            expected = {kind: subject.logps(batch, model=policy) for kind, batch in batches.items()}
            # Embeddings are not adapted; whether they changed is not to be looked up on the hub.
            policy.save_pretrained(folder, save_embedding_layers=False)
        if list(Path(folder).glob("*.bin")):
            raise CheckFailed("adapters were saved as pickle")
        with preserving(subject.model):
            loaded = PeftModel.from_pretrained(subject.model, folder)
            differences = {
                kind: relative_difference(subject.logps(batch, model=loaded), expected[kind])
                for kind, batch in batches.items()
            }
    return judge(differences, subject.tolerances.logps, "saved and loaded adapters")


def _is_remote(part: object) -> bool:
    """Whether a class comes from a model's repository; then the user has agreed to run it."""
    return type(part).__module__.startswith("transformers_modules")
