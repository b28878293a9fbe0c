"""Load what was trained: a model, or adapters on their base; and fold adapters in."""

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel

from mdpo.models.compatibility import check_targets
from mdpo.models.loading import load_model
from mdpo.models.parts import find_parts
from mdpo.models.quantization import is_quantized

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def base_of(adapter: Path) -> str:
    """Look up which model adapters were trained on.

    Args:
        adapter: Their folder.

    Returns:
        Folder or hub id.

    Raises:
        FileNotFoundError: If the folder holds no adapters.
    """  # noqa: DOC502 - raised where the file is read
    return str(_config_of(adapter)["base_model_name_or_path"])


def adapter_folder(name: str | Path) -> Path:
    """Find the folder of adapters; those on the hub are fetched, safetensors only.

    Args:
        name: Folder, or id on the hub.

    Returns:
        The folder; its two files are there.

    Raises:
        FileNotFoundError: If one of them is missing.
    """
    folder = Path(name)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(str(name), allow_patterns=[CONFIG, WEIGHTS]))
        except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
            raise FileNotFoundError(
                f"Adapters {str(name)!r}: no such folder, and nothing of that name could be had "
                "from the hub."
            ) from error
    _config_of(folder)
    if not (folder / WEIGHTS).exists():
        pickled = (folder / "adapter_model.bin").exists()
        raise FileNotFoundError(
            f"{folder} holds no {WEIGHTS}"
            + (
                ", only adapter_model.bin, which may run code when it is read. Load it where you "
                "trust it and save it again with peft: `save_pretrained` writes safetensors."
                if pickled
                else ". Take the folder that `save_model` wrote."
            )
        )
    return folder


def load_adapter(
    model: PreTrainedModel, name: str | Path, *, is_trainable: bool = False
) -> PeftModel:
    """Put saved adapters on a model, all of them and nothing else.

    Args:
        model: That they were made for; changed in place.
        name: Folder of the adapters, or id on the hub.
        is_trainable: Whether they are trained on.

    Returns:
        The model with its adapters.

    Raises:
        ValueError: If names or shapes in the file are not those of the model; peft alone only
            warns of missing tensors, and ignores those it does not know.
    """
    folder = adapter_folder(name)
    config = PeftConfig.from_pretrained(str(folder))
    made_for = f"Adapters {str(name)!r} were made for {config.base_model_name_or_path!r}"
    given = f"{type(model).__name__} {model.config._name_or_path!r}"
    try:
        check_targets(model, config, find_parts(model), frozen=set())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Found missing adapter keys")
            adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=is_trainable)
        found: Any = adapted.load_adapter(str(folder), "default", is_trainable=is_trainable)
    except (ValueError, RuntimeError, KeyError) as error:
        # peft lists every tensor; the first says it.
        head, *listed = str(error).splitlines()
        detail = " ".join([head, *(line.strip() for line in listed[:1])])
        more = f" ({len(listed) - 1} more)" if len(listed) > 1 else ""
        raise ValueError(
            f"{made_for} and do not fit {given}: {detail}{more} Name the model that they were made "
            "for."
        ) from error
    for what, names in (("lacks", found.missing_keys), ("does not know", found.unexpected_keys)):
        if names:
            who = "the file" if what == "lacks" else "the model"
            raise ValueError(
                f"{made_for} and do not fit {given}: {who} {what} {len(names)} tensors, the first "
                f"is {names[0]}. Name the model that they were made for."
            )
    return adapted


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
    if adapter is None:
        return load_model(str(model), dtype=dtype).eval()
    folder = adapter_folder(adapter)
    # The revision belongs to the name that stands beside it.
    revision = None if model is not None else _config_of(folder).get("revision")
    base = load_model(model or base_of(folder), revision=revision, dtype=dtype)
    return load_adapter(base, folder).eval()


def merge_adapter(adapter: Path, out: Path, *, model: str | Path | None, dtype: str) -> None:
    """Fold adapters into the weights of their base and save the result.

    Args:
        adapter: Folder of adapters, with the processor they were trained with.
        out: Folder to write.
        model: Base; None takes the one that the adapters name.
        dtype: Of the weights.

    Raises:
        ValueError: If ``out`` is the folder of the adapters, or the base is quantized.
    """
    from mdpo.models.processors import load_processor

    if out.resolve() == adapter.resolve():
        raise ValueError(f"`--out` must be another folder than the adapters', got {out}.")
    adapted = load_adapted(model, adapter, dtype=dtype)
    assert isinstance(adapted, PeftModel)
    if is_quantized(adapted):
        base = str(model or base_of(adapter))
        raise ValueError(
            f"{base!r} has quantized weights, and adapters folded into them would be rounded to "
            "their levels. Name the model they were made from with `--model`."
        )
    merged = adapted.merge_and_unload(safe_merge=True)  # pyright: ignore[reportCallIssue]
    merged.save_pretrained(out)
    load_processor(adapter).save_pretrained(out)


def _config_of(adapter: Path) -> dict[str, Any]:
    """Read what adapters were made with."""
    path = adapter / CONFIG
    if not path.exists():
        raise FileNotFoundError(f"{adapter} holds no adapters: {CONFIG} is missing.")
    return json.loads(path.read_text(encoding="utf-8"))
