"""`sealwire demo`: a real Dask cluster over mutually authenticated TLS, on this machine.

In order: certificates, cluster, two computations, what every process reports about its links,
unauthenticated peers at every listener, the report. Exit code 0 if every promise was observed to
be kept, 1 if one was not or the demo failed, 128 + signal number when interrupted (130 for Ctrl-C).
"""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sealwire.cli.demo.cluster import Cluster
    from sealwire.cli.demo.identities import IdentityFiles
    from sealwire.cli.demo.report import Story
    from sealwire.cli.demo.verdict import Evidence
    from sealwire.cli.signals import Signals
    from sealwire.security.ca.authority import Authority

CLOSE_TIMEOUT = 3.0  # seconds for the client to close


@click.command("demo", short_help="Run a real Dask cluster over TLS and check every promise.")
@click.option(
    "--workers", type=click.IntRange(2, 64), default=2, show_default=True, help="Worker processes."
)
@click.option(
    "--scale",
    type=click.FloatRange(0.01, 100),
    default=1.0,
    show_default=True,
    help="Amount of work: 1 counts every file of the standard library once.",
)
def command(workers: int, scale: float) -> None:
    """Run a real Dask cluster over mutually authenticated TLS, and check every promise.

    Makes certificates, starts a scheduler and workers as the dask command does, counts words and
    multiplies a matrix with them, lists every link, connects to every listener without a valid
    certificate, which must fail, and stops everything again. The exit code is 0 only if everything
    promised was observed.
    """
    require_dask("run the demo")
    from sealwire.security import ConfigError
    from sealwire.security.config_tree import getter

    try:
        getter()  # imports Dask, or says why that is not possible
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    from sealwire.cli.demo.cluster import ClusterError
    from sealwire.cli.demo.report import Story, output, print_report
    from sealwire.cli.demo.verdict import in_a_line, judge
    from sealwire.cli.signals import Interrupted, Signals

    story = Story(output())
    try:
        with Signals() as signals:
            evidence = run(story, signals, workers, scale)
    except Interrupted as interrupted:
        story.say(f"{interrupted}; every process is stopped, the files are removed")
        raise SystemExit(interrupted.exit_code) from None
    except ClusterError as error:
        raise click.ClickException(str(error)) from error
    checks = judge(evidence)
    print_report(story.console, evidence, checks)
    story.say(f"\n{in_a_line(checks)}")
    if not all(check.kept for check in checks):
        raise SystemExit(1)


def require_dask(wish: str) -> None:
    """Raise a ClickException that says what to install if a part of Dask is missing."""
    missing = [name for name in ("dask", "distributed", "numpy") if find_spec(name) is None]
    if missing:
        raise click.ClickException(
            f"cannot {wish}: {', '.join(missing)} not installed; "
            "install Dask with: pip install 'sealwire[dask]'"
        )


def run(story: Story, signals: Signals, workers: int, scale: float) -> Evidence:
    """Run the demo and clean up, whatever happens. Return what was observed.

    Raises Interrupted, ClusterError, and what a computation raised.
    """
    from sealwire.cli.demo.cluster import Cluster, ClusterError
    from sealwire.cli.demo.identities import write_roles
    from sealwire.security import SecurityError
    from sealwire.security.ca.authority import Authority

    temporary = tempfile.TemporaryDirectory(prefix="sealwire-demo-", ignore_cleanup_errors=True)
    folder = Path(temporary.name)  # readable by its owner only
    cluster = Cluster(folder, workers, signals.held)
    try:
        with story.step("certificates for client, scheduler and each worker"):
            authority = Authority.create("sealwire demo CA")
            roles = ("client", "scheduler")
            identities = write_roles(folder, authority, roles, cluster.names)
        return visit(story, cluster, authority, identities, scale)
    except (OSError, asyncio.TimeoutError, SecurityError) as error:
        why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise ClusterError(f"the demo broke off: {why}\n{cluster.last_words()}") from error
    finally:
        with signals.held():
            cluster.stop()
            temporary.cleanup()


def visit(
    story: Story,
    cluster: Cluster,
    authority: Authority,
    identities: dict[str, IdentityFiles],
    scale: float,
) -> Evidence:
    """Start `cluster`, use it, query every process, and attempt unauthorized connections."""
    from sealwire.security import Security

    security = Security(**_fields(identities["client"]))
    security.get_connection_args("client")  # what is configured wrongly ends it before it begins
    with ExitStack() as leaving:
        with story.step(f"scheduler and {cluster.workers} workers"):
            cluster.start(identities)
            client = connect(cluster, identities["client"])
            leaving.callback(client.close, timeout=CLOSE_TIMEOUT)
            cluster.wait_for_workers(client)
        story.say(f"the cluster is up: {cluster.describe()}")
        return put_to_work(story, client, cluster, authority, identities, scale)


def connect(cluster: Cluster, files: IdentityFiles) -> Any:
    """Return a client of `cluster` once its scheduler listens; Dask is imported meanwhile."""
    from distributed import Client

    from sealwire.dask_backend import Security

    security = Security(**_fields(files))
    return Client(cluster.wait_for_scheduler(), security=security, set_as_default=False)


def _fields(files: IdentityFiles) -> dict[str, Any]:
    return {
        "tls_ca_file": files.ca,
        "tls_client_cert": files.certificate,
        "tls_client_key": files.key,
        "require_encryption": True,
    }


def put_to_work(
    story: Story,
    client: Any,
    cluster: Cluster,
    authority: Authority,
    identities: dict[str, IdentityFiles],
    scale: float,
) -> Evidence:
    """Compute, observe, attempt unauthorized connections, compute again."""
    from sealwire.cli.demo import computations, observations, unauthorized
    from sealwire.cli.demo.verdict import Evidence

    files = computations.source_files(scale)
    with story.step(f"counting words in {len(files):,} Python files") as advance:
        words = computations.count_in_cluster(client, files, scale, advance)
    with story.step("multiplying a matrix by its transpose, block by block") as advance:
        array = computations.multiply_in_cluster(client, scale, advance)
    with story.step("asking every process about its links"):
        processes = observations.collect(client)
    addresses = [process.address for process in processes if process.address is not None]
    with story.step(f"sending unauthenticated peers to {len(addresses)} listeners"):
        attempts = unauthorized.try_all(cluster.folder, authority, identities["client"], addresses)
        total = client.submit(sum, (20, 22), pure=False).result(timeout=computations.PATIENCE)
    return Evidence(cluster.workers, words, array, processes, attempts, total == 42)
