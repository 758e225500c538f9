"""What it takes to begin: importing a client, and making one. `python -m benchmarks.startup`; README.md says how to read it.

Every figure comes from fresh processes that take turns. "import" is the CPU time of the first import of a client's class
beside that of an interpreter that imports nothing; "create" is the time to make a client and close it again, the first one
of its process left out: that one loads libraries and certificates which later ones share, where the client shares them.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys

from benchmarks import clients
from benchmarks.cores import CLIENT_CORE, on_core

_IMPORT = "import resource; {statement}; u = resource.getrusage(resource.RUSAGE_SELF); print(u.ru_utime + u.ru_stime)"
_STATEMENTS = {
    "nothing": "pass",
    "katipo": "from katipo import Client, AsyncClient",
    "httpx": "from httpx import Client, AsyncClient",
    "aiohttp": "from aiohttp import ClientSession",
    "wreq": "from wreq import Client",
    "pycurl": "import pycurl",
}
_CREATE = """
import json, time
from {name} import Client
Client().close()
times = []
for _ in range({count}):
    began = time.perf_counter()
    Client().close()
    times.append(time.perf_counter() - began)
print(json.dumps(times))
"""
_CREATIONS = {"katipo": 300, "httpx": 20}


def _output(source: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", source], check=True, capture_output=True, text=True, preexec_fn=on_core(CLIENT_CORE)
    )
    return done.stdout


def _import_seconds(statement: str) -> float:
    return float(_output(_IMPORT.format(statement=statement)))


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="processes for each figure (15)")
    rounds = parser.parse_args().rounds
    there = ["nothing", *(name for name in _STATEMENTS if name in clients.installed())]
    for name in there:
        _import_seconds(_STATEMENTS[name])  # compiles what was not
    imports = {name: list[float]() for name in there}
    creations = {name: list[float]() for name in _CREATIONS if name in there}
    for _ in range(rounds):
        for name in there:
            imports[name].append(_import_seconds(_STATEMENTS[name]))
        for name, each in creations.items():
            each.append(statistics.median(json.loads(_output(_CREATE.format(name=name, count=_CREATIONS[name])))))

    print(f"Python {platform.python_version()}, medians of {rounds} processes each.\n\n### The first import\n")
    print("| client | CPU ms | : httpx |\n| --- | ---: | ---: |")
    extra = {
        name: statistics.median(a - b for a, b in zip(each, imports["nothing"], strict=True))
        for name, each in imports.items()
        if name != "nothing"
    }
    for name, seconds in sorted(extra.items(), key=lambda item: item[1]):
        ratio = f"{seconds / extra['httpx']:.2f}" if "httpx" in extra else "-"
        print(f"| {name} | {seconds * 1e3:.1f} | {ratio} |")
    print("\n### Making a client, and closing it\n\n| client | us | httpx : it |\n| --- | ---: | ---: |")
    for name, each in creations.items():
        ratio = "-"
        if "httpx" in creations:
            ratio = f"{statistics.median(a / b for a, b in zip(creations['httpx'], each, strict=True)):,.0f}"
        print(f"| {name} | {statistics.median(each) * 1e6:,.0f} | {ratio} |")
    print()


if __name__ == "__main__":
    main()
