"""The causes of errors, one word each: what `CommError.kind`, counters and logs may say."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["KINDS", "ErrorKind"]

ErrorKind = Literal[
    # nothing was connected
    "refused",  # nobody listens there
    "unresolved",  # the host's name is unknown
    "unreachable",  # the network has no way there
    "timeout",  # no answer within the time for it
    "plain",  # encryption is required, and the address is plain
    "not-ours",  # a web server listens there
    "not-plain",  # it listens for TLS, and was dialled without
    # certificates
    "by-peer",  # it refused ours
    "certificate",  # any other fault of it
    "crl",
    "expired",
    "extension",
    "name",
    "no-certificate",
    "not-a-ca",
    "not-allowed",  # by the allow-list
    "not-yet-valid",
    "other-ca",
    "purpose",
    "revoked",
    "signature",
    "weak",
    # the rest of TLS and the hello
    "cipher",
    "hello",
    "not-tls",
    "resumed",
    "tls",
    "version",
    # pending connections that a listener has dropped
    "crowded",
    "failed",  # by an error of its own
    "probe",  # came and went without a byte
    "stopped",
    # the end of a comm
    "closed",
    "framing",  # what arrived is not this wire
    "going-away",
    "handler-failed",
    "lost",
    "message",  # what arrived does not decode
    "slow-consumer",
    "too-large",
    "unannounced",
]
"""The type of `CommError.kind` and of the keys of a listener's counters; see docs/errors.md."""

KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)
"""All of them."""
