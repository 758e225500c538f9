"""Compares katipo with other clients in one run: `python -m benchmarks.compare`. README.md says how to read it."""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

from benchmarks import clients, servers
from benchmarks.cores import CLIENT_CORE, SERVER_CORE, SHARED, on_core
from benchmarks.measure import Figures, Order
from benchmarks.scenarios import SCENARIOS, Effort, Scenario

_FULL, _QUICK = Effort(seconds=1.5, size=512 << 20), Effort(seconds=0.5, size=128 << 20)
_BASES = ("wreq", "katipo-pool")


class ClientProcess:
    """A client in a process of its own, on the clients' core."""

    def __init__(self, name: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.measure", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=on_core(CLIENT_CORE),
        )

    def measure(self, order: Order) -> Figures:
        """Run one round; raises RuntimeError when the client has died, its traceback being on standard error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the client's process ended with status {self._process.wait()}")
        return Figures(**json.loads(line))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


@dataclass
class Results:
    """Figures by scenario and client, one per round."""

    figures: dict[str, dict[str, list[Figures]]] = field(default_factory=dict[str, dict[str, list[Figures]]])

    def add(self, scenario: str, client: str, figures: Figures) -> None:
        """Append the next round's figures."""
        self.figures.setdefault(scenario, {}).setdefault(client, []).append(figures)


def _rate(figures: Figures) -> float:
    return figures.amount / figures.elapsed


def _cost(figures: Figures) -> float:
    return figures.cpu / figures.amount


def _orders(quick: bool, found: servers.Servers, wanted: Sequence[str]) -> Iterator[tuple[Scenario, Order]]:
    effort = _QUICK if quick else _FULL
    for name in wanted:
        scenario = SCENARIOS[name]
        server = found.plain if scenario.server == "plain" else found.http2
        if server is not None:
            authority = found.authority if server.base.startswith("https") else None
            yield scenario, Order(name, server.base, authority, server.process, effort.seconds, effort.size)


def run(names: Sequence[str], wanted: Sequence[str], rounds: int, quick: bool) -> Results:
    """Measure every client in every scenario, `rounds` times, the clients taking turns within a round."""
    results = Results()
    with servers.running() as found, contextlib.ExitStack() as stack:
        processes = {name: ClientProcess(name) for name in names}
        for process in processes.values():
            stack.callback(process.close)
        orders = list(_orders(quick, found, wanted))
        if "at-once-http2" in wanted and found.http2 is None:
            print("nginx is not installed: HTTP/2 is left out", file=sys.stderr)
        for number in range(rounds):
            turn = [*names[number % len(names) :], *names[: number % len(names)]]
            for scenario, order in orders:
                for name in turn:
                    if scenario.clients is None or name in scenario.clients:
                        _say(f"round {number + 1} of {rounds}: {scenario.name}, {name}")
                        results.add(scenario.name, name, processes[name].measure(order))
    _say("")
    return results


def _say(progress: str) -> None:
    """Show where the run is, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{progress}", end="", file=sys.stderr, flush=True)


def _ratio(mine: list[Figures], base: list[Figures] | None, *, of_cost: bool) -> str:
    """Return the median of the ratios within each round."""
    if base is None:
        return "-"
    value = _cost if of_cost else _rate
    return f"{statistics.median(value(a) / value(b) for a, b in zip(mine, base, strict=True)):.2f}"


def table(scenario: Scenario, by_client: dict[str, list[Figures]]) -> str:
    """Return one scenario's results as a Markdown table, the fastest client first."""
    requests = scenario.unit == "requests"
    bases = [base for base in _BASES if base in by_client]
    units = ["requests/s", "CPU us/request"] if requests else ["MB/s", "CPU s/GB"]
    ratios = [f"{what} : {base}" for base in bases for what in ("rate", "CPU")]
    header = ["client", *units, *ratios, "spread", "server busy"]
    rows = [header, ["---", *["---:"] * (len(header) - 1)]]
    for name, rounds in sorted(by_client.items(), key=lambda item: -statistics.median(map(_rate, item[1]))):
        rates = [_rate(figures) for figures in rounds]
        rate, cost = statistics.median(rates), statistics.median(map(_cost, rounds))
        row = [name, f"{rate:,.0f}" if requests else f"{rate / 1e6:,.0f}", f"{cost * (1e6 if requests else 1e9):,.2f}"]
        for base in bases:
            row += [_ratio(rounds, by_client[base], of_cost=of_cost) for of_cost in (False, True)]
        busy = statistics.median(figures.server_cpu / figures.elapsed for figures in rounds)
        rows.append([*row, f"{(max(rates) - min(rates)) / rate:.0%}", f"{busy:.0%}"])
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    padded = ([f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)] for row in rows)
    return f"### {scenario.title}\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in padded)


def _heading(rounds: int) -> str:
    where = f"server on core {SERVER_CORE}, client on core {CLIENT_CORE}"
    if SHARED:
        where = "servers and clients share the only core: the rates mean nothing"
    return f"Python {platform.python_version()}, {where}, medians over {rounds} rounds.\n"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute; the figures are rough")
    parser.add_argument("--rounds", type=int, help="how often each client runs each scenario (5; 2 with --quick)")
    parser.add_argument("--clients", help=f"of {', '.join(clients.NAMES)}; separated by commas")
    parser.add_argument("--scenarios", help=f"of {', '.join(SCENARIOS)}; separated by commas")
    parser.add_argument("--json", help="write every round's figures to this file")
    return parser.parse_args()


def main() -> None:
    """Run the comparison and print its tables."""
    options = _options()
    available = clients.installed()
    names = options.clients.split(",") if options.clients else available
    wanted = options.scenarios.split(",") if options.scenarios else list(SCENARIOS)
    if unknown := sorted({*names, *wanted} - {*clients.NAMES, *SCENARIOS}):
        sys.exit(f"no such client or scenario: {', '.join(unknown)}")
    if missing := [name for name in options.clients.split(",") if name not in available] if options.clients else []:
        sys.exit(f"not installed: {', '.join(missing)}")
    rounds = options.rounds or (2 if options.quick else 5)
    if (load := os.getloadavg()[0]) > 0.5:
        print(f"something else is running here (load {load:.1f}): expect a large spread", file=sys.stderr)
    started = time.monotonic()
    results = run(names, wanted, rounds, options.quick)
    print(_heading(rounds))
    for name, by_client in results.figures.items():
        print(table(SCENARIOS[name], by_client))
    print(f"{time.monotonic() - started:.0f} s in all", file=sys.stderr)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results.figures, file, default=asdict)


if __name__ == "__main__":
    main()
