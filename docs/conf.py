"""How `make docs` makes a site of this folder's Markdown; it needs no network."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import SphinxError

from sealwire.comm.kinds import KINDS

HERE = Path(__file__).resolve().parent

project = "sealwire"
version = release = installed("sealwire")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
source_suffix = {".md": "markdown"}

html_theme = "furo"
html_title = f"sealwire {version}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_show_copyright = False
html_copy_source = False

# Links are written as for a reader of the repository: page.md#heading-in-lower-case.
myst_heading_anchors = 4

# What a package exports is what is documented; `expect_all` checks it. What a class inherits
# belongs to it, but not what every exception, tuple or int has.
PACKAGES = (
    "comm",
    "comm.sync",
    "comm.testing",
    "security",
    "dask_backend",
    "dask_backend.links",
    "joining",
    "metrics",
    "testing",
)
autodoc_default_options = {
    "members": True,
    "imported-members": True,
    "inherited-members": "Exception, BaseException, OSError, RuntimeError, ValueError, TypeError, "
    "SSLError, tuple, dict, int, IntEnum, TypedDict, Protocol",
    "show-inheritance": True,
}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
add_module_names = False
default_role = "py:obj"  # `Comm.read` in a docstring is a link where there is something to link

# A name of ours in a docstring that leads nowhere is an error. Names of others are not links: that
# would need their inventories, and so a network. Nor are classes in signatures that no package
# exports. Several packages have a Security; either is a good link.
nitpicky = True
_EXPORTED = "|".join(re.escape(package) for package in PACKAGES)
nitpick_ignore_regex = [
    ("py:.*", r"(?!sealwire\.).*"),
    ("py:class", rf"sealwire\.(?!({_EXPORTED})\.[A-Z]\w*$).*"),
]
suppress_warnings = ["ref.python"]

# Documents at the top of the repository: their page here, which holds nothing but a link to them.
ABOVE = {
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
    "RELEASING.md": "releasing",
    "SECURITY.md": "reporting",
}


def read(app: Sphinx, page: str, source: list[str]) -> None:
    """Show the documents from above in place of the links to them; let links stay on the site."""
    text = source[0]
    for name, here in ABOVE.items():
        if page == here:
            text = re.sub(r"(\]\(|\]: )docs/", r"\1", (HERE.parent / name).read_text("utf-8"))
    for name, here in ABOVE.items():
        text = re.sub(rf"\]\((\.\./)?{re.escape(name)}", f"]({here}.md", text)
    source[0] = text


def skip(app: Sphinx, what: str, name: str, member: object, skip: bool, options: object) -> bool:
    """Leave out the fields of named tuples: their class's docstring has described them."""
    return skip or type(member).__name__ == "_tuplegetter"


def by_name(
    app: Sphinx,
    what: str,
    name: str,
    member: object,
    options: object,
    shown: str | None,
    returns: Any,
) -> tuple[str | None, Any]:
    """Show `ErrorKind` by its name, which is a list of forty words as a type."""
    kind = f"~typing.Literal[{', '.join(map(repr, KINDS))}]"
    return shown and shown.replace(kind, "ErrorKind"), returns


def expect_all(app: Sphinx, error: Exception | None) -> None:
    """Fail if an exported name of a package is not in the reference."""
    if error is None and app.builder.format == "html":
        known = {name for name, *_ in app.env.domains["py"].get_objects()}
        for package in PACKAGES:
            module = import_module(f"sealwire.{package}")
            missing = {f"sealwire.{package}.{name}" for name in module.__all__} - known
            if missing:
                raise SphinxError(f"not in the reference: {', '.join(sorted(missing))}")


def setup(app: Sphinx) -> None:
    """Let Sphinx call the above."""
    app.connect("source-read", read)
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-signature", by_name)
    app.connect("build-finished", expect_all)
