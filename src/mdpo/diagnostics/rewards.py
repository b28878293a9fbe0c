"""Rewards at inference: does a trained model prefer the chosen response, and the true image?

Shapes: ``b`` preference pairs.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from peft import PeftModel
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from mdpo.data.batch import Batch
from mdpo.data.collation import PreferenceCollator
from mdpo.data.dataset import PreferenceDataset
from mdpo.evaluation.statistics import Estimate, ratio_of_sums
from mdpo.objectives import CHOSEN, REJECTED, REJECTED_IMAGE, Logps
from mdpo.scoring import AdapterOff, FrozenCopy, Reference, Scorer
from mdpo.scoring.choice import checked, choose_scorer


@dataclass(frozen=True)
class PairRewards:
    """Implicit rewards of one pair.

    Attributes:
        row_id: Of the pair.
        chosen: Of the chosen response under the true image.
        rejected: Of the rejected response under the true image.
        rejected_image: Of the chosen response under the rejected image; None without image.
    """

    row_id: str
    chosen: float
    rejected: float
    rejected_image: float | None

    def to_dict(self) -> dict[str, float | str | None]:
        """Write it as plain values."""
        return asdict(self)


@torch.no_grad()
def pair_rewards(
    policy: PreTrainedModel | PeftModel,
    reference: nn.Module | None,
    dataset: PreferenceDataset,
    collator: PreferenceCollator,
    *,
    beta: float,
    batch_size: int = 8,
) -> Iterator[PairRewards]:
    """Work out the rewards of pairs.

    Args:
        policy: Trained model.
        reference: What it began as; None switches the policy's adapters off.
        dataset: Pairs with true and rejected images.
        collator: Of the model.
        beta: That the policy was trained with.
        batch_size: Pairs per forward pass.

    Yields:
        Rewards, pair after pair.
    """
    policy.eval()
    device = next(policy.parameters()).device
    scorer: Scorer | None = None
    source: Reference = (
        AdapterOff(policy, unwrap=lambda model: model)
        if reference is None
        else FrozenCopy(reference)
    )
    loader = DataLoader(dataset, batch_size=batch_size, collate_fn=collator)  # pyright: ignore[reportArgumentType]  # a map-style data set
    candidates = (CHOSEN, REJECTED, REJECTED_IMAGE)
    for batch in tqdm(loader, desc="scoring pairs", delay=1):
        batch = _moved(batch, device)
        if scorer is None:
            scorer = checked(choose_scorer(policy), policy, batch, candidates)
        logps = Logps(
            policy=scorer(policy, batch, candidates),
            reference=source(scorer, batch, candidates),
            lengths={},
            has_image=batch["has_image"],
        )
        columns = [logps.reward(each, beta=beta).tolist() for each in candidates]
        for index, has_image, chosen, rejected, spoilt in zip(
            batch["rows"].tolist(), batch["has_image"].tolist(), *columns, strict=True
        ):
            row_id = dataset.rows.ids[index]
            yield PairRewards(row_id, chosen, rejected, spoilt if has_image else None)


def summarise_rewards(rewards: list[PairRewards], *, seed: int = 0) -> dict[str, Estimate]:
    """Summarise rewards, with intervals over pairs.

    Args:
        rewards: Of all pairs.
        seed: Of the bootstrap.

    Returns:
        Accuracies in percent and mean margins, under the names of training.
    """
    margins = np.array([each.chosen - each.rejected for each in rewards])
    image_margins = np.array(
        [each.chosen - each.rejected_image for each in rewards if each.rejected_image is not None]
    )

    def mean(values: np.ndarray, scale: float) -> Estimate:
        return ratio_of_sums(values.astype(float), np.ones(len(values)), scale=scale, seed=seed)

    return {
        "rewards/accuracies": mean(margins > 0, 100.0),
        "rewards/image_accuracies": mean(image_margins > 0, 100.0),
        "rewards/margins": mean(margins, 1.0),
        "rewards/image_margins": mean(image_margins, 1.0),
        "rewards/chosen": mean(np.array([each.chosen for each in rewards]), 1.0),
    }


def _moved(batch: Batch, device: torch.device) -> Batch:
    """Move a batch to the model's device."""

    def move(value: object) -> object:
        if isinstance(value, torch.Tensor):
            return value.to(device)
        if isinstance(value, dict):
            return {key: move(each) for key, each in value.items()}
        return value

    return move(dict(batch))  # pyright: ignore[reportReturnType]  # the same keys
