"""``mdpo plan``: say what a run will take, before it."""

import argparse
import json
from collections.abc import Sequence

DESCRIPTION = """\
usage: mdpo plan [--config FILE] [--SETTING VALUE ...] [--rate TFLOPS] [--devices N] [--json]

Say what `mdpo train` with the same settings would take: tokens and steps, peak memory of a device
and where it goes, and time. Config, processor and data are needed; weights and a GPU are not.

  --rate TFLOPS
      Measured rate of one device in matrix products, in 10^12 operations per second; gives a time.
  --devices N
      Devices that train together, each with all of the model. [default 1]
  --json
      Print the plan as JSON; sizes are in bytes.

All settings of `mdpo train` work; `mdpo train --help` lists them.

examples:
  mdpo plan --config recipes/playground.yaml
  mdpo plan --config recipes/llava-1.5-7b.yaml --dataset_name pairs.jsonl --rate 150"""


def run(arguments: Sequence[str]) -> int:
    """Print the plan of a run.

    Args:
        arguments: Command line after the verb.

    Returns:
        Exit status.

    Raises:
        SettingsError: If an option is out of its range.
    """
    if "-h" in arguments or "--help" in arguments:
        print(DESCRIPTION)
        return 0
    own, words = _parser().parse_known_args(arguments)

    import warnings

    from transformers.utils import logging

    from mdpo.planning.plan import make_plan
    from mdpo.training.arguments import SettingsError, parse_settings

    for name in ("rate", "devices"):
        value = getattr(own, name)
        if value is not None and not value > 0:
            raise SettingsError(f"`--{name}` must be > 0, got {value}.")
    # Both say something of a run that does not take place here.
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.set_verbosity_error()
    # A plan for a GPU may be made where there is none: nothing is put on a device.
    settings = parse_settings([*words, "--use_cpu", "true"])
    plan = make_plan(settings, rate=own.rate, devices=own.devices)
    print(json.dumps(plan.to_dict(), indent=2) if own.json else "\n".join(plan.lines()))
    return 0


def _parser() -> argparse.ArgumentParser:
    """Take what is not a setting of a run."""
    parser = argparse.ArgumentParser(prog="mdpo plan", allow_abbrev=False, add_help=False)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    return parser
