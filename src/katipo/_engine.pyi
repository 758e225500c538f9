"""The binding to the engine: checks that an object is alive, calls without the GIL, converts. No policy lives here.

Only `pool`, `mailbox`, `handle` and `waiting` import this module. `engine/include/engine.h` is the reference for what each
call does; this stub says what it looks like from Python.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, TypeAlias, TypeVar, final

from typing_extensions import Buffer, Self, disjoint_base

_Kept = TypeVar("_Kept")

# Kinds of message, the first item of every message tuple.
INFORMATIONAL: Final[int]
STARTED: Final[int]
CHUNK: Final[int]
DONE: Final[int]
RESPONDED: Final[int]
FAILED: Final[int]

# Flags of Pool.submit.
STREAM: Final[int]
STREAM_BODY: Final[int]
MANUAL_CREDIT: Final[int]
FINISH_ON_ABANDON: Final[int]
HAS_BODY: Final[int]
KEEP_INFORMATIONAL: Final[int]

# Flags of Config.
FOLLOW: Final[int]
MAY_RETRY_AUTH: Final[int]
NEGOTIATE: Final[int]
PROXIED: Final[int]
HAS_COOKIES: Final[int]
VERBOSE: Final[int]
OWN_ACCEPT: Final[int]

# What Pool.submit answers.
ACCEPTED: Final[int]
OVERLOAD: Final[int]
CLOSED: Final[int]
NO_MEMORY: Final[int]
NO_THREAD: Final[int]
GAVE_UP: Final[int]

NOT_PLAIN: Final[int]
"""Of Pool.start alone."""

# What Transfer.send answers.
SENT: Final[int]
NO_ROOM: Final[int]
BODY_ENDED: Final[int]
SETTLED: Final[int]
BEYOND_LENGTH: Final[int]

# What a Waiter can wait for (bits).
ON_TERMINAL: Final[int]
ON_NEWS: Final[int]
ON_ROOM: Final[int]
ON_IDLE: Final[int]
ON_STOPPED: Final[int]
ON_FILES_CLOSED: Final[int]

# Answers of WakeQueue.wait.
WOKEN: Final[int]
TIMED_OUT: Final[int]

OUTCOMES: Final[Mapping[str, int]]
"""Outcome of a transfer by name. "pending" is 0, "ok" is 1; the others are in the X-macro of engine.h:
"curl", "cancelled", "timeout", "worker_died", "pool_closed", "too_large", "lost", "body_short", "no_memory", "forked",
"raised"."""

CLOCKS: Final[Mapping[str, int]]
"""The clock that ran out, by name: "none" 0, "connect" 1, "read" 2, "write" 3, "pool" 4, "total" 5."""

Informational: TypeAlias = tuple[int, int, bytes]
"""(INFORMATIONAL, status, header block)"""
Started: TypeAlias = tuple[int, int, bytes, tuple[bytes, ...], bytes | None]
"""(STARTED, status, header block, cookies as Netscape lines, effective URL or None where it is the request's own)"""
Chunk: TypeAlias = tuple[int, bytes]
"""(CHUNK, data as received from libcurl)"""
Done: TypeAlias = tuple[int, bytes, tuple[bytes, ...], bytes]
"""(DONE, trailer lines, cookies, metrics)"""
Responded: TypeAlias = tuple[int, int, bytes, bytes, bytes, tuple[bytes, ...], bytes | None, bytes]
"""(RESPONDED, status, header block, body, trailer lines, cookies, effective URL or None, metrics)"""
Failed: TypeAlias = tuple[int, int, int, bytes | BaseException, int, bool, bool, bytes]
"""(FAILED, outcome, curl code or -1, detail for people, clock, request was sent, failed before or at the proxy, metrics).
Where the outcome is "raised" what was raised stands in place of the detail."""
Message: TypeAlias = Informational | Started | Chunk | Done | Responded | Failed

METRICS_FORMAT: Final[str]
"""`struct` format of the metrics: microseconds queue, namelookup, connect, appconnect, pretransfer, starttransfer, redirect,
total; bytes sent, bytes received; connections opened, primary port, local port (all int64); primary IP (NUL-padded)."""

def load(path: str) -> None:
    """Open libcurl (or a shared object that is linked to one) at `path` and look up its functions. Once per process.

    Raises ImportError saying which function is missing or why the file cannot be opened.
    """

def library() -> dict[str, Any]:
    """What the loaded libcurl says of itself: "path", "version", "version_num", "ssl_version", "protocols", "features",
    "libraries" (mapping of name to version)."""

def option(name: str) -> tuple[int, int] | None:
    """(number, kind) of a libcurl option by its name without CURLOPT_; None where this libcurl has none of that name.

    Kinds as in curl's options.h: 0 long, 1 values (long), 2 off_t, 3 object, 4 string, 5 slist, 6 cbptr, 7 blob, 8 function.
    """

def plain_url(url: str) -> tuple[bytes, bytes] | None:
    """What url.prepare would answer for the plain URLs that most requests have, at a tenth of its cost: a lower-case scheme
    and host, ASCII throughout, nothing to encode, decode or normalise. None: ask url.prepare."""

def counts() -> dict[str, int]:
    """The engine's live objects in this process: "pools", "workers", "transfers", "easies", "multis", "mailboxes",
    "configs", "queues", "waiters", "sockets", "files", "wedged"."""

def fork_prepare() -> None: ...
def fork_parent() -> None: ...
def fork_child() -> None: ...
def stop_all(timeout: float) -> int:
    """Stop every pool: settle what is in flight, end and join the threads. Returns how many threads stayed wedged."""

def log_take() -> tuple[int, list[tuple[int, bytes]]]:
    """(lines lost since the last call, [(kind, text)]) of verbose transfers; kinds as curl_infotype: 0 text, 1 header in,
    2 header out."""

def log_register(waiter: Waiter) -> bool: ...

@final
class Config:
    """Immutable options of a request, compiled: libcurl's and the engine's. Shared by any number of requests."""

    options: Sequence[tuple[int, int | bytes | Sequence[bytes]]]
    flags: int
    timeout_ms: int
    read_timeout_ms: int
    max_bytes: int
    def __new__(
        cls,
        options: Sequence[tuple[int, int | bytes | Sequence[bytes]]],
        *,
        identity: bytes = ...,
        flags: int = ...,
        connect_timeout_ms: int = ...,
        timeout_ms: int = ...,
        read_timeout_ms: int = ...,
        write_timeout_ms: int = ...,
        pool_timeout_ms: int = ...,
        max_bytes: int = ...,
    ) -> Self:
        """`options`: (number, value): int for long and off_t, bytes for strings and blobs, a sequence of bytes for lists.

        `identity`: b"" is the plain one. `max_bytes` -1: no limit. A timeout of 0 is none.
        Raises ValueError for a value that does not fit its option's kind.
        """

@final
class Call:
    """What requests of one kind have in common: buffered both ways, no mailbox."""

    config: Config
    method: bytes
    flags: int
    body: bytes | None
    body_length: int
    upload_window: int
    def __new__(cls, config: Config, method: bytes, flags: int, body: bytes | None, upload_window: int) -> Self: ...

@disjoint_base
class Pool:
    def __new__(
        cls,
        *,
        workers: int,
        multiplexing: bool,
        max_total_connections: int,
        max_host_connections: int,
        max_idle_connections: int,
        max_concurrent_streams: int,
        max_in_flight: int,
        name: bytes,
    ) -> Self:
        """Numbers as in katipo.Pool, 0 (for max_idle_connections -1) where there is no limit. Starts nothing."""
    def submit(
        self,
        transfer: Transfer[Any],
        config: Config,
        method: bytes,
        url: bytes,
        origin: bytes,
        flags: int,
        body: Buffer | None,
        body_length: int,
        window: int,
        upload_window: int,
        mailbox: Mailbox | None,
        token: int,
    ) -> int:
        """Accept a request: ACCEPTED, or why not. Not accepted: the transfer is as it was, and nothing was sent.

        `origin`: b"scheme://host:port", equal for equal origins. `body`: copied; for a streamed body None. `body_length`: -1
        where a streamed body's length is not known. `window` -1: unbounded.
        """
    def start(self, transfer: Transfer[Any], call: Call, url: object, token: int) -> int:
        """submit() for the requests that programs make most of, at half its cost. NOT_PLAIN: `url` is not a str that
        plain_url knows, and nothing was done."""
    def play(
        self,
        transfer: Transfer[Any],
        player: Player,
        config: Config,
        method: bytes,
        url: bytes,
        origin: bytes,
        flags: int,
        body: bytes | None,
        body_length: int,
        window: int,
        upload_window: int,
        mailbox: Mailbox | None,
        token: int,
    ) -> int:
        """As submit(), for a request that `player` answers in place of a worker: ACCEPTED, CLOSED, NO_MEMORY."""
    def refuse(self) -> None:
        """From now on submit answers CLOSED."""
    def stop(self) -> None:
        """Settle everything in flight with "pool_closed" and tell the workers to end. Implies refuse()."""
    def join(self, timeout: float) -> int:
        """Wait for the ended workers' threads, at most `timeout` seconds; those still there are left and counted: wedged."""
    def abandon(self) -> None:
        """What a finalizer calls: refuse, and the workers end when what is in flight has ended."""
    def register(self, waiter: Waiter, mask: int) -> bool:
        """ON_IDLE: nothing is in flight; ON_STOPPED: every worker has left its loop. As Transfer.register."""
    def statistics(self) -> tuple[int, int, int, int, int, int, int]:
        """workers (threads alive), in_flight, queued, connections, restarts, completed, failed"""
    def fault(self, index: int, how: int) -> bool:
        """Make worker `index`'s next poller call (1), allocation (2) or multi call (3) fail; False: no such worker runs."""

@disjoint_base
class Transfer(Generic[_Kept]):
    """One request's record, from this side. Made empty; Pool.submit fills it."""
    def __init__(self) -> None: ...
    def __class_getitem__(cls, item: Any) -> type[Self]: ...
    def keep(self, value: _Kept) -> _Kept:
        """Keep a value with the transfer, the first that is given; returns the one that is kept."""
    def done(self) -> bool: ...
    def outcome(self) -> int:
        """A value of OUTCOMES; 0 while in flight."""
    def overdue(self) -> bool:
        """True when the total deadline is more than one second past and nothing has settled it: its worker is wedged."""
    def overdue_at(self) -> float:
        """When overdue() may become true, on time.monotonic()'s clock; infinity where the request has no total timeout."""
    def expire(self) -> bool:
        """Settle an overdue transfer that is played with "timeout". False: a worker has it."""
    def seconds_to_overdue(self) -> float | None:
        """Seconds until overdue() may become true; None where the request has no total timeout or is settled."""
    def cancel(self) -> bool:
        """Settle as "cancelled" and drop what is queued. False: it was settled before, and nothing changed."""
    def fail(self, outcome: int, detail: bytes = ...) -> bool:
        """Settle with another outcome, as cancel() does. On a transfer settled "ok" whose terminal is not taken yet, the
        outcome is replaced: this is for what is found while taking (a body too large after decoding, an undecodable one)."""
    def send(self, data: Buffer) -> int:
        """Copy all of `data` to the request's body, or nothing: SENT, NO_ROOM, BODY_ENDED, SETTLED, BEYOND_LENGTH."""
    def finish(self) -> None: ...
    def send_file(self, fd: int, offset: int, length: int) -> int:
        """The rest of the body, and its end, is `length` bytes of a file, which the worker reads with pread from a
        descriptor of its own. Answers as send(), but never NO_ROOM. Raises OSError for what cannot be read at an offset."""
    def write_to(self, fd: int, offset: int) -> None:
        """A streamed response's body goes to a file, as sent: what is queued and all that follows; no more chunks can be
        taken. The worker writes with pwrite to a descriptor of its own; ON_FILES_CLOSED says when it is done with it.

        Raises OSError for what cannot be written at an offset; with EINVAL for a response that is buffered or has a mailbox,
        and when called twice.
        """
    def written(self) -> int:
        """Bytes written so far, from write_to's offset on."""
    def credit(self, n: int) -> None:
        """Manual flow control: `n` more bytes may be delivered. Harmless on a settled request."""
    def consumed(self, n: int) -> None:
        """Automatic flow control: `n` bytes of chunks have reached the user's code. Nothing under manual flow control."""
    def take(self) -> Message | None:
        """The next message of a stream without a mailbox; None where there is none yet, or after the terminal one."""
    def terminal(self) -> Responded | Done | Failed | None:
        """The terminal message, the same object each time; None while in flight. Does not take messages."""
    def register(self, waiter: Waiter, mask: int) -> bool:
        """Have `waiter` woken once when a condition in `mask` holds. True: one holds already, and nothing was registered."""

@disjoint_base
class Player:
    """The worker's side of one request, for Python to play. Pool.play gives it its request.

    Its methods do nothing once the request has its outcome. What is pending goes on by itself, in the thread
    that gives credit, or takes: no thread is needed.
    """

    token: int | None
    error: BaseException | None
    """What raised() was given."""
    def __init__(self) -> None: ...
    def called(self, body: bytes) -> None:
        """To be overridden: a streamed body has come to its end. Called in the thread that ended it; it must not raise."""
    def settled(self) -> None:
        """To be overridden: the request has its outcome. Called in the thread that gave it; it must not raise."""
    @property
    def done(self) -> bool:
        """The request has its outcome (or was never accepted)."""
    def read(self) -> None:
        """Take what there is of a streamed body; at its end called() is called."""
    def begin(self) -> None:
        """From here the request counts as sent."""
    def respond(self, status: int, block: bytes, content: bytes, trailers: bytes, cookies: bytes) -> None:
        """The whole response: its header block, its body as it is delivered, trailer lines, cookies as Netscape lines."""
    def pump(self) -> None:
        """Deliver what the window allows."""
    def fail(self, outcome: int, curl_code: int, detail: bytes) -> bool:
        """Settle with an outcome other than "ok" and "raised". False: settled before."""
    def cancel(self, detail: bytes) -> bool: ...
    def raised(self, error: BaseException) -> bool:
        """Settle with "raised": whoever takes the terminal message gets the very object."""
    def expire(self, clock: int) -> bool:
        """Settle with "timeout" of a clock, total or read."""
    def seconds_left(self) -> float | None:
        """Until the request's total deadline; None without one."""

@disjoint_base
class Mailbox:
    def __init__(self) -> None: ...
    def take(self) -> Taken | None:
        """Check out the next request that has news, with its next message."""
    def register(self, waiter: Waiter) -> bool:
        """Have `waiter` woken when there may be something to take, or the box is closed. True: already so.

        One waiter is woken per piece of news. A woken waiter that will not take must call pass_on().
        """
    def pass_on(self) -> None: ...
    def fail_overdue(self) -> float | None:
        """Settle with "worker_died" each request that replies here and for which Transfer.overdue() would be true.

        Returns the least that Transfer.seconds_to_overdue() would answer for those that are left; None without any.
        """
    def close(self) -> None:
        """Cancel the requests that reply here and wake every waiter. What is queued stays to be taken.

        Whoever sees `closed` finds the requests settled: what they leave behind is queued by then.
        """
    @property
    def closed(self) -> bool: ...
    def __len__(self) -> int: ...

@final
class Taken:
    """A request checked out of a mailbox: no other consumer sees its messages until give_back()."""

    token: int
    message: Message | None
    """None when it was given back with `more` and the engine itself had nothing new to say."""
    def give_back(self, *, more: bool = ...) -> None:
        """Check in. `more`: the caller keeps something for the next taker (decoded output), so queue it in any case."""
    def consumed(self, n: int) -> None:
        """As Transfer.consumed."""
    def fail(self, outcome: int, detail: bytes = ...) -> bool:
        """As Transfer.fail; the terminal that follows is taken as usual."""

@final
class Waiter:
    """A single-shot registration: one condition on one source wakes one queue."""

    token: Any
    owner: Any
    """None, until somebody uses it."""
    def __new__(cls, queue: WakeQueue, token: Any = ...) -> Self: ...
    def cancel(self) -> bool:
        """Take the registration back. True: it had been woken already (and is in its queue no more)."""

@final
class WakeQueue:
    """Where woken waiters arrive: one wake-up of a descriptor per batch. A thread or an event loop owns it."""
    def __init__(self) -> None:
        """Raises OSError when no descriptor is to be had."""
    def fileno(self) -> int: ...
    def drain(self) -> list[Waiter]:
        """Clear the descriptor and take every woken waiter."""
    def wait(self, timeout: float | None) -> int:
        """Block until a waiter is woken (WOKEN) or `timeout` seconds are over (TIMED_OUT), without the GIL.

        On the main thread a signal's Python handler runs at once; what it raises (KeyboardInterrupt) is raised here.
        """
    def close(self) -> None:
        """Idempotent. Waiters still registered must have been cancelled."""
