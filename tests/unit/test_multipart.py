"""multipart/form-data, read back by parsers that are not ours: werkzeug's, and the standard library's email."""

from __future__ import annotations

import email.parser
import email.policy
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.formparser import FormDataParser

from katipo import BadOptions, StreamConsumed
from katipo._content import PIECE, Body, BytesBody, StreamBody, build_content

Form = list[tuple[str, str]]
Files = list[tuple[str, str | None, str | None, bytes]]


def sent(body: Body | None) -> bytes:
    """One sending."""
    if isinstance(body, BytesBody):
        data = body.data
    else:
        assert isinstance(body, StreamBody)
        pieces = body.open()
        assert isinstance(pieces, Iterator)
        data = b"".join(pieces)
    assert body.length in (None, len(data))
    return data


def _in_memory(*_: Any, **__: Any) -> io.BytesIO:
    return io.BytesIO()


def parsed(body: Body | None) -> tuple[Form, Files]:
    """Fields, and files as (name, filename, content type, content)."""
    data = sent(body)
    assert body is not None
    assert body.content_type is not None
    kind, _, boundary = body.content_type.partition("; boundary=")
    assert kind == "multipart/form-data"
    _, form, files = FormDataParser(stream_factory=_in_memory, max_form_memory_size=None).parse(
        io.BytesIO(data), kind, len(data), {"boundary": boundary}
    )
    return list(form.items(multi=True)), [
        (name, each.filename, each.headers.get("Content-Type"), each.stream.read())
        for name, each in files.items(multi=True)
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A picture, by its name."""
    made = tmp_path / "cat.png"
    made.write_bytes(b"pixels")
    return made


def test_the_bytes_that_are_sent() -> None:
    """Once, exactly."""
    body = build_content(data={"a": "1"}, files={"f": ("x.txt", b"hello\n")})
    assert body is not None
    assert body.content_type is not None
    boundary = body.content_type.partition("boundary=")[2]
    assert re.fullmatch("[0-9a-f]{32}", boundary)
    assert (
        sent(body).decode()
        == f"""--{boundary}
Content-Disposition: form-data; name="a"

1
--{boundary}
Content-Disposition: form-data; name="f"; filename="x.txt"
Content-Type: text/plain

hello\0
--{boundary}--
""".replace("\n", "\r\n")
        .replace("\0", "\n")
        .replace("hello\n\r\n", "hello\n\r\n")
    )


def test_every_body_has_a_boundary_of_its_own() -> None:
    """Nobody can guess it."""
    bodies = [build_content(files={"f": b""}) for _ in range(50)]
    assert len({body.content_type for body in bodies if body}) == 50


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (b"x", ("upload", "application/octet-stream", b"x")),
        ("ä", ("upload", "application/octet-stream", "ä".encode())),
        (bytearray(b"x"), ("upload", "application/octet-stream", b"x")),
        (io.BytesIO(b"x"), ("upload", "application/octet-stream", b"x")),
        (("a.html", b"x"), ("a.html", "text/html", b"x")),
        (("a.html", "x", "text/x"), ("a.html", "text/x", b"x")),
        (("a.nosuch", b"x"), ("a.nosuch", "application/octet-stream", b"x")),
        (("dir/a.html", io.BytesIO(b"x")), ("dir/a.html", "text/html", b"x")),
        (("a", b"x", None, {"Content-Type": "text/y"}), ("a", "text/y", b"x")),
        (("a", b"x", "text/x", {"content-type": "text/y"}), ("a", "text/y", b"x")),
        (("a", b"x", "text/x", {"X-Other": "1"}), ("a", "text/x", b"x")),
    ],
)
def test_the_shapes_of_a_file(file: Any, expected: tuple[str, str, bytes]) -> None:
    """As httpx takes them."""
    as_mapping, as_pairs = build_content(files={"f": file}), build_content(files=[("f", file)])
    assert parsed(as_mapping) == parsed(as_pairs) == ([], [("f", *expected)])


def test_a_file_without_a_filename_is_a_field() -> None:
    """None says so."""
    assert parsed(build_content(files={"f": (None, b"x")})) == ([("f", "x")], [])
    assert b"Content-Type: text/x\r\n" in sent(build_content(files={"f": (None, b"x", "text/x")}))


def test_headers_of_a_part() -> None:
    """All of them, once."""
    data = sent(build_content(files={"f": ("a", b"x", "text/x", [("X-A", "1"), ("X-A", "2"), ("X-B", None)])}))
    assert data.count(b"X-A: 1\r\nX-A: 2\r\n") == 1
    assert b"X-B" not in data
    assert data.count(b"Content-Type: text/x\r\n") == 1


def test_paths_and_open_files(path: Path) -> None:
    """Named as they are, without their folders; an open one from where it stands."""
    with open(path, "rb") as file:
        file.read(2)
        body = build_content(files=[("p", path), ("f", file), ("g", file)])
        for _ in range(2):
            assert parsed(body)[1] == [
                ("p", "cat.png", "image/png", b"pixels"),
                ("f", "cat.png", "image/png", b"xels"),
                ("g", "cat.png", "image/png", b"xels"),
            ]
        assert not file.closed


def test_a_descriptor_s_number_is_no_filename(path: Path) -> None:
    """open(3).name is 3."""
    with open(os.open(path, os.O_RDONLY), "rb") as file:
        assert parsed(build_content(files={"f": file}))[1][0][1] == "upload"


def test_fields_come_first_with_all_their_values() -> None:
    """As a form has them."""
    data = {"a": ["1", 2], "b": None, "c": True, "d": 1.5, "e": b"\xc3\xa4"}
    form, files = parsed(build_content(data=data, files={"f": b"x"}))
    assert form == [("a", "1"), ("a", "2"), ("b", ""), ("c", "true"), ("d", "1.5"), ("e", "ä")]
    assert len(files) == 1
    whole = sent(build_content(data=data, files={"f": b"x"}))
    assert whole.rindex(b'name="e"') < whole.index(b'name="f"')


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ('a"b', b'"a%22b"'),
        ("a\r\nb", b'"a%0D%0Ab"'),
        ("a\nX-Evil: 1", b'"a%0AX-Evil: 1"'),
        ("a\\b", b'"a\\b"'),
        ("a%22", b'"a%22"'),
        ("ä;b=c", '"ä;b=c"'.encode()),
        ("", b'""'),
    ],
)
def test_names_are_escaped_as_browsers_do_it(name: str, written: bytes) -> None:
    """HTML, multipart/form-data encoding: quotes and line ends, and nothing else."""
    data = sent(build_content(data={name: "1"}, files={name: (name, b"x")}))
    assert b"form-data; name=" + written + b"\r\n" in data
    assert b"form-data; name=" + written + b"; filename=" + written + b"\r\n" in data


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"files": {"f": ("a", b"x", "text/x\r\nX: hunter2")}}, "files: headers"),
        ({"files": {"f": ("a", b"x", None, {"X": "a\nhunter2"})}}, "files: headers"),
        ({"files": {"f": ("a", b"x", None, {"X y": "hunter2"})}}, "files: headers"),
        ({"files": {"f": ("a", b"x", None, {"Content-Disposition": "hunter2"})}}, "Content-Disposition"),
        ({"files": {"f": ("a", b"x", 5)}}, "files: headers"),
        ({"files": {"f": ("a",)}}, "tuple"),
        ({"files": {"f": ("a", b"x", None, {}, 1)}}, "tuple"),
        ({"files": {"f": None}}, "not None"),
        ({"files": {"f": 1}}, "int"),
        ({"files": {"f": ("a", iter([b"hunter2"]))}}, "iterator"),
        ({"files": {1: b"hunter2"}}, "files: a name must be str"),
        ({"files": {"a\0": b"hunter2"}}, "NUL"),
        ({"files": {"a": ("\0", b"hunter2")}}, "NUL"),
        ({"files": {b"\xff": b"hunter2"}}, "UTF-8"),
        ({"files": {"\ud800": b"hunter2"}}, "UTF-8"),
        ({"files": {"a": (1, b"hunter2")}}, "filename must be str"),
        ({"files": {"a": "hunter2\ud800"}}, "UTF-8"),
        ({"files": ["a"]}, "pair"),
        ({"files": {"f": b""}, "data": {"a": object()}}, "data: a field"),
        ({"files": {"f": b""}, "data": {"a": "hunter2\ud800"}}, "data: a value"),
        ({"files": {"f": b""}, "data": {1: "hunter2"}}, "data: a name"),
        ({"files": {"f": b""}, "data": ["ab"]}, "data: every item"),
    ],
)
def test_what_can_be_no_part_is_refused(arguments: dict[str, Any], words: str) -> None:
    """With what was wrong, and no content."""
    with pytest.raises(BadOptions) as caught:
        build_content(**arguments)
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_path_that_is_not_there_fails_at_once(tmp_path: Path) -> None:
    """Before anything is sent."""
    with pytest.raises(FileNotFoundError):
        build_content(files={"f": tmp_path / "missing"})


# ---------------------------------------------------------------------------------------- lengths, and sending again


def test_large_files_are_sent_in_pieces_with_a_known_length(tmp_path: Path) -> None:
    """None of them in memory as a whole, and again after a redirect."""
    big = tmp_path / "big"
    big.write_bytes(b"x" * (5 * PIECE + 3))
    with open(big, "rb") as file:
        body = build_content(files={"p": big, "f": file, "b": io.BytesIO(b"y" * PIECE)})
        assert isinstance(body, StreamBody)
        assert body.can_replay
        first, second = sent(body), sent(body)
        assert first == second
        assert body.length == len(first)
        pieces = body.open()
        assert isinstance(pieces, Iterator)
        assert max(map(len, pieces)) == PIECE


def test_a_part_that_can_be_read_once_makes_the_body_so() -> None:
    """Its length is not known."""
    reading, writing = os.pipe()
    with open(reading, "rb") as file, open(writing, "wb") as end:
        body = build_content(data={"a": "1"}, files=[("f", ("n", file)), ("g", b"x")])
        end.write(b"abc")
        end.close()
        assert isinstance(body, StreamBody)
        assert (body.length, body.can_replay) == (None, False)
        form, files = parsed(body)
        assert form == [("a", "1")]
        assert [content for *_, content in files] == [b"abc", b"x"]
        with pytest.raises(StreamConsumed):
            body.open()


def test_a_file_that_became_shorter_fails(path: Path) -> None:
    """A path and an open file alike; never silently."""
    with open(path, "rb") as file:
        bodies = [build_content(files={"f": path}), build_content(files={"f": file})]
        os.truncate(path, 4)
        for body in bodies:
            with pytest.raises(OSError, match="2 bytes short"):
                sent(body)


def test_a_file_that_became_longer_is_sent_as_long_as_it_was(path: Path) -> None:
    """The length has been told."""
    body = build_content(files={"f": path})
    with open(path, "ab") as file:
        file.write(b"more")
    assert parsed(body)[1][0][3] == b"pixels"


def test_what_was_opened_is_closed_when_nobody_wants_more(tmp_path: Path) -> None:
    """The request is over in the middle of a file."""
    big = tmp_path / "big"
    big.write_bytes(b"x" * (3 * PIECE))
    before = sorted(os.listdir("/dev/fd"))
    body = build_content(files={"f": big})
    assert isinstance(body, StreamBody)
    pieces = body.open()
    assert isinstance(pieces, Iterator)
    next(pieces)
    assert len(next(pieces)) == PIECE
    assert len(os.listdir("/dev/fd")) == len(before) + 1
    body.close()
    assert sorted(os.listdir("/dev/fd")) == before


def test_guessing_types_is_not_paid_for_by_others() -> None:
    """Imported where a filename is."""
    from tests.support.procs import run_python

    finished = run_python(
        "import sys\nfrom katipo._content import build_content\nbuild_content(data={'a': '1'})\n"
        "assert 'katipo._multipart' not in sys.modules\nbuild_content(files={'a': (None, b'')})\n"
        "assert 'mimetypes' not in sys.modules\nbuild_content(files={'a': b''})\nassert 'mimetypes' in sys.modules\n"
    )
    assert finished.status == 0, finished.stderr


# ------------------------------------------------------------------------------------------------ round trips

# Names that both parsers read as they were meant: no characters that are escaped, or that have a meaning to them.
_NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters='"\\%'), min_size=1, max_size=20
)
_VALUES = st.text(st.characters(codec="utf-8"), max_size=50)
_CONTENTS = st.binary(max_size=300) | st.sampled_from([b"\r\n", b"--", b"\r\n--", b"\r\n--0", b"x" * PIECE])


@given(
    st.lists(st.tuples(_NAMES, _VALUES), max_size=4),
    st.lists(st.tuples(_NAMES, _NAMES, _CONTENTS), min_size=1, max_size=4),
)
def test_whatever_is_put_in_comes_out(fields: Form, files: list[tuple[str, str, bytes]]) -> None:
    """With any names, values and contents, by werkzeug."""
    body = build_content(
        data=fields, files=[(name, (filename, io.BytesIO(content), "a/b")) for name, filename, content in files]
    )
    form, found = parsed(body)
    # A multi-valued mapping keeps names together: the order between names is lost in the parser, not on the wire.
    assert sorted(form) == sorted(fields)
    assert sorted(found) == sorted((name, filename, "a/b", content) for name, filename, content in files)


# It reads lines of text, and takes any line end for one.
_LINES = _CONTENTS.filter(lambda content: not {10, 13} & set(content))


@given(st.lists(st.tuples(_NAMES, _LINES), min_size=1, max_size=4))
def test_contents_keep_their_order(files: list[tuple[str, bytes]]) -> None:
    """By the standard library's parser of mail."""
    body = build_content(files=[("f", (name, content, "application/octet-stream")) for name, content in files])
    assert body is not None
    head = f"MIME-Version: 1.0\r\nContent-Type: {body.content_type}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + sent(body))
    assert [part.get_payload(decode=True) for part in message.iter_parts()] == [content for _, content in files]


@given(st.text(max_size=30))
def test_no_name_ends_its_header(name: str) -> None:
    """Whatever it is: one part, with one line more than its header's."""
    try:
        body = build_content(data={name: "v"}, files={"f": (None, b"")})
    except BadOptions:
        assert "\0" in name or any(0xD800 <= ord(c) < 0xE000 for c in name)
        return
    head = sent(body).split(b"\r\n\r\n")[0]
    assert head.count(b"\n") == head.count(b"\r") == 1
    assert head.count(b'"') == 2
