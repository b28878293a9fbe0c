"""The settings of ``mdpo train``: flags over the ``--config`` file over the defaults."""

import json
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from transformers import HfArgumentParser, TrainingArguments

from mdpo.training.config import MDPOConfig
from mdpo.training.model_settings import ModelSettings

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
