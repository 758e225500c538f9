"""What type checkers make of user code: right options pass, wrong ones are caught where they are, results are typed.

`# E` marks a line that must be refused, `# R: type` what `reveal_type` must show.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"
FILES = ("right.py", "wrong.py")

Findings = tuple[dict[int, str], dict[int, str]]
"""(errors, revealed types) by line."""


def marked(name: str, mark: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for number, line in enumerate((HERE / name).read_text().splitlines(), 1):
        if match := re.search(rf"  # {mark}(?:: (.+))?$", line):
            found[number] = match[1] or ""
    return found


def plain(shown: str) -> str:
    """A type without the modules its names are in, and a union in one order."""
    shown = re.sub(r"\b(?:\w+\.)+(?=\w)", "", shown).replace("Union[", "").rstrip("]").replace(", ", " | ")
    return " | ".join(sorted(shown.split(" | ")))


def run(command: list[str], env: dict[str, str]) -> str:
    return subprocess.run(
        command, cwd=HERE, env={**os.environ, **env}, capture_output=True, text=True, timeout=300, check=False
    ).stdout


@pytest.fixture(scope="module")
def mypy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Findings]:
    """mypy's findings in every file."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    cache = tmp_path_factory.mktemp("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--no-pretty", "--follow-imports=silent"]
    command += ["--config-file=", f"--cache-dir={cache}", *FILES]
    findings: dict[str, Findings] = {name: ({}, {}) for name in FILES}
    output = run(command, {"MYPYPATH": str(SOURCE)})
    for line in output.splitlines():
        match = re.match(r"(.+?):(\d+): (error|note): (.+)", line)
        if match is None or match[1] not in findings:
            pytest.fail(f"mypy: {line}")
        errors, revealed = findings[match[1]]
        if match[3] == "error":
            errors[int(match[2])] = match[4]
        elif shown := re.match(r'Revealed type is "(.+)"', match[4]):
            revealed[int(match[2])] = shown[1]
    return findings


@pytest.fixture(scope="module")
def pyright(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Findings]:
    """pyright's findings in every file."""
    program = Path(sys.executable).with_name("pyright")
    found = str(program) if program.exists() else shutil.which("pyright")
    if found is None:
        pytest.skip("pyright is not installed")
    project = tmp_path_factory.mktemp("pyright")
    for name in FILES:
        shutil.copy(HERE / name, project)  # pyright takes no files from outside its project
    (project / "pyrightconfig.json").write_text(
        json.dumps(
            {
                "typeCheckingMode": "strict",
                "extraPaths": [str(SOURCE)],
            }
        )
    )
    output = run([found, "--outputjson", "--pythonpath", sys.executable, "-p", str(project)], {})
    findings: dict[str, Findings] = {name: ({}, {}) for name in FILES}
    for item in json.loads(output)["generalDiagnostics"]:
        errors, revealed = findings[Path(item["file"]).name]
        line = item["range"]["start"]["line"] + 1
        if item["severity"] == "error":
            errors[line] = item["message"]
        elif shown := re.match(r'Type of ".*" is "(.+)"', item["message"], re.DOTALL):
            revealed[line] = shown[1]
    return findings


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
@pytest.mark.parametrize("name", FILES)
def test_errors_are_where_they_are_marked(checker: str, name: str, request: pytest.FixtureRequest) -> None:
    """Each marked line is refused, and no other."""
    findings: dict[str, Findings] = request.getfixturevalue(checker)
    errors = findings[name][0]
    expected = marked(name, "E")
    unexpected = {line: text for line, text in errors.items() if line not in expected}
    assert not unexpected
    assert sorted(errors) == sorted(expected)


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_revealed_types(checker: str, request: pytest.FixtureRequest) -> None:
    """Results have the types that the interface states."""
    findings: dict[str, Findings] = request.getfixturevalue(checker)
    revealed = {line: plain(shown) for line, shown in findings["right.py"][1].items()}
    expected = {line: plain(shown) for line, shown in marked("right.py", "R").items()}
    assert revealed == expected
