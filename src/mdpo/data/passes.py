"""Passes: the pairs of a batch, split so that each forward and backward stays within a budget.

The gradient of a batch is the sum over its pairs, so splitting changes memory and time, not what
is learnt. Lengths are known without decoding a pixel: image tokens follow from sizes.
"""

from collections.abc import Mapping, Sequence

from mdpo.data.dataset import NO_IMAGE, Example, without_images
from mdpo.data.encoding import TokenCounter


class PassPlanner:
    """Splits a batch by the tokens of its pairs.

    Attributes:
        counter: Counts tokens.
        max_tokens: Most tokens of a pass; a pass holds at least one pair.
        responses: By image slot, the response slots that are scored with it.
        max_length: Longest row of one response, as in collation.
    """

    def __init__(
        self,
        counter: TokenCounter,
        *,
        max_tokens: int,
        responses: Mapping[str, Sequence[str]],
        max_length: int | None = None,
    ) -> None:
        """Keep the rule."""
        self.counter, self.max_tokens = counter, max_tokens
        self.responses, self.max_length = responses, max_length

    def __call__(self, examples: Sequence[Example]) -> list[list[Example]]:
        """Split a batch, longest pairs first.

        Args:
            examples: Of one batch.

        Returns:
            Passes; every example is in exactly one.
        """
        counted = sorted(
            ((self.tokens(each), number) for number, each in enumerate(examples)), reverse=True
        )
        passes: list[list[int]] = []
        room: list[int] = []
        for tokens, number in counted:
            fitting = [k for k, left in enumerate(room) if left >= tokens]
            if fitting:
                passes[fitting[0]].append(number)
                room[fitting[0]] -= tokens
            else:
                passes.append([number])
                room.append(self.max_tokens - tokens)
        return [[examples[number] for number in sorted(each)] for each in passes]

    def tokens(self, example: Example) -> int:
        """Count what a pair costs when candidates share their prompt.

        Args:
            example: The pair.

        Returns:
            Tokens of one prompt per image slot, and of each response scored with it.
        """
        prompts = {
            slot: without_images(example["prompt"]) if slot == NO_IMAGE else example["prompt"]
            for slot in example["images"]
        }
        lengths = {
            slot: self.counter.prompt_length(
                prompt, [each.size for each in example["images"][slot]]
            )
            for slot, prompt in prompts.items()
        }
        # As collation has it: responses are cut alike for all images.
        room = None if self.max_length is None else self.max_length - max(lengths.values())
        total = 0
        for slot, names in self.responses.items():
            counts = [self.counter.response_length(prompts[slot], example[name]) for name in names]
            total += lengths[slot] + sum(
                each if room is None else min(each, room) for each in counts
            )
        return total
