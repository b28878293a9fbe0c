"""Load the processor of a model, also where torchvision is absent.

Processors of models that take videos too ask for a video processor, and those need torchvision.
Images do not: without torchvision the video part is left out, and everything else is the model's
own processor class.
"""

import inspect
import json
from pathlib import Path
from typing import Any

import transformers
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    processing_utils,
)
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils.hub import cached_file
from transformers.utils.import_utils import is_torchvision_available
from transformers.video_processing_utils import VideoProcessorMixin

VIDEO_FILE = "video_preprocessor_config.json"
PROCESSOR_FILE = "processor_config.json"

if not is_torchvision_available():
    # Processors look the class of their video part up in here, and without torchvision stop with an
    # AttributeError, because that look-up has no answer for it (transformers 5.23).
    processing_utils.transformers_module.VideoProcessorMixin = VideoProcessorMixin  # pyright: ignore[reportAttributeAccessIssue]


class NoVideos(VideoProcessorMixin):
    """Stands where a processor keeps its video processor, and refuses videos.

    Its attributes are the settings of the video processor that it stands for; saving writes these
    back, so that nothing is lost.
    """

    # SmolVLM's processor hands them on, whether there is a video or not.
    num_frames = None
    fps = None

    def __init__(self, **settings: Any) -> None:
        """Keep the settings."""
        super().__init__(**settings)
        self._settings = settings

    def __call__(self, videos: Any, **kwargs: Any) -> Any:
        """Refuse.

        Args:
            videos: Of any kind.
            **kwargs: Options.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "Videos need torchvision, which is not installed. Install it, or give images."
        )

    def to_dict(self) -> dict[str, Any]:
        """Write the settings down as they were read.

        Returns:
            The settings.
        """
        return dict(self._settings)


def load_processor(
    name: str | Path, *, revision: str | None = None, trust_remote_code: bool = False
) -> Any:
    """Load the processor of a vision-language model.

    Args:
        name: Folder, or id on the hub.
        revision: Branch, tag or commit on the hub.
        trust_remote_code: Whether code from the model's repository may run.

    Returns:
        The processor; where torchvision is absent and the processor takes videos too, one that
        takes images only.
    """
    if not is_torchvision_available() and not trust_remote_code:
        kind = _processor_class(name, revision)
        if kind is not None and "video_processor" in kind.get_attributes():
            return _images_only(kind, name, revision)
    return AutoProcessor.from_pretrained(
        name, revision=revision, trust_remote_code=trust_remote_code
    )


def _processor_class(name: str | Path, revision: str | None) -> Any:
    """Look up the processor class a model's files ask for; None where they name none."""
    named = _read(name, PROCESSOR_FILE, revision).get("processor_class")
    if named is not None:
        return getattr(transformers, named, None)
    try:
        config = AutoConfig.from_pretrained(name, revision=revision)
    except (OSError, ValueError):
        return None
    return PROCESSOR_MAPPING.get(type(config), None)


def _images_only(kind: Any, name: str | Path, revision: str | None) -> Any:
    """Put a processor together from its parts, without the one for videos."""
    settings, _ = kind.get_processor_dict(str(name), revision=revision)
    video = _read(name, VIDEO_FILE, revision) or settings.get("video_processor") or {}
    parts = {
        "tokenizer": lambda: AutoTokenizer.from_pretrained(name, revision=revision),
        "image_processor": lambda: AutoImageProcessor.from_pretrained(name, revision=revision),
        "video_processor": lambda: NoVideos(**video),
    }
    accepted = inspect.signature(kind.__init__).parameters
    wanted = [each for each in accepted if each in kind.get_attributes()]
    return kind.from_args_and_dict([parts[each]() for each in wanted], settings)


def _read(name: str | Path, file: str, revision: str | None) -> dict[str, Any]:
    """Read a JSON file of a model; nothing where there is none."""
    path = cached_file(
        str(name),
        file,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
