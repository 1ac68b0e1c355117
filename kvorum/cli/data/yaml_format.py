"""YAML: mappings whose scalars are taken as they are written (``1.10``, ``0755`` and ``no`` stay these
texts), with YAML 1.2's numbers and booleans inside lists."""

from __future__ import annotations

import re
from typing import Any

import yaml

from kvorum.cli.data.nesting import BadContent, Written

_NULL = "tag:yaml.org,2002:null"
_BOOL = "tag:yaml.org,2002:bool"
_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """The core schema of YAML 1.2 in place of 1.1's, and names that are given twice are refused."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  # pyyaml's own class attribute

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        if not isinstance(node, yaml.MappingNode):
            raise BadContent(f"line {node.start_mark.line + 1}: expected a mapping, as its tag says")
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise BadContent(
                    f"line {key.start_mark.line + 1}: a name is a mapping or a list: expected text"
                )
            if key.value in seen:
                raise BadContent(f"line {key.start_mark.line + 1}: the name {key.value} is given twice")
            if key.tag != _MERGE:
                seen.add(key.value)
                if key.tag in (_BOOL, _INT, _FLOAT, _NULL):
                    key.tag = "tag:yaml.org,2002:str"  # a name is text, whatever it looks like
        self.flatten_mapping(node)
        return {
            self.construct_object(key, deep=True): self.construct_object(value, deep=True)
            for key, value in node.value
        }


def _written(of: Any) -> Any:
    def construct(loader: _Loader, node: yaml.ScalarNode) -> Written:
        try:
            return Written.of(node.value, of(node.value))
        except ValueError:
            line = node.start_mark.line + 1
            raise BadContent(f"line {line}: {node.value!r} is not what its tag says") from None

    return construct


def _float(text: str) -> float | str:
    return text if text.lstrip("+-").lower() in (".inf", ".nan") else float(text)


for _tag, _pattern, _first in (
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_INT, r"[-+]?[0-9]+", list("-+0123456789")),
    (_FLOAT, r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    (_MERGE, r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)
_Loader.add_constructor(_INT, _written(int))
_Loader.add_constructor(_FLOAT, _written(_float))
_Loader.add_constructor(_BOOL, _written(lambda text: text.lower() == "true"))
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _written(str))


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # What has lines stands in lines, to be read and edited; the emitter knows where that cannot be.
    style = "|" if "\n" in text.rstrip("\n") else None
    if not text.replace("\n", "").isprintable():
        style = '"'  # the emitter would break lines at \x85
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def read(text: str) -> Any:
    """Raises BadContent, with the line."""
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise BadContent(f"{where}{error.problem or error}") from None
    except yaml.YAMLError as error:
        raise BadContent(" ".join(str(error).split())) from None


def write(content: Any) -> str:
    return yaml.dump(
        content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=2**31
    )
