"""Formats: each one from its raw row to the preference row, and how they are told apart."""

from typing import Any

import pytest

from mdpo.data.formats import parse_vicuna, recognise_format
from mdpo.data.reading import Rows
from mdpo.data.rows import PreferenceRow, RowError
from mdpo.data.sources import load_raw

IMAGE = {"type": "image"}
SYSTEM = "A chat between a curious user and an artificial intelligence assistant."


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


def message(role: str, *parts: dict[str, str]) -> dict[str, Any]:
    return {"role": role, "content": list(parts)}


def read(**row: Any) -> tuple[str, PreferenceRow]:
    rows = Rows(load_raw([row]))
    return rows.format_name, rows[0]


def refusal(**row: Any) -> str:
    rows = Rows(load_raw([row]))
    with pytest.raises(RowError) as caught:
        rows[0]
    return str(caught.value)


def expected(*prompt: dict[str, Any], **fields: Any) -> PreferenceRow:
    defaults: dict[str, Any] = {
        "row_id": "0",
        "place": "row 0 of data",
        "images": ("a.png",),
        "chosen": "a cat",
        "rejected": "a dog",
        "rejected_images": None,
    }
    return PreferenceRow(prompt=prompt, **(defaults | fields))


def turn(source: str, value: str) -> dict[str, str]:
    return {"from": source, "value": value}


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


QUESTION = message("user", IMAGE, text("What is it?"))


def test_native_conversational():
    name, row = read(
        images=["a.png"],
        prompt=[QUESTION],
        chosen=[said("assistant", "a cat")],
        rejected=[said("assistant", "a dog")],
        rejected_images=["b.png"],
    )
    assert name == "native"
    assert row == expected(QUESTION, rejected_images=("b.png",))


def test_native_plain_strings():
    name, row = read(image="a.png", prompt="What is it?", chosen="a cat", rejected="a dog")
    assert (name, row) == ("native", expected(QUESTION))


def test_native_implicit_prompt():
    name, row = read(
        images=["a.png"],
        chosen=[said("user", "What is it?"), said("assistant", "a cat")],
        rejected=[said("user", "What is it?"), said("assistant", "a dog")],
    )
    assert (name, row) == ("native", expected(QUESTION))


def test_mdpo_official():
    name, row = read(
        img_path="a.png",
        prompt=f"{SYSTEM} USER: <image>\nWhat is it? ASSISTANT:",
        chosen="a cat",
        rejected="a dog",
    )
    assert name == "mdpo-official"
    assert row == expected(message("system", text(SYSTEM)), QUESTION)


def test_a_whole_template_is_recognised_whatever_the_image_column_is_called():
    name, row = read(
        image="a.png",
        prompt="USER: <image>\nWhat is it? ASSISTANT: ",
        chosen="a cat",
        rejected="a dog",
    )
    assert (name, row) == ("mdpo-official", expected(QUESTION))


@pytest.mark.parametrize("end", ["</s>", "<|endoftext|>"])
def test_vicuna_with_earlier_turns(end: str):
    prompt = f"S. USER: <image>\nWho? ASSISTANT: A user: me.{end}USER: Why?\nSay. ASSISTANT:"
    assert parse_vicuna(prompt) == [
        said("system", "S."),
        said("user", "<image>\nWho?"),
        said("assistant", "A user: me."),
        said("user", "Why?\nSay."),
    ]


@pytest.mark.parametrize(
    "prompt",
    [
        "What is it?",
        "USER: What is it?",
        "ASSISTANT:",
        "USER: What is it? ASSISTANT: a cat",
        "USER: What? ASSISTANT: a cat USER: Why? ASSISTANT:",
        "USER: What? ASSISTANT: a</s> cat USER: Why? ASSISTANT:",
        "USER: What? USER: Why? ASSISTANT:",
        "USER: What?</s> ASSISTANT:",
        "S.</s>USER: What? ASSISTANT:",
        "ASSISTANT: Hi</s>USER: What? ASSISTANT:",
    ],
)
def test_what_is_not_vicuna_is_refused(prompt: str):
    assert refusal(img_path="a.png", prompt=prompt, chosen="a cat", rejected="a dog") == (
        "row 0 of data: `prompt` must be a Vicuna prompt 'SYSTEM USER: question ASSISTANT:', "
        f"got {prompt!r}. Write it so, or use the native columns `images`, `prompt`, `chosen`, "
        "`rejected`."
    )


def test_mdpo_official_errors_name_its_columns():
    row = {"chosen": "a cat", "rejected": "a dog"}
    assert refusal(img_path=3, prompt="USER: Q ASSISTANT:", **row).startswith(
        "row 0 of data: `img_path` must be a PIL image, bytes or a path, got 3. "
    )
    assert "`prompt` must be text, got None" in refusal(img_path="a.png", prompt=None, **row)


def test_rlaif_v():
    name, row = read(
        image={"bytes": b"x", "path": "a.jpg"},
        question="What is it?",
        chosen="a cat",
        rejected="a dog",
        ds_name="RLAIF-V",
        origin_dataset="coco",
        image_path="RLAIF-V/a.jpg",
    )
    assert (name, row) == ("rlaif-v", expected(QUESTION, images=(b"x",)))


def test_rlaif_v_errors_name_its_columns():
    assert refusal(image="a.png", question=" ", chosen="a cat", rejected="a dog") == (
        "row 0 of data: `question` must not be empty, got ' '. Write it or drop the row."
    )


def test_llamafactory_sharegpt():
    name, row = read(
        conversations=[turn("human", "Hi"), turn("gpt", "Hello"), turn("human", "<image>What?")],
        chosen=turn("gpt", "a cat"),
        rejected=turn("gpt", "a dog"),
        images=["a.png"],
    )
    assert name == "llamafactory-sharegpt"
    assert row == expected(
        message("user", text("Hi")),
        message("assistant", text("Hello")),
        message("user", IMAGE, text("What?")),
    )


@pytest.mark.parametrize(
    ("turns", "column", "system"),
    [
        ([], "Be brief.", "Be brief."),
        ([turn("system", "Be kind.")], "Be brief.", "Be kind."),
        ([turn("system", "Be kind.")], None, "Be kind."),
    ],
)
def test_llamafactory_system_text(turns: list[dict[str, str]], column: str | None, system: str):
    _, row = read(
        conversations=[*turns, turn("human", "<image>\nWhat is it?")],
        system=column,
        chosen=turn("gpt", "a cat"),
        rejected=turn("gpt", "a dog"),
        images=["a.png"],
    )
    assert row == expected(message("system", text(system)), QUESTION)


def test_llamafactory_without_system_text():
    answers = {"chosen": turn("gpt", "a cat"), "rejected": turn("gpt", "a dog")}
    _, row = read(conversations=[turn("human", "Hi")], system="", **answers)
    assert row == expected(message("user", text("Hi")), images=())


def test_llamafactory_errors_name_its_fields():
    answers = {"chosen": turn("gpt", "a cat"), "rejected": turn("gpt", "a dog")}
    turns = [turn("human", "Q"), turn("observation", "42")]
    assert refusal(conversations=turns, **answers) == (
        "row 0 of data: `conversations[1].from` must be one of human, gpt, system, "
        "got 'observation'. Rename the role or drop the row."
    )
    tools = refusal(conversations=turns[:1], **answers, tools="[{}]")
    assert tools == "row 0 of data: `tools` is not supported, got '[{}]'. Drop the row."
    chosen = answers | {"chosen": turn("human", "a cat")}
    assert "`chosen[0].role` must be assistant" in refusal(conversations=turns[:1], **chosen)


def test_ms_swift_rejected_response():
    name, row = read(
        messages=[said("user", "<image>What is it?"), said("assistant", "a cat")],
        rejected_response="a dog",
        images=["a.png"],
        rejected_images=["b.png"],
    )
    assert (name, row) == ("ms-swift", expected(QUESTION, rejected_images=("b.png",)))


@pytest.mark.parametrize(
    ("given", "kept"), [(["a.png"], None), (["b.png"], ("b.png",)), (None, None)]
)
def test_ms_swift_rejected_messages(given: list[str] | None, kept: tuple[str] | None):
    name, row = read(
        messages=[said("user", "<image>What is it?"), said("assistant", "a cat")],
        rejected_messages=[said("user", "<image>What is it?"), said("assistant", "a dog")],
        images=["a.png"],
        rejected_images=given,
    )
    assert (name, row) == ("ms-swift", expected(QUESTION, rejected_images=kept))


def test_ms_swift_rejected_images_alone_are_refused():
    messages = [said("user", "<image>What is it?"), said("assistant", "a cat")]
    row = {"messages": messages, "images": ["a.png"], "rejected_images": ["b.png"]}
    assert refusal(**row) == (
        "row 0 of data: `rejected_response` must be given: mdpo compares two answers as well as "
        "two images, got None. Write a worse answer to the same question, or drop the row."
    )


def test_ms_swift_errors_name_its_columns():
    assert refusal(messages=[said("assistant", "a cat")], rejected_response="a dog") == (
        "row 0 of data: `messages` must end with a user message before the answer, got None. "
        "Move an answer to `chosen`, or add the question."
    )
    assert "`messages` must be text or" in refusal(messages=None, rejected_response="a dog")


def test_a_prompt_column_wins_over_a_question_column():
    row = {"image": "a", "prompt": "P", "question": "Q", "chosen": "c", "rejected": "r"}
    assert recognise_format(row.keys(), row).name == "native"


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"prompt": "Q", "chosen": "a"},
        {"chosen": "a", "rejected": "b"},
        {"messages": [], "images": []},
        {"question": "Q", "chosen": "a", "rejected": "b"},
        {"conversations": [], "chosen": "a"},
        {"img_path": "a.png", "prompt": "USER: Q ASSISTANT:", "chosen": "a"},
    ],
)
def test_unknown_columns_are_refused(row: dict[str, object]):
    found = ", ".join(f"`{name}`" for name in row) or "none"
    with pytest.raises(ValueError, match=r"known format") as caught:
        recognise_format(row.keys(), row, name="train.jsonl")
    first, *formats = str(caught.value).split("\n")
    assert first == (
        f"train.jsonl: columns must be those of a known format, got {found}. "
        "Rename columns to fit one of:"
    )
    names = [line.split(":")[0].strip() for line in formats]
    assert names == ["mdpo-official", "llamafactory-sharegpt", "ms-swift", "native", "rlaif-v"]
    assert formats[-1] == "  rlaif-v: `image`, `question`, `chosen`, `rejected`"
