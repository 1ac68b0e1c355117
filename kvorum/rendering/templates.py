"""Templates: Jinja2, sandboxed and strict, and what they can ask the store for.

    server_name {{ get("/site/name") }};
    {% for key, address in items("/site/backends/") %}
    server {{ address }};
    {% endfor %}

A key that is not there is undefined: to print it is an error, but ``get("/a") | default("b")`` and
``get("/a") is defined`` work as with any name. Values are text.
"""

from __future__ import annotations

import base64
import json
import os
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from jinja2.sandbox import SandboxedEnvironment

from kvorum.errors import KvorumError
from kvorum.rendering.snapshot import Reads
from kvorum.services.records import BadRecord, Instance, check_name, decode, prefix_of
from kvorum.types import KeyValue

_MISSING: Any = object()


class TemplateFailed(Exception):
    """A template cannot be rendered; the text names it and its line."""


class Item(NamedTuple):
    """``{% for key, value in items(prefix) %}``, or ``item.name``: what stands behind the prefix."""

    key: str
    value: str

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]


class Template:
    """One file, with those beside it for ``include`` and ``import``."""

    def __init__(self, path: Path) -> None:
        """Raises TemplateFailed where it cannot be read or parsed."""
        self._path = path.absolute()
        self._reads: Reads | None = None
        environment = SandboxedEnvironment(
            loader=jinja2.FileSystemLoader(self._path.parent),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.globals.update(self._functions(environment))
        environment.filters.update(_FILTERS)
        try:
            self._template = environment.get_template(self._path.name)
        except jinja2.TemplateNotFound:
            raise TemplateFailed(f"there is no template {path}") from None
        except (jinja2.TemplateError, OSError, UnicodeDecodeError) as error:
            raise self._failed(error) from None

    def render(self, reads: Reads) -> str:
        """Raises TemplateFailed, and what reading raises: KvorumError. ``reads`` has what was read until
        then."""
        self._reads = reads
        try:
            return self._template.render()
        except KvorumError:
            raise
        except Exception as error:  # whatever the template does: it is somebody else's program
            raise self._failed(error) from None
        finally:
            self._reads = None

    def _failed(self, error: Exception) -> TemplateFailed:
        lines = [
            (frame.filename, frame.lineno)
            for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename).parent == self._path.parent
        ]
        name, line = lines[-1] if lines else (str(self._path), None)
        if isinstance(error, jinja2.TemplateSyntaxError):
            name, line = error.filename or name, error.lineno
        where = f"{name}, line {line}" if line else name
        reason = (
            str(error) if isinstance(error, (jinja2.TemplateError, _Complaint, ValueError)) else repr(error)
        )
        return TemplateFailed(f"{where}: {reason}")

    def _functions(self, environment: jinja2.Environment) -> dict[str, Callable[..., Any]]:
        def reads() -> Reads:
            if self._reads is None:
                raise _Complaint("keys can only be asked for while the template is rendered")
            return self._reads

        def get(key: str, default: Any = _MISSING) -> Any:
            found = reads().key(_key(key))
            if found is not None:
                return _text(found.value, f"the value of {key!r}")
            missing = environment.undefined(f"there is no key {key!r}", name=key)
            return missing if default is _MISSING else default

        def exists(key: str) -> bool:
            return reads().key(_key(key)) is not None

        def items(prefix: str) -> list[Item]:
            return [_item(kv) for kv in reads().below(_key(prefix))]

        def ls(folder: str) -> list[str]:
            """What stands directly below it: keys and folders, each once, in order."""
            return list(dict.fromkeys(name.partition("/")[0] for name, _ in below(folder)))

        def tree(folder: str) -> dict[str, Any]:
            return nested(below(folder))

        def below(folder: str) -> list[tuple[str, str]]:
            prefix = folder if folder.endswith("/") or not folder else f"{folder}/"
            return [(item.key[len(prefix) :], item.value) for item in items(prefix)]

        def services(name: str) -> list[Instance]:
            """All instances of a service, by their ids. What is no record of one is left out."""
            found = []
            for kv in reads().below(prefix_of(check_name(name))):
                with suppress(BadRecord):
                    found.append(decode(kv.key, kv.value, kv.lease))
            return found

        def env(name: str, default: Any = _MISSING) -> Any:
            missing = environment.undefined(f"there is no variable {name!r} in the environment", name=name)
            return os.environ.get(name, missing if default is _MISSING else default)

        asking = {"get": get, "exists": exists, "items": items, "ls": ls, "tree": tree}
        return {**asking, "services": services, "env": env}


class _Complaint(Exception):
    """What a function of ours says to who has written the template."""


def nested(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Names with slashes as mappings of mappings. The value of what is a key and a folder too stands in the
    folder, under ""."""
    root: dict[str, Any] = {}
    for name, value in pairs:
        *folders, last = name.split("/")
        at = root
        for folder in folders:
            inner = at.get(folder)
            if not isinstance(inner, dict):
                inner = at[folder] = {} if inner is None else {"": inner}
            at = inner
        if isinstance(at.get(last), dict):
            at[last][""] = value
        else:
            at[last] = value
    return root


def _key(key: str) -> bytes:
    if not isinstance(key, str) or isinstance(key, jinja2.Undefined):
        raise _Complaint(f"a key is text, not {key!r}")
    return key.encode("utf-8", "surrogateescape")


def _item(kv: KeyValue) -> Item:
    key = _text(kv.key, "a key")
    return Item(key, _text(kv.value, f"the value of {key!r}"))


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _Complaint(f"{what} is no UTF-8 text: {data[:40]!r}") from None


# Filters, under the names that Ansible gives them.


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise _Complaint(f"from_json: {error}: {text[:40]!r}") from None


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False)


def _from_yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _Complaint(f"from_yaml: {' '.join(str(error).split())}: {text[:40]!r}") from None


def _to_yaml(value: Any) -> str:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def _b64encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _b64decode(text: str) -> str:
    try:
        return _text(base64.b64decode(text, validate=True), "what is behind b64decode")
    except ValueError as error:
        raise _Complaint(f"b64decode: {error}: {text[:40]!r}") from None


_FILTERS: dict[str, Callable[..., Any]] = {
    "from_json": _from_json,
    "to_json": _to_json,
    "from_yaml": _from_yaml,
    "to_yaml": _to_yaml,
    "b64encode": _b64encode,
    "b64decode": _b64decode,
}
