/* The transfer record: the meeting point of a request's two sides, and the keeper of the laws about its outcome.
 *
 * One record is one accepted request. Its outcome is set once, under the record's lock, by whoever is first: the worker, a
 * cancel, a deadline, the pool's close, a fork. Storage for it is part of the record, so that delivering it cannot fail.
 * Messages of a stream are taken from here one at a time; buffered responses are one message. Knows no libcurl.
 */
#ifndef KATIPO_RECORD_H
#define KATIPO_RECORD_H

#include "base.h"
#include "queue.h"

struct worker;
struct transfer;

/* Commands to a worker: bits of record.commands. What is pending is a set, not a list: pushing one cannot fail. */
enum {
    COMMAND_SUBMIT = 1, /* start it */
    COMMAND_CANCEL = 2, /* it is settled: let it go */
    COMMAND_BODY = 4,   /* there is body to send, or its end */
    COMMAND_CREDIT = 8, /* there is credit again */
    COMMAND_GRANT = 16, /* its turn has come */
    COMMAND_END = 32,   /* libcurl has been told of the body's end: see to it that it sends it */
    COMMAND_FILE = 64,  /* the response's body goes to a file from now on: what is queued, first */
};

typedef struct chunk {
    struct chunk *next;
    size_t size, room;
    int status; /* of an informational block; of a piece of body 0 */
    char data[];
} chunk;

typedef struct segment {
    struct segment *next;
    size_t size, sent;
    char data[];
} segment;

typedef struct record_files record_files; /* files.c */

#define DETAIL_SIZE 320
/* Bytes of a small response's header block and body that a record has room for: they are copied, and the worker keeps its
 * buffers. Memory that one thread allocates and another frees costs both of them more. Fits the 1 KiB of most API answers. */
#define INLINE_SIZE 1536
/* Memory for 1xx blocks that wait to be taken, bytes; arbitrary. They stand outside the window: a server may send any number of
 * them, and libcurl cannot be told to wait with one. */
#define INFORMATIONAL_MOST 65536u

struct engine_record {
    _Atomic int refs;
    _Atomic int outcome; /* engine_outcome; set once, under the record lock; read anywhere */

    /* Immutable once accepted. */
    engine_pool *pool;        /* a reference */
    struct worker *worker;    /* a reference: where commands go */
    engine_told told;         /* of a played request, which has no worker: who hears of commands; else NULL */
    engine_config *config;    /* a reference */
    engine_mailbox *mailbox;  /* a reference, or NULL */
    char *method, *url, *origin; /* in the record's own allocation */
    int flags;
    char *body; /* buffered body, or NULL */
    int64_t body_size;
    int64_t window, upload_window;
    uint64_t token;
    int64_t submitted_ns, deadline_ns; /* CLOCK_MONOTONIC; deadline 0: none */

    /* Record lock: the way down. */
    bool started, started_taken, terminal_taken, discard;
    chunk *first_chunk, *last_chunk;
    size_t chunk_count, next_room;
    chunk *first_informational, *last_informational; /* 1xx blocks, not taken yet */
    size_t informational_count, informational_bytes; /* bytes of memory that they take */
    int64_t credit;    /* bytes that may still be delivered; at or below 0: pause */
    int64_t returning; /* bytes taken, their credit not given back yet */
    bool rx_paused;    /* the write callback answered PAUSE and has not been called since */
    int64_t received;  /* bytes delivered, for max_bytes */
    bool complete;     /* the worker delivers no more, and settles it next */
    waiters waiters;

    /* Record lock: set once, then there as long as the record. NULL: it has to do with no file. */
    record_files *files;

    /* Record lock: the way up. */
    segment *first_segment, *last_segment;
    int64_t waiting_up; /* bytes accepted and not yet handed to libcurl */
    int64_t accepted;   /* bytes accepted altogether */
    bool body_ended, tx_paused;

    /* Written under the record lock before what announces them (started, outcome); immutable after. */
    int status, curl_code, clock;
    buffer block, trailers, cookies_started, cookies, response;
    char *effective_url;
    char detail[DETAIL_SIZE];
    size_t detail_size;
    bool proxy_failed;
    engine_metrics metrics;
    size_t inline_used;

    /* Set by the worker just before the first byte of the request leaves; read anywhere. */
    _Atomic bool request_sent;

    /* Mailbox lock. */
    node in_box;       /* its place among those with news */
    node in_box_all;   /* among all that reply there */
    bool checked_out;
    size_t counted;    /* messages of this record in the mailbox's count */

    /* Command lock of its worker. */
    node in_commands;
    unsigned commands;

    node in_worker; /* all records that its worker holds, each with a reference. Pool lock: all that are played */

    /* Worker only. */
    struct transfer *transfer;

    char inline_data[INLINE_SIZE]; /* not cleared when the record is made */
};

engine_record *record_new(const engine_request *request);
void record_ref(engine_record *r);

/* ---- what the worker calls */

/* A 1xx block is here. Kept only where it was asked for, and before the response has started; of what nobody takes the oldest
 * go beyond INFORMATIONAL_MOST. False: no memory. */
bool record_informational(engine_record *r, int status, const char *block, size_t size);

/* The final header block is here: the stream's first message. Takes the buffers' contents. */
void record_start(engine_record *r, int status, buffer *block, buffer *cookies, char *url);

typedef enum {
    APPEND_TAKEN,
    APPEND_TO_WRITE, /* taken, and to be written to a file some time: files_write */
    APPEND_WRITE,    /* the same, now: there is a block full of them */
    APPEND_PAUSE,
    APPEND_SETTLED,
    APPEND_TOO_LARGE,
    APPEND_NO_MEMORY
} append_answer;
/* Deliver bytes of a streamed response. */
append_answer record_append(engine_record *r, const char *data, size_t size);

enum { BODY_END = 0, BODY_PAUSE = -1, BODY_ABORT = -2, BODY_IN_FILE = -3 };
/* Up to `room` bytes of a streamed body into `to`; or BODY_END, BODY_PAUSE (noted), BODY_ABORT, BODY_IN_FILE: files_read has
 * what follows. */
int64_t record_read_body(engine_record *r, char *to, size_t room);

/* What is paused and could go on now. Clears nothing: the callbacks do. */
void record_flow(engine_record *r, bool *rx_paused, bool *rx_blocked, bool *tx_paused, bool *tx_blocked);
/* Forget that the read callback paused (before libcurl is resumed or the body starts anew). */
void record_unpause(engine_record *r, bool rx, bool tx);

/* Everything that a terminal says. What the record takes of the buffers and of `url` is gone from here; the rest stays the
 * caller's. */
typedef struct {
    int outcome, curl_code, clock, status;
    bool proxy_failed, drop_messages;
    buffer block, body, trailers, cookies;
    char *url;
    const char *detail;
    size_t detail_size;
    engine_metrics metrics;
} record_end;
bool record_settle(engine_record *r, record_end *end);
/* Tell the side that sends and receives. No lock held. */
void record_tell(engine_record *r, unsigned commands);
/* engine_settle, with a code of libcurl's (-1: none). */
bool record_fail(engine_record *r, int outcome, int curl_code, const char *detail, size_t detail_size, bool overrule);
/* All queued chunks, for whoever writes them. Record lock held. */
chunk *record_take_chunks(engine_record *r);

/* ---- what the mailbox calls, with the record lock held */
size_t record_message_count(const engine_record *r);
bool record_take(engine_record *r, engine_message *message);

/* A forked child: settle what the parent had in flight. Its pool counts anew. */
void record_fork(engine_record *r);

#endif
