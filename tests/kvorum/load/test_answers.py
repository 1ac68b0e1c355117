"""Answers of HTTP out of bytes, wherever these are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvorum.load.answers import Answer, Answers, BadAnswer

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
REFUSED = b"HTTP/1.1 503 No\r\ncontent-length: 2\r\nX: y\r\n\r\n{}"
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED = HEAD + b"3\r\n{a}\r\n7;x=y\r\n\n{bb}\n{\r\n2\r\nc}\r\n0\r\n\r\n"


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted(cut % len(data) for cut in cuts), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(at)]


@given(st.lists(st.integers(0, 10_000), max_size=20))
def test_answers_are_whole_however_they_are_cut(cuts: list[int]) -> None:
    """With a length or in chunks, one after the other on a connection."""
    answers = Answers()
    found = [one for piece in pieces(PLAIN + CHUNKED + REFUSED, cuts) for one in answers.feed(piece)]
    assert found == [Answer(200, b"hello"), Answer(200, b"{a}\n{bb}\n{c}"), Answer(503, b"{}")]


@given(st.lists(st.integers(0, 10_000), max_size=20))
def test_lines_of_a_stream_come_as_they_are_there(cuts: list[int]) -> None:
    """Whatever the chunks are; a refusal is one answer."""
    answers = Answers(by_line=True)
    found = [one for piece in pieces(CHUNKED + REFUSED, cuts) for one in answers.feed(piece)]
    assert found == [Answer(200, b"{a}"), Answer(200, b"{bb}"), Answer(200, b"{c}"), Answer(503, b"{}")]


def test_a_line_is_told_before_the_next_one_comes() -> None:
    """A stream may say nothing more for a long time."""
    answers = Answers(by_line=True)
    head, rest = CHUNKED.split(b"2\r\nc}")
    assert [one.body for one in answers.feed(head)] == [b"{a}", b"{bb}"]
    assert [one.body for one in answers.feed(b"2\r\nc}" + rest)] == [b"{c}"]


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_answer_is_said_to_be_none(data: bytes) -> None:
    """Rather than waited for."""
    with pytest.raises(BadAnswer):
        Answers().feed(data)
