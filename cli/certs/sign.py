"""`sealwire certs sign`: signs a request (CSR), for the names it asks for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sealwire.cli.certs.common import (
    ROLES,
    Failed,
    content_of,
    days_option,
    finish,
    folder_options,
    moment,
    name_option,
    opened,
    options,
    out_option,
    words_of_cut,
)
from sealwire.cli.console import visible

if TYPE_CHECKING:
    from cryptography import x509

_LARGEST = 1 << 20  # most bytes of a request


@click.command("sign", short_help="Sign a certificate request.")
@click.argument("csr", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@options(
    click.option(
        "--role",
        type=click.Choice(ROLES),
        required=True,
        help="What its holder may be in the cluster: the certificate's common name.",
    ),
    name_option,
    days_option,
    out_option("CSR's name.pem"),
    *folder_options,
)
def command(
    csr: Path,
    role: str,
    out: Path | None,
    folder: Path,
    **given: Any,
) -> None:
    """Issue a certificate to a process of ROLE for the key and the hosts in a request (CSR).

    The role is what --role says, whatever the request calls itself. DNS names and IP addresses are
    taken from the request: inspect them first (openssl req -in CSR -noout -text). Everything else
    in it is ignored.

    \b
      openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \\
          -keyout node8-key.pem -out node8.csr -subj /CN=worker -addext subjectAltName=DNS:node8.lab
      sealwire certs sign node8.csr --role worker
      sealwire certs sign node8.csr --role worker --days 30 --out -

    Exit codes: 0 signed, 1 failed, 2 wrong usage.
    """
    path = out or folder / f"{csr.stem}.pem"
    grant(role, (), csr=csr, own_names=True, out=path, folder=folder, **given)


def grant(
    role: str,
    names: tuple[str, ...],
    *,
    node: str | None,
    days: float,
    csr: Path | None,
    own_names: bool,
    out: Path,
    folder: Path,
    password_file: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Issue a certificate and write it, for `issue` and `sign`."""
    with opened(folder, password_file, dry_run) as store:
        from sealwire.security.x509.certinfo import CertificateInfo, hexadecimal
        from sealwire.security.x509.names import split
        from sealwire.security.x509.templates import ends_early

        request = None if csr is None else _request(csr)
        hosts, ips = split(names)
        path = None if str(out) == "-" else out
        how: dict[str, Any] = {"node": node, "request": request, "own_names": own_names}
        certificate, text, writes = store.issue(role, hosts, ips, days=days, path=path, **how)
        info = CertificateInfo.of(certificate)
        cut = ends_early(certificate, days)
        result = {
            "subject": info.subject,
            "role": role,
            "node": info.node,
            "names": info.names,
            "serial": hexadecimal(info.serial),
            "issuer": info.issuer,
            "not_after": moment(info.not_after),
            "cut_to_ca": cut,
            "fingerprint": info.fingerprint,
        }
        if path is None and not dry_run:
            if csr is None:
                raise Failed(
                    "cannot print the identity: a key is never shown; name a file with --out"
                )
            if not as_json:
                from sealwire.security.ca.atomic_files import apply

                apply(writes)
                click.echo(text, nl=False)
                return
            result["certificate"] = text
        finish(writes, dry_run=dry_run, as_json=as_json, result=result)
    if not as_json:
        alternatives = ", ".join(info.names) or "no names"
        click.echo(visible(f"{info} ({alternatives})"))
        if cut:
            click.echo(words_of_cut(days, info.not_after))


def _request(path: Path) -> x509.CertificateSigningRequest:
    from cryptography import x509

    from sealwire.security.pem_blocks import blocks
    from sealwire.security.pem_shapes import contents_of, decoded, looks_of, normalised

    data = content_of(path, _LARGEST, "the request")
    text = normalised(decoded(data))
    try:
        return x509.load_pem_x509_csr(text.encode())
    except ValueError as error:
        found = blocks(text)
        why = f"it is no PEM certificate request, {contents_of(found, looks_of(data))}"
        if any(block.label.endswith("CERTIFICATE REQUEST") for block in found):
            why = "the request in it is damaged"
        raise Failed(f"cannot use {path}: {why}; make one with: openssl req -new") from error
