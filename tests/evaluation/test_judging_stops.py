"""Judging that stops early, and what is said of it; what each benchmark asks and hands over."""

import concurrent.futures
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judge_stub import Stub, judge_stub

from mdpo.cli import main
from mdpo.evaluation.asking import HOPELESS
from mdpo.evaluation.chat import Budget, ChatClient
from mdpo.evaluation.journal import read_journal
from mdpo.evaluation.judging.run import Verdicts, calls_ahead, judge, tasks_of
from mdpo.evaluation.judging.wording import Wording
from mdpo.evaluation.runs import read_run
from mdpo.evaluation.suite import Judged, Request
from mdpo.evaluation.suites.hallusionbench import HallusionBenchJudgeSuite
from mdpo.evaluation.suites.mmhal import CATEGORIES, MMHalSuite


@pytest.fixture
def stub() -> Iterator[Stub]:
    with judge_stub() as each:
        yield each


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "mmhal"
    folder.mkdir()
    rows = [
        {
            "question_type": CATEGORIES[k % 8],
            "image_id": f"i{k}",
            "image_src": f"https://example.org/{k}.jpg",
            "image_content": ["Dog", "Cat"],
            "question": f"Question {k}?",
            "gt_answer": f"Truth {k}.",
        }
        for k in range(24)
    ]
    (folder / "mmhal-bench_answer_template.json").write_text(json.dumps(rows))
    return folder


def write_run(folder: Path, answers: dict[str, str], suite: str = "mmhal") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"key": item, "item": item, "response": text} for item, text in answers.items()]
    (folder / "generations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "generation.json").write_text(json.dumps({"suite": suite}))
    return folder


def judged(stub: Stub, data: Path, folder: Path, **more: Any) -> Verdicts:
    tasks = tasks_of(MMHalSuite.load(data), read_run(folder).responses(), "judge")
    concurrency = more.pop("concurrency", 1)
    with ChatClient(stub.url, "judge", sleep=lambda _: None, **more) as client:
        return judge(client, tasks, folder, settings={}, concurrency=concurrency)


def test_a_wrong_key_marks_no_item_as_failed(stub: Stub, data: Path, tmp_path: Path):
    run = write_run(tmp_path / "run", {f"i{k}": f"[[locked]] {k}" for k in range(12)})
    verdicts = judged(stub, data, run)
    assert verdicts.stopped is not None
    assert "answered 401" in verdicts.stopped
    assert (verdicts.calls, verdicts.waiting, verdicts.failed) == (1, 12, {})
    assert read_journal(run / "judgments.jsonl") == []
    verdicts = judged(stub, data, run, key="good")
    assert (verdicts.judged, verdicts.waiting, verdicts.stopped) == (12, 0, None)


def test_a_row_of_failures_ends_it(stub: Stub, data: Path, tmp_path: Path):
    run = write_run(tmp_path / "run", {f"i{k}": f"[[always500]] {k}" for k in range(20)})
    verdicts = judged(stub, data, run, attempts=2)
    assert verdicts.stopped is not None
    assert verdicts.stopped.startswith(f"{HOPELESS} requests in a row failed, at last: The server")
    assert (len(verdicts.failed), verdicts.waiting) == (HOPELESS, 20 - HOPELESS)
    assert verdicts.calls == 2 * HOPELESS


def test_failures_among_replies_do_not(stub: Stub, data: Path, tmp_path: Path):
    answers = {f"i{k}": "fine" if k % HOPELESS == 7 else f"[[other]] {k}" for k in range(24)}
    verdicts = judged(stub, data, write_run(tmp_path / "run", answers))
    assert (verdicts.judged, len(verdicts.failed), verdicts.stopped) == (3, 21, None)


def test_a_spent_budget_is_said(stub: Stub, data: Path, tmp_path: Path):
    run = write_run(tmp_path / "run", {"i0": "[[once500]]", "i1": "b"})
    verdicts = judged(stub, data, run, budget=Budget(1))
    assert verdicts.stopped == "The budget of 1 calls is spent."
    assert (verdicts.judged, verdicts.failed, verdicts.waiting) == (0, {}, 2)


def test_an_interrupt_loses_no_reply(
    stub: Stub, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = write_run(tmp_path / "run", {f"i{k}": f"answer {k}" for k in range(12)})
    waits = []

    def interrupted(running: Any, **how: Any) -> Any:
        waits.append(len(running))
        if len(waits) == 3:
            raise KeyboardInterrupt
        return real(running, **how)

    real = concurrent.futures.wait
    monkeypatch.setattr("mdpo.evaluation.asking.wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        judged(stub, data, run, concurrency=3)
    recorded = {each["item"] for each in read_journal(run / "judgments.jsonl")}
    assert 2 <= len(recorded) == sum(stub.asked.values()) < 12
    monkeypatch.setattr("mdpo.evaluation.asking.wait", real)
    assert judged(stub, data, run).judged == 12
    assert set(stub.asked.values()) == {1}


def test_a_failure_of_another_answer_counts_for_nothing(stub: Stub, data: Path, tmp_path: Path):
    run = write_run(tmp_path / "run", {"i0": "[[other]]", "i1": "[[other]] too"})
    assert set(judged(stub, data, run).failed) == {"i0", "i1"}
    write_run(run, {"i0": "fine", "i1": "[[other]] too"})
    tasks = tasks_of(MMHalSuite.load(data), read_run(run).responses(), "judge")
    assert calls_ahead(tasks, run) == 1
    verdicts = judged(stub, data, run)
    assert (verdicts.calls, verdicts.judged, set(verdicts.failed)) == (1, 1, {"i1"})


def test_one_client_judges_several_runs(stub: Stub, data: Path, tmp_path: Path):
    with ChatClient(stub.url, "judge") as client:
        for name in ("a", "b"):
            run = write_run(tmp_path / name, {"i0": name})
            tasks = tasks_of(MMHalSuite.load(data), read_run(run).responses(), "judge")
            verdicts = judge(client, tasks, run, settings={})
            assert (verdicts.judged, verdicts.calls) == (1, 1)


def test_keys_tell_apart_whatever_a_reply_depends_on(data: Path):
    suite: Any = MMHalSuite.load(data)

    class Warm(MMHalSuite):
        def request(self, item: str, response: str) -> Request | str:
            return Request(suite.request(item, response).messages, temperature=0.5)

    class Short(MMHalSuite):
        def request(self, item: str, response: str) -> Request | str:
            return Request(suite.request(item, response).messages, max_tokens=9)

    answers = {"i0": "A dog."}
    tasks = [
        *tasks_of(suite, answers, "judge", 2),
        *tasks_of(suite, answers, "other"),
        *tasks_of(suite, {"i0": "A cat."}, "judge"),
        *tasks_of(Warm(list(suite.rows.values()), []), answers, "judge"),
        *tasks_of(Short(list(suite.rows.values()), []), answers, "judge"),
    ]
    assert len({each.key for each in tasks}) == 6
    assert tasks[0] == tasks_of(suite, answers, "judge")[0]


def test_answers_to_other_data_are_refused(data: Path):
    with pytest.raises(ValueError, match=r"Item 'x' is not in the data \(1 such items\)"):
        tasks_of(MMHalSuite.load(data), {"i0": "a", "x": "b"}, "judge")


def test_what_ended_how_is_written_down(
    stub: Stub, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A known judge in words taken for official is comparable, unless another model replied."""
    words = tmp_path / "official.txt"
    words.write_text("{} {} {} {}")
    where = ["--data", str(data), "--endpoint", stub.url, "--prompt", str(words)]
    where += ["--judge", "gpt-4-1106-preview"]
    run = write_run(tmp_path / "run", {"i0": "fine", "i1": "[[other]]"})
    assert main(["judge", str(run), *where]) == 1
    told = capsys.readouterr().err
    assert "2 calls ahead; comparable: judged by gpt-4-1106-preview as in RLAIF-V" in told
    assert "1 items failed, 'i1' for example: Model 'gpt-4-1106-preview' was asked" in told
    written = json.loads((run / "judge.json").read_text())
    assert written["comparable"] is True
    assert (written["judged"], written["failed"]) == (1, 1)
    assert (written["prompt_tokens"], written["completion_tokens"]) == (20, 6)
    words.rename(tmp_path / "moved.txt")  # the same words elsewhere
    where[5] = str(tmp_path / "moved.txt")
    more = ["--retry-failed", "--allow-model-mismatch"]
    assert main(["judge", str(run), *where, *more]) == 0
    assert "not comparable: another replied instead" in capsys.readouterr().err
    written = json.loads((run / "judge.json").read_text())
    assert written["comparable"] is False
    assert written["why"] == "gpt-4-1106-preview was asked and another replied"
    words = tmp_path / "others.txt"
    words.write_text("{} {} {} {}!")
    where[5] = str(words)
    assert main(["judge", str(run), *where]) == 1
    assert "records made with `prompt_sha256`" in capsys.readouterr().err


def test_a_judge_that_answers_no_longer_is_said_so(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = write_run(tmp_path / "run", {"i0": "fine", "i1": "b"})
    command = ["judge", str(run), "--data", str(data), "--judge", "gpt-4-0314"]
    assert main([*command, "--max-calls", "0"]) == 1
    told = capsys.readouterr().err
    assert "gpt-4-0314 answers no longer at https://api.openai.com/v1" in told
    assert "The budget of 0 calls is spent.\n2 replies are missing." in told


@pytest.mark.parametrize(
    "flags", [["--attempts", "0"], ["--timeout", "0"], ["--max-calls", "-1"], ["--repeats", "0"]]
)
def test_numbers_out_of_range_are_refused(
    data: Path, tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
):
    where = [str(tmp_path), "--data", str(data), "--endpoint", "http://127.0.0.1:9", "--model", "m"]
    assert main(["judge", *where, *flags]) == 2
    assert flags[0] in capsys.readouterr().err


def test_attempts_and_seconds_are_those_of_the_command(stub: Stub, data: Path, tmp_path: Path):
    run = write_run(tmp_path / "run", {"i0": "[[slow]]", "i1": "[[always500]]"})
    where = ["--data", str(data), "--endpoint", stub.url, "--model", "judge"]
    assert main(["judge", str(run), *where, "--attempts", "1", "--timeout", "0.2"]) == 1
    errors = {each["item"]: each["error"] for each in read_journal(run / "judgments.jsonl")}
    assert "did not answer in time (1 attempts" in errors["i0"]
    assert "answered 500 (1 attempts" in errors["i1"]


def test_mmhal_asks_only_with_what_the_judge_must_know(data: Path):
    suite = MMHalSuite.load(data)
    assert isinstance(suite, Judged)
    suite.rows["i0"] = {**suite.rows["i0"], "image_content": "Dog"}
    with pytest.raises(ValueError, match=r"row 'i0': `image_content` must be a list, got 'Dog'"):
        suite.request("i0", "A dog.")
    suite.rows["i1"] = {k: v for k, v in suite.rows["i1"].items() if k != "gt_answer"}
    with pytest.raises(ValueError, match=r"row 'i1': `gt_answer` is missing"):
        suite.request("i1", "A dog.")


def test_mmhal_names_images_and_hands_over_answers(data: Path, tmp_path: Path):
    suite = MMHalSuite.load(data)
    suite.rows["i1"] = {k: v for k, v in suite.rows["i1"].items() if k != "image_src"}
    prompts = suite.prompts()
    assert [each.images for each in prompts[:2]] == [["0.jpg"], ["i1.jpg"]]
    assert [each.text for each in prompts[:2]] == ["Question 0?", "Question 1?"]
    answers = {"i3": "A dog.", "i0": "\u2028 Two."}
    (path,) = suite.export(answers, tmp_path / "out")
    assert suite.read_answers(path) == answers
    assert json.loads(path.read_text())[1]["gt_answer"] == "Truth 3."


@pytest.fixture
def figures(tmp_path: Path) -> Path:
    """Two questions: of the category VS without, and of VD with its figure."""
    folder = tmp_path / "hallusionbench"
    folder.mkdir()
    row = {"subcategory": "chart", "set_id": "0", "question_id": "0", "question": "Is it more?"}
    row |= {"gt_answer_details": "It is more.", "gt_answer": "1", "figure_id": "0"}
    rows = [
        row | {"category": "VS", "visual_input": "0", "filename": None},
        row | {"category": "VD", "visual_input": "1", "filename": "./VD/chart/0_0.png"},
    ]
    (folder / "HallusionBench.json").write_text(json.dumps(rows))
    return folder


def test_hallusionbench_is_judged_and_scored(stub: Stub, figures: Path, tmp_path: Path):
    suite: Any = HallusionBenchJudgeSuite.load(figures)
    blind, shown = suite.items
    assert [each.images for each in suite.prompts()] == [[], ["VD/chart/0_0.png"]]
    answers = {blind: "I cannot tell.", shown: "Yes [[wrong]]."}
    (path,) = suite.export(answers, tmp_path / "out")
    assert suite.read_answers(path) == answers
    run = write_run(tmp_path / "run", answers, suite="hallusionbench")
    where = ["--data", str(figures)]
    assert main(["judge", str(run), *where, "--endpoint", stub.url, "--model", "judge"]) == 0
    assert {body["temperature"] for body in stub.bodies} == {0.0}
    assert main(["score", "hallusionbench-judge", str(run), *where]) == 0
    scores = json.loads((run / "metrics.json").read_text())["metrics"]
    assert scores["aAcc"]["value"] == 50.0  # unclear is right without a figure
    assert scores["fAcc"]["value"] == 0.0


def test_the_official_words_of_hallusionbench_are_asked_as_officially(figures: Path):
    suite: Any = HallusionBenchJudgeSuite.load(figures)
    suite.wording = Wording("Q {} R {} A {}", "copy", official=True)
    assert suite.request(suite.items[1], "Yes.") == Request(
        [{"role": "user", "content": "Q Is it more? R It is more. A Yes."}], temperature=1.0
    )
