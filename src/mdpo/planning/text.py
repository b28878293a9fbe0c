"""A plan as text for people, aligned."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mdpo.planning.plan import Plan, Work

UNITS = (("GiB", 2**30), ("MiB", 2**20))

NOT_COUNTED = "not counted: the device's own context, workspaces of libraries, gaps between blocks"


def plan_lines(plan: "Plan") -> list[str]:
    """Write a plan.

    Args:
        plan: To be shown.

    Returns:
        Lines of text.
    """
    title = f"{plan.model}, {plan.objective} on {plan.data}, trained: {plan.training}"
    return [
        title,
        "",
        *_steps(plan),
        "",
        *_work(plan),
        "",
        *_memory(plan),
        "",
        *_time(plan),
    ]


def _steps(plan: "Plan") -> list[str]:
    """Pairs and optimizer steps."""
    schedule = plan.schedule
    per_step = schedule.pairs_per_batch * schedule.batches_per_step * schedule.devices
    devices = f"{schedule.devices} device" + "s" * (schedule.devices > 1)
    dropped = f"   {plan.dropped:,} more are dropped" if plan.dropped else ""
    product = f"{schedule.pairs_per_batch} per batch x {schedule.batches_per_step} x {devices}"
    epochs = f"{schedule.epochs:.3g} epochs of {schedule.steps_per_epoch:,}"
    return [
        f"{'pairs':<28} {schedule.pairs:>12,}{dropped}",
        f"{'pairs per optimizer step':<28} {per_step:>12,}   {product}",
        f"{'optimizer steps':<28} {schedule.steps:>12,}   {epochs}",
    ]


def _work(plan: "Plan") -> list[str]:
    """Tokens and images."""
    work, other = plan.work, plan.other_work
    before = "before training" if not work.reference_per_epoch else work.reference_per_epoch
    rows: list[tuple[str, int | str, int]] = [
        ("policy, training", work.policy_per_epoch, work.policy_per_run),
        ("reference, inference", before, work.reference_per_run),
    ]
    for name, each in ((plan.scorer, work), (plan.other_scorer, other)):
        per_epoch = each.policy_per_epoch + each.reference_per_epoch
        rows.append((f"both, scorer {name}", per_epoch, _tokens(each)))
    lines = [f"{'tokens through the language model':<35} {'per epoch':>16} {'per run':>18}"]
    for name, per_epoch, per_run in rows:
        shown = per_epoch if isinstance(per_epoch, str) else f"{per_epoch:,}"
        lines.append(f"  {name:<33} {shown:>16} {per_run:>18,}")
    for name, each in ((plan.scorer, work), (plan.other_scorer, other)):
        if each.padded_per_run != _tokens(each):
            lines[-1 if name == plan.other_scorer else -2] += (
                f"   with padding about {each.padded_per_run:,}"
            )
    pairs = f"{plan.longest_pass_pairs} pair" + "s" * (plan.longest_pass_pairs > 1)
    lines += [
        f"  {'longest pass, at most':<33} {plan.longest_pass:>16,}   up to {pairs}",
        "",
        f"{'images through the vision tower':<35} {'per pair':>16} {'per run':>18}",
    ]
    for name, each in ((plan.scorer, work), (plan.other_scorer, other)):
        lines.append(
            f"  {'scorer ' + name:<33} {each.images_per_pair:>16.2f} {each.images_per_run:>18,}"
        )
    return lines


def _tokens(work: "Work") -> int:
    """Tokens of policy and reference, padding not included."""
    return work.policy_per_run + work.reference_per_run


def _memory(plan: "Plan") -> list[str]:
    """Where the memory goes."""
    width = max(len(each.name) for each in plan.memory) + 2
    # A run this small is a test or the playground.
    unit, size_of_unit = UNITS[plan.peak_bytes < UNITS[0][1]]
    lines = [f"{'peak memory of a device':<{width + 2}} {unit:>10}"]
    complete = True
    for each in plan.memory:
        size = "?" if each.num_bytes is None else f"{each.num_bytes / size_of_unit:.2f}"
        complete = complete and each.num_bytes is not None
        lines.append(f"  {each.name:<{width}} {size:>10}   {each.note}".rstrip())
    total = "total" if complete else "total, at least"
    lines += [f"  {total:<{width}} {plan.peak_bytes / size_of_unit:>10.2f}", f"  {NOT_COUNTED}"]
    if plan.feature_cache != "none":
        where = "in main memory" if plan.feature_cache == "memory" else f"on {plan.feature_cache}"
        size = f"{plan.feature_cache_bytes / size_of_unit:.2f} {unit}"
        lines.append(f"feature cache: {size} {where}")
    return lines


def _time(plan: "Plan") -> Sequence[str]:
    """Matrix products and time."""
    if plan.flops is None:
        return ["matrix products: not known (the vision tower cannot be measured)"]
    products = plan.flops / 1e12
    shown = f"{products:,.0f}" if products >= 100 else f"{products:.3g}"
    lines = [f"matrix products: {shown} x 10^12 operations"]
    if plan.seconds is None:
        return [*lines, "time: not known (no measured rate given; see --rate)"]
    hours, rest = divmod(round(plan.seconds), 3600)
    return [*lines, f"time: {hours} h {rest // 60:02d} min {rest % 60:02d} s at the rate given"]
