"""What a conformance run found: one result per check, as a table or as JSON."""

import json
from dataclasses import asdict, dataclass
from typing import Literal

Status = Literal["passed", "failed", "not applicable"]


@dataclass(frozen=True)
class CheckResult:
    """Outcome of one check.

    Attributes:
        name: Of the check.
        status: ``not applicable`` where the model cannot do what the check is about.
        figure: What was measured, such as the largest relative difference; None if nothing was.
        remark: What the figure is, what was left out, or what went wrong.
    """

    name: str
    status: Status
    figure: float | None
    remark: str


@dataclass(frozen=True)
class ConformanceReport:
    """Results of all checks.

    Attributes:
        model: Class of the model.
        results: In the order in which checks ran.
    """

    model: str
    results: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not any(each.status == "failed" for each in self.results)

    def to_json(self) -> str:
        """Write the report as JSON.

        Returns:
            ``model``, ``passed`` and ``results``; a figure that is no number reads null.
        """
        results = [asdict(each) for each in self.results]
        for each in results:
            if each["figure"] is not None and not abs(each["figure"]) < float("inf"):
                each["figure"] = None
        return json.dumps(
            {"model": self.model, "passed": self.passed, "results": results},
            indent=2,
            ensure_ascii=False,
        )

    def lines(self) -> list[str]:
        """Write the report as a table.

        Returns:
            A head line, one line per check and a summary.
        """
        cells = [("check", "result", "figure", "remark")]
        for each in self.results:
            figure = "" if each.figure is None else f"{each.figure:.3g}"
            cells.append((each.name, each.status, figure, each.remark))
        widths = [max(len(row[column]) for row in cells) for column in range(3)]
        rows = [
            f"{name:<{widths[0]}}  {status:<{widths[1]}}  {figure:>{widths[2]}}  {remark}".rstrip()
            for name, status, figure, remark in cells
        ]
        return [*rows, "", self._summary()]

    def _summary(self) -> str:
        """Count results."""
        counts = {status: 0 for status in ("passed", "failed", "not applicable")}
        for each in self.results:
            counts[each.status] += 1
        return f"{self.model}: " + ", ".join(f"{n} {status}" for status, n in counts.items())
