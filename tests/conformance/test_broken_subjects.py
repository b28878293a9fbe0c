"""Every check of the conformance suite fails on a model or processor that breaks what it is about.

Each subject is a tiny LLaVA or its processor with one thing wrong. ``BROKEN`` says which check has
to find it, and by which words.
"""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from tiny_families import Family, tiny_llava
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration, LlavaProcessor, PreTrainedModel

from mdpo.conformance import CheckResult, check_model
from mdpo.conformance.suite import CHECKS, UNCHANGED
from mdpo.playground.vlm import CHAT_TEMPLATE

ANSWER = "{{ part['text'] }}"


class Reverse(torch.autograd.Function):
    """The identity with the sign of its gradient turned."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return -gradients[0]


class HookedLlava(LlavaForConditionalGeneration):
    """A LLaVA in which one thing is changed, by hooks or replaced methods."""

    change: Callable[[Any], None] = staticmethod(lambda model: None)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.change(self)


def before_decoder(edit: Callable[[Any, dict[str, Any]], None]) -> Callable[[Any], None]:
    """Edit what the language model is given."""

    def change(model: Any) -> None:
        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
            edit(model, kwargs)
            return args, kwargs

        model.model.language_model.register_forward_pre_hook(hook, with_kwargs=True)

    return change


def on_features(edit: Callable[[Tensor], Tensor]) -> Callable[[Any], None]:
    """Edit image features ``(images, tokens, width)`` where the model makes them."""

    def change(model: Any) -> None:
        encode = model.model.get_image_features

        def edited(*args: Any, **kwargs: Any) -> Any:
            output = encode(*args, **kwargs)
            pooled = output.pooler_output
            stacked = pooled if isinstance(pooled, Tensor) else torch.stack(list(pooled))
            edited = edit(stacked)
            output.pooler_output = edited if isinstance(pooled, Tensor) else tuple(edited)
            return output

        model.model.get_image_features = edited

    return change


def splices_first_feature_only(model: Any) -> None:
    """All but the first feature of an image are lost after the encoder."""

    def see(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        model.seen = kwargs["input_ids"]

    def edit(_: Any, kwargs: dict[str, Any]) -> None:
        embeds = kwargs["inputs_embeds"].clone()
        if model.seen.shape == embeds.shape[:2]:
            places = (model.seen == model.config.image_token_id).nonzero().tolist()
            for number, (row, place) in enumerate(places):
                if number % 9:
                    embeds[row, place] = 0.0
        kwargs["inputs_embeds"] = embeds

    model.register_forward_pre_hook(see, with_kwargs=True)
    before_decoder(edit)(model)


def counts_leniently(model: Any) -> None:
    """No error where image tokens and features differ in number."""

    def mask(ids: Any, inputs_embeds: Any, image_features: Any) -> Any:
        places = (ids == model.config.image_token_id).unsqueeze(-1)
        return places.expand_as(inputs_embeds)

    model.model.get_placeholder_mask = mask


def leaks(model: Any, kwargs: dict[str, Any]) -> None:
    """Each row hears a little of the others' beginnings."""
    embeds = kwargs["inputs_embeds"]
    kwargs["inputs_embeds"] = embeds + 0.1 * embeds.mean(dim=(0, 1), keepdim=True)


def drops_positions(model: Any, kwargs: dict[str, Any]) -> None:
    kwargs["position_ids"] = None


def ignores_mask(model: Any, kwargs: dict[str, Any]) -> None:
    kwargs["attention_mask"] = None
    kwargs["position_ids"] = None


def attends_ahead(model: Any, kwargs: dict[str, Any]) -> None:
    rows, length = kwargs["inputs_embeds"].shape[:2]
    kwargs["attention_mask"] = torch.ones(rows, 1, length, length, dtype=torch.bool)


def set_adapters(model: Any, *, off: bool) -> None:
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module._disable_adapters = off


def grows_adapters(model: Any, kwargs: dict[str, Any]) -> None:
    with torch.no_grad():
        for name, each in model.named_parameters():
            if "lora_B" in name:
                each.mul_(1.2)


def grows_where_adapted(model: Any, kwargs: dict[str, Any]) -> None:
    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        kwargs["inputs_embeds"] = 1.01 * kwargs["inputs_embeds"]


def adds_noise(model: Any, kwargs: dict[str, Any]) -> None:
    if model.training:
        embeds = kwargs["inputs_embeds"]
        kwargs["inputs_embeds"] = embeds + 0.3 * torch.randn_like(embeds)


def drifts(model: Any, kwargs: dict[str, Any]) -> None:
    with torch.no_grad():
        model.model.multi_modal_projector.linear_1.bias.add_(1e-7)


def makes_no_numbers(model: Any, kwargs: dict[str, Any]) -> None:
    kwargs["inputs_embeds"] = kwargs["inputs_embeds"] * torch.nan


def swaps_parts(model: Any) -> None:
    """Tower and language model are taken for one another."""
    get_encoder, get_decoder = model.get_encoder, model.get_decoder
    model.get_encoder = lambda modality=None: get_decoder()
    model.get_decoder = lambda: get_encoder(modality="image")


def detaches_first_layer(model: Any) -> None:
    layer = model.model.language_model.layers[0]
    layer.register_forward_hook(lambda module, args, output: output.detach())


def has_a_spare_weight(model: Any) -> None:
    model.model.language_model.spare = nn.Parameter(torch.zeros(3))


def thaws_projector(model: Any) -> None:
    """The projector trains whatever is asked for: its weights are read anew at each forward."""

    def thaw(module: nn.Module, args: Any) -> None:
        module.requires_grad_(True)

    model.model.multi_modal_projector.register_forward_pre_hook(thaw)


def reverses_gradients(model: Any) -> None:
    model.model.language_model.norm.register_forward_hook(
        lambda module, args, output: Reverse.apply(output)
    )


def reverses_gradients_of_packed_rows(model: Any) -> None:
    """Right forward, wrong backward where rows lie in one sequence."""
    model.model.language_model.norm.register_forward_hook(
        lambda module, args, output: Reverse.apply(output) if len(output) == 1 else output
    )


def loses_a_tensor(model: Any) -> None:
    save = model.save_pretrained

    def saved(folder: str, **kwargs: Any) -> None:
        weights = model.state_dict()
        del weights["model.multi_modal_projector.linear_2.bias"]
        save(folder, state_dict=weights, **kwargs)

    model.save_pretrained = saved


class CutsTokens(LlavaProcessor):
    """One image token too few for each image."""

    def replace_image_token(self, *args: Any, **kwargs: Any) -> str:
        return super().replace_image_token(*args, **kwargs).removesuffix("<image>")


class CountsByColor(LlavaProcessor):
    """The number of tokens depends on more than the size: one more for each, where it is dark."""

    def __call__(self, images: Any = None, text: Any = None, *args: Any, **kwargs: Any) -> Any:
        if images and not any(image.getbbox() for row in images for image in row):
            text = [f"{each} dark" for each in text]
        return super().__call__(images, text, *args, **kwargs)


class AttendsToPadding(LlavaProcessor):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        features = super().__call__(*args, **kwargs)
        features["attention_mask"] = torch.ones_like(features["attention_mask"])
        return features


class LosesWords(LlavaProcessor):
    def __call__(self, images: Any = None, text: Any = None, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(images, [each.replace("?", "") for each in text], *args, **kwargs)


class DropsImages(LlavaProcessor):
    """Takes as many images as the text has places for, and says nothing of the others."""

    def __call__(self, images: Any = None, text: Any = None, *args: Any, **kwargs: Any) -> Any:
        if images is not None:
            images = [
                row[: prompt.count("<picture>")] for row, prompt in zip(images, text, strict=True)
            ]
        text = [each.replace("<picture>", "<image>") for each in text]
        return super().__call__(images, text, *args, **kwargs)


class ForgetsTemplate(LlavaProcessor):
    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        super().save_pretrained(save_directory, *args, **kwargs)
        (Path(save_directory) / "chat_template.jinja").unlink()


class ForgetsMean(LlavaProcessor):
    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        super().save_pretrained(save_directory, *args, **kwargs)
        for path in Path(save_directory).glob("*processor_config.json"):
            settings = json.loads(path.read_text())
            for owner in (settings, settings.get("image_processor", {})):
                if "image_mean" in owner:
                    owner["image_mean"] = [0.0, 0.0, 0.0]
            path.write_text(json.dumps(settings))


class OneImageOnly(LlavaProcessor):
    """Refuses several images in a row, and rows without any."""

    def __call__(self, images: Any = None, text: Any = None, *args: Any, **kwargs: Any) -> Any:
        if not images or any(len(row) != 1 for row in images):
            raise ValueError("Exactly one image per prompt, please.")
        return super().__call__(images, text, *args, **kwargs)


@dataclasses.dataclass(frozen=True)
class Broken:
    """What is wrong, which check has to find it, and words of its remark."""

    check: str
    words: str
    model: Callable[[Any], None] | None = None
    processor: type[LlavaProcessor] | None = None
    template: str | None = None


ONE_PLACEHOLDER = CHAT_TEMPLATE.replace(
    "{% for part in message['content'] %}",
    "{% set seen = namespace(any=false) %}{% for part in message['content'] %}",
).replace(
    "{% if part['type'] == 'image' %}<image>\n",
    "{% if part['type'] == 'image' %}{% if not seen.any %}<image>\n{% endif %}"
    "{% set seen.any = true %}",
)

BROKEN: dict[str, Broken] = {
    "template_without_images": Broken(
        "one placeholder per image", "0 <image>", template=CHAT_TEMPLATE.replace("<image>\n", "")
    ),
    "template_drops_second_image": Broken(
        "one placeholder per image",
        "nothing refuses it",
        processor=DropsImages,
        template=ONE_PLACEHOLDER.replace("<image>", "<picture>"),
    ),
    "tokens_cut": Broken(
        "image tokens = image features", "8 image tokens for 9 image", processor=CutsTokens
    ),
    "tokens_by_color": Broken("image tokens = image features", "counted", processor=CountsByColor),
    "template_without_stop": Broken(
        "labels = response",
        "generation does not stop",
        template=CHAT_TEMPLATE.replace("</s>", "<s>"),
    ),
    "template_shouts": Broken(
        "labels = response",
        "RED BOAT",
        template=CHAT_TEMPLATE.replace(
            ANSWER, "{{ part['text'] | upper if message['role'] == 'assistant' else part['text'] }}"
        ),
    ),
    "prompt_loses_words": Broken("labels = response", "rendered", processor=LosesWords),
    "counts_leniently": Broken(
        "wrong counts refused", "an image token too few", model=counts_leniently
    ),
    "rows_leak": Broken("batch = single", "differ for", model=before_decoder(leaks)),
    "padding_attended": Broken("left = right padding", "differ for", processor=AttendsToPadding),
    "image_ignored": Broken(
        "response depends on image",
        "no effect of another image",
        model=on_features(torch.zeros_like),
    ),
    "first_image_for_all": Broken(
        "response depends on image",
        "no effect of image 2 of 2",
        model=on_features(lambda all_of_them: all_of_them[:1].expand_as(all_of_them)),
    ),
    "first_feature_for_all": Broken(
        "response depends on image",
        "features of an image differ",
        model=on_features(lambda each: each[:, :1].expand_as(each).contiguous()),
    ),
    "features_lost_in_splice": Broken(
        "response depends on image",
        "8 of 9 image features have no effect",
        model=splices_first_feature_only,
    ),
    "images_leak": Broken("rows independent", "differ for", model=before_decoder(leaks)),
    "attends_ahead": Broken(
        "tokens do not see ahead", "differ for", model=before_decoder(attends_ahead)
    ),
    "positions_dropped": Broken(
        "shared prefix = plain", "differ", model=before_decoder(drops_positions)
    ),
    "packed_gradients_reversed": Broken(
        "shared prefix = plain", "gradients differ", model=reverses_gradients_of_packed_rows
    ),
    "adapters_always_on": Broken(
        "adapters off = reference",
        "differ for",
        model=before_decoder(lambda model, _: set_adapters(model, off=False)),
    ),
    "adapters_always_off": Broken(
        "adapters off = reference",
        "do not change",
        model=before_decoder(lambda model, _: set_adapters(model, off=True)),
    ),
    "reference_spoilt": Broken(
        "adapters off = reference", "differ for", model=before_decoder(grows_where_adapted)
    ),
    "tower_adapted": Broken(
        "gradients, LoRA", "image features depend on trained", model=swaps_parts
    ),
    "adapters_cut_off": Broken("gradients, LoRA", "layers.0", model=detaches_first_layer),
    "projector_thaws": Broken(
        "gradients, LoRA", "image features depend on trained", model=thaws_projector
    ),
    "layer_cut_off": Broken("gradients, full", "without gradient", model=detaches_first_layer),
    "spare_weight": Broken(
        "gradients, full", "without gradient: .*spare", model=has_a_spare_weight
    ),
    "projector_trains": Broken(
        "gradients, full", "image features depend on trained", model=thaws_projector
    ),
    "noise_in_training": Broken(
        "a step lowers the loss", "begins at", model=before_decoder(adds_noise)
    ),
    "gradients_reversed": Broken(
        "a step lowers the loss", "no step along the gradient", model=reverses_gradients
    ),
    "mask_ignored": Broken("generation = scoring", "row 0", model=before_decoder(ignores_mask)),
    "tensor_lost": Broken("save and load, model", "changed by saving", model=loses_a_tensor),
    "template_forgotten": Broken(
        "save and load, processor", "chat template", processor=ForgetsTemplate
    ),
    "mean_forgotten": Broken(
        "save and load, processor", "pixel_values differs", processor=ForgetsMean
    ),
    "adapters_grow": Broken(
        "save and load, adapters", "differ for", model=before_decoder(grows_adapters)
    ),
    "weights_drift": Broken(UNCHANGED, "weights", model=before_decoder(drifts)),
    "no_numbers": Broken("rows: one image", "finite", model=before_decoder(makes_no_numbers)),
}


@pytest.fixture(scope="module")
def family() -> Family:
    return tiny_llava(["What is shown? A red boat and a blue cup.", "How many lamps? Three."])


def processor_like(family: Family, kind: type[LlavaProcessor], template: str | None) -> Any:
    given = family.processor
    return kind(
        image_processor=given.image_processor,
        tokenizer=given.tokenizer,
        patch_size=given.patch_size,
        vision_feature_select_strategy=given.vision_feature_select_strategy,
        num_additional_image_tokens=given.num_additional_image_tokens,
        chat_template=template or given.chat_template,
    )


def model_like(family: Family, change: Callable[[Any], None] | None) -> PreTrainedModel:
    if change is None:
        return family.model()
    kind = type("HookedLlava", (HookedLlava,), {"change": staticmethod(change)})
    return dataclasses.replace(family, model_class=kind).model()


def results_of(family: Family, broken: Broken) -> dict[str, CheckResult]:
    processor = processor_like(family, broken.processor or LlavaProcessor, broken.template)
    names = [broken.check] if broken.check in CHECKS else []
    report = check_model(model_like(family, broken.model), processor, names=names)
    return {each.name: each for each in report.results}


@pytest.mark.parametrize("name", BROKEN)
def test_the_check_finds_it(family: Family, name: str) -> None:
    broken = BROKEN[name]
    result = results_of(family, broken)[broken.check]
    assert result.status == "failed", result
    assert re.search(broken.words, result.remark), result


def test_every_check_has_a_subject_that_breaks_it() -> None:
    assert {each.check for each in BROKEN.values()} >= {*CHECKS, UNCHANGED}


def test_kinds_that_a_processor_refuses_are_said_with_the_reason(family: Family) -> None:
    processor = processor_like(family, OneImageOnly, None)
    report = check_model(family.model(), processor)
    results = {each.name: each for each in report.results}
    for kind in ("several images", "text only"):
        result = results[f"rows: {kind}"]
        assert result.status == "not applicable"
        assert "Exactly one image per prompt, please." in result.remark
    assert results["rows: mix"].status == "not applicable"
    assert report.passed, report.lines()


def test_images_that_a_processor_drops_are_said(family: Family) -> None:
    template = CHAT_TEMPLATE.replace("<image>", "<picture>")
    processor = processor_like(family, DropsImages, template)
    report = check_model(family.model(), processor, names=["wrong counts refused"])
    assert report.passed
    assert "an image too many" in report.results[-2].remark


def test_a_reason_against_sharing_makes_the_check_not_applicable(family: Family) -> None:
    model = family.model()
    text: Any = model.config.get_text_config()
    text.sliding_window = 16
    report = check_model(model, family.processor, names=["shared prefix = plain"])
    result = next(each for each in report.results if each.name == "shared prefix = plain")
    assert result.status == "not applicable"
    assert result.remark.startswith("plain rows: LlavaForConditionalGeneration attends within a")
