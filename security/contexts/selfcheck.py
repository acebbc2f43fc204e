"""Checks whether a TLS context does what is configured, whoever created it.

A protection that is configured and not in effect is worse than none, since nobody looks for it.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import Iterator

from ..der import has_common_key
from ..errors import PEMError
from ..native import NativeContext
from .verified import VerifiedObject, VerifiedSocket

__all__ = ["lacking", "must_serve"]

_OLD = (ssl.OP_NO_SSLv3, ssl.OP_NO_TLSv1, ssl.OP_NO_TLSv1_1)


def lacking(
    context: ssl.SSLContext, *, crl: str | None = None, allowed: str | None = None
) -> Iterator[str]:
    """Yield each difference between the configuration and what `context` does, in words.

    `crl` and `allowed` are the names of the settings of CRLs and allow-list, None if not set.
    """
    if context.verify_mode is not ssl.CERT_REQUIRED:
        yield "it demands no certificate of its peers"
    least = context.minimum_version
    if (
        least < ssl.TLSVersion.TLSv1_2
        and least != _unset()
        and not all(context.options & option for option in _OLD)
    ):
        yield "it speaks TLS before 1.2"
    if crl is not None:
        if not context.verify_flags & ssl.VERIFY_CRL_CHECK_LEAF:
            yield f"{crl} is set, and it looks certificates up in no revocation list"
        elif not context.cert_store_stats()["crl"]:
            yield f"{crl} is set, and it has no revocation list, so it refuses everybody"
    sealed = context.sslsocket_class is VerifiedSocket and context.sslobject_class is VerifiedObject
    if allowed is not None and not (sealed and getattr(context, "allowed", None)):
        yield f"{allowed} is set, and it looks at no name of its peers"


def must_serve(context: ssl.SSLContext, identity: str, leaf: str) -> None:
    """Raise `PEMError` if OpenSSL cannot use the keys of a server's identity and its CAs for TLS.

    It loads them all, and refuses every peer later for what seems to be another reason, such as the
    versions of TLS. `identity` names the identity, `leaf` is its certificate, as PEM. With common
    keys nothing is tried.
    """
    try:
        der = ssl.PEM_cert_to_DER_cert(leaf)
    except ValueError:  # OpenSSL, which has loaded it, takes more
        der = b""
    if all(map(has_common_key, (der, *context.get_ca_certs(binary_form=True)))):
        return
    client = NativeContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.set_ciphers("ALL:@SECLEVEL=2")  # whichever the server is limited to
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        client.wrap_bio(to_client, to_server, server_side=False),
        context.wrap_bio(to_server, to_client, server_side=True),
    )
    for side in sides:  # after these two steps the server has chosen, or refused
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            reason = (error.reason or str(error)).lower().replace("_", " ")
            raise PEMError(
                f"cannot use {identity}: OpenSSL does not use its key, or that of its CA, for TLS "
                f"({reason}); use a key of P-256, or of RSA with 2048 bits or more"
            ) from error


@functools.cache
def _unset() -> int:
    """Return what some builds of Python have for no choice; a comm then chooses TLS 1.2."""
    return NativeContext(ssl.PROTOCOL_TLS_CLIENT).minimum_version
