"""Whether what is configured for the peers of one CA is meant for those of another.

Revocation lists and an allow-list name certificates of the configured CA. Where a program brings a
CA of its own, such as a temporary one, nobody would pass: it has no list there, and its names are
others. So they go with the CA, and the log says where they do not hold. In doubt they hold.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from typing import Any

from .config import KEYS
from .errors import SecurityError
from .native import NativeContext
from .pem import Source, certificates, source

__all__ = ["OF_A_CA", "is_another", "not_meant", "trusts_another"]

logger = logging.getLogger("sealwire.security")

#: the fields that are meant for the peers of one CA
OF_A_CA = ("tls_crl_file", "tls_allowed_peers")

_told: set[int] = set()  # hashes of what was given


def not_meant(given: Source | None, configured: Mapping[str, Any]) -> list[str]:
    """Return the configured fields that do not apply to the peers of a `given` CA.

    Logs them, once for a CA.
    """
    fields = [name for name in OF_A_CA if configured.get(name) is not None]
    if given is None or not fields or not is_another(given, configured.get("tls_ca_file")):
        return []
    if hash(given.value) not in _told:
        _told.add(hash(given.value))
        logger.info(
            "%s: not used with %s, which is another CA than the configured one",
            " and ".join(KEYS[name] for name in fields),
            given,
        )
    return fields


def is_another(given: Source, configured: object) -> bool:
    """Whether no CA is both `given` and `configured`; False if that cannot be told."""
    try:
        theirs = source("tls_ca_file", configured)
        if theirs is None or theirs.value == given.value:
            return False
        known, others = _certificates(theirs), _certificates(given)
        return not (known & others or _identities(known) & _identities(others))
    except (SecurityError, ValueError):
        return False


def trusts_another(context: ssl.SSLContext, configured: object) -> bool:
    """Whether a context of any origin trusts no configured CA; False if that cannot be told."""
    probe = NativeContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        theirs = source("tls_ca_file", configured)
        if theirs is None:
            return False
        for block in certificates(theirs):
            probe.load_verify_locations(cadata=block.text)
        known = set(probe.get_ca_certs(binary_form=True))
        others = set(context.get_ca_certs(binary_form=True))
        return bool(known) and not (known & others or _identities(known) & _identities(others))
    except (SecurityError, ssl.SSLError, ValueError, NotImplementedError):  # of truststore
        return False


def _certificates(trust: Source) -> set[bytes]:
    return {ssl.PEM_cert_to_DER_cert(block.text) for block in certificates(trust)}


def _identities(certificates: set[bytes]) -> set[tuple[bytes, bytes]]:
    from .x509.certinfo import subject_and_key  # X.509 in Python only where bytes do not tell

    return set(map(subject_and_key, certificates))
