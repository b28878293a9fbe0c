"""The data formats of other projects, told apart by their columns.

A format is a record: how to recognise it, and how to give one of its rows the native keys that
``parsing.parse_row`` reads. ``recognise_format`` takes the first that fits.

Sources, facts only: TRL https://huggingface.co/docs/trl/dataset_formats, LLaMA-Factory
https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md, ms-swift
https://swift.readthedocs.io/en/latest/Customization/Custom-dataset.html, RLAIF-V
https://huggingface.co/datasets/openbmb/RLAIF-V-Dataset, and the rows of mDPO
(Wang et al. 2024, https://arxiv.org/abs/2406.11839) as its authors released them.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from mdpo.data.parsing import UNSUPPORTED
from mdpo.data.rows import RawRow, RowError, Value, shown

_TURN = re.compile(r"(?:^|(?<=\s)|(?<=</s>)|(?<=<\|endoftext\|>))(USER|ASSISTANT):")
_END_OF_ANSWER = re.compile(r"</s>|<\|endoftext\|>")
_SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
_IMAGES = ("images", "image", "rejected_images", "rejected_image")


@dataclass(frozen=True)
class Format:
    """One way people write preference rows.

    Attributes:
        name: What reports call it.
        needs: The columns it takes, for messages.
        recognise: Whether columns and first row look like it.
        to_native: A row of this format to one with native keys; raises ``RowError``.
        renamed: Native field to the field of this format, so that errors name the latter.
    """

    name: str
    needs: str
    recognise: Callable[[Collection[str], RawRow], bool]
    to_native: Callable[[RawRow], RawRow]
    renamed: Mapping[str, str] = field(default_factory=dict)

    def field_name(self, native: str) -> str:
        """Name a native field as this format does.

        Args:
            native: ``prompt[0].content``, say.

        Returns:
            ``messages[0].content``, say.
        """
        head = native.split("[")[0].split(".")[0]
        return self.renamed.get(head, head) + native.removeprefix(head)


def recognise_format(columns: Collection[str], first: RawRow, *, name: str = "data") -> Format:
    """Tell which format rows are in.

    Args:
        columns: Columns of the source.
        first: Its first row; some formats share columns and differ in what these hold.
        name: What the source is called in messages.

    Returns:
        The first of ``FORMATS`` that fits.

    Raises:
        ValueError: If none does; the message says what each of them needs.
    """
    for known in FORMATS:
        if known.recognise(columns, first):
            return known
    found = ", ".join(f"`{column}`" for column in columns)
    wanted = "\n".join(f"  {known.name}: {known.needs}" for known in FORMATS)
    raise ValueError(
        f"{name}: columns must be those of a known format, got {found or 'none'}. "
        f"Rename columns to fit one of:\n{wanted}"
    )


def parse_vicuna(text: str) -> list[dict[str, str]]:
    """Split a prompt that already holds the whole Vicuna template into messages.

    ``system USER: question ASSISTANT: answer</s>USER: question ASSISTANT:``, where the system
    text and the earlier turns may be missing and an answer may end in ``<|endoftext|>``, as
    Bunny's do.

    Args:
        text: The prompt; ends in ``ASSISTANT:``.

    Returns:
        Messages with text content, the last one the user's.

    Raises:
        RowError: If the text has any other shape; to guess would train on a prompt nobody wrote.
    """
    system, *rest = _TURN.split(text.strip())
    roles, texts = rest[0::2], [part.strip() for part in rest[1::2]]
    answers = texts[1:-1:2]
    ended = [_END_OF_ANSWER.split(answer) for answer in answers]
    texts[1:-1:2] = [parts[0].rstrip() for parts in ended]
    if (
        not roles
        or roles != ["USER", "ASSISTANT"] * (len(roles) // 2)
        or texts[-1]
        or any(len(parts) != 2 or parts[1] for parts in ended)
        or any(_END_OF_ANSWER.search(part) for part in [system, *texts])
    ):
        raise RowError(
            "prompt",
            f"must be a Vicuna prompt 'SYSTEM USER: question ASSISTANT:', got {shown(text)}",
            "Write it so, or use the native columns `images`, `prompt`, `chosen`, `rejected`.",
        )
    opening = [("system", system.strip())] if system.strip() else []
    names = {"USER": "user", "ASSISTANT": "assistant"}
    turns = [(names[role], part) for role, part in zip(roles, texts, strict=True)]
    return [{"role": role, "content": part} for role, part in [*opening, *turns[:-1]]]


def _kept(row: RawRow) -> dict[str, Value]:
    """What every format shares with the native one, or must be refused with it."""
    return {name: row[name] for name in (*_IMAGES, *UNSUPPORTED) if name in row}


def _answers(row: RawRow) -> dict[str, Value]:
    return {**_kept(row), "chosen": row.get("chosen"), "rejected": row.get("rejected")}


def _is_native(columns: Collection[str], first: RawRow) -> bool:
    whole = isinstance(first.get("chosen"), list | tuple)
    return {"chosen", "rejected"} <= set(columns) and ("prompt" in columns or whole)


def _from_native(row: RawRow) -> RawRow:
    return row


def _is_mdpo_official(columns: Collection[str], first: RawRow) -> bool:
    prompt = first.get("prompt")
    # such a prompt is no plain question whatever the image column is called: a chat template
    # round it would nest one conversation in another
    whole = isinstance(prompt, str) and "USER:" in prompt and prompt.rstrip().endswith("ASSISTANT:")
    return {"prompt", "chosen", "rejected"} <= set(columns) and ("img_path" in columns or whole)


def _from_mdpo_official(row: RawRow) -> RawRow:
    prompt = row.get("prompt")
    if not isinstance(prompt, str):
        raise RowError("prompt", f"must be text, got {shown(prompt)}", "Write the prompt.")
    native = {**_answers(row), "prompt": parse_vicuna(prompt)}
    return {**native, "image": row["img_path"]} if row.get("img_path") is not None else native


def _is_rlaif_v(columns: Collection[str], first: RawRow) -> bool:
    return {"image", "question", "chosen", "rejected"} <= set(columns)


def _from_rlaif_v(row: RawRow) -> RawRow:
    return {**_answers(row), "prompt": row.get("question")}


def _is_sharegpt(columns: Collection[str], first: RawRow) -> bool:
    return {"conversations", "chosen", "rejected"} <= set(columns)


def _sharegpt_message(turn: Value, name: str) -> Value:
    if not isinstance(turn, Mapping):
        return turn
    role = turn.get("from")
    known = _SHAREGPT_ROLES.get(role) if isinstance(role, str) else None
    if known is None:
        raise RowError(
            f"{name}.from",
            f"must be one of {', '.join(_SHAREGPT_ROLES)}, got {shown(role)}",
            "Rename the role or drop the row.",
        )
    return {"role": known, "content": turn.get("value")}


def _from_sharegpt(row: RawRow) -> RawRow:
    turns = row.get("conversations")
    if isinstance(turns, list | tuple):
        turns = [_sharegpt_message(t, f"prompt[{i}]") for i, t in enumerate(turns)]
        # a system turn of the conversation wins over the column, as in LLaMA-Factory
        own = bool(turns) and isinstance(turns[0], Mapping) and turns[0]["role"] == "system"
        if row.get("system") and not own:
            turns = [{"role": "system", "content": row["system"]}, *turns]
    answers = {name: row.get(name) for name in ("chosen", "rejected")}
    for name, answer in answers.items():
        if isinstance(answer, Mapping):
            answers[name] = [_sharegpt_message(answer, name)]
    return {**_kept(row), "prompt": turns, **answers}


def _is_ms_swift(columns: Collection[str], first: RawRow) -> bool:
    rejected = {"rejected_response", "rejected_messages", "rejected_images"}
    return "messages" in columns and bool(rejected & set(columns))


def _from_ms_swift(row: RawRow) -> RawRow:
    native = _kept(row)
    messages, response = row.get("messages"), row.get("rejected_response")
    if row.get("rejected_messages") is not None:
        # here ms-swift asks for the images again: the same ones are no losing images
        if native.get("rejected_images") == native.get("images"):
            native.pop("rejected_images", None)
        return {**native, "chosen": messages, "rejected": row["rejected_messages"]}
    if response is None:
        raise RowError(
            "rejected_response",
            "must be given: mdpo compares two answers as well as two images, got None",
            "Write a worse answer to the same question, or drop the row.",
        )
    if not isinstance(messages, list | tuple):
        return {**native, "prompt": messages, "chosen": None, "rejected": response}
    return {**native, "prompt": messages[:-1], "chosen": messages[-1:], "rejected": response}


FORMATS: tuple[Format, ...] = (
    Format(
        name="mdpo-official",
        needs="`img_path`, `prompt` (the whole Vicuna template), `chosen`, `rejected`",
        recognise=_is_mdpo_official,
        to_native=_from_mdpo_official,
        renamed={"image": "img_path"},
    ),
    Format(
        name="llamafactory-sharegpt",
        needs="`conversations`, `chosen`, `rejected`; `images` and `system` if there are any",
        recognise=_is_sharegpt,
        to_native=_from_sharegpt,
        renamed={"prompt": "conversations"},
    ),
    Format(
        name="ms-swift",
        needs="`messages`, `rejected_response` or `rejected_messages`; `images` if there are any",
        recognise=_is_ms_swift,
        to_native=_from_ms_swift,
        renamed={"prompt": "messages"},
    ),
    Format(
        name="native",
        needs="`prompt`, `chosen`, `rejected` (or whole conversations without `prompt`); "
        "`images` or `image`, and `rejected_images`, if there are any",
        recognise=_is_native,
        to_native=_from_native,
    ),
    Format(
        name="rlaif-v",
        needs="`image`, `question`, `chosen`, `rejected`",
        recognise=_is_rlaif_v,
        to_native=_from_rlaif_v,
        renamed={"prompt": "question"},
    ),
)
"""Every known format; the first that fits is taken, so the narrower stand first."""
