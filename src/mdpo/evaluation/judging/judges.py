"""Judges that papers used, and what their numbers can be compared with.

OpenAI's list of deprecations (October 2026) says of all of them that they answer no longer, the
last since 23 October 2026: published numbers can then be compared only with replies that were
recorded before, or that another server gives which still has the model.
"""

from collections.abc import Mapping
from dataclasses import dataclass

OPENAI = "https://api.openai.com/v1"


@dataclass(frozen=True)
class Judge:
    """A judge of published numbers.

    Attributes:
        model: Its name at its server.
        suites: Benchmarks that it judged.
        papers: Which papers used it.
        endpoint: Where it is, or was.
        retired: Whether its maker says that it answers no longer.
    """

    model: str
    suites: tuple[str, ...]
    papers: str
    endpoint: str = OPENAI
    retired: bool = False


JUDGES: Mapping[str, Judge] = {
    "gpt-4-0314": Judge(
        "gpt-4-0314", ("mmhal",), "LLaVA-RLHF, the official script of MMHal-Bench", retired=True
    ),
    "gpt-4-1106-preview": Judge(
        "gpt-4-1106-preview", ("mmhal",), "RLAIF-V, CHiP, SymMPO", retired=True
    ),
    "gpt-3.5-turbo-0613": Judge(
        "gpt-3.5-turbo-0613", ("object-halbench-llm",), "RLHF-V, the official script", retired=True
    ),
    "gpt-3.5-turbo-0125": Judge(
        "gpt-3.5-turbo-0125", ("object-halbench-llm",), "SymMPO", retired=True
    ),
    "gpt-4o-2024-05-13": Judge("gpt-4o-2024-05-13", ("object-halbench-llm",), "CHiP", retired=True),
    "gpt-4": Judge(
        "gpt-4", ("hallusionbench-judge",), "HallusionBench, the official script", retired=True
    ),
}
"""By name."""


def comparability(suite: str, model: str, *, official_prompt: bool) -> tuple[bool, str]:
    """Tell whether numbers can be compared with published ones.

    Args:
        suite: Name of the benchmark.
        model: That judges.
        official_prompt: Whether it is asked in the words of the official script.

    Returns:
        Whether they can, and why or why not.
    """
    known = [each for each in JUDGES.values() if suite in each.suites]
    judge = next((each for each in known if each.model == model), None)
    if judge is None:
        listed = ", ".join(each.model for each in known)
        return False, f"judged by {model}; published numbers are by {listed}"
    if not official_prompt:
        return False, f"judged by {model} of {judge.papers}, but asked in other words"
    return True, (
        f"judged by {model} as in {judge.papers}, in words that are taken to be the official ones"
    )
