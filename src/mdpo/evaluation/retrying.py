"""How long to wait before a server is asked again."""

from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""States of a server that may pass."""


def retry_after(value: str | None) -> float | None:
    """Read the header ``Retry-After``.

    Args:
        value: Seconds, or a date of HTTP; None if there is no header.

    Returns:
        Seconds from now, 0 or more; None if nothing can be read.
    """
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - datetime.now(timezone.utc)).total_seconds())
