"""What a run does at fixed moments: stop on a bad loss, move to the next epoch's draws, record."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mdpo.data.dataset import PreferenceDataset
from mdpo.data.report import DataReport
from mdpo.objectives import Objective
from mdpo.training.run_record import check_same_data, check_same_start, write_run_record


class FiniteLoss(TrainerCallback):
    """Stops a run before an update made from a loss that is not finite.

    The losses of an optimizer step are judged together, so that the device is waited for once per
    step, not once per forward pass.
    """

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self._is_finite: Tensor | None = None
        self._terms: dict[str, Tensor] = {}

    def watch(self, loss: Float[Tensor, ""], terms: Mapping[str, Float[Tensor, " b"]]) -> None:
        """Note the loss of one forward pass.

        Args:
            loss: The scalar that is minimised.
            terms: Losses per pair by term, for the message.
        """
        finite = torch.isfinite(loss.detach())
        self._is_finite = finite if self._is_finite is None else self._is_finite & finite
        for name, values in terms.items():
            mean = values.detach().nanmean()
            self._terms[name] = self._terms[name] + mean if name in self._terms else mean

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Judge the losses since the last update.

        Args:
            args: Settings.
            state: Of the run.
            control: Unused.
            **kwargs: Unused.

        Raises:
            RuntimeError: If one was not finite; no update has been made from it.
        """
        is_finite, terms = self._is_finite, self._terms
        self._is_finite, self._terms = None, {}
        if is_finite is None or bool(is_finite):
            return
        parts = ", ".join(f"{name}={value.item():.3g}" for name, value in terms.items())
        raise RuntimeError(
            f"Loss is not finite at step {state.global_step} (sum over the step's batches: "
            f"{parts}). Stopped before the update; the last good checkpoint in "
            f"{args.output_dir} is as it was. Lower `learning_rate`, or look at the data."
        )


class EpochDraws(TrainerCallback):
    """Tells the training set which epoch its rejected images are drawn for."""

    def __init__(self, dataset: Dataset[Any] | None) -> None:
        """Keep the training set."""
        self.dataset = dataset

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Set the epoch; a resumed run begins within one.

        Args:
            args: Unused.
            state: Of the run.
            control: Unused.
            **kwargs: Unused.
        """
        if isinstance(self.dataset, PreferenceDataset):
            self.dataset.set_epoch(int(state.epoch or 0))


class RunRecord(TrainerCallback):
    """Writes what a run is made of beside its weights, before the first step."""

    def __init__(
        self,
        objective: Objective,
        reports: Mapping[str, DataReport],
        starting_adapters: str | None = None,
    ) -> None:
        """Keep what the settings alone do not say."""
        self.objective, self.reports = objective, reports
        self.starting_adapters = starting_adapters

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Write the record; a resumed run must have the data and adapters it began with.

        Args:
            args: Settings.
            state: Of the run.
            control: Unused.
            **kwargs: Unused.
        """
        if not state.is_world_process_zero:
            return
        folder = Path(str(args.output_dir))
        if state.global_step > 0:
            check_same_data(folder, self.reports)
            check_same_start(folder, self.starting_adapters)
        write_run_record(
            folder,
            args=args,
            objective=self.objective,
            reports=self.reports,
            starting_adapters=self.starting_adapters,
        )
