"""A file that is replaced is whole at every moment, and stays as it was in all but its content."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from kvorum import atomic_file


def test_mode_and_owner_stay(tmp_path: Path) -> None:
    """The new file has what the old one had."""
    file = tmp_path / "f"
    file.write_text("old")
    file.chmod(0o4711)
    if os.geteuid() == 0:
        os.chown(file, 12, 34)
        file.chmod(0o4711)
    before = file.stat()
    atomic_file.replace(file, b"new")
    after = file.stat()
    assert file.read_text() == "new"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino


def test_the_group_stays_where_the_owner_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not root may write into a folder, and replace a file there that is another's and his group's."""
    file = tmp_path / "f"
    file.write_text("old")
    given: list[int] = []

    def fchown(descriptor: int, user: int, group: int) -> None:
        if user != -1:
            raise PermissionError
        given.append(group)

    stats = os.fstat

    def another_s(descriptor: int) -> os.stat_result:
        mode, *rest = stats(descriptor)
        return os.stat_result((mode, *rest[:3], 12, 34, *rest[5:]))

    monkeypatch.setattr("kvorum.atomic_file.os.fchown", fchown)
    monkeypatch.setattr("kvorum.atomic_file.os.fstat", another_s)
    atomic_file.replace(file, b"new")
    assert given == [file.stat().st_gid]
    assert file.read_text() == "new"


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    """As root, one could have put a file in the place of /dev/null."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    for path in (pipe, tmp_path / "link", tmp_path):
        with pytest.raises(OSError, match="this is no regular file"):
            atomic_file.replace(path, b"new")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["link", "pipe"]


def test_a_new_file_has_the_mode_that_is_wanted_or_usual(tmp_path: Path) -> None:
    """0666 without what the umask takes, as with any other program."""
    mask = os.umask(0o027)
    try:
        atomic_file.replace(tmp_path / "usual", b"")
        atomic_file.replace(tmp_path / "wanted", b"", mode=0o600)
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "usual").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "wanted").stat().st_mode) == 0o600


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """What it points to is replaced, in its own folder."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "f").write_text("old")
    (tmp_path / "link").symlink_to("real/f")
    atomic_file.replace(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "f").read_text() == "new"


def test_what_is_not_committed_leaves_nothing(tmp_path: Path) -> None:
    """The old file is untouched and the new one gone, whatever ends the block."""
    file = tmp_path / "f"
    file.write_text("old")

    class Refused(Exception):
        pass

    def refuse() -> None:
        with atomic_file.prepared(file, b"new") as new:
            assert new.path.read_bytes() == b"new"
            assert new.path.parent == tmp_path
            raise Refused

    with pytest.raises(Refused):
        refuse()
    assert [one.name for one in tmp_path.iterdir()] == ["f"]
    assert file.read_text() == "old"


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    """In a tight loop, while it is replaced by larger and smaller ones."""
    file = tmp_path / "f"
    file.write_bytes(b"0")
    seen: set[bytes] = set()
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            seen.add(file.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    contents = [b"%d" % (number % 10) * (1 + number % 7 * 50_000) for number in range(200)]
    for content in contents:
        atomic_file.replace(file, content)
    ended.set()
    reader.join()
    assert len(seen) > 1
    assert seen <= {b"0", *contents}
