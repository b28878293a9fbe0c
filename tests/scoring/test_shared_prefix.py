"""The shared-prefix scorer equals the plain one, in value and gradient, and encodes less."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel
from PIL import Image
from tiny_families import FAMILIES, Family
from torch import Tensor, nn
from transformers import PreTrainedModel

from mdpo.data.batch import Batch
from mdpo.data.collation import PreferenceCollator
from mdpo.data.dataset import PreferenceDataset
from mdpo.data.encoding import Encoder
from mdpo.data.reading import Rows
from mdpo.data.rejected_images import make_rejected_image_source
from mdpo.data.sources import load_raw
from mdpo.models.parts import find_parts
from mdpo.models.policy import disable_dropout, prepare_policy
from mdpo.objectives import CHOSEN, REJECTED, REJECTED_IMAGE, Candidate, Logps, make_objective
from mdpo.scoring import (
    AdapterOff,
    FrozenCopy,
    PlainScorer,
    Scorer,
    SharedPrefixScorer,
    frozen_copy_of,
    shared_prefix,
)
from mdpo.scoring.head import ResponseHead
from mdpo.scoring.shared_prefix import AttentionName

BOTH_REJECTED = Candidate("rejected", "rejected")
NO_IMAGE = Candidate("none", "chosen")
CANDIDATES = (CHOSEN, REJECTED, REJECTED_IMAGE, BOTH_REJECTED)

KINDS: dict[str, tuple[AttentionName, str]] = {
    "branches": ("branches", "sdpa"),
    "dense": ("dense", "sdpa"),
    "dense_eager": ("dense", "eager"),
}
"""Attention of the scorer, attention the model is loaded with."""

IMAGE_PARTS = {"vision_tower", "projector"}
TRAININGS: dict[str, tuple[bool, set[str]]] = {
    "lora": (True, IMAGE_PARTS),
    "full": (False, IMAGE_PARTS),
    "lora_all": (True, set()),
    "all": (False, set()),
}
"""Whether adapters are trained, and what is frozen."""

RELATIVE = 1e-5
NOISE = 1e-6
"""Of the norm of all gradients: what is added where a tensor's own gradient is 0 but for rounding,
as that of a key's bias is."""

every_family = pytest.mark.parametrize("family", FAMILIES)
every_kind = pytest.mark.parametrize("kind", KINDS)


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def row(question: str, chosen: str, rejected: str, *images: Image.Image) -> dict[str, Any]:
    return {
        "images": list(images),
        "prompt": [{"role": "user", "content": question}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def text_row(number: int) -> dict[str, Any]:
    return row("Say more." * (1 + number), "A red boat", "Blue cups and a lamp" * (1 + number))


def image_row(seed: int = 0) -> dict[str, Any]:
    return row("What is shown?", "A red boat", "A blue cup, no boat", picture(seed, (60, 48)))


def mixed_rows() -> list[dict[str, Any]]:
    """Uneven prompts and responses; one image, none, several, one with a longer rejected image."""
    several = [picture(1, (48, 48)), picture(2, (20, 70)), picture(3, (90, 50))]
    other_size = row("Describe the picture.", "Two cups", "Lamps", picture(4, (60, 48)))
    other_size["rejected_images"] = [picture(5, (30, 30))]
    return [
        image_row(),
        text_row(0),
        row("How many lamps are there? Say.", "Three", "A bird and a boat", *several),
        other_size,
    ]


@cache
def tiny(family: str) -> Family:
    return FAMILIES[family](["What is shown? A red boat and a blue cup.", "How many lamps? Three."])


def batch_of(family: str, rows: Sequence[dict[str, Any]], *, side: str = "left") -> Batch:
    dataset = PreferenceDataset(
        Rows(load_raw(list(rows))),
        image_root=None,
        rejected_image=make_rejected_image_source("crop_keep", {}),
        seed=3,
        image_slots=("chosen", "rejected", "none"),
    )
    processor = tiny(family).processor
    processor.tokenizer.padding_side = side
    return PreferenceCollator(Encoder(processor))([dataset[k] for k in range(len(dataset))])


@cache
def mixed_batch(family: str, side: str = "left") -> Batch:
    return batch_of(family, mixed_rows(), side=side)


def new_policy(family: str, loaded: str, training: str, *, seed: int = 0) -> nn.Module:
    """A policy in training mode; equal arguments give equal weights, also in the adapters."""
    adapted, frozen = TRAININGS[training]
    config = LoraConfig(r=4, lora_alpha=8, init_lora_weights=False) if adapted else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = tiny(family).model(attention=loaded, seed=seed)
        policy = prepare_policy(model, config, frozen=frozen)
    disable_dropout(policy)
    return policy.train()


@cache
def kept_policy(family: str, loaded: str, training: str, user: str) -> nn.Module:
    """One for each user: a scorer that spoils its model does not spoil what it has to equal."""
    return new_policy(family, loaded, training)


def core_of(policy: nn.Module) -> PreTrainedModel:
    core = policy.get_base_model() if isinstance(policy, PeftModel) else policy
    assert isinstance(core, PreTrainedModel)
    return core


@dataclass(frozen=True)
class Result:
    """Log-probabilities by candidate, gradients by parameter."""

    logps: dict[Candidate, Tensor]
    gradients: dict[str, Tensor]


Loss = Callable[[dict[Candidate, Tensor], Batch], Tensor]


def preference_loss(logps: dict[Candidate, Tensor], batch: Batch, *, name: str) -> Tensor:
    """An objective against a made reference; candidates that it leaves out count a little too."""
    objective = make_objective(name)
    generator = torch.Generator().manual_seed(7)
    # Values around those of the policies here: the sigmoids are not saturated.
    reference = {
        each: -10.0 * torch.rand(len(batch["rows"]), generator=generator) for each in CANDIDATES
    }
    tokens = {slot: each["attention_mask"].sum(dim=1) for slot, each in batch["responses"].items()}
    reference = {each: ref - 5.0 * tokens[each.response] for each, ref in reference.items()}
    given = Logps(logps, reference, tokens, batch["has_image"])
    loss = objective.total(objective.losses(given), batch["has_image"])
    others = [logps[each].mean() for each in logps if each not in objective.candidates]
    return loss + 0.01 * sum(others, torch.zeros(()))


MDPO = partial(preference_loss, name="mdpo")
DPO = partial(preference_loss, name="dpo")


def run(
    scorer: Scorer,
    policy: nn.Module,
    batch: Batch,
    candidates: Iterable[Candidate] = CANDIDATES,
    *,
    loss: Loss = MDPO,
) -> Result:
    trained = {name: each for name, each in policy.named_parameters() if each.requires_grad}
    logps = scorer(policy, batch, candidates)
    gradients = torch.autograd.grad(
        loss(logps, batch), list(trained.values()), allow_unused=True, materialize_grads=True
    )
    found = {each: value.detach() for each, value in logps.items()}
    return Result(found, dict(zip(trained, gradients, strict=True)))


def plain_run(family: str, training: str, batch: Batch, **options: Any) -> Result:
    policy = kept_policy(family, "sdpa", training, "plain")
    return run(PlainScorer(policy), policy, batch, **options)


@cache
def expected_of_mixed(family: str, training: str, side: str) -> Result:
    return plain_run(family, training, mixed_batch(family, side))


@contextmanager
def checkpointing(policy: nn.Module, *, on: bool) -> Iterator[None]:
    core = core_of(policy)
    if not on:
        yield
        return
    core.activation_checkpointing_enable({"use_reentrant": False})
    try:
        yield
    finally:
        core.activation_checkpointing_disable()


def shared(policy: nn.Module, kind: str) -> SharedPrefixScorer:
    return SharedPrefixScorer(policy, attention=KINDS[kind][0])


def shared_run(
    family: str,
    kind: str,
    training: str,
    batch: Batch,
    *,
    checkpointed: bool = False,
    **options: Any,
) -> Result:
    policy = kept_policy(family, KINDS[kind][1], training, kind)
    with checkpointing(policy, on=checkpointed):
        return run(shared(policy, kind), policy, batch, **options)


def assert_same_logps(
    found: dict[Candidate, Tensor], expected: dict[Candidate, Tensor], *, rtol: float = RELATIVE
) -> None:
    assert found.keys() == expected.keys()
    for each in expected:
        torch.testing.assert_close(
            found[each], expected[each], rtol=rtol, atol=0, msg=lambda m, e=each: f"{e}: {m}"
        )


def assert_same(found: Result, expected: Result) -> None:
    assert_same_logps(found.logps, expected.logps)
    assert found.gradients.keys() == expected.gradients.keys()
    norm = torch.stack([each.norm() for each in expected.gradients.values()]).norm()
    assert norm > 1e-2
    for name, gradient in expected.gradients.items():
        error = (found.gradients[name] - gradient).norm()
        allowed = RELATIVE * gradient.norm() + NOISE * norm
        assert error <= allowed, f"{name}: {error:.3g} of {gradient.norm():.3g}, all {norm:.3g}"


@every_family
def test_made_models_depend_on_image_and_position(family: str) -> None:
    policy = kept_policy(family, "sdpa", "full", "plain")
    batch, rows = mixed_batch(family), mixed_rows()
    with torch.no_grad():
        logps = PlainScorer(policy)(policy, batch, [*CANDIDATES, NO_IMAGE])
        moved = [each | {"prompt": [{"role": "user", "content": "a"}]} for each in rows]
        elsewhere = PlainScorer(policy)(policy, batch_of(family, moved), [CHOSEN])
    has_image = batch["has_image"]
    for other in (REJECTED_IMAGE, NO_IMAGE):
        assert ((logps[CHOSEN] - logps[other])[has_image].abs() > 1e-2).all()
        assert torch.equal(logps[CHOSEN][~has_image], logps[other][~has_image])
    assert ((logps[CHOSEN] - elsewhere[CHOSEN]).abs() > 1e-2).all()


@every_family
def test_a_rejected_image_may_have_another_number_of_tokens(family: str) -> None:
    lengths = {
        slot: each["attention_mask"].sum(dim=1).tolist()
        for slot, each in mixed_batch(family)["prompts"].items()
    }
    assert len(set(lengths["chosen"])) == 4
    assert (lengths["chosen"] != lengths["rejected"]) == (family == "qwen")


@every_family
def test_plain_scores_of_a_batch_equal_those_of_its_rows(family: str) -> None:
    policy = kept_policy(family, "sdpa", "full", "plain")
    scorer, candidates = PlainScorer(policy), (*CANDIDATES, NO_IMAGE)
    with torch.no_grad():
        together = scorer(policy, mixed_batch(family), candidates)
        alone = [
            scorer(policy, batch_of(family, [each]), candidates)
            for each in mixed_rows()
            if "rejected_images" in each or not each["images"]
        ]
    for each in candidates:
        expected = torch.cat([single[each] for single in alone])
        torch.testing.assert_close(together[each][[1, 3]], expected, rtol=RELATIVE, atol=0)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("checkpointed", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize("training", ["lora", "full"])
@every_kind
@every_family
def test_equals_plain(family: str, kind: str, training: str, checkpointed: bool, side: str) -> None:
    batch = mixed_batch(family, side)
    found = shared_run(family, kind, training, batch, checkpointed=checkpointed)
    assert_same(found, expected_of_mixed(family, training, side))


@pytest.mark.parametrize("checkpointed", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize("training", ["lora_all", "all"])
@every_kind
@every_family
def test_equals_plain_where_the_tower_is_trained(
    family: str, kind: str, training: str, checkpointed: bool
) -> None:
    expected = expected_of_mixed(family, training, "left")
    tower = find_parts(core_of(kept_policy(family, "sdpa", training, "plain"))).vision_tower
    assert any(f"{tower}." in name and each.any() for name, each in expected.gradients.items())
    batch = mixed_batch(family)
    assert_same(shared_run(family, kind, training, batch, checkpointed=checkpointed), expected)


ROWS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "one": lambda: [image_row()],
    "one_text": lambda: [text_row(0)],
    "text_only": lambda: [text_row(0), text_row(1)],
    # Equal numbers of tokens, divided otherwise between prompt and first response.
    "equal_sums": lambda: [row("zqzqzq", "zq", "Lamps"), row("zq", "zqzqzq", "Lamps")],
    "equal_prompts": lambda: [image_row(), image_row(8)],
}
CASES: dict[str, tuple[tuple[Candidate, ...], Loss]] = {
    "dpo": ((CHOSEN, REJECTED), DPO),
    "mdpo": ((CHOSEN, REJECTED, REJECTED_IMAGE), MDPO),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rows", ROWS)
@every_kind
@every_family
def test_equals_plain_on_other_batches(family: str, kind: str, rows: str, case: str) -> None:
    candidates, loss = CASES[case]
    batch = batch_of(family, ROWS[rows]())
    options = {"candidates": candidates, "loss": loss}
    assert_same(
        shared_run(family, kind, "lora", batch, **options),
        plain_run(family, "lora", batch, **options),
    )


@every_kind
@every_family
def test_order_and_number_of_candidates_do_not_matter(family: str, kind: str) -> None:
    policy, batch = new_policy(family, KINDS[kind][1], "full"), mixed_batch(family)
    every = (*CANDIDATES, NO_IMAGE)
    scorer = shared(policy, kind)
    with torch.no_grad():
        expected = PlainScorer(policy)(policy, batch, every)
        assert_same_logps(scorer(policy, batch, every), expected)
        assert_same_logps(scorer(policy, batch, [*reversed(every), CHOSEN]), expected)
        for each in every:
            assert_same_logps(scorer(policy, batch, iter([each])), {each: expected[each]})


@every_kind
@every_family
def test_batches_leave_no_trace(family: str, kind: str) -> None:
    policy = new_policy(family, KINDS[kind][1], "full")
    plain, scorer = PlainScorer(policy), shared(policy, kind)
    with torch.no_grad():
        for batch in (
            mixed_batch(family),
            batch_of(family, [image_row(9)]),
            batch_of(family, [text_row(0)]),
            mixed_batch(family, "right"),
            mixed_batch(family),
        ):
            expected = plain(policy, batch, CANDIDATES)
            assert_same_logps(scorer(policy, batch, CANDIDATES), expected)


@every_family
def test_the_model_still_scores_plainly_afterwards(family: str) -> None:
    policy, batch = new_policy(family, "sdpa", "full"), mixed_batch(family)
    plain = PlainScorer(policy)
    with torch.no_grad():
        before = plain(policy, batch, CANDIDATES)
        shared(policy, "branches")(policy, batch, CANDIDATES)
        assert_same_logps(plain(policy, batch, CANDIDATES), before)


@every_family
def test_trained_towers_are_encoded_anew(family: str) -> None:
    policy, batch = new_policy(family, "sdpa", "all"), mixed_batch(family)
    scorer, plain = shared(policy, "branches"), PlainScorer(policy)
    with torch.no_grad():
        before = scorer(policy, batch, CANDIDATES)
        for name, each in policy.named_parameters():
            if find_parts(core_of(policy)).part_of(name) == "vision_tower":
                each.mul_(1.1)
        expected = plain(policy, batch, CANDIDATES)
        assert not torch.allclose(expected[CHOSEN], before[CHOSEN], rtol=1e-4)
        assert_same_logps(scorer(policy, batch, CANDIDATES), expected)


@pytest.mark.parametrize("training", ["lora", "lora_all"])
@every_kind
@every_family
def test_adapters_off_equals_plain(family: str, kind: str, training: str) -> None:
    policy, batch = new_policy(family, KINDS[kind][1], training), mixed_batch(family)
    reference, scorer = AdapterOff(policy, unwrap=lambda m: m), shared(policy, kind)
    for _ in range(2):  # policy before reference and after it
        policy_logps = scorer(policy, batch, CANDIDATES)
        expected = reference(PlainScorer(policy), batch, CANDIDATES)
        found = reference(scorer, batch, CANDIDATES)
        assert_same_logps(found, expected)
        assert not found[CHOSEN].requires_grad
        assert not torch.allclose(policy_logps[CHOSEN], expected[CHOSEN], rtol=1e-2)


@every_kind
@every_family
def test_a_reference_with_other_weights_has_its_own_images(family: str, kind: str) -> None:
    policy, batch = new_policy(family, KINDS[kind][1], "full"), mixed_batch(family)
    other = new_policy(family, KINDS[kind][1], "full", seed=5)
    reference, scorer = FrozenCopy(other), shared(policy, kind)
    scorer(policy, batch, CANDIDATES)
    expected = reference(PlainScorer(other), batch, CANDIDATES)
    assert_same_logps(reference(scorer, batch, CANDIDATES), expected)


@every_kind
@every_family
def test_bfloat16_autocast_equals_plain_but_for_rounding(family: str, kind: str) -> None:
    batch = mixed_batch(family)
    exact = expected_of_mixed(family, "lora", "left")
    with torch.autocast("cpu", torch.bfloat16):
        found = shared_run(family, kind, "lora", batch)
        rounded = plain_run(family, "lora", batch)
    for each in CANDIDATES:
        assert found.logps[each].dtype == torch.float32
    assert_same_logps(found.logps, rounded.logps, rtol=2e-2)
    for name, gradient in exact.gradients.items():
        assert found.gradients[name].dtype == gradient.dtype
    flat = [
        torch.cat([each.flatten() for each in result.gradients.values()])
        for result in (found, rounded)
    ]
    assert torch.cosine_similarity(*flat, dim=0) > 0.98


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:flex_attention called")
@pytest.mark.parametrize("family", ["llava", "bunny"])
def test_flex_attention_equals_plain_forward(family: str) -> None:
    policy, batch = new_policy(family, "sdpa", "full"), mixed_batch(family)
    # Compiling takes longer than all the rest; torch has no backward of it on a CPU.
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        expected = PlainScorer(policy)(policy, batch, CANDIDATES)
        found = SharedPrefixScorer(policy, attention="flex")(policy, batch, CANDIDATES)
    assert_same_logps(found, expected)


def test_attention_that_a_model_does_not_have_is_refused() -> None:
    policy = new_policy("qwen", "sdpa", "full")
    with pytest.raises(ValueError, match="attention"):
        SharedPrefixScorer(policy, attention="flex")(policy, mixed_batch("qwen"), CANDIDATES)


@contextmanager
def counting_images(*models: nn.Module) -> Iterator[list[int]]:
    """Images that go through the vision towers of models, call after call."""
    counts: list[int] = []

    def count(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        units = kwargs.get("grid_thw")
        units = units if units is not None else kwargs.get("pixel_values", *args[:1])
        counts.append(len(units))

    cores = [core_of(each) for each in models]
    towers = [core.get_submodule(find_parts(core).vision_tower) for core in cores]
    handles = [each.register_forward_pre_hook(count, with_kwargs=True) for each in towers]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


PAIRS = [image_row(0), image_row(1) | {"rejected_images": [picture(5, (30, 30))]}, image_row(2)]


@pytest.mark.parametrize(("case", "per_pair"), [("dpo", 1), ("mdpo", 2)])
@every_kind
@every_family
def test_policy_and_reference_encode_an_image_once(
    family: str, kind: str, case: str, per_pair: int
) -> None:
    policy, batch = new_policy(family, KINDS[kind][1], "lora"), batch_of(family, PAIRS)
    candidates, scorer = CASES[case][0], shared(policy, kind)
    with counting_images(policy) as plain_counts:
        PlainScorer(policy)(policy, batch, candidates)
    assert sum(plain_counts) == len(candidates) * len(PAIRS)
    with counting_images(policy) as counts:
        scorer(policy, batch, candidates)
        AdapterOff(policy, unwrap=lambda m: m)(scorer, batch, candidates)
    assert sum(counts) == per_pair * len(PAIRS)


@every_family
def test_a_frozen_copy_takes_the_policys_features(family: str) -> None:
    policy, batch = new_policy(family, "sdpa", "full"), batch_of(family, PAIRS)
    copied, scorer = frozen_copy_of(policy), shared(policy, "branches")
    expected = FrozenCopy(copied)(PlainScorer(copied), batch, CANDIDATES)
    with counting_images(policy, copied) as counts:
        scorer(policy, batch, CANDIDATES)
        found = FrozenCopy(copied)(scorer, batch, CANDIDATES)
    assert sum(counts) == 2 * len(PAIRS)
    assert_same_logps(found, expected)


@every_family
def test_an_image_of_two_rows_is_encoded_once(family: str) -> None:
    # The second row's rejected image is the first row's own.
    rows = [
        image_row(0),
        image_row(1) | {"rejected_images": [picture(0, (60, 48))]},
        image_row(0) | {"rejected_images": [picture(1, (60, 48))]},
    ]
    policy, batch = new_policy(family, "sdpa", "lora"), batch_of(family, rows)
    plain, scorer = PlainScorer(policy), shared(policy, "branches")
    with torch.no_grad():
        expected = plain(policy, batch, CANDIDATES)
        with counting_images(policy) as counts:
            found = scorer(policy, batch, CANDIDATES)
    assert sum(counts) == 3  # pictures 0 and 1, and the first row's made one
    assert_same_logps(found, expected)


@every_kind
@every_family
def test_a_text_only_batch_encodes_nothing(family: str, kind: str) -> None:
    policy = new_policy(family, KINDS[kind][1], "lora")
    with counting_images(policy) as counts:
        shared(policy, kind)(policy, batch_of(family, ROWS["text_only"]()), CANDIDATES)
    assert not counts


@pytest.mark.parametrize("training", ["lora", "full"])
@every_family
def test_size_of_head_chunks_does_not_matter(
    family: str, training: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_prefix, "ResponseHead", partial(ResponseHead, chunk=7))
    found = shared_run(family, "branches", training, mixed_batch(family))
    assert_same(found, expected_of_mixed(family, training, "left"))


@every_family
def test_images_inside_forward_give_the_same(family: str) -> None:
    policy, batch = new_policy(family, "sdpa", "lora_all"), mixed_batch(family)
    scorer = SharedPrefixScorer(policy, attention="branches", in_forward=True)
    assert_same(run(scorer, policy, batch), expected_of_mixed(family, "lora_all", "left"))
