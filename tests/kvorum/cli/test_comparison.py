"""The compares of txn, beside etcdctl's."""

from __future__ import annotations

import pytest

from kvorum.cli.comparison import parsed
from tests.common.commands import run
from tests.common.servers import Server

LINES = r"""
mod("a") = "0"
 mod("a")  !=  "0"
mod( "a") = "0" x
c(`a`) < `1`
create("a") > "0"
val("compared") = "\x78"
value("\U00000063ompared") > "a"
ver("compared") = "z"
version("compared") = "9223372036854775808"
mod("a")="0"
mod("a") = 0
mod("a" = "0"
mod("a"
mod(a) = "0"
mod('a') = "0"
mod("a\q") = "0"
mod(
mod
mod ("a") = "0"
x("a") = "0"
x(a) = "0"
""".strip("\n").splitlines()


@pytest.mark.parametrize("line", LINES)
def test_compares_are_read_as_etcdctl_reads_them(line: str, etcd_server: Server) -> None:
    """What they say of a store, or what is wrong with them."""
    assert run("kvorum", etcd_server, ["put", "compared", "x"])[0] == 0
    ours, theirs = (run(tool, etcd_server, ["txn"], f"{line}\n\n\n\n") for tool in ("kvorum", "etcdctl"))
    assert ours == theirs


def test_leases_are_compared_in_hexadecimal() -> None:
    """etcdctl 3.5.1 panics."""
    assert parsed('lease("a") = "1f"') == {"key": "YQ==", "target": "LEASE", "result": "EQUAL", "lease": "31"}


def test_an_operator_that_is_none_is_refused() -> None:
    """etcdctl 3.5.1 panics."""
    with pytest.raises(ValueError, match=r'malformed comparison: mod\("a"\) ~ "1" \(unknown operator ~\)'):
        parsed('mod("a") ~ "1"')
