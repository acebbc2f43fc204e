"""How far counters have come within the last hour."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

__all__ = ["LastHour"]

_HOUR = 3600.0  # seconds
_STEP = 60.0  # seconds between two snapshots that are kept


class LastHour:
    """Snapshots of counters that only grow, one a minute; it begins with all of them at 0.

    Counters that vanish or fall, as those of a listener that was closed, count as at rest.
    """

    def __init__(self) -> None:
        self._kept: deque[tuple[float, Mapping[str, int]]] = deque([(-math.inf, {})])

    def grown(self, counters: Mapping[str, int], now: float) -> dict[str, int]:
        """Return what `counters` have grown by within an hour, to a minute; zeros are left out.

        `now` is in seconds, of a clock that never goes back. What is not asked for every minute is
        known less well: as grown since it was last asked for before the hour.
        """
        kept = self._kept
        if now - kept[-1][0] >= _STEP:
            kept.append((now, dict(counters)))
        while len(kept) > 1 and kept[1][0] <= now - _HOUR:
            kept.popleft()
        before = kept[0][1]
        grown = {name: count - before.get(name, 0) for name, count in counters.items()}
        return {name: count for name, count in grown.items() if count > 0}
