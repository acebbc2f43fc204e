"""`Security`: certificates and policy by role, with the API of Dask's class of that name.

A role is "client", "scheduler" or "worker". Arguments take precedence over configuration
(`config.py` lists the keys); an argument of None means "not set" and hides the configuration. The
API is documented by Dask at https://distributed.dask.org/en/stable/tls.html.
"""

from __future__ import annotations

import difflib
import logging
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import belonging, config, paths, pem, permissions
from .contexts import allowlist, policy, reloading
from .errors import ConfigError, SecurityError, UnknownParameter
from .fields import DAY, FIELDS, MATERIAL, ROLES, as_html, as_shown, checked
from .quoting import shown

__all__ = ["FIELDS", "ROLES", "Security"]

logger = logging.getLogger("sealwire.security")


class Security:
    """TLS material and policy of a process or a cluster, for each role.

    All parameters are optional, and attributes of the same name; assigning validates again. CA,
    certificates, keys and CRLs are paths (`str` or `os.PathLike`) or PEM text.

    Parameters
    ----------
    require_encryption : bool, optional
        Whether plain addresses are refused. If neither given nor configured, True as soon as any
        TLS parameter is given or any CA, certificate or key configured.
    tls_ca_file : path or str
        The CA certificates to trust. Nothing else is trusted, not the system's CAs.
    tls_ciphers : str
        OpenSSL cipher string for TLS 1.2, see `sealwire.security.contexts.policy.Policy`.
    tls_min_version, tls_max_version : ssl.TLSVersion, float or str
        Also 1.2 or 1.3 as a number or text, or "TLSv1.3". The minimum is TLS 1.2 if unset.
    tls_client_cert, tls_scheduler_cert, tls_worker_cert : path or str
        The certificate of each role, followed by its intermediates if any.
    tls_client_key, tls_scheduler_key, tls_worker_key : path or str
        Its private key; may be omitted if the certificate's file or text contains it.
    tls_key_password : str, bytes or mapping from role to them
        Decrypts encrypted private keys. Never asked for on a terminal, never shown; pickled like a
        key.
    tls_crl_file : path or str
        The CRLs of every CA in use, concatenated. If given, a certificate whose CA has no valid CRL
        here is refused.
    tls_allowed_peers : str, list of str or mapping from role to them
        Patterns of peers to accept, of those with a certificate of the CA. The role is ours, the
        patterns are for the peers of a process of that role, whichever side dials: with
        ``{"worker": ["scheduler*", "worker*"]}`` a worker refuses certificates of clients. A
        pattern is a shell's (``*``, ``?``, ``[…]``) and must match one whole name of the
        certificate: the subject's common name, or a DNS name, IP address or URI of subjectAltName;
        DNS names are case-insensitive. ``sha256:…`` is the fingerprint of one certificate. A role
        without patterns accepts all. Configured CRLs and patterns apply to the configured CA: they
        are not used with a `tls_ca_file` that has none of its CAs, and the log says so.
    tls_reload_interval : float or str
        Seconds, or text such as "10 s": how often, at most, a handshake checks whether files have
        changed. 0 means every time, "never" (or infinity) not at all; the default is
        `sealwire.security.contexts.reloading.DEFAULT_INTERVAL`.
    tls_expiry_warning : float or str, optional
        Days, or text such as "12 h": how long before a certificate expires the log warns of it,
        once a day; "never" disables it. If unset, 30 days or a third of its lifetime, whichever is
        less.
    tls_server_hostname : str, optional
        The server name (SNI) that clients send if the caller specifies none, for a proxy that
        routes by it. No certificate is compared with it.
    extra_conn_args : mapping
        Passed on by `get_connection_args`.

    Raises
    ------
    UnknownParameter
        For an unknown parameter; it is a `TypeError`.
    ConfigError
        For an unusable value, a key without its certificate, or a certificate without a CA. Files
        are first read when a role is used, see `get_listen_args`.

    Notes
    -----
    Whether a value is a path or PEM text is decided where it is given, and a relative path is made
    absolute there; `~` and ``$NAME`` are replaced in a `str`, not in a `pathlib.Path`. Files must
    be regular files. Contexts follow them: a handshake that begins after a file was replaced uses
    the new one, or the old one while the new one is unusable or takes long to read; see `reload`.

    Instances pickle, with absolute paths and the PEM text they hold, keys included; they compare by
    identity; they are thread-safe.
    """

    tls_ca_file: str | None
    tls_ciphers: str | None
    tls_min_version: ssl.TLSVersion
    tls_max_version: ssl.TLSVersion | None
    tls_client_cert: str | None
    tls_client_key: str | None
    tls_scheduler_cert: str | None
    tls_scheduler_key: str | None
    tls_worker_cert: str | None
    tls_worker_key: str | None
    tls_key_password: str | bytes | dict[str, str | bytes] | None
    tls_crl_file: str | None
    tls_allowed_peers: dict[str, tuple[str, ...]] | None
    tls_reload_interval: float | None
    tls_expiry_warning: float | None
    tls_server_hostname: str | None
    extra_conn_args: dict[str, Any]

    _sources: dict[str, pem.Source]
    _required: bool | None
    _lock: threading.Lock
    _watches: dict[str, tuple[object, reloading.Watch]]
    _warned: set[str]

    def __init__(self, require_encryption: bool | None = None, **fields: Any) -> None:
        for name in fields:
            if name not in FIELDS:
                near = difflib.get_close_matches(name, FIELDS, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(FIELDS)}"
                raise UnknownParameter(f"Security has no parameter {shown(name)}; {hint}")
        self._prepare()
        configured = config.read()
        given = checked("tls_ca_file", fields.get("tls_ca_file"))
        configured.update(dict.fromkeys(belonging.not_meant(given, configured)))
        for name in FIELDS[1:]:
            setattr(self, name, fields.get(name) if name in fields else configured.get(name))
        if require_encryption is None:
            require_encryption = configured["require_encryption"]
        if require_encryption is None and any(
            value is not None for name, value in fields.items() if name.startswith("tls_")
        ):
            require_encryption = True
        self.require_encryption = require_encryption
        self._policy()
        if fields.get("tls_ca_file", "") is not None:  # None: removed on purpose
            for role in ROLES:
                self._material(role)

    @classmethod
    def temporary(cls, *, days: float = 365, **fields: Any) -> Security:
        """Create TLS material that exists only in memory: a CA and a certificate for each role.

        The CA's private key is discarded, so nobody can ever issue another certificate; two calls
        never trust each other.

        Parameters
        ----------
        days : float, default 365
            Days of validity from now; it begins an hour ago.
        **fields
            Further parameters of `Security`, except certificates. Encryption is required unless
            ``require_encryption=False`` is given.

        Raises
        ------
        AuthorityError
            For an unusable number of days.
        """
        from .ca.authority import Authority

        authority = Authority.create("sealwire temporary CA", days=days)
        made: dict[str, Any] = {"tls_ca_file": authority.certificate}
        for role in ROLES:
            identity = authority.issue(role, days=days)
            made[f"tls_{role}_cert"] = identity.certificate
            made[f"tls_{role}_key"] = identity.key
        fields.setdefault("require_encryption", True)
        return cls(**made, **fields)

    @property
    def require_encryption(self) -> bool:
        """Whether plain addresses are refused, on connect and on listen."""
        if self._required is None:
            return any(getattr(self, name) is not None for name in MATERIAL)
        return self._required

    @require_encryption.setter
    def require_encryption(self, value: bool | None) -> None:
        self._required = config.truth("require_encryption", value)

    def fields(self) -> dict[str, Any]:
        """Return every parameter with its current value.

        ``Security(**security.fields())`` is equivalent. A path is a `str`, or a `pathlib.Path` if
        it would be taken for PEM text or another path.
        """
        values = {name: getattr(self, name) for name in FIELDS}
        for name, source in self._sources.items():
            literal = paths.is_literal(source.value) and not pem.is_text(source.value)
            if not source.in_memory and (source.hidden or not literal):
                values[name] = Path(source.value)
        return values

    def get_tls_config_for_role(self, role: str) -> dict[str, str | None]:
        """Return the values for a role: ``ca_file``, ``ciphers``, ``cert`` and ``key``.

        If one file contains both, the key's path is the certificate's, for those who pass paths on.

        Raises
        ------
        ConfigError
            For an unknown role.
        """
        if role not in ROLES:
            raise ConfigError(f"unknown role {shown(role)}; expected one of {', '.join(ROLES)}")
        certificate = getattr(self, f"tls_{role}_cert")
        key = getattr(self, f"tls_{role}_key")
        if key is None and certificate and not pem.is_text(certificate):
            key = certificate
        return {
            "ca_file": self.tls_ca_file,
            "ciphers": self.tls_ciphers,
            "cert": certificate,
            "key": key,
        }

    def get_connection_args(self, role: str) -> dict[str, Any]:
        """Return the arguments that a process of this role passes to `connect`.

        Returns
        -------
        dict
            A new one each time: ``ssl_context``, ``require_encryption`` and ``extra_conn_args``.

        Raises
        ------
        ConfigError, PEMError, KeyMismatch
            As for `get_listen_args`.
        """
        return {
            "ssl_context": self._context(role, "client"),
            "require_encryption": self.require_encryption,
            "extra_conn_args": dict(self.extra_conn_args),
        }

    def get_listen_args(self, role: str) -> dict[str, Any]:
        """Return the arguments that a process of this role passes to `listen`.

        Returns
        -------
        dict
            A new one each time: ``ssl_context`` and ``require_encryption``. The context is None if
            the role has no certificate, as in Dask, where every process asks for roles it may never
            use. If encryption is required, a warning is logged once that says what to set.

        Raises
        ------
        ConfigError
            For an unknown role, a certificate without a CA, or a key without its certificate.
        PEMError, KeyMismatch
            If they cannot be used; the message names field and file.
        """
        return {
            "ssl_context": self._context(role, "server"),
            "require_encryption": self.require_encryption,
        }

    def reload(self) -> list[str]:
        """Check the files of all contexts handed out, now.

        Contexts follow their files by themselves. This tells at once whether new files are usable.
        Open connections are not affected.

        Returns
        -------
        list of str
            The fields with new content.

        Raises
        ------
        PEMError, KeyMismatch
            If new content is unusable; the role concerned keeps its old content.
        """
        with self._lock:
            watches = [watch for _, watch in self._watches.values()]
        changed: dict[str, None] = {}
        failed = None
        for watch in watches:
            try:
                changed.update(dict.fromkeys(watch.reload()))
            except SecurityError as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return list(changed)

    def _context(self, role: str, side: policy.Side) -> ssl.SSLContext | None:
        """Return the role's context, the same one until a value changes."""
        material = self._material(role)
        if material is None:
            self._warn_of_missing(role)
            return None
        interval, days = self.tls_reload_interval, self.tls_expiry_warning
        state = (
            self._policy(),
            material,
            reloading.DEFAULT_INTERVAL if interval is None else interval,
            None if days is None else days * DAY,
        )
        with self._lock:
            known = self._watches.get(role)
            if known is None or known[0] != state:
                for path in config.files():
                    permissions.warn(f"configuration ({path})", path, of_groups=False)
                known = self._watches[role] = state, reloading.Watch(*state)
            return known[1].context(side)

    def _policy(self) -> policy.Policy:
        versions = self.tls_min_version, self.tls_max_version
        return policy.Policy(self.tls_ciphers, *versions, self.tls_server_hostname)

    def _material(self, role: str) -> policy.Material | None:
        """Return what the contexts of a role are made from; None if it has no identity."""
        values = self.get_tls_config_for_role(role)
        trust = self._source("tls_ca_file", values["ca_file"])
        certificate = self._source(f"tls_{role}_cert", values["cert"])
        own = values["key"] == values["cert"] and getattr(self, f"tls_{role}_key") is None
        key = None if own else self._source(f"tls_{role}_key", values["key"])
        if certificate is None:
            if key is not None:
                raise ConfigError(f"cannot use {key} without its certificate; set {_cert(role)}")
            return None
        if trust is None:
            raise ConfigError(
                f"cannot use {certificate}: there is no CA to verify peers with; "
                f"set tls_ca_file (configuration: {config.KEYS['tls_ca_file']})"
            )
        crl = self._source("tls_crl_file", self.tls_crl_file)
        password = self.tls_key_password
        if isinstance(password, dict):
            password = password.get(role)
        patterns = (self.tls_allowed_peers or {}).get(role)
        allowed = allowlist.AllowedPeers(patterns) if patterns else None
        return policy.Material(trust, certificate, key, crl, password, allowed)

    def _source(self, name: str, value: str | None) -> pem.Source | None:
        """Return the source of a value; a new one if a subclass has replaced the value."""
        known = self._sources.get(name)
        return known if known and known.value == value else checked(name, value)

    def _warn_of_missing(self, role: str) -> None:
        if self.require_encryption and role not in self._warned:
            self._warned.add(role)
            logger.warning(
                "encryption is required and role %s has no certificate, so it can neither "
                "connect nor listen; set %s",
                role,
                _cert(role),
            )

    def _prepare(self) -> None:
        self._lock = threading.Lock()
        self._watches = {}
        self._sources = {}
        self._warned = set()
        self._required = None

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            value = checked(name, value)
            if isinstance(value, pem.Source):
                self._sources[name], value = value, value.value
            else:
                self._sources.pop(name, None)
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        return self.fields()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._prepare()
        for name, value in state.items():
            setattr(self, name, value)

    def _shown(self) -> dict[str, str]:
        """Return what may be shown of each field that is set: no PEM text, no `extra_conn_args`."""
        shown = {"require_encryption": str(self.require_encryption)}
        for name in FIELDS[1:-1]:
            value = getattr(self, name)
            if value is not None:
                shown[name] = as_shown(name, value, self._sources.get(name))
        return shown

    def __repr__(self) -> str:
        return f"Security({', '.join(f'{name}={text}' for name, text in self._shown().items())})"

    def _repr_html_(self) -> str:
        return as_html(self._shown())


def _cert(role: str) -> str:
    name = f"tls_{role}_cert"
    return f"{name} (configuration: {config.KEYS[name]})"
