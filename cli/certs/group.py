"""The group `sealwire certs`: the life cycle of a certificate, one command each."""

from __future__ import annotations

import click

from sealwire.cli.main import LazyGroup

COMMANDS = {
    "check": "sealwire.cli.certs.check",
    "config": "sealwire.cli.certs.config",
    "init": "sealwire.cli.certs.init",
    "issue": "sealwire.cli.certs.issue",
    "join": "sealwire.cli.certs.join",
    "list": "sealwire.cli.certs.list",
    "pack": "sealwire.cli.certs.pack",
    "renew": "sealwire.cli.certs.renew",
    "revoke": "sealwire.cli.certs.revoke",
    "rotate-ca": "sealwire.cli.certs.rotate",
    "serve": "sealwire.cli.certs.serve",
    "show": "sealwire.cli.certs.show",
    "sign": "sealwire.cli.certs.sign",
    "snippet": "sealwire.cli.certs.snippet",
    "token": "sealwire.cli.certs.token",
}


@click.group(
    "certs",
    cls=LazyGroup,
    table=COMMANDS,
    short_help="Make, check, renew and revoke the certificates of a cluster.",
)
def command() -> None:
    """Make, check, renew and revoke the certificates of a cluster.

    All of it lives in one folder of plain files, `certs` unless --dir or the variable
    SEALWIRE_CERTS names another. Running processes follow the files: nothing needs a restart.

    \b
      sealwire certs init                          a CA, three identities, a dask.yaml
      sealwire certs list                          one a line
      sealwire certs check                         does everything fit?
      sealwire certs renew --if-expires-within 30d      for cron, every day
      sealwire certs issue worker node7.lab 10.0.0.7    one more identity
      sealwire certs pack --to deploy              a folder to copy to each machine
      sealwire certs revoke worker-node7.lab            shut it out
      sealwire certs rotate-ca                     a new CA, without a stop
      sealwire certs token --role worker           for a machine that joins by itself
      sealwire certs serve                         hands certificates out for tokens

    Exit codes: 0 done, 1 failed, 2 wrong usage. `check` has its own: see its --help.
    """
