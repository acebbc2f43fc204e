"""PEM values: their content, and how an identity is loaded into an `ssl.SSLContext`.

A value is the path of a PEM file or PEM text itself. Which of the two is decided once, where it is
given, and a relative path is made absolute there: neither a change of the working folder nor of the
file system changes what was meant. `Source` keeps it together with the name of its field, so that
every error can name both. OpenSSL opens no path of a user's: a file is read once (`reading.py`),
and what was read is what is loaded. `ssl` loads private keys from paths only, so text is passed to
it as an anonymous file in memory on Linux (`memfd_create`). Elsewhere it gets the path of a file
that was read just before, or PEM text as a file of mode 0600 in a private directory, which is
removed before the call returns. Nothing here ever asks for a password on a terminal.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import os
import shlex
import ssl
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePath

from .errors import ConfigError, KeyMismatch, PEMError, PEMNotFound
from .openable import openable
from .parameters import is_nothing
from .paths import expanded
from .pem_blocks import Block, blocks, is_torn
from .pem_shapes import contents_of, decoded, looks_of, normalised, password_hint, reason_of
from .permissions import is_granted
from .quoting import HIDDEN, damage, hides_key, printable, shown
from .reading import read

__all__ = [
    "CRL_LIMIT",
    "PEM_LIMIT",
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

#: Most bytes of a file of certificates or a key. Mozilla's list of all public CAs has 0.25 MiB.
PEM_LIMIT = 4 * 2**20

#: Most bytes of a CRL file: an entry takes 50, so this is more than a million.
CRL_LIMIT = 64 * 2**20

# OpenSSL's errors when key and certificate differ in value, in type, or in type while another
# certificate slot is empty.
_MISMATCH = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}
_UNFIT = {"EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK", "UNKNOWN_CERTIFICATE_TYPE"}

# What OpenSSL's security levels above ours ask for: of its configuration, or of tls_ciphers
_NEEDED = {
    3: ("RSA of 3072 bits or more, or P-256", "a SHA-2"),
    4: ("RSA of 7680 bits or more, or P-384", "a SHA-384"),
    5: ("RSA of 15360 bits or more, or P-521", "a SHA-512"),
}

_exposed: set[str] = set()  # key files already warned about


@dataclass(frozen=True, repr=False)
class Source:
    """Where PEM data comes from: the field's name, and a path or PEM text.

    `in_memory` says that the value is PEM text rather than a path; if omitted, it is guessed from
    the value, once. `hidden` says that it is a path that could be part of a key and must not be
    shown. `limit` is the largest accepted file size in bytes.
    """

    field: str
    value: str
    in_memory: bool | None = None
    limit: int = PEM_LIMIT
    hidden: bool = False
    #: of a file that has been read: its text, what it looks like if it is no PEM, digest, status
    content: str | None = dataclasses.field(default=None, compare=False)
    looks: str = dataclasses.field(default="", compare=False)
    _digest: bytes = dataclasses.field(default=b"", compare=False)
    status: os.stat_result | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.in_memory is None:
            object.__setattr__(self, "in_memory", is_text(self.value))
        if self.in_memory:
            object.__setattr__(self, "looks", looks_of(self.value.encode("utf-8", "replace")))

    @property
    def place(self) -> str:
        """What to show to a person: the path, or the words "PEM text in memory"."""
        if self.in_memory:
            return "PEM text in memory"
        if not self._may_be_shown:
            return f"a path of {len(self.value)} characters, {HIDDEN}"
        return printable(self.value)

    @property
    def _may_be_shown(self) -> bool:
        return not (self.in_memory or self.hidden or is_text(self.value))

    @property
    def path(self) -> str | None:
        """The path of a file; None for PEM text."""
        return None if self.in_memory else self.value

    @property
    def again(self) -> str:
        """What to do if it has come to harm."""
        return "give the whole text" if self.in_memory else "write the file again"

    @property
    def quoted(self) -> str:
        """The path, quoted for a shell, or dots where it must not be shown."""
        return shlex.quote(self.value) if self._may_be_shown else "..."

    def __str__(self) -> str:
        return f"{self.field} ({self.place})"

    __repr__ = __str__

    def read(self) -> str:
        """Return the PEM text. Raises `PEMError` if the file cannot be read or is empty."""
        if self.in_memory:
            return normalised(self.value)
        text = self.taken().content or ""
        if not text.strip():
            raise PEMError(f"cannot use {self}: the file is empty; expected PEM data")
        return text

    def taken(self) -> Source:
        """Return the source with the content of its file, which is read unless it was read before.

        Raises `PEMError` if the file cannot be read.
        """
        if self.in_memory or self.content is not None:
            return self
        try:
            data, status = read(self.value, self.limit)
        except OSError as error:
            why = error.strerror or str(error)
            kind = PEMNotFound if isinstance(error, FileNotFoundError) else PEMError
            if not self._may_be_shown:
                error.filename = None  # it holds the value, which may be secret
            raise kind(
                f"cannot read {self}: {why[:1].lower()}{why[1:]}; "
                "give the path of a PEM file or PEM text"
            ) from error
        except ValueError:  # null byte or unencodable; its text holds the value
            raise PEMError(
                f"cannot read {self}: no path has such characters; "
                "give the path of a PEM file or PEM text"
            ) from None
        text = normalised(decoded(data))
        digest, looks = hashlib.sha256(data).digest(), looks_of(data)
        return dataclasses.replace(self, content=text, looks=looks, _digest=digest, status=status)

    def public(self) -> Source:
        """Return the source with its certificates only, if it holds the content of a file."""
        if self.content is None:
            return self
        text = "\n".join(block.text for block in blocks(self.content) if block.is_certificate)
        return dataclasses.replace(self, content=text)

    def digest(self) -> bytes:
        """SHA-256 of the content. Raises as `taken`."""
        if self.in_memory:
            return hashlib.sha256(self.value.encode("utf-8", "replace")).digest()
        return self.taken()._digest


def source(field: str, value: object, *, limit: int = PEM_LIMIT) -> Source | None:
    """Make a `Source` from a path (`str` or `os.PathLike`) or PEM text; None from None and "".

    An `os.PathLike` is a path. A `str` is PEM text if it has a BEGIN line or more than one line,
    else a path, in which `~` and `$NAME` are replaced (`paths.py`). Raises `ConfigError` for a
    value of any other type, for a `str` that can be neither, and for a relative path where there is
    no working folder.
    """
    if isinstance(value, os.PathLike):
        path = os.fspath(value)
        if isinstance(path, str):
            return _of_path(field, path or os.curdir, limit)
        value = path
    if is_nothing(value):
        return None
    if not isinstance(value, str):
        raise ConfigError(
            f"cannot use {field}: expected a path or PEM text as str, got {type(value).__name__}"
        )
    if is_text(value):
        return Source(field, value, in_memory=True, limit=limit)
    path = expanded(field, value)
    wrong = damage(path)
    if wrong is not None:
        raise ConfigError(f"cannot use {field}: {wrong}")
    return _of_path(field, path, limit)


def is_text(value: str) -> bool:
    """Whether a `str` that may be a path or PEM text is taken for PEM text."""
    return "-----BEGIN " in value or "\n" in value or "\r" in value


def _of_path(field: str, path: str, limit: int) -> Source:
    hidden = hides_key(path)
    if not os.path.isabs(path):
        try:
            # Not normalised: "link/.." is not the folder that holds the link.
            path = os.path.abspath(path) if os.name == "nt" else str(PurePath(os.getcwd(), path))
        except OSError as error:
            raise ConfigError(
                f"cannot use {field}: it is a relative path, and there is no working folder "
                f"({(error.strerror or str(error)).lower()}); give an absolute one"
            ) from error
    return Source(field, path, in_memory=False, limit=limit, hidden=hidden)


def certificates(source: Source) -> list[Block]:
    """Return the certificates of a source, in order.

    Raises `PEMError` if there is none, or if a block is cut short.
    """
    source = source.taken()
    found = _whole_blocks(source)
    chosen = [block for block in found if block.is_certificate]
    if not chosen:
        raise PEMError(
            f"cannot use {source}: no certificate in it, {contents_of(found, source.looks)}"
        )
    return chosen


def revocation_lists(source: Source) -> list[Block]:
    """Return the CRLs of a source, in order. Raises as `certificates`."""
    source = source.taken()
    found = _whole_blocks(source)
    chosen = [block for block in found if block.is_revocation_list]
    if not chosen:
        raise PEMError(
            f"cannot use {source}: no X509 CRL in it, {contents_of(found, source.looks)}"
        )
    return chosen


def _whole_blocks(source: Source) -> list[Block]:
    """Return the blocks. Raises `PEMError` if one is cut short, as in a half-written file."""
    text = source.read()
    found = blocks(text)
    if any({"\n", "\r"}.isdisjoint(block.text) for block in found):
        how = "with \\n written out in place of" if "\\n" in text else "without"
        raise PEMError(
            f"cannot use {source}: it looks like PEM text {how} its line breaks; "
            "give it with line breaks (in YAML: |, not >)"
        )
    if found and is_torn(text, found):
        raise PEMError(f"cannot use {source}: a PEM block in it is cut short; {source.again}")
    return found


def load_crls(context: ssl.SSLContext, source: Source) -> None:
    """Add the CRLs of a source to a context.

    Only these: OpenSSL would trust certificates in the same file. Raises `PEMError` if there is
    none or one is damaged.
    """
    text = "\n".join(block.text for block in revocation_lists(source)) + "\n"
    with _path(Source(source.field, text, in_memory=True)) as path:
        try:
            context.load_verify_locations(cafile=path)
        except OSError as error:
            why = reason_of(error, text)
            raise PEMError(
                f"cannot use {source}: a CRL in it is damaged{why}; {source.again}"
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
    from the certificate's file or text. `password` decrypts the key; an encrypted key without one
    is an error, never a prompt on the terminal.

    Raises `PEMError`, or `KeyMismatch` if the two do not belong together; the context is then
    partly loaded and must be discarded.
    """
    certificate, key = certificate.taken(), key and key.taken()
    certificates(certificate)
    holder = key or certificate
    found = _whole_blocks(holder)
    keys = [block for block in found if block.is_private_key]
    if not keys or all(block.label == "OPENSSH PRIVATE KEY" for block in keys):
        hint = "" if key else f"; append it or give {certificate.field.removesuffix('cert')}key"
        contents = contents_of(found, holder.looks)
        raise PEMError(f"cannot use {holder}: no private key in it, {contents}{hint}")
    _warn_if_exposed(holder)
    with _path(certificate) as certificate_path, _path(key) as key_path:
        try:
            context.load_cert_chain(
                certificate_path or "", key_path, password=_answer(holder, password)
            )
        except PEMError:  # raised by the password callback, through OpenSSL
            raise
        except OSError as error:
            level = context.security_level
            raise _explained(error, certificate, holder, password, level) from error


def _answer(holder: Source, password: str | bytes | None) -> Callable[[], str | bytes]:
    """OpenSSL's callback for an encrypted key; without a callback it would prompt."""

    def answer() -> str | bytes:
        if password is None:
            raise PEMError(
                f"cannot use {holder}: its private key is encrypted and no password was given; "
                "set tls_key_password (configuration: sealwire.tls.key-password)"
            )
        return password

    return answer


def _explained(
    error: OSError,
    certificate: Source,
    holder: Source,
    password: str | bytes | None,
    level: int,
) -> PEMError:
    """Explain why OpenSSL rejected an identity."""
    reason = getattr(error, "reason", None)
    both = str(certificate) if holder == certificate else f"{certificate} with {holder}"
    if reason in _MISMATCH:
        return KeyMismatch(
            f"cannot use {both}: the private key does not belong to the first certificate; "
            "give the key of that certificate alone, and put the leaf before its intermediates"
        )
    if reason in _UNFIT:
        key, digest = _NEEDED.get(level, ("RSA of 2048 bits or more, or P-256", "a SHA-2"))
        by_whom = f" at security level {level}" if level in _NEEDED else ""
        return PEMError(
            f"cannot use {both}: too weak or of no kind for TLS{by_whom} ({reason}); "
            f"use {key}, and {digest} signature"
        )
    if password is not None and any(block.is_encrypted for block in blocks(holder.read())):
        return PEMError(
            f"cannot use {both}: the password does not open the private key; check "
            f"tls_key_password{password_hint(password)}"
        )
    why = reason_of(error, certificate.read() + holder.read())
    return PEMError(f"cannot use {both}: not valid PEM data{why}; {holder.again}")


def _warn_if_exposed(holder: Source) -> None:
    """Log, once per file, that others can read a key."""
    if os.name != "posix" or holder.status is None or holder.value in _exposed:
        return
    mode = stat.S_IMODE(holder.status.st_mode)
    if mode & 0o044 and not is_granted(holder.status):
        _exposed.add(holder.value)
        logger.warning(
            "private key in %s can be read by group or others (mode %04o); run: chmod 600 %s",
            holder,
            mode,
            holder.quoted,
        )


@contextlib.contextmanager
def _path(source: Source | None) -> Iterator[str | None]:
    """Yield a path from which OpenSSL can load the PEM blocks of a source."""
    if source is None:
        yield None
        return
    data = "".join(f"{block.text}\n" for block in blocks(source.read())).encode()
    with openable(data, source.path, str(source)) as path:
        yield path
