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
_LONGEST_LABEL, _LONGEST_NAME = 63, 253  # characters (RFC 1035)
_LONGEST_QUOTE = 300  # characters of a name in an error
_SEVERAL = re.compile(r"[,;{}]|\[[0-9][0-9,-]*\]")  # as lists, Slurm and shells write hosts
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PORT = re.compile(r"(.*[^:]):\d*")  # behind a name, or an address of version 4 or in brackets


def subject(name: str, node: str | None = None) -> x509.Name:
    """Return a subject with this common name, and that of a node as a second one.

    Peers are judged by either. Raises `AuthorityError` for an unusable one.
    """
    both = [name] if node is None else [name, node]
    return x509.Name([attribute for each in both for attribute in _common_name(each)])


def _common_name(name: str) -> x509.Name:
    if not 1 <= len(name) <= _LONGEST:  # older releases of cryptography do not check
        raise AuthorityError(
            f"cannot issue {_quoted(name)}: a common name has 1 to 64 characters, got {len(name)}"
        )
    if not name.isprintable():
        raise AuthorityError(
            f"cannot issue {_quoted(name)}: a common name has printable characters only"
        )
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
    """Separate host names and IP addresses, as people write them.

    Brackets around an address and a dot behind a name are removed. Raises `AuthorityError` for what
    is neither a host nor an address, with what to write instead.
    """
    hosts, ips = [], []
    for name in names:
        bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
        try:
            address = ipaddress.ip_address(bare)
        except ValueError:
            bare = name.removesuffix(".")
            why = _unfit(bare)
            if why is not None:
                raise AuthorityError(
                    f"cannot issue a certificate for {_quoted(name)}: {why}"
                ) from None
            hosts.append(bare)
            continue
        if getattr(address, "scope_id", None):
            raise AuthorityError(
                f"cannot issue a certificate for {_quoted(name)}: a zone (%…) is one machine's own "
                f"word; give {bare.partition('%')[0]} alone"
            )
        ips.append(str(address))
    return hosts, ips


def _quoted(name: str) -> str:
    """Return a name for an error; of a long one, which is hardly a name, its beginning."""
    return repr(name) if len(name) <= _LONGEST_QUOTE else f"{name[:_LONGEST_QUOTE]!r}…"


def _unfit(name: str) -> str | None:
    """Why a text is no host's name, and what to give in its place; None if it is one."""
    if _URL.match(name):
        return f"it is an address with a scheme; give the host in it alone{_host_in(name)}"
    if "@" in name:
        return (
            "it looks like a person's; names are those of hosts. Leave it out, and name the file "
            "after the person with --out"
        )
    if "/" in name:
        return "it looks like a network or a path; give each host or address by itself"
    if (port := _PORT.fullmatch(name)) and (port[1].endswith("]") or ":" not in port[1]):
        return f"it has a port; give the host alone{_host_in(name)}"
    if _SEVERAL.search(name):
        return (
            "it looks like several hosts; give each by itself (scontrol show hostnames lists those "
            "of Slurm)"
        )
    if ":" in name or "[" in name or _is_no_address(name):
        return "it looks like an IP address and is none; correct it"
    if not name.isascii():
        return f"it has characters beyond ASCII{_ascii_form(name)}"
    if not _DNS_NAME.fullmatch(name):
        return (
            "it is not a DNS name, which has letters, digits, hyphens and underscores, with a dot "
            "between its parts"
        )
    longest = max(len(label) for label in name.split("."))
    if longest > _LONGEST_LABEL:
        return f"a part of it has {longest} characters, a DNS name has at most {_LONGEST_LABEL}"
    if len(name) > _LONGEST_NAME:
        return f"it has {len(name)} characters, a DNS name has at most {_LONGEST_NAME}"
    return None


def _is_no_address(name: str) -> bool:
    """Whether a text has the digits and dots of an address, and is none."""
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return bool(re.fullmatch(r"[0-9.]*\.[0-9.]*", name))
    return False


def _host_in(name: str) -> str:
    """`: node7` for an address with that host in it, "" if none can be made out."""
    place = _URL.sub("", name).partition("/")[0].rpartition("@")[2]
    found = _PORT.fullmatch(place)
    host = found[1] if found and (found[1].endswith("]") or ":" not in found[1]) else place
    host = host.strip("[]")
    return f": {host}" if host and host.isascii() and host.isprintable() else ""


def _ascii_form(name: str) -> str:
    """`; give its form …` for an international name, if it has one."""
    try:
        form = name.encode("idna").decode()
    except UnicodeError:
        form = ""
    if not _DNS_NAME.fullmatch(form):
        return ", and this one has no xn-- form; correct it"
    return f"; give its xn-- form: {form}"


def alternatives(
    name: str, hosts: Iterable[str], ips: Iterable[str], permitted: x509.NameConstraints | None
) -> list[x509.GeneralName]:
    """Return the alternative names of a certificate for `name`.

    That is `name` itself if nothing else is given and it is valid as one. Raises `AuthorityError`
    for an invalid name, and for one outside the CA's constraints.
    """
    found: list[x509.GeneralName] = []
    for given, field in ((hosts, "names"), (ips, "ips")):
        _expect_several(given, f"cannot issue {name!r}: {field}")
    for host in hosts:
        why = _unfit(host)
        if why is not None:
            raise AuthorityError(f"cannot issue {name!r}: {host!r} is not a DNS name: {why}")
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
    if not found and _unfit(name) is None:
        itself = [x509.DNSName(name)]
        found += [] if outside(itself, permitted) else itself
    return found


def constraints(permitted: Iterable[str]) -> x509.NameConstraints | None:
    """Name constraints from domains (`lab.example`) and networks (`10.0.0.0/8`); None from none.

    Raises `AuthorityError` for anything else.
    """
    trees: list[x509.GeneralName] = []
    _expect_several(permitted, "cannot constrain a CA: permitted")
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


def _expect_several(given: object, what: str) -> None:
    """Raise `AuthorityError` for one text, each character of which would be taken for a name."""
    if isinstance(given, str | bytes):
        raise AuthorityError(f"{what} is {given!r}, need a list of them, as [{given!r}]")


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
