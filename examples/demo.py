"""What katipo does, shown: `make demo`, or `python examples/demo.py [URL]`.

Without a URL it starts a server of its own, needs no network, and takes about fifteen seconds. With one (an argument, or
the environment variable URL) it does what makes sense against any server. The exit status is 1 when a check fails.
"""

import asyncio
import os
import sys
import time

import demo_clients
import demo_local
import demo_origin
import demo_url
from demo_screen import Screen

import katipo


def main() -> int:
    """Run the demonstration and return its exit status."""
    url = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("URL", "")
    screen, start = Screen(), time.monotonic()
    screen.line(f"katipo {katipo.__version__} on libcurl {katipo.features().libcurl}")
    try:
        if url:
            asyncio.run(demo_url.show(screen, url))
        else:
            with demo_origin.running() as base:
                demo_clients.show(screen, base)
                asyncio.run(demo_local.show(screen, base))
    except KeyboardInterrupt:
        return 130
    except katipo.Error as error:
        screen.check(False, f"{type(error).__name__} ({error.code}): {error.message}")
    result = f"{screen.failed} failed" if screen.failed else "all passed"
    screen.line(f"\n{screen.checked} checks, {result}, in {time.monotonic() - start:.1f} s")
    return 1 if screen.failed else 0


if __name__ == "__main__":
    sys.exit(main())
