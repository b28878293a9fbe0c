"""Fingerprints: what weights, a processor or a set of facts are, in a few characters."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper, get_peft_model_state_dict
from torch import Tensor, nn

from mdpo.models.policy import PEFT_PREFIX

UNTOLD = ("base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "peft_version")
"""Fields of an adapter's config that say nothing of what it computes."""

BLOCK = 1 << 26
"""Elements that are copied to main memory at a time."""


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Hash facts.

    Args:
        facts: What JSON can hold.

    Returns:
        32 hexadecimal digits; the order of keys changes nothing.
    """
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def weights_of(model: nn.Module) -> str:
    """Hash the weights of a model as it is without its adapters.

    Args:
        model: With or without adapters; on any device.

    Returns:
        32 hexadecimal digits: of names, types, shapes and bytes of all parameters and buffers
        that are saved. A model whose adapters are switched off has those of the bare model.
    """
    return _tensors_digest(_without_adapters(model))


def adapters_of(model: PeftModel) -> str:
    """Hash the adapters of a model: their weights, and the settings that scale them.

    Args:
        model: With adapters.

    Returns:
        32 hexadecimal digits.
    """
    config = model.peft_config[str(model.active_adapter)].to_dict()
    facts = {key: _as_json(each) for key, each in config.items() if key not in UNTOLD}
    tensors: dict[str, Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return fingerprint({"config": facts, "weights": _tensors_digest(tensors.items())})


def processor_fingerprint(processor: Any) -> str:
    """Hash a processor by the files it saves.

    Args:
        processor: With ``save_pretrained``.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=16)
    with TemporaryDirectory() as folder:
        processor.save_pretrained(folder)
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


def _without_adapters(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a model, adapters left out and their shells taken off the names."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(base, nn.Module)
    shells = {
        name: "base_layer" if isinstance(each, BaseTunerLayer) else "original_module"
        for name, each in base.named_modules()
        if isinstance(each, (BaseTunerLayer, ModulesToSaveWrapper))
    }
    for name, each in base.state_dict(keep_vars=True).items():
        plain = name
        owner = next((shell for shell in shells if name.startswith(f"{shell}.")), None)
        if owner is not None:
            inner = f"{owner}.{shells[owner]}."
            if not name.startswith(inner):
                continue
            plain = f"{owner}.{name.removeprefix(inner)}"
        yield plain.removeprefix(PEFT_PREFIX), each


def _tensors_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Hash tensors with their names, types and shapes, in the order of the names."""
    named = sorted(tensors, key=lambda pair: pair[0])
    # Hashing lets go of the interpreter lock.
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(lambda pair: _tensor_digest(pair[1]), named))
    lines = [
        f"{name} {each.dtype} {tuple(each.shape)} {digest}"
        for (name, each), digest in zip(named, digests, strict=True)
    ]
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def _as_json(value: Any) -> Any:
    """Write a setting so that equal ones look equal: sets have no order of their own."""
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return value if isinstance(value, (str, int, float, bool, list, type(None))) else str(value)


def _tensor_digest(tensor: Tensor) -> str:
    """Hash the bytes of a tensor, block by block."""
    digest = hashlib.blake2b(digest_size=16)
    for block in tensor.detach().flatten().split(BLOCK):
        digest.update(block.contiguous().cpu().view(torch.uint8).numpy().data)
    return digest.hexdigest()
