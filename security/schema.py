"""The settings under `sealwire`: which there are, and their defaults, from the package's two files.

`sealwire.yaml` has the defaults, as Dask's configuration is given them; `sealwire-schema.yaml` says
of each setting what it may be and what it does. Both are read when they are first needed.
"""

from __future__ import annotations

import functools
import pkgutil
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["ROOT", "Setting", "defaults", "is_set", "load", "sections", "settings"]

ROOT = "sealwire"


class Setting(NamedTuple):
    """One setting.

    Attributes
    ----------
    key : str
        Its dotted name.
    default : object
        The value in `sealwire.yaml`.
    about : dict
        What the schema says of it.
    """

    key: str
    default: Any
    about: dict[str, Any]

    @property
    def effective(self) -> str:
        """What applies if nothing is set, in words."""
        if self.default is None:
            return str(self.about["x-unset"])
        words = {True: "true", False: "false"} if isinstance(self.default, bool) else {}
        return words.get(self.default, str(self.default))


def load(text: str | bytes) -> Any:
    """Return what a YAML text says, by the faster parser where PyYAML has it."""
    import yaml

    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@functools.cache
def defaults() -> dict[str, Any]:
    """Return the tree of `sealwire.yaml`; not to be changed."""
    return _tree("sealwire.yaml")


@functools.cache
def sections() -> dict[str, dict[str, Any]]:
    """Return the sections below `sealwire`, each as the schema describes it."""
    found: dict[str, dict[str, Any]] = _tree("sealwire-schema.yaml")["properties"][ROOT][
        "properties"
    ]
    return found


@functools.cache
def settings() -> dict[str, Setting]:
    """Return every setting by its dotted name, in the files' order."""
    values = defaults()[ROOT]
    return {
        key: Setting(key, values[section][name], about)
        for section, there in sections().items()
        for name, about in there["properties"].items()
        for key in (f"{ROOT}.{section}.{name}",)
    }


def is_set(tree: object) -> bool:
    """Whether something is set in a part of the configuration: what is null is not."""
    if isinstance(tree, Mapping):
        return any(map(is_set, tree.values()))
    return tree is not None


def _tree(name: str) -> dict[str, Any]:
    text = pkgutil.get_data(ROOT, name)
    assert text is not None, name
    tree = load(text)
    assert isinstance(tree, dict), name
    return tree
