"""PEM values: what they hold, and how an identity gets into an `ssl.SSLContext`.

A value is the path of a PEM file or PEM text itself; `Source` keeps it together with the name of
the field it was given for, so that every error can name both. Paths go to OpenSSL as they are.
`ssl` loads private keys from paths only, so text is shown to it as one: as an anonymous file in
memory on Linux (`memfd_create`), elsewhere as a file of mode 0600 in a private directory, removed
before the call returns. Nothing here ever asks for a password on a terminal.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shlex
import ssl
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .errors import ConfigError, KeyMismatch, PEMError, PEMNotFound

__all__ = [
    "Block",
    "Source",
    "blocks",
    "certificates",
    "load_crls",
    "load_identity",
    "revocation_lists",
    "shown",
    "source",
]

logger = logging.getLogger("sealwire.security")

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----[\x00-\x7f]*?-----END \1-----")

# What OpenSSL says when key and certificate differ in value, in type, or in type with another
# certificate slot empty.
_MISMATCH = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}
_TOO_WEAK = {"EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"}

_exposed: set[str] = set()  # key files already warned of


@dataclass(frozen=True)
class Block:
    """One `-----BEGIN label-----` … `-----END label-----` run; `text` includes both lines."""

    label: str
    text: str

    @property
    def is_certificate(self) -> bool:
        return self.label == "CERTIFICATE"

    @property
    def is_revocation_list(self) -> bool:
        return self.label == "X509 CRL"

    @property
    def is_private_key(self) -> bool:
        return self.label.endswith("PRIVATE KEY")

    @property
    def is_encrypted(self) -> bool:
        return self.label.startswith("ENCRYPTED") or "Proc-Type: 4,ENCRYPTED" in self.text

    def __repr__(self) -> str:  # the text may be a key
        return f"Block({self.label!r})"


@dataclass(frozen=True, repr=False)
class Source:
    """Where PEM data comes from: the field's name, and a path or PEM text."""

    field: str
    value: str

    @property
    def in_memory(self) -> bool:
        """True if the value is PEM text rather than a path."""
        return "-----BEGIN " in self.value or "\n" in self.value

    @property
    def place(self) -> str:
        """What a person may be shown: the path, or the words "PEM text in memory"."""
        return "PEM text in memory" if self.in_memory else self.value

    def __str__(self) -> str:
        return f"{self.field} ({self.place})"

    __repr__ = __str__

    def read(self) -> str:
        """The PEM text. Raises `PEMError` if the file cannot be read or is empty."""
        if self.in_memory:
            return self.value
        # Comments around the blocks may be in any encoding; the blocks are ASCII.
        text = self._bytes().decode("ascii", "replace")
        if not text.strip():
            raise PEMError(f"cannot use {self}: the file is empty; expected PEM data")
        return text

    def digest(self) -> bytes:
        """SHA-256 of the contents: two that are equal hold the same. Raises as `read`."""
        return hashlib.sha256(self.value.encode() if self.in_memory else self._bytes()).digest()

    def _bytes(self) -> bytes:
        try:
            with open(self.value, "rb") as file:
                return file.read()
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            why = getattr(error, "strerror", None) or str(error)
            kind = PEMNotFound if isinstance(error, FileNotFoundError) else PEMError
            raise kind(
                f"cannot read {self}: {why.lower()}; give the path of a PEM file or PEM text"
            ) from error


def source(field: str, value: object) -> Source | None:
    """Make a `Source` of a path (`str` or `os.PathLike`) or PEM text; None for None and "".

    Raises `ConfigError` for a value of any other type.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ConfigError(
            f"cannot use {field}: expected a path or PEM text as str, got {type(value).__name__}"
        )
    return Source(field, value)


def shown(value: object) -> str:
    """A value as an error may show it: PEM text in the wrong place could be a key."""
    text = repr(value)
    return "PEM text" if "-----BEGIN " in text else text


def blocks(text: str) -> list[Block]:
    """The PEM blocks of a text, in order; whatever stands between them is left out."""
    return [Block(match[1], match[0]) for match in _BLOCK.finditer(text)]


def certificates(source: Source) -> list[Block]:
    """The certificates of a source, in order.

    Raises `PEMError` if there is none, or if a block is cut short.
    """
    found = _whole_blocks(source)
    chosen = [block for block in found if block.is_certificate]
    if not chosen:
        raise PEMError(f"cannot use {source}: no certificate in it, {_contents(found)}")
    return chosen


def revocation_lists(source: Source) -> list[Block]:
    """The certificate revocation lists of a source, in order. Raises as `certificates`."""
    found = _whole_blocks(source)
    chosen = [block for block in found if block.is_revocation_list]
    if not chosen:
        raise PEMError(f"cannot use {source}: no X509 CRL in it, {_contents(found)}")
    return chosen


def _whole_blocks(source: Source) -> list[Block]:
    """The blocks of a source. A file half written may hold some whole ones and no word of it."""
    text = source.read()
    found = blocks(text)
    if found and text.count("-----BEGIN ") != len(found):
        raise PEMError(f"cannot use {source}: a PEM block in it is cut short; write the file again")
    return found


def load_crls(context: ssl.SSLContext, source: Source) -> None:
    """Add the revocation lists of a source to a context.

    Nothing else of it: certificates that stand in the same file would be trusted by OpenSSL.
    Raises `PEMError` if there is none or one is damaged.
    """
    text = "\n".join(block.text for block in revocation_lists(source)) + "\n"
    with _path(Source(source.field, text)) as path:
        try:
            context.load_verify_locations(cafile=path)
        except OSError as error:
            reason = getattr(error, "reason", None) or str(error)
            raise PEMError(
                f"cannot use {source}: a CRL in it is damaged ({reason}); write the file again"
            ) from error


def load_identity(
    context: ssl.SSLContext,
    certificate: Source,
    key: Source | None = None,
    *,
    password: str | bytes | None = None,
) -> None:
    """Load a certificate chain and its private key into a context.

    The chain is the leaf followed by its intermediates. Without `key`, the private key is taken
    from the certificate's file or text. `password` opens an encrypted key; an encrypted key
    without one is an error, never a question on the terminal.

    Raises `PEMError`, or `KeyMismatch` if the two do not belong together; the context is then
    partly loaded and must be dropped.
    """
    certificates(certificate)
    holder = key or certificate
    found = _whole_blocks(holder)
    if not any(block.is_private_key for block in found):
        hint = "" if key else f"; append it or give {certificate.field.removesuffix('cert')}key"
        raise PEMError(f"cannot use {holder}: no private key in it, {_contents(found)}{hint}")
    _warn_if_exposed(holder)
    with _path(certificate) as certificate_path, _path(key) as key_path:
        try:
            context.load_cert_chain(
                certificate_path or "", key_path, password=_answer(holder, password)
            )
        except PEMError:  # the password's, through OpenSSL
            raise
        except OSError as error:
            raise _explained(error, certificate, holder, password is not None) from error


def _contents(found: list[Block]) -> str:
    """What is there instead of what was looked for."""
    if not found:
        return "nor any other complete PEM block (a DER file must be converted to PEM)"
    return "only " + ", ".join(dict.fromkeys(block.label for block in found))


def _answer(holder: Source, password: str | bytes | None) -> Callable[[], str | bytes]:
    """What OpenSSL calls when it meets an encrypted key; with no callback it would prompt."""

    def answer() -> str | bytes:
        if password is None:
            raise PEMError(
                f"cannot use {holder}: its private key is encrypted and no password was given; "
                "set tls_key_password (configuration: sealwire.tls.key-password)"
            )
        return password

    return answer


def _explained(
    error: OSError, certificate: Source, holder: Source, with_password: bool
) -> PEMError:
    """Say in our words why OpenSSL did not take an identity."""
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    both = str(certificate) if holder == certificate else f"{certificate} with {holder}"
    if reason in _MISMATCH:
        return KeyMismatch(
            f"cannot use {both}: the private key does not belong to the first certificate; "
            "give the key of that certificate, and put the leaf before its intermediates"
        )
    if reason in _TOO_WEAK:
        return PEMError(
            f"cannot use {both}: too weak ({reason}); "
            "use RSA of 2048 bits or more, or P-256, and a SHA-2 signature"
        )
    if with_password and any(block.is_encrypted for block in blocks(holder.read())):
        return PEMError(
            f"cannot use {both}: the password does not open the private key; check tls_key_password"
        )
    return PEMError(f"cannot use {both}: not valid PEM data ({reason}); write the file again")


def _warn_if_exposed(holder: Source) -> None:
    """Log, once per file, that a key can be read by others than its owner."""
    if os.name != "posix" or holder.in_memory or holder.value in _exposed:
        return
    with contextlib.suppress(OSError):
        mode = stat.S_IMODE(os.stat(holder.value).st_mode)
        if mode & 0o044:
            _exposed.add(holder.value)
            logger.warning(
                "private key in %s can be read by group or others (mode %04o); run: chmod 600 %s",
                holder,
                mode,
                shlex.quote(holder.value),
            )


@contextlib.contextmanager
def _path(source: Source | None) -> Iterator[str | None]:
    """A path OpenSSL can open while the block runs."""
    if source is None or not source.in_memory:
        yield source.value if source else None
        return
    data = source.value.encode()
    try:
        # Fails where the kernel or the C library is too old, or /proc is not mounted.
        descriptor = os.memfd_create("sealwire", os.MFD_CLOEXEC)
    except (AttributeError, OSError):
        descriptor = -1
    if descriptor >= 0:
        with open(descriptor, "wb") as memory:
            path = f"/proc/self/fd/{descriptor}"
            if os.path.exists(path):
                memory.write(data)
                memory.flush()
                yield path
                return
    with tempfile.TemporaryDirectory(prefix="sealwire-") as directory:  # mode 0700
        path = os.path.join(directory, "identity.pem")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
        yield path
