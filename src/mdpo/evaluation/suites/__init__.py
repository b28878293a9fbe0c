"""Benchmarks, one module each, found by the name they have on the command line."""

SUITES: dict[str, str] = {
    "amber": "mdpo.evaluation.suites.amber:AmberSuite",
    "chair": "mdpo.evaluation.suites.chair:ChairSuite",
    "hallusionbench": "mdpo.evaluation.suites.hallusionbench:HallusionBenchSuite",
    "hallusionbench-judge": "mdpo.evaluation.suites.hallusionbench:HallusionBenchJudgeSuite",
    "mme": "mdpo.evaluation.suites.mme:MMESuite",
    "mmhal": "mdpo.evaluation.suites.mmhal:MMHalSuite",
    "muirbench": "mdpo.evaluation.suites.muirbench:MuirBenchSuite",
    "object-halbench": "mdpo.evaluation.suites.object_halbench:ObjectHalBenchSuite",
    "object-halbench-llm": "mdpo.evaluation.suites.object_halbench_llm:ObjectHalBenchLLMSuite",
    "pope": "mdpo.evaluation.suites.pope:PopeSuite",
}
"""Name to ``module:class``; each class has ``load(folder)``."""


def suite_name(text: str) -> str:
    """Take a benchmark's name as people write it.

    Args:
        text: Such as ``Object_HalBench``.

    Returns:
        The same in lower case with hyphens, as in ``SUITES``.
    """
    return text.lower().replace("_", "-")
