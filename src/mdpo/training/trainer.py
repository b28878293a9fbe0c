"""mDPO on ``transformers.Trainer``: loss, metrics and what belongs to preference data.

Loops, resume, sharding, loggers and hub uploads are the base class's. Public methods are
overridden, and those that choose a sampler or load a checkpoint, for which there are none.

Shapes: ``b`` preference pairs.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Sampler, SequentialSampler
from transformers import EvalPrediction, PreTrainedModel, Trainer, TrainerCallback, set_seed

from mdpo.data.batch import Batch, Passes
from mdpo.data.collation import PassCollator, PreferenceCollator
from mdpo.data.dataset import PreferenceDataset
from mdpo.data.encoding import Encoder, TokenCounter
from mdpo.data.passes import PassPlanner
from mdpo.data.report import DataReport
from mdpo.models.compatibility import check_image_features, check_image_token, check_tokenizer
from mdpo.models.fingerprints import adapters_of
from mdpo.models.loading import load_model, restore_weights
from mdpo.models.policy import disable_dropout, prepare_policy
from mdpo.models.processors import load_processor
from mdpo.objectives import CHOSEN, REJECTED, REJECTED_IMAGE, Candidate, Logps
from mdpo.objectives.logps import joined
from mdpo.scoring import PlainScorer, Reference, Scorer, frozen_copy_of
from mdpo.scoring.choice import checked, choose_scorer
from mdpo.scoring.images import ImageEncoder
from mdpo.scoring.packing import by_image
from mdpo.scoring.reference import evaluating
from mdpo.scoring.reference_cache import CachedReference, fill
from mdpo.scoring.shared_prefix import bare
from mdpo.training.caches import cached_slots, open_feature_cache, open_logp_store
from mdpo.training.callbacks import EpochDraws, FiniteLoss, RunRecord
from mdpo.training.config import MDPOConfig
from mdpo.training.length_groups import LengthGroups
from mdpo.training.metrics import MetricSums, pair_metrics
from mdpo.training.model_card import write_model_card
from mdpo.training.preparation import (
    blank_prompt,
    longest_context,
    make_encoder,
    prepare_dataset,
    refuse_devices,
    refuse_liger,
)
from mdpo.training.references import SHARDED, make_reference, starting_adapters


class MDPOTrainer(Trainer):
    """Train a vision-language model on preference pairs against a frozen reference.

    Arguments are those of TRL's ``DPOTrainer``.

    Attributes:
        objective: What is minimised.
        reports: What the data checks found, by split: ``train``, ``eval``.
    """

    args: MDPOConfig  # pyright: ignore[reportIncompatibleVariableOverride]  # narrower than its base
    loss_is_scaled_for_ga = False  # `compute_loss` is a mean over pairs: the base class divides it

    def __init__(
        self,
        model: str | Path | PreTrainedModel | PeftModel,
        ref_model: PreTrainedModel | None = None,
        args: MDPOConfig | None = None,
        data_collator: Callable[[Any], Any] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, Any]] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Optimizer | None, LambdaLR | None] = (None, None),
        peft_config: PeftConfig | None = None,
    ) -> None:
        """Set up a run; all data is checked here, before any compute is spent.

        Args:
            model: Policy: a folder, a hub id, a model, or a model with adapters to train on with.
            ref_model: Reference; None takes what the policy is before its first step: with its
                adapters off if they are new, with them as they came if they are not, or a frozen
                copy if it has none.
            args: Settings.
            data_collator: Makes a ``Batch`` of examples; None takes ``PreferenceCollator``.
            train_dataset: A ``datasets.Dataset``, a list of rows, a path, or a
                ``PreferenceDataset``; see docs/data.md for the formats.
            eval_dataset: The same, or a dict of them by name.
            processing_class: The model's processor; None loads that of the model's folder.
            compute_metrics: From rewards by candidate (``predictions``) to further metrics.
            callbacks: Added to those of the base class.
            optimizers: Optimizer and schedule; None makes those of the settings.
            peft_config: Adapters to train. Without ``target_modules`` they are put on all linear
                layers of the parts that are not frozen, the language model by default. None
                trains the weights themselves.

        Raises:
            ValueError: If settings, model and data do not go together; the message names what.
        """
        if isinstance(model, (str, Path)):
            model = load_model(model)
        if ref_model is not None and ref_model is model:
            raise ValueError(
                "`ref_model` must be another object than `model`, got the same. "
                "Leave it out: the reference is then made from the model."
            )
        name = str(model.config._name_or_path or type(model).__name__)
        args = args if args is not None else MDPOConfig(output_dir=f"{Path(name).name}-mdpo")
        refuse_devices(model, args)
        refuse_liger(args)
        self.objective = args.make_objective()
        self.reports: dict[str, DataReport] = {}
        processing_class = processing_class or load_processor(name)
        encoder = make_encoder(processing_class, args)
        base: Any = getattr(model, "get_base_model", lambda: model)()
        check_tokenizer(base, processing_class)
        blank = None if args.image_condition == "none" else blank_prompt(encoder)
        if blank is not None:
            check_image_token(base, processing_class, blank)

        # Adapters begin at random: the seed of the run decides them too.
        set_seed(args.seed)
        policy = prepare_policy(model, peft_config, frozen=frozen_parts(args))
        if args.disable_dropout:
            disable_dropout(policy)
        stored = args.precompute_ref_log_probs and not args.corruption_per_epoch
        if ref_model is None and not isinstance(policy, PeftModel) and not stored:
            ref_model = frozen_copy_of(policy)  # pyright: ignore[reportAssignmentType]  # same class
        self._starting_adapters = starting_adapters(policy) if ref_model is None else None

        context = longest_context(policy)
        prepared_train = self._prepare("train", train_dataset, args, encoder, context)
        if isinstance(eval_dataset, dict):
            prepared_eval: Any = {
                key: self._prepare(f"eval_{key}", each, args, encoder, context)
                for key, each in eval_dataset.items()
            }
        else:
            prepared_eval = self._prepare("eval", eval_dataset, args, encoder, context)

        self._sums = MetricSums()
        self._finite = FiniteLoss()
        self._eval_prefix = "eval"
        super().__init__(
            model=policy,
            args=args,
            data_collator=data_collator or self._make_collator(args, encoder),
            train_dataset=prepared_train,
            eval_dataset=prepared_eval,
            processing_class=processing_class,
            compute_metrics=compute_metrics,
            callbacks=[
                self._finite,
                EpochDraws(prepared_train),
                RunRecord(self.objective, self.reports, self._starting_adapters),
                *(callbacks or []),
            ],
            optimizers=optimizers,
        )
        # `evaluate` computes the loss only if a batch holds all of these.
        self.label_names = ["rows"]
        self._pass_share = 1.0
        self._refuse_passes_where_each_backward_steps()
        self._policy_is_initial = True
        if blank is not None and not self._is_sharded:
            # Not before the model is on its device: some attention has kernels for one kind only.
            check_image_features(base, processing_class, blank)
        self.scorer = self._make_scorer()
        self.reference = self._make_reference(ref_model)

    def _prepare(
        self, split: str, source: Any, args: MDPOConfig, encoder: Encoder, context: int | None
    ) -> PreferenceDataset | None:
        """Check a data set and keep its report."""
        if source is None or isinstance(source, PreferenceDataset):
            return source
        needed = {each.image for each in self.objective.candidates}
        if split != "train" and args.image_condition != "none":
            # Held-out pairs are always compared by image as well: it costs no gradient.
            needed.add("rejected")
        dataset, report = prepare_dataset(
            source, args, encoder=encoder, image_slots=sorted(needed), context=context, split=split
        )
        self.reports[split] = report
        return dataset

    def _make_reference(self, ref_model: nn.Module | None) -> Reference:
        """Choose where reference log-probabilities come from."""
        # Before the model is wrapped: it belongs to no device yet if weights are sharded.
        model: Any = self.model
        store = None
        if self.args.precompute_ref_log_probs:
            store = open_logp_store(
                self.args,
                ref_model if ref_model is not None else model,
                self.processing_class,
                adapters=adapters_of(ref_model)
                if isinstance(ref_model, PeftModel)
                else self._starting_adapters,
                data_fingerprints=[each.fingerprint for each in self.reports.values()],
            )
        return make_reference(
            model,
            ref_model,
            args=self.args,
            accelerator=self.accelerator,
            store=store,
            starts_from_adapters=self._starting_adapters is not None,
        )

    def precompute_reference(self, *datasets: PreferenceDataset) -> int:
        """Compute the reference log-probabilities that the store lacks.

        Args:
            *datasets: Rows to compute them for; none takes the training and evaluation sets.

        Returns:
            How many rows were computed; 0 without ``precompute_ref_log_probs``.
        """
        if not isinstance(self.reference, CachedReference):
            return 0
        if not datasets:
            evals = self.eval_dataset
            every = [self.train_dataset, *(evals.values() if isinstance(evals, dict) else [evals])]
            datasets = tuple(each for each in every if isinstance(each, PreferenceDataset))
        return sum(self._fill(self.reference, each) for each in datasets)

    def _fill(self, reference: CachedReference, dataset: PreferenceDataset) -> int:
        """Fill the store for one data set."""
        mode = "train" if dataset is self.train_dataset else "eval"
        candidates = [
            each
            for each in self._candidates(mode, dataset.image_slots)
            if each.image not in reference.drawn_per_epoch
        ]
        collator = self._own_collator
        if dataset.digests is None or collator is None:
            raise ValueError(
                "`precompute_ref_log_probs` needs rows whose pixels were hashed: give the data as "
                "a path or rows, and leave `data_collator` out."
            )
        missing = len(reference.store.missing(dataset.digests, candidates))
        if missing and reference.online is None and not self._policy_is_initial:
            raise ValueError(
                f"{missing} rows have no reference log-probability, and the weights that gave the "
                "others have been trained since. Give this data as `eval_dataset` when the trainer "
                "is made."
            )
        if missing and self._is_sharded:
            raise ValueError(
                f"{missing} rows have no reference log-probability yet, and they cannot be "
                f"computed under {self.accelerator.distributed_type.value}. Fill the store with a "
                "run on one device first: the same command with `--max_steps 1`."
            )

        def collate(positions: list[int]) -> Batch:
            examples = [dataset[position] for position in positions]
            return self._prepare_inputs(dict(collator(examples)))  # pyright: ignore[reportArgumentType, reportReturnType]

        with self.accelerator.autocast():
            computed = fill(
                reference.store,
                dataset.digests,
                collate,
                self._reference_logps,
                candidates=candidates,
                batch_size=self.args.precompute_ref_batch_size or self.args.eval_batch_size,
                shard=(self.accelerator.process_index, self.accelerator.num_processes),
                show_progress=self.is_world_process_zero() and not self.args.disable_tqdm,
            )
        if self.accelerator.num_processes > 1:
            self.accelerator.wait_for_everyone()
            reference.store.reread()
        return computed

    def _reference_logps(
        self, batch: Batch, candidates: Sequence[Candidate]
    ) -> dict[Candidate, Tensor]:
        """Compute reference log-probabilities; before training the policy is the reference."""
        online = self.reference.online if isinstance(self.reference, CachedReference) else None
        if online is not None:
            return online(self.scorer, batch, candidates)
        policy: Any = self.model
        with torch.no_grad(), evaluating(policy):
            return self.scorer(policy, batch, candidates)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, with reference log-probabilities computed first if the settings ask for it.

        Args:
            *args: Of the base class.
            **kwargs: Of the base class.

        Returns:
            What the base class returns.
        """
        self.precompute_reference()
        self._policy_is_initial = False
        return super().train(*args, **kwargs)

    def _make_collator(
        self, args: MDPOConfig, encoder: Encoder
    ) -> PreferenceCollator | PassCollator:
        """Make what turns examples into batches, in passes if there is a budget."""
        collator = PreferenceCollator(encoder, max_length=args.max_length)
        if args.max_tokens_per_batch is None:
            return collator
        slots = by_image(self.objective.candidates)
        planner = PassPlanner(
            TokenCounter(encoder),
            max_tokens=args.max_tokens_per_batch,
            responses={slot: [each.response for each in slots[slot]] for slot in slots},
            max_length=args.max_length,
        )
        return PassCollator(collator, planner)

    @property
    def _own_collator(self) -> PreferenceCollator | None:
        """What makes a batch of any examples; None if the user brought a collator."""
        collator = self.data_collator
        if isinstance(collator, PassCollator):
            return collator.collator
        return collator if isinstance(collator, PreferenceCollator) else None

    def _refuse_passes_where_each_backward_steps(self) -> None:
        """Refuse a budget where a second backward is not merely added to the first."""
        if self.args.max_tokens_per_batch is not None and self._is_sharded:
            raise ValueError(
                f"`max_tokens_per_batch` works on one device or with DDP, not with "
                f"{self.accelerator.distributed_type.value}. Lower `per_device_train_batch_size` "
                "and raise `gradient_accumulation_steps` instead."
            )

    @property
    def _is_sharded(self) -> bool:
        """Whether weights are whole only inside the wrapped model's ``forward``."""
        return self.accelerator.distributed_type in SHARDED

    def _make_scorer(self) -> Scorer:
        """Choose how candidates are scored, and check it on the run's own data."""
        if self.args.scorer == "plain":
            return PlainScorer(self.model)  # pyright: ignore[reportArgumentType]  # set by the base class
        policy: Any = self.model
        cache = open_feature_cache(
            self.args,
            bare(policy),
            self.processing_class,
            image_tokens=sum(each.image_tokens or 0 for each in self.reports.values()),
        )
        images = ImageEncoder(bare(policy), cache=cache, cached_slots=cached_slots(self.args))
        scorer = choose_scorer(policy, images=images, in_forward=self._is_sharded)
        dataset = self.train_dataset or self.eval_dataset
        collator = self._own_collator
        if self._is_sharded or collator is None or not isinstance(dataset, PreferenceDataset):
            return scorer
        examples = [dataset[position] for position in range(min(2, len(dataset)))]
        batch: Any = self._prepare_inputs(dict(collator(examples)))
        with self.accelerator.autocast():
            return checked(scorer, policy, batch, self.objective.candidates)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        """Group pairs by the lengths that the data checks counted, if the settings ask for it."""
        dataset = self.train_dataset if train_dataset is None else train_dataset
        grouped = self.args.train_sampling_strategy == "group_by_length"
        if not grouped or not isinstance(dataset, PreferenceDataset) or dataset.lengths is None:
            return super()._get_train_sampler(train_dataset)
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return LengthGroups(size, lengths=dataset.lengths, seed=seed)

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int] | None:
        """Evaluate in the order of the data; the base class would look for token ids in it."""
        if isinstance(eval_dataset, PreferenceDataset):
            return SequentialSampler(eval_dataset)
        return super()._get_eval_sampler(eval_dataset)

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Work through a batch forward and backward, pass after pass.

        Args:
            model: The policy, as wrapped for training.
            inputs: Of the collator.
            num_items_in_batch: Unused: the loss counts pairs, not tokens.

        Returns:
            The loss, a mean over the pairs of the batch.
        """
        if "passes" not in inputs:
            return super().training_step(model, inputs, num_items_in_batch)
        passes = inputs["passes"]
        losses = []
        for number, each in enumerate(passes):
            last = number == len(passes) - 1
            self._pass_share = len(each["rows"]) / len(inputs["rows"])
            # Devices exchange gradients once per batch, not once per pass.
            with nullcontext() if last else self.accelerator.no_sync(model):
                losses.append(super().training_step(model, each, num_items_in_batch))
        self._pass_share = 1.0
        return torch.stack(losses).sum()

    def compute_loss(  # pyright: ignore[reportIncompatibleMethodOverride]  # a dict of its own shape
        self,
        model: nn.Module,
        inputs: Batch | Passes,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a batch, a mean over its pairs, and keep its metrics.

        Args:
            model: The policy, as wrapped for training.
            inputs: Of the collator.
            return_outputs: Whether to return rewards as well; ``evaluate`` asks for them.
            num_items_in_batch: Unused: the loss counts pairs, not tokens.

        Returns:
            The loss, a scalar; with ``return_outputs`` also rewards by candidate.
        """
        mode = "train" if model.training else "eval"
        passes: list[Batch] = inputs.get("passes", [inputs])  # pyright: ignore[reportAssignmentType, reportGeneralTypeIssues]
        candidates = self._candidates(mode, passes[0]["prompts"])
        logps = joined([self.score(model, each, candidates) for each in passes])
        losses = self.objective.losses(logps)
        loss = self.objective.total(losses, logps.has_image)
        self._finite.watch(loss, losses)
        self._sums.add(mode, pair_metrics(self.objective, logps, losses))
        if not return_outputs:
            return loss * self._pass_share
        beta = self.objective.beta
        return loss, {str(each): logps.reward(each, beta=beta) for each in logps.policy}

    def score(self, model: nn.Module, batch: Batch, candidates: tuple[Candidate, ...]) -> Logps:
        """Score candidates under policy and reference.

        Args:
            model: The policy, as wrapped for training.
            batch: Of the collator, on the model's device.
            candidates: What to score.

        Returns:
            Log-probabilities with the facts that terms need.
        """
        # Images are encoded outside of the model's `forward`, which alone would be cast. The
        # policy comes first: casts kept from a pass without gradient would cut it off from its.
        with self.accelerator.autocast():
            policy = self.scorer(model, batch, candidates)
            reference = self.reference(self.scorer, batch, candidates)
        lengths = {
            slot: each["attention_mask"].sum(dim=1) for slot, each in batch["responses"].items()
        }
        return Logps(policy, reference, lengths, batch["has_image"])

    def _candidates(self, mode: str, slots: Collection[str]) -> tuple[Candidate, ...]:
        """What to score: the objective's candidates, and in evaluation those of all metrics."""
        needed = set(self.objective.candidates)
        if mode == "eval":
            needed |= {CHOSEN, REJECTED}
            if "rejected" in slots:
                needed.add(REJECTED_IMAGE)
        return tuple(sorted(needed))

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Report loss and all preference metrics on held-out pairs.

        Args:
            eval_dataset: As in the constructor, or None for the one given there.
            ignore_keys: Of the outputs, not gathered.
            metric_key_prefix: Before the name of each metric.

        Returns:
            Metrics by name.
        """
        if eval_dataset is not None and not isinstance(eval_dataset, (str, dict)):
            encoder = make_encoder(self.processing_class, self.args)
            context = longest_context(self.model)
            eval_dataset = self._prepare("eval", eval_dataset, self.args, encoder, context)
        self.precompute_reference(
            *([eval_dataset] if isinstance(eval_dataset, PreferenceDataset) else [])
        )
        self._eval_prefix = metric_key_prefix
        return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)  # pyright: ignore[reportArgumentType]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the metrics kept since the last report, then report as usual.

        Args:
            logs: What the base class reports; metrics are added in place, so that ``evaluate``
                returns them too.
            start_time: When training began, in seconds.
        """
        evaluating = any(name.startswith(f"{self._eval_prefix}_") for name in logs)
        prefix = f"{self._eval_prefix}_" if evaluating else ""
        means = self._sums.pop("eval" if evaluating else "train", self.accelerator)
        logs.update({prefix + name: value for name, value in means.items()})
        super().log(logs, start_time)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Resume with the weights of a checkpoint, all of them."""
        model = self.model if model is None else model
        if self._is_sharded or not isinstance(model, PreTrainedModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            restore_weights(model, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        """Go back to the weights of the best checkpoint, all of them."""
        best = self.state.best_model_checkpoint
        if self._is_sharded or best is None or not isinstance(self.model, PreTrainedModel):
            super()._load_best_model()
        else:
            restore_weights(self.model, best)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save model and processor as the base class does, and a model card beside them.

        Args:
            output_dir: Where to; None takes that of the settings.
            _internal_call: Whether the base class calls.
        """
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            write_model_card(
                Path(output_dir or str(self.args.output_dir)),
                model=self.accelerator.unwrap_model(self.model),
                args=self.args,
                objective=self.objective,
                reports=self.reports,
                history=self.state.log_history,
            )


def frozen_parts(args: MDPOConfig) -> set[str]:
    """Read which parts of the model the settings freeze.

    Args:
        args: Settings.

    Returns:
        Names of parts, as ``mdpo.models.parts`` has them.
    """
    flags: Mapping[str, bool] = {
        "vision_tower": args.freeze_vision_tower,
        "projector": args.freeze_multi_modal_projector,
        "language_model": args.freeze_language_model,
    }
    return {part for part, is_frozen in flags.items() if is_frozen}
