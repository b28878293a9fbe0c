"""Judgments of a run: asked once, recorded whole, resumed, and never made of failures."""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judge_stub import Stub, judge_stub
from tqdm.auto import tqdm

from mdpo.cli import main
from mdpo.evaluation.chat import Budget, ChatClient
from mdpo.evaluation.journal import read_journal
from mdpo.evaluation.judging.judges import JUDGES, comparability
from mdpo.evaluation.judging.noise import noise
from mdpo.evaluation.judging.run import Verdicts, calls_ahead, judge, tasks_of
from mdpo.evaluation.judging.wording import Wording, read_wording
from mdpo.evaluation.runs import Run, read_run
from mdpo.evaluation.suites import SUITES
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
            "model_answer": "",
        }
        for k in range(24)
    ]
    (folder / "mmhal-bench_answer_template.json").write_text(json.dumps(rows))
    return folder


def write_run(folder: Path, answers: dict[str, str], **settings: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"key": item, "item": item, "response": text} for item, text in answers.items()]
    (folder / "generations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "generation.json").write_text(json.dumps({"suite": "mmhal"} | settings))
    return folder


def judged(
    stub: Stub, data: Path, folder: Path, *, repeats: int = 1, limit: int | None = None, **more: Any
) -> Verdicts:
    suite = MMHalSuite.load(data)
    tasks = tasks_of(suite, read_run(folder).responses(), "judge", repeats)
    budget = Budget(limit)
    with ChatClient(stub.url, "judge", budget=budget, sleep=lambda _: None, timeout=0.5) as client:
        return judge(client, tasks, folder, settings={"model": "judge"}, **more)


ODD = {
    "i0": "[[bold]]",
    "i1": "[[two]]",
    "i2": "[[ten]]",
    "i3": "[[none]]",
    "i4": "[[limit]]",
    "i5": "[[once500]]",
    "i6": "[[broken]]",
    "i7": "[[reset]]",
    "i8": "[[empty]]",
    "i9": "[[nousage]]",
    "i10": "[[always500]]",
    "i11": "[[other]]",
    "i12": "fine",
}


def test_requests_are_golden(stub: Stub, data: Path, tmp_path: Path):
    run = write_run(tmp_path / "run", {"i1": "A dog."})
    suite: Any = MMHalSuite.load(data)
    suite.wording = Wording("{}|{}|{}|{}", "test", official=True)
    with ChatClient(stub.url, "judge") as client:
        tasks = tasks_of(suite, read_run(run).responses(), "judge")
        judge(client, tasks, run, settings={})
    text = "Dog, Cat|Question 1?|Truth 1.|A dog."
    assert stub.bodies == [
        {
            "model": "judge",
            "messages": [{"role": "user", "content": text}],
            "temperature": 0.0,
        }
    ]
    (record,) = read_journal(run / "judgments.jsonl")
    assert record["requested_model"] == record["model"] == "judge"
    assert record["reply"].endswith("Rating: 5")
    assert record["usage"] == {"prompt_tokens": 10, "completion_tokens": 3}
    assert (record["item"], record["repeat"], record["attempts"]) == ("i1", 0, 1)


def test_odd_replies_are_kept_and_failures_never_become_scores(
    stub: Stub, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = write_run(tmp_path / "run", ODD)
    verdicts = judged(stub, data, run)
    assert set(verdicts.failed) == {"i10", "i11"}
    assert verdicts.judged == 11
    assert verdicts.waiting == 0
    # Ten replies with counts, and the empty and the refused one, which cost as much.
    assert verdicts.tokens == {"prompt_tokens": 120, "completion_tokens": 36}
    assert main(["score", "mmhal", str(run), "--data", str(data)]) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["responses"] == {"scored": 11, "failed": 2, "missing": 13}
    score = metrics["metrics"]["score"]
    assert score["n"] == 11
    # officially: bold, two and none are 0, ten is 1, empty becomes 2, the six others 5
    assert score["exact"] == pytest.approx((0 + 0 + 1 + 0 + 2 + 6 * 5) / 11)
    robust = metrics["metrics"]["robust/score"]
    assert robust["n"] == 8  # not two, ten and none
    assert robust["exact"] == pytest.approx((4 + 2 + 6 * 5) / 8)
    assert metrics["metrics"]["disagreements"]["value"] == 1
    assert main(["score", "mmhal", str(run), "--data", str(data), "--official"]) == 0
    filled = json.loads((run / "metrics.json").read_text())
    assert filled["metrics"]["score"]["n"] == 24
    assert "13 items without an answer" in filled["mode"]
    assert "are left out" in capsys.readouterr().out


def test_a_second_time_nothing_is_asked(stub: Stub, data: Path, tmp_path: Path):
    run = write_run(tmp_path / "run", ODD)
    judged(stub, data, run)
    before = sum(stub.asked.values())
    assert judged(stub, data, run).calls == 0
    assert sum(stub.asked.values()) == before
    suite = MMHalSuite.load(data)
    tasks = tasks_of(suite, read_run(run).responses(), "judge")
    assert calls_ahead(tasks, run) == 0
    assert calls_ahead(tasks, run, retry_failed=True) == 2
    verdicts = judged(stub, data, run, retry_failed=True)
    assert set(verdicts.failed) == {"i10", "i11"}
    assert sum(stub.asked.values()) > before


def test_a_budget_stops_cleanly_and_the_next_run_goes_on(stub: Stub, data: Path, tmp_path: Path):
    answers = {f"i{k}": f"answer {k}" for k in range(10)}
    run = write_run(tmp_path / "run", answers)
    verdicts = judged(stub, data, run, limit=4, concurrency=3)
    assert (verdicts.judged, verdicts.waiting, verdicts.calls) == (4, 6, 4)
    verdicts = judged(stub, data, run)
    assert (verdicts.judged, verdicts.waiting, verdicts.calls) == (10, 0, 6)
    assert set(stub.asked.values()) == {1}


def test_concurrency_is_bounded_and_changes_nothing(data: Path, tmp_path: Path):
    answers = {f"i{k}": f"answer {k}" for k in range(12)}
    found = []
    for workers in (1, 4):
        run = write_run(tmp_path / f"run{workers}", answers)
        with judge_stub(pause=0.01) as stub:
            judged(stub, data, run, concurrency=workers)
            assert stub.most <= workers
            assert sum(stub.asked.values()) == 12
        found.append(sorted(read_run(run).replies().items()))
    assert found[0] == found[1]


def test_other_answers_and_other_judges_need_another_folder(stub: Stub, data: Path, tmp_path: Path):
    run = write_run(tmp_path / "run", {"i0": "a"})
    judged(stub, data, run)
    write_run(run, {"i0": "b"})
    with pytest.raises(ValueError, match="judgment of another answer or prompt of item 'i0'"):
        judged(stub, data, run)
    write_run(run, {"i0": "a"})
    with (
        ChatClient(stub.url, "other") as client,
        pytest.raises(ValueError, match="records made with `model`"),
    ):
        judge(client, [], run, settings={"model": "other"})


def test_repeats_measure_the_noise_of_the_judge(data: Path):
    def record(item: str, repeat: int, rating: int) -> dict[str, Any]:
        return {"item": item, "repeat": repeat, "reply": f"Rating: {rating}"}

    judgments = [
        *(record("i0", 0, 5), record("i1", 0, 1), record("i0", 1, 3), record("i1", 1, 1)),
        record("i2", 1, 6),
    ]
    suite = MMHalSuite.load(data)
    measured = noise(suite, Run(data, {}, [], judgments))
    assert measured["score"]["values"] == [3.0, 2.0]
    assert measured["score"]["mean"] == 2.5
    assert measured["score"]["sd"] == pytest.approx(0.5**0.5)
    assert measured["hallucination_rate"]["sd"] == 0.0
    assert noise(suite, Run(data, {}, [], judgments[:2])) == {}


def test_each_repeat_is_asked(stub: Stub, data: Path, tmp_path: Path):
    run = write_run(tmp_path / "run", {"i0": "a", "i1": "b"})
    verdicts = judged(stub, data, run, repeats=3)
    assert verdicts.judged == 6
    assert set(stub.asked.values()) == {3}
    assert len(read_run(run).replies(2)) == 2
    assert main(["score", "mmhal", str(run), "--data", str(data)]) == 0
    written = json.loads((run / "metrics.json").read_text())
    assert written["judge_noise"]["score"] == {"mean": 5.0, "sd": 0.0, "values": [5.0] * 3}


def test_the_official_words_are_read_from_the_users_copy(tmp_path: Path):
    script = tmp_path / "eval.py"
    script.write_text('import os\nos.abort()\ntemplate = """A {} b {} c {} d {} {x}"""\n')
    wording = read_wording(script)
    assert wording.official
    assert wording.fill("1", "{}", "3", "4") == "A 1 b {} c 3 d 4 {x}"
    text = tmp_path / "prompt.txt"
    text.write_text("{} {}")
    with pytest.raises(ValueError, match=r"must have 4 slots `{}`, got 2"):
        read_wording(text)
    assert read_wording(text, 2).origin == "prompt.txt"
    script.write_text("words = 3")
    with pytest.raises(ValueError, match="no text is assigned to `template`"):
        read_wording(script)
    script.write_text("def (")
    with pytest.raises(ValueError, match="not Python"):
        read_wording(script)


def test_what_can_be_compared():
    assert comparability("mmhal", "gpt-4-0314", official_prompt=True)[0]
    assert comparability("mmhal", "gpt-4-0314", official_prompt=False) == (
        False,
        "judged by gpt-4-0314 of LLaVA-RLHF, the official script of MMHal-Bench, but asked in "
        "other words",
    )
    comparable, why = comparability("mmhal", "gpt-4", official_prompt=True)
    assert not comparable
    assert "gpt-4-0314, gpt-4-1106-preview" in why
    assert all(suite in SUITES for each in JUDGES.values() for suite in each.suites)


def test_from_the_command_line(
    stub: Stub,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden")
    rows = json.loads((data / "mmhal-bench_answer_template.json").read_text())
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps([row | {"model_answer": "It is."} for row in rows[:3]]))
    run = tmp_path / "run"
    where = [str(run), "--data", str(data), "--endpoint", stub.url, "--model", "judge"]
    given = ["--suite", "mmhal", "--responses", str(answers)]
    prices = ["--price-in", "2", "--price-out", "10"]
    assert main(["judge", *where, *given, *prices]) == 0
    told = capsys.readouterr()
    assert "3 calls ahead; not comparable: judged by judge" in told.err
    assert "3 replies, 3 calls; 30 tokens of prompts and 9 of replies" in told.out
    assert "cost of the run: 0.0001" in told.out  # (30 x 2 + 9 x 10) / 1e6, rounded
    assert main(["score", "mmhal", str(run), "--data", str(data)]) == 0
    written = json.loads((run / "metrics.json").read_text())
    assert written["judge"]["comparable"] is False
    assert written["judge"]["prompt"] == "mdpo's own words"
    assert written["metrics"]["length"]["value"] == 2.0
    assert main(["judge", *where, *given]) == 0
    assert "0 calls ahead" in capsys.readouterr().err
    for path in run.iterdir():
        assert "sk-hidden" not in path.read_text()
    assert main(["judge", str(run), "--data", str(data)]) == 2
    assert "give --judge NAME" in capsys.readouterr().err
    assert main(["judge", *where, "--suite", "pope"]) == 1
    assert main(["judge", "--help"]) == 0
    assert "gpt-4-1106-preview" in capsys.readouterr().out


def test_killed_at_random_moments(data: Path, tmp_path: Path):
    """Each item is judged once; only what was under way when killed is asked again."""
    answers = {f"i{k}": f"answer {k} " + ("[[bold]]" if k % 3 else "") for k in range(24)}
    draw, workers = random.Random(1), 2
    # The default lock is shared with forked children, and one that is killed never frees it.
    tqdm.set_lock(threading.RLock())
    with judge_stub(pause=0.003) as stub:
        whole = write_run(tmp_path / "whole", answers)
        judged(stub, data, whole)
        undisturbed = read_run(whole).replies()
        stub.asked.clear()
        run = write_run(tmp_path / "run", answers)
        asked_again, kills = 0, 0
        for _ in range(20):
            known = {each["item"] for each in read_journal(run / "judgments.jsonl")}
            before = dict(stub.asked)
            child = os.fork()
            if child == 0:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                try:
                    judged(stub, data, run, concurrency=workers)
                finally:
                    os._exit(0)
            time.sleep(draw.uniform(0.01, 0.04))
            os.kill(child, signal.SIGKILL)
            kills += os.waitpid(child, 0)[1] == signal.SIGKILL
            time.sleep(0.02)
            for text, number in list(stub.asked.items()):
                item = next(k for k, answer in answers.items() if answer in text)
                asked_again += (item in known) and number > before.get(text, 0)
        assert asked_again == 0
        judged(stub, data, run, concurrency=workers)
        records = read_journal(run / "judgments.jsonl")
        assert sorted(each["item"] for each in records) == sorted(answers)
        assert read_run(run).replies() == undisturbed
        assert sum(stub.asked.values()) <= len(answers) + kills * workers
