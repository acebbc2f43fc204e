"""The `sealwire` command line; not an API.

Importing this package loads nothing: workers of a cluster import single modules of it
(`demo.observations`, `demo.computations`), which must not load the command line or the Dask
backend with them.
"""

from __future__ import annotations

__all__: list[str] = []
