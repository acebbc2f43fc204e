"""`sealwire probe`: diagnoses what listens at an address, and what is wrong with it."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import click

from sealwire.cli.console import cell, to_json, visible
from sealwire.cli.identity import identity_options, missing

if TYPE_CHECKING:
    from sealwire.cli.probe.diagnosis import Diagnosis
    from sealwire.security import CertificateInfo, Role, Security

ROLES: tuple[Role, ...] = ("client", "scheduler", "worker")


@click.command("probe", short_help="Say what listens at an address, and what is wrong with it.")
@click.argument("address")
@identity_options
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 600),
    default=5.0,
    show_default=True,
    help="Seconds for each step.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    address: str,
    role: Role | None,
    ca: str | None,
    cert: str | None,
    key: str | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Say what listens at ADDRESS, and what is wrong with it.

    It does what every process of a cluster does first: resolve the name, connect, perform the TLS
    handshake, and exchange hellos, with the certificates that are configured for the role, or those
    of the options. It shows the time of each step, TLS version and cipher, both certificates, and
    what the other side says about ours. It also works with distributed's own backend. An address
    without tcp:// or tls:// is taken as tls:// if there is a certificate.

    \b
    Examples:
      sealwire probe tls://10.0.0.5:8786
      sealwire probe tls://node7:34567 --as worker
      sealwire probe tls://10.0.0.5:8786 --ca certs/ca.pem --cert certs/client.pem
      sealwire probe --json tcp://localhost:8786

    \b
    Exit codes:
      0  all of it works
      1  not reachable: name, network, nothing listens, filtered
      2  wrong usage
      3  our own certificates or configuration cannot be used
      4  something else listens there: plain TCP instead of TLS, TLS instead of plain TCP, a web
         server, or a process that does not answer
      5  TLS was refused, by us or by the other side
    """
    from sealwire.cli.probe.diagnosis import Diagnosis, Outcome, examine
    from sealwire.comm import AddressError, parse_address
    from sealwire.security import SecurityError

    try:
        target = parse_address(address)
    except AddressError as error:
        raise click.UsageError(visible(str(error))) from error
    role = role or ("client" if cert or key else role_here())
    given = {"tls_ca_file": ca, f"tls_{role}_cert": cert, f"tls_{role}_key": key}
    fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if cert is not None:
        fields.setdefault(f"tls_{role}_key", None)  # a configured key belongs to another one
    security = None
    try:
        security = make_security(fields)
        args = security.get_connection_args(role)
        if not target.scheme:
            target = target._replace(scheme="tls" if args["ssl_context"] else "tcp")
        if target.scheme not in ("tcp", "tls") or not target.port:
            raise click.UsageError(
                f"cannot probe {visible(address)}: need tcp://host:port or tls://host:port"
            )
        if target.scheme == "tls" and args["ssl_context"] is None:
            raise SecurityError(missing(role))
        found = examine(target, args["ssl_context"] if target.scheme == "tls" else None, timeout)
        if found.outcome is Outcome.OK and target.scheme == "tcp" and args["require_encryption"]:
            found.outcome = Outcome.HERE
            found.words = (
                f"{target} speaks our protocol in plain text, but encryption is required here: a "
                "process so configured refuses to connect; give the other one certificates"
            )
        if target.scheme == "tls":
            add_revocation(found, security, role)
    except SecurityError as error:
        found = Diagnosis(str(target), Outcome.HERE, str(error))
    certificates = describe(found, security, role)
    if as_json:
        click.echo(to_json(as_dict(found, role, certificates), skipkeys=True, default=repr))
    else:
        show(found, role, certificates)
    raise SystemExit(found.outcome.value)


def role_here() -> Role:
    """Return the role to use if none is given: the client's, or one whose file is here."""
    from sealwire.security import SecurityError, config
    from sealwire.security.checks import presence

    try:
        values = config.read()
        here = [role for role in ROLES if presence.of(role, values) == presence.HERE]
    except SecurityError:  # which is told of later
        here = []
    preferred: tuple[Role, ...] = ("client", "worker", "scheduler")
    return next((role for role in preferred if role in here), "client")


def make_security(fields: dict[str, Any]) -> Security:
    """Return the configured certificates, overridden by the options."""
    from sealwire.security import Security, config

    if not fields:
        return Security()
    decided = config.read()["require_encryption"]
    return Security(bool(decided), **fields)


def add_revocation(found: Diagnosis, security: Security, role: str) -> None:
    """Say that our certificate is on our own revocation list, whatever the other side thinks."""
    from sealwire.cli.probe.diagnosis import Outcome
    from sealwire.security.ca.crl import read_lists
    from sealwire.security.checks.findings import readable
    from sealwire.security.pem import CRL_LIMIT, source

    lists = source("tls_crl_file", security.tls_crl_file, limit=CRL_LIMIT)
    ours = source(f"tls_{role}_cert", getattr(security, f"tls_{role}_cert"))
    if lists is None or ours is None:
        return
    for certificate in readable(ours)[0][:1]:
        for each in read_lists(lists.read()):
            number = certificate.serial_number
            if each.issuer != certificate.issuer or (
                each.get_revoked_certificate_by_serial_number(number) is None
            ):
                continue
            let_in = found.outcome is Outcome.OK
            so = f"; yet it was let in by {found.backend}" if let_in else f": {found.words}"
            found.words = (
                f"our own certificate is revoked: {ours} is on {lists}, and whoever has that list "
                f"refuses it; issue a new one{so}"
            )
            if let_in:
                found.outcome = Outcome.HERE
            return


def describe(
    found: Diagnosis, security: Security | None, role: str
) -> dict[str, CertificateInfo | None]:
    """Both certificates and our CA, as far as known; the first of each file."""
    from sealwire.security import CertificateInfo, PEMError
    from sealwire.security.pem import source
    from sealwire.security.x509.certinfo import read_certificates

    known: dict[str, CertificateInfo | None] = {"ours": None, "theirs": None, "our CA": None}
    names = {"ours": f"tls_{role}_cert", "our CA": "tls_ca_file"}
    for who, name in names.items():
        given = source(name, getattr(security, name, None))
        try:
            known[who] = read_certificates(given)[0] if given else None
        except PEMError:  # reported by the diagnosis
            pass
    if found.peer_certificate:
        try:
            known["theirs"] = CertificateInfo.from_der(found.peer_certificate)
        except PEMError:
            pass
    return {who: info for who, info in known.items() if found.address.startswith("tls")}


def as_dict(
    found: Diagnosis, role: str, certificates: dict[str, CertificateInfo | None]
) -> dict[str, Any]:
    """Return the diagnosis as plain values."""
    return {
        "address": found.address,
        "role": role,
        "outcome": found.outcome.name.lower(),
        "exit_code": found.outcome.value,
        "words": found.words,
        "steps": [
            {"name": step.name, "ms": round(step.seconds * 1000, 3), "detail": step.detail}
            for step in found.steps
        ],
        "protocol": found.protocol,
        "cipher": found.cipher,
        "hello": found.hello,
        "backend": found.backend,
        "openssl": ssl.OPENSSL_VERSION,
        "certificates": {
            who.replace(" ", "_").lower(): info
            and {
                "subject": info.subject,
                "issuer": info.issuer,
                "names": list(info.names),
                "serial": f"{info.serial:x}",
                "not_before": info.not_before.isoformat(),
                "not_after": info.not_after.isoformat(),
                "fingerprint": info.fingerprint,
            }
            for who, info in certificates.items()
        },
    }


def show(found: Diagnosis, role: str, certificates: dict[str, CertificateInfo | None]) -> None:
    """Print the diagnosis for people."""
    from rich.text import Text

    from sealwire.cli.demo.report import output, table
    from sealwire.cli.probe.diagnosis import Outcome

    console = output()
    if found.steps:
        console.print(cell(f"{found.address} as {role}", "bold"))
        steps = table("", "step", "ms", "", right=("ms",))
        for step in found.steps:
            steps.add_row(step.name, f"{step.seconds * 1000:,.1f}", cell(step.detail))
        console.print(steps)
    if any(certificates.values()):
        rows = table("\nCertificates", "whose", "what it says", "names", "SHA-256")
        for who, info in certificates.items():
            if info is not None:
                names = cell(", ".join(info.names))
                rows.add_row(who, cell(info), names, info.fingerprint[:16] + "…")
        console.print(rows)
    good = found.outcome is Outcome.OK
    mark = cell("ok", "green") if good else cell("FAILED", "bold red")
    console.print(Text.assemble("\n", mark, "  ", cell(found.words)), soft_wrap=True)
