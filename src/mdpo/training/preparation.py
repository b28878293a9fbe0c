"""From settings and a source of rows to a checked data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from PIL import Image
from torch import nn
from transformers.utils.import_utils import is_liger_kernel_available

from mdpo.data.batch import Inputs
from mdpo.data.dataset import ImageCondition, PreferenceDataset
from mdpo.data.encoding import Encoder, TokenCounter
from mdpo.data.reading import Rows
from mdpo.data.report import DataReport, check_rows
from mdpo.data.sources import RawData, load_raw
from mdpo.training.config import MDPOConfig

SMALL = (224, 160)
"""Width and height of a picture that is quick to encode."""


def make_encoder(processor: Any, args: MDPOConfig) -> Encoder:
    """Make what renders and tokenizes rows as the settings say.

    Args:
        processor: Of the model.
        args: Settings of the run.

    Returns:
        The encoder.
    """
    options: Any = args.chat_template_kwargs
    return Encoder(processor, chat_template_kwargs=options)


def blank_prompt(encoder: Encoder) -> Inputs:
    """Encode a prompt with one small blank picture.

    Args:
        encoder: Of the model.

    Returns:
        What the model's ``forward`` takes.
    """
    content = [{"type": "image"}, {"type": "text", "text": "What is shown?"}]
    text = encoder.prompt_text([{"role": "user", "content": content}])
    return encoder.prompts([text], [[Image.new("RGB", SMALL)]])


def refuse_devices(model: Any, args: MDPOConfig) -> None:
    """Refuse devices that a run cannot use together.

    Args:
        model: As loaded.
        args: Settings of the run.

    Raises:
        ValueError: If one process would split batches over several GPUs, or several processes
            would each spread the model over all of them.
    """
    spread = len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1
    if args.n_gpu > 1 and not spread:
        raise ValueError(
            f"One process sees {args.n_gpu} GPUs, and a packed batch cannot be split between "
            "them. Take one process per GPU: `accelerate launch -m mdpo train ...`, or show "
            "one GPU only: CUDA_VISIBLE_DEVICES=0."
        )
    if args.world_size > 1 and spread:
        raise ValueError(
            f"`device_map` spreads the model over several devices in each of {args.world_size} "
            "processes. Leave it out, or start one process: mdpo train ..."
        )


def refuse_liger(args: MDPOConfig) -> None:
    """Refuse Liger kernels where they cannot run; transformers alone finds out later.

    Args:
        args: Settings of the run.

    Raises:
        ValueError: If they are asked for without their package, or without a GPU.
    """
    if not args.use_liger_kernel:
        return
    if not is_liger_kernel_available():
        raise ValueError(
            "`use_liger_kernel` true needs the package liger-kernel, which is not installed. "
            "Install it: pip install liger-kernel, or leave the setting out."
        )
    if args.device.type == "cpu":
        raise ValueError(
            "`use_liger_kernel` true needs a GPU, and this run is on the CPU. Leave it out."
        )


def prepare_dataset(
    source: Any,
    args: MDPOConfig,
    *,
    encoder: Encoder,
    image_slots: Sequence[str],
    context: int | None,
    split: str,
) -> tuple[PreferenceDataset, DataReport]:
    """Read and check a source, and refuse or drop what cannot be trained on.

    Args:
        source: A ``datasets.Dataset``, a list of rows, a path, a hub id, or ``RawData``.
        args: Settings of the run.
        encoder: Of the model.
        image_slots: Image slots that candidates need.
        context: Positions the model has.
        split: Of the data, for messages and for a source that has several.

    Returns:
        The data set of the good rows, and the report on all of them.

    Raises:
        ValueError: If rows are bad and ``on_bad_row`` is error, or if no row is good.
    """
    raw = source if isinstance(source, RawData) else load_raw(source)
    rows = Rows(raw)
    root = Path(args.image_root) if args.image_root else rows.root
    rejected_image = args.make_rejected_image_source()
    report = check_rows(
        rows,
        image_root=root,
        counter=TokenCounter(encoder),
        max_length=args.max_length,
        context=context,
        needs_rejected_images=rejected_image == "provided" and "rejected" in image_slots,
        with_images=args.image_condition != "none",
        show_progress=not args.disable_tqdm,
    )
    if report.problems and args.on_bad_row == "error":
        listed = "\n".join(report.problem_lines())
        raise ValueError(
            f"{len(report.problems)} of {report.num_rows} rows of the {split} data cannot be "
            f"trained on:\n{listed}\n`--on_bad_row skip` drops and lists them."
        )
    if not report.good:
        raise ValueError(f"No row of the {split} data ({report.source}) can be trained on.")
    if not report.with_images and "rejected" in image_slots and args.image_condition != "none":
        raise ValueError(
            f"The {split} data ({report.source}) has no row with an image, so nothing can be "
            "compared by image. Take objective dpo and `image_condition` none."
        )
    dataset = PreferenceDataset(
        rows,
        image_root=root,
        rejected_image=rejected_image,
        seed=args.data_seed if args.data_seed is not None else args.seed,
        per_epoch=args.corruption_per_epoch,
        image_condition=cast(ImageCondition, args.image_condition),
        image_slots=image_slots,
        indices=report.good,
        donors=report.with_images,
        lengths=[sum(each) for each in report.row_tokens],
        digests=report.digests,
    )
    return dataset, report


def longest_context(model: nn.Module | None) -> int | None:
    """Look up how many positions a model has.

    Args:
        model: With a config, wrapped by adapters or not.

    Returns:
        Number of tokens, or None if its config does not say.
    """
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return getattr(text, "max_position_embeddings", None)
