"""Why two sides have no TLS version in common, as far as one of them can tell."""

from __future__ import annotations

import ssl
from typing import Any

__all__ = ["mismatch"]


def mismatch(tls: Any) -> tuple[str, str] | None:
    """Why, and what to do, where our side of a failed handshake allows one version alone.

    `tls` is whatever has a ``context``. None where both are allowed, or that is not known.
    """
    context = getattr(tls, "context", None)
    if not isinstance(context, ssl.SSLContext):
        return None
    if context.minimum_version == ssl.TLSVersion.TLSv1_3:
        return (
            "it speaks TLS version 1.2 at most, and we want 1.3",
            "allow 1.3 on its side, or set our tls_min_version to 1.2",
        )
    if context.maximum_version == ssl.TLSVersion.TLSv1_2:
        return (
            "we speak TLS version 1.2 at most, and it does not take that",
            "set our tls_max_version to 1.3, or its minimum to 1.2",
        )
    return None
