"""The demo: train the playground's model by DPO and by mDPO, and measure what each does.

Every step is a command that a user could type (``mdpo train``, ``generate``, ``score``,
``rewards``); the demo only calls them, several at a time, and puts their results together.
"""

import contextlib
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from mdpo.playground.files import write_playground
from mdpo.playground.page import write_page
from mdpo.playground.summary import summarise_systems, table_lines

RECIPE = Path(__file__).with_name("recipe.yaml")

METHODS: dict[str, tuple[str, ...]] = {
    "dpo": ("--objective", "dpo"),
    "dpo-no-image": ("--objective", "dpo", "--image_condition", "none"),
    "mdpo": ("--objective", "mdpo"),
}
"""Systems that are trained, with the settings in which they differ."""

Command = list[str]


@dataclass(frozen=True)
class Job:
    """Commands that belong together, run one after the other in one process.

    Attributes:
        name: For messages and the log file.
        commands: Command lines without ``mdpo``.
        log: File that takes their output.
    """

    name: str
    commands: list[Command]
    log: Path


def run_demo(out: Path, *, seeds: Sequence[int], workers: int, extra: Sequence[str]) -> list[str]:
    """Run the whole demo.

    Args:
        out: Folder of the demo.
        seeds: One training run per method and seed.
        workers: Processes at a time.
        extra: Further flags of every ``mdpo train``.

    Returns:
        The table of results, as lines.
    """
    started = time.monotonic()
    playground = out / "playground"
    write_playground(playground)
    # What an earlier demo left must not pass for the results of this one.
    for system, seed in [("base", 0), *((m, s) for m in METHODS for s in seeds)]:
        shutil.rmtree(run_folder(out, system, seed), ignore_errors=True)
    jobs = [evaluation_job(out, "base", seeds[0])]
    jobs += [training_job(out, method, seed, extra=extra) for seed in seeds for method in METHODS]
    seconds = run_jobs(jobs, workers=workers)
    systems = summarise_systems(out, seeds=seeds)
    summary = {
        "systems": systems,
        "seeds": list(seeds),
        "versions": _versions(),
        "wall_seconds": round(time.monotonic() - started, 1),
        "job_seconds": seconds,
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    write_page(out, summary)
    return table_lines(systems)


def run_folder(out: Path, system: str, seed: int) -> Path:
    """Where a system's run lies.

    Args:
        out: Folder of the demo.
        system: One of ``SYSTEMS``.
        seed: Of its training; the base has none.

    Returns:
        A folder.
    """
    return out / (system if system == "base" else f"{system}-{seed}")


def training_job(out: Path, method: str, seed: int, *, extra: Sequence[str]) -> Job:
    """Train a method and evaluate the result.

    Args:
        out: Folder of the demo.
        method: Key of ``METHODS``.
        seed: Of the run.
        extra: Further flags of ``mdpo train``.

    Returns:
        The job.
    """
    playground, folder = out / "playground", run_folder(out, method, seed)
    train = [
        "train",
        *("--config", str(RECIPE)),
        *METHODS[method],
        *("--model_name_or_path", str(playground / "model")),
        *("--dataset_name", str(playground / "train.jsonl")),
        *("--eval_dataset_name", str(playground / "validation.jsonl")),
        *("--output_dir", str(folder)),
        *("--seed", str(seed)),
        *extra,
    ]
    evaluation = evaluation_job(out, method, seed)
    return Job(evaluation.name, [train, *evaluation.commands], evaluation.log)


def evaluation_job(out: Path, system: str, seed: int) -> Job:
    """Measure a system's hallucination, and its rewards if it was trained.

    Args:
        out: Folder of the demo.
        system: One of ``SYSTEMS``.
        seed: Of its training.

    Returns:
        The job.
    """
    playground, folder = out / "playground", run_folder(out, system, seed)
    adapter = [] if system == "base" else ["--adapter", str(folder)]
    model = ["--model", str(playground / "model")]
    images = ["--images", str(playground / "chair"), "--batch-size", "50"]
    commands = []
    for suite in ("chair", "pope"):
        data, answers = ["--data", str(playground / suite)], str(folder / suite)
        commands += [
            ["generate", suite, *model, *adapter, *data, "--out", answers, *images],
            ["score", suite, answers, *data],
        ]
    if adapter:
        pairs = str(playground / "validation.jsonl")
        where = ["--out", str(folder / "rewards"), "--batch-size", "32"]
        commands.append(["rewards", pairs, *model, *adapter, *where])
    return Job(folder.name, commands, out / "logs" / f"{folder.name}.log")


def run_jobs(jobs: Sequence[Job], *, workers: int) -> dict[str, float]:
    """Run jobs, a few at a time.

    Args:
        jobs: In the order they are begun.
        workers: Processes at a time; each has its share of the cores.

    Returns:
        Seconds each job took, by name.

    Raises:
        RuntimeError: If a command failed; the message ends with its last output.
    """
    for job in jobs:
        for command in job.commands:
            tqdm.write("$ mdpo " + " ".join(command))
    threads = max(1, (os.cpu_count() or 1) // workers)
    # Fresh processes: a forked one inherits thread pools that it cannot use.
    context = multiprocessing.get_context("spawn")
    seconds: dict[str, float] = {}
    with (
        ProcessPoolExecutor(workers, context, _set_threads, (threads,)) as pool,
        tqdm(total=len(jobs), desc="demo runs") as bar,
    ):
        futures = {pool.submit(run_job, job): job for job in jobs}
        for future in as_completed(futures):
            job = futures[future]
            status, seconds[job.name] = future.result()
            if status:
                pool.shutdown(cancel_futures=True)
                tail = "\n".join(job.log.read_text(encoding="utf-8").splitlines()[-15:])
                raise RuntimeError(
                    f"{job.name} failed with status {status}, see {job.log}:\n{tail}"
                )
            bar.update()
    return seconds


def run_job(job: Job) -> tuple[int, float]:
    """Run the commands of a job in this process, output to its log.

    Args:
        job: What to run.

    Returns:
        Exit status of the first command that failed, or 0; and seconds.
    """
    from mdpo.cli import main

    started = time.monotonic()
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with (
        job.log.open("w", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        for command in job.commands:
            log.write("$ mdpo " + " ".join(command) + "\n")
            log.flush()
            if status := main(command):
                return status, round(time.monotonic() - started, 1)
    return 0, round(time.monotonic() - started, 1)


def _set_threads(threads: int) -> None:
    """Give a worker process its share of the cores."""
    import torch

    torch.set_num_threads(threads)


def _versions() -> dict[str, Any]:
    """Versions that the figures depend on."""
    from mdpo.training.run_record import versions

    return versions()
