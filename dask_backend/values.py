"""Times, sizes and counts among the settings: each as `sealwire-schema.yaml` describes it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from dask.utils import byte_sizes, timedelta_sizes

from sealwire.security.quoting import shown
from sealwire.security.schema import Setting

__all__ = ["parsed"]

_TEXT = re.compile(r"([0-9.]+(?:[eE][+-]?[0-9]+)?) *([A-Za-z]*)")
_UNITS: Mapping[str, Mapping[str, float]] = {
    "time": {**timedelta_sizes, "": 1},
    "size": byte_sizes,
    "count": {"": 1},
}
_NEEDED = {
    "time": ("a time above 0, of at most {} s", "30 s"),
    "size": ("a size of at least one byte and at most {}", "64 MiB"),
    "count": ("a whole number from 1 to {}", "4096"),
}


def parsed(key: str, value: Any, setting: Setting) -> float | int:
    """Return the value of a setting: seconds, or a whole number.

    Parameters
    ----------
    key : str
        What it is called in errors.
    value : object
        As configured.
    setting : Setting
        What the schema says of it.

    Raises
    ------
    ValueError
        For what is none.
    """
    kind, pattern = setting.about["x-kind"], setting.about["pattern"]
    number = _number(value, kind, pattern)
    whole = number if kind == "time" else math.ceil(number) if 0 < number < math.inf else 0
    most = setting.about["maximum"]
    if not 0 < whole <= most:
        needed, example = _NEEDED[kind]
        if re.fullmatch(pattern, setting.effective):
            example = setting.effective  # what applies otherwise is of its order
        raise ValueError(
            f"bad setting {key}: got {shown(value)}, need {needed.format(most)}; "
            f"write for example {example}"
        )
    return whole


def _number(value: Any, kind: str, pattern: str) -> float:
    """Return what a value says, 0 if that is nothing."""
    if isinstance(value, bool):  # a number to Python, and to nobody else
        return 0
    if isinstance(value, (int, float)):
        fits = kind == "time" or (abs(value) < math.inf and value == math.floor(value))
        return value if fits else 0
    found = _TEXT.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or not re.fullmatch(pattern, value):
        return 0
    number = float(found[1])
    if number.is_integer() and number < 1 << 53:
        number = int(number)
    return number * _UNITS[kind][found[2].lower()]
