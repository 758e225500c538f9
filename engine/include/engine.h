/* The engine: worker threads that drive libcurl's multi interface, and the records through which the rest of the program
 * talks to them. This is its one public header; nothing here needs Python, and no curl header is needed to include it.
 *
 * Ownership. Every object is reference-counted; `_new` and `engine_submit` give the caller one reference, `_unref` gives it
 * back. An object may be unreferenced from any thread, also while it is in use elsewhere.
 *
 * Threads. Every function may be called from any thread unless its comment says otherwise, and none of them waits, except
 * `engine_pool_join`, `engine_queue_wait`, `engine_stop_all` and `engine_fork_prepare`, which say how long. None of them
 * calls into libcurl, except `engine_load` and what reads the library's description: libcurl belongs to the workers.
 *
 * After a fork the child may use every object it inherited: requests are settled ("forked"), mailboxes and queues are
 * empty, pools start new workers with their first request.
 */
#ifndef KATIPO_ENGINE_H
#define KATIPO_ENGINE_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How a transfer ended. "pending" is 0: it has not. */
#define ENGINE_OUTCOMES(X) \
    X(PENDING, "pending") \
    X(OK, "ok") \
    X(CURL, "curl") \
    X(CANCELLED, "cancelled") \
    X(TIMEOUT, "timeout") \
    X(WORKER_DIED, "worker_died") \
    X(POOL_CLOSED, "pool_closed") \
    X(TOO_LARGE, "too_large") \
    X(LOST, "lost") \
    X(BODY_SHORT, "body_short") \
    X(NO_MEMORY, "no_memory") \
    X(FORKED, "forked") \
    X(RAISED, "raised") /* who plays the worker has said so: see engine_play */

/* Which of our clocks ran out, where the outcome is TIMEOUT. */
#define ENGINE_CLOCKS(X) \
    X(NONE, "none") \
    X(CONNECT, "connect") \
    X(READ, "read") \
    X(WRITE, "write") \
    X(POOL, "pool") \
    X(TOTAL, "total")

/* Live objects, counted in every build. "wedged": threads left behind inside libcurl. */
#define ENGINE_COUNTS(X) \
    X(POOLS, "pools") \
    X(WORKERS, "workers") \
    X(TRANSFERS, "transfers") \
    X(EASIES, "easies") \
    X(MULTIS, "multis") \
    X(MAILBOXES, "mailboxes") \
    X(CONFIGS, "configs") \
    X(QUEUES, "queues") \
    X(WAITERS, "waiters") \
    X(SOCKETS, "sockets") \
    X(FILES, "files") \
    X(WEDGED, "wedged")

#define ENGINE_ENUM_OUTCOME(id, name) ENGINE_OUTCOME_##id,
#define ENGINE_ENUM_CLOCK(id, name) ENGINE_CLOCK_##id,
#define ENGINE_ENUM_COUNT(id, name) ENGINE_COUNT_##id,
typedef enum { ENGINE_OUTCOMES(ENGINE_ENUM_OUTCOME) ENGINE_OUTCOME_END } engine_outcome;
typedef enum { ENGINE_CLOCKS(ENGINE_ENUM_CLOCK) ENGINE_CLOCK_END } engine_clock;
typedef enum { ENGINE_COUNTS(ENGINE_ENUM_COUNT) ENGINE_COUNT_END } engine_count;

const char *engine_outcome_name(int outcome);
const char *engine_clock_name(int clock);
const char *engine_count_name(int count);
long engine_counted(int count);

/* What a call answers. */
typedef enum {
    ENGINE_ACCEPTED = 0,
    ENGINE_OVERLOAD,  /* max_in_flight is reached on every worker */
    ENGINE_CLOSED,    /* the pool or the mailbox is closed */
    ENGINE_NO_MEMORY,
    ENGINE_NO_THREAD, /* a worker could not be started: no thread or no descriptor */
    ENGINE_GAVE_UP,   /* workers died too often in a short time */
} engine_status;

typedef enum {
    ENGINE_SENT = 0,
    ENGINE_NO_ROOM,
    ENGINE_BODY_ENDED,    /* after engine_finish: dropped */
    ENGINE_SETTLED,       /* the request has its outcome */
    ENGINE_BEYOND_LENGTH, /* more than the declared Content-Length */
    ENGINE_SEND_NO_MEMORY,
    ENGINE_SEND_NO_FILE, /* errno says why */
} engine_send_status;

/* ------------------------------------------------------------------------------------------------ the library */

typedef struct {
    const char *path;
    const char *version;
    unsigned version_num; /* 0xMMmmpp */
    const char *ssl_version;
    const char *const *protocols; /* NULL-terminated */
    const char *const *features;  /* NULL-terminated; NULL before 7.87 */
    long feature_bits;
    const char *libz, *brotli, *nghttp2, *quic, *libidn, *libssh, *gsasl; /* NULL where not built in */
} engine_library;

/* Open libcurl and look its functions up; once per process, before anything else. Returns 0, or -1 with the reason. */
int engine_load(const char *path, char *reason, size_t reason_size);
bool engine_loaded(void);
void engine_describe(engine_library *library);
/* Number and kind of an option by its name without CURLOPT_. Returns false where this libcurl has none of that name. */
bool engine_option(const char *name, int *number, int *kind);

/* ------------------------------------------------------------------------------------------------ configurations */

typedef struct engine_config engine_config;

enum {
    ENGINE_FOLLOW = 1,         /* libcurl follows redirects: a 3xx may not be the final response */
    ENGINE_MAY_RETRY_AUTH = 2, /* a 401 may not be the final response */
    ENGINE_NEGOTIATE = 4,      /* runs on the worker that may be wedged by Kerberos */
    ENGINE_PROXIED = 8,
    ENGINE_HAS_COOKIES = 16,   /* cookies were given: the response's cookiejar is libcurl's even without Set-Cookie */
    ENGINE_VERBOSE = 32,
    ENGINE_OWN_ACCEPT = 64,
};

typedef struct {
    int64_t connect_ms, total_ms, read_ms, write_ms, pool_ms; /* 0: none */
    int64_t max_bytes;                                        /* of what is delivered; -1: no limit */
    int flags;
} engine_limits;

/* A configuration is built by one thread with the engine_config_add_* calls, then used, immutable, by any number. The
 * add calls copy. They return false for want of memory or where the option's kind is another. */
engine_config *engine_config_new(const engine_limits *limits, const char *identity, size_t identity_size);
bool engine_config_add_number(engine_config *config, int option, int64_t value);
bool engine_config_add_string(engine_config *config, int option, const char *value, size_t size);
bool engine_config_add_list(engine_config *config, int option, const char *const *items, size_t count);
void engine_config_unref(engine_config *config);

/* ------------------------------------------------------------------------------------------------ wake queues, waiters */

typedef struct engine_queue engine_queue;
typedef struct engine_waiter engine_waiter;
typedef struct engine_record engine_record;
typedef struct engine_mailbox engine_mailbox;
typedef struct engine_pool engine_pool;

enum {
    ENGINE_ON_TERMINAL = 1,
    ENGINE_ON_NEWS = 2,
    ENGINE_ON_ROOM = 4,
    ENGINE_ON_IDLE = 8,
    ENGINE_ON_STOPPED = 16,
    ENGINE_ON_FILES_CLOSED = 32, /* the engine holds no file for the request, and will not touch one any more */
};

/* Where woken waiters arrive; one wake-up of its descriptor per batch. NULL with errno set when there is no descriptor. */
engine_queue *engine_queue_new(void);
void engine_queue_unref(engine_queue *queue);
int engine_queue_fd(const engine_queue *queue);
/* Take one woken waiter's owner, or NULL. `first`: also clear the descriptor. The waiter may be registered again. Call it
 * until NULL: before that, the descriptor says nothing of what is woken later. */
void *engine_queue_take(engine_queue *queue, bool first);
/* Block until a waiter is woken (1), `timeout_ns` is over (0; negative: no limit), or a signal came (-1). `mask` is the
 * signal mask to wait under, NULL for the thread's own. */
int engine_queue_wait(engine_queue *queue, int64_t timeout_ns, const sigset_t *mask);
/* Wake whoever waits on the queue, although no waiter has been woken. */
void engine_queue_poke(engine_queue *queue);

/* A single-shot registration. `owner` is what engine_queue_take returns. Takes a reference on the queue. */
engine_waiter *engine_waiter_new(engine_queue *queue, void *owner);
/* Must not be registered or woken-and-not-taken any more. */
void engine_waiter_free(engine_waiter *waiter);
/* Take the registration back. 1: it was registered; 2: it was woken, and has been taken out of its queue; 0: neither. */
int engine_waiter_cancel(engine_waiter *waiter);

/* ------------------------------------------------------------------------------------------------ pools */

typedef struct {
    int workers;
    bool multiplexing;
    int max_total_connections, max_host_connections; /* 0: no limit of their own */
    int max_idle_connections;                        /* -1: no limit */
    int max_concurrent_streams;
    int max_in_flight; /* per worker; 0: no limit */
    const char *name;
} engine_pool_options;

typedef struct {
    int workers;
    long in_flight, queued, connections, restarts, completed, failed;
} engine_pool_statistics;

enum { ENGINE_FAULT_POLLER = 1, ENGINE_FAULT_MEMORY = 2, ENGINE_FAULT_MULTI = 3 };

engine_pool *engine_pool_new(const engine_pool_options *options);
void engine_pool_unref(engine_pool *pool);
/* Accept no more requests. */
void engine_pool_refuse(engine_pool *pool);
/* Refuse, settle what is in flight ("pool_closed"), and have the workers end. */
void engine_pool_stop(engine_pool *pool);
/* Refuse, and have each worker end once nothing is in flight on it: for a pool that was dropped. */
void engine_pool_abandon(engine_pool *pool);
/* Wait for the threads of a stopped pool, `timeout_ns` at most. Returns how many were left behind (counted "wedged"). */
int engine_pool_join(engine_pool *pool, int64_t timeout_ns);
/* ENGINE_ON_IDLE, ENGINE_ON_STOPPED. True: it holds already, and nothing was registered. */
bool engine_pool_register(engine_pool *pool, engine_waiter *waiter, int mask);
void engine_pool_read(engine_pool *pool, engine_pool_statistics *statistics);
bool engine_pool_fault(engine_pool *pool, int index, int how);
/* Stop and join every pool of the process. */
int engine_stop_all(int64_t timeout_ns);

/* ------------------------------------------------------------------------------------------------ requests */

enum {
    ENGINE_STREAM = 1,
    ENGINE_STREAM_BODY = 2,
    ENGINE_MANUAL_CREDIT = 4,
    ENGINE_FINISH_ON_ABANDON = 8,
    ENGINE_HAS_BODY = 16, /* `body` is there, perhaps empty */
    ENGINE_INFORMATIONAL = 32, /* of a streamed response: 1xx blocks are messages, too */
};

typedef struct {
    engine_config *config;
    const char *method, *url, *origin; /* NUL-terminated; copied */
    int flags;
    const void *body; /* copied */
    int64_t body_size; /* of a streamed body: the declared length, or -1 */
    int64_t window;    /* bytes; -1: unbounded */
    int64_t upload_window;
    engine_mailbox *mailbox; /* or NULL */
    uint64_t token;
} engine_request;

/* Accept a request. ENGINE_ACCEPTED: *record holds one reference. Otherwise nothing was sent and *record is NULL. */
engine_status engine_submit(engine_pool *pool, const engine_request *request, engine_record **record);
void engine_record_unref(engine_record *record);
/* The request's handle is gone: what is left of an unfinished body or an unread stream follows ENGINE_FINISH_ON_ABANDON. */
void engine_abandon(engine_record *record);
int engine_outcome_of(const engine_record *record);
/* Settle as `outcome` and drop the messages not yet taken. False: settled before. A settled "ok" is overruled when `overrule`
 * is set and its terminal message has not been taken. `detail` may be NULL. */
bool engine_settle(engine_record *record, int outcome, const char *detail, size_t detail_size, bool overrule);
engine_send_status engine_send(engine_record *record, const void *data, size_t size);
void engine_finish(engine_record *record);
/* The rest of a streamed body is `size` bytes of a file from `offset` on, and then it ends. The worker reads them when they
 * are to be sent (pread), and again where libcurl may send the body again. The engine has a descriptor of its own (dup, closed
 * on exec): the caller may close `fd` at once. It is closed when the worker has let the request go, or by a forked child. A
 * file that cannot be read, or is shorter, fails the request. ENGINE_SENT, BODY_ENDED, SETTLED, BEYOND_LENGTH, NO_MEMORY, NO_FILE
 * (errno: also for what cannot be read at an offset, a pipe). */
engine_send_status engine_send_file(engine_record *record, int fd, int64_t offset, int64_t size);
/* The body of a streamed response without mailbox goes to a file from `offset` on: what is queued, and all that follows, as
 * sent. No more chunks can be taken, and no window pauses the transfer. Returns 0 or an errno: EINVAL also for other requests
 * and for a descriptor that appends. The engine has a descriptor of its own, as above; the worker writes (pwrite). When the
 * request has ended by itself before this call, the caller's thread writes what is queued: the one call here that may be held
 * up by a disk. A file that cannot be written fails the request. After a cancel a last write may still be under way:
 * ENGINE_ON_FILES_CLOSED says when it is not. */
int engine_write_to(engine_record *record, int fd, int64_t offset);
/* Bytes written so far, from `offset` on without a gap. */
int64_t engine_written(const engine_record *record);
/* `n` more bytes may be delivered (manual flow control). */
void engine_credit(engine_record *record, int64_t n);
/* `n` bytes of chunks have reached their consumer (automatic flow control). */
void engine_consumed(engine_record *record, int64_t n);
bool engine_record_register(engine_record *record, engine_waiter *waiter, int mask);
uint64_t engine_record_token(const engine_record *record);
/* Nanoseconds (CLOCK_MONOTONIC) of the total deadline; 0: none. */
int64_t engine_record_deadline(const engine_record *record);
int64_t engine_now(void);

/* Metrics as they are handed over: microseconds, bytes, counts. Its layout is part of the binding's interface. */
typedef struct {
    int64_t queue_us, namelookup_us, connect_us, appconnect_us, pretransfer_us, starttransfer_us, redirect_us, total_us;
    int64_t bytes_sent, bytes_received, connections_opened, primary_port, local_port;
    char primary_ip[46];
    char pad[2];
} engine_metrics;

typedef enum {
    ENGINE_MESSAGE_NONE = 0,
    ENGINE_MESSAGE_INFORMATIONAL, /* `status`, `block` */
    ENGINE_MESSAGE_STARTED,
    ENGINE_MESSAGE_CHUNK,
    ENGINE_MESSAGE_DONE,
    ENGINE_MESSAGE_RESPONDED,
    ENGINE_MESSAGE_FAILED,
} engine_message_kind;

/* A message as the consumer sees it. Pointers stay valid as long as the record, except where there is a `chunk`: then `body`
 * (of a chunk) and `block` (of an informational message) are part of it, and the consumer frees it with engine_chunk_free. */
typedef struct {
    engine_message_kind kind;
    int status;
    const char *block;
    size_t block_size;
    const char *body;
    size_t body_size;
    const char *trailers;
    size_t trailers_size;
    const char *cookies; /* lines, each ended by a newline */
    size_t cookies_size;
    const char *url; /* NULL: the request's own */
    const char *detail;
    size_t detail_size;
    int outcome, clock, curl_code;
    bool request_sent, proxy_failed;
    const engine_metrics *metrics;
    void *chunk;
} engine_message;

/* The next message of a record without mailbox. Returns false where there is none. */
bool engine_take(engine_record *record, engine_message *message);
/* The terminal message without taking it. False while the transfer is in flight. */
bool engine_terminal(engine_record *record, engine_message *message);
/* The buffered body has been copied by its one consumer: let it go. */
void engine_drop_body(engine_record *record);
void engine_chunk_free(void *chunk);

/* ------------------------------------------------------------------------------------------------ played requests
 *
 * A request that no worker runs: whoever calls engine_play plays its worker, with the functions below. Everything else works
 * on its record as on any other: messages, windows, credit, cancel, mailboxes, waits. It needs no thread and no descriptor.
 *
 * `told` is called with the request's token, which must be unique, and what there is to know: in the thread that caused it,
 * with no engine lock held, and possibly late, after the request has its outcome. It must not wait. */
enum {
    ENGINE_TOLD_SETTLED = 2, /* it has its outcome: there is nothing more to play */
    ENGINE_TOLD_BODY = 4,    /* engine_play_read has something again */
    ENGINE_TOLD_CREDIT = 8,  /* engine_play_append may go on */
    ENGINE_TOLD_FORKED = 256, /* as SETTLED, in a forked child */
};
typedef void (*engine_told)(uint64_t token, unsigned what);

typedef enum {
    ENGINE_PLAY_TAKEN = 0,
    ENGINE_PLAY_PAUSE, /* no credit: nothing was taken; ENGINE_TOLD_CREDIT follows */
    ENGINE_PLAY_SETTLED,
    ENGINE_PLAY_TOO_LARGE, /* beyond max_bytes: nothing was taken, and the request is still to be failed */
    ENGINE_PLAY_NO_MEMORY,
} engine_play_status;

enum { ENGINE_PLAY_END = 0, ENGINE_PLAY_WAIT = -1, ENGINE_PLAY_ABORT = -2 };

/* As engine_submit, but for the worker. */
engine_status engine_play(engine_pool *pool, const engine_request *request, engine_told told, engine_record **record);
void engine_record_ref(engine_record *record);
/* Up to `room` bytes of a streamed body, or ENGINE_PLAY_END, ENGINE_PLAY_WAIT (ENGINE_TOLD_BODY follows), ENGINE_PLAY_ABORT. */
int64_t engine_play_read(engine_record *record, char *to, size_t room);
/* The request counts as sent from here. */
void engine_play_sent(engine_record *record);
/* The response of a stream begins: `status`, `block`, `cookies` of `m`, copied. False: no memory. */
bool engine_play_start(engine_record *record, const engine_message *m);
engine_play_status engine_play_append(engine_record *record, const char *data, size_t size);
/* Settle: `outcome`, and what goes with it of `m`, copied. Without memory for that the outcome is "no_memory". False: settled
 * before. */
bool engine_play_end(engine_record *record, const engine_message *m);
/* Settle with "timeout" of one of the clocks total and read. */
bool engine_play_expire(engine_record *record, int clock);
bool engine_is_played(const engine_record *record);

/* ------------------------------------------------------------------------------------------------ mailboxes */

engine_mailbox *engine_mailbox_new(void);
/* The owner's reference goes: close it, and drop what is queued. */
void engine_mailbox_drop(engine_mailbox *mailbox);
void engine_mailbox_close(engine_mailbox *mailbox);
bool engine_mailbox_closed(engine_mailbox *mailbox);
size_t engine_mailbox_count(engine_mailbox *mailbox);
/* Check out the next record with news and take its next message. NULL: nothing there. The reference is the caller's, who
 * must give it back with engine_mailbox_give_back. */
engine_record *engine_mailbox_take(engine_mailbox *mailbox, engine_message *message);
void engine_mailbox_give_back(engine_mailbox *mailbox, engine_record *record, bool more);
bool engine_mailbox_register(engine_mailbox *mailbox, engine_waiter *waiter);
/* A woken waiter that will not take: wake another one where there is something to take. */
void engine_mailbox_pass_on(engine_mailbox *mailbox);
/* Settle with "worker_died" what replies here and is more than `grace_ns` past its total deadline: its worker is wedged. (What
 * is played has no worker that would have looked at its clock: it times out.)
 * Returns the earliest deadline (CLOCK_MONOTONIC) of what is left; 0: none. */
int64_t engine_mailbox_fail_overdue(engine_mailbox *mailbox, int64_t grace_ns);

/* ------------------------------------------------------------------------------------------------ fork, log */

/* Before a fork: park every worker (one second at most) and take every lock. Then, in the same thread, exactly one of the
 * other two. Must not be called from a worker. */
void engine_fork_prepare(void);
/* The same in two steps, for a program whose threads share a lock of its own (an interpreter's): park without it; then lock
 * with it, so that no thread can be on its way here with it. `lock` answers false while another thread is about to fork: wait
 * for that without the lock, and try again. From then on a thread that comes here calls what was given to `give_way`, which
 * waits, with the lock given up, while `locked`; it must do nothing for threads that do not hold it. */
void engine_fork_park(void);
bool engine_fork_lock(void);
bool engine_fork_locked(void);
void engine_fork_wait(void);
void engine_fork_give_way(void (*function)(void));
void engine_fork_parent(void);
void engine_fork_child(void);

/* Verbose transfers' lines, in order, until the buffer is full; then lines are counted as lost. Returns the bytes written to
 * `buffer` as records of [kind: 1 byte][length: 4 bytes, native][text]. */
size_t engine_log_take(char *buffer, size_t size, long *lost);
bool engine_log_register(engine_waiter *waiter);

#endif
