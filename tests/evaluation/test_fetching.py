"""Fetching from a server on this machine that answers well, badly, slowly and not at all."""

import hashlib
import io
import json
import re
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from benchmark_data import DATA, needs_data

from mdpo.cli import data_fetch, main
from mdpo.evaluation import archives, download, fetching
from mdpo.evaluation.download import Web
from mdpo.evaluation.fetching import fetch, folders, sha256_of
from mdpo.evaluation.sources import Remote, Source, sources
from mdpo.evaluation.suites import SUITES

BODY = bytes(range(256)) * 40
Answer = Callable[["Handler"], None]


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers by a list of behaviours for a path, the last one again and again."""

    protocol_version = "HTTP/1.1"
    answers: Mapping[str, list[Answer]]
    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Range")))
        answers = self.answers.get(self.path) or [status(404)]
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def whole(body: bytes = BODY, *, length: int | None = None, **headers: str) -> Answer:
    """All bytes whatever is asked for, cut after them where a greater length is said."""

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)
        if length is not None:
            handler.close_connection = True

    return answer


def ranged(body: bytes = BODY, *, cut: int | None = None, shift: int = 0) -> Answer:
    """The bytes asked for; the connection ends after ``cut`` of them."""

    def answer(handler: Handler) -> None:
        asked = handler.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if asked and start >= len(body):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(body)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if asked else 200)
        if asked:
            place = f"bytes {start + shift}-{len(body) - 1}/{len(body)}"
            handler.send_header("Content-Range", place)
        handler.send_header("Content-Length", str(len(body) - start))
        handler.end_headers()
        handler.wfile.write(body[start:] if cut is None else body[start : start + cut])
        handler.close_connection = cut is not None

    return answer


def status(code: int, **headers: str) -> Answer:
    """No file."""

    def answer(handler: Handler) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", "0")
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    return answer


class HTTPServer(ThreadingHTTPServer):
    """Says nothing of clients that hang up."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Server:
    """A server with its behaviours, what it was asked, and how long its client waited."""

    def __init__(self, address: str, answers: dict[str, list[Answer]], asked: list[Any]) -> None:
        self.address, self.answers, self.asked = address, answers, asked
        self.waits: list[float] = []
        self.said: list[str] = []

    @property
    def web(self) -> Web:
        return Web(self.address, sleep=self.waits.append, say=self.said.append)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    answers: dict[str, list[Answer]] = {}
    asked: list[tuple[str, str | None]] = []
    handler = type("Bound", (Handler,), {"answers": answers, "asked": asked})
    with HTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Server(f"http://127.0.0.1:{httpd.server_port}", answers, asked)
        httpd.shutdown()
        thread.join()


def put_source(monkeypatch: pytest.MonkeyPatch, **table: Source) -> None:
    """Replace the table of sources."""
    monkeypatch.setattr(fetching, "sources", lambda: table)


def remote(body: bytes | None = BODY, name: str = "a.bin", **other: Any) -> Remote:
    known = {} if body is None else {"sha256": sha256(body), "size": len(body)}
    values = {"url": f"https://host.example/at/{name}", "path": f"in/{name}", "sha256": None}
    return Remote(**(values | known | other))


def source(*files: Remote, **other: Any) -> Source:
    values = {"folder": "x", "licence": "Some-1.0", "citation": "@misc{some}"}
    return Source(**(values | other), files=files)


def records(out: Path, name: str = "x") -> dict[str, Any]:
    return json.loads((out / "SOURCES.json").read_text(encoding="utf-8"))[name]["files"]


def files_in(folder: Path) -> set[str]:
    found = {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}
    return found - {"SOURCES.json.lock"}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "data" / "x"


def test_fetched_checked_and_recorded(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_source(monkeypatch, x=source(remote()))
    server.answers["/at/a.bin"] = [ranged()]
    (kept,) = fetch("x", out, server.web)
    assert kept == fetching.Kept(out / "in/a.bin", len(BODY), fetched=True, checked=True)
    assert kept.path.read_bytes() == BODY
    assert files_in(out) == {"in/a.bin", "SOURCES.json"}
    assert records(out) == {
        "in/a.bin": {
            "url": f"{server.address}/at/a.bin",
            "sha256": sha256(BODY),
            "bytes": len(BODY),
            "checked": True,
        }
    }
    assert server.asked == [("/at/a.bin", None)]
    assert not server.waits


def test_good_file_is_not_fetched_again(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_source(monkeypatch, x=source(remote()))
    (out / "in").mkdir(parents=True)
    (out / "in/a.bin").write_bytes(BODY)
    for _ in range(2):
        (kept,) = fetch("x", out, server.web)
        assert (kept.fetched, kept.checked) == (False, True)
        assert records(out)["in/a.bin"]["url"] == "https://host.example/at/a.bin"
    assert not server.asked


def test_other_file_is_refused_and_left(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_source(monkeypatch, x=source(remote()))
    (out / "in").mkdir(parents=True)
    (out / "in/a.bin").write_bytes(b"mine")
    with pytest.raises(OSError, match=r"a\.bin has the SHA-256") as caught:
        fetch("x", out, server.web)
    assert sha256(b"mine") in str(caught.value)
    assert sha256(BODY) in str(caught.value)
    assert (out / "in/a.bin").read_bytes() == b"mine"
    assert not server.asked


@pytest.mark.parametrize("known", [True, False])
def test_resumes_after_a_cut(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch, *, known: bool
) -> None:
    body = b'{"a": "' + b"x" * 9000 + b'"}'
    put_source(monkeypatch, x=source(remote(body if known else None, "a.json")))
    server.answers["/at/a.json"] = [ranged(body, cut=100), ranged(body, cut=200), ranged(body)]
    (kept,) = fetch("x", out, server.web)
    assert kept.path.read_bytes() == body
    assert [asked for _, asked in server.asked] == [None, "bytes=100-", "bytes=300-"]
    # Each attempt brought something, so none counts as a failure in a row.
    assert server.waits == [1.0, 1.0]


def test_resumes_what_an_earlier_run_left(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_source(monkeypatch, x=source(remote()))
    (out / "in").mkdir(parents=True)
    (out / "in/a.bin.part").write_bytes(BODY[:77])
    server.answers["/at/a.bin"] = [ranged()]
    fetch("x", out, server.web)
    assert server.asked == [("/at/a.bin", "bytes=77-")]
    assert (out / "in/a.bin").read_bytes() == BODY


@pytest.mark.parametrize("known", [True, False])
def test_a_whole_part_is_taken(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch, *, known: bool
) -> None:
    body = b"[1, 2]"
    put_source(monkeypatch, x=source(remote(body if known else None, "a.json")))
    (out / "in").mkdir(parents=True)
    (out / "in/a.json.part").write_bytes(body)
    server.answers["/at/a.json"] = [ranged(body)]
    fetch("x", out, server.web)
    assert (out / "in/a.json").read_bytes() == body
    assert len(server.asked) == (0 if known else 1)
    assert not server.waits


def test_a_part_of_something_longer_is_dropped(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_source(
        monkeypatch, x=source(remote(BODY, "a.json"), remote(None, "b.json", path="in/b.json"))
    )
    (out / "in").mkdir(parents=True)
    for name in ("a", "b"):
        (out / f"in/{name}.json.part").write_bytes(BODY + b"more")
    server.answers["/at/a.json"] = [ranged()]
    server.answers["/at/b.json"] = [ranged(b"[]")]
    fetch("x", out, server.web)
    assert (out / "in/a.json").read_bytes() == BODY
    assert (out / "in/b.json").read_bytes() == b"[]"


def test_server_without_ranges_starts_again(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_source(monkeypatch, x=source(remote()))
    server.answers["/at/a.bin"] = [whole(BODY[:50], length=len(BODY)), whole()]
    fetch("x", out, server.web)
    assert (out / "in/a.bin").read_bytes() == BODY
    assert [asked for _, asked in server.asked] == [None, "bytes=50-"]


def test_another_part_than_asked_for_is_not_taken(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_source(monkeypatch, x=source(remote()))
    server.answers["/at/a.bin"] = [ranged(cut=50), ranged(shift=1), ranged()]
    fetch("x", out, server.web)
    assert [asked for _, asked in server.asked] == [None, "bytes=50-", None]
    assert (out / "in/a.bin").read_bytes() == BODY


def test_wrong_hash_keeps_nothing(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = BODY[:-1] + b"!"
    put_source(monkeypatch, x=source(remote()))
    server.answers["/at/a.bin"] = [ranged(other)]
    with pytest.raises(OSError, match="Nothing of it was kept") as caught:
        fetch("x", out, server.web)
    assert sha256(other) in str(caught.value)
    assert sha256(BODY) in str(caught.value)
    assert not files_in(out)


def endless(handler: Handler) -> None:
    """Bytes of a length that is not said, which the end of the connection ends."""
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(b"[1")
    handler.close_connection = True


def test_a_cut_is_noticed_where_the_server_says_no_length(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_source(monkeypatch, x=source(remote(b"[1, 2]", "a.json")))
    server.answers["/at/a.json"] = [endless, ranged(b"[1, 2]")]
    fetch("x", out, server.web)
    assert server.said == ["a.json: 2 of 6 bytes arrived; trying again in 1 s."]


def test_the_server_has_a_shorter_file(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_source(monkeypatch, x=source(remote()))
    server.answers["/at/a.bin"] = [ranged(BODY[:-1])]
    with pytest.raises(OSError, match=sha256(BODY[:-1])):
        fetch("x", out, server.web)
    assert not files_in(out)


def test_a_flood_is_cut_off(server: Server, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_source(monkeypatch, x=source(remote()))
    written = []

    def flood(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(bytes(1 << 16))
            written.append(1)

    server.answers["/at/a.bin"] = [flood]
    with pytest.raises(OSError, match="more than 10,240 bytes"):
        fetch("x", out, server.web)
    assert len(written) < 1000


def test_too_many_bytes_are_refused(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_source(monkeypatch, x=source(remote(BODY), remote(None, "b.json", path="in/b.json")))
    monkeypatch.setattr(download, "LARGEST", 5)
    server.answers["/at/a.bin"] = [ranged(BODY + b"!")]

    def chunked(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"6\r\n[1, 2]\r\n0\r\n\r\n")

    server.answers["/at/b.json"] = [chunked]
    with pytest.raises(OSError, match="more than 10,240 bytes") as caught:
        fetch("x", out, server.web)
    assert "more than 5 bytes" in str(caught.value)
    assert not files_in(out)


def test_missing_file_says_how_to_place_it(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_source(monkeypatch, x=source(remote(), remote(b"b", "b.bin")))
    server.answers["/at/b.bin"] = [ranged(b"b")]
    with pytest.raises(OSError, match=r"not all could be had \(1 files are there\):\n") as caught:
        fetch("x", out, server.web)
    said = str(caught.value)
    assert f"{server.address}/at/a.bin answers 404 Not Found." in said
    assert f"put it at {out / 'in/a.bin'}" in said
    assert len(server.asked) == 2, "a refusal is no reason to ask again"
    assert (out / "in/b.bin").read_bytes() == b"b", "the other files are fetched all the same"


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_passing_failures_are_tried_again(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    put_source(monkeypatch, x=source(remote()))
    server.answers["/at/a.bin"] = [status(code, Retry_After="7"), status(code), ranged()]
    fetch("x", out, server.web)
    assert server.waits == [7.0, 2.0]
    assert f"answers {code}" in server.said[0]


def test_retry_after_a_date(server: Server, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_source(monkeypatch, x=source(remote()))
    soon = datetime.now(timezone.utc) + timedelta(seconds=60)
    dates = [format_datetime(soon, usegmt=True), format_datetime(soon.replace(tzinfo=None))]
    dates += ["Mon, 01 Jan 2001 00:00:00 GMT", "soon"]
    server.answers["/at/a.bin"] = [status(503, Retry_After=each) for each in dates] + [ranged()]
    fetch("x", out, server.web)
    assert all(50 < wait <= 60 for wait in server.waits[:2])
    assert server.waits[2:] == [0.0, 8.0]


def test_waits_no_longer_than_people_would(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_source(monkeypatch, x=source(remote()))
    server.answers["/at/a.bin"] = [status(503, Retry_After="3600")]
    with pytest.raises(OSError, match="asks to wait 3600 s"):
        fetch("x", out, server.web)
    assert not server.waits


def test_gives_up_and_keeps_what_arrived(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_source(monkeypatch, x=source(remote()))
    server.answers["/at/a.bin"] = [ranged(cut=10), ranged(cut=0)]
    with pytest.raises(OSError, match="5 times in a row"):
        fetch("x", out, server.web)
    assert server.waits == [1.0, 2.0, 4.0, 8.0]
    assert (out / "in/a.bin.part").read_bytes() == BODY[:10]


def test_only_what_is_new_counts_as_progress(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_source(monkeypatch, x=source(remote()))
    cuts = [50, 10, 20, 10, 20, 10, 20]
    server.answers["/at/a.bin"] = [whole(BODY[:cut], length=len(BODY)) for cut in cuts]
    with pytest.raises(OSError, match="5 times in a row"):
        fetch("x", out, server.web)
    assert len(server.asked) == 5


def test_no_server(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    put_source(monkeypatch, x=source(remote()))
    with pytest.raises(OSError, match="5 times in a row"):
        fetch("x", out, Web("http://127.0.0.1:9", sleep=lambda _: None, say=lambda _: None))


def test_redirects_are_followed_to_allowed_places(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_source(monkeypatch, x=source(remote()))
    server.answers["/at/a.bin"] = [status(302, Location="/elsewhere")]
    server.answers["/elsewhere"] = [ranged(cut=9), ranged()]
    fetch("x", out, server.web)
    assert (out / "in/a.bin").read_bytes() == BODY
    assert server.asked[-1] == ("/elsewhere", "bytes=9-")


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("http://other.example/a.bin", "only https"),
        ("ftp://127.0.0.1/a.bin", "only https"),
        ("/at/a.bin", "more than 5 times"),
    ],
)
def test_redirects_elsewhere_are_refused(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch, location: str, said: str
) -> None:
    put_source(monkeypatch, x=source(remote()))
    server.answers["/at/a.bin"] = [status(302, Location=location)]
    with pytest.raises(OSError, match=said):
        fetch("x", out, server.web)


def test_compressed_answers_are_refused(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_source(monkeypatch, x=source(remote()))
    accepted = []

    def compressed(handler: Handler) -> None:
        accepted.append(handler.headers["Accept-Encoding"])
        whole(Content_Encoding="gzip")(handler)

    server.answers["/at/a.bin"] = [compressed]
    with pytest.raises(OSError, match="encoding that was not asked for"):
        fetch("x", out, server.web)
    assert accepted == ["identity"]


def test_first_use_is_recorded_and_then_demanded(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_source(monkeypatch, x=source(remote(None, "a.json")))
    server.answers["/at/a.json"] = [ranged(b"[1]"), ranged(b"[2]")]
    (kept,) = fetch("x", out, server.web)
    assert not kept.checked
    assert records(out)["in/a.json"]["sha256"] == sha256(b"[1]")
    assert records(out)["in/a.json"]["checked"] is False

    kept.path.unlink()
    with pytest.raises(OSError, match=sha256(b"[1]")):
        fetch("x", out, server.web)
    assert not kept.path.exists()

    kept.path.write_bytes(b"[3]")
    with pytest.raises(OSError, match=sha256(b"[3]")):
        fetch("x", out, server.web)

    kept.path.write_bytes(b"[1]")
    (kept,) = fetch("x", out, server.web)
    assert (kept.fetched, kept.checked) == (False, False)


@pytest.mark.parametrize(
    "body", [b"<!DOCTYPE html><title>Log in</title>", b"version https://git-lfs.github.com/spec/v1"]
)
def test_what_is_no_json_is_not_trusted(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    put_source(monkeypatch, x=source(remote(None, "a.json")))
    server.answers["/at/a.json"] = [ranged(body)]
    with pytest.raises(OSError, match="like no JSON"):
        fetch("x", out, server.web)
    assert not files_in(out)


def test_files_of_unknown_length_cannot_be_cut_unnoticed(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_source(monkeypatch, x=source(remote(None, "a.json")))
    server.answers["/at/a.json"] = [endless]
    with pytest.raises(OSError, match="does not say how long"):
        fetch("x", out, server.web)


def test_records_of_several_sources_share_a_folder(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_source(monkeypatch, x=source(remote()), y=source(remote(b"b", "b.bin")))
    server.answers |= {"/at/a.bin": [ranged()], "/at/b.bin": [ranged(b"b")]}
    fetch("x", out, server.web)
    fetch("y", out, server.web)
    assert set(records(out, "x")) == {"in/a.bin"}
    assert set(records(out, "y")) == {"in/b.bin"}


def test_broken_records_are_named(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_source(monkeypatch, x=source(remote()))
    out.mkdir(parents=True)
    (out / "SOURCES.json").write_text("{")
    with pytest.raises(ValueError, match=r"SOURCES.json is not JSON"):
        fetch("x", out, server.web)


def test_one_process_at_a_time(server: Server, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_source(monkeypatch, x=source(remote()))
    with fetching._locked(out), pytest.raises(OSError, match="another process"):
        fetch("x", out, server.web)


def test_what_is_needed_lands_beside(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = source(remote(b"b", "b.bin"), folder="shared")
    put_source(monkeypatch, x=source(remote(), needs=["y"]), y=needed)
    server.answers |= {"/at/a.bin": [ranged()], "/at/b.bin": [ranged(b"b")]}
    assert folders("x", out) == {"x": out, "y": out.parent / "shared"}
    kept = fetch("x", out, server.web)
    assert [each.path for each in kept] == [out / "in/a.bin", out.parent / "shared/in/b.bin"]


def test_links_do_not_lead_out(
    server: Server, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_source(monkeypatch, x=source(remote()))
    (tmp_path / "outside").mkdir()
    out.mkdir(parents=True)
    (out / "in").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="leads out of"):
        fetch("x", out, server.web)
    assert not list((tmp_path / "outside").iterdir())


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members:
            archive.writestr(name, body)
    return buffer.getvalue()


def archive_of(body: bytes) -> Remote:
    members = {"annotations/one.json": "one.json", "annotations/two.json": "sub/two.json"}
    return remote(body, "a.zip", path="a.zip", members=members)


GOOD = zipped(
    ("annotations/one.json", b"[1]"), ("annotations/two.json", b"[2]"), ("annotations/x", b"x")
)


def test_members_are_unpacked_and_no_more(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_source(monkeypatch, x=source(archive_of(GOOD)))
    server.answers["/at/a.zip"] = [ranged(GOOD)]
    kept = fetch("x", out, server.web)
    assert files_in(out) == {"one.json", "sub/two.json", "SOURCES.json"}
    assert (out / "sub/two.json").read_bytes() == b"[2]"
    assert [(each.fetched, each.checked) for each in kept] == [(True, True)] * 2
    assert records(out)["one.json"] == {
        "url": f"{server.address}/at/a.zip",
        "member": "annotations/one.json",
        "archive_sha256": sha256(GOOD),
        "sha256": sha256(b"[1]"),
        "bytes": 3,
        "checked": True,
    }
    kept = fetch("x", out, server.web)
    assert [(each.fetched, each.checked) for each in kept] == [(False, True)] * 2
    assert len(server.asked) == 1

    (out / "one.json").unlink()
    kept = fetch("x", out, server.web)
    assert [each.fetched for each in kept] == [True, False]

    (out / "one.json").write_bytes(b"[0]")
    with pytest.raises(OSError, match=sha256(b"[0]")):
        fetch("x", out, server.web)


def test_members_put_there_by_hand_are_taken_unchecked(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_source(monkeypatch, x=source(archive_of(GOOD)))
    (out / "sub").mkdir(parents=True)
    (out / "one.json").write_bytes(b"[1]")
    (out / "sub/two.json").write_bytes(b"[2]")
    for _ in range(2):
        assert not any(each.checked or each.fetched for each in fetch("x", out, server.web))
        facts = {"sha256": sha256(b"[1]"), "bytes": 3, "checked": False}
        assert records(out)["one.json"] == {"found": True} | facts
    assert not server.asked


def test_an_archive_put_there_by_hand_is_used_and_left(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_source(monkeypatch, x=source(archive_of(GOOD)))
    out.mkdir(parents=True)
    (out / "a.zip").write_bytes(GOOD[:-1])
    with pytest.raises(OSError, match=r"a\.zip has the SHA-256 .* It was left as it is"):
        fetch("x", out, server.web)
    assert (out / "a.zip").exists()
    (out / "a.zip").write_bytes(GOOD)
    assert all(each.checked for each in fetch("x", out, server.web))
    assert files_in(out) == {"a.zip", "one.json", "sub/two.json", "SOURCES.json"}
    assert not server.asked


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = 0o120777 << 16
    return info


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:evil", link("annotations/link")]
)
def test_archives_that_lead_out_are_refused(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch, name: str | zipfile.ZipInfo
) -> None:
    body = zipped(("annotations/one.json", b"[1]"), ("annotations/two.json", b"[2]"), (name, b"/"))
    put_source(monkeypatch, x=source(archive_of(body)))
    server.answers["/at/a.zip"] = [ranged(body)]
    with pytest.raises(OSError, match="leads out of the folder"):
        fetch("x", out, server.web)
    assert files_in(out) <= {"a.zip.part"}
    assert not (out.parent / "evil").exists()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (zipped(("annotations/one.json", b"[1]")), "no member 'annotations/two.json'"),
        (b"no archive", "cannot be unpacked"),
        (GOOD.replace(b"[2]", b"[3]"), "two.json"),
    ],
)
def test_unsound_archives_leave_nothing(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch, body: bytes, said: str
) -> None:
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w") as archive:
        archive.writestr("annotations/one.json", b"[1]")
        archive.writestr("annotations/two.json", b"[2]")
    if said == "two.json":
        body = stored.getvalue().replace(b"[2]", b"[3]")  # its CRC is that of [2]
    put_source(monkeypatch, x=source(archive_of(body)))
    server.answers["/at/a.zip"] = [ranged(body)]
    with pytest.raises(OSError, match=re.escape(said)):
        fetch("x", out, server.web)
    assert files_in(out) <= {"a.zip.part"}


def test_members_that_are_too_large_are_refused(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_source(monkeypatch, x=source(archive_of(GOOD)))
    monkeypatch.setattr(archives, "LARGEST", 2)
    server.answers["/at/a.zip"] = [ranged(GOOD)]
    with pytest.raises(OSError, match="3 bytes, more than 2"):
        fetch("x", out, server.web)


@pytest.mark.parametrize(
    "path", ["../a", "/a", "a/../b", "a//b", "a\\b", "C:a", "", ".", "~/a", ".git/a", "a/.."]
)
def test_the_table_cannot_name_places_elsewhere(path: str) -> None:
    with pytest.raises(ValueError, match="plain path"):
        remote(path=path)
    with pytest.raises(ValueError, match="plain path"):
        remote(members={"a": path})


def test_the_table_cannot_name_unsafe_sources() -> None:
    with pytest.raises(ValueError, match="https"):
        remote(url="http://host.example/a")
    with pytest.raises(ValueError, match="SHA-256"):
        remote(sha256="abc")
    with pytest.raises(ValueError, match="must have a hash"):
        remote(None, members={"a": "b"})
    with pytest.raises(ValueError, match="only JSON"):
        remote(None, path="a.txt")


@pytest.mark.parametrize(
    "mirror",
    [
        "http://mirror.example",
        "ftp://127.0.0.1",
        "mirror",
        "https://m.example/?a=b",
        "https://h:port",
    ],
)
def test_unsafe_mirrors_are_refused(mirror: str) -> None:
    with pytest.raises(ValueError, match=re.escape(mirror)):
        Web(mirror)


def test_without_a_mirror_this_machine_is_not_asked() -> None:
    import httpx2

    for web in (Web(), Web("https://mirror.example")):
        with pytest.raises(ValueError, match="only https"):
            web.check(httpx2.URL("http://127.0.0.1/a"))


def test_a_mirror_may_have_a_path() -> None:
    web = Web("https://mirror.example/all/")
    assert str(web.address("https://h.example/a/b.c")) == "https://mirror.example/all/a/b.c"
    assert str(Web().address("https://h.example/a/b.c")) == "https://h.example/a/b.c"


def test_every_suite_has_a_source() -> None:
    assert set(SUITES) <= set(sources())
    assert {"chair", "amber", "object-halbench-llm", "language", "coco"} <= set(sources())


def test_sources_are_complete() -> None:
    for name, each in sources().items():
        assert each.licence, name
        assert re.match(r"@\w+\{\w+,", each.citation), name
        assert each.citation.count("{") == each.citation.count("}"), name
        assert each.files or each.by_hand, name
        assert set(each.needs) <= set(sources()), name
        assert not re.search(r"\{(?!out\})", "".join(each.by_hand)), name
        for file in each.files:
            assert (file.sha256 is None) == (file.size is None), file.url
            if "github" in file.url:
                commit = file.url.split("/")[5]
                assert re.fullmatch("[0-9a-f]{40}", commit), file.url
    landing = [path for each in sources()["chair"].files for path in each.lands]
    assert landing == ["synonyms.txt"]
    assert len({path for each in sources()["coco"].files for path in each.lands}) == 4


@needs_data
@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("amber", "amber"),
        ("chair", "chair"),
        ("hallusionbench", "hallusionbench"),
        ("mmhal", "mmhal"),
        ("object-halbench", "object_halbench"),
        ("pope", "pope"),
    ],
)
def test_hashes_are_those_of_the_data(name: str, folder: str) -> None:
    for file in sources()[name].files:
        if file.sha256 is not None:
            assert sha256_of(DATA / folder / file.path) == file.sha256
            assert (DATA / folder / file.path).stat().st_size == file.size


@needs_data
def test_language_has_the_files_that_nltk_opens() -> None:
    landing = {path for each in sources()["language"].files for path in each.lands}
    root = DATA / "nltk_data"
    assert landing == {each.relative_to(root).as_posix() for each in root.rglob("*.*")} | {
        "corpora/wordnet/LICENSE",
        "corpora/wordnet/lexnames",
    }


def test_command_line(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers = {
        each.url.removeprefix("https://raw.githubusercontent.com"): each
        for each in sources()["repope"].files
    }
    server.answers |= {path: [ranged(b'{"a": 1}')] for path in answers}
    monkeypatch.setenv("MDPO_MIRROR", server.address)
    monkeypatch.chdir(tmp_path)
    assert main(["data", "fetch", "RePOPE"]) == 0
    said = capsys.readouterr().out
    assert (
        f"{Path('data/pope/coco/coco_repope_random.json')}  8 bytes  fetched, not checked" in said
    )
    assert "there is no hash to check it by" in said
    assert "repope: licence MIT" in said
    assert "@article{neuhaus2025repope," in said


@pytest.mark.parametrize("known", [True, False])
def test_command_line_says_what_was_not_checked(
    server: Server,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    known: bool,
) -> None:
    table = {"x": source(remote(), remote(b"[]" if known else None, "b.json"))}
    put_source(monkeypatch, **table)
    monkeypatch.setattr(data_fetch, "sources", lambda: table)
    server.answers |= {"/at/a.bin": [ranged()], "/at/b.json": [ranged(b"[]")]}
    assert main(["data", "fetch", "x", "--out", str(out), "--mirror", server.address]) == 0
    said = capsys.readouterr().out
    assert "in/a.bin  10,240 bytes  fetched, checked" in said
    assert ("there is no hash to check it by" in said) is not known


def test_command_line_says_what_is_missing(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mmhal"
    words = ["data", "fetch", "mmhal", "--out", str(out), "--mirror", server.address]
    assert main(words) == 1
    said = capsys.readouterr()
    assert "answers 404" in said.err
    assert "(0 files are there)" in said.err
    assert f"--local-dir {out}" in said.out
    assert "@article{sun2023aligning," in said.out


def test_command_line_without_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "fetch", "mme"]) == 0
    said = capsys.readouterr().out
    assert (
        f"count.txt, position.txt and color.txt, which are in its eval_tool, into {tmp_path}"
        in said
    )
    assert not (tmp_path / "data").exists()
    assert main(["data", "fetch", "mmee"]) == 2
    assert main(["data", "fetch", "mmhal", "--mirror", "http://m.example"]) == 1
    assert "only https" in capsys.readouterr().err
