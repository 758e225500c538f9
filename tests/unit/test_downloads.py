"""What downloads decide without a server: names, validators, whose part it is."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

import katipo
from katipo._download_many import names_for
from katipo._part import Closed, Part, strong_validator

NEWER = "Mon, 01 Jan 2024 00:00:01 GMT"
OLDER = "Mon, 01 Jan 2024 00:00:00 GMT"


@pytest.mark.parametrize(
    ("etag", "last_modified", "date", "validator"),
    [
        ('"a"', None, None, '"a"'),
        ('"a"', OLDER, NEWER, '"a"'),
        ('""', None, None, '""'),
        ('W/"a"', OLDER, NEWER, OLDER),
        ('W/"a"', None, NEWER, None),
        ("a", None, None, None),
        ('"', None, None, None),
        (None, OLDER, NEWER, OLDER),
        (None, OLDER, OLDER, None),
        (None, NEWER, OLDER, None),
        (None, OLDER, None, None),
        (None, None, NEWER, None),
        (None, "yesterday", NEWER, None),
        (None, OLDER, "today", None),
        (None, None, None, None),
    ],
)
def test_what_a_range_may_be_asked_for_with(
    etag: str | None, last_modified: str | None, date: str | None, validator: str | None
) -> None:
    """A strong ETag, or a Last-Modified a second older than the response."""
    assert strong_validator(etag, last_modified, date) == validator


def named(*urls: str) -> list[str]:
    return names_for(katipo.URL(url) for url in urls)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/b/file.txt", "file.txt"),
        ("/file.txt?x=/other", "file.txt"),
        ("/file.txt#frag/ment", "file.txt"),
        ("/", "download"),
        ("", "download"),
        ("/folder/", "download"),
        ("/%2e%2e", "download"),
        ("/..%2f..%2fetc%2fpasswd", ".._.._etc_passwd"),
        ("/a%2fb", "a_b"),
        ("/a%5Cb", "a_b"),
        ("/nul%00byte", "nul_byte"),
        ("/line%0abreak", "line_break"),
        ("/C:evil", "C_evil"),
        ("/%20%20", "download"),
        ("/caf%C3%A9.txt", "café.txt"),
        ("/%ff.txt", "\ufffd.txt"),
        ("/.hidden", ".hidden"),
        ("/" + "a" * 300 + ".tar", "a" * 196 + ".tar"),
        ("/" + "%C3%A9" * 300, "é" * 100),
    ],
)
def test_names_come_from_the_path_and_stay_in_the_folder(path: str, name: str) -> None:
    """The last segment, decoded, without what could lead elsewhere, and short enough for what stands beside it."""
    assert named(f"http://host{path}") == [name]
    assert "/" not in name
    assert len(f"{name}.part.json.new".encode()) <= 255


def test_names_are_distinct() -> None:
    """Numbered where two would touch the same files, also where a file system tells no cases apart."""
    urls = ["http://a/x.txt", "http://b/x.txt", "http://a/x.txt", "http://a/X.TXT", "http://a/x.txt.part", "http://a/y"]
    assert named(*urls) == ["x.txt", "x-1.txt", "x-2.txt", "X-3.TXT", "x.txt-1.part", "y"]
    assert named("http://a/x.part", "http://a/x") == ["x.part", "x-1"]
    assert named("http://a/.x", "http://a/.x") == [".x", ".x-1"]
    long = "http://a/" + "a" * 300
    assert named(long, long) == ["a" * 200, "a" * 198 + "-1"]


def write_abc(fd: int) -> None:
    os.write(fd, b"abc")


def test_a_part_is_one_holders(tmp_path: Path) -> None:
    """Another one is refused until the first lets go, and then finds what it left."""
    target = str(tmp_path / "file")
    first, second = Part(target), Part(target)
    first.begin("http://a/", '"v"')
    first.receive(write_abc)
    with pytest.raises(katipo.BadOptions, match="under way"):
        second.find("http://a/", resume=True)
    first.close()
    first.close()
    assert second.find("http://a/", resume=True) == 3
    second.close()
    third = Part(target)
    assert third.find("http://b/", resume=True) == 0
    third.close()  # it had not begun: nothing of the first one's is removed
    assert (tmp_path / "file.part").read_bytes() == b"abc"


def test_a_part_that_became_the_target_is_not_taken_for_one(tmp_path: Path) -> None:
    """Who waits at its old name opens the new one."""
    target = str(tmp_path / "file")
    part = Part(target)
    part.begin("http://a/", '"v"')
    assert part.finish(0, sha256=True) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    part.close()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file"]
    again = Part(target)
    assert again.find("http://a/", resume=True) == 0
    again.close()


def test_a_closed_part_does_nothing_more(tmp_path: Path) -> None:
    """What comes late, from a thread whose caller was cancelled, finds the door closed."""
    part = Part(str(tmp_path / "file"))
    part.begin("http://a/", None)
    part.close()
    for late in (
        lambda: part.find("http://a/", resume=True),
        lambda: part.begin("http://a/", '"v"'),
        lambda: part.receive(lambda _: None),
        lambda: part.finish(0, sha256=False),
    ):
        with pytest.raises(Closed):
            late()
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_another_size_is_not_made_the_target(tmp_path: Path) -> None:
    """Somebody else has written to it."""
    part = Part(str(tmp_path / "file"))
    part.begin("http://a/", '"v"')
    with pytest.raises(OSError, match="another size"):
        part.finish(5, sha256=False)
    part.close()
    assert not (tmp_path / "file").exists()


def test_a_download_is_a_value() -> None:
    """Equal by its parts, immutable, pickled."""
    done = katipo.Download(Path("/x/y"), 5, 200, katipo.Headers({"A": "b"}), 3, None, katipo.Metrics())
    assert (done.path, done.size, done.status_code, done.resumed_from, done.sha256) == (Path("/x/y"), 5, 200, 3, None)
    assert pickle.loads(pickle.dumps(done)) == done
    assert repr(done) == "<Download '/x/y' size=5 resumed_from=3>"
    with pytest.raises(AttributeError):
        done.size = 6
