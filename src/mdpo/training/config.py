"""Everything a training run can set, with the value it has if you set nothing."""

import json
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, get_args

from transformers import TrainingArguments

from mdpo.data.dataset import ImageCondition
from mdpo.data.rejected_images import REJECTED_IMAGE_NAMES, make_rejected_image_source
from mdpo.objectives import CATALOGUE, Objective, make_objective
from mdpo.objectives.links import LINKS, LinkName

BAD_ROW_CHOICES = ("error", "skip")
SCORERS = ("shared_prefix", "plain")
FEATURE_CACHES = ("none", "memory", "disk")
RENDERING = ("add_generation_prompt", "tokenize", "continue_final_message", "chat_template")
LOSS_KERNELS = ("fused_linear_cross_entropy", "cross_entropy")
"""Kernels of Liger for a loss that no run of ours takes from the model."""


@dataclass(kw_only=True)
class MDPOConfig(TrainingArguments):
    """One training run: the fields of ``TrainingArguments``, and those below.

    Declared here is what mDPO adds, and what it sets otherwise than ``TrainingArguments`` does.
    Defaults are the paper's (arXiv:2406.11839, Sec. 4.1) where it gives any.
    """

    # What is optimised
    objective: str = field(
        default="mdpo",
        metadata={
            "help": "What to minimise: one of " + ", ".join(CATALOGUE) + "; or, in YAML, a mapping "
            "with `terms` (docs/objectives.md)."
        },
    )
    beta: float = field(
        default=0.1,
        metadata={"help": "Strength of the pull to the reference model, > 0. Paper: 0.1."},
    )
    link: str = field(
        default="logsigmoid",
        metadata={
            "help": "From the margin of a comparison to its loss: " + ", ".join(LINKS) + ". "
            "Paper: logsigmoid."
        },
    )
    label_smoothing: float = field(
        default=0.0,
        metadata={
            "help": "Assumed share of pairs with swapped responses, in [0, 0.5): conservative DPO."
        },
    )
    anchor_floor: float = field(
        default=0.0,
        metadata={"help": "Floor asked of the chosen reward: delta in the paper, which uses 0."},
    )
    loss_weights: list[float] | None = field(
        default=None,
        metadata={
            "help": "Weights of the objective's terms, in their order (mdpo: response image "
            "anchor). Paper: 1 1 1, the default."
        },
    )
    sft_weight: float = field(
        default=0.0,
        metadata={"help": "Weight of an added likelihood term on the chosen response, >= 0."},
    )

    # Images
    corruption: str = field(
        default="crop_keep",
        metadata={
            "help": "How the rejected image is made: one of "
            + ", ".join(REJECTED_IMAGE_NAMES)
            + ". The paper's code keeps a crop of 1 to 20 %% of the area. Rows with a "
            "`rejected_images` column use that; `provided` asks it of every row."
        },
    )
    corruption_options: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": 'Options of the corruption, as JSON: \'{"area_low": 0.2, "area_high": 0.5}\'.'
        },
    )
    corruption_per_epoch: bool = field(
        default=False,
        metadata={"help": "Draw rejected images anew in each epoch instead of once per row."},
    )
    image_condition: str = field(
        default="true",
        metadata={
            "help": "What the model sees: true images, none (the paper's DPO (No Image) control), "
            "or swapped ones of other rows."
        },
    )

    # Data
    image_root: str | None = field(
        default=None,
        metadata={
            "help": "Folder that image paths are relative to and must stay in. "
            "Default: the folder of the data file."
        },
    )
    max_length: int | None = field(
        default=None,
        metadata={
            "help": "Longest row in tokens, image tokens included; longer responses are cut at "
            "the end, prompts never. None cuts nothing."
        },
    )
    chat_template_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": 'Further variables of the chat template, as JSON: \'{"answer_space": ""}\'.'
        },
    )
    on_bad_row: str = field(
        default="error",
        metadata={"help": "What to do with rows that cannot be trained on: error, or skip."},
    )

    # The engine
    scorer: str = field(
        default="shared_prefix",
        metadata={
            "help": "How candidates are scored: shared_prefix (one prompt and one encoding per "
            "image) or plain (one forward pass per candidate). Both give the same numbers."
        },
    )
    max_tokens_per_batch: int | None = field(
        default=None,
        metadata={
            "help": "Most tokens that go through the model at a time: a batch with more is worked "
            "through in several passes, with the same gradient and less memory."
        },
    )
    precompute_ref_log_probs: bool = field(
        default=False,
        metadata={
            "help": "Compute reference log-probabilities once, before training, and keep them on "
            "disk; full fine-tuning then needs no second model."
        },
    )
    precompute_ref_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Pairs at a time when reference log-probabilities are computed. "
            "Default: the evaluation batch."
        },
    )
    ref_cache_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder of reference log-probabilities, shared between runs. "
            "Default: mdpo/reference in the user's cache folder."
        },
    )
    feature_cache: str = field(
        default="none",
        metadata={
            "help": "Keep image features of a frozen vision tower from epoch to epoch: none, "
            "memory, or disk. The size is reported before the first step."
        },
    )
    feature_cache_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder of image features. Default: mdpo/features in the user's cache folder."
        },
    )

    # The model
    disable_dropout: bool = field(
        default=True, metadata={"help": "Switch all dropout of the policy off, LoRA's included."}
    )
    freeze_vision_tower: bool = field(
        default=True, metadata={"help": "Keep the image encoder as it is."}
    )
    freeze_multi_modal_projector: bool = field(
        default=True, metadata={"help": "Keep what lies between image encoder and text as it is."}
    )
    freeze_language_model: bool = field(
        default=False, metadata={"help": "Keep the language model as it is."}
    )

    # Defaults that differ from TrainingArguments
    learning_rate: float = field(default=1e-5, metadata={"help": "Peak rate. Paper: 1e-5."})
    lr_scheduler_type: str = field(
        default="cosine", metadata={"help": "Schedule of the rate. Paper: cosine."}
    )
    warmup_steps: float = field(
        default=0.1,
        metadata={"help": "Steps of warm-up, or below 1 a share of all. Paper: 0.1 of all."},
    )
    num_train_epochs: float = field(
        default=3.0, metadata={"help": "Passes over the data. Paper: 3."}
    )
    per_device_train_batch_size: int = field(
        default=4, metadata={"help": "Pairs per device and forward pass. Authors' code: 4."}
    )
    gradient_accumulation_steps: int = field(
        default=8,
        metadata={"help": "Passes per optimizer step; 4 x 8 = 32 pairs, the paper's batch."},
    )
    logging_steps: float = field(
        default=10, metadata={"help": "Optimizer steps between reports, or below 1 a share."}
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Off: True would hide a loss that is not finite."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Off: collation needs columns that `forward` does not."}
    )

    def __post_init__(self) -> None:
        """Refuse values no run can use, all at once, then let ``TrainingArguments`` do its own.

        Raises:
            ValueError: If any field is out of its range; the message names each.
        """
        problems = []
        for name in ("corruption_options", "chat_template_kwargs", "liger_kernel_config"):
            problems += self._read_json(name)
        if isinstance(self.objective, Objective):
            self.objective = json.dumps(self.objective.to_spec())
        elif isinstance(self.objective, dict):
            self.objective = json.dumps(self.objective)
        for check in (self.make_objective, self.make_rejected_image_source):
            try:
                check()
            except ValueError as error:
                problems.append(str(error))
        problems += _refused("image_condition", self.image_condition, get_args(ImageCondition))
        problems += _refused("on_bad_row", self.on_bad_row, BAD_ROW_CHOICES)
        problems += _refused("scorer", self.scorer, SCORERS)
        problems += _refused("feature_cache", self.feature_cache, FEATURE_CACHES)
        for name in ("max_tokens_per_batch", "precompute_ref_batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                problems.append(f"`{name}` must be at least 1, got {value}.")
        if self.train_sampling_strategy == "batch_rebalance":
            problems.append(
                "`train_sampling_strategy` batch_rebalance does not know the lengths of pairs. "
                "Take group_by_length."
            )
        if self.scorer == "plain" and self.feature_cache != "none":
            problems.append(
                "`feature_cache` has no effect with `scorer` plain, which encodes each image anew. "
                "Leave one of them out."
            )
        options = self.chat_template_kwargs
        if taken := [each for each in RENDERING if isinstance(options, dict) and each in options]:
            problems.append(
                f"`chat_template_kwargs` must not set `{taken[0]}`, which mdpo sets itself."
            )
        problems += self._liger_problems()
        if self.max_length is not None and self.max_length < 2:
            problems.append(f"`max_length` must be at least 2, got {self.max_length}.")
        if not problems and self.image_condition == "none" and self.make_objective().needs_image:
            problems.append(
                f"`image_condition` none leaves objective {self.objective!r} no images to compare. "
                "Take objective dpo."
            )
        if problems:
            raise ValueError("\n".join(problems))
        super().__post_init__()

    def _read_json(self, name: str) -> list[str]:
        """Read a setting that may be written as JSON, and say what is wrong with it."""
        value = getattr(self, name)
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except json.JSONDecodeError as error:
                setattr(self, name, None)
                return [f"`{name}` must be JSON: {error}."]
        setattr(self, name, value)
        if value is None or isinstance(value, dict):
            return []
        setattr(self, name, None)
        return [f"`{name}` must be a mapping, got {value!r}."]

    def _liger_problems(self) -> list[str]:
        """Switch off the Liger kernels whose place the engine's own head takes; refuse them."""
        if not self.use_liger_kernel:
            return []
        given: dict[str, Any] = dict(self.liger_kernel_config or {})
        self.liger_kernel_config = given | dict.fromkeys(LOSS_KERNELS, False)
        return [
            f"`liger_kernel_config` must not set {name} true: the loss is taken from "
            "log-probabilities at response positions, which the engine computes itself."
            for name in LOSS_KERNELS
            if given.get(name)
        ]

    def make_objective(self) -> Objective:
        """Make the objective that the settings describe.

        Returns:
            The objective, with weights set.

        Raises:
            ValueError: If a setting of the objective is out of range, or is given beside a written
                objective, which has its own.
        """
        if self.objective.lstrip().startswith("{"):
            given = {
                "link": self.link != "logsigmoid",
                "label_smoothing": bool(self.label_smoothing),
                "anchor_floor": bool(self.anchor_floor),
                "sft_weight": bool(self.sft_weight),
                "beta": self.beta != 0.1,
            }
            if clash := [name for name, is_set in given.items() if is_set]:
                raise ValueError(
                    f"`{clash[0]}` has no effect beside a written objective. Set it in its terms."
                )
            objective = Objective.from_spec(json.loads(self.objective))
        else:
            if self.link not in LINKS:
                raise ValueError(f"`link` must be one of {', '.join(LINKS)}, got {self.link!r}.")
            if self.sft_weight < 0:
                raise ValueError(f"`sft_weight` must be >= 0, got {self.sft_weight}.")
            link: LinkName = self.link  # pyright: ignore[reportAssignmentType]  # checked above
            objective = make_objective(
                self.objective,
                beta=self.beta,
                link=link,
                label_smoothing=self.label_smoothing,
                anchor_floor=self.anchor_floor,
                sft_weight=self.sft_weight,
            )
        return objective.with_weights(self.loss_weights) if self.loss_weights else objective

    def make_rejected_image_source(self) -> Any:
        """Look up how rejected images are made.

        Returns:
            A corruption, or the name of a column-borne source.
        """
        options = self.corruption_options
        return make_rejected_image_source(
            self.corruption, dict(options) if isinstance(options, dict) else {}
        )


def _refused(name: str, value: str, choices: tuple[str, ...]) -> list[str]:
    """Say what is wrong with a choice, if anything."""
    if value in choices:
        return []
    hint = "".join(f" Did you mean {m!r}?" for m in get_close_matches(value, choices, n=1))
    return [f"`{name}` must be one of {', '.join(choices)}, got {value!r}.{hint}"]
