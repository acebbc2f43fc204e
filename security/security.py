"""`Security`: certificates and policy by role, with the API of Dask's class of that name.

A role is "client", "scheduler" or "worker". Arguments take precedence over configuration
(`config.py` lists the keys); an argument of None means "not set" and hides the configuration. The
API is documented by Dask at https://distributed.dask.org/en/stable/tls.html.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from . import belonging, config, pem, permissions
from .contexts import allowlist, policy, reloading
from .errors import ConfigError, SecurityError, UnknownParameter
from .fields import DAY, FIELDS, checked, plain_role
from .parameters import (
    ROLES,
    UNSET,
    AllowedPeers,
    ConnectionArgs,
    ListenArgs,
    Passwords,
    Pem,
    Role,
    RoleConfig,
    TLSVersion,
)
from .quoting import shown
from .values import Values

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FIELDS", "ROLES", "Security"]

logger = logging.getLogger("sealwire.security")


class Security(Values):
    """TLS material and policy of a process or a cluster, for each role.

    All parameters are optional, and attributes of the same name; assigning validates again. What is
    not given comes from Dask's configuration, that is its YAML files and ``DASK_…`` variables, with
    or without Dask; None hides what is configured. CA, certificates, keys and CRLs are paths (`str`
    or `os.PathLike`) or PEM text.

    Parameters
    ----------
    require_encryption : bool, optional
        Whether plain addresses are refused. If neither given nor configured, True as soon as any
        TLS parameter is given or any CA, certificate or key configured.
    tls_ca_file : path or str
        The CA certificates to trust. Nothing else is trusted, not the system's CAs.
    tls_ciphers : str
        OpenSSL cipher string for TLS 1.2. Those of TLS 1.3 cannot be chosen in Python.
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
        changed. 0 means every time, and that the handshake waits up to 2 s for the check; "never"
        (or infinity) means not at all. The default is 1 s.
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
    the new one, or the old one while the new one is unusable or takes long; see `reload`.

    Instances pickle, with absolute paths and PEM text (keys included), and are thread-safe.

    Dask's class of the same name has the same API; see
    https://distributed.dask.org/en/stable/tls.html.
    """

    _lock: threading.Lock
    _watches: dict[str, tuple[object, reloading.Watch]]
    _warned: set[str]

    def __init__(
        self,
        require_encryption: bool | None = None,
        *,
        tls_ca_file: Pem | None = UNSET,
        tls_ciphers: str | None = UNSET,
        tls_min_version: TLSVersion | None = UNSET,
        tls_max_version: TLSVersion | None = UNSET,
        tls_client_cert: Pem | None = UNSET,
        tls_client_key: Pem | None = UNSET,
        tls_scheduler_cert: Pem | None = UNSET,
        tls_scheduler_key: Pem | None = UNSET,
        tls_worker_cert: Pem | None = UNSET,
        tls_worker_key: Pem | None = UNSET,
        tls_key_password: Passwords | None = UNSET,
        tls_crl_file: Pem | None = UNSET,
        tls_allowed_peers: AllowedPeers | None = UNSET,
        tls_reload_interval: float | str | None = UNSET,
        tls_expiry_warning: float | str | None = UNSET,
        tls_server_hostname: str | None = UNSET,
        extra_conn_args: Mapping[str, Any] | None = UNSET,
        **unknown: NoReturn,
    ) -> None:
        values = locals()
        fields = {name: values[name] for name in FIELDS[1:] if values[name] is not UNSET}
        for name in unknown:
            from difflib import get_close_matches

            near = get_close_matches(name, FIELDS, n=1)
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
    def temporary(
        cls,
        *,
        days: float = 365,
        require_encryption: bool | None = True,
        tls_ciphers: str | None = UNSET,
        tls_min_version: TLSVersion | None = UNSET,
        tls_max_version: TLSVersion | None = UNSET,
        tls_crl_file: Pem | None = UNSET,
        tls_allowed_peers: AllowedPeers | None = UNSET,
        tls_reload_interval: float | str | None = UNSET,
        tls_expiry_warning: float | str | None = UNSET,
        tls_server_hostname: str | None = UNSET,
        extra_conn_args: Mapping[str, Any] | None = UNSET,
        **unknown: NoReturn,
    ) -> Self:
        """Create TLS material that exists only in memory: a CA and a certificate for each role.

        The CA's private key is discarded, so nobody can ever issue another certificate; two calls
        never trust each other.

        Parameters
        ----------
        days : float, default 365
            Days of validity from now; it begins an hour ago.
        require_encryption : bool, default True
            Whether plain addresses are refused.
        tls_ciphers, tls_min_version, … : optional
            The further parameters of `Security`, except those that name certificates and keys.

        Raises
        ------
        AuthorityError
            For an unusable number of days.
        UnknownParameter, ConfigError
            As from `Security`.
        """
        given = {name: value for name, value in locals().items() if name in FIELDS}
        from .ca.authority import Authority

        authority = Authority.create("sealwire temporary CA", days=days)
        made: dict[str, Any] = {"tls_ca_file": authority.certificate}
        for role in ROLES:
            identity = authority.issue(role, days=days)
            made[f"tls_{role}_cert"] = identity.certificate
            made[f"tls_{role}_key"] = identity.key
        return cls(**made, **given, **unknown)

    def get_tls_config_for_role(self, role: Role) -> RoleConfig:
        """Return the values for a role: ``ca_file``, ``ciphers``, ``cert`` and ``key``.

        If one file contains both, the key's path is the certificate's, for those who pass paths on.

        Raises
        ------
        ConfigError
            For an unknown role.
        """
        role = _role(role)
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

    def get_connection_args(self, role: Role) -> ConnectionArgs:
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

    def get_listen_args(self, role: Role) -> ListenArgs:
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

        Contexts follow their files by themselves; this shows at once whether new files are usable.
        Open connections go on, except those whose peer is on a new CRL.

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

    def _context(self, role: Role, side: policy.Side) -> ssl.SSLContext | None:
        """Return the role's context, the same one until a value changes."""
        role = _role(role)
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

    def _material(self, role: Role) -> policy.Material | None:
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

    def _warn_of_missing(self, role: Role) -> None:
        if self.require_encryption and role not in self._warned:
            self._warned.add(role)
            logger.warning(
                "encryption is required and role %s has no certificate, so it can neither "
                "connect nor listen; set %s",
                role,
                _cert(role),
            )

    def _prepare(self) -> None:
        super()._prepare()
        self._lock = threading.Lock()
        self._watches = {}
        self._warned = set()


def _role(role: object) -> Role:
    """Return a role as plain text. Raises `ConfigError`."""
    name = plain_role(role)
    if name is None:
        raise ConfigError(f"unknown role {shown(role)}; expected one of {', '.join(ROLES)}")
    return name


def _cert(role: str) -> str:
    name = f"tls_{role}_cert"
    return f"{name} (configuration: {config.KEYS[name]})"
