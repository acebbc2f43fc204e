"""What a `Security` holds: values that are checked when they are set, shown safely, and pickled."""

from __future__ import annotations

import operator
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import config, paths, pem
from .fields import FIELDS, MATERIAL, as_html, as_shown, checked

__all__ = ["Values"]

_material_of = operator.attrgetter(*MATERIAL)
_NO_MATERIAL = (None,) * len(MATERIAL)


class Values:
    """The attributes of a `Security`; its parameters, as they are once checked."""

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

    @property
    def require_encryption(self) -> bool:
        """Whether plain addresses are refused, on connect and on listen."""
        if self._required is None:
            return _material_of(self) != _NO_MATERIAL  # each connection asks
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

    def _prepare(self) -> None:
        self._sources = {}
        self._required = None

    def _source(self, name: str, value: str | None) -> pem.Source | None:
        """Return the source of a value; a new one if a subclass has replaced the value."""
        known = self._sources.get(name)
        return known if known and known.value == value else checked(name, value)

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
