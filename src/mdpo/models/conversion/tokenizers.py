"""Tokenizers of the original checkpoints, with an image token added; and back.

The original code cuts a prompt at ``<image>`` and tokenizes the pieces apart. A special token gives
the same ids: what stands before and after it is tokenized apart as well.
"""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from transformers import AddedToken, CodeGenTokenizer, LlamaTokenizer, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from mdpo.models.conversion.checkpoint import read_json
from mdpo.models.conversion.prompts import IMAGE_TOKEN
from mdpo.models.conversion.writing import write_json

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
PAD_TOKEN = "<pad>"


def bunny_tokenizer(folder: Path, *, vocab_size: int) -> PreTrainedTokenizerBase:
    """Load Phi-2's tokenizer and add the image token; padding is the end token.

    Args:
        folder: Of the original checkpoint.
        vocab_size: Rows of its embedding.

    Returns:
        The tokenizer.

    Raises:
        ValueError: If files are missing, or the tokenizer does not fit the vocabulary.
    """
    if not (folder / "tokenizer.json").is_file() and not (folder / "vocab.json").is_file():
        raise ValueError(f"{folder} holds no tokenizer: tokenizer.json is missing. Get the file.")
    tokenizer = CodeGenTokenizer.from_pretrained(folder)
    _check_length(tokenizer, folder, vocab_size)
    tokenizer.add_tokens([_special(IMAGE_TOKEN)], special_tokens=True)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def llava_tokenizer(folder: Path, *, vocab_size: int) -> PreTrainedTokenizerBase:
    """Load Llama's tokenizer and add the image token and one for padding.

    Args:
        folder: Of the original checkpoint.
        vocab_size: Rows of its embedding.

    Returns:
        The tokenizer; it tokenizes as the original project's slow one.

    Raises:
        ValueError: If files or packages are missing, or the tokenizer does not fit the vocabulary.
    """
    if not (folder / "tokenizer.json").is_file():
        if not (folder / "tokenizer.model").is_file():
            raise ValueError(
                f"{folder} holds no tokenizer: neither tokenizer.json nor tokenizer.model is there."
            )
        if find_spec("sentencepiece") is None or find_spec("google.protobuf") is None:
            raise ValueError(
                f"{folder / 'tokenizer.model'} takes two packages to read. Install them: "
                "pip install sentencepiece protobuf"
            )
    plain = LlamaTokenizer.from_pretrained(folder)
    _check_length(plain, folder, vocab_size)
    settings = folder / "tokenizer_config.json"
    # Without the setting the slow tokenizer of the time was the legacy one.
    legacy = read_json(settings).get("legacy") is not False if settings.is_file() else True
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_like_the_slow_one(plain, legacy=legacy),
        bos_token=plain.bos_token,
        eos_token=plain.eos_token,
        unk_token=plain.unk_token,
        model_max_length=plain.model_max_length,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens([_special(IMAGE_TOKEN), _special(PAD_TOKEN)], special_tokens=True)
    tokenizer.pad_token = PAD_TOKEN
    return tokenizer


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy the tokenizer's files of an original checkpoint.

    Args:
        source: The original checkpoint.
        folder: To copy to.

    Raises:
        ValueError: If there are none.
    """
    files = [source / name for name in TOKENIZER_FILES if (source / name).is_file()]
    if not files:
        raise ValueError(f"`--tokenizer` must be an original checkpoint, {source} holds none.")
    for file in files:
        shutil.copyfile(file, folder / file.name)


def write_bunny_tokenizer(source: Path, folder: Path) -> None:
    """Write the files of Bunny's tokenizer anew, without the image token.

    Args:
        source: A standard folder.
        folder: To write to.
    """
    whole = read_json(source / "tokenizer.json")
    settings = read_json(source / "tokenizer_config.json")
    whole["added_tokens"] = [t for t in whole["added_tokens"] if t["content"] != IMAGE_TOKEN]
    # Lengths of the last batch are no part of a tokenizer.
    whole["truncation"] = whole["padding"] = None
    write_json(folder / "tokenizer.json", whole)
    vocabulary: dict[str, int] = whole["model"]["vocab"]
    write_json(folder / "vocab.json", vocabulary)
    merges = [m if isinstance(m, str) else " ".join(m) for m in whole["model"]["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")
    added = {t["content"]: t["id"] for t in whole["added_tokens"]}
    added = {token: number for token, number in added.items() if token not in vocabulary}
    write_json(folder / "added_tokens.json", added)
    end = settings["eos_token"]
    special = {"bos_token": end, "eos_token": end, "unk_token": end}
    write_json(folder / "special_tokens_map.json", special)
    flags = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    described = {str(t["id"]): {f: t[f] for f in flags} for t in whole["added_tokens"]}
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_prefix_space": settings.get("add_prefix_space", False),
            "added_tokens_decoder": described,
            **special,
            "clean_up_tokenization_spaces": settings.get("clean_up_tokenization_spaces", True),
            "model_max_length": settings.get("model_max_length", 2048),
            "tokenizer_class": "CodeGenTokenizer",
        },
    )


def _special(token: str) -> AddedToken:
    """A token that is cut out before anything else is done to a text."""
    return AddedToken(token, special=True, normalized=False, lstrip=False, rstrip=False)


def _check_length(tokenizer: Any, folder: Path, vocab_size: int) -> None:
    """Refuse a tokenizer that lost tokens or has too many; another id would be the image's."""
    vocabulary = tokenizer.get_vocab()
    listed = folder / "added_tokens.json"
    lost = [
        token
        for token, number in (read_json(listed) if listed.is_file() else {}).items()
        if vocabulary.get(token) != number
    ]
    if lost:
        raise ValueError(
            f"{folder}: token {lost[0]!r} of added_tokens.json must be in the tokenizer. Get its "
            "files again, tokenizer_config.json too."
        )
    if IMAGE_TOKEN in vocabulary:
        raise ValueError(
            f"{folder}: the tokenizer must not have the token {IMAGE_TOKEN}, which the original "
            "code writes as a negative id. This checkpoint is no original one."
        )
    if len(tokenizer) > vocab_size or max(vocabulary.values()) >= vocab_size:
        raise ValueError(
            f"{folder}: the tokenizer must have at most {vocab_size} tokens, `vocab_size` of "
            f"config.json, got {len(tokenizer)}. Get the tokenizer of this checkpoint."
        )


def _like_the_slow_one(tokenizer: Any, *, legacy: bool) -> Tokenizer:
    """Set where a space is put in front, and the token that begins a text."""
    # The slow tokenizer puts a space before each text that it gets, so also before what follows an
    # image; the legacy one does so after any special token.
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["truncation"] = content["padding"] = None
    backend = Tokenizer.from_str(json.dumps(content))
    scheme = "always" if legacy else "first"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    if not legacy:
        # The prompt puts a newline after an image, and nowhere else at the beginning of a piece.
        backend.normalizer = normalizers.Replace(Regex(r"\A\n"), " \n")
    begin = tokenizer.bos_token
    backend.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A",
        pair=f"{begin} $A {begin}:1 $B:1",
        special_tokens=[(begin, tokenizer.convert_tokens_to_ids(begin))],
    )
    return backend
