"""For those who test against clusters: certificates, good and bad, and Dask clusters over TLS.

::

    def test_a_sum():
        with tls_cluster(workers=2) as cluster, cluster.client() as client:
            assert client.submit(sum, [1, 2]).result() == 3

    def test_a_worker_that_has_expired():
        with tls_cluster(expired="worker") as cluster:
            cluster.wait_for_log("scheduler", "has expired")

With pytest, ``pytest_plugins = ["sealwire.testing.fixtures"]`` brings the same as fixtures.
`temporary_certificates` needs no Dask, and neither does `pair`: two connected comms in memory, and
the link between them, which can be made to fail. Nothing is left behind: keys are in temporary
folders that only their owner can read, and processes end with the test, or with its process.
"""

from __future__ import annotations

from sealwire.comm.testing import Link, pair

from .clusters import Cluster, ClusterError, tls_cluster
from .identities import Certificates, temporary_certificates

__all__ = [
    "Certificates",
    "Cluster",
    "ClusterError",
    "Link",
    "pair",
    "temporary_certificates",
    "tls_cluster",
]
