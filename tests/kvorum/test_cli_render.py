"""Files that are made of templates and keys: real servers, real commands, readers who look all the time."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvorum import Client
from tests.common.clusters import start_kvorum_cluster
from tests.common.commands import KVORUM
from tests.common.ports import free_port
from tests.common.servers import ROOT, Server, running, start_kvorum

SECONDS = 60.0
NGINX = """\
# begin {{ get(root ~ "generation") }}
worker_processes {{ get(root ~ "workers", 4) }};
http {
    upstream app {
        least_conn;
{% for key, address in items(root ~ "backends/") %}
        server {{ address }};  # {{ key }}
{% else %}
        server 127.0.0.1:1 down;
{% endfor %}
    }
    server {
        listen 80;
        server_name {{ get(root ~ "name") }};
        location / { proxy_pass http://app; }
    }
}
# end {{ get(root ~ "generation") }}
"""


class Site:
    """A prefix, a template that reads below it, and the file that it becomes."""

    def __init__(self, folder: Path, key: str, endpoints: list[str]) -> None:
        self.root = key
        self.folder = folder
        self.template = folder / "nginx.conf.j2"
        self.file = folder / "out" / "nginx.conf"
        self.file.parent.mkdir()
        self.template.write_text(f'{{% set root = "{key}" %}}\n{NGINX}')
        self.endpoints = endpoints
        self.client = Client(endpoints, timeout=20)
        self.put("generation", "0")
        self.put("name", "example.org")

    def put(self, name: str, value: str) -> None:
        self.client.put(self.root + name, value, idempotent=True)

    def command(self, *arguments: str) -> list[str]:
        return [*KVORUM, f"--endpoints={','.join(self.endpoints)}", "render", *arguments]

    def render(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """Output and error."""
        ran = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, cwd=ROOT, check=False, timeout=SECONDS
        )
        assert ran.returncode == code, ran.stderr
        return ran.stdout, ran.stderr

    @contextlib.contextmanager
    def watching(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Inside, the file is there."""
        with (self.folder / "errors").open("w") as errors:
            command = self.command("--watch", *arguments)
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT)
        try:
            wait_until(self.file.exists)
            yield process
        finally:
            process.kill()
            process.communicate()

    def errors(self) -> str:
        return (self.folder / "errors").read_text()


@pytest.fixture
def site(tmp_path: Path, key: str, kvorum_server: Server) -> Iterator[Site]:
    site = Site(tmp_path, key, [f"127.0.0.1:{kvorum_server.port}"])
    yield site
    site.client.close()


def wait_until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not come about in {seconds} s"
        time.sleep(0.01)


@contextlib.contextmanager
def reading(file: Path) -> Iterator[set[str]]:
    """A reader in a tight loop; the set has all that it ever saw."""
    seen: set[str] = set()
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            seen.add(file.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield seen
    finally:
        ended.set()
        reader.join()


def is_whole(text: str) -> bool:
    """Begun and ended by the same generation, with all that is between."""
    begin, end = (re.search(rf"^# {mark} (\d+)$", text, re.MULTILINE) for mark in ("begin", "end"))
    return bool(
        begin and end and begin[1] == end[1] and "proxy_pass" in text and text.endswith(f"{end[1]}\n")
    )


# Once.


def test_a_template_without_a_file_is_printed(site: Site) -> None:
    """On standard output."""
    out, _ = site.render(str(site.template))
    assert is_whole(out)
    assert "server_name example.org;" in out


def test_what_has_not_changed_is_not_touched(site: Site) -> None:
    """The first time the file is made, the second it stays the same one, to the inode."""
    assert site.render(str(site.template), "-d", str(site.file))[0].startswith(f"{site.file}: changed")
    before = site.file.stat()
    assert site.render(f"{site.template}:{site.file}")[0].startswith(f"{site.file}: unchanged")
    after = site.file.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (
        *(before.st_ino, before.st_mtime_ns, before.st_ctime_ns),
    )


def test_the_mode_that_is_asked_for_is_given_to_a_file_that_is_there(site: Site) -> None:
    """Whoever hides what has been open so far, has not changed the content."""
    words = (f"{site.template}:{site.file}",)
    site.render(*words)
    site.file.chmod(0o644)
    assert ": changed, " in site.render(*words, "--mode=0600")[0]
    assert stat.S_IMODE(site.file.stat().st_mode) == 0o600
    assert ": unchanged, " in site.render(*words, "--mode=0600")[0]
    assert ": unchanged, " in site.render(*words)[0]


def test_what_is_no_file_is_left_alone(site: Site) -> None:
    """A pipe is not waited for, and no file comes to be in its place."""
    os.mkfifo(site.file)
    _, error = site.render(f"{site.template}:{site.file}", code=1)
    assert error.startswith(f"Error: {site.file}: ")
    assert "this is no regular file" in error
    assert site.file.is_fifo()


def test_what_fails_leaves_the_last_good_file(site: Site) -> None:
    """A key that is gone, a template that is broken, a server that is not there: each with its exit code."""
    site.render(f"{site.template}:{site.file}")
    good = site.file.read_text()
    site.client.delete(f"{site.root}name")
    _, error = site.render(f"{site.template}:{site.file}", code=1)
    assert error == f"Error: {site.template}, line 15: there is no key '{site.root}name'\n"
    site.template.write_text("{% for %}")
    _, error = site.render(f"{site.template}:{site.file}", code=1)
    assert error.startswith(f"Error: {site.template}, line 1: ")
    site.endpoints = [f"127.0.0.1:{free_port()}"]
    site.template.write_text('{{ get("a") }}')
    _, error = site.render(f"{site.template}:{site.file}", code=2)
    assert error.startswith(f"Error: {site.file}: cannot connect to ")
    assert site.file.read_text() == good
    assert [one.name for one in site.file.parent.iterdir()] == ["nginx.conf"]


def test_a_check_decides_before_the_file_is_in_place(site: Site) -> None:
    """It is given the new file, by {} and by name; where it fails the old file stays, and is not reloaded."""
    log = site.folder / "log"
    say = f"cat $KVORUM_FILE $KVORUM_NEW_FILE >> {log}; grep -q example {{}}"
    reload = f"--reload=echo reloaded $KVORUM_FILE >> {log}"
    site.file.write_text("old\n")
    site.render(f"{site.template}:{site.file}", f"--check={say}", reload)
    new = site.file.read_text()
    assert log.read_text() == f"old\n{new}reloaded {site.file}\n"
    log.unlink()
    site.put("name", "elsewhere.org")
    _, error = site.render(f"{site.template}:{site.file}", f"--check={say}", reload, code=1)
    assert error.startswith(f"Error: {site.file}: its check ended with exit code 1: cat ")
    assert site.file.read_text() == new
    assert "reloaded" not in log.read_text()
    assert [one.name for one in site.file.parent.iterdir()] == ["nginx.conf"]


def test_a_check_that_hangs_is_ended(site: Site) -> None:
    """With all that it has started, and the file stays as it was."""
    site.file.write_text("old\n")
    _, error = site.render(
        f"{site.template}:{site.file}", "--check=sleep 600; true", "--check-timeout=300ms", code=1
    )
    assert "its check did not end within 0.3 s" in error
    assert site.file.read_text() == "old\n"


def test_a_reload_that_fails_is_told(site: Site) -> None:
    """The file is in place, and the exit code says that something is wrong."""
    _, error = site.render(f"{site.template}:{site.file}", "--reload=exit 3", code=1)
    assert error == f"Error: {site.file}: its reload ended with exit code 3: exit 3\n"
    assert is_whole(site.file.read_text())


def test_a_signal_does_not_cost_a_reload(site: Site) -> None:
    """Be it before the reload, or in the midst of it: who renders next finds the file as it should be, and
    would reload nothing."""
    log, hangs = site.folder / "log", site.folder / "hangs"
    other = site.folder / "other"
    config = site.folder / "render.yaml"
    reload, check = f"echo begun >> {log}; sleep 0.5; echo done >> {log}", f"touch {hangs}; sleep 600"
    plans = [
        {"template": str(site.template), "destination": str(site.file), "reload": reload},
        {"template": str(site.template), "destination": str(other), "check": check},
    ]
    config.write_text(json.dumps({"templates": plans}))
    for words, moment in (
        (("--config", str(config)), hangs),
        ((f"{site.template}:{site.file}", f"--reload={reload}"), log),
    ):
        site.file.unlink(missing_ok=True)
        with site.watching(*words) as process:
            wait_until(moment.exists)
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 128 + signal.SIGTERM
        assert log.read_text().splitlines()[-1] == "done"
        assert is_whole(site.file.read_text())
        assert not other.exists()
        log.unlink()


def test_several_templates_share_a_reload(site: Site) -> None:
    """A file says which; paths are relative to it; what two have in common is run once."""
    (site.folder / "name.j2").write_text(f'{{{{ get("{site.root}name") }}}}')
    (site.folder / "render.yaml").write_text(
        f"""templates:
  - {{template: nginx.conf.j2, destination: out/nginx.conf, reload: "echo x >> {site.folder}/log"}}
  - {{template: name.j2, destination: out/name, reload: "echo x >> {site.folder}/log", mode: "0600"}}
"""
    )
    site.render("--config", str(site.folder / "render.yaml"))
    assert is_whole(site.file.read_text())
    assert (site.file.parent / "name").read_text() == "example.org"
    assert (site.file.parent / "name").stat().st_mode & 0o777 == 0o600
    assert (site.folder / "log").read_text() == "x\n"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "nothing to render: expected a template, SRC:DEST, or --config"),
        (["a.j2", "b.j2"], "'a.j2' does not say where it goes: expected SRC:DEST, or --dest"),
        (["a.j2", "b.j2", "-d", "c"], "--dest is for one template, not for 2: write SRC:DEST for each"),
        (["a.j2", "--watch"], "without a file there is nothing to watch, check or reload: give --dest"),
        (["--watch", "--once", "a:b"], "--once and --watch exclude one another: give one of them"),
        (["a:b", "--mode=9"], "mode is '9': expected octal digits in quotes, such as \"0640\""),
        (["a:b", "--config=c"], "--config says all of templates: give no other templates or flags for them"),
        (["--config=nope.yaml"], "[Errno 2] No such file or directory: 'nope.yaml'"),
        (
            ["a:b", "--wait=soon"],
            "Invalid value for '--wait': 'soon' is no duration: expected one such as 5s",
        ),
    ],
)
def test_bad_arguments_are_one_sentence(site: Site, words: list[str], complaint: str) -> None:
    """That says what was wrong and what was expected."""
    _, error = site.render(*words, code=128)
    assert error.startswith(f"Error: {complaint}")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[", "is no YAML: "),
        ("a: 1", "expected one entry, templates"),
        ("templates: []", "templates is empty or no list"),
        ("templates: [{template: a}]", "template 1: destination is missing"),
        ("templates: [{tempalte: a}]", "template 1: 'tempalte' is unknown: expected one of template, "),
        ("templates: [{template: a, destination: b, mode: 0640}]", "template 1: mode is 416: expected octal"),
        ("templates: [{template: a, destination: b, command-timeout: x}]", "command-timeout is 'x'"),
    ],
)
def test_a_broken_file_of_templates_is_named(site: Site, content: str, complaint: str) -> None:
    """With the entry that is wrong."""
    file = site.folder / "render.yaml"
    file.write_text(content)
    _, error = site.render("--config", str(file), code=128)
    assert error.startswith(f"Error: {file}")
    assert complaint in error


def test_two_templates_of_one_file_are_refused(site: Site) -> None:
    """They would replace it by turns."""
    other = site.folder / "b.j2"
    other.write_text("")
    _, error = site.render(f"{site.template}:{site.file}", f"{other}:{site.file}", code=128)
    assert error == f"Error: {site.file} is made of two templates: expected one for each file\n"


# Watching.


def test_a_thousand_changes(site: Site) -> None:
    """Whoever reads the file finds it whole each time, and in the end it says what the store says."""
    check = "--check=grep -q '^# end' {}"
    with site.watching(f"{site.template}:{site.file}", "--wait=0s:50ms", check), reading(site.file) as seen:
        for number in range(1, 1001):
            with site.client.txn() as txn:
                txn.put(f"{site.root}generation", str(number))
                txn.put(f"{site.root}backends/{number % 50:02}", f"10.0.0.{number % 50}:{number}")
                if number % 3 == 0:
                    txn.delete(f"{site.root}backends/{(number + 25) % 50:02}")
        wait_until(lambda: "# end 1000\n" in site.file.read_text())
        final = site.file.read_text()
    backends = [(one.key.decode(), one.value.decode()) for one in site.client.items(f"{site.root}backends/")]
    assert re.findall(r"server (\S+);  # (\S+)", final) == [(value, key) for key, value in backends]
    assert [text for text in seen if not is_whole(text)] == []
    assert len(seen) > 10, "the reader should have seen some of what was between"


def test_leaders_that_are_killed(tmp_path: Path, key: str) -> None:
    """Three members, whose leader is killed again and again under changes: none is missed."""
    with start_kvorum_cluster(
        tmp_path / "cluster", 3, "--election-timeout=500", "--heartbeat-interval=50"
    ) as c:
        site = Site(tmp_path, key, [f"127.0.0.1:{member.port}" for member in c.members])
        with site.watching(f"{site.template}:{site.file}", "--wait=10ms:100ms"), reading(site.file) as seen:
            for kill in range(3):
                for number in range(1, 21):
                    site.put("generation", str(kill * 20 + number))
                killed = c.leader()
                c.kill(killed)
                site.put("backends/a", f"10.0.0.1:{kill}")
                wait_until(lambda kill=kill: f"server 10.0.0.1:{kill};" in site.file.read_text())
                c.restart(killed)
                c.wait_until_healthy()
            wait_until(lambda: "# end 60\n" in site.file.read_text())
        site.client.close()
    assert [text for text in seen if not is_whole(text)] == []


def test_a_server_that_is_stopped_and_started_again(tmp_path: Path, key: str) -> None:
    """Meanwhile the file stays, and what is written afterwards is in it."""
    port = free_port()
    with running(start_kvorum(tmp_path, port=port)) as server:
        site = Site(tmp_path, key, [f"127.0.0.1:{port}"])
        with site.watching(f"{site.template}:{site.file}") as process:
            before = site.file.read_text()
            server.stop()
            assert site.file.read_text() == before
            with running(start_kvorum(tmp_path, port=port)):
                site.put("name", "again.org")
                wait_until(lambda: "server_name again.org;" in site.file.read_text())
            assert process.poll() is None
        site.client.close()


def test_a_server_that_comes_late(tmp_path: Path, key: str) -> None:
    """It is waited for, and told about once."""
    port = free_port()
    site = Site.__new__(Site)
    site.folder, site.file, site.endpoints = tmp_path, tmp_path / "f", [f"127.0.0.1:{port}"]
    site.file.write_text("old")
    (tmp_path / "t.j2").write_text(f'{{{{ get("{key}a", "none") }}}}')
    with site.watching(f"{tmp_path}/t.j2:{site.file}"):
        wait_until(lambda: "cannot connect" in site.errors())
        with running(start_kvorum(tmp_path, port=port)):
            wait_until(lambda: site.file.read_text() == "none")
    assert site.errors().count("cannot connect") == 1


def test_a_key_that_was_missing_comes(site: Site) -> None:
    """A file of which something is missing stays as it was until it is there."""
    site.file.write_text("old")
    site.client.delete(f"{site.root}name")
    with site.watching(f"{site.template}:{site.file}"):
        wait_until(lambda: "there is no key" in site.errors())
        assert site.file.read_text() == "old"
        site.put("name", "here.org")
        wait_until(lambda: "server_name here.org;" in site.file.read_text())


def test_what_is_read_may_change_with_what_was_read(site: Site) -> None:
    """A key that is named by another one is followed once it is read, and no change of it is missed."""
    site.template.write_text(f'{{{{ get("{site.root}" ~ get("{site.root}generation"), "none") }}}}')
    with site.watching(f"{site.template}:{site.file}", "--wait=0s"):
        wait_until(lambda: site.file.read_text() == "none")
        for number in range(20):
            site.put("generation", f"k{number}")
            site.put(f"k{number}", "first")
            site.put(f"k{number}", f"v{number}")
            wait_until(lambda number=number: site.file.read_text() == f"v{number}")


def test_many_keys_of_many_folders(site: Site) -> None:
    """More than there are watches: any of them is followed, and no other."""
    names = [f"{folder}/{number}" for folder in "abcdefgh" for number in range(0, 40, 2)]
    for name in names:
        site.put(name, "0")
    wanted = ", ".join(f'"{name}"' for name in names)
    site.template.write_text(f'{{% for n in [{wanted}] %}}{{{{ get("{site.root}" ~ n) }}}};{{% endfor %}}')
    with site.watching(f"{site.template}:{site.file}", "--wait=0s") as process:
        for number, name in enumerate(names[::7], start=1):
            site.put(f"{name}x", "nobody reads this")
            site.put(name, str(number))
            wait_until(lambda number=number: f"{number};" in site.file.read_text())
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + signal.SIGTERM
    assert out.count("changed") <= 1 + len(names[::7])


def test_history_that_is_compacted_meanwhile(site: Site) -> None:
    """While a stopped renderer is not looking, all that it should be told is forgotten: it reads anew."""
    with site.watching(f"{site.template}:{site.file}", "--wait=10ms") as process:
        process.send_signal(signal.SIGSTOP)
        for number in range(10):
            site.put("generation", str(number))
        site.client.compact(site.client.put(f"{site.root}name", "compacted.org").revision)
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: "server_name compacted.org;" in site.file.read_text())
