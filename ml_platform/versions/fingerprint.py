"""The names of things: 128 bits of SHA-256 over canonical JSON, as 32 lower-case hex digits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

FINGERPRINT_VERSION = 1
"""Raise it when the meaning of a fingerprint changes: every artifact is then built anew, and none is mistaken."""

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def short_hash(value: Any) -> str:
    """Hash a JSON value. Equal values give equal hashes whatever the order of their keys; 1 and 1.0 differ.

    Raises:
        TypeError: `value` is not made of JSON types.
        ValueError: `value` holds a NaN or an infinity, which JSON has no word for.
    """
    return hashlib.sha256(_CANONICAL.encode(value).encode()).hexdigest()[:32]


def fingerprint(code_version: str, inputs: Mapping[str, str]) -> str:
    """Name an artifact by what makes it: its stage's code version and the data version of each input, by name."""
    return short_hash({"fingerprint": FINGERPRINT_VERSION, "code": code_version, "inputs": dict(inputs)})
