"""What other machines get: a `dask.yaml` for where they see the files, and folders to copy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import AuthorityError
from .atomic_files import Write
from .bootstrap import _quoted, configuration, must_be_nameable
from .folder import Folder
from .store import CONFIG, CRL, TRUST, Store

__all__ = ["Packed", "pack", "place_named", "relocated"]

_LINE = re.compile(r"(\s*(?:- )?[A-Za-z_-]+:\s+)(\S.*?)(\s+#.*|\s*)")


def place_named(folder: Folder) -> str:
    """Return the folder that the `dask.yaml` in a folder names, where processes see the files.

    Its own path where there is no `dask.yaml`. Raises `AuthorityError` for one that names none.
    """
    if not folder.has(CONFIG):
        return os.path.abspath(folder.path)
    return _named(folder.read(CONFIG).decode("utf-8", "replace"), folder.path / CONFIG)


def relocated(folder: Folder, at: str) -> str:
    """Return the folder's `dask.yaml` for processes that see the files in `at`.

    Whatever else stands in it stays. A new one where there is none. Raises `AuthorityError` if it
    cannot be read, or has paths where they cannot be told from other text.
    """
    if not folder.exists():
        raise AuthorityError(
            f"cannot use {folder.path}: there is no such folder; name it with --dir"
        )
    must_be_nameable(at)
    if not folder.has(CONFIG):
        return configuration(at)
    text, path = folder.read(CONFIG).decode("utf-8", "replace"), folder.path / CONFIG
    there = _named(text, path)
    made = "".join(_line(line, there, at) for line in text.splitlines(keepends=True))
    if there != at and any(os.path.dirname(each) == there for each in _texts(_parsed(made, path))):
        raise AuthorityError(
            f"cannot write {path} for {at}: it names files in {there} in a form that is not known "
            "here; write each path on a line of its own, as init does"
        )
    return made


@dataclass(frozen=True)
class Packed:
    """An identity to pack: its role and its file's text; `folder` is the name of where it goes."""

    folder: str
    role: str
    text: str
    private: bool


def pack(
    store: Store,
    identities: Iterable[Packed],
    to: Path,
    at: str | None = None,
    fresh: Mapping[str, str] | None = None,
) -> list[Write]:
    """Return the writes of a folder to copy for each: CA, CRLs, configuration, identity.

    `at` is where the copies will be seen, if not where `dask.yaml` says; `fresh` are texts of files
    here that are about to be written. Raises `AuthorityError` for two identities of one role that
    go to the same folder.
    """
    config = relocated(store.folder, at or place_named(store.folder))
    common = {CONFIG: config, TRUST: store.folder.text(TRUST)}
    crl = (fresh or {}).get(CRL)
    if crl is not None or store.folder.has(CRL):
        common[CRL] = crl if crl is not None else store.folder.text(CRL)
    writes: dict[Path, Write] = {}
    for each in identities:
        place = to / _as_name(each.folder)
        mine = place / f"{each.role}.pem"
        if mine in writes:
            raise AuthorityError(
                f"cannot pack {mine}: there are two identities of a {each.role} for {each.folder}; "
                "name the one that is meant"
            )
        for name, text in common.items():
            writes[place / name] = Write(place / name, text, "for everybody")
        writes[mine] = Write(mine, each.text, f"the {each.role}'s identity", private=each.private)
    return list(writes.values())


def _as_name(text: str) -> str:
    """Make a text the name of a folder."""
    name = re.sub(r"[/\\:\0]", "_", text).replace("*", "any")
    return f"_{name}" if name.startswith(".") else name or "_"


def _line(line: str, there: str, at: str) -> str:
    body = line.rstrip("\r\n")
    found = _LINE.fullmatch(body)
    if found is None:
        return line
    try:
        value = yaml.safe_load(found[2])
    except yaml.YAMLError:
        return line
    if not isinstance(value, str) or os.path.dirname(value) != there:
        return line
    return f"{found[1]}{_quoted(at, os.path.basename(value))}{found[3]}{line[len(body) :]}"


def _named(text: str, path: Path) -> str:
    found = _parsed(text, path)
    for key in ("distributed", "comm", "tls", "ca-file"):
        found = found.get(key) if isinstance(found, Mapping) else None
    if not isinstance(found, str) or not os.path.dirname(found):
        raise AuthorityError(
            f"cannot use {path}: it names no folder in distributed.comm.tls.ca-file; "
            "set that, or move the file away to have a new one made"
        )
    return os.path.dirname(found)


def _parsed(text: str, path: Path) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark is not None else "somewhere"
        raise AuthorityError(f"cannot use {path}: it is no YAML, {where}; correct it") from None


def _texts(tree: Any) -> Iterator[str]:
    """All strings of a tree."""
    if isinstance(tree, Mapping):
        tree = list(tree.values())
    if isinstance(tree, list):
        for each in tree:
            yield from _texts(each)
    elif isinstance(tree, str):
        yield tree
