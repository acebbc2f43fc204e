import asyncio
import signal

from sealwire.security import Security


def credentials(address, role):
    """The arguments of connect for a role, with the files of `sealwire certs init`."""
    if not address.startswith("tls"):
        return {}
    security = Security(
        tls_ca_file="certs/ca.pem",
        tls_scheduler_cert="certs/scheduler.pem",
        tls_worker_cert="certs/worker.pem",
        tls_client_cert="certs/client.pem",
    )
    listens = role == "scheduler"
    return security.get_listen_args(role) if listens else security.get_connection_args(role)


def told_to_stop():
    """An event that SIGTERM sets."""
    event = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, event.set)
    return event
