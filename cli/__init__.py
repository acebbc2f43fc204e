"""The `sealwire` command line. Nothing here is an API; the modules are imported by name.

Importing this package loads nothing: workers of a cluster import single modules of it
(`observe`, `work`), and must not get the command line or the Dask backend with them.
"""

from __future__ import annotations

__all__: list[str] = []
