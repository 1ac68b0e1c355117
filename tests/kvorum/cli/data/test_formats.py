"""Files of keys and values: each format gives back what it was given, and says what it cannot take."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kvorum.cli.data import formats
from kvorum.cli.data.nesting import BadContent

NAMES = st.lists(
    st.sampled_from(
        ["db", "host", "a.b", "", "$base64", "8080", "ü", "true", "<<", "~", "a b", "#x", "=", "\\"]
    ),
    min_size=1,
    max_size=4,
).map("/".join)
TEXTS = st.text(max_size=12) | st.sampled_from(
    [
        "no",
        "1.10",
        "0755",
        "null",
        "",
        "a\nb",
        " x ",
        "base64:AA==",
        "it's",
        '"',
        "$HOME",
        "# no",
        "\x85",
        "a\r\n",
    ]
)
VALUES = TEXTS.map(str.encode) | st.binary(max_size=6)


@given(
    st.dictionaries(NAMES.map(str.encode), VALUES, max_size=8),
    st.sampled_from(formats.FORMATS),
    st.booleans(),
)
def test_what_is_written_is_read_again(values: dict[bytes, bytes], format_: str, typed: bool) -> None:
    """Every key and value of a store goes through a file of every format unchanged."""
    try:
        data = formats.write(values, format_, typed=typed)
    except BadContent:
        assert format_ == "env"  # two keys that give one variable
        return
    existing = [key.decode() for key in values]
    assert formats.read(data, format_, existing) == {key.decode(): value for key, value in values.items()}


@pytest.mark.parametrize(
    ("format_", "text", "expected"),
    [
        ("yaml", "db: {host: a, port: 5432}\n", {"db/host": "a", "db/port": "5432"}),
        ("yaml", "v: 1.10\nm: 0755\nc: no\nt: true\nn:\nd: 2026-01-02\n",
         {"v": "1.10", "m": "0755", "c": "no", "t": "true", "n": "", "d": "2026-01-02"}),
        ("yaml", "8080: x\ntrue: y\n", {"8080": "x", "true": "y"}),
        ("yaml", "l: [a, 1, 1.10, true, no, ~, {b: 2}]\n", {"l": '["a",1,1.1,true,"no",null,{"b":2}]'}),
        ("yaml", "base: &b {x: 1}\nmore: {<<: *b, y: 2}\n", {"base/x": "1", "more/x": "1", "more/y": "2"}),
        ("yaml", "", {}),
        ("yaml", "a: {}\nb: []\n", {"b": "[]"}),
        ("json", '{"a": {"b": 1.10, "c": 12345678901234567890}, "/x": true, "n": null}',
         {"a/b": "1.10", "a/c": "12345678901234567890", "/x": "true", "n": ""}),
        ("json", '{"l": [1.50, null, {"x": "ü"}]}', {"l": '[1.5,null,{"x":"ü"}]'}),
        ("json", '{"db": "x", "db/host": "y"}', {"db": "x", "db/host": "y"}),
        ("toml", 'a = 0x10\nb = 1.50\nt = 2026-01-02T03:04:05Z\n[db]\nhost = "h"\nports = [1, 2]\n',
         {"a": "16", "b": "1.50", "t": "2026-01-02T03:04:05+00:00", "db/host": "h", "db/ports": "[1,2]"}),
        ("env", "# c\nA=1\nexport B = two words # c\nC='it #is'\nD=\"x\\ny \\$Z\\d\"\nE=\n",
         {"A": "1", "B": "two words", "C": "it #is", "D": "x\ny $Z\\d", "E": ""}),
        ("env", "F=#f\nG= # c\r\nH=h\r\n", {"F": "#f", "G": "", "H": "h"}),
        ("properties", "# c\n! c\ndb.host = h\ndb.port:5\nfile\\\\.txt x y\nempty\n",
         {"db/host": "h", "db/port": "5", "file.txt": "x y", "empty": ""}),
        ("properties", "long=a\\\n   b\nu=\\u00fc\\ud83d\\ude00", {"long": "ab", "u": "ü😀"}),
    ],
)  # fmt: skip
def test_what_a_file_says(format_: str, text: str, expected: dict[str, str]) -> None:
    """Paths become keys, and what is not text becomes text by the rules that docs/cli.md gives."""
    found = formats.read(text.encode(), format_)
    assert {key: value.decode() for key, value in found.items()} == expected


@pytest.mark.parametrize(
    ("format_", "text"),
    [("yaml", "a: !!binary AP8=\n"), ("yaml", "a: {$base64: AP8=}\n"), ("json", '{"a": {"$base64": "AP8="}}'),
     ("toml", 'a = {"$base64" = "AP8="}\n'), ("env", "a=base64:AP8=\n"), ("properties", "a=base64:AP8=\n")],
)  # fmt: skip
def test_bytes_that_are_no_text(format_: str, text: str) -> None:
    """Each format has a way to say bytes."""
    assert formats.read(text.encode(), format_) == {"a": b"\x00\xff"}


@pytest.mark.parametrize(
    ("format_", "text", "complaint"),
    [
        ("yaml", "a: 1\na: 2\n", "line 2: the name a is given twice"),
        ("yaml", "a: [1\n", "line 2: expected ',' or ']'"),
        ("yaml", "- a\n", "expected a mapping of names to values at the top, found a list"),
        ("yaml", "just text\n", "expected a mapping of names to values at the top, found text"),
        ("yaml", "a: 1\n---\nb: 2\n", "but found another document"),
        ("yaml", "a: &a {b: *a}\n", "found unconstructable recursive node"),
        ("yaml", "a: !!python/object:os.system x\n", "could not determine a constructor"),
        ("yaml", "a: !!int x\n", "'x' is not what its tag says"),
        ("yaml", "a: !!map [x]\n", "line 1: expected a mapping, as its tag says"),
        ("yaml", "a: 1\n? [b]\n: 2\n", "line 2: a name is a mapping or a list: expected text"),
        ("yaml", "a: [{? {b: 1} : 2}]\n", "line 1: a name is a mapping or a list: expected text"),
        ("yaml", '"\\ud800": 1\n', "half of a surrogate pair"),
        ("json", '{"a": {"b": 1}, "a/b": 2}', "the key a/b is given twice"),
        ("json", '{"a": 1, "a": 2}', "the name a is given twice"),
        ("json", '{"a": NaN}', "NaN is no JSON"),
        ("json", "{", "line 1: Expecting property name"),
        ("json", '{"a": {"$base64": "?"}}', "the value of a is no base64"),
        ("json", '{"a": "\\ud800"}', "half of a surrogate pair"),
        ("json", '{"a": {"\\udcff": "x"}}', "half of a surrogate pair"),
        ("json", "[" * 100_000, "nested too deep"),
        ("json", '{"a": [1e999]}', "the list of a has a number in it that JSON does not know"),
        ("json", '{"a": ' + "1" * 5_000 + "}", "Exceeds the limit (4300 digits)"),
        ("yaml", "[" * 1_000, "nested too deep"),
        ("toml", "a = " + "1" * 5_000, "Exceeds the limit (4300 digits)"),
        ("toml", "a = 1\na = 2\n", "Cannot overwrite a value"),
        ("toml", "a = [inf]\n", "the list of a has a number in it that JSON does not know"),
        ("env", "A=1\nA=2\n", "line 2: A is given twice"),
        ("env", "A=1\nB='x\n", "line 2: a quote is not closed"),
        ("env", "A='x'y\n", "line 1: something follows the closing quote"),
        ("env", "nonsense\n", "line 1: expected NAME=value"),
        ("env", "A=base64:?\n", "the value of A is no base64"),
        ("properties", "a=1\nb=\\\n\\u12\n", "line 2: \\u is not followed by four hexadecimal digits"),
        ("properties", "a=1\na=2\n", "line 2: a is given twice"),
    ],
)  # fmt: skip
def test_what_no_file_may_say(format_: str, text: str, complaint: str) -> None:
    """One sentence that names what is wrong, and where the format has lines, the line."""
    with pytest.raises(BadContent) as refused:
        formats.read(text.encode(), format_)
    assert complaint in str(refused.value)


def test_keys_that_no_file_can_hold() -> None:
    """A key that is no text is named."""
    with pytest.raises(BadContent, match=r'the key "\\xff" is no UTF-8'):
        formats.write({b"\xff": b""}, "json")


def test_a_key_too_deep_to_be_nested() -> None:
    """It is said, rather than that Python's stack is full; flat formats hold it."""
    deep = {b"/".join([b"a"] * 5_000): b""}
    for format_ in ("yaml", "json", "toml"):
        with pytest.raises(BadContent, match="too many slashes"):
            formats.write(deep, format_)
    assert formats.read(formats.write(deep, "properties"), "properties") == {
        key.decode(): value for key, value in deep.items()
    }


def test_two_keys_of_one_variable() -> None:
    """They clash when they are written, and when a file names what they both are."""
    with pytest.raises(BadContent, match="the keys a-b and a/b would both be A_B"):
        formats.write({b"a-b": b"", b"a/b": b""}, "env")
    with pytest.raises(BadContent, match="A_B may stand for the key a-b or a/b"):
        formats.read(b"A_B=1\n", "env", ["a-b", "a/b"])


def test_a_variable_stands_for_the_key_it_was_made_of() -> None:
    """What was exported, edited and imported changes the same keys; new names are keys of that name."""
    found = formats.read(b"DB_MAX_CONNS=5\nNEW_ONE=1\n", "env", ["db/max-conns", "other"])
    assert found == {"db/max-conns": b"5", "NEW_ONE": b"1"}


def test_numbers_stay_text_unless_they_are_asked_for() -> None:
    """With typed, only what reads back as the very same text is a number, a boolean or a list."""
    values = {
        b"a": b"8080",
        b"b": b"1.10",
        b"c": b"true",
        b"d": b"[1,2]",
        b"e": b"1.5",
        b"f": b"007",
        b"g": b"[1, 2]",
    }
    assert json.loads(formats.write(values, "json"))["a"] == "8080"
    assert json.loads(formats.write(values, "json", typed=True)) == {
        "a": 8080, "b": "1.10", "c": True, "d": [1, 2], "e": 1.5, "f": "007", "g": "[1, 2]"
    }  # fmt: skip


def test_others_read_our_files_alike(tmp_path: Path) -> None:
    """PyYAML's own loader sees texts, and a shell reads a .env file as we do."""
    values = {
        b"A": b"no",
        b"B": b'it\'s $HOME `x` \\n "y"',
        b"C": b"a\nb'c\n",
        b"D": b"1.0",
        b"E": b"a\n b\n",
    }
    texts = {key.decode(): value.decode() for key, value in values.items()}
    assert yaml.safe_load(formats.write(values, "yaml")) == texts
    (tmp_path / "file.env").write_bytes(formats.write(values, "env"))
    for name, value in texts.items():
        shell = subprocess.run(
            ["sh", "-c", f'. ./file.env; printf %s "${name}"'], cwd=tmp_path, capture_output=True, check=True
        )
        assert shell.stdout.decode() == value


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.yml", "yaml"),
        ("a.YAML", "yaml"),
        (".env", "env"),
        (".env.local", "env"),
        ("prod.env", "env"),
        ("a", None),
    ],
)
def test_the_format_is_known_by_the_name(name: str, expected: str | None) -> None:
    """The suffix says it."""
    assert formats.format_of(f"some/{name}") == expected
