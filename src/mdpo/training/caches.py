"""What a run keeps from step to step or from run to run: reference log-probabilities, features."""

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import logging

from mdpo.models.fingerprints import fingerprint, processor_fingerprint, weights_of
from mdpo.scoring.images import DiskCache, FeatureCache, MemoryCache, feature_bytes
from mdpo.scoring.reference_cache import LogpStore
from mdpo.training.config import MDPOConfig

UNTOLD = ("_name_or_path", "transformers_version")
"""Fields of a config that say nothing of what the model computes."""

logger = logging.get_logger(__name__)


def open_logp_store(
    args: MDPOConfig,
    model: Any,
    processor: Any,
    *,
    data_fingerprints: list[str],
    adapters: str | None = None,
) -> LogpStore:
    """Open the store of reference log-probabilities that belongs to a run.

    Args:
        args: Settings of the run.
        model: The reference; what adapters the policy has is left out.
        processor: Of the model.
        data_fingerprints: Of the run's data sets.
        adapters: Hash of the adapters that are part of the reference; None if there are none.

    Returns:
        The store; it may be empty.
    """
    root = Path(args.ref_cache_dir) if args.ref_cache_dir else cache_folder() / "reference"
    facts: dict[str, Any] = {
        "weights": weights_of(model),
        "config": _config_of(model),
        "processor": processor_fingerprint(processor),
        "computed in": "bfloat16" if args.bf16 else "float16" if args.fp16 else str(model.dtype),
        "corruption": args.corruption,
        "corruption_options": args.corruption_options,
        "corruption seed": args.seed if args.data_seed is None else args.data_seed,
        "image_condition": args.image_condition,
        "max_length": args.max_length,
        "versions": {name: version(name) for name in ("multimodal-dpo", "transformers")},
    }
    if args.corruption == "random_image" or args.image_condition == "swapped":
        # Which image is borrowed depends on all rows of the set.
        facts["data"] = data_fingerprints
    if adapters is not None:
        facts["adapters"] = adapters
    if args.chat_template_kwargs:
        facts["chat_template_kwargs"] = args.chat_template_kwargs
    return LogpStore(root, facts)


def open_feature_cache(
    args: MDPOConfig, model: PreTrainedModel, processor: Any, *, image_tokens: int
) -> FeatureCache | None:
    """Open the cache of image features that the settings ask for, and say how large it gets.

    Args:
        args: Settings of the run.
        model: The policy, without wrappers.
        processor: Of the model.
        image_tokens: Of all images of the run.

    Returns:
        The cache, or None.
    """
    if args.feature_cache == "none":
        return None
    size = feature_bytes(model, image_tokens * len(cached_slots(args))) / 2**30
    if args.feature_cache == "memory":
        logger.warning(f"Image features are kept in main memory: up to {size:.2f} GiB.")
        return MemoryCache()
    root = Path(args.feature_cache_dir) if args.feature_cache_dir else cache_folder() / "features"
    facts = {
        "weights": weights_of(model),
        "config": _config_of(model),
        "processor": processor_fingerprint(processor),
    }
    folder = root / fingerprint(facts)
    logger.warning(f"Image features are kept in {folder}: up to {size:.2f} GiB.")
    return DiskCache(folder)


def _config_of(model: Any) -> str:
    """Hash a model's config but for its origin: another rotary base makes another model."""

    def told(values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {key: told(each) for key, each in values.items() if key not in UNTOLD}

    return fingerprint(told(json.loads(model.config.to_json_string(use_diff=False))))


def cached_slots(args: MDPOConfig) -> tuple[str, ...]:
    """Tell which image slots show the same images in each epoch.

    Args:
        args: Settings of the run.

    Returns:
        Names of slots.
    """
    return ("chosen",) if args.corruption_per_epoch else ("chosen", "rejected")


def cache_folder() -> Path:
    """Find the user's cache folder.

    Returns:
        ``mdpo`` in ``XDG_CACHE_HOME``, or in ``~/.cache``.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mdpo"
