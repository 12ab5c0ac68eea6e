"""Sizes, times and rates as people write them: "64MiB", "1m30s", "100/s". Addresses are in `truba.address`.

Pure functions: text to number and back. Refusals are ValueError, with two arguments: what is wrong, what to write.
"""

from __future__ import annotations

import re

from truba.kinds import SECONDS_MAX

_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([A-Za-z]*)")
_SIZE_UNITS = {
    "": 1, "B": 1,
    "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_TIME = re.compile(r"(?:([0-9]{1,15}(?:\.[0-9]{1,15})?)(ms|s|m|h|d))")
_RATE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*/\s*(s|m|h)")
_TIME_UNITS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def size_bytes(value: object) -> int:
    """Bytes of "64MiB" (2**20 each), "1GB" (10**9), or of a whole number."""
    wanted = 'a size such as "64MiB", "1GB" or a whole number of bytes'
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        number, unit = match.groups()
        if unit in _SIZE_UNITS:
            size = float(number) * _SIZE_UNITS[unit] if "." in number else int(number) * _SIZE_UNITS[unit]
            if size == int(size):
                return int(size)
        else:
            raise ValueError(f"{value!r} has no known unit of size", wanted)
    raise ValueError(f"{value!r} is not a size", wanted)


def seconds(value: object) -> float:
    """Seconds of "30s", "1m30s", "7d", "250ms", or of a number."""
    wanted = 'a time such as "30s", "1m30s", "7d", "250ms" or a number of seconds'
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= SECONDS_MAX:
        return float(value)
    if isinstance(value, str):
        parts = _TIME.findall(value)
        units = [unit for _, unit in parts]
        descending = [unit for unit in _TIME_UNITS if unit in units]
        if parts and "".join(number + unit for number, unit in parts) == value.strip() and units == descending:
            time_s = sum(float(number) * _TIME_UNITS[unit] for number, unit in parts)
            if time_s <= SECONDS_MAX:
                return time_s
    raise ValueError(f"{value!r} is not a time", wanted)


def rate_per_s(value: object) -> float:
    """Times a second of "100/s", "30/m" or "5/h"."""
    if isinstance(value, str) and (match := _RATE.fullmatch(value.strip())) and float(match[1]) > 0:
        return float(match[1]) / _TIME_UNITS[match[2]]
    raise ValueError(f"{value!r} is not a rate", 'a rate such as "100/s", "30/m" or "5/h"')


def size_text(size: int) -> str:
    """The shortest exact way to write a size: "64MiB", "1000B"."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _SIZE_UNITS[unit] == 0:
            return f"{size // _SIZE_UNITS[unit]}{unit}"
    return f"{size}B"


def time_text(time_s: float) -> str:
    """A time for people, to the millisecond: "1m30s", "250ms", "0s"."""
    left_ms = round(time_s * 1000)
    text = ""
    for unit, unit_s in _TIME_UNITS.items():
        count, left_ms = divmod(left_ms, round(unit_s * 1000))
        text += f"{count}{unit}" if count else ""
    return text or "0s"
