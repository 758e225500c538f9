"""Who may know whom: the directions that ARCHITECTURE.md promises, read from the sources."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "katipo"
ENGINE = ROOT / "engine" / "src"

BINDING = {"pool", "mailbox", "handle", "waiting", "_fake_pool"}
"""What may import the binding."""

VALUES = {
    "errors",
    "messages",
    "options",
    "headers",
    "url",
    "request",
    "response",
    "cookies",
    "metrics",
    "decoding",
}
"""What does no I/O and knows no thread or loop; `_name` modules that only these import are counted among them."""

CORE_REQUIREMENTS = {"brotli", "certifi", "idna", "publicsuffixlist"}
"""Third-party packages that the core may import. pycurl is looked for, and not imported."""

BEYOND_VALUES = {
    "_thread",
    "asyncio",
    "concurrent",
    "ctypes",
    "fcntl",
    "multiprocessing",
    "queue",
    "select",
    "selectors",
    "signal",
    "socket",
    "socketserver",
    "ssl",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "trio",
}


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package by its dotted name below `katipo`; "" is the package itself."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


def nodes_at_run_time(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.orelse:
                yield child
                yield from nodes_at_run_time(child)
            continue
        yield node
        yield from nodes_at_run_time(node)


def imports(name: str) -> set[str]:
    """What a module imports at run time: "katipo.x" for the package's own, the top name for others."""
    path = MODULES[name]
    package = ["katipo", *name.split(".")] if name else ["katipo"]
    if path.name != "__init__.py":
        package = package[:-1]
    found: set[str] = set()
    for node in nodes_at_run_time(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            target = ".".join([*base, *(node.module.split(".") if node.module else [])])
            for alias in node.names:
                inner = f"{target}.{alias.name}"
                is_module = inner.removeprefix("katipo.") in MODULES or inner == "katipo._engine"
                found.add(inner if target.split(".")[0] == "katipo" and is_module else target)
    return {each if each.split(".")[0] == "katipo" else each.split(".")[0] for each in found}


IMPORTS = {name: imports(name) for name in MODULES}


def own(name: str) -> set[str]:
    """The package's own modules that a module imports."""
    return {each.removeprefix("katipo.") for each in IMPORTS[name] if each.startswith("katipo.")}


def value_modules() -> set[str]:
    """VALUES and the private modules that they alone stand on."""
    found = set(VALUES)
    while more := {each for name in found for each in own(name) if each.startswith("_")} - found:
        found |= more
    return found


def test_the_tools_of_this_test_see_what_is_there() -> None:
    """A test that finds nothing proves nothing."""
    assert VALUES | BINDING | {"", "testing", "features", "cli", "__main__"} <= MODULES.keys()
    assert "_engine" in own("pool")
    assert "threading" in IMPORTS["waiting"]
    assert "handle" in own("pool")
    assert "pool" not in own("handle"), "it names it for the type checker only"


def test_only_five_modules_import_the_binding() -> None:
    """Direction 2."""
    assert {name for name in MODULES if "_engine" in own(name)} == BINDING


@pytest.mark.parametrize("name", sorted(value_modules()))
def test_values_do_no_io_and_know_no_thread_or_loop(name: str) -> None:
    """Direction 3: nor do they know what stands above them."""
    assert not IMPORTS[name] & BEYOND_VALUES
    assert own(name) <= value_modules()
    called = {
        node.func.id
        for node in ast.walk(ast.parse(MODULES[name].read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"open", "input", "print"}


def test_observers_stand_beside_the_requests() -> None:
    """Direction 3: who listens needs values only, and what tells them is asked for where requests start."""
    assert own("observers") <= value_modules() | {"_frozen"}
    assert not IMPORTS["observers"] & BEYOND_VALUES
    assert {name for name in MODULES if "_watch" in own(name)} == {"pool"}
    assert {name for name in MODULES if "observers" in own(name)} == {"", "pool", "_watch"}


def test_the_clients_do_not_import_each_other() -> None:
    """Direction 4: they share everything but the waiting."""
    for name, other in (("client", "async_client"), ("async_client", "client")):
        if name in MODULES:
            assert other not in own(name)


@pytest.mark.parametrize("name", [name for name in MODULES if name.split(".")[0] == "cli"])
def test_the_command_line_uses_public_names_only(name: str) -> None:
    """Direction 5."""
    import katipo

    for each in own(name):
        assert each.split(".")[0] == "cli" or each in katipo.__all__, f"{name} imports katipo.{each}"
    public = {"katipo", "cli"} | set(katipo.__all__)
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "katipo":
            assert node.attr in public, f"{name} uses katipo.{node.attr}"
        if isinstance(node, ast.ImportFrom) and node.module == "katipo":
            assert {alias.name for alias in node.names} <= public


def test_nothing_imports_the_command_line() -> None:
    """Direction 5: but for `python -m katipo`."""
    for name in MODULES:
        if name != "__main__" and name.split(".")[0] != "cli":
            assert not {each for each in own(name) if each.split(".")[0] == "cli"}, name


def test_third_party_imports_of_the_core() -> None:
    """Direction 5: what else is needed lives in cli, adapters and telemetry."""
    standard = set(sys.stdlib_module_names)
    for name in MODULES:
        if name.split(".")[0] in ("cli", "adapters", "telemetry"):
            continue
        others = {each for each in IMPORTS[name] if not each.startswith("katipo") and each not in standard}
        assert others <= CORE_REQUIREMENTS, name


# ---------------------------------------------------------------------------------------------------- the engine


SOURCES = sorted(path.name for path in [*ENGINE.glob("*.c"), *ENGINE.glob("*.h")])


def code(name: str) -> str:
    """A source without its comments."""
    return re.sub(r"/\*.*?\*/", "", (ENGINE / name).read_text(), flags=re.DOTALL)


def includes(name: str) -> set[str]:
    """The engine's own headers that a source names."""
    return {Path(each).name for each in re.findall(r'^\s*#\s*include\s+"([^"]+)"', code(name), re.MULTILINE)}


@pytest.mark.parametrize("name", [name for name in SOURCES if name.split(".")[0] != "curl_driver"])
def test_poller_and_libcurl_meet_in_the_driver_only(name: str) -> None:
    """Direction 1. (Waking a worker is not polling: `poller_wake` may be called by whoever has something for it.)"""
    assert not {"poller.h", "libcurl.h"} <= includes(name)
    polls = not name.startswith("poller") and re.search(r"\bpoller_(?!wake\b)\w+\s*\(", code(name))
    assert not polls, f"{name} calls {polls[0] if polls else ''}"


@pytest.mark.parametrize(
    "name",
    [name for name in SOURCES if re.match(r"(poller|queue|wake|record|files|mailbox|base|log|pool|turns)[._]", name)],
)
def test_pollers_queues_record_and_mailbox_know_no_libcurl(name: str) -> None:
    """Direction 1: nor do the others that stand beside them."""
    assert "libcurl.h" not in includes(name)
    assert not re.search(r"\blc\.|\bcurl_(?:easy|multi|global)_|\bCURL", code(name))


def test_the_engine_needs_no_python_and_no_curl_headers() -> None:
    """C11, libc and pthreads only."""
    for name in SOURCES:
        system = re.findall(r"^\s*#\s*include\s+<([^>]+)>", (ENGINE / name).read_text(), re.MULTILINE)
        assert not [each for each in system if "Python" in each or each.startswith("curl")], name
