"""A Dask computation over mutually authenticated TLS, with certificates for this run alone."""

from distributed import Client, LocalCluster

from sealwire.dask_backend import Security
from sealwire.dask_backend.links import links


def main():
    local = {"n_workers": 2, "threads_per_worker": 1, "processes": False}
    local |= {"host": "127.0.0.1", "dashboard_address": None}
    security = Security.temporary()
    with (
        LocalCluster(protocol="tls", security=security, **local) as cluster,
        Client(cluster) as client,
    ):
        print(client.submit(sum, range(100)).result())
        print({link["protocol"] for link in client.run_on_scheduler(links)})


if __name__ == "__main__":
    main()
