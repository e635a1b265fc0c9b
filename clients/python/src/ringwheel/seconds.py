"""Numbers of seconds: what can't be one, or what the service would refuse, is refused where it is said, by name."""

import math

MOST_S = 100 * 365 * 86_400.0
"""No duration is longer: 100 years."""
MOST_LEASE_S = 86_400.0
"""No lease lasts longer."""
LEAST_LEASE_S = 0.001


def seconds(value: float, name: str, least: float = 0.0, most: float = MOST_S) -> float:
    """The number. Raises TypeError or ValueError, which begin with `name`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected a number of seconds, not a value of type {type(value).__name__}")
    number = _float(value)
    if not least <= number <= most:
        raise ValueError(f"{name}: expected {least:g} to {most:.0f} seconds, not {number:g}")
    return number


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
