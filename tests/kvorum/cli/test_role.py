"""role … against etcdctl, on real etcd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.common.commands import run
from tests.kvorum.cli.twins import Twins, twins


@pytest.fixture(scope="module")
def etcds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    with twins(tmp_path_factory.mktemp("twins")) as both:
        yield both


RANGES = {
    "a key": ["k"],
    "a range": ["a", "b"],
    "a range that is a prefix's": ["a", "c"],
    "more words than a range has": ["a", "b", "c"],
    "a range that is empty": ["b", "a"],
    "a prefix": ["p/", "--prefix"],
    "a prefix that is none": ["p/", "--prefix=false"],
    "a prefix of 255": ["p\udcff", "--prefix"],
    "the last prefix": ["\udcff", "--prefix"],
    "all behind a key": ["q", "--from-key"],
    "no key": [""],
    "no key, and an end": ["", "b"],
    "all": ["", "--prefix"],
    "all, another way": ["", "--from-key=true"],
    "both": ["k", "--prefix", "--from-key"],
    "both of no key": ["", "--prefix", "--from-key"],
    "both, and an end": ["a", "b", "--prefix", "--from-key"],
    "a prefix with an end": ["a", "b", "--prefix"],
    "all behind a key with an end": ["a", "b", "--from-key"],
}
FORMATS = ("simple", "json", "fields")


@pytest.mark.parametrize("keys", RANGES.values(), ids=RANGES)
def test_ranges_are_named_and_shown_as_in_etcdctl(keys: list[str], etcds: Twins) -> None:
    """Granted, shown in every format, taken back: the same words and exit codes, and the same permissions."""
    assert etcds.same("role", "add", "r").code == 0
    try:
        is_fine = etcds.same("role", "grant-permission", "r", "readwrite", *keys).code == 0
        for form in FORMATS:
            etcds.same("role", "get", "r", "-w", form)
        assert (etcds.same("role", "revoke-permission", "r", *keys).code == 0) == is_fine
        assert etcds.same("role", "get", "r").out == "Role r\nKV Read:\nKV Write:\n"
    finally:
        etcds.same("role", "delete", "r")


@pytest.mark.parametrize("form", FORMATS)
def test_a_role_s_life_is_told_as_etcdctl_tells_it(form: str, etcds: Twins) -> None:
    """From the first word to the last, in every format that both have."""
    lines = """
    role add writer
    role grant-permission writer read a
    role grant-permission writer WRITE b
    role grant-permission writer ReadWrite c/ --prefix
    role grant-permission writer write a
    role get writer
    role list
    role revoke-permission writer c/ --prefix
    role get writer
    role delete writer
    role list
    """
    for line in lines.strip().splitlines():
        assert etcds.same(*line.split(), "-w", form).code == 0, line


def test_refusals_are_etcdctl_s(etcds: Twins) -> None:
    """The same words and exit codes for what the server does not have, and for words that are missing."""
    etcds.same("role", "add", "there")
    etcds.same_lines("""
    role add
    role add a b
    role add ''
    role add there
    role get
    role get none
    role get a b
    role get there -w table
    role list a
    role list -w table
    role delete
    role delete none
    role delete a b
    role grant-permission there
    role grant-permission there read
    role grant-permission there none k
    role grant-permission none read k
    role revoke-permission there
    role revoke-permission there k
    role revoke-permission none k
    """)
    etcds.same("role", "delete", "there")


def test_a_table_is_refused_before_anything_is_changed(etcds: Twins) -> None:
    """etcdctl makes the role first, and says the same then."""
    refused = (4, "", "Error: table not supported as output format")
    assert run("kvorum", etcds.kvorum, ["role", "add", "r", "-w", "table"]) == refused
    assert run("kvorum", etcds.kvorum, ["role", "get", "r"])[0] == 1
