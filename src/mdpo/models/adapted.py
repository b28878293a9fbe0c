"""Load what was trained: a model, or adapters on their base; and fold adapters in."""

import hashlib
import json
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel

from mdpo.models.loading import load_model


def base_of(adapter: Path) -> str:
    """Look up which model adapters were trained on.

    Args:
        adapter: Their folder.

    Returns:
        Folder or hub id.

    Raises:
        FileNotFoundError: If the folder holds no adapters.
    """
    path = adapter / "adapter_config.json"
    if not path.exists():
        raise FileNotFoundError(f"{adapter} holds no adapters: adapter_config.json is missing.")
    return str(json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"])


def weights_fingerprint(name: str | Path) -> str:
    """Hash the weights in a folder, so that answers can be told by the weights that gave them.

    Args:
        name: Folder of a model or of adapters, or a hub id.

    Returns:
        Hash of all safetensors files; for a hub id the id itself.
    """
    files = sorted(Path(name).glob("*.safetensors"))
    if not files:
        return str(name)
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()


def load_adapted(
    model: str | Path | None, adapter: Path | None, *, dtype: str = "auto"
) -> PreTrainedModel | PeftModel:
    """Load a model, with adapters if given.

    Args:
        model: Folder or hub id; None takes the base that the adapters name.
        adapter: Folder of adapters, or None.
        dtype: Of the weights.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: If neither is given.
    """
    if model is None and adapter is None:
        raise ValueError("`--model` or `--adapter` must be given.")
    base = load_model(model or base_of(Path(str(adapter))), dtype=dtype)
    if adapter is None:
        return base.eval()
    base_of(adapter)
    return PeftModel.from_pretrained(base, str(adapter)).eval()


def merge_adapter(adapter: Path, out: Path, *, model: str | Path | None, dtype: str) -> None:
    """Fold adapters into the weights of their base and save the result.

    Args:
        adapter: Folder of adapters, with the processor they were trained with.
        out: Folder to write.
        model: Base; None takes the one that the adapters name.
        dtype: Of the weights.

    Raises:
        ValueError: If ``out`` is the folder of the adapters.
    """
    from mdpo.models.processors import load_processor

    if out.resolve() == adapter.resolve():
        raise ValueError(f"`--out` must be another folder than the adapters', got {out}.")
    adapted = load_adapted(model, adapter, dtype=dtype)
    assert isinstance(adapted, PeftModel)
    merged = adapted.merge_and_unload(safe_merge=True)  # pyright: ignore[reportCallIssue]
    merged.save_pretrained(out)
    load_processor(adapter).save_pretrained(out)
