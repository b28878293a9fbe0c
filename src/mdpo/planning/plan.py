"""What a run will take, said before it: tokens and steps, peak memory, time.

All is worked out from the model's config, the processor and the data: the model stands on the meta
device, so its weights may be absent, and no accelerator is needed.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mdpo.data.encoding import Encoder, TokenCounter
from mdpo.data.reading import Rows
from mdpo.data.report import MAX_LISTED
from mdpo.data.sources import load_raw
from mdpo.models.processors import load_processor
from mdpo.planning.model import MeasuredModel, Need, RunSettings, meta_model
from mdpo.planning.text import plan_lines
from mdpo.planning.tokens import (
    Counted,
    RowLengths,
    Schedule,
    count_rows,
    make_schedule,
    padded_tokens,
)
from mdpo.training.arguments import Settings
from mdpo.training.model_settings import ModelSettings
from mdpo.training.preparation import longest_context, make_encoder


@dataclass(frozen=True)
class Work:
    """What goes through the model.

    Attributes:
        policy_per_epoch: Tokens through the language model in training.
        policy_per_run: The same, of the whole run.
        reference_per_epoch: Tokens through the language model without gradient; 0 if they are
            scored once, before training.
        reference_per_run: The same, of the whole run.
        padded_per_run: Tokens of policy and reference with padding, about; equal to those without
            where rows are packed.
        images_per_pair: Images through the vision tower for one visit to one pair, a mean.
        images_per_run: The same, of the whole run.
    """

    policy_per_epoch: int
    policy_per_run: int
    reference_per_epoch: int
    reference_per_run: int
    padded_per_run: int
    images_per_pair: float
    images_per_run: int


@dataclass(frozen=True)
class Plan:
    """What a run will take.

    Attributes:
        model: Name of the model.
        data: Name of the data.
        objective: What is minimised.
        training: What is trained: ``LoRA r 64``, ``weights``.
        scorer: ``shared_prefix`` or ``plain``.
        dropped: Rows that cannot be trained on and are left out.
        schedule: Batches and steps.
        work: Tokens and images of the run.
        other_scorer: The scorer that the run does not use.
        other_work: Tokens and images if it did.
        longest_pass: Most tokens that go through the language model at once.
        longest_pass_pairs: Most pairs that go through it at once.
        parameters: Numbers by part: ``vision_tower``, ``projector``, ``language_model``, ``head``,
            ``adapters``, and ``trained`` among all of them.
        memory: Where the device's memory goes at its peak, in bytes.
        feature_cache: Where features of images are kept: none, memory or disk.
        feature_cache_bytes: What they take there.
        flops: Of matrix products of the run, all devices; None if they are not known.
        seconds: Expected time of the run; None without a measured rate.
    """

    model: str
    data: str
    objective: str
    training: str
    scorer: str
    dropped: int
    schedule: Schedule
    work: Work
    other_scorer: str
    other_work: Work
    longest_pass: int
    longest_pass_pairs: int
    parameters: dict[str, int]
    memory: tuple[Need, ...]
    feature_cache: str
    feature_cache_bytes: int
    flops: int | None
    seconds: float | None

    @property
    def peak_bytes(self) -> int:
        """Bytes of the memory table that are known."""
        return sum(each.num_bytes or 0 for each in self.memory)

    def to_dict(self) -> dict[str, Any]:
        """Write the plan as plain values.

        Returns:
            What JSON can hold.
        """
        complete = all(each.num_bytes is not None for each in self.memory)
        return asdict(self) | {
            "epochs": self.schedule.epochs,
            "peak_bytes": self.peak_bytes,
            "peak_is_complete": complete,
        }

    def lines(self) -> list[str]:
        """Write the plan for people, aligned.

        Returns:
            Lines of text.
        """
        return plan_lines(self)


def make_plan(
    settings: Settings, *, rate: float | None = None, devices: int = 1, processor: Any = None
) -> Plan:
    """Work out what a run will take.

    Args:
        settings: Of the run, as ``mdpo train`` takes them.
        rate: Measured rate of one device in matrix products, in 10^12 operations per second.
        devices: That train together, each with all of the model.
        processor: Of the model; None loads it.

    Returns:
        The plan.

    Raises:
        ValueError: If settings, model and data do not go together, or rows are bad and
            ``on_bad_row`` is error.
    """  # noqa: DOC502 - raised where each is read
    args, model_settings = settings.training, settings.model
    _refuse_quantized(model_settings)
    run = RunSettings.of(args)
    base = meta_model(
        model_settings.model_name_or_path,
        revision=model_settings.model_revision,
        dtype=model_settings.dtype,
        trust_remote_code=model_settings.trust_remote_code,
    )
    encoder = make_encoder(
        processor
        or load_processor(
            model_settings.model_name_or_path,
            revision=model_settings.model_revision,
            trust_remote_code=model_settings.trust_remote_code,
        ),
        args,
    )
    rows = _read(settings)
    counted = _count(rows, run, encoder, longest_context(base))
    schedule = make_schedule(
        len(counted.lengths),
        pairs_per_batch=args.per_device_train_batch_size,
        batches_per_step=args.gradient_accumulation_steps,
        epochs=args.num_train_epochs,
        max_steps=args.max_steps,
        drop_last=args.dataloader_drop_last,
        devices=devices,
    )
    model = MeasuredModel(base, model_settings, run, encoder, counted)
    reference = None
    if model_settings.ref_model_name_or_path is not None:
        reference = meta_model(
            model_settings.ref_model_name_or_path,
            revision=model_settings.ref_model_revision,
            dtype=model_settings.dtype,
            trust_remote_code=model_settings.trust_remote_code,
        )
    frozen = not model.trains_images
    other = replace(run, scorer="plain" if run.sharing else "shared_prefix")
    work = _work(run, counted, schedule, frozen=frozen)
    flops = model.flops(
        policy_visits=schedule.epochs,
        reference_visits=1 if run.precomputes else schedule.epochs,
        images=work.images_per_run,
    )
    return Plan(
        model=model_settings.model_name_or_path,
        data=rows.raw.name,
        objective=args.objective,
        training=_trained(model_settings),
        scorer=run.scorer,
        dropped=len(counted.problems),
        schedule=schedule,
        work=work,
        other_scorer=other.scorer,
        other_work=_work(other, counted, schedule, frozen=frozen),
        longest_pass=model.longest_pass,
        longest_pass_pairs=model.pairs,
        parameters=model.parameters(),
        memory=tuple(model.memory(reference, devices=devices)),
        feature_cache=run.feature_cache,
        feature_cache_bytes=model.feature_cache_bytes(),
        flops=flops,
        seconds=flops / (rate * 1e12 * devices) if rate and flops is not None else None,
    )


def _refuse_quantized(settings: ModelSettings) -> None:
    """Refuse to plan with quantized weights."""
    if settings.load_in_4bit or settings.load_in_8bit:
        name = "load_in_4bit" if settings.load_in_4bit else "load_in_8bit"
        raise ValueError(
            f"`{name}`: the memory of quantized weights is not modelled. Plan without it: tokens, "
            "steps and all memory but that of the language model's weights stay as they are."
        )


def _trained(settings: ModelSettings) -> str:
    """Say what is trained."""
    adapters = settings.adapters()
    if adapters is None:
        return "weights"
    kind = str(getattr(adapters.peft_type, "value", adapters.peft_type))
    rank = getattr(adapters, "r", None)
    return f"{kind.replace('LORA', 'LoRA')} r {rank}" if rank is not None else kind


def _read(settings: Settings) -> Rows:
    """Find the rows to train on."""
    data = settings.data
    return Rows(
        load_raw(
            data.dataset_name,
            split=data.dataset_train_split,
            config=data.dataset_config,
            revision=data.dataset_revision,
        )
    )


def _count(rows: Rows, run: RunSettings, encoder: Encoder, context: int | None) -> Counted:
    """Count the tokens of the rows; refuse bad ones unless they may be dropped."""
    args = run.args
    counted = count_rows(
        rows,
        TokenCounter(encoder),
        image_root=Path(args.image_root) if args.image_root else rows.root,
        slots=run.slots,
        max_length=args.max_length,
        context=context,
        needs_rejected_images=args.corruption == "provided" and "rejected" in run.slots,
        with_images=args.image_condition != "none",
        show_progress=not args.disable_tqdm,
    )
    if counted.problems and args.on_bad_row == "error":
        listed = "\n".join(counted.problems[:MAX_LISTED])
        raise ValueError(
            f"{len(counted.problems)} of {len(rows)} rows cannot be trained on:\n{listed}\n"
            "`--on_bad_row skip` drops and lists them."
        )
    if not counted.lengths:
        raise ValueError(f"No row of the data ({rows.raw.name}) can be trained on.")
    return counted


def _work(run: RunSettings, counted: Counted, schedule: Schedule, *, frozen: bool) -> Work:
    """Add up tokens and images; ``frozen`` says whether policy and reference share features."""
    lengths, candidates = counted.lengths, run.candidates
    if run.sharing:
        tokens = sum(each.shared(candidates) for each in lengths)
        padded = tokens
    else:
        tokens = sum(sum(each.plain(candidates)) for each in lengths)
        padded = padded_tokens(
            lengths,
            candidates,
            pairs_per_batch=schedule.pairs_per_batch,
            seed=run.args.seed,
        )
    visits = schedule.pairs_trained / schedule.pairs
    reference_visits = 1 if run.precomputes else visits
    once, again = _images(run, lengths)
    both = run.sharing and frozen
    if both and run.feature_cache != "none":
        images = once + again * (visits + run.precomputes)
    elif both:
        images = (once + again) * (visits + run.precomputes)
    else:
        images = (once + again) * (visits + reference_visits)
    per_visit = (once + again) * (1 if both or run.precomputes else 2)
    return Work(
        policy_per_epoch=tokens,
        policy_per_run=round(tokens * visits),
        reference_per_epoch=0 if run.precomputes else tokens,
        reference_per_run=round(tokens * reference_visits),
        padded_per_run=round(padded * (visits + reference_visits)),
        images_per_pair=per_visit / len(lengths),
        images_per_run=round(images),
    )


def _images(run: RunSettings, lengths: Sequence[RowLengths]) -> tuple[int, int]:
    """Count images for one visit to all pairs: those that a cache can keep, and the others."""
    slots = run.slots if run.sharing else tuple(each.image for each in run.candidates)
    drawn_anew = {"rejected"} if run.args.corruption_per_epoch else set()
    kept = sum(each.images[slot] for each in lengths for slot in slots if slot not in drawn_anew)
    anew = sum(each.images[slot] for each in lengths for slot in slots if slot in drawn_anew)
    return kept, anew
