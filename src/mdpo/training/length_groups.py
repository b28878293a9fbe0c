"""Pairs of like length together, in an order that an epoch's number alone decides."""

from collections.abc import Sequence

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler


class LengthGroups(LengthGroupedSampler):
    """Random batches of pairs of like length; the longest pair comes first.

    So a run that does not fit the device fails at its first step. Unlike its base class it gives
    each epoch the same order again when a run is resumed.
    """

    def __init__(self, batch_size: int, *, lengths: Sequence[int], seed: int) -> None:
        """Set up.

        Args:
            batch_size: Pairs of an optimizer step.
            lengths: Tokens of each pair.
            seed: Of the order.
        """
        super().__init__(batch_size, lengths=list(lengths))
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Take the order of an epoch; the data loader calls it.

        Args:
            epoch: Counted from 0.
        """
        self.generator = torch.Generator().manual_seed(self.seed + epoch)
