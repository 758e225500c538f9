"""What README.md and docs/ show runs as it stands: each block of Python, in an interpreter of its own, without a warning.

https://api.example.com is the tests' origin there, over HTTP/1.1, 2 and 3, trusted through SSL_CERT_FILE as a user would.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.procs import run_python

if TYPE_CHECKING:
    from tests.support.certs import Certificates
    from tests.support.origin import Origin

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
SERVER = "https://api.example.com"
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A fenced block: where its first line is, its language, and its text."""

    document: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def blocks() -> list[Block]:
    found: list[Block] = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for match in _FENCED.finditer(text):
            found.append(Block(document, text.count("\n", 0, match.start()) + 2, match[1], match[2]))
    return found


def anchors(document: Path) -> set[str]:
    """What a link into a document may name: its headings, as GitHub spells them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_block_says_that_it_is_python() -> None:
    """One without a language would not be run."""
    assert [str(block) for block in blocks() if block.language != "python"] == []
    assert len([block for block in blocks() if block.document.name == "README.md"]) >= 8


def _params() -> list[object]:
    """What README.md shows first is tried on every Python."""
    core = [block for block in blocks() if block.document.name == "README.md"]
    return [pytest.param(block, marks=[pytest.mark.core] * (block in core), id=str(block)) for block in blocks()]


@pytest.mark.parametrize("block", _params())
def test_examples_run(block: Block, origin: Origin, certs: Certificates, tmp_path: Path) -> None:
    """With warnings as errors, in an empty folder, and quiet on standard error."""
    source = block.text.replace(SERVER, origin.strict_https)
    # Lines are counted as in the document; what is left open at the end shows as a warning on standard error.
    source = "\n" * (block.line - 1) + source + "\nimport gc\ngc.collect()\n"
    env = {"SSL_CERT_FILE": str(certs.ca), "no_proxy": "*"}
    finished = run_python(source, options=["-W", "error"], env=env, cwd=tmp_path)
    assert (finished.status, finished.stderr) == (0, ""), f"{block}\n{finished.stderr}"


def test_links_lead_somewhere() -> None:
    """To files of this repository, and to headings in them."""
    broken: list[str] = []
    more = [ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs/internals").glob("*.md")]
    for document in [*DOCUMENTS, *more]:
        for target in _LINK.findall(document.read_text(encoding="utf-8")):
            link = urlsplit(target)
            if link.scheme:
                continue
            to = (document.parent / unquote(link.path)).resolve() if link.path else document
            if not to.exists() or (link.fragment and link.fragment not in anchors(to)):
                broken.append(f"{document.name}: {target}")
    assert broken == []
