"""Reference log-probabilities on disk: the reference is paid for once, by one run for all.

A store belongs to one fingerprint of everything the numbers depend on: weights, processor,
corruption and seed of the run, and, in the key of each row, its texts and pixels. So a store is
right or it is another store.

Shapes: ``b`` preference pairs.
"""

import json
import math
import os
import re
import sys
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

SPREAD = 2e-2
"""Difference between two computations of one number, in half precision and other batches, that is
rounding: relative and absolute."""

UNKEYED = 0
"""Digest of a row whose texts and pixels were not hashed: it would stand for every such row."""


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
        self._part: Path | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        self._claim(json.dumps(dict(facts), indent=2, sort_keys=True))
        self.reread()

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
        if names:
            self._refuse_unkeyed(digests)
        return [
            place
            for place in _first_places(digests)
            if any((digests[place], name) not in self._values for name in names)
        ]

    def append(self, digests: Int[Tensor, " b"], logps: Mapping[Candidate, Tensor]) -> None:
        """Add log-probabilities; they are on disk when this returns.

        Args:
            digests: Keys of rows.
            logps: By candidate, one per row.

        Raises:
            ValueError: If one is not finite or contradicts what is there, or a row was not hashed;
                nothing is kept then.
        """
        keys, fresh = digests.tolist(), dict[tuple[int, str], float]()
        self._refuse_unkeyed(keys)
        for each, values in logps.items():
            candidate = str(each)
            for key, value in zip(keys, values.float().tolist(), strict=True):
                if not math.isfinite(value):
                    raise ValueError(
                        f"The reference log-probability of candidate {candidate} is {value} for "
                        f"row key {_hex(key)}. It was not stored; look at the model's weights."
                    )
                first = fresh.setdefault((key, candidate), value)
                self._refuse_contradiction((key, candidate), first, value, place="this run")
        self._write(
            json.dumps({"row": _hex(key), "candidate": candidate, "logp": value}) + "\n"
            for (key, candidate), value in fresh.items()
        )
        for key, value in fresh.items():
            self._values.setdefault(key, value)

    def close(self) -> None:
        """End the part that this process writes; what is added later goes into a new one."""
        self._part = None

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

    def _claim(self, description: str) -> None:
        """Write down what the store belongs to, or check that it says so."""
        path = self.folder / "facts.json"
        if not path.exists():
            part = path.with_suffix(f".{uuid.uuid4().hex}.part")
            part.write_text(description, encoding="utf-8")
            part.replace(path)
        elif path.read_text(encoding="utf-8") != description:
            raise ValueError(
                f"{path} does not say what the folder's name stands for, so it was changed. "
                "Delete that folder; its rows are then computed again."
            )

    def _write(self, lines: Iterable[str]) -> None:
        """Add lines to the part of this process; they are on disk when this returns."""
        if self._part is None:
            self._part = self.folder / f"part-{uuid.uuid4().hex}.jsonl"
        try:
            with self._part.open("a", encoding="utf-8") as file:
                file.write("".join(lines))
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            # The last line may be torn, and another after it would make the part unreadable.
            self.close()
            raise

    def _read(self, path: Path) -> None:
        """Take in one part; a last line that was cut off is left out."""
        # As bytes: a damaged line need not be text.
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
            place = f"{path}, line {number}"
            try:
                key, candidate, value = _parse(line)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{place} is damaged ({type(error).__name__}: {error}). Delete the file; its "
                    "rows are then computed again."
                ) from None
            key = (key, sys.intern(candidate))
            self._refuse_contradiction(key, value, value, place=place)
            self._values.setdefault(key, value)

    def _refuse_contradiction(
        self, key: tuple[int, str], first: float, value: float, *, place: str
    ) -> None:
        """Refuse a value that differs by more than rounding from the one there, or ``first``."""
        first = self._values.get(key, first)
        if abs(first - value) > SPREAD * (1 + abs(first)):
            raise ValueError(
                f"Row {_hex(key[0])}, candidate {key[1]} has reference log-probability {value} in "
                f"{place}, but {first} elsewhere in {self.folder}. Delete that folder."
            )

    def _refuse_unkeyed(self, digests: Sequence[int]) -> None:
        """Refuse rows that cannot be told apart."""
        if unkeyed := sum(key == UNKEYED for key in digests):
            raise ValueError(
                f"{unkeyed} of {len(digests)} rows have digest {UNKEYED}: their texts and pixels "
                "were not hashed, so nothing can be stored for them. Give `PreferenceDataset` the "
                "`digests` of the data report."
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
        shard: Number of this process and of all; each computes its share, which does not depend
            on what others have stored by now.
        show_progress: Whether to show a progress bar.

    Returns:
        How many rows were computed.
    """
    rank, world = shard
    own = set(_first_places(digests)[rank::world])
    missing = [each for each in store.missing(digests, candidates) if each in own]
    bar = tqdm(
        total=len(missing), desc="reference log-probabilities", disable=not show_progress, delay=1
    )
    with bar, torch.no_grad():
        for begin in range(0, len(missing), batch_size):
            batch = collate(missing[begin : begin + batch_size])
            store.append(batch["digests"], score(batch, candidates))
            bar.update(len(batch["rows"]))
    return len(missing)


def _first_places(digests: Sequence[int]) -> list[int]:
    """Find where each row stands first, in order."""
    return sorted({key: place for place, key in reversed(list(enumerate(digests)))}.values())


def _hex(key: int) -> str:
    """Write the key of a row."""
    return f"{key % 2**64:016x}"


def _parse(line: bytes) -> tuple[int, str, float]:
    """Read key, candidate and value off a line."""
    record = json.loads(line)
    row, value = record["row"], record["logp"]
    if not re.fullmatch(r"[0-9a-f]{16}", row):
        raise ValueError(f"`row` must be 16 hexadecimal digits, got {row!r}")
    if type(value) is not float or not math.isfinite(value):
        raise ValueError(f"`logp` must be a finite number, got {value!r}")
    key = int(row, 16)
    return key - 2**64 if key >= 2**63 else key, str(Candidate.parse(record["candidate"])), value
