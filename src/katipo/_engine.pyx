# cython: language_level=3, boundscheck=False, wraparound=False
"""The binding to the engine: checks that an object is alive, calls without the GIL, converts. No policy lives here.

Calls that only take an engine lock for a few instructions keep the GIL: letting go of it would cost more than they do, and
no worker ever waits for it. Calls that wait, or copy much, release it.
"""

import os
import threading

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset, strcpy

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

INFORMATIONAL = <int>ENGINE_MESSAGE_INFORMATIONAL
STARTED = <int>ENGINE_MESSAGE_STARTED
CHUNK = <int>ENGINE_MESSAGE_CHUNK
DONE = <int>ENGINE_MESSAGE_DONE
RESPONDED = <int>ENGINE_MESSAGE_RESPONDED
FAILED = <int>ENGINE_MESSAGE_FAILED

STREAM = ENGINE_STREAM
STREAM_BODY = ENGINE_STREAM_BODY
MANUAL_CREDIT = ENGINE_MANUAL_CREDIT
FINISH_ON_ABANDON = ENGINE_FINISH_ON_ABANDON
HAS_BODY = ENGINE_HAS_BODY
KEEP_INFORMATIONAL = ENGINE_INFORMATIONAL

FOLLOW = ENGINE_FOLLOW
MAY_RETRY_AUTH = ENGINE_MAY_RETRY_AUTH
NEGOTIATE = ENGINE_NEGOTIATE
PROXIED = ENGINE_PROXIED
HAS_COOKIES = ENGINE_HAS_COOKIES
VERBOSE = ENGINE_VERBOSE
OWN_ACCEPT = ENGINE_OWN_ACCEPT

ACCEPTED = <int>ENGINE_ACCEPTED
OVERLOAD = <int>ENGINE_OVERLOAD
CLOSED = <int>ENGINE_CLOSED
NO_MEMORY = <int>ENGINE_NO_MEMORY
NO_THREAD = <int>ENGINE_NO_THREAD
GAVE_UP = <int>ENGINE_GAVE_UP
NOT_PLAIN = -1

SENT = <int>ENGINE_SENT
NO_ROOM = <int>ENGINE_NO_ROOM
BODY_ENDED = <int>ENGINE_BODY_ENDED
SETTLED = <int>ENGINE_SETTLED
BEYOND_LENGTH = <int>ENGINE_BEYOND_LENGTH

ON_TERMINAL = ENGINE_ON_TERMINAL
ON_NEWS = ENGINE_ON_NEWS
ON_ROOM = ENGINE_ON_ROOM
ON_IDLE = ENGINE_ON_IDLE
ON_STOPPED = ENGINE_ON_STOPPED
ON_FILES_CLOSED = ENGINE_ON_FILES_CLOSED

WOKEN = 1
TIMED_OUT = 0

METRICS_FORMAT = "=13q46s2x"

cdef object FOREVER = float("inf")


cdef int64_t OVERDUE_NS = 1_000_000_000  # past its deadline a request is settled within this, or its worker is wedged
cdef int64_t LONGEST_NS = <int64_t>10 * 365 * 86400 * 1_000_000_000
cdef Py_ssize_t COPY_WITH_GIL_MOST = 65536  # bytes; about as long as letting go of the GIL and taking it again


cdef dict _names(const char *(*name)(int) noexcept nogil):
    cdef int i = 0
    names = {}
    while name(i) != NULL:
        names[name(i).decode()] = i
        i += 1
    return names


OUTCOMES = _names(engine_outcome_name)
CLOCKS = _names(engine_clock_name)
cdef int RAISED = OUTCOMES["raised"]
_COUNTS = _names(engine_count_name)


cdef int64_t _ns(timeout) except? -2:
    """Nanoseconds of a timeout in seconds; -1 for None."""
    if timeout is None:
        return -1
    seconds = float(timeout)
    if seconds != seconds:
        raise ValueError("timeout: not a number")
    if seconds >= 10 * 365 * 86400:
        return LONGEST_NS
    return <int64_t>(seconds * 1e9) if seconds > 0 else 0


cdef object _text(const char *text):
    return None if text == NULL else text.decode("utf-8", "replace")


def load(path):
    cdef char reason[512]
    cdef bytes encoded = path.encode("utf-8", "surrogateescape")
    if engine_load(encoded, reason, sizeof(reason)):
        raise ImportError(f"cannot use libcurl: {reason.decode('utf-8', 'replace')}")


def library():
    cdef engine_library found
    cdef size_t i
    if not engine_loaded():
        raise RuntimeError("libcurl is not loaded")
    engine_describe(&found)
    protocols = []
    features = None
    i = 0
    while found.protocols[i] != NULL:
        protocols.append(found.protocols[i].decode())
        i += 1
    if found.features != NULL:
        features = []
        i = 0
        while found.features[i] != NULL:
            features.append(found.features[i].decode())
            i += 1
    libraries = {
        "zlib": _text(found.libz),
        "brotli": _text(found.brotli),
        "nghttp2": _text(found.nghttp2),
        "quic": _text(found.quic),
        "libidn2": _text(found.libidn),
        "libssh": _text(found.libssh),
        "gsasl": _text(found.gsasl),
    }
    return {
        "path": found.path.decode("utf-8", "surrogateescape"),
        "version": _text(found.version),
        "version_num": found.version_num,
        "ssl_version": _text(found.ssl_version),
        "protocols": protocols,
        "features": features,
        "feature_bits": found.feature_bits,
        "libraries": {name: version for name, version in libraries.items() if version},
    }


def option(name):
    cdef int number = 0
    cdef int kind = 0
    if not engine_loaded():
        raise RuntimeError("libcurl is not loaded")
    cdef bytes encoded = name.encode("ascii", "replace")
    return (number, kind) if engine_option(encoded, &number, &kind) else None


# What may stand in a plain URL's path and query: RFC 3986's pchar, "/" and "?", but no "%", which has to be looked at.
cdef unsigned char[128] _IN_PATH
cdef unsigned char[128] _IN_HOST


cdef int _mark(unsigned char *table, const char *members) except -1:
    cdef Py_ssize_t i = 0
    while members[i] != 0:
        table[<unsigned char>members[i]] = 1
        i += 1
    return 0


_mark(_IN_PATH, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@/?")
_mark(_IN_HOST, b"abcdefghijklmnopqrstuvwxyz0123456789-.")


cdef bint _is_address(const char *host, Py_ssize_t size):
    """Four decimal numbers up to 255 without leading zeros."""
    cdef Py_ssize_t i = 0
    cdef int parts = 0
    cdef int value, digits
    while True:
        value = digits = 0
        while i < size and c"0" <= host[i] <= c"9" and digits < 4:
            value = value * 10 + (host[i] - c"0")
            digits += 1
            if digits == 2 and host[i - 1] == c"0":
                return False
            i += 1
        if digits == 0 or digits > 3 or value > 255:
            return False
        parts += 1
        if i == size:
            return parts == 4
        if host[i] != c"." or parts == 4:
            return False
        i += 1


cdef bint _is_plain_host(const char *host, Py_ssize_t size):
    """Labels of letters, digits and inner hyphens, the last of which begins with a letter; or an IPv4 address."""
    cdef Py_ssize_t i
    cdef Py_ssize_t label = 0
    if size == 0 or size > 253 or host[size - 1] == c"." or host[size - 1] == c"-":
        return False
    for i in range(size):
        if <unsigned char>host[i] >= 128 or not _IN_HOST[<unsigned char>host[i]]:
            return False
        if host[i] == c".":
            if i == label or host[i - 1] == c"-":
                return False
            label = i + 1
        elif i == label and (host[i] == c"-" or (host[i] == c"x" and i + 3 < size and host[i + 1] == c"n"
                                                 and host[i + 2] == c"-" and host[i + 3] == c"-")):
            return False
        elif i - label >= 63:
            return False
    return not c"0" <= host[label] <= c"9" or _is_address(host, size)


cdef Py_ssize_t _origin_size(const char *text, Py_ssize_t size, const char **port):
    """Where the origin ends in a plain URL; 0 where it is not a plain one. `port`: what the origin lacks, or NULL."""
    cdef Py_ssize_t i, host
    cdef long number = 0
    if size > 8 and memcmp(text, b"https://", 8) == 0:
        host = 8
        port[0] = b":443"
    elif size > 7 and memcmp(text, b"http://", 7) == 0:
        host = 7
        port[0] = b":80"
    else:
        return 0
    i = host
    while i < size and text[i] != c":" and text[i] != c"/":
        i += 1
    if not _is_plain_host(text + host, i - host):
        return 0
    if i < size and text[i] == c":":
        port[0] = NULL
        i += 1
        if i == size or not c"1" <= text[i] <= c"9":
            return 0
        while i < size and c"0" <= text[i] <= c"9" and number <= 65535:
            number = number * 10 + (text[i] - c"0")
            i += 1
        if number > 65535:
            return 0
    if i == size or text[i] != c"/":
        return 0
    cdef Py_ssize_t end = i
    while i < size:
        if not _IN_PATH[<unsigned char>text[i]]:
            return 0
        if text[i] == c"." and text[i - 1] == c"/":
            return 0
        i += 1
    return end


def plain_url(str url not None):
    cdef Py_ssize_t size, end
    cdef const char *port = NULL
    if not url.isascii():
        return None
    cdef const char *text = PyUnicode_AsUTF8AndSize(url, &size)
    end = _origin_size(text, size, &port)
    if end == 0:
        return None
    origin = PyBytes_FromStringAndSize(text, end)
    return PyBytes_FromStringAndSize(text, size), origin if port == NULL else origin + port


def counts():
    return {name: engine_counted(i) for name, i in _COUNTS.items()}


cdef extern from "Python.h":
    int PyGILState_Check() nogil
    ctypedef struct PyThreadState:
        pass
    PyThreadState *PyEval_SaveThread() nogil
    void PyEval_RestoreThread(PyThreadState *state) nogil
    PyThreadState *PyGILState_GetThisThreadState() nogil


cdef void give_way() noexcept nogil:
    """Another thread holds the engine's locks, and needs the GIL until it has forked."""
    cdef PyThreadState *state
    if PyGILState_GetThisThreadState() == NULL:  # a worker
        return
    while PyGILState_Check() and engine_fork_locked():
        state = PyEval_SaveThread()
        engine_fork_wait()
        PyEval_RestoreThread(state)


def fork_prepare():
    # Parking waits for workers, so without the GIL. The locks are taken with it: no thread that has it can be on its way to
    # one of them, and from then on such threads give way.
    engine_fork_give_way(give_way)
    with nogil:
        engine_fork_park()
    while not engine_fork_lock():  # another thread is about to fork, too
        with nogil:
            engine_fork_wait()


def fork_parent():
    engine_fork_parent()


def fork_child():
    engine_fork_child()


def stop_all(timeout):
    cdef int64_t ns = _ns(timeout)
    cdef int left
    with nogil:
        left = engine_stop_all(ns)
    return left


def log_take():
    cdef long lost = 0
    cdef size_t size = 1 << 17
    cdef size_t taken
    cdef char *buffer = <char *>malloc(size)
    if buffer == NULL:
        raise MemoryError
    try:
        taken = engine_log_take(buffer, size, &lost)
        data = PyBytes_FromStringAndSize(buffer, taken)
    finally:
        free(buffer)
    lines = []
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at + 1 : at + 5], "little" if _LITTLE else "big")
        lines.append((data[at], data[at + 5 : at + 5 + length]))
        at += 5 + length
    return lost, lines


import sys as _sys
from weakref import ref as _ref

_LITTLE = _sys.byteorder == "little"


def log_register(Waiter waiter not None):
    waiter.begin()
    if engine_log_register(waiter.w):
        waiter.end()
        return True
    return False


cdef class Config:
    cdef engine_config *c
    # For who plays a worker.
    cdef readonly object options
    cdef readonly int flags
    cdef readonly int64_t timeout_ms
    cdef readonly int64_t read_timeout_ms
    cdef readonly int64_t max_bytes

    def __cinit__(self, options, *, bytes identity=b"", int flags=0, int64_t connect_timeout_ms=0, int64_t timeout_ms=0,
                  int64_t read_timeout_ms=0, int64_t write_timeout_ms=0, int64_t pool_timeout_ms=0,
                  int64_t max_bytes=-1):
        cdef engine_limits limits
        memset(&limits, 0, sizeof(limits))
        limits.connect_ms = connect_timeout_ms
        limits.total_ms = timeout_ms
        limits.read_ms = read_timeout_ms
        limits.write_ms = write_timeout_ms
        limits.pool_ms = pool_timeout_ms
        limits.max_bytes = max_bytes
        limits.flags = flags
        self.c = engine_config_new(&limits, identity, len(identity))
        if self.c == NULL:
            raise MemoryError
        self.options = options
        self.flags = flags
        self.timeout_ms = timeout_ms
        self.read_timeout_ms = read_timeout_ms
        self.max_bytes = max_bytes
        for number, value in options:
            self.add(number, value)

    cdef add(self, int number, value):
        cdef bint ok
        cdef const char **items
        cdef Py_ssize_t i
        if isinstance(value, int):
            ok = engine_config_add_number(self.c, number, value)
        elif isinstance(value, bytes):
            ok = engine_config_add_string(self.c, number, PyBytes_AsString(value), len(value))
        else:
            strings = [bytes(item) for item in value]
            items = <const char **>malloc(len(strings) * sizeof(char *) + 1)
            if items == NULL:
                raise MemoryError
            for i in range(len(strings)):
                items[i] = PyBytes_AsString(strings[i])
            ok = engine_config_add_list(self.c, number, items, len(strings))
            free(<void *>items)
        if not ok:
            raise ValueError(f"libcurl option {number} does not take a value of this kind")

    def __dealloc__(self):
        engine_config_unref(self.c)


cdef class WakeQueue:
    cdef engine_queue *q

    def __cinit__(self):
        self.q = engine_queue_new()
        if self.q == NULL:
            from_errno()

    cdef engine_queue *alive(self) except NULL:
        if self.q == NULL:
            raise ValueError("the queue is closed")
        return self.q

    def fileno(self):
        return engine_queue_fd(self.alive())

    def drain(self):
        cdef engine_queue *q = self.alive()
        cdef bint first = True
        cdef void *owner
        woken = []
        while True:
            owner = engine_queue_take(q, first)
            if owner == NULL:
                return woken
            first = False
            woken.append(<object>owner)
            (<Waiter>owner).end()

    def wait(self, timeout):
        cdef engine_queue *q = self.alive()
        cdef int64_t left = _ns(timeout)
        cdef int64_t until = engine_now() + left if left >= 0 else -1
        cdef bint is_main = threading.get_ident() == threading.main_thread().ident
        cdef int answer
        while True:
            answer = wait_interruptibly(q, left) if is_main else wait_plainly(q, left)
            if answer >= 0:
                return answer
            PyErr_CheckSignals()
            if until >= 0:
                left = until - engine_now()
                if left < 0:
                    left = 0

    def close(self):
        cdef engine_queue *q = self.q
        self.q = NULL
        engine_queue_unref(q)

    def __dealloc__(self):
        engine_queue_unref(self.q)


cdef int wait_plainly(engine_queue *q, int64_t left) except -2:
    cdef int answer
    with nogil:
        answer = engine_queue_wait(q, left, NULL)
    return answer


cdef int wait_interruptibly(engine_queue *q, int64_t left) except -2:
    """Wait with no moment in which a signal could come unnoticed: they are blocked from the check to the wait."""
    cdef sigset_t all_signals
    cdef sigset_t before
    cdef int answer
    sigfillset(&all_signals)
    pthread_sigmask(SIG_SETMASK, &all_signals, &before)
    try:
        PyErr_CheckSignals()
        with nogil:
            answer = engine_queue_wait(q, left, &before)
    finally:
        pthread_sigmask(SIG_SETMASK, &before, NULL)
    return answer


cdef extern from "Python.h":
    object PyErr_SetFromErrno(object kind)


cdef int from_errno() except -1:
    PyErr_SetFromErrno(OSError)
    return -1


cdef class Waiter:
    """While it is registered, the engine holds a reference on it."""
    cdef engine_waiter *w
    cdef public object token
    cdef public object owner

    def __cinit__(self, WakeQueue queue not None, token=None):
        self.w = engine_waiter_new(queue.alive(), <void *>self)
        if self.w == NULL:
            raise MemoryError
        self.token = token

    cdef void begin(self):
        Py_INCREF(self)

    cdef void end(self):
        Py_DECREF(self)

    def cancel(self):
        cdef int before = engine_waiter_cancel(self.w)
        if before:
            self.end()
        return before == 2

    def __dealloc__(self):
        engine_waiter_free(self.w)


cdef object _bytes(const char *data, size_t size):
    return PyBytes_FromStringAndSize(data, size) if size else b""


cdef tuple _lines(const char *data, size_t size):
    return tuple(PyBytes_FromStringAndSize(data, size).splitlines()) if size else ()


cdef object _url(const char *url):
    cdef bytes copy
    if url == NULL:
        return None
    copy = url
    return copy


cdef object convert(const engine_message *m):
    cdef object metrics
    if m.kind == ENGINE_MESSAGE_CHUNK:
        return (CHUNK, PyBytes_FromStringAndSize(m.body, m.body_size))
    if m.kind == ENGINE_MESSAGE_NONE:
        return None
    if m.kind == ENGINE_MESSAGE_STARTED:
        return (STARTED, m.status, _bytes(m.block, m.block_size), _lines(m.cookies, m.cookies_size), _url(m.url))
    if m.kind == ENGINE_MESSAGE_INFORMATIONAL:
        return (INFORMATIONAL, m.status, _bytes(m.block, m.block_size))
    metrics = PyBytes_FromStringAndSize(<const char *>m.metrics, sizeof(engine_metrics))
    if m.kind == ENGINE_MESSAGE_RESPONDED:
        return (RESPONDED, m.status, _bytes(m.block, m.block_size), _bytes(m.body, m.body_size),
                _bytes(m.trailers, m.trailers_size), _lines(m.cookies, m.cookies_size), _url(m.url), metrics)
    if m.kind == ENGINE_MESSAGE_DONE:
        return (DONE, _bytes(m.trailers, m.trailers_size), _lines(m.cookies, m.cookies_size), metrics)
    return (FAILED, m.outcome, m.curl_code, _bytes(m.detail, m.detail_size), m.clock, bool(m.request_sent),
            bool(m.proxy_failed), metrics)


cdef object _with_error(tuple message, error):
    """A FAILED message with what was raised in place of the detail."""
    return (*message[:3], error, *message[4:])


cdef class Transfer:
    cdef engine_record *r
    cdef object cached
    cdef object kept
    cdef object player  # of a played request: its Player

    def __class_getitem__(cls, item):
        return cls

    def keep(self, value):
        if self.kept is None:
            self.kept = value
        return self.kept

    cdef engine_record *alive(self) except NULL:
        if self.r == NULL:
            raise ValueError("the transfer has not been submitted")
        return self.r

    def done(self):
        return engine_outcome_of(self.alive()) != 0

    def outcome(self):
        return engine_outcome_of(self.alive())

    def overdue(self):
        cdef int64_t deadline = engine_record_deadline(self.alive())
        return deadline != 0 and engine_outcome_of(self.r) == 0 and engine_now() > deadline + self.grace()

    cdef int64_t grace(self):
        return 0 if engine_is_played(self.r) else OVERDUE_NS  # nobody else looks at its clock

    def overdue_at(self):
        cdef int64_t deadline = engine_record_deadline(self.alive())
        return (deadline + self.grace()) / 1e9 if deadline else FOREVER

    def expire(self):
        if not engine_is_played(self.alive()):
            return False
        engine_play_expire(self.r, CLOCKS["total"])
        return True

    def seconds_to_overdue(self):
        cdef int64_t deadline = engine_record_deadline(self.alive())
        if deadline == 0 or engine_outcome_of(self.r) != 0:
            return None
        return max(0, deadline + OVERDUE_NS - engine_now()) / 1e9

    def cancel(self):
        return bool(engine_settle(self.alive(), OUTCOMES["cancelled"], NULL, 0, False))

    def fail(self, int outcome, bytes detail=b""):
        if engine_outcome_name(outcome) == NULL or outcome <= 1:
            raise ValueError("not the name of a failure")
        changed = bool(engine_settle(self.alive(), outcome, detail, len(detail), True))
        if changed:
            self.cached = None
        return changed

    def send(self, data):
        cdef engine_record *r = self.alive()
        cdef Py_buffer view
        cdef engine_send_status answer
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if view.len <= COPY_WITH_GIL_MOST:
                answer = engine_send(r, view.buf, view.len)
            else:
                with nogil:
                    answer = engine_send(r, view.buf, view.len)
        finally:
            PyBuffer_Release(&view)
        if answer == ENGINE_SEND_NO_MEMORY:
            raise MemoryError
        return <int>answer

    def finish(self):
        engine_finish(self.alive())

    def send_file(self, int fd, int64_t offset, int64_t length):
        cdef engine_send_status answer = engine_send_file(self.alive(), fd, offset, length)
        if answer == ENGINE_SEND_NO_FILE:
            from_errno()
        if answer == ENGINE_SEND_NO_MEMORY:
            raise MemoryError
        return <int>answer

    def write_to(self, int fd, int64_t offset):
        cdef engine_record *r = self.alive()
        cdef int error
        with nogil:
            error = engine_write_to(r, fd, offset)
        self.cached = None  # a write that failed here has replaced it
        if error:
            raise OSError(error, os.strerror(error))

    def written(self):
        return engine_written(self.alive())

    def credit(self, n):
        engine_credit(self.alive(), min(n, 1 << 60))

    def consumed(self, int64_t n):
        engine_consumed(self.alive(), n)

    def take(self):
        cdef engine_message m
        if not engine_take(self.alive(), &m):
            return None
        if m.chunk != NULL:
            try:
                return convert(&m)
            finally:
                engine_chunk_free(m.chunk)
        if m.kind == ENGINE_MESSAGE_STARTED:
            return convert(&m)
        return self.terminal()

    def terminal(self):
        cdef engine_message m
        if self.cached is None:
            if not engine_terminal(self.alive(), &m):
                return None
            message = convert(&m)
            if m.outcome == RAISED:
                message = _with_error(message, self.player.error)
            if self.cached is None:  # converting may run a collection, and with it other code
                self.cached = message
                if m.kind == ENGINE_MESSAGE_RESPONDED:
                    engine_drop_body(self.r)
        return self.cached

    def register(self, Waiter waiter not None, int mask):
        waiter.begin()
        if engine_record_register(self.alive(), waiter.w, mask):
            waiter.end()
            return True
        return False

    def __dealloc__(self):
        if self.r != NULL:
            engine_abandon(self.r)
            engine_record_unref(self.r)


cdef class Mailbox:
    cdef engine_mailbox *m
    cdef dict errors  # by token: what was raised in played requests that reply here
    cdef object __weakref__

    def __cinit__(self):
        self.errors = {}
        self.m = engine_mailbox_new()
        if self.m == NULL:
            raise MemoryError

    def take(self):
        cdef engine_message m
        cdef Taken taken = Taken.__new__(Taken)
        taken.mailbox = self
        taken.r = engine_mailbox_take(self.m, &m)
        if taken.r == NULL:
            return None
        taken.token = engine_record_token(taken.r)
        try:
            taken.message = convert(&m)
            if m.outcome == RAISED:
                taken.message = _with_error(taken.message, self.errors.pop(taken.token))
        finally:
            if m.chunk != NULL:
                engine_chunk_free(m.chunk)
        if m.kind == ENGINE_MESSAGE_RESPONDED:
            engine_drop_body(taken.r)
        return taken

    def register(self, Waiter waiter not None):
        waiter.begin()
        if engine_mailbox_register(self.m, waiter.w):
            waiter.end()
            return True
        return False

    def pass_on(self):
        engine_mailbox_pass_on(self.m)

    def fail_overdue(self):
        cdef int64_t next_ns = engine_mailbox_fail_overdue(self.m, OVERDUE_NS)
        return max(0, next_ns + OVERDUE_NS - engine_now()) / 1e9 if next_ns else None

    def close(self):
        engine_mailbox_close(self.m)

    @property
    def closed(self):
        return bool(engine_mailbox_closed(self.m))

    def __len__(self):
        return engine_mailbox_count(self.m)

    def __dealloc__(self):
        if self.m != NULL:
            engine_mailbox_drop(self.m)


cdef class Taken:
    cdef engine_record *r
    cdef Mailbox mailbox
    cdef readonly object token
    cdef readonly object message

    def give_back(self, *, bint more=False):
        cdef engine_record *r = self.r
        self.r = NULL
        if r != NULL:
            engine_mailbox_give_back(self.mailbox.m, r, more)

    def consumed(self, int64_t n):
        if self.r != NULL:
            engine_consumed(self.r, n)

    def fail(self, int outcome, bytes detail=b""):
        if engine_outcome_name(outcome) == NULL or outcome <= 1:
            raise ValueError("not the name of a failure")
        return self.r != NULL and bool(engine_settle(self.r, outcome, detail, len(detail), True))

    def __dealloc__(self):
        if self.r != NULL:
            engine_mailbox_give_back(self.mailbox.m, self.r, False)


@cython.final
cdef class Call:
    """What requests of one kind have in common: buffered both ways, no mailbox."""
    cdef readonly Config config
    cdef readonly bytes method
    cdef readonly int flags
    cdef readonly bytes body
    cdef readonly int64_t body_length
    cdef readonly int64_t upload_window

    def __cinit__(self, Config config not None, bytes method not None, int flags, bytes body, int64_t upload_window):
        self.config = config
        self.method = method
        self.body = body
        self.flags = flags if body is None else flags | ENGINE_HAS_BODY
        self.body_length = 0 if body is None else len(body)
        self.upload_window = upload_window


cdef dict _playing = {}  # by token: players whose requests have no outcome yet

cdef Py_ssize_t PIECE = 16384  # bytes delivered at a time, as libcurl does it (CURL_MAX_WRITE_SIZE)


cdef void on_told(uint64_t token, unsigned what) noexcept with gil:
    # The engine holds no reference on players: what it says may come late, in another thread.
    player = _playing.get(token)
    if player is not None:
        (<Player>player).told(what)


cdef class Player:
    """The worker's side of one request. The GIL is what keeps its methods apart: none of them runs Python code half way."""
    cdef engine_record *r  # a reference; NULL before the request is accepted, and once it has its outcome
    cdef readonly object token
    cdef object box  # a weak reference on the mailbox, or None
    cdef readonly object error
    cdef int64_t begun_ns
    cdef bint streamed
    cdef bytearray sent
    cdef bint sent_all
    cdef bytes content
    cdef Py_ssize_t at
    cdef bytes trailers
    cdef bytes cookies
    cdef bint pumping
    cdef bint pump_again
    cdef int64_t responded_ns

    def called(self, bytes body):
        """Overridden."""

    def settled(self):
        """Overridden."""

    @property
    def done(self):
        return self.r == NULL

    cdef void told(self, unsigned what):
        if what & (ENGINE_TOLD_SETTLED | ENGINE_TOLD_FORKED):
            if self.let_go() and what & ENGINE_TOLD_SETTLED:
                self.settled()
            return
        if what & ENGINE_TOLD_BODY:
            self.read()
        if what & ENGINE_TOLD_CREDIT:
            self.pump()

    cdef bint let_go(self):
        cdef engine_record *r = self.r
        self.r = NULL
        self.sent = None
        self.content = None
        _playing.pop(self.token, None)
        engine_record_unref(r)
        return r != NULL

    def read(self):
        cdef engine_record *r = self.r
        cdef char to[16384]
        cdef int64_t n = 0
        cdef bytearray sent = self.sent
        if r == NULL or self.sent_all:
            return
        engine_record_ref(r)
        while True:
            n = engine_play_read(r, to, sizeof(to))
            if n <= 0:
                break
            sent.extend(to[:n])
        self.sent_all = n == ENGINE_PLAY_END
        engine_record_unref(r)
        if self.sent_all and self.r != NULL:
            self.called(bytes(sent))

    def begin(self):
        if self.r != NULL:
            engine_play_sent(self.r)

    def respond(self, int status, bytes block not None, bytes content not None, bytes trailers not None,
                bytes cookies not None):
        cdef engine_message m
        cdef engine_record *r = self.r
        if r == NULL:
            return
        self.responded_ns = engine_now()
        self.content = content
        self.trailers = trailers
        self.cookies = cookies
        memset(&m, 0, sizeof(m))
        m.status = status
        m.block = block
        m.block_size = len(block)
        m.cookies = cookies
        m.cookies_size = len(cookies)
        if not self.streamed:
            m.body = content
            m.body_size = len(content)
            self.at = len(content)
            self.end(&m)
            return
        engine_record_ref(r)
        if engine_play_start(r, &m):
            self.pump()
        else:
            self.end_as(OUTCOMES["no_memory"], 27, b"out of memory")
        engine_record_unref(r)

    def pump(self):
        cdef engine_record *r = self.r
        cdef bytes content = self.content
        cdef engine_message m
        cdef engine_play_status answer = ENGINE_PLAY_TAKEN
        cdef Py_ssize_t n
        if r == NULL or content is None:
            return
        self.pump_again = True
        if self.pumping:  # another thread took the engine's lock in between; it goes on for this one
            return
        self.pumping = True
        engine_record_ref(r)
        while self.pump_again:
            self.pump_again = False
            answer = ENGINE_PLAY_TAKEN
            while answer == ENGINE_PLAY_TAKEN and self.at < len(content):
                n = min(PIECE, len(content) - self.at)
                answer = engine_play_append(r, PyBytes_AsString(content) + self.at, n)
                if answer == ENGINE_PLAY_TAKEN:
                    self.at += n
        self.pumping = False
        if answer == ENGINE_PLAY_TAKEN:
            memset(&m, 0, sizeof(m))
            self.end(&m)
        elif answer == ENGINE_PLAY_TOO_LARGE:
            self.end_as(OUTCOMES["too_large"], 63, b"the response is larger than max_response_bytes")
        elif answer == ENGINE_PLAY_NO_MEMORY:
            self.end_as(OUTCOMES["no_memory"], 27, b"out of memory")
        engine_record_unref(r)

    cdef bint end(self, engine_message *m):
        """Settle: "ok" where `m` says no outcome."""
        cdef engine_record *r = self.r
        cdef engine_metrics metrics
        cdef bint first
        if r == NULL:
            return False
        memset(&metrics, 0, sizeof(metrics))
        metrics.total_us = (engine_now() - self.begun_ns) // 1000
        metrics.bytes_sent = len(self.sent)
        metrics.bytes_received = self.at
        if self.responded_ns:
            metrics.starttransfer_us = (self.responded_ns - self.begun_ns) // 1000
        m.metrics = &metrics
        if m.outcome == 0:
            m.outcome = OUTCOMES["ok"]
            m.curl_code = -1
            m.trailers = self.trailers
            m.trailers_size = len(self.trailers)
            m.cookies = self.cookies
            m.cookies_size = len(self.cookies)
        engine_record_ref(r)
        first = engine_play_end(r, m)
        engine_record_unref(r)
        return first

    cdef bint end_as(self, int outcome, int curl_code, bytes detail):
        cdef engine_message m
        memset(&m, 0, sizeof(m))
        m.outcome = outcome
        m.curl_code = curl_code
        m.detail = detail
        m.detail_size = len(detail)
        return self.end(&m)

    def fail(self, int outcome, int curl_code, bytes detail not None):
        if engine_outcome_name(outcome) == NULL or outcome <= 1 or outcome == RAISED:
            raise ValueError("not the name of a failure")
        return bool(self.end_as(outcome, curl_code, detail))

    def raised(self, error not None):
        if self.r == NULL:
            return False
        self.error = error
        box = None if self.box is None else self.box()
        if box is not None:
            (<Mailbox>box).errors[self.token] = error
        if self.end_as(RAISED, -1, b"the handler raised an error"):
            return True
        if box is not None:
            (<Mailbox>box).errors.pop(self.token, None)
        return False

    def expire(self, int clock):
        cdef engine_record *r = self.r
        cdef bint first = False
        if r != NULL:
            engine_record_ref(r)
            first = engine_play_expire(r, clock)
            engine_record_unref(r)
        return bool(first)

    def cancel(self, bytes detail not None):
        return self.fail(OUTCOMES["cancelled"], -1, detail)

    def seconds_left(self):
        cdef int64_t deadline
        if self.r == NULL:
            return None
        deadline = engine_record_deadline(self.r)
        return max(0, deadline - engine_now()) / 1e9 if deadline else None

    def __dealloc__(self):
        engine_record_unref(self.r)


cdef class Pool:
    cdef engine_pool *p

    def __cinit__(self, *, int workers, bint multiplexing, int max_total_connections, int max_host_connections,
                  int max_idle_connections, int max_concurrent_streams, int max_in_flight, bytes name):
        cdef engine_pool_options options
        options.workers = workers
        options.multiplexing = multiplexing
        options.max_total_connections = max_total_connections
        options.max_host_connections = max_host_connections
        options.max_idle_connections = max_idle_connections
        options.max_concurrent_streams = max_concurrent_streams
        options.max_in_flight = max_in_flight
        options.name = name
        self.p = engine_pool_new(&options)
        if self.p == NULL:
            raise MemoryError

    def submit(self, Transfer transfer not None, Config config not None, bytes method not None, bytes url not None,
               bytes origin not None, int flags, body, int64_t body_length, int64_t window, int64_t upload_window,
               Mailbox mailbox, uint64_t token):
        cdef engine_request request
        cdef engine_status status
        cdef Py_buffer view
        if transfer.r != NULL:
            raise ValueError("the transfer has been submitted")
        request.config = config.c
        request.method = method
        request.url = url
        request.origin = origin
        request.flags = flags
        request.body = NULL
        request.body_size = body_length
        request.window = window
        request.upload_window = upload_window
        request.mailbox = NULL if mailbox is None else mailbox.m
        request.token = token
        if body is None:
            if flags & ENGINE_HAS_BODY and not flags & ENGINE_STREAM_BODY:
                raise ValueError("HAS_BODY without a body")
            return <int>engine_submit(self.p, &request, &transfer.r)
        PyObject_GetBuffer(body, &view, PyBUF_SIMPLE)
        try:
            request.flags |= ENGINE_HAS_BODY
            request.body = view.buf
            request.body_size = view.len
            if view.len <= COPY_WITH_GIL_MOST:
                status = engine_submit(self.p, &request, &transfer.r)
            else:
                with nogil:
                    status = engine_submit(self.p, &request, &transfer.r)
        finally:
            PyBuffer_Release(&view)
        return <int>status

    def start(self, Transfer transfer not None, Call call not None, url, uint64_t token):
        cdef engine_request request
        cdef Py_ssize_t size, end
        cdef const char *port = NULL
        cdef char origin[300]
        if transfer.r != NULL:
            raise ValueError("the transfer has been submitted")
        if type(url) is not str or not (<str>url).isascii():
            return NOT_PLAIN
        cdef const char *text = PyUnicode_AsUTF8AndSize(url, &size)
        end = _origin_size(text, size, &port)
        if end == 0 or end > 290:
            return NOT_PLAIN
        memcpy(origin, text, end)
        if port != NULL:
            strcpy(origin + end, port)
        else:
            origin[end] = 0
        request.config = call.config.c
        request.method = call.method
        request.url = text
        request.origin = origin
        request.flags = call.flags
        request.body = NULL if call.body is None else <const char *>call.body
        request.body_size = call.body_length
        request.window = -1
        request.upload_window = call.upload_window
        request.mailbox = NULL
        request.token = token
        return <int>engine_submit(self.p, &request, &transfer.r)

    def play(self, Transfer transfer not None, Player player not None, Config config not None, bytes method not None,
             bytes url not None, bytes origin not None, int flags, body, int64_t body_length, int64_t window,
             int64_t upload_window, Mailbox mailbox, uint64_t token):
        cdef engine_request request
        cdef engine_status status
        if transfer.r != NULL or player.token is not None:
            raise ValueError("the transfer has been submitted")
        memset(&request, 0, sizeof(request))
        request.config = config.c
        request.method = method
        request.url = url
        request.origin = origin
        request.flags = flags & ~ENGINE_HAS_BODY  # the player has it
        request.body_size = body_length
        request.window = window
        request.upload_window = upload_window
        request.mailbox = NULL if mailbox is None else mailbox.m
        request.token = token
        player.token = token
        player.streamed = flags & ENGINE_STREAM
        player.sent = bytearray() if body is None else bytearray(body)
        player.begun_ns = engine_now()
        if mailbox is not None:
            player.box = _ref(mailbox)
        status = engine_play(self.p, &request, on_told, &transfer.r)
        if status == ENGINE_ACCEPTED:
            player.r = transfer.r
            engine_record_ref(player.r)
            transfer.player = player
            _playing[token] = player
            if engine_outcome_of(player.r) != 0:  # settled before it could be told
                player.let_go()
        return <int>status

    def refuse(self):
        engine_pool_refuse(self.p)

    def stop(self):
        engine_pool_stop(self.p)

    def join(self, timeout):
        cdef int64_t ns = _ns(timeout)
        cdef int left
        with nogil:
            left = engine_pool_join(self.p, ns)
        return left

    def abandon(self):
        engine_pool_abandon(self.p)

    def register(self, Waiter waiter not None, int mask):
        waiter.begin()
        if engine_pool_register(self.p, waiter.w, mask):
            waiter.end()
            return True
        return False

    def statistics(self):
        cdef engine_pool_statistics s
        engine_pool_read(self.p, &s)
        return (s.workers, s.in_flight, s.queued, s.connections, s.restarts, s.completed, s.failed)

    def fault(self, int index, int how):
        return bool(engine_pool_fault(self.p, index, how))

    def __dealloc__(self):
        if self.p != NULL:
            engine_pool_abandon(self.p)
            engine_pool_unref(self.p)
