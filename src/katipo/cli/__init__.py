"""The command line. It uses katipo's public names only."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence

import katipo

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status."""
    parser = argparse.ArgumentParser(prog="katipo", description="An HTTP client on libcurl.")
    parser.add_argument("--version", action="version", version=f"katipo {katipo.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("info", help="show libcurl's version and features, and what is missing")
    parser.parse_args(arguments)
    return _info()


def _info() -> int:
    try:
        features = katipo.features()
    except ImportError as error:
        print(f"katipo: {error}", file=sys.stderr)
        return 1
    rows = [
        ("katipo", katipo.__version__),
        ("python", f"{platform.python_implementation()} {platform.python_version()}"),
        ("libcurl", features.libcurl),
        ("from", features.path),
        ("tls", features.ssl or "none"),
        ("protocols", " ".join(sorted(features.protocols))),
        ("http", " ".join(features.http_versions)),
        ("codings", " ".join(features.codings) or "none"),
        ("auth", " ".join(features.auth_schemes)),
    ]
    for name, value in rows:
        print(f"{name:10} {value}")
    for position, missing in enumerate(features.missing or ("nothing",)):
        print(f"{'' if position else 'missing':10} {missing}")
    return 0
