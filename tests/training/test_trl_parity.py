"""Per-pair DPO losses and gradients equal those of TRL's sigmoid loss on the same rows.

Label smoothing is not compared: TRL 1.16 leaves it out of its sigmoid loss.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from mdpo import MDPOConfig, MDPOTrainer

trl = pytest.importorskip("trl")
pytestmark = pytest.mark.filterwarnings("ignore")  # TRL's own, of no concern here


def moved(model: Any) -> Any:
    """A policy that differs from its reference, so that rewards are not 0."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "language_model" in name:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.2 * noise * parameter.abs().mean())
    return model


def test_losses_and_gradients_equal_trl(model_dir: Path, make_rows: Any, tmp_path: Path) -> None:
    reference = AutoModelForImageTextToText.from_pretrained(model_dir)
    policy = moved(copy.deepcopy(reference))
    processor = AutoProcessor.from_pretrained(model_dir)
    rows = make_rows(4)

    ours = MDPOTrainer(
        copy.deepcopy(policy),
        copy.deepcopy(reference),
        MDPOConfig(
            output_dir=str(tmp_path / "ours"),
            objective="dpo",
            use_cpu=True,
        ),
        train_dataset=rows,
        processing_class=processor,
    )
    theirs = trl.DPOTrainer(
        copy.deepcopy(policy),
        copy.deepcopy(reference),
        trl.DPOConfig(
            output_dir=str(tmp_path / "theirs"),
            beta=0.1,
            max_length=None,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
        ),
        train_dataset=pytest.importorskip("datasets").Dataset.from_list(rows),
        processing_class=processor,
    )
    for index in range(4):
        loss = our_loss(ours, index)
        their_loss = theirs.compute_loss(theirs.model, collated(theirs, index))
        torch.testing.assert_close(loss, their_loss, rtol=1e-4, atol=1e-5)
        assert abs(loss.item() - 0.6931) > 1e-3
        loss.backward()
        their_loss.backward()
    compared = 0
    their_gradients = dict(theirs.model.named_parameters())
    assert ours.model is not None
    for name, parameter in ours.model.named_parameters():
        if parameter.grad is not None:
            expected = their_gradients[name].grad
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-5)
            compared += 1
    assert compared > 30


def our_loss(run: MDPOTrainer, index: int) -> torch.Tensor:
    assert run.train_dataset is not None
    assert run.model is not None
    batch: Any = run.data_collator([run.train_dataset[index]])
    loss = run.compute_loss(run.model, batch)
    assert isinstance(loss, torch.Tensor)
    return loss


def collated(run: Any, index: int) -> Any:
    # the collator of TRL changes its input
    return run.data_collator([copy.deepcopy(run.train_dataset[index])])
