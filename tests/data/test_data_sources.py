"""Sources: where rows are found, what they are called, and what is refused at the door."""

import io
import json
import pickle
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from mdpo.data.reading import Rows, row_ids
from mdpo.data.sources import RawData, load_raw

ROW = {"prompt": "What?", "chosen": "a cat", "rejected": "a dog"}


@pytest.fixture(autouse=True)
def quiet_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep caches of ``datasets`` in the test's own folder."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def png(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), colour).save(buffer, "PNG")
    return buffer.getvalue()


def jsonl(folder: Path, *lines: str) -> Path:
    path = folder / "train.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def image_dataset() -> datasets.Dataset:
    stored = {"bytes": png(), "path": None}
    features = datasets.Features(
        {
            "images": datasets.List(datasets.Image()),
            "thumbnail": datasets.Image(),
            "prompt": datasets.Value("string"),
            "chosen": datasets.Value("string"),
            "rejected": datasets.Value("string"),
        }
    )
    rows = [ROW | {"images": [stored, stored], "thumbnail": stored}, ROW | {"images": []}]
    columns = {name: [row.get(name) for row in rows] for name in features}
    return datasets.Dataset.from_dict(columns, features=features)


def refusal(source: Any, kind: type[Exception] = ValueError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        load_raw(source, **options)
    return str(caught.value)


# JSON and JSON Lines


def test_jsonl_rows_know_their_line(tmp_path: Path):
    second = ROW | {"prompt": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}
    path = jsonl(tmp_path, json.dumps(ROW), "", json.dumps(second | {"images": []}), "")
    raw = load_raw(path)
    assert (len(raw), raw.name, raw.root) == (2, "train.jsonl", tmp_path)
    assert raw.columns == ("prompt", "chosen", "rejected", "images")
    assert raw[0] == ROW
    assert [raw.place(0), raw.place(1)] == ["train.jsonl:1", "train.jsonl:3"]
    assert [row.prompt[0]["content"][0]["text"] for row in (Rows(raw)[0], Rows(raw)[1])] == [
        "What?",
        "Hi",
    ]


def test_jsonl_lines_end_at_newlines_only(tmp_path: Path):
    path = tmp_path / "train.jsonl"
    text = json.dumps(ROW | {"prompt": "a\u2028b\x85c"}, ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf" + f"{text}\r\n{text}\r\n".encode())
    raw = load_raw(str(path))
    assert (len(raw), raw[1]["prompt"]) == (2, "a\u2028b\x85c")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"prompt": "Wh', "must be whole JSON in UTF-8, got Unterminated string"),
        ("{} {}", "must be whole JSON in UTF-8, got Extra data"),
        ("[" * 100_000, "must be whole JSON in UTF-8, got maximum recursion"),
        ("[1]", "must be an object, got [1]. Correct or remove it."),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, problem: str):
    path = jsonl(tmp_path, json.dumps(ROW), "", line)
    assert refusal(path).startswith(f"train.jsonl:3: {problem}")


def test_a_line_in_another_encoding_is_named(tmp_path: Path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'{}\n{"prompt": "\xe9"}\n')
    assert refusal(path).startswith("train.jsonl:2: must be whole JSON in UTF-8, got 'utf-8' codec")


def test_json_is_a_list_of_objects(tmp_path: Path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps([ROW, ROW]))
    raw = load_raw(path)
    assert (len(raw), raw.root, raw.place(1)) == (2, tmp_path, "row 1 of train.json")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": 1}', "train.json: must be a list of objects, got {'a': 1}. Wrap it."),
        ("[{}, 3]", "row 1 of train.json: must be an object, got 3. Correct or remove it."),
        ('[{"a": 1', "train.json: must be whole JSON in UTF-8, got Expecting ',' delimiter"),
        ('{"a": 1}\n{"a": 2}', "train.json: must be whole JSON in UTF-8, got Extra data"),
        ("", "train.json: must be whole JSON in UTF-8, got Expecting value"),
        ("[]", "train.json: must hold at least one row, got none. Check the file."),
    ],
)
def test_broken_json_is_refused(tmp_path: Path, text: str, problem: str):
    path = tmp_path / "train.json"
    path.write_text(text)
    assert refusal(path).startswith(problem)


def test_json_lines_in_a_json_file_get_a_hint(tmp_path: Path):
    path = tmp_path / "train.json"
    path.write_text("{}\n{}")
    assert refusal(path).endswith(" One object per line is `.jsonl`.")


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_file_is_refused(tmp_path: Path, text: str):
    assert refusal(jsonl(tmp_path, text)) == (
        "train.jsonl: must hold at least one row, got none. Check the file."
    )


# Parquet and saved data sets


def test_parquet(tmp_path: Path):
    path = tmp_path / "train.parquet"
    image_dataset().to_parquet(str(path))
    raw = load_raw(path)
    assert (len(raw), raw.root, raw.place(1)) == (2, tmp_path, "row 1 of train.parquet")
    assert raw[0]["thumbnail"] == {"bytes": png(), "path": None}
    assert Rows(raw)[0].images == (png(), png())


def test_a_broken_parquet_file_is_refused(tmp_path: Path):
    path = tmp_path / "train.parquet"
    path.write_bytes(b"PAR1 no")
    assert refusal(path).startswith("train.parquet: must be a whole Parquet file, got ")


def test_an_empty_parquet_file_is_refused(tmp_path: Path):
    path = tmp_path / "train.parquet"
    image_dataset().select([]).to_parquet(str(path))
    assert refusal(path).startswith("train.parquet: must hold at least one row, got none.")


def test_a_saved_dataset_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    image_dataset().save_to_disk(str(tmp_path / "saved"))

    def decode(*_: object, **__: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(datasets.Image, "decode_example", decode)
    raw = load_raw(tmp_path / "saved")
    assert (raw.name, raw.root, raw.place(0)) == ("saved", tmp_path / "saved", "row 0 of saved")
    assert raw[0]["thumbnail"] == {"bytes": png(), "path": None}
    first, second = Rows(raw)[0], Rows(raw)[1]
    assert first.images == (png(), png())
    assert first.prompt[0]["content"] == [
        {"type": "image"},
        {"type": "image"},
        {"type": "text", "text": "What?"},
    ]
    assert second.images == ()


def test_a_saved_dataset_dict_needs_a_split_it_has(tmp_path: Path):
    splits = {"train": image_dataset(), "test": image_dataset().select([1])}
    datasets.DatasetDict(splits.items()).save_to_disk(str(tmp_path / "saved"))
    assert len(load_raw(tmp_path / "saved")) == 2
    test = load_raw(str(tmp_path / "saved"), split="test")
    assert (len(test), test.place(0)) == (1, "row 0 of saved[test]")
    assert refusal(tmp_path / "saved", split="dev") == (
        "saved: `split` 'dev' is unknown. Known: train, test."
    )


def test_mixed_content_saved_as_json_text_is_read_back(tmp_path: Path):
    # how `datasets` 5 stores a column whose values have several types
    contents: list[object] = ["What?", [{"type": "image"}, {"type": "text", "text": "Who?"}]]
    lines = [
        json.dumps(ROW | {"prompt": [{"role": "user", "content": c}], "images": ["a.png"]})
        for c in contents
    ]
    dataset = datasets.Dataset.from_json(str(jsonl(tmp_path, *lines)))
    assert isinstance(dataset, datasets.Dataset)
    rows = Rows(load_raw(dataset))
    assert [rows[i].prompt[0]["content"][1]["text"] for i in (0, 1)] == ["What?", "Who?"]


# Folders and paths


def test_a_folder_with_one_file_is_that_file(tmp_path: Path):
    jsonl(tmp_path, json.dumps(ROW))
    (tmp_path / "a.png").write_bytes(png())
    assert load_raw(tmp_path).place(0) == "train.jsonl:1"


def test_a_folder_with_several_or_no_files_is_refused(tmp_path: Path):
    must = f"`{tmp_path}` must be made by `save_to_disk` or hold one .json, .jsonl, .parquet file, "
    assert refusal(tmp_path) == f"{must}got none. Name the file."
    for name in "abcdef":
        (tmp_path / f"{name}.json").write_text("[]")
    assert refusal(tmp_path) == (
        f"{must}got a.json, b.json, c.json, d.json, e.json, .... Name the file."
    )


@pytest.mark.parametrize(
    "source",
    [
        "train.jsonl",
        "data/train.parquet",
        "./data",
        "../data",
        "/data/mdpo",
        "~/data/none",
        "a/b/c",
        "notes.xyz",
        "data\\train",
    ],
)
def test_a_missing_path_does_not_ask_the_hub(source: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(datasets, "load_dataset")
    assert refusal(source, FileNotFoundError) == f"`{source}` does not exist. Check the path."


def test_a_missing_path_object_is_not_a_hub_id():
    assert refusal(Path("openbmb/RLAIF-V"), FileNotFoundError).endswith("Check the path.")


def test_an_unknown_suffix_is_refused(tmp_path: Path):
    path = tmp_path / "train.pkl"
    path.write_bytes(b"")
    assert refusal(path) == (
        f"`{path}` must be one of .json, .jsonl, .parquet, or a folder. Convert it."
    )


# The hub


@pytest.mark.parametrize("source", ["openbmb/RLAIF-V-Dataset", "owner/data-v1.5", "rlaif"])
def test_hub_ids_go_through_load_dataset(source: str, monkeypatch: pytest.MonkeyPatch):
    calls = []

    def load_dataset(*args: object, **options: object) -> datasets.Dataset:
        calls.append((args, options))
        return image_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    raw = load_raw(source, split="test", config="en", revision="v1")
    assert calls == [((source,), {"name": "en", "split": "test", "revision": "v1"})]
    assert (raw.root, raw.place(1)) == (None, f"row 1 of {source}[test]")
    assert load_raw(source).place(1) == f"row 1 of {source}"
    assert raw[0]["thumbnail"] == {"bytes": png(), "path": None}


# Objects in memory


def test_objects_in_memory():
    raw = load_raw([ROW, ROW])
    assert (len(raw), raw[1], raw.root, raw.place(1)) == (2, ROW, None, "row 1 of data")
    dataset = image_dataset().with_format("numpy", columns=["chosen"])
    assert load_raw(dataset)[0]["images"] == [{"bytes": png(), "path": None}] * 2
    splits = datasets.DatasetDict([("dev", image_dataset())])
    assert load_raw(splits, split="dev").place(0) == "row 0 of data[dev]"


def test_a_transform_is_refused_rather_than_dropped():
    dataset = image_dataset().with_transform(lambda rows: rows)
    assert refusal(dataset) == "data: must have no transform set on it. Apply it with `map`."


def test_settings_without_effect_are_refused(tmp_path: Path):
    path = jsonl(tmp_path, json.dumps(ROW))
    message = "has no splits, got `split` 'test'. Leave `split` out."
    assert refusal(path, split="test") == f"train.jsonl: {message}"
    assert refusal([ROW], split="test") == f"data: {message}"
    assert refusal(image_dataset(), split="test") == f"data: {message}"
    image_dataset().save_to_disk(str(tmp_path / "saved"))
    assert refusal(tmp_path / "saved", split="test") == f"saved: {message}"
    only = "is only for hub data sets, got 'x'. Remove it."
    assert refusal(path, config="x") == f"`config` {only}"
    assert refusal([ROW], revision="x") == f"`revision` {only}"


def test_other_objects_are_refused():
    assert refusal(3, TypeError) == (
        "`source` must be a path, a hub id, a datasets.Dataset or a list of dicts, "
        "got int. Convert it."
    )
    stream = image_dataset().to_iterable_dataset()
    assert "got IterableDataset" in refusal(stream, TypeError)


@pytest.mark.parametrize("index", [-1, 2])
def test_an_index_outside_is_refused(index: int):
    raw = load_raw([ROW, ROW])
    for read in (raw.__getitem__, raw.place, Rows(raw).__getitem__):
        with pytest.raises(IndexError):
            read(index)


# Names of rows


def ids(*values: object) -> tuple[str, ...]:
    return row_ids(load_raw([ROW if v is ... else ROW | {"id": v} for v in values]))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("x", "y"), ("x", "y")),
        ((7, "y"), ("7", "y")),
        ((..., ...), ("0", "1")),
        (("x", ...), ("0", "1")),
        (("x", "x"), ("0", "1")),
        ((7, "7"), ("0", "1")),
        (("x", ""), ("0", "1")),
        ((True, False), ("0", "1")),
        ((1, 2.5), ("0", "1")),
    ],
)
def test_ids_are_used_if_they_name_every_row(values: tuple[object], expected: tuple[str]):
    assert ids(*values) == expected


def test_ids_of_a_dataset():
    dataset = image_dataset().add_column("id", ["x", "y"])
    rows = Rows(load_raw(dataset))
    assert (rows.ids, rows[1].row_id, len(rows)) == (("x", "y"), "y", 2)


def test_rows_name_their_place_and_format(tmp_path: Path):
    path = jsonl(tmp_path, json.dumps(ROW | {"id": "r1"}), json.dumps(ROW | {"chosen": ""}))
    rows = Rows(load_raw(path))
    assert (rows.format_name, rows.root) == ("native", tmp_path)
    assert rows[0].place == "train.jsonl:1"
    with pytest.raises(ValueError, match=r"^train\.jsonl:2: `chosen` must not be empty, got ''\."):
        rows[1]


@pytest.mark.parametrize("source", [[ROW], image_dataset()])
def test_rows_can_be_sent_to_worker_processes(source: Any):
    rows = Rows(load_raw(source))
    copy = pickle.loads(pickle.dumps(rows))
    assert (copy[0], copy.format) == (rows[0], rows.format)


def test_unknown_columns_name_the_source(tmp_path: Path):
    raw: RawData = load_raw(jsonl(tmp_path, '{"a": 1}'))
    with pytest.raises(ValueError, match=r"^train\.jsonl: columns must be .*, got `a`\."):
        Rows(raw)
