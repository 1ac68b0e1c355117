"""The formats of files: which one a file is in, and reading and writing each.

YAML, JSON and TOML hold nested mappings (``nesting``). A .env file holds names as ``kvorum env`` makes them
of keys (``environment``), a .properties file has dots for slashes (``properties``); in both a value that is
no text, or begins with ``base64:``, is written as ``base64:`` and its base64.
"""

from __future__ import annotations

import base64
import binascii
import json
import tomllib
from collections.abc import Collection, Mapping
from pathlib import PurePath
from typing import Any

from kvorum.cli.data import dotenv, nesting, properties
from kvorum.cli.data.environment import variable_name, variables
from kvorum.cli.data.keys import shown
from kvorum.cli.data.nesting import BadContent, Written

FORMATS = ("yaml", "json", "toml", "env", "properties")
_SUFFIXES = {f".{name}": name for name in FORMATS} | {".yml": "yaml"}
_ENCODED = "base64:"


def format_of(name: str) -> str | None:
    """By the suffix of a file's name; ``.env`` and ``.env.local`` are names of .env files."""
    path = PurePath(name)
    if path.name == ".env" or path.name.startswith(".env."):
        return "env"
    return _SUFFIXES.get(path.suffix.lower())


def read(data: bytes, format_: str, existing: Collection[str] = ()) -> dict[str, bytes]:
    """Keys and values. ``existing`` are the keys that a variable of an .env file may stand for. Raises
    BadContent."""
    try:
        return _read(data.decode("utf-8-sig"), format_, existing)
    except UnicodeDecodeError as error:
        raise BadContent(f"byte {error.start} is no UTF-8") from None
    except RecursionError:
        raise BadContent("mappings or lists are nested too deep, or contain themselves") from None


def _read(text: str, format_: str, existing: Collection[str]) -> dict[str, bytes]:
    match format_:
        case "env":
            return _decoded(_as_keys(dotenv.read(text), existing))
        case "properties":
            return _decoded(properties.read(text))
        case "json":
            return nesting.flatten(_read_json(text))
        case "toml":
            return nesting.flatten(_read_toml(text))
        case "yaml":
            from kvorum.cli.data import yaml_format

            content = yaml_format.read(text)
            return nesting.flatten({} if content is None else content)
    raise AssertionError(format_)


def write(values: Mapping[bytes, bytes], format_: str, *, typed: bool = False) -> bytes:
    """A file of these keys, in their order. Raises BadContent where a key cannot stand in such a file."""
    named = {_name(key): value for key, value in values.items()}
    try:
        return _written(named, format_, typed).encode()
    except RecursionError:
        raise BadContent("a key has too many slashes to be nested") from None


def _written(named: Mapping[str, bytes], format_: str, typed: bool) -> str:
    match format_:
        case "env":
            variable = variables(named)
            return dotenv.write({name: _text(named[key]) for name, key in variable.items()})
        case "properties":
            return properties.write({key: _text(value) for key, value in named.items()})
        case "json":
            nested = without_bytes(nesting.nest(named, typed=typed))
            return json.dumps(nested, indent=2, ensure_ascii=False) + "\n"
        case "toml":
            import tomli_w

            return tomli_w.dumps(without_bytes(nesting.nest(named, typed=typed)))
        case "yaml":
            from kvorum.cli.data import yaml_format

            return yaml_format.write(nesting.nest(named, typed=typed))
    raise AssertionError(format_)


def _name(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise BadContent(f"the key {shown(key)} is no UTF-8 text, and cannot be a name in a file") from None


def without_bytes(content: Any) -> Any:
    """With bytes as mappings of ``$base64``, for formats that have no bytes."""
    match content:
        case dict():
            return {name: without_bytes(value) for name, value in content.items()}
        case bytes():
            return {nesting.BINARY: base64.b64encode(content).decode()}
    return content


def _read_json(text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise BadContent(f"the name {twice} is given twice")
        return found

    def no_number(text: str) -> Any:
        raise BadContent(f"{text} is no JSON")

    try:
        return json.loads(
            text,
            object_pairs_hook=once,
            parse_int=lambda text: Written.of(text, int(text)),
            parse_float=lambda text: Written.of(text, float(text)),
            parse_constant=no_number,
        )
    except json.JSONDecodeError as error:
        raise BadContent(f"line {error.lineno}: {error.msg}") from None
    except BadContent:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise BadContent(str(error)) from None


def _read_toml(text: str) -> Any:
    try:
        return tomllib.loads(text, parse_float=lambda text: Written.of(text, float(text)))
    except ValueError as error:  # also an integer of thousands of digits
        raise BadContent(str(error)) from None


def _as_keys(named: Mapping[str, str], existing: Collection[str]) -> dict[str, str]:
    """A variable stands for the key that ``kvorum env`` makes it of, where there is one; else for the key of
    its own name."""
    known: dict[str, str] = {}
    for key in existing:
        name = variable_name(key)
        if name in named and known.setdefault(name, key) != key:
            raise BadContent(f"{name} may stand for the key {known[name]} or {key}")
    return {known.get(name, name): value for name, value in named.items()}


def _text(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return _ENCODED + base64.b64encode(value).decode()
    if "\0" in text or text.startswith(_ENCODED):
        return _ENCODED + base64.b64encode(value).decode()
    return text


def _decoded(values: Mapping[str, str]) -> dict[str, bytes]:
    found = {}
    for key, text in values.items():
        if not text.startswith(_ENCODED):
            found[key] = text.encode()
            continue
        try:
            found[key] = base64.b64decode(text.removeprefix(_ENCODED), validate=True)
        except (binascii.Error, ValueError):
            raise BadContent(f"the value of {key} is no base64, as {_ENCODED} says it is") from None
    return found
