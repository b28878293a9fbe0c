"""Reference log-probabilities on disk: the reference is paid for once, by one run for all.

A store belongs to one fingerprint of everything the numbers depend on: weights, processor,
corruption and seed of the run, and, in the key of each row, its texts and pixels. So a store is
right or it is another store.

Shapes: ``b`` preference pairs.
"""

import json
import math
import os
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from mdpo.data.batch import Batch
from mdpo.models.fingerprints import fingerprint
from mdpo.objectives import Candidate
from mdpo.scoring.plain import Scorer
from mdpo.scoring.reference import Reference

Logps = dict[Candidate, Float[Tensor, " b"]]

SPREAD = 1e-3
"""Difference between two computations of one number that is rounding, relative and absolute."""


class LogpStore:
    """Log-probabilities by row and candidate, in append-only files.

    Files are ``ROOT/FINGERPRINT/facts.json``, which says what the store belongs to, and one
    ``part-*.jsonl`` per process that wrote, so that several runs may fill a store at a time.

    Attributes:
        folder: Of the store.
    """

    def __init__(self, root: Path, facts: Mapping[str, Any]) -> None:
        """Open a store, or begin one.

        Args:
            root: Folder of all stores.
            facts: What the numbers depend on besides the rows; what JSON can hold.
        """
        self.folder = root / fingerprint(facts)
        self._values: dict[tuple[int, str], float] = {}
        self._part = self.folder / f"part-{uuid.uuid4().hex}.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)
        description = self.folder / "facts.json"
        if not description.exists():
            part = description.with_suffix(f".{uuid.uuid4().hex}.part")
            part.write_text(json.dumps(dict(facts), indent=2, sort_keys=True), encoding="utf-8")
            part.replace(description)
        for path in sorted(self.folder.glob("part-*.jsonl")):
            self._read(path)

    def __len__(self) -> int:
        """Number of log-probabilities."""
        return len(self._values)

    def missing(self, digests: Sequence[int], candidates: Iterable[Candidate]) -> list[int]:
        """Find rows that lack a value.

        Args:
            digests: Keys of rows.
            candidates: What is needed of each.

        Returns:
            Their places in ``digests``; of equal rows the first only.
        """
        names = [str(each) for each in candidates]
        first = {key: place for place, key in reversed(list(enumerate(digests)))}
        return sorted(
            place
            for key, place in first.items()
            if any((key, name) not in self._values for name in names)
        )

    def append(self, digests: Int[Tensor, " b"], logps: Mapping[Candidate, Tensor]) -> None:
        """Add log-probabilities; they are on disk when this returns.

        Args:
            digests: Keys of rows.
            logps: By candidate, one per row.

        Raises:
            ValueError: If one is not finite.
        """
        lines = []
        for candidate, values in logps.items():
            for key, value in zip(digests.tolist(), values.float().tolist(), strict=True):
                if not math.isfinite(value):
                    raise ValueError(
                        f"The reference log-probability of candidate {candidate} is {value} for "
                        f"row key {_hex(key)}. It was not stored; look at the model's weights."
                    )
                self._keep(key, str(candidate), value, place="this run")
                record = {"row": _hex(key), "candidate": str(candidate), "logp": value}
                lines.append(json.dumps(record) + "\n")
        with self._part.open("a", encoding="utf-8") as file:
            file.write("".join(lines))
            file.flush()
            os.fsync(file.fileno())

    def lookup(self, digests: Int[Tensor, " b"], candidates: Iterable[Candidate]) -> Logps:
        """Read log-probabilities.

        Args:
            digests: Keys of rows.
            candidates: What is needed of each; all must be there.

        Returns:
            By candidate, float32, on the device of ``digests``.

        Raises:
            ValueError: If a row lacks a value.
        """
        keys, wanted = digests.tolist(), list(candidates)
        if lacking := self.missing(keys, wanted):
            raise ValueError(
                f"{len(lacking)} of {len(keys)} rows have no reference log-probability in "
                f"{self.folder}. Fill the store first: it is done when a run with "
                "`precompute_ref_log_probs` begins."
            )
        return {
            each: torch.tensor(
                [self._values[key, str(each)] for key in keys],
                dtype=torch.float32,
                device=digests.device,
            )
            for each in wanted
        }

    def reread(self) -> None:
        """Take in what other processes have written since."""
        for path in sorted(self.folder.glob("part-*.jsonl")):
            self._read(path)

    def _read(self, path: Path) -> None:
        """Take in one part; a last line that was cut off is left out."""
        lines = path.read_text(encoding="utf-8").split("\n")
        for number, line in enumerate(lines[:-1], start=1):
            place = f"{path}, line {number}"
            try:
                record = json.loads(line)
                key, candidate = int(record["row"], 16), str(record["candidate"])
                value = float(record["logp"])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{place} is damaged ({type(error).__name__}: {error}). Delete the file; its "
                    "rows are then computed again."
                ) from None
            self._keep(key - 2**64 if key >= 2**63 else key, candidate, value, place=place)

    def _keep(self, key: int, candidate: str, value: float, *, place: str) -> None:
        """Keep the first value of each key, and refuse one that contradicts it."""
        first = self._values.setdefault((key, candidate), value)
        if abs(first - value) > SPREAD * (1 + abs(first)):
            raise ValueError(
                f"Row {_hex(key)}, candidate {candidate} has reference log-probability {value} in "
                f"{place}, but {first} elsewhere in {self.folder}. Delete that folder."
            )


class CachedReference:
    """Reference log-probabilities from a store.

    Attributes:
        store: What is known.
        online: Computes what the store cannot have; None refuses.
        drawn_per_epoch: Image slots whose images change from epoch to epoch.
    """

    def __init__(
        self, store: LogpStore, *, online: Reference | None, drawn_per_epoch: Collection[str] = ()
    ) -> None:
        """Keep the store."""
        self.store, self.online, self.drawn_per_epoch = store, online, frozenset(drawn_per_epoch)

    def __call__(self, scorer: Scorer, batch: Batch, candidates: Iterable[Candidate]) -> Logps:
        """Look candidates up; compute those whose image was drawn for this epoch.

        Args:
            scorer: The one that scores the policy.
            batch: From collation.
            candidates: What to score.

        Returns:
            Summed response log-probabilities in nats, without gradient.

        Raises:
            ValueError: If the store lacks a value, or nothing can compute what it cannot have.
        """
        wanted = list(candidates)
        kept = [each for each in wanted if each.image not in self.drawn_per_epoch]
        drawn = [each for each in wanted if each.image in self.drawn_per_epoch]
        known = self.store.lookup(batch["digests"], kept)
        if not drawn:
            return known
        if self.online is None:
            raise ValueError(
                f"Candidate {drawn[0]} has an image drawn anew in each epoch, so its reference "
                "log-probability cannot be stored, and there is no reference model. Set "
                "`corruption_per_epoch` to false, or give `ref_model`."
            )
        return known | self.online(scorer, batch, drawn)


def fill(
    store: LogpStore,
    digests: Sequence[int],
    collate: Callable[[list[int]], Batch],
    score: Callable[[Batch, Sequence[Candidate]], Logps],
    *,
    candidates: Sequence[Candidate],
    batch_size: int,
    shard: tuple[int, int] = (0, 1),
    show_progress: bool = True,
) -> int:
    """Compute what a store lacks of a data set; a pass that was cut off goes on where it stopped.

    Args:
        store: To fill.
        digests: Keys of the rows, by position in the data set.
        collate: From positions to a batch on the model's device; images of rows that are there
            already are never decoded.
        score: From batch and candidates to reference log-probabilities.
        candidates: What is needed of each row.
        batch_size: Pairs at a time.
        shard: Number of this process and of all; each computes its share.
        show_progress: Whether to show a progress bar.

    Returns:
        How many rows were computed.
    """
    rank, world = shard
    missing = store.missing(digests, candidates)[rank::world]
    bar = tqdm(
        total=len(missing), desc="reference log-probabilities", disable=not show_progress, delay=1
    )
    with bar, torch.no_grad():
        for begin in range(0, len(missing), batch_size):
            batch = collate(missing[begin : begin + batch_size])
            store.append(batch["digests"], score(batch, candidates))
            bar.update(len(batch["rows"]))
    return len(missing)


def _hex(key: int) -> str:
    """Write the key of a row."""
    return f"{key % 2**64:016x}"
