from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from evalrun.providers.answers import DONE, Event, SSEParser


def parse(stream: bytes, cuts: list[int] | None = None) -> list[Event]:
    parser = SSEParser()
    edges = [0, *sorted(cuts or []), len(stream)]
    events: list[Event] = []
    for begin, end in pairwise(edges):
        events += parser.feed(stream[begin:end])
    return events + parser.finish()


def data(stream: bytes) -> list[bytes]:
    return [event[0] for event in parse(stream)]


def test_events_end_at_blank_lines_and_done_is_an_event() -> None:
    assert data(b'data: {"a":1}\n\ndata: {"b":2}\n\ndata: [DONE]\n\n') == [b'{"a":1}', b'{"b":2}', DONE]


def test_all_three_line_endings_mean_the_same() -> None:
    plain = b"event: x\ndata: one\ndata: two\n\n: note\n\ndata: three\n\n"
    for ending in (b"\r\n", b"\r"):
        assert parse(plain.replace(b"\n", ending)) == parse(plain)


def test_several_data_lines_make_one_event_joined_by_newlines() -> None:
    assert data(b"data: one\ndata:\ndata: three\n\n") == [b"one\n\nthree"]


def test_only_one_leading_space_is_dropped() -> None:
    assert data(b"data:none\n\ndata:  two\n\n") == [b"none", b" two"]


def test_comments_ids_retries_and_unknown_fields_are_read_over() -> None:
    assert data(b": keep-alive\nid: 7\nretry: 10\nfoo: bar\ndata: x\n\n") == [b"x"]


def test_comments_alone_make_no_event() -> None:
    assert parse(b": ping\n\n: ping\n\n") == []


def test_event_names_belong_to_one_event_only() -> None:
    assert parse(b"event: error\ndata: a\n\ndata: b\n\n") == [(b"a", b"error"), (b"b", b"")]


def test_a_byte_order_mark_at_the_start_is_dropped() -> None:
    assert parse(b"\xef\xbb\xbfdata: x\n\n", [1, 2]) == [(b"x", b"")]


def test_the_last_event_counts_without_its_blank_line_or_newline() -> None:
    assert data(b"data: a\n\ndata: [DONE]\n") == [b"a", DONE]
    assert data(b"data: a\n\ndata: [DONE]") == [b"a", DONE]


lines = st.sampled_from(
    [
        b"data: x",
        b'data: {"k": "\xc3\xa9"}',
        b"data:",
        b"data",
        b"",
        b"",
        b": note",
        b"event: e",
        b"id: 1",
        b"data:y",
    ]
)
endings = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(st.lists(st.tuples(lines, endings), max_size=30), st.data())
def test_any_chunking_gives_the_same_events(parts: list[tuple[bytes, bytes]], draw: st.DataObject) -> None:
    stream = b"".join(line + ending for line, ending in parts)
    cuts = draw.draw(st.lists(st.integers(0, len(stream)), max_size=40))
    assert parse(stream, cuts) == parse(stream)


@given(st.binary(max_size=300), st.data())
def test_any_bytes_at_all_are_chunking_independent(stream: bytes, draw: st.DataObject) -> None:
    cuts = draw.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    assert parse(stream, cuts) == parse(stream)


@given(
    st.lists(
        st.text(alphabet=st.characters(blacklist_characters="\r\n", codec="utf-8"), max_size=20), max_size=10
    )
)
def test_what_is_written_as_events_is_read_back(texts: list[str]) -> None:
    stream = b"".join(b"data: " + text.encode() + b"\n\n" for text in texts)
    assert data(stream) == [text.encode() for text in texts]
