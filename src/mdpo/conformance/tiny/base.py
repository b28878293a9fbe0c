"""What all tiny models have in common: a tokenizer of bytes, a chat template, strong weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

BOS, EOS, PAD = "<s>", "</s>", "<pad>"


@dataclass(frozen=True)
class TinyModel:
    """A family in small.

    Attributes:
        config: Of the model.
        model_class: Class of transformers.
        processor: With chat template.
        eager_only: Whether the decoder knows no other attention.
    """

    config: Any
    model_class: type[PreTrainedModel]
    processor: Any
    eager_only: bool = False

    def model(self, *, attention: str = "sdpa", seed: int = 0) -> PreTrainedModel:
        """Make the model.

        Args:
            attention: Implementation in transformers.
            seed: Of the weights.

        Returns:
            A model in float32, in evaluation mode; equal seeds give equal weights.
        """
        # PaliGemma's decoder caps its attention scores, which only eager attention can.
        self.config._attn_implementation = "eager" if self.eager_only else attention
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.model_class(self.config)
            strengthen(model)
        return model.eval()


def strengthen(model: nn.Module) -> None:
    """Draw all weights so large that every layer, image and position shows in the logits.

    Args:
        model: Changed in place; norms and biases included, so that no layer is near the identity.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2:
                is_scale = bool(parameter.mean() > 0.5)
                parameter.normal_(float(is_scale), 0.2)
            else:
                parameter.normal_(0.0, 1.5 / parameter[0].numel() ** 0.5)
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                module.weight.normal_(0.0, 0.5)


def byte_tokenizer(special: Sequence[str] = (), **named: str) -> PreTrainedTokenizerFast:
    """Make a tokenizer that knows bytes and special tokens, and no words.

    Args:
        special: Special tokens beyond begin, end and padding.
        **named: Special tokens that become attributes of the tokenizer, by name.

    Returns:
        A tokenizer of about 260 entries.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={each: i for i, each in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        extra_special_tokens=named,
        clean_up_tokenization_spaces=False,
        # Generation needs it, and processors of some families set it.
        padding_side="left",
    )
    fast.add_tokens(list(special), special_tokens=True)
    return fast


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """Look up a token.

    Args:
        tokenizer: That knows it.
        token: One of its tokens.

    Returns:
        Its id.
    """
    found = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(found, int)
    return found


def chat_template(image: str) -> str:
    """Write a chat template with turns on lines of their own.

    Args:
        image: What stands for an image in a user's turn.

    Returns:
        A Jinja template; the assistant's turn ends in the end-of-sequence token.
    """
    return (
        "{% for message in messages %}{{ message['role'] }}: "
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}" + image + "{% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}{% endif %}"
        "{% if message['role'] == 'assistant' %}" + EOS + "{% else %}\n{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )


def decoder(tokenizer: PreTrainedTokenizerFast, **extra: Any) -> dict[str, Any]:
    """Write the sizes that a small decoder has in every family.

    Args:
        tokenizer: Gives vocabulary and special tokens.
        **extra: Further fields; they win.

    Returns:
        Arguments of a text config.
    """
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
    } | extra


def tower(**extra: Any) -> dict[str, Any]:
    """Write the sizes that a small vision tower has in most families.

    Args:
        **extra: Further fields; they win.

    Returns:
        Arguments of a vision config.
    """
    return {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    } | extra
