"""Commands and configuration to paste, for where certificates go and what happens to them there."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["MOUNT", "SNIPPETS", "Place", "program"]

MOUNT = "/etc/sealwire"

_PLAIN = re.compile(r"[A-Za-z/.][A-Za-z0-9/._:-]*")


@dataclass(frozen=True)
class Place:
    """Where the certificates are and go.

    `folder` is here, `named` what its dask.yaml names, `mount` where the processes see the files,
    `hosts` are the nodes that have an identity, `serials` those of certificates that are meant;
    `locked` is whether the CA's key has a password.
    """

    folder: str
    named: str
    mount: str
    hosts: Sequence[str] = ()
    serials: Sequence[int] = ()
    locked: bool = False

    @property
    def option(self) -> str:
        """What names the folder in a command; empty for the default."""
        return "" if self.folder == "certs" else f" --dir {shlex.quote(self.folder)}"

    @property
    def seen_at(self) -> str:
        """What changes the path in a command; empty if `dask.yaml` has it already."""
        return "" if self.mount == self.named else f" --seen-at {shlex.quote(self.mount)}"

    def file(self, name: str) -> str:
        """Return a file of the folder, quoted for a shell."""
        return shlex.quote(os.path.join(self.folder, name))


def kubernetes(place: Place) -> str:
    """Mount secrets in pods, as whole folders: a subPath is never updated."""
    config, make = place.file("dask.yaml"), ""
    if place.seen_at:
        config = "sealwire-dask.yaml"
        make = f"sealwire certs config{place.option}{place.seen_at} --out {config}\n"
    return f"""\
# In a shell, now and after each renewal and revocation:
{make}for role in scheduler worker; do
  kubectl create secret generic sealwire-$role --dry-run=client -o yaml \\
    --from-file={place.file("ca.pem")} --from-file={place.file("crl.pem")} \\
    --from-file={shlex.quote(place.folder)}/"$role.pem" \\
    --from-file=dask.yaml={config} | kubectl apply -f -
done

# In the worker's pod; the scheduler's has its own secret and command:
spec:
  securityContext: {{fsGroup: 1000}}
  containers:
    - name: worker
      command: [dask, worker, "tls://scheduler:8786"]
      env:
        - {{name: DASK_CONFIG, value: {_scalar(f"{place.mount}/dask.yaml")}}}
      volumeMounts:
        - {{name: sealwire, mountPath: {_scalar(place.mount)}, readOnly: true}}
  volumes:
    - name: sealwire
      secret: {{secretName: sealwire-worker, defaultMode: 0440}}
"""


def compose(place: Place) -> str:
    """Mount a folder for each service: a mounted file is not updated on replacement."""
    service = """\
  {role}:
    command: {command}
    environment:
      DASK_CONFIG: {config}
    volumes:
      - {volume}
"""
    commands = {
        "scheduler": "dask scheduler --protocol tls",
        "worker": "dask worker tls://scheduler:8786",
    }
    services = "".join(
        service.format(
            role=role,
            command=command,
            config=_scalar(f"{place.mount}/dask.yaml"),
            volume=_scalar(f"./deploy/{role}:{place.mount}:ro"),
        )
        for role, command in commands.items()
    )
    return f"""\
# In a shell beside compose.yaml, now and after each renewal and revocation:
sealwire certs pack scheduler worker{place.option}{place.seen_at} --to deploy

# In compose.yaml:
services:
{services}"""


def ssh(place: Place) -> str:
    """Copy a folder to each machine; one rename puts each file in place."""
    hosts = " ".join(shlex.quote(each) for each in place.hosts)
    issue = f"sealwire certs issue worker --each node7.lab node8.lab{place.option}\n"
    mount = shlex.quote(place.mount)
    return f"""\
# Here, now and after each renewal and revocation:
{issue if not hosts else ""}sealwire certs pack{place.option}{place.seen_at} --to deploy
for host in {hosts or "node7.lab node8.lab"}; do
  ssh "$host" mkdir -p -m 700 {mount}
  rsync -rpt "deploy/$host/" "$host":{shlex.quote(place.mount + "/")}
done

# There:
export DASK_CONFIG={shlex.quote(place.mount + "/dask.yaml")}
dask worker tls://SCHEDULER:8786
"""


def slurm(place: Place) -> str:
    """Start a job where the home folder is the same on every node."""
    return f"""\
# In the job's script:
export DASK_CONFIG={shlex.quote(place.mount + "/dask.yaml")}
dask scheduler --protocol tls --scheduler-file scheduler.json &
srun dask worker --scheduler-file scheduler.json
"""


def cron(place: Place) -> str:
    """Renew the certificates every day."""
    folder = shlex.quote(os.path.abspath(place.folder))
    password = " --password-file FILE" if place.locked else ""
    command = f"{program()} certs renew --dir {folder}{password} --if-expires-within 30d"
    escaped = command.replace("%", r"\%")  # which ends a command in a crontab
    return f"""\
# In the crontab (crontab -e) of the machine with the CA's key; copy what is new after it:
17 4 * * *  {escaped}
"""


def program() -> str:
    """Return what runs `sealwire` where PATH is short, as under cron; quoted for a shell."""
    beside = os.path.join(os.path.dirname(sys.executable), "sealwire")
    if sys.executable and os.access(beside, os.X_OK):
        return shlex.quote(beside)
    found = shutil.which("sealwire")
    if found:
        return shlex.quote(os.path.abspath(found))
    return f"{shlex.quote(sys.executable or 'python')} -m sealwire.cli"


def drop(place: Place) -> str:
    """List the open connections with revoked certificates, and close them."""
    serials = ", ".join(f"0x{each:x}" for each in place.serials) or "0x…  # certs list --json"
    return f"""\
# In Python, where a client of the cluster can run; it says who held a connection with whom.
from dask.distributed import Client
from distributed.comm.core import Comm

REVOKED = {{{serials}}}

def drop(serials):
    held = []
    for comm in list(Comm._instances):
        peer = comm.closed() or comm.extra_info.get("peercert") or {{}}
        if peer is not True and int(peer.get("serialNumber", "0"), 16) in serials:
            held.append(comm.peer_address)
            comm.abort()
    return held

client = Client("tls://SCHEDULER:8786")
for where, held in (
    ("scheduler", client.run_on_scheduler(drop, REVOKED)),
    ("workers", client.run(drop, REVOKED, on_error="return")),
    ("nannies", client.run(drop, REVOKED, nanny=True, on_error="return")),
):
    print(where, held)
"""


def _scalar(text: str) -> str:
    """Return a text as YAML, also within a flow mapping."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


SNIPPETS: dict[str, Callable[[Place], str]] = {
    "compose": compose,
    "cron": cron,
    "drop": drop,
    "kubernetes": kubernetes,
    "slurm": slurm,
    "ssh": ssh,
}
