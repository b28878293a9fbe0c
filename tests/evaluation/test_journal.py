"""Append-only records: torn lines, one writer, and what runs were made with."""

import json
import os
from pathlib import Path

import pytest

from mdpo.evaluation.journal import Journal, content_key, read_journal
from mdpo.evaluation.runs import claim, read_run, write_whole

WHOLE = '{"item": "1"}\n{"item": "2"}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "generations.jsonl"


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


def test_records_come_back_in_order(path: Path):
    with Journal(path) as journal:
        journal.append({"item": "1", "response": "é"})
        assert read_journal(path) == [{"item": "1", "response": "é"}]
        journal.append({"item": "2"})
    with Journal(path) as journal:
        assert [each["item"] for each in journal.records] == ["1", "2"]
        journal.append({"item": "3"})
        assert len(journal.records) == 3
    assert [each["item"] for each in read_journal(path)] == ["1", "2", "3"]


def test_no_file_has_no_records_and_none_is_made(path: Path):
    assert read_journal(path) == []
    assert not path.exists()


@pytest.mark.parametrize(
    "torn",
    [b'{"item": "3", "resp', b'{"item": "3"}', '{"item": "é'.encode()[:-1]],
)
def test_a_torn_last_line_is_left_out_by_readers_and_cut_off_by_the_next_writer(
    path: Path, torn: bytes
):
    write(path, WHOLE.encode() + torn)
    assert len(read_journal(path)) == 2
    assert path.read_bytes().endswith(torn)
    with Journal(path) as journal:
        journal.append({"item": "4"})
    assert [each["item"] for each in read_journal(path)] == ["1", "2", "4"]


def test_a_torn_only_line_leaves_nothing(path: Path):
    write(path, b'{"item')
    with Journal(path) as journal:
        assert journal.records == []
    assert path.read_bytes() == b""


@pytest.mark.parametrize("separator", ["\u2028", "\x85"])
def test_line_separators_within_a_text_do_not_split_a_record(path: Path, separator: str):
    with Journal(path) as journal:
        journal.append({"response": f"a{separator}b"})
    assert read_journal(path) == [{"response": f"a{separator}b"}]


@pytest.mark.parametrize("line", ["nonsense", "[1]"])
def test_a_broken_line_before_the_last_is_refused(path: Path, line: str):
    write(path, f'{{"item": "1"}}\n{line}\n{WHOLE}'.encode())
    with pytest.raises(ValueError, match=r"generations.jsonl:2: "):
        read_journal(path)
    with pytest.raises(ValueError, match=r"generations.jsonl:2: "), Journal(path):
        pass
    write(path, WHOLE.encode())
    with Journal(path) as journal:  # the lock was given back
        assert len(journal.records) == 2


def test_a_second_writer_is_refused_while_the_first_writes(path: Path):
    with (
        Journal(path),
        pytest.raises(ValueError, match="being written by another process"),
        Journal(path),
    ):
        pass
    with Journal(path) as journal:
        journal.append({"item": "1"})


def test_the_lock_of_a_killed_writer_is_free(path: Path):
    child = os.fork()
    if child == 0:
        Journal(path).__enter__().append({"item": "1"})
        os._exit(9)
    os.waitpid(child, 0)
    with Journal(path) as journal:
        assert journal.records == [{"item": "1"}]


def test_keys_depend_on_content_and_not_on_order():
    assert content_key({"a": 1, "b": [2]}) == content_key({"b": [2], "a": 1})
    assert content_key({"a": 1}) != content_key({"a": 2})
    assert len(content_key("é")) == 64


def test_settings_are_written_and_then_must_be_the_same(tmp_path: Path):
    path = tmp_path / "new" / "generation.json"
    claim(path, {"model": "a", "tokens": 64})
    claim(path, {"tokens": 64, "model": "a"})
    for settings, message in (
        ({"model": "b", "tokens": 64}, "`model` 'a', now 'b'"),
        ({"model": "a"}, "`tokens` 64, now None"),
        ({"model": "a", "tokens": 64, "adapter": "c"}, "`adapter` None, now 'c'"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            claim(path, settings)
        assert str(path.parent) in str(caught.value)
    assert json.loads(path.read_text()) == {"model": "a", "tokens": 64}


def test_files_are_written_whole(tmp_path: Path):
    write_whole(tmp_path / "a" / "b.json", "é\n")
    assert (tmp_path / "a" / "b.json").read_text(encoding="utf-8") == "é\n"
    assert [each.name for each in (tmp_path / "a").iterdir()] == ["b.json"]


def test_a_folder_without_answers_is_no_run(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"must hold generations.jsonl"):
        read_run(tmp_path)
