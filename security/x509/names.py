"""Names in certificates: subjects, alternative names, and name constraints."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence

from cryptography import x509
from cryptography.x509.oid import NameOID

from ..errors import AuthorityError

__all__ = [
    "alternatives",
    "common_name",
    "constraints",
    "constraints_of",
    "extension",
    "hosts_of",
    "is_node_outside",
    "node_among",
    "node_name",
    "outside",
    "permitted",
    "split",
    "subject",
]

_LONGEST = 64  # characters of a common name, by RFC 5280
_DNS_NAME = re.compile(r"[A-Za-z0-9_*-]+(\.[A-Za-z0-9_-]+)*")


def subject(name: str, node: str | None = None) -> x509.Name:
    """Return a subject with this common name, and that of a node as a second one.

    Peers are judged by either. Raises `AuthorityError` for an unusable one.
    """
    both = [name] if node is None else [name, node]
    return x509.Name([attribute for each in both for attribute in _common_name(each)])


def _common_name(name: str) -> x509.Name:
    if not 1 <= len(name) <= _LONGEST:  # older releases of cryptography do not check
        raise AuthorityError(
            f"cannot issue {name!r}: a common name has 1 to 64 characters, got {len(name)}"
        )
    if not name.isprintable():
        raise AuthorityError(f"cannot issue {name!r}: a common name has printable characters only")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def common_name(name: x509.Name) -> str:
    """Return the common name of a subject, "" if it has none."""
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def node_name(name: x509.Name) -> str:
    """Return the node in a subject: its second common name, empty if it has none."""
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[1].value) if len(found) > 1 else ""


def node_among(names: Iterable[str], permitted: x509.NameConstraints | None) -> str | None:
    """Return the first host or address that names a single node and fits in a common name."""
    fitting = (each for each in names if "*" not in each and len(each) <= _LONGEST)
    return next((each for each in fitting if not is_node_outside(each, permitted)), None)


def is_node_outside(node: str, permitted: x509.NameConstraints | None) -> bool:
    """Whether the constraints forbid a node's name.

    OpenSSL holds a common name with a dot to them, in certificates without a DNS name, if it could
    be one, as addresses could.
    """
    if "." not in node or not _DNS_NAME.fullmatch(node):
        return False
    return bool(outside([x509.DNSName(node)], permitted))


def split(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Separate host names and IP addresses."""
    hosts, ips = [], []
    for name in names:
        try:
            ips.append(str(ipaddress.ip_address(name)))
        except ValueError:
            hosts.append(name)
    return hosts, ips


def alternatives(
    name: str, hosts: Iterable[str], ips: Iterable[str], permitted: x509.NameConstraints | None
) -> list[x509.GeneralName]:
    """Return the alternative names of a certificate for `name`.

    That is `name` itself if nothing else is given and it is valid as one. Raises `AuthorityError`
    for an invalid name, and for one outside the CA's constraints.
    """
    found: list[x509.GeneralName] = []
    for host in hosts:
        if not _DNS_NAME.fullmatch(host):
            raise AuthorityError(
                f"cannot issue {name!r}: {host!r} is not a DNS name; "
                "write international names in their xn-- form and addresses as ips"
            )
        found.append(x509.DNSName(host))
    for ip in ips:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(ip)))
        except ValueError as error:
            raise AuthorityError(f"cannot issue {name!r}: {ip!r} is not an IP address") from error
    for each in outside(found, permitted):
        raise AuthorityError(
            f"cannot issue {name!r}: {each} is outside the names that the CA may sign for, "
            f"{_shown(permitted)}; use a name within them or another CA"
        )
    if not found and _DNS_NAME.fullmatch(name):
        itself = [x509.DNSName(name)]
        found += [] if outside(itself, permitted) else itself
    return found


def constraints(permitted: Iterable[str]) -> x509.NameConstraints | None:
    """Name constraints from domains (`lab.example`) and networks (`10.0.0.0/8`); None from none.

    Raises `AuthorityError` for anything else.
    """
    trees: list[x509.GeneralName] = []
    for text in permitted:
        try:
            trees.append(x509.IPAddress(ipaddress.ip_network(text)))
        except ValueError as error:
            domain = text.removeprefix(".")
            if "/" in text or "*" in text or not _DNS_NAME.fullmatch(domain):
                raise AuthorityError(
                    f"cannot constrain a CA to {text!r}: {error if '/' in text else 'not a domain'}"
                    "; give a domain such as lab.example or a network such as 10.0.0.0/8"
                ) from error
            trees.append(x509.DNSName(domain))
    return x509.NameConstraints(trees, None) if trees else None


def constraints_of(certificate: x509.Certificate) -> x509.NameConstraints | None:
    """Return the name constraints of a CA."""
    try:
        return certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return None


def permitted(certificate: x509.Certificate) -> list[str]:
    """Return the permitted domains and networks of a CA, in the form that `constraints` takes."""
    found = constraints_of(certificate)
    return [str(tree.value) for tree in (found and found.permitted_subtrees) or ()]


def outside(names: Sequence[x509.GeneralName], permitted: x509.NameConstraints | None) -> list[str]:
    """Return the names that the constraints forbid; they apply to the kinds they mention."""
    trees = list(permitted.permitted_subtrees or ()) if permitted else []
    found = []
    for name in names:
        bounds = [tree.value for tree in trees if type(tree) is type(name)]
        if bounds and not any(_within(name.value, bound) for bound in bounds):
            found.append(str(name.value))
    return found


def extension(
    certificate: x509.Certificate | x509.CertificateSigningRequest,
) -> list[x509.GeneralName]:
    """All alternative names of a certificate or a request, in order."""
    try:
        value = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return list(value)


def hosts_of(request: x509.CertificateSigningRequest) -> list[str]:
    """Return the DNS names in a request."""
    return [each.value for each in extension(request) if isinstance(each, x509.DNSName)]


def _within(name: object, bound: object) -> bool:
    if isinstance(bound, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return name in bound
    text, domain = str(name).lower(), str(bound).lower()
    return text == domain or text.endswith(f".{domain}")


def _shown(permitted: x509.NameConstraints | None) -> str:
    trees = (permitted.permitted_subtrees or ()) if permitted else ()
    return ", ".join(str(tree.value) for tree in trees)
