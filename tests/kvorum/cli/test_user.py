"""user … against etcdctl, on real etcd."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.common.commands import command, run
from tests.common.servers import ROOT, Server, running, start_etcd
from tests.kvorum.cli.conftest import CommandLine
from tests.kvorum.cli.twins import CHEAP, Twins, on_terminal, twins

FORMATS = ("simple", "json", "fields")
AGAIN = "again for confirmation: "


@pytest.fixture(scope="module")
def etcds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    with twins(tmp_path_factory.mktemp("twins")) as both:
        assert both.same("role", "add", "reader").code == 0
        assert both.same("role", "grant-permission", "reader", "read", "a/", "--prefix").code == 0
        yield both


LIFE = """
user add {name} --new-user-password=secret
user get {name}
user grant-role {name} reader
user get {name}
user get {name} --detail
user list
user revoke-role {name} reader
user delete {name}
"""
REFUSED = """
user add
user add a b
user add :secret
user add '' --no-password
user add bob --no-password
user delete
user delete nobody
user delete a b
user get
user get nobody
user get nobody --detail
user get ''
user get bob -w fields
user get bob -w table
user get bob --detail -w table
user list a
user list -w fields
user list -w table
user passwd
user passwd a b
user grant-role bob
user grant-role bob none
user grant-role nobody reader
user grant-role bob reader more
user revoke-role bob
user revoke-role bob none
user revoke-role bob reader
user revoke-role nobody reader
"""


@pytest.mark.parametrize("form", FORMATS)
def test_a_user_s_life_is_told_as_etcdctl_tells_it(form: str, etcds: Twins) -> None:
    """From the first word to the last, in every format that both have."""
    for line in LIFE.strip().splitlines():
        words = line.format(name=f"alice-{form}").split()
        ran = etcds.same(*words, "-w", form)
        has_fields = form != "fields" or not ({"get", "list"} & set(words)) or "--detail" in words
        assert (ran.code == 0) == has_fields, words


def test_refusals_are_etcdctl_s(etcds: Twins) -> None:
    """The same words and exit codes for what the server does not have, and for words that are missing."""
    assert etcds.same("user", "add", "bob", "--no-password").code == 0
    etcds.same_lines(REFUSED)
    etcds.same("user", "grant-role", "bob", "reader")
    etcds.same_lines("user get bob --detail -w table\nuser delete bob")


@pytest.mark.parametrize("given", ["secret", "secret\n", "  two words \n", "\nsecret", "", "\r\n"])
def test_a_password_is_the_first_word_of_standard_input(given: str, etcds: Twins) -> None:
    """With --interactive=false, as etcdctl reads it, which takes no password for one too."""
    assert etcds.same("user", "add", "carol", "--interactive=false", given=given).code == 0
    assert (
        etcds.same("user", "passwd", "carol", "--interactive=false", given=given).out == "Password updated\n"
    )
    etcds.same("user", "delete", "carol")


def test_a_password_is_asked_for_twice_and_not_shown(etcds: Twins) -> None:
    """On a terminal. Where the second one differs, or there is none, nothing is done."""
    first = "Password of dora: "
    twice = [(first, "geheim\n"), (AGAIN, "geheim\n")]
    shown = etcds.same_on_terminal("user", "add", "dora", typed=twice)
    assert shown.out == f"{first}\nType password of dora {AGAIN}\nUser dora created\n"
    shown = etcds.same_on_terminal("user", "passwd", "dora", typed=twice)
    assert shown.out.endswith("Password updated\n")
    for words in (("user", "add", "emil"), ("user", "passwd", "dora")):
        first = f"Password of {words[-1]}: "
        shown = etcds.same_on_terminal(*words, typed=[(first, "geheim\n"), (AGAIN, "anders\n")])
        assert (shown.code, shown.out.splitlines()[-1]) == (128, "Error: given passwords are different")
        for nothing in ("\n", " \n", "\x04"):
            shown = etcds.same_on_terminal(*words, typed=[(first, nothing)])
            assert (shown.code, shown.out.splitlines()[-1]) == (128, "Error: empty password")
    assert etcds.same("user", "get", "emil").code == 1


def test_one_s_own_password_is_asked_for_as_etcdctl_asks(etcds: Twins) -> None:
    """By --user without one, on a terminal, after the new one of who is added."""
    own = ("Password: ", "secret\n")
    shown = etcds.same_on_terminal("user", "get", "nobody", "--user=root", typed=[own])
    assert shown.out == "Password: \nError: etcdserver: user name not found\n"
    first = "Password of gerd: "
    twice = [(first, "geheim\n"), (AGAIN, "geheim\n")]
    shown = etcds.same_on_terminal("user", "add", "gerd", "--user=root", typed=[*twice, own])
    assert shown.out.endswith("\nPassword: \nUser gerd created\n")
    etcds.same("user", "delete", "gerd")


def test_every_way_to_give_a_password_sets_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Who says it afterwards is let in, by etcdctl too; others are not."""
    passwords = {"root": "a:b", "flag": "c d", "input": "e", "asked": "f g", "changed": "h"}
    with running(start_etcd(tmp_path_factory.mktemp("etcd"), CHEAP)) as server:
        change(server, ["user", "add", "root:a:b"])
        change(server, ["user", "add", "flag", "--new-user-password", "c d"])
        change(server, ["user", "add", "input", "--interactive=false"], "e\n")
        change(server, ["user", "add", "asked"], " f g \nf g\n")
        change(server, ["user", "add", "changed:before"])
        change(server, ["user", "passwd", "changed"], "h\nh\n")
        change(server, ["auth", "enable"])
        for name, password in passwords.items():
            for tool in ("kvorum", "etcdctl"):
                asked = [f"--user={name}", f"--password={password}", "user", "get", name]
                assert run(tool, server, asked)[0] == 0, (tool, name)
        refused = run("kvorum", server, ["--user=changed:before", "user", "get", "changed"])
        assert refused == (2, "", "Error: etcdserver: authentication failed, invalid user ID or password")


def change(server: Server, words: list[str], given: str = "") -> None:
    code, _, error = run("kvorum", server, words, given)
    assert code == 0, error


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["add", "u:geheim", "more"], ""),
        (["add", "u", "--new-user-password", "geheim", "--no-such"], ""),
        (["add", "u:geheim\udcff"], ""),
        (["add", "root:geheim"], ""),
        (["passwd", "nobody", "--interactive=false"], "geheim"),
        (["add", "u", "--interactive=false"], "geheim\udcff"),
        (["add", "u"], "geheim\nanders"),
        (["add", "u"], "geheim\udcff"),
    ],
)
def test_no_error_says_the_password(words: list[str], given: str, etcds: Twins) -> None:
    """Whatever is wrong with it."""
    run("kvorum", etcds.kvorum, ["user", "add", "root", "--no-password"])
    client = CommandLine(etcds.kvorum.port, etcds.kvorum.log.parent)
    ran = client("user", *words, given=given.encode(errors="surrogateescape"))
    assert ran.code != 0
    assert "geheim" not in ran.out + ran.error
    assert ran.error.splitlines()[-1].startswith("Error: ")


def test_a_closed_standard_input_has_no_password(etcds: Twins) -> None:
    """It is as one that is at its end."""
    ask = [*command("kvorum", etcds.kvorum), "user", "add", "hans"]
    ran = subprocess.run(
        ["sh", "-c", '"$@" <&-', "sh", *ask], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (ran.returncode, ran.stdout) == (128, "")
    assert ran.stderr == "Password of hans: \nError: empty password\n"


def test_what_is_no_text_is_named(etcds: Twins) -> None:
    """JSON has no word for it; etcdctl takes it."""
    client = CommandLine(etcds.kvorum.port, etcds.kvorum.log.parent)
    assert client.fails("user", "add", "\udcff:x", code=128) == "the name is not UTF-8: expected text"
    problem = "the password is not UTF-8: expected text"
    assert client.fails("user", "add", "u:\udcff", code=128) == problem
    typed = [("Password of u: ", "\udcff\n")]
    shown = on_terminal([*command("kvorum", etcds.kvorum), "user", "add", "u"], typed)
    assert (shown.code, shown.out.splitlines()[-1]) == (128, f"Error: {problem}")


def test_a_table_is_refused_before_anything_is_changed(etcds: Twins) -> None:
    """etcdctl makes the user first, and says the same then."""
    words = ["user", "add", "fritz", "--no-password", "-w", "table"]
    refused = (4, "", "Error: table not supported as output format")
    assert run("kvorum", etcds.kvorum, words) == refused
    assert run("kvorum", etcds.kvorum, ["user", "get", "fritz"])[0] == 1
    assert run("etcdctl", etcds.etcdctl, words) == refused
    run("kvorum", etcds.etcdctl, ["user", "delete", "fritz"])
