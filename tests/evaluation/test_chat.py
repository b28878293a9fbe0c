"""The client of chat servers: what it sends, what it tries again, and what it refuses."""

import pickle
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
from judge_stub import Stub, judge_stub

from mdpo.evaluation.chat import (
    EMPTY,
    Budget,
    BudgetError,
    ChatClient,
    ChatError,
    RefusedError,
    StopError,
    key_from,
)
from mdpo.evaluation.retrying import retry_after

SECRET = "sk-very-secret"


@pytest.fixture
def stub() -> Iterator[Stub]:
    with judge_stub() as each:
        yield each


def client(stub: Stub, waits: list[float] | None = None, **settings: Any) -> ChatClient:
    return ChatClient(
        stub.url, "judge", sleep=(waits if waits is not None else []).append, **settings
    )


def ask(chat: ChatClient, text: str, **settings: Any) -> Any:
    with chat:
        messages = [{"role": "user", "content": text}]
        return chat.complete(messages, temperature=0.0, max_tokens=64, **settings)


def test_a_request_is_what_the_protocol_says(stub: Stub):
    reply = ask(client(stub, key=SECRET), "hello")
    assert stub.bodies == [
        {
            "model": "judge",
            "messages": [{"role": "user", "content": "hello"}],
            "temperature": 0.0,
            "max_tokens": 64,
        }
    ]
    assert stub.keys == [f"Bearer {SECRET}"]
    assert reply.text == "It is fine.\nRating: 5"
    assert (reply.model, reply.finish_reason, reply.attempts) == ("judge", "stop", 1)
    assert reply.usage == {"prompt_tokens": 10, "completion_tokens": 3}
    ask(client(stub), "hello", seed=3)
    assert stub.bodies[-1]["seed"] == 3
    assert stub.keys[-1] is None


@pytest.mark.parametrize(
    ("text", "attempts"),
    [
        ("[[once500]]", 2),
        ("[[once520]]", 2),
        ("[[broken]]", 2),
        ("[[reset]]", 2),
        ("[[empty]]", 2),
        ("[[bold]]", 1),
    ],
)
def test_failures_that_may_pass_are_tried_again(stub: Stub, text: str, attempts: int):
    waits: list[float] = []
    assert ask(client(stub, waits), text).attempts == attempts
    assert len(waits) == attempts - 1
    assert stub.asked[text] == attempts


def test_a_server_that_asks_to_wait_is_waited_for(stub: Stub):
    waits: list[float] = []
    assert ask(client(stub, waits), "[[limit]]").attempts == 2
    assert waits == [7.0]


def test_a_slow_server_is_asked_again(stub: Stub):
    assert ask(client(stub, timeout=0.3), "[[slow]]").attempts == 2


def test_waits_grow_and_end(stub: Stub):
    waits: list[float] = []
    with pytest.raises(ChatError, match=r"answered 500 \(4 attempts at http"):
        ask(client(stub, waits, attempts=4), "[[always500]]")
    assert len(waits) == 3
    for wait, base in zip(waits, (1, 2, 4), strict=True):
        assert 0.5 * base <= wait <= 1.5 * base


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[forbidden]]", r"answered 401 at http.*who are you.*--key-env"),
        ("[[redirect]]", r"answered 302 .* redirects to"),
        ("[[other]]", r"'judge' was asked and 'another' answered.*--allow-model-mismatch"),
        ("[[dated]]", r"'judge' was asked and 'judge-0613' answered"),
    ],
)
def test_what_does_not_pass_is_not_tried_again(stub: Stub, text: str, message: str):
    with pytest.raises(ChatError, match=message) as caught:
        ask(client(stub, key=SECRET), text)
    assert SECRET not in str(caught.value)
    assert sum(stub.asked.values()) == 1


def test_another_model_is_taken_if_allowed(stub: Stub):
    assert ask(client(stub, allow_other_model=True), "[[other]]").model == "another"


def test_a_body_without_choices_fails(stub: Stub):
    with pytest.raises(ChatError, match="without a choice"):
        ask(client(stub, attempts=2), "[[nochoice]]")


def test_missing_counts_of_tokens_are_no_failure(stub: Stub):
    assert ask(client(stub), "[[nousage]]").usage == {}


def test_a_budget_counts_every_call(stub: Stub):
    budget = Budget(3)
    ask(client(stub, budget=budget), "[[once500]]")
    assert budget.spent == 2
    ask(client(stub, budget=budget), "b")
    with pytest.raises(BudgetError, match="budget of 3 calls is spent"):
        ask(client(stub, budget=budget), "c")
    assert sum(stub.asked.values()) == 3


def test_no_server_is_said_so():
    chat = ChatClient("http://127.0.0.1:9/v1", "judge", attempts=2, sleep=lambda _: None)
    with pytest.raises(ChatError, match="connection failed: ConnectError"):
        ask(chat, "hello")
    with pytest.raises(ValueError, match="must begin with http"):
        ChatClient("127.0.0.1:9", "judge")


def test_the_key_stands_nowhere(stub: Stub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_KEY", SECRET)
    key = key_from("MY_KEY")
    assert key == SECRET
    assert key_from("NO_SUCH_KEY") is None
    chat = client(stub, key=key)
    assert SECRET not in repr(chat) + str(vars(chat))
    assert SECRET not in repr(ask(chat, "x"))
    with pytest.raises(TypeError):  # locks cannot be pickled, so neither can the key
        pickle.dumps(chat)


def test_a_key_that_the_server_repeats_is_blotted_out(stub: Stub):
    with pytest.raises(ChatError, match=r"400 at .*\[key\]") as caught:
        ask(client(stub, key=SECRET), "[[echo]]")
    assert not isinstance(caught.value, StopError)
    assert SECRET[:4] not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "http://me:hidden@127.0.0.1/v1",
        "http://hidden@127.0.0.1/v1",
        "http://127.0.0.1/v1?key=hidden",
        "http://127.0.0.1/v1#hidden",
    ],
)
def test_addresses_hold_no_keys(address: str):
    with pytest.raises(ValueError, match="must be a plain address") as caught:
        ChatClient(address, "judge")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["ftp://127.0.0.1/v1", "http://", "http:///v1", "http://127.0.0.1:port/v1"]
)
def test_what_is_no_address_is_refused(address: str):
    with pytest.raises(ValueError, match="`--endpoint` must be"):
        ChatClient(address, "judge")


def test_keys_are_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_KEY", f" {SECRET}\n")
    assert key_from("MY_KEY") == SECRET
    monkeypatch.setenv("MY_KEY", "")
    assert key_from("MY_KEY") is None
    for broken in (f"{SECRET}\nX-Other: 1", f"{SECRET}\u00e9"):
        monkeypatch.setenv("MY_KEY", broken)
        with pytest.raises(ValueError, match="key in MY_KEY must be one line") as caught:
            key_from("MY_KEY")
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("text", ["[[forbidden]]", "[[gone]]", "[[redirect]]"])
def test_what_no_request_would_pass_is_told_apart(stub: Stub, text: str):
    with pytest.raises(RefusedError):
        ask(client(stub), text)


def test_another_model_is_not_the_servers_refusal(stub: Stub):
    with pytest.raises(ChatError) as caught:
        ask(client(stub), "[[other]]")
    assert not isinstance(caught.value, StopError)
    assert caught.value.usage == {"prompt_tokens": 10, "completion_tokens": 3}


def test_tokens_of_all_attempts_are_counted(stub: Stub):
    assert ask(client(stub), "[[empty]]").usage == {"prompt_tokens": 20, "completion_tokens": 6}
    assert ask(client(stub), "[[once500]]").usage == {"prompt_tokens": 10, "completion_tokens": 3}


def test_replies_without_text_are_not_paid_for_for_ever(stub: Stub):
    with pytest.raises(ChatError, match=r"no text \(3 attempts") as caught:
        ask(client(stub), "[[void]]")
    assert (caught.value.attempts, EMPTY) == (3, 3)
    assert caught.value.usage == {"prompt_tokens": 30, "completion_tokens": 9}


def test_short_waits_grow_all_the_same_and_long_ones_are_cut(stub: Stub):
    waits: list[float] = []
    with pytest.raises(ChatError, match="answered 429"):
        ask(client(stub, waits, attempts=5), "[[wait1]]")
    for wait, base in zip(waits, (1, 2, 4, 8), strict=True):
        assert max(1.0, 0.5 * base) <= wait <= 1.5 * base
    assert waits != [1.0, 2.0, 4.0, 8.0]  # several clients shall not come back together
    waits.clear()
    with pytest.raises(ChatError):
        ask(client(stub, waits, attempts=2), "[[wait9999]]")
    assert waits == [60.0]


def test_a_client_that_is_stopped_asks_nothing(stub: Stub):
    chat = client(stub)
    chat.stop()
    with pytest.raises(StopError, match="Nothing further is asked"):
        ask(chat, "x")
    assert not stub.asked


def test_a_request_that_waits_is_stopped(stub: Stub):
    chat, ends = ChatClient(stub.url, "judge"), list[Exception]()

    def wait_for_it() -> None:
        try:
            ask(chat, "[[limit]]")
        except StopError as error:
            ends.append(error)

    thread = threading.Thread(target=wait_for_it)
    thread.start()
    while not stub.asked or stub.running:
        time.sleep(0.01)
    chat.stop()
    thread.join(timeout=5)  # it was told to wait for seven seconds
    assert not thread.is_alive()
    assert len(ends) == sum(stub.asked.values()) == 1


def test_dates_and_seconds_of_retry_after():
    assert retry_after(None) is None
    assert retry_after("12") == 12.0
    assert retry_after("-3") == 0.0
    assert retry_after("soon") is None
    later = datetime.now(timezone.utc) + timedelta(seconds=90)
    assert 85 <= (retry_after(format_datetime(later, usegmt=True)) or 0) <= 90
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
