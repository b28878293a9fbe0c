"""Conformance: whether a model behaves as training, scoring and generation assume."""

from mdpo.conformance.report import CheckResult, ConformanceReport
from mdpo.conformance.suite import check_model

__all__ = ["CheckResult", "ConformanceReport", "check_model"]
