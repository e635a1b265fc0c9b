"""Pauses between tries: exponential, with full jitter, so that many clients never come back all at once."""

import random


class Backoff:
    """One series of tries."""

    def __init__(self, first_s: float = 0.1, most_s: float = 5.0) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._tries = 0

    def pause_s(self, least_s: float | None = None) -> float:
        """How long to wait before the next try: what the service asked for (`least_s`) and some more, if it did."""
        limit_s = min(self._most_s, self._first_s * 2 ** min(self._tries, 30))
        self._tries += 1
        return (least_s or 0.0) + random.uniform(0, limit_s)  # noqa: S311 - spreads tries, guards nothing

    def reset(self) -> None:
        """A try went well."""
        self._tries = 0
