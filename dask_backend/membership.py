"""Joining a cluster with a token, at `install`: where `SEALWIRE_JOIN` names a service.

The process asks for its identity before anything of Dask's needs one, keeps it in memory
(`joining.memory`), and names it to Dask's configuration by paths, so that everything else is as
with files: `Security` of either class, contexts that follow them, what is set in ``sealwire.tls``.

Dask hands its configuration on to the processes it starts. There are paths in it and no secrets:
the workers of a nanny read their identity out of the nanny's memory, and have the new one when it
has renewed. The token is removed from the environment and the configuration as soon as it is used.
"""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any

import dask

from sealwire.security import config
from sealwire.security.config import KEYS, PRELOAD, PROCESSES
from sealwire.security.quoting import shown
from sealwire.security.security import ROLES

from .settings import any_certificate

if TYPE_CHECKING:
    from sealwire.joining import Member, Token

__all__ = ["begin", "end", "expect", "joined_as", "member"]

logger = logging.getLogger("sealwire.dask_backend")

SERVICE, TOKEN, TOKEN_FILE = "SEALWIRE_JOIN", "SEALWIRE_TOKEN", "SEALWIRE_TOKEN_FILE"
#: in the environment of child processes: role, paths and lifetime of what this one was given
JOINED = "SEALWIRE_JOINED"

_ADDRESS_KEY, _NAME_KEY = "sealwire.join.address", "sealwire.join.name"
_TOKEN_KEY, _FILE_KEY = "sealwire.join.token", "sealwire.join.token-file"
_INHERITED = "DASK_INTERNAL_INHERIT_CONFIG"  # Dask's: a whole configuration, from SSHCluster etc.

_WAIT = 60.0  # seconds for the service to be there
_NEAR = 0.25  # of the lifetime, before whose end the log warns of it

_role = ""  # the one that this process needs, where that is known
_member: Member | None = None
_set: Any = None  # what was configured, to be undone
_default: dict[str, Any] = {}  # the same, among Dask's defaults
_has: tuple[str, str] | None = None  # the role, and the path of the CAs, of what was given


def member() -> Member | None:
    """Return this process's membership; None if it has none of its own."""
    return _member


def joined_as(ca_file: object = None) -> str:
    """Return the role that this process joined in; "" if it did not, or these CAs are others."""
    role, path = _has or ("", "")
    return role if ca_file in (None, path) else ""


def expect(role: str) -> None:
    """Say which role this process needs, so that a token for another one is not used up."""
    global _role
    _role = role


def begin() -> None:
    """Join, if that is wanted, and configure Dask to use what was given. Raises `JoinError`."""
    global _member
    address = _address()
    if not address and any(os.environ.get(each) for each in (TOKEN, TOKEN_FILE)):
        logger.warning("not joining: a token is given, and no service; set %s=HOST:PORT", SERVICE)
    if not address or _set is not None:
        return
    inherited = _inherited()
    if inherited is not None:
        _configure(*inherited)
        return
    if any_certificate():
        logger.warning(
            "not joining at %s: certificates are configured under distributed.comm.tls, and are "
            "used; remove them, or %s",
            address,
            SERVICE,
        )
        return
    from sealwire.joining import Member, address_of
    from sealwire.joining.given import lasting

    place, token = address_of(address), _token()
    node = _name()
    key = "sealwire.join.wait"
    wait = config.duration(key, dask.config.get(key, None), bare="s")
    patience = _WAIT if wait is None else wait
    made = Member.join(place, token, role=_role, node=node, patience=patience)
    _forget_token()
    made.start()
    _member = made
    has = made.joined.role, made.paths, made.joined.lifetime
    _configure(*has)
    os.environ[JOINED] = json.dumps(has)
    logger.info(
        "joined at %s as %s with token %s, for %s; renewed by itself",
        place,
        made.joined.role,
        token.id,
        lasting(made.joined.lifetime),
    )


def end() -> None:
    """Undo `begin`: the identity is dropped, and the configuration as it was."""
    global _member, _set, _has
    made, _member, _has = _member, None, None
    before, _set = _set, None
    dask.config.defaults[:] = [each for each in dask.config.defaults if each is not _default]
    if before is not None:
        before.__exit__(None, None, None)
    if made is not None:
        os.environ.pop(JOINED, None)
        made.stop()


def _configure(role: str, paths: dict[str, str], lifetime: float) -> None:
    from sealwire.joining.member import CAS, CRL, IDENTITY
    from sealwire.security.ca.bootstrap import PEERS

    global _set, _has, _default
    _has = role, paths[CAS]
    values: dict[str, Any] = {
        KEYS["tls_ca_file"]: paths[CAS],
        KEYS[f"tls_{role}_cert"]: paths[IDENTITY],
    }
    if role == "worker":  # for clients inside tasks
        values[KEYS["tls_client_cert"]] = paths[IDENTITY]
    if CRL in paths:
        values[KEYS["tls_crl_file"]] = paths[CRL]
    decided = {
        KEYS["require_encryption"]: True,
        "distributed.comm.default-scheme": "tls",
        KEYS["tls_allowed_peers"]: {name: list(peers) for name, peers in PEERS.items()},
        KEYS["tls_expiry_warning"]: f"{lifetime * _NEAR:.0f} s",  # later than renewals
    }
    stock = {KEYS["require_encryption"]: None, "distributed.comm.default-scheme": "tcp"}
    values |= {k: v for k, v in decided.items() if dask.config.get(k, None) == stock.get(k)}
    for process in PROCESSES:
        key = f"distributed.{process}.preload"
        there = dask.config.get(key, None) or []
        modules = list(there) if isinstance(there, (list, tuple)) else [there]
        if PRELOAD not in modules:
            values[key] = [*modules, PRELOAD]
    _set = dask.config.set(values)
    _default = {}
    dask.config.set(values, config=_default)
    dask.config.defaults.insert(0, _default)  # a `dask.config.refresh` must not end in plain TCP


def _address() -> str:
    found = os.environ.get(SERVICE, "") or dask.config.get(_ADDRESS_KEY, None) or ""
    if not isinstance(found, str):
        from sealwire.joining import JoinError

        raise JoinError(f"cannot use {_ADDRESS_KEY}: expected HOST:PORT, got {shown(found)}")
    return found


def _inherited() -> tuple[str, dict[str, str], float] | None:
    """Return role, paths and lifetime of what a parent process was given, if it is there.

    And if it will do: not for a command that needs another role, nor where this process was given a
    token of its own. The parent's is not in the environment any more, only the name of its file.
    """
    from sealwire.joining.member import CAS, IDENTITY

    try:
        role, given, lifetime = json.loads(os.environ.get(JOINED, ""))
        paths = {str(name): str(path) for name, path in given.items()}
        fits = role in ROLES and _role in ("", role) and not os.environ.get(TOKEN)
        there = fits and all(os.path.exists(paths[name]) for name in (CAS, IDENTITY))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return (role, paths, float(lifetime)) if there else None


def _token() -> Token:
    """Return the token, from wherever it is given. Raises `JoinError`."""
    from sealwire.joining import Token, TokenError
    from sealwire.joining.inputs import token_in

    text = os.environ.get(TOKEN, "")
    if text.strip():
        return Token.parse(text, f"in {TOKEN}")
    file = os.environ.get(TOKEN_FILE, "")
    if file:
        return token_in(file, TOKEN_FILE)
    file = dask.config.get(_FILE_KEY, None)
    if file is not None and file != "":
        return token_in(file, _FILE_KEY)
    text = str(dask.config.get(_TOKEN_KEY, None) or "")
    if not text.strip():
        raise TokenError(
            f"cannot join: {SERVICE} is set, and there is no token; give {TOKEN} or {TOKEN_FILE}, "
            f"or {_FILE_KEY}"
        )
    return Token.parse(text, f"in {_TOKEN_KEY}")


def _forget_token() -> None:
    """Keep the token from the processes that this one starts, however it came here."""
    for name in [TOKEN, *(each for each in os.environ if _names_token(each))]:
        os.environ.pop(name, None)
    inherited = os.environ.get(_INHERITED)
    if inherited:
        values = dask.config.deserialize(inherited)
        if dask.config.get(_TOKEN_KEY, None, config=values) is not None:
            dask.config.set({_TOKEN_KEY: None}, config=values)
            os.environ[_INHERITED] = dask.config.serialize(values)
    if dask.config.get(_TOKEN_KEY, None) is not None:
        dask.config.set({_TOKEN_KEY: None})


def _names_token(variable: str) -> bool:
    """Whether Dask reads a variable as the configured token."""
    key = variable.removeprefix("DASK_").lower().replace("__", ".").replace("_", "-")
    return variable.startswith("DASK_") and key == _TOKEN_KEY


def _name() -> str:
    """Return the name to ask for: as configured, else this machine's. Raises `JoinError`."""
    from sealwire.joining import JoinError
    from sealwire.joining.inputs import must_be_name, own_name

    given = dask.config.get(_NAME_KEY, None)
    if given is None or given == "":
        return own_name()
    if isinstance(given, bool) or not isinstance(given, (str, int)):
        raise JoinError(f"cannot use {_NAME_KEY}: expected a name, got {shown(given)}")
    return must_be_name(str(given), _NAME_KEY)
