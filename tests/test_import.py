"""What `import katipo` costs: everything that few programs need is imported when it is."""

import ast
from pathlib import Path

import katipo
from katipo.pool import _IMPORTED_LATER
from tests.support.procs import run_python

NOT_AT_IMPORT = {
    # Of the standard library; dataclasses imports inspect, hashlib loads OpenSSL.
    "asyncio",
    "base64",
    "dataclasses",
    "datetime",
    "difflib",
    "email",
    "hashlib",
    "http",
    "inspect",
    "ipaddress",
    "json",
    "logging",
    "mimetypes",
    "netrc",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
    "urllib.parse",
    # Of others.
    "brotli",
    "certifi",
    "idna",
    "publicsuffixlist",
    "pycurl",
    "trio",
    "typing_extensions",
    # Ours.
    "katipo._download",
    "katipo._environment",
    "katipo._fake_pool",
    "katipo._multipart",
    "katipo._sigv4",
    "katipo.cli",
    "katipo.decoding",
}


def loaded_by(program: str, *, before: str = "") -> set[str]:
    """The modules that a program brings along, beyond those of the interpreter, a .pth file, and what runs before it."""
    source = f"import sys, threading, typing, weakref\n{before}before = set(sys.modules)\n{program}"
    ended = run_python(source + "print(*sorted(set(sys.modules) - before))\n")
    assert ended.status == 0, ended.stderr
    return set(ended.stdout.split())


def test_importing_imports_no_more_than_every_program_needs() -> None:
    """What only some programs need is imported when they need it."""
    loaded = loaded_by("import katipo\n")
    assert "katipo.client" in loaded
    assert not loaded & NOT_AT_IMPORT


def test_a_request_without_a_body_needs_few_of_them() -> None:
    """Making a client, and a request of it, imports none of what codings, forms, cookies and proxies need."""
    loaded = loaded_by(
        "with katipo.Client(pool=FakePool(lambda request: katipo.Response(200))) as client:\n"
        "    assert client.get('http://127.0.0.1/').status_code == 200\n",
        # http: the phrase of a status that the fake makes
        before="import katipo\nfrom katipo.testing import FakePool\nimport http\n",
    )
    assert not loaded & NOT_AT_IMPORT


def test_what_is_imported_later_is_waited_for_before_a_fork() -> None:
    """A module that another thread is importing when the process forks stays locked in the child for ever."""
    package = Path(katipo.__file__).parent
    apart = {
        "testing",
        "_fake_pool",
        "_fake_wire",
        "_frozen",
        "_library",
        "_verbose",
        "__main__",
    }  # before any request, or none
    already = {"os", "katipo._engine", "katipo.decoding.Decoder"} | {
        "asyncio",
        "dataclasses",
        "logging",
        "publicsuffixlist",
    }
    found: set[str] = set()
    for path in package.glob("*.py"):
        if path.stem in apart:
            continue
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Import):
                    found |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    base = "katipo." if node.level else ""
                    found |= {base + node.module} if node.module else {f"katipo.{alias.name}" for alias in node.names}
    assert found - already - set(_IMPORTED_LATER) == set()
