"""`sealwire config`: the settings that a process started here would have, and where from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from sealwire.cli.certs.common import errors, json_option, options
from sealwire.cli.console import to_json, visible

if TYPE_CHECKING:
    from sealwire.cli.config.sources import Value
    from sealwire.security.checks.findings import Finding

#: Dask's own settings that count here, too, besides those of `security.config`
THEIRS = (
    "distributed.comm.default-scheme",
    "distributed.comm.timeouts.tcp",
    "distributed.comm.socket-backlog",
    *(f"distributed.{process}.preload" for process in ("scheduler", "worker", "nanny", "client")),
)
HIDDEN = "<hidden>"
#: variables that are read, and no settings
VARIABLES = ("SEALWIRE_CERTS", "SEALWIRE_CA_PASSWORD", "SEALWIRE_JOINED")


class Row(NamedTuple):
    """A line of the output: a setting, what may be shown of it, what applies if it is null."""

    key: str
    value: Any
    shown: Any
    applies: str | None
    kind: str
    source: str

    def as_json(self) -> dict[str, Any]:
        """Return it for `--json`."""
        plain = self.shown is None or isinstance(self.shown, (bool, int, float, str, list))
        return {
            "key": self.key,
            "value": self.shown if plain else str(self.shown),
            "applies": self.applies,
            "source": {"kind": self.kind, "name": self.source},
        }

    @property
    def words(self) -> str:
        """The value in words."""
        if self.shown is None or isinstance(self.shown, bool):
            text = {None: "null", True: "true", False: "false"}[self.shown]
        else:
            text = str(self.shown) or "''"
        return f"{text} ({self.applies})" if self.applies else text


@click.command("config", short_help="Print the settings that apply here, and their sources.")
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@options(
    click.option(
        "--with",
        "given",
        metavar="KEY=VALUE",
        multiple=True,
        help="A setting to try, as if a program had set it; may be repeated.",
    ),
    json_option,
)
def command(file: Path | None, given: tuple[str, ...], as_json: bool) -> None:
    """Print every setting, its value for a process that is started here, and where it is from.

    An argument takes precedence over a variable, then over a file, then over the default. FILE is
    read as if DASK_CONFIG named it. Secrets are not printed. Problems are reported: unusable
    values, unknown keys with the nearest known one, and files that Dask does not read. To check the
    certificates, use `sealwire certs check`.

    \b
      sealwire config
      sealwire config certs/dask.yaml
      sealwire config --with sealwire.limits.max-queued="64 MiB"
      sealwire config --json

    Exit codes: 0 all can be used, 1 warnings, 2 errors (also: wrong usage).
    """
    from sealwire.cli.config import judge, sources
    from sealwire.security import config_files

    with errors(exit_code=2):
        arguments = dict(_argument(each) for each in given)
        places = config_files.places(os.environ)
        if file is not None:
            if not file.exists():
                raise click.UsageError(f"cannot read {file}: there is no such file or folder")
            places = [*(each for each in places if each != str(file)), str(file)]
        found, wrong = sources.collected(places, os.environ, arguments)
        usable = judge.with_dask() and not any(each.severity == "error" for each in wrong)
        values = {**sources.defaults_of_distributed(), **found}
        rows = list(_effective(values))
        wrong += _judged(found, rows, usable)
    if as_json:
        told = {
            "settings": [each.as_json() for each in rows],
            "files": config_files.listed(places),
            "findings": [vars(each) for each in wrong],
        }
        click.echo(to_json(told, default=str))
    else:
        _print(rows, wrong)
    severities = {each.severity for each in wrong}
    raise SystemExit(2 if "error" in severities else 1 if "warning" in severities else 0)


def _argument(text: str) -> tuple[str, Any]:
    from sealwire.cli.config.sources import interpreted

    key, found, value = text.partition("=")
    if not found or not all(key.strip().split(".")):
        raise click.BadParameter("write KEY=VALUE, such as sealwire.limits.max-queued='64 MiB'")
    return key.strip(), interpreted(value)


def _effective(values: Mapping[str, Value]) -> Iterator[Row]:
    """Yield each setting that there is."""
    from sealwire.cli.config import judge
    from sealwire.security import schema
    from sealwire.security.config import KEYS

    settings = schema.settings()
    own = [key for key in settings if key not in KEYS.values()]
    for key in (*KEYS.values(), *own, *THEIRS):
        setting = settings.get(key)
        about = setting.about if setting is not None else {}
        unset = str(about["x-unset"]).replace("`", "") if "x-unset" in about else None
        variable = about.get("x-variable", "")
        if text := os.environ.get(variable, ""):
            yield Row(key, text, _shown(text, about), None, "variable", variable)
            continue
        names = [each for each in values if each == key or each.startswith(f"{key}.")]
        for name in names:
            value, source = values[name]
            nothing = judge.is_unset(name, value)
            if nothing and setting is not None and unset is None:
                unset = setting.effective
            applies = unset if nothing else None
            yield Row(name, value, _shown(value, about), applies, *source)
        if not names:
            default = setting.default if setting is not None else None
            yield Row(key, None, default, unset if default is None else None, "default", "")


def _shown(value: Any, about: Mapping[str, Any]) -> Any:
    """Return what may be shown of a value."""
    from sealwire.security.quoting import is_large, shown

    if about.get("x-secret") and value is not None:
        return HIDDEN
    text = shown(value)
    return value if not is_large(value) and text == repr(value) else f"<{text}>"


def _judged(found: Mapping[str, Value], rows: Sequence[Row], usable: bool) -> Iterator[Finding]:
    from sealwire.cli.config import judge
    from sealwire.security import config, config_files, schema
    from sealwire.security.checks.findings import ERROR, NOTE, WARNING, Finding
    from sealwire.security.config import KEYS

    def where(key: str) -> str:
        source = next((v.source for k, v in found.items() if k == key or k.startswith(key)), None)
        return f"in {source.name}" if source is not None else "there"

    vain = config_files.named_in_vain()
    if vain is not None:
        yield Finding(WARNING, "no-such-file", "DASK_CONFIG", *vain)
    for row in rows:
        if row.kind == "default":
            continue
        value, place = row.value, f"correct it in {row.source}"
        if row.kind == "variable" and row.key.startswith(KEYS["tls_key_password"]):
            value = os.environ.get(row.source, value)  # the text, though it may be a number's
        why = judge.judged(row.key, value, usable=usable)
        if why is not None:
            yield Finding(ERROR, "bad-value", row.key, why, place)
        setting = schema.settings().get(row.key)
        if setting is not None and setting.about.get("x-dask") and not judge.with_dask():
            words = "only the Dask backend reads it, and Dask is not installed here"
            yield Finding(NOTE, "needs-dask", row.key, words, "pip install 'sealwire[dask]'")
    for section in (*config.ABOVE_TLS, "distributed.comm.tls", schema.ROOT, *_sections()):
        if section in found and found[section].value is not None:
            kind = type(found[section].value).__name__
            words = f"expected a mapping with settings, got {kind}"
            yield Finding(ERROR, "bad-value", section, words, f"correct it {where(section)}")
    for unknown in _unknown(found):
        near = f"rename it to {unknown.nearest}" if unknown.nearest else "remove it"
        words = f"nobody reads this key ({where(unknown.key)})"
        yield Finding(
            ERROR if unknown.nearest else WARNING, "unknown-key", unknown.key, words, near
        )
    yield from _variables()


def _sections() -> list[str]:
    from sealwire.security import schema

    return [f"{schema.ROOT}.{section}" for section in schema.sections()]


def _unknown(found: Mapping[str, Value]) -> list[Any]:
    from sealwire.security import config

    def get(key: str) -> Any:
        tree: dict[str, Any] = {}
        for name, value in found.items():
            if not key:
                top, _, rest = name.partition(".")
                tree.setdefault(top, {})[rest.partition(".")[0]] = value.value
            elif name.startswith(f"{key}."):
                tree[name.removeprefix(f"{key}.")] = value.value
        return _tree(tree)

    return list(config.unknown_in(get))


def _tree(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *above, last = name.split(".")
        place = tree
        for each in above:
            place = place.setdefault(each, {})
        place[last] = value
    return tree


def _variables() -> Iterator[Finding]:
    """Report variables that were meant for us and that nobody reads."""
    import difflib

    from sealwire.security import schema
    from sealwire.security.checks.findings import ERROR, WARNING, Finding

    about = [each.about for each in schema.settings().values()]
    names = [*VARIABLES, *(each["x-variable"] for each in about if "x-variable" in each)]
    keys = [key.upper().replace(".", "__").replace("-", "_") for key in schema.settings()]
    settings = [f"DASK_{key}" for key in keys]
    for name in os.environ:
        upper = name.upper()
        ours = upper.startswith(("SEALWIRE_", "DASK_SEALWIRE"))
        if not ours or name in names or name.startswith("DASK_"):
            continue
        (near,) = difflib.get_close_matches(upper, [*names, *settings], 1, 0.6) or ("",)
        yield Finding(
            ERROR if near else WARNING,
            "unknown-variable",
            name,
            "nobody reads this variable",
            f"rename it to {near}" if near else "remove it",
        )


def _print(rows: Sequence[Row], wrong: Sequence[Finding]) -> None:
    wide = [
        min(most, max(len(text) for text in column))
        for most, column in ((44, [x.key for x in rows]), (30, [x.words for x in rows]))
    ]
    for row in rows:
        source = row.source if row.kind == "file" else f"{row.kind} {row.source}".strip()
        texts = f"{visible(row.key):{wide[0]}}  {visible(row.words):{wide[1]}}"
        click.echo(f"{texts}  {visible(source)}")
    for finding in wrong:
        click.echo(
            f"\n{finding.severity} {visible(finding.subject)}: {visible(finding.message)}\n"
            f"  {finding.code}  {visible(finding.advice)}"
        )
