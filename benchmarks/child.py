"""One measured process: builds a side, does steps to warm up, then timed steps."""

import gc
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import Trainer
from transformers.utils import logging

from geometry import RowLengths, make_model, make_processor, make_rows
from mdpo import MDPOTrainer
from measure import (
    Traffic,
    machine_facts,
    memory_in_use,
    nominal_rate,
    peak_memory,
    peak_rate,
    reset_peak_memory,
    seconds_of,
)
from planned import planned_bytes_above_model
from roofline import Work, necessary_rows, necessary_work
from sides import SIDES, RunSpec, make_trainer, missing_settings


def measure(spec: RunSpec) -> dict[str, Any]:
    """Measure one side.

    Args:
        spec: Which side, and its settings.

    Returns:
        What was measured, ready for JSON.
    """
    quieten()
    if spec.device == "cpu":
        torch.set_num_threads(spec.threads)
    geometry = spec.geometry
    rows, lengths = make_rows(geometry, spec.num_rows, seed=spec.seed)
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(geometry, device=spec.device, seed=spec.seed)
        traffic = Traffic()
        traffic.watch(model)
        trainer = make_trainer(spec, model, make_processor(geometry), rows, Path(folder))
        del rows
        filled = fill_reference(trainer, spec)
        if spec.only_fill:
            return {"side": spec.side, "fill_seconds": filled, "rows": spec.num_rows}
        batches, collation = collate(trainer, spec)
        prepare_for_steps(trainer, spec)
        measured = time_steps(trainer, batches, traffic, spec)
        planned = plan(trainer, spec, Path(folder))

    first, end = spec.timed_batches.start, spec.timed_batches.stop
    timed = lengths[first * spec.batch_size : end * spec.batch_size]
    work = necessary(spec, timed)
    rate = peak_rate(spec.device)
    seconds = sum(measured["step_seconds"])
    nominal = nominal_rate() if spec.device == "cuda" else None
    return {
        "side": spec.side,
        "round": spec.round,
        **measured,
        "planned_bytes_above_model": planned,
        "collation_seconds": collation,
        "reference_seconds": filled,
        "peak_rate": rate,
        "necessary_flops": work.total,
        "useful_flops": work.useful,
        "roofline": work.total / rate / seconds,
        "mfu": work.useful / nominal / seconds if nominal else None,
        "missing_settings": missing_settings(spec),
        "machine": machine_facts(spec.device, spec.threads),
    }


def plan(trainer: Trainer, spec: RunSpec, folder: Path) -> int | None:
    """Ask ``mdpo plan`` for the memory of the rows that were measured.

    Args:
        trainer: Of the side.
        spec: Its settings.
        folder: For what is written.

    Returns:
        Bytes above the model; None where there is no plan.
    """
    if not isinstance(trainer, MDPOTrainer):
        return None
    batches = [*range(spec.warm_up), *spec.timed_batches]
    places = [index * spec.batch_size + k for index in batches for k in range(spec.batch_size)]
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    processor: Any = trainer.processing_class
    rows, _ = make_rows(spec.geometry, spec.num_rows, seed=spec.seed)
    dataset = Dataset.from_list([rows[place] for place in places])
    return planned_bytes_above_model(spec, model, processor, dataset, folder / "plan")


def quieten() -> None:
    """Keep libraries from writing on what the parent reads."""
    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def necessary(spec: RunSpec, lengths: list[RowLengths]) -> Work:
    """Count the work that the timed steps cannot do without.

    Args:
        spec: Which side, and its settings.
        lengths: Of the rows of the timed steps.

    Returns:
        Floating-point operations of all timed steps together.
    """
    side = SIDES[spec.side]
    rows = necessary_rows(side.objective, lengths)
    return necessary_work(
        spec.geometry,
        rows,
        images=len(rows) * spec.geometry.text.images,
        rank=spec.rank,
        online_reference=not side.cached,
        checkpointing=spec.checkpointing,
    )


def fill_reference(trainer: Trainer, spec: RunSpec) -> float | None:
    """Compute the reference log-probabilities of all rows, or find them in the cache.

    Args:
        trainer: Of the side.
        spec: Its settings.

    Returns:
        Seconds; None for a side that has no cache.
    """
    fill = getattr(trainer, "precompute_reference", None)
    if not SIDES[spec.side].cached or fill is None:
        return None
    return seconds_of(fill, device=spec.device)


def collate(trainer: Trainer, spec: RunSpec) -> tuple[list[Any], float]:
    """Collate the batches to warm up with, and those of this round.

    Args:
        trainer: Of the side.
        spec: Its settings.

    Returns:
        Batches on the CPU, and seconds per batch.
    """
    batches: list[Any] = []
    dataset: Any = trainer.train_dataset

    def collate_one(index: int) -> None:
        start = index * spec.batch_size
        rows = [dataset[row] for row in range(start, start + spec.batch_size)]
        batches.append(trainer.data_collator(rows))

    indices = [*range(spec.warm_up), *spec.timed_batches]
    seconds = [
        seconds_of(lambda index=index: collate_one(index), device="cpu") for index in indices
    ]
    return batches, sum(seconds) / len(seconds)


def prepare_for_steps(trainer: Trainer, spec: RunSpec) -> None:
    """Do what ``Trainer.train`` does before its first step.

    Args:
        trainer: Changed in place.
        spec: Its settings.
    """
    model: Any = trainer.model
    if spec.checkpointing:
        model.activation_checkpointing_enable(
            activation_checkpointing_kwargs={"use_reentrant": False}
        )
    trainer.create_optimizer()
    model, trainer.optimizer = trainer.accelerator.prepare(model, trainer.optimizer)
    trainer.model = trainer.model_wrapped = model
    trainer.current_gradient_accumulation_steps = 1


def time_steps(
    trainer: Trainer, batches: list[Any], traffic: Traffic, spec: RunSpec
) -> dict[str, Any]:
    """Do the steps.

    Args:
        trainer: Prepared.
        batches: From ``collate``.
        traffic: Watches the model.
        spec: Settings of the side.

    Returns:
        Times, traffic per pair, memory, losses, and the number of trained parameters.
    """
    losses: list[float] = []
    wrapped: Any = trainer.model_wrapped

    def step(batch: Any) -> None:
        optimizer: Any = trainer.optimizer
        loss = trainer.training_step(wrapped, batch)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())

    gc.collect()
    reset_peak_memory(spec.device)
    built = memory_in_use(spec.device)
    warming, timed = batches[: spec.warm_up], batches[spec.warm_up :]
    warm_up = [seconds_of(lambda batch=batch: step(batch), device=spec.device) for batch in warming]
    traffic.reset()
    gc.collect()
    reset_peak_memory(spec.device)
    seconds = [seconds_of(lambda batch=batch: step(batch), device=spec.device) for batch in timed]
    peak = peak_memory(spec.device)
    pairs = len(timed) * spec.batch_size
    model = trainer.accelerator.unwrap_model(trainer.model)
    assert isinstance(model, PeftModel)
    return {
        "step_seconds": seconds,
        "warm_up_seconds": warm_up,
        "tokens_per_pair": traffic.tokens / pairs,
        "images_per_pair": traffic.images / pairs,
        "peak_bytes": peak,
        "peak_bytes_above_model": peak - built,
        "loss": losses[spec.warm_up :],
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
