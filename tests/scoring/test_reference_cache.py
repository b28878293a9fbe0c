"""Reference log-probabilities on disk: exact, complete or refused, resumable, shared."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mdpo.data.batch import Batch
from mdpo.objectives import CHOSEN, REJECTED, REJECTED_IMAGE, Candidate
from mdpo.scoring.plain import Scorer
from mdpo.scoring.reference_cache import CachedReference, LogpStore, fill

FACTS = {"weights": "w", "seed": 1}
BIG = 2**63 - 1


def store_in(folder: Path, **changes: Any) -> LogpStore:
    return LogpStore(folder, FACTS | changes)


def keys(*values: int) -> Tensor:
    return torch.tensor(values)


def batch_of(*digests: int) -> Batch:
    return Batch(
        prompts={},
        responses={},
        image_keys={},
        has_image=torch.ones(len(digests), dtype=torch.bool),
        rows=torch.arange(len(digests)),
        digests=keys(*digests),
    )


class Counted:
    """A reference that gives the key itself, and counts."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[int], list[Candidate]]] = []

    def __call__(
        self, scorer: Scorer, batch: Batch, candidates: Iterable[Candidate]
    ) -> dict[Candidate, Tensor]:
        wanted = list(candidates)
        self.asked.append((batch["digests"].tolist(), wanted))
        return {each: batch["digests"].float() for each in wanted}


SCORER: Any = None


def test_numbers_come_back_to_the_last_bit(tmp_path: Path) -> None:
    values = torch.tensor([-123.45678, -1e-30, -3.4e38, -0.1])
    store_in(tmp_path).append(keys(5, -7, BIG, -BIG - 1), {CHOSEN: values})
    again = store_in(tmp_path)
    got = again.lookup(keys(-BIG - 1, BIG, 5, -7), [CHOSEN])[CHOSEN]
    assert torch.equal(got, values[[3, 2, 0, 1]])
    assert got.dtype == torch.float32
    assert len(again) == 4


def test_other_facts_are_another_store(tmp_path: Path) -> None:
    store_in(tmp_path).append(keys(1), {CHOSEN: torch.tensor([-1.0])})
    for changes in ({"weights": "v"}, {"seed": 2}, {"corruption": "black"}):
        assert len(store_in(tmp_path, **changes)) == 0
    folder = store_in(tmp_path).folder
    assert json.loads((folder / "facts.json").read_text()) == FACTS


def test_candidates_are_kept_apart(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.append(keys(1), {CHOSEN: torch.tensor([-1.0]), REJECTED: torch.tensor([-2.0])})
    got = store.lookup(keys(1), [REJECTED, CHOSEN])
    assert got[REJECTED].item() == -2
    assert got[CHOSEN].item() == -1
    assert store.missing([1], [CHOSEN, REJECTED_IMAGE]) == [0]


def test_what_is_missing_is_refused_with_its_count(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.append(keys(1), {CHOSEN: torch.tensor([-1.0])})
    with pytest.raises(ValueError, match=r"2 of 3 rows .*precompute_ref_log_probs"):
        store.lookup(keys(1, 2, 3), [CHOSEN])


@pytest.mark.parametrize("bad", [float("nan"), float("-inf"), float("inf")])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    store = store_in(tmp_path)
    with pytest.raises(ValueError, match=r"chosen/chosen is .* row key 0000000000000007"):
        store.append(keys(7), {CHOSEN: torch.tensor([bad])})
    assert len(store_in(tmp_path)) == 0


def part_of(folder: Path) -> Path:
    (part,) = folder.glob("part-*.jsonl")
    return part


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.append(keys(1, 2), {CHOSEN: torch.tensor([-1.0, -2.0])})
    part = part_of(store.folder)
    part.write_text(part.read_text()[:-9])
    again = store_in(tmp_path)
    assert again.missing([1, 2], [CHOSEN]) == [1]
    again.append(keys(2), {CHOSEN: torch.tensor([-2.0])})
    assert store_in(tmp_path).missing([1, 2], [CHOSEN]) == []


@pytest.mark.parametrize("line", ["{", "[]", '{"row": "zz", "candidate": "a", "logp": 1}', ""])
def test_a_damaged_line_is_refused_by_file_and_number(tmp_path: Path, line: str) -> None:
    store = store_in(tmp_path)
    store.append(keys(1, 2), {CHOSEN: torch.tensor([-1.0, -2.0])})
    part = part_of(store.folder)
    first, second = part.read_text().splitlines()
    part.write_text(f"{first}\n{line}\n{second}\n")
    with pytest.raises(ValueError, match=r"part-.*line 2 is damaged"):
        store_in(tmp_path)


def test_two_runs_fill_one_store(tmp_path: Path) -> None:
    one, other = store_in(tmp_path), store_in(tmp_path)
    one.append(keys(1), {CHOSEN: torch.tensor([-1.0])})
    other.append(keys(2), {CHOSEN: torch.tensor([-2.0])})
    # Rounding differs between batch sizes; the first number stays.
    other.append(keys(1), {CHOSEN: torch.tensor([-1.0001])})
    assert one.missing([1, 2], [CHOSEN]) == [1]
    one.reread()
    assert one.lookup(keys(1, 2), [CHOSEN])[CHOSEN].tolist() == [-1.0, -2.0]
    assert len(list(one.folder.glob("part-*.jsonl"))) == 2


def test_numbers_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.append(keys(1), {CHOSEN: torch.tensor([-100.0])})
    with pytest.raises(ValueError, match=r"-110.0 in this run, but -100.0"):
        store.append(keys(1), {CHOSEN: torch.tensor([-110.0])})
    assert store.lookup(keys(1), [CHOSEN])[CHOSEN].item() == -100


def test_known_rows_ask_nobody(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.append(keys(1, 2), {CHOSEN: torch.tensor([-1.0, -2.0])})
    got = CachedReference(store, online=None)(SCORER, batch_of(2, 1), [CHOSEN])
    assert got[CHOSEN].tolist() == [-2.0, -1.0]
    assert not got[CHOSEN].requires_grad


def test_what_is_drawn_per_epoch_is_computed_and_never_kept(tmp_path: Path) -> None:
    store, online = store_in(tmp_path), Counted()
    store.append(keys(1, 2), {CHOSEN: torch.tensor([-1.0, -2.0])})
    reference = CachedReference(store, online=online, drawn_per_epoch={"rejected"})
    got = reference(SCORER, batch_of(1, 2), [CHOSEN, REJECTED_IMAGE])
    assert online.asked == [([1, 2], [REJECTED_IMAGE])]
    assert got[CHOSEN].tolist() == [-1.0, -2.0]
    assert got[REJECTED_IMAGE].tolist() == [1.0, 2.0]
    assert len(store) == 2
    with pytest.raises(ValueError, match="corruption_per_epoch"):
        CachedReference(store, online=None, drawn_per_epoch={"rejected"})(
            SCORER, batch_of(1), [REJECTED_IMAGE]
        )


DIGESTS = [11, 12, 13, 11, 14]


def run_fill(
    store: LogpStore,
    *,
    stop_after: int | None = None,
    shard: tuple[int, int] = (0, 1),
    candidates: Sequence[Candidate] = (CHOSEN,),
) -> tuple[int, list[list[int]]]:
    collated: list[list[int]] = []

    def collate(positions: list[int]) -> Batch:
        if stop_after is not None and len(collated) == stop_after:
            raise KeyboardInterrupt
        collated.append(positions)
        return batch_of(*(DIGESTS[each] for each in positions))

    def score(batch: Batch, wanted: Sequence[Candidate]) -> dict[Candidate, Tensor]:
        return {each: -batch["digests"].float() for each in wanted}

    count = fill(
        store, DIGESTS, collate, score, candidates=candidates, batch_size=2, shard=shard,
        show_progress=False,
    )  # fmt: skip
    return count, collated


def test_fill_computes_each_row_once(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    assert run_fill(store) == (4, [[0, 1], [2, 4]])
    assert store.lookup(keys(*DIGESTS), [CHOSEN])[CHOSEN].tolist() == [-11, -12, -13, -11, -14]
    assert run_fill(store) == (0, [])
    assert run_fill(store, candidates=(CHOSEN, REJECTED))[0] == 4


def test_fill_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_fill(store_in(tmp_path), stop_after=1)
    assert run_fill(store_in(tmp_path)) == (2, [[2, 4]])


def test_processes_share_the_work(tmp_path: Path) -> None:
    # Both look before either has written, as processes do.
    stores = [store_in(tmp_path) for _ in range(2)]
    parts = [run_fill(stores[rank], shard=(rank, 2))[1] for rank in range(2)]
    assert parts == [[[0, 2]], [[1, 4]]]
    assert store_in(tmp_path).missing(DIGESTS, [CHOSEN]) == []


def test_a_process_that_starts_late_leaves_no_row_out(tmp_path: Path) -> None:
    first = [run_fill(store_in(tmp_path), shard=(rank, 2))[1] for rank in range(2)]
    assert first == [[[0, 2]], [[1, 4]]]
    assert store_in(tmp_path).missing(DIGESTS, [CHOSEN]) == []


def test_a_description_that_was_changed_is_refused(tmp_path: Path) -> None:
    folder = store_in(tmp_path).folder
    store_in(tmp_path)
    (folder / "facts.json").write_text(json.dumps(FACTS | {"seed": 2}))
    with pytest.raises(ValueError, match=r"facts\.json does not say .* Delete that folder"):
        store_in(tmp_path)


def test_a_batch_with_one_bad_number_is_refused_whole(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    with pytest.raises(ValueError, match="is nan"):
        store.append(keys(1, 2), {CHOSEN: torch.tensor([-1.0, float("nan")])})
    with pytest.raises(ValueError, match=r"-3.0 in this run, but -1.0"):
        store.append(keys(1, 2, 1), {CHOSEN: torch.tensor([-1.0, -2.0, -3.0])})
    assert len(store) == len(store_in(tmp_path)) == 0


def test_equal_rows_of_a_batch_are_one(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.append(keys(1, 1), {CHOSEN: torch.tensor([-1.0, -1.0001])})
    assert part_of(store.folder).read_text().count("\n") == 1
    assert store_in(tmp_path).lookup(keys(1, 1), [CHOSEN])[CHOSEN].tolist() == [-1.0, -1.0]


@pytest.mark.parametrize(
    "change",
    [("-2.0", "NaN"), ("-2.0", "-Infinity"), ("-2.0", "true"), ("-2.0", '"-2"'),
     ("0000000000000002", "2"), ("0000000000000002", "-000000000000002"),
     ("chosen/chosen", "chosen/spoilt"), ("chosen/chosen", "chosen")],
)  # fmt: skip
def test_a_line_with_a_bad_value_is_refused(tmp_path: Path, change: tuple[str, str]) -> None:
    store = store_in(tmp_path)
    store.append(keys(1, 2), {CHOSEN: torch.tensor([-1.0, -2.0])})
    part = part_of(store.folder)
    first, second = part.read_text().splitlines()
    part.write_text(f"{first}\n{second.replace(*change)}\n")
    with pytest.raises(ValueError, match=r"part-.*line 2 is damaged .*Delete the file"):
        store_in(tmp_path)


def test_bytes_that_are_no_text_are_refused_unless_torn(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.append(keys(1), {CHOSEN: torch.tensor([-1.0])})
    part = part_of(store.folder)
    part.write_bytes(part.read_bytes() + b"\xff\xfe")
    assert len(store_in(tmp_path)) == 1
    part.write_bytes(part.read_bytes() + b"\n")
    with pytest.raises(ValueError, match=r"line 2 is damaged"):
        store_in(tmp_path)


def test_after_a_write_that_failed_a_new_part_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_in(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("mdpo.scoring.reference_cache.os.fsync", full)
        with pytest.raises(OSError, match="no space"):
            store.append(keys(1), {CHOSEN: torch.tensor([-1.0])})
    assert len(store) == 0
    part = part_of(store.folder)
    part.write_text(part.read_text()[:-9])
    store.append(keys(2), {CHOSEN: torch.tensor([-2.0])})
    assert store_in(tmp_path).missing([1, 2], [CHOSEN]) == [0]


def test_one_process_writes_one_part_until_it_closes_it(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for key in (1, 2):
        store.append(keys(key), {CHOSEN: torch.tensor([-1.0])})
    assert len(list(store.folder.glob("part-*.jsonl"))) == 1
    store.close()
    store.append(keys(3), {CHOSEN: torch.tensor([-1.0])})
    assert len(list(store.folder.glob("part-*.jsonl"))) == 2


def test_parts_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    one, other = store_in(tmp_path), store_in(tmp_path)
    one.append(keys(1), {CHOSEN: torch.tensor([-100.0])})
    other.append(keys(1), {CHOSEN: torch.tensor([-110.0])})
    with pytest.raises(ValueError, match=r"part-.*line 1, but -1[01]0.0 elsewhere"):
        store_in(tmp_path)


def test_rows_that_were_not_hashed_are_refused(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    with pytest.raises(ValueError, match=r"1 of 2 rows have digest 0"):
        store.append(keys(0, 1), {CHOSEN: torch.tensor([-1.0, -2.0])})
    with pytest.raises(ValueError, match=r"2 of 2 rows have digest 0"):
        CachedReference(store, online=None)(SCORER, batch_of(0, 0), [CHOSEN])


def test_of_numbers_that_differ_by_rounding_the_first_stays(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.append(keys(1), {CHOSEN: torch.tensor([-1.0])})
    store.append(keys(1), {CHOSEN: torch.tensor([-1.0005])})
    assert store.lookup(keys(1), [CHOSEN])[CHOSEN].item() == -1
    # Parts are read in the order of their names, whoever wrote first.
    part = part_of(store.folder)
    first, second = part.read_text().splitlines(keepends=True)
    part.with_name("part-b.jsonl").write_text(first)
    part.with_name("part-a.jsonl").write_text(second)
    part.unlink()
    again = store_in(tmp_path).lookup(keys(1), [CHOSEN])[CHOSEN]
    assert torch.equal(again, torch.tensor([-1.0005]))


def test_filling_keeps_no_graph(tmp_path: Path) -> None:
    modes: list[bool] = []

    def score(batch: Batch, wanted: Sequence[Candidate]) -> dict[Candidate, Tensor]:
        modes.append(torch.is_grad_enabled())
        return {each: -batch["digests"].float() for each in wanted}

    fill(
        store_in(tmp_path), [1], lambda positions: batch_of(1), score, candidates=[CHOSEN],
        batch_size=1, show_progress=False,
    )  # fmt: skip
    assert modes == [False]
