"""The settings of ``mdpo train``: flags over the ``--config`` file over the defaults."""

import json
import re
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from peft import LoraConfig
from transformers import HfArgumentParser, TrainingArguments

from mdpo.models.quantization import Quantization
from mdpo.training.config import MDPOConfig

STRUCTURED = ("objective", "corruption_options", "chat_template_kwargs", "device_map")
"""Settings that a YAML file may give as a mapping."""

ADAPTER_SETTINGS = (
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "lora_modules_to_save",
    "use_dora",
    "use_rslora",
)
"""What new adapters are made with."""

FOUR_BIT_SETTINGS = ("bnb_4bit_quant_type", "use_bnb_nested_quant")


class SettingsError(ValueError):
    """Settings that no run can use."""


@dataclass(kw_only=True)
class ModelSettings:
    """Which model, and how it is adapted."""

    model_name_or_path: str = field(metadata={"help": "Folder or hub id of the model to train."})
    model_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of the model on the hub."}
    )
    dtype: str = field(
        default="auto",
        metadata={"help": "Of the weights: auto (as in the files), bfloat16, float16, float32."},
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "sdpa, eager, flash_attention_2, ...; default: the best."}
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Let code from the model's repository run."}
    )
    device_map: str | None = field(
        default=None,
        metadata={
            "help": "Spread one model over the devices of one process: auto, or JSON with a device "
            "for each module. Default: all of it on the device of the process."
        },
    )
    load_in_4bit: bool = field(
        default=False,
        metadata={"help": "Store the language model's linear layers in 4 bits (QLoRA)."},
    )
    load_in_8bit: bool = field(
        default=False, metadata={"help": "Store the language model's linear layers in 8 bits."}
    )
    bnb_4bit_quant_type: str = field(
        default="nf4", metadata={"help": "Levels of 4-bit weights: nf4 or fp4."}
    )
    use_bnb_nested_quant: bool = field(
        default=False, metadata={"help": "Quantize the scales of 4-bit weights too."}
    )
    adapter_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Adapters to train on with: folder or hub id. The reference is the model with "
            "these adapters as they are at the start."
        },
    )
    ref_model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Reference model. Default: what the model is before the first step, with its "
            "adapters off, its adapters as they came, or copied."
        },
    )
    ref_model_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of the reference on the hub."}
    )
    use_peft: bool = field(
        default=True, metadata={"help": "Train LoRA adapters; false trains the weights."}
    )
    lora_r: int = field(default=64, metadata={"help": "Rank of the adapters. Paper: 64."})
    lora_alpha: int = field(default=128, metadata={"help": "Scale of the adapters. Paper: 128."})
    lora_dropout: float = field(
        default=0.0,
        metadata={"help": "Dropout of the adapters; works with `disable_dropout` false only."},
    )
    lora_target_modules: list[str] | None = field(
        default=None,
        metadata={"help": "Layers to adapt. Default: all linear layers of parts not frozen."},
    )
    lora_modules_to_save: list[str] | None = field(
        default=None,
        metadata={"help": "Modules to train whole and save with the adapters, such as lm_head."},
    )
    use_dora: bool = field(
        default=False,
        metadata={"help": "Train magnitudes beside the directions of weights (DoRA)."},
    )
    use_rslora: bool = field(
        default=False,
        metadata={"help": "Scale adapters by alpha / sqrt(r) in place of alpha / r (rsLoRA)."},
    )

    def __post_init__(self) -> None:
        """Refuse settings that exclude each other.

        Raises:
            ValueError: If two of them do; the message names both.
        """
        if self.load_in_4bit and self.load_in_8bit:
            raise ValueError("`load_in_4bit` and `load_in_8bit` are both true. Set one of the two.")
        bits = "`load_in_4bit`" if self.load_in_4bit else "`load_in_8bit`"
        if (self.load_in_4bit or self.load_in_8bit) and not self.use_peft:
            raise ValueError(
                f"{bits} true needs adapters: quantized weights cannot be trained. Set `use_peft` "
                "to true, or leave it out."
            )
        if self.adapter_name_or_path is not None and not self.use_peft:
            raise ValueError(
                "`adapter_name_or_path` needs `use_peft` true: its adapters are what is trained. "
                "To train all weights from there, fold them in first: mdpo merge."
            )
        self.devices()

    def devices(self) -> str | dict[str, Any] | None:
        """Read ``device_map``.

        Returns:
            What transformers takes.

        Raises:
            ValueError: If it looks like JSON and is not.
        """
        if self.device_map is None or not self.device_map.lstrip().startswith("{"):
            return self.device_map
        try:
            return json.loads(self.device_map)
        except json.JSONDecodeError as error:
            raise ValueError(f"`device_map` must be a name or JSON: {error}.") from None

    def quantization(self, training: MDPOConfig) -> Quantization | None:
        """Say how the language model's weights are stored.

        Args:
            training: Its mixed precision is that of products with 4-bit weights.

        Returns:
            None if they are stored as they come.
        """
        if not (self.load_in_4bit or self.load_in_8bit):
            return None
        lower = torch.bfloat16 if training.bf16 else torch.float16 if training.fp16 else None
        return Quantization(
            bits=4 if self.load_in_4bit else 8,
            quant_type=self.bnb_4bit_quant_type,  # pyright: ignore[reportArgumentType]  # checked there
            nested=self.use_bnb_nested_quant,
            compute_dtype=lower,
        )

    def lora(self) -> LoraConfig | None:
        """Make the adapters' settings.

        Returns:
            None if the weights themselves are trained, or adapters that are there already.
        """
        if not self.use_peft or self.adapter_name_or_path is not None:
            return None
        targets = self.lora_target_modules
        # One word may be the end of names, as several are, or a pattern on full names.
        is_pattern = targets and len(targets) == 1 and not re.fullmatch(r"[\w.]+", targets[0])
        return LoraConfig(
            r=self.lora_r,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            target_modules=targets[0] if targets and is_pattern else targets,
            modules_to_save=self.lora_modules_to_save,
            use_dora=self.use_dora,
            use_rslora=self.use_rslora,
            revision=self.model_revision,
            task_type="CAUSAL_LM",
        )


@dataclass(kw_only=True)
class DataSettings:
    """Which preference pairs."""

    dataset_name: str = field(
        metadata={"help": "JSON, JSONL or Parquet file, `save_to_disk` folder, or hub id."}
    )
    dataset_config: str | None = field(
        default=None, metadata={"help": "Configuration of a hub data set."}
    )
    dataset_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of a hub data set."}
    )
    dataset_train_split: str = field(default="train", metadata={"help": "Split to train on."})
    eval_dataset_name: str | None = field(
        default=None, metadata={"help": "Held-out pairs: like `dataset_name`."}
    )
    dataset_test_split: str | None = field(
        default=None,
        metadata={"help": "Split of held-out pairs, of `eval_dataset_name` or `dataset_name`."},
    )


class Settings(NamedTuple):
    """All settings of a run.

    Attributes:
        training: Of the run itself.
        model: Of the model.
        data: Of the data.
        given: Names of those that stood in the file or on the command line.
    """

    training: MDPOConfig
    model: ModelSettings
    data: DataSettings
    given: frozenset[str]


SECTIONS = (MDPOConfig, ModelSettings, DataSettings)


def parse_settings(arguments: Sequence[str]) -> Settings:
    """Read the settings of a run: flags over the ``--config`` file over the defaults.

    Args:
        arguments: Command line without program and verb.

    Returns:
        The checked settings.

    Raises:
        SettingsError: If a key or value is not a setting's; the message names the nearest.
    """
    outer = ArgumentParser(add_help=False, allow_abbrev=False)
    outer.add_argument("--config", type=Path)
    given, flags = outer.parse_known_args(arguments)
    parser = HfArgumentParser(SECTIONS, allow_abbrev=False, prog="mdpo train", add_help=False)  # pyright: ignore[reportArgumentType]
    values: dict[str, Any] = {}
    if given.config is not None:
        values = _read_file(given.config)
        # As defaults of the parser, text values still pass through each flag's type: PyYAML reads
        # `1e-5` as text, for lack of a dot, and would otherwise hand it on as text.
        parser.set_defaults(**values)
        for action in parser._actions:
            if action.dest in values:
                action.required = False
    names = frozenset(values) | _names_of(flags)
    try:
        parsed = parser.parse_args_into_dataclasses(flags, look_for_args_file=False)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    training, model, data = parsed
    settings = Settings(training, model, data, names)
    _refuse_without_effect(settings)
    return settings


def _refuse_without_effect(settings: Settings) -> None:
    """Refuse settings that others leave without effect."""
    training, model, _, given = settings
    if model.lora_dropout and training.disable_dropout:
        raise SettingsError(
            f"`lora_dropout` {model.lora_dropout} has no effect with `disable_dropout` true. "
            "Set one of the two."
        )
    adapter = model.adapter_name_or_path
    if adapter is not None and (idle := sorted(given & set(ADAPTER_SETTINGS))):
        raise SettingsError(
            f"`{idle[0]}` has no effect with `adapter_name_or_path`: the adapters of {adapter!r} "
            "are trained on as they were made. Leave one of the two out."
        )
    if adapter is not None and Path(adapter).resolve() == Path(str(training.output_dir)).resolve():
        raise SettingsError(
            f"`output_dir` must be another folder than `adapter_name_or_path`, got {adapter!r} for "
            "both: the adapters of the start are the reference, and would be overwritten."
        )
    if not model.load_in_4bit and (idle := sorted(given & set(FOUR_BIT_SETTINGS))):
        raise SettingsError(f"`{idle[0]}` has no effect without `load_in_4bit` true.")


def write_settings(path: Path, settings: Settings) -> None:
    """Write every setting that the user gave, so that the file repeats the run.

    Args:
        path: Of the YAML file.
        settings: Of the run.
    """
    sections = (settings.training, settings.model, settings.data)
    values = {
        each.name: _plain(getattr(section, each.name))
        for section in sections
        for each in fields(section)
        # A run that repeats this one begins at its beginning.
        if each.name in settings.given and each.name != "resume_from_checkpoint"
    }
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# Repeats the run: mdpo train --config {path.name}\n{text}", "utf-8")


def help_lines() -> list[str]:
    """Describe our own settings, one after the other.

    Returns:
        Lines of text.
    """
    inherited = {each.name: each for each in fields(TrainingArguments)}
    lines = []
    titles = ("The run", "The model", "The data")
    for title, section in zip(titles, SECTIONS, strict=True):
        lines += ["", f"{title}:"]
        for each in fields(section):
            if each.name in inherited and each.name not in section.__annotations__:
                continue
            default = "required" if each.default is MISSING else f"default {each.default}"
            text = each.metadata["help"].replace("%%", "%")
            lines += [f"  --{each.name}", f"      {text} [{default}]"]
    return lines


def _read_file(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"`--config` {str(path)!r} not found.") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise SettingsError(f"{path}: must hold `setting: value` lines, got {values!r}.")
    known = _known()
    checked = {}
    for key, value in values.items():
        if key not in known:
            hint = "".join(f" Did you mean `{m}`?" for m in get_close_matches(key, known, n=1))
            raise SettingsError(f"{path}: `{key}` is not a setting.{hint}")
        if isinstance(value, Mapping) and key in STRUCTURED:
            value = json.dumps(value)
        for kind, name in ((Mapping, "dict"), (list, "list")):
            if isinstance(value, kind) and name not in str(known[key]):
                raise SettingsError(f"{path}: `{key}` must be a single value, got {value!r}.")
        checked[key] = value
    return checked


def _names_of(flags: Sequence[str]) -> frozenset[str]:
    """Read which settings flags set; refuse flags that no setting has, naming the nearest."""
    known, names = _known(), set()
    for flag in flags:
        if not flag.startswith("--"):
            continue
        name = flag[2:].split("=", 1)[0].replace("-", "_")
        if name not in known and name.removeprefix("no_") in known:
            name = name.removeprefix("no_")
        if name not in known:
            hint = "".join(f" Did you mean `--{m}`?" for m in get_close_matches(name, known, n=1))
            raise SettingsError(f"`{flag}` is not a setting.{hint}")
        names.add(name)
    return frozenset(names)


def _known() -> dict[str, Any]:
    """All settings with their types."""
    return {each.name: each.type for section in SECTIONS for each in fields(section) if each.init}


def _plain(value: Any) -> Any:
    """Write a value as YAML can."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(each) for each in value]
    return str(value)
