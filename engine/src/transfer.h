/* The libcurl side of one request: an easy handle, its callbacks, and what the response's headers mean.
 * Thread: the worker's only. */
#ifndef KATIPO_TRANSFER_H
#define KATIPO_TRANSFER_H

#include "clocks.h"
#include "curl_driver.h"
#include "record.h"
#include "turns.h"

struct worker;

/* Where the response is. The table in transfer.c says which line leads from which phase to which. */
#define TRANSFER_PHASES(X) \
    X(START, "start")   /* no header line of a block that counts yet */ \
    X(BLOCK, "block")   /* in a header block */ \
    X(HELD, "held")     /* a whole block that may be followed by another: a redirect, a 401 */ \
    X(FINAL, "final")   /* the final block is known: body, then trailers */
#define TRANSFER_PHASE(id, name) PHASE_##id,
typedef enum { TRANSFER_PHASES(TRANSFER_PHASE) PHASE_END } transfer_phase;

typedef struct transfer {
    struct worker *worker;
    engine_record *record; /* a reference */
    CURL *easy;            /* NULL until its turn has come */
    multi *multi;
    opener opener;
    ticket ticket;
    node in_worker; /* in its worker's list of all transfers */
    node starving;  /* in its worker's list: waits for a socket */
    node unwritten; /* in its worker's list: bytes of its body wait to be written to a file */
    alarm_entry alarm;

    /* Clocks, CLOCK_MONOTONIC. */
    int64_t entered_ns;  /* libcurl has it since; 0: not yet */
    int64_t connect_ns;  /* connecting since; 0: it is not connecting */
    int64_t last_rx_ns, last_tx_ns;
    int64_t sent;        /* bytes of body that have left, as libcurl last said */
    bool sending;        /* the request line has been handed to the connection */
    bool upload_done;    /* or there is no body */
    bool lone;           /* shares its connection with none: it sends a body over HTTP/3 (transfer.c) */
    bool pipewait;       /* libcurl may hold it back for a connection that another transfer opens */

    /* The response. */
    transfer_phase phase;
    int status;
    bool multiplexed;    /* HTTP/2 or 3 */
    bool http3;
    bool saw_cookie;
    buffer block, trailers, body;

    /* The request body. */
    int64_t body_at; /* bytes handed to libcurl */

    /* The replay guard. */
    int sends;               /* times that libcurl began to send the request */
    bool answered;           /* a header line has come since the last send */
    bool reused;             /* the last send went over a connection that was there before */
    bool refused;            /* libcurl has said that the server refused the stream of the last send */
    bool listening;          /* for that */
    int64_t given;           /* bytes of body handed to libcurl since the last send, those before a rewind too */
    long size_before;        /* REQUEST_SIZE before the last send */
    int64_t connection;      /* the last send's connection */
    long connections_before; /* NUM_CONNECTS before the last send */
    bool again;              /* sent once more by us */
    bool finished;           /* it has ended, and not by a callback of ours that broke it off */
    bool stale;              /* the connection of the last send had been closed by the server before it */
    bool clean;              /* its easy handle has learnt nothing and may serve the next transfer */

    /* Why a callback stopped it. */
    bool lost, too_large, no_memory, bad_response;

    char error[CURL_ERROR_SIZE];
} transfer;

/* A new transfer of `r`, waiting for its turn. NULL: no memory. */
transfer *transfer_new(struct worker *w, engine_record *r);
/* Its turn has come: into libcurl. False: fatal for the worker. */
bool transfer_start(transfer *t);
/* Something that it waited for may be there: body, credit. */
void transfer_resume(transfer *t);
/* The end of a streamed body was read: have libcurl send it now. */
void transfer_push_end(transfer *t);
/* Write what its record has for a file. False: that failed, the record is settled, and the transfer to be let go. */
bool transfer_write(transfer *t);
/* libcurl has finished with it: settle, or send once more. False: fatal for the worker. True with *again: it goes on. */
bool transfer_finished(transfer *t, int result, bool *again);
/* Held back for a connection that has turned out to carry one request at a time: start it anew, not to be held back again.
 * False: fatal for the worker. */
bool transfer_stop_waiting(transfer *t);
/* One of its clocks may have run out. Returns true when it has, and the record is settled. */
bool transfer_expired(transfer *t, int64_t now);
/* The earliest of its clocks, and which it is. */
int64_t transfer_deadline(const transfer *t, int *clock);
void transfer_arm(transfer *t);
/* Let it go: out of libcurl, its slot free, its memory gone. */
void transfer_free(transfer *t);
/* The same in a forked child, without touching libcurl. */
void transfer_forget(transfer *t);
/* Free the memory of one that its worker kept. */
void transfer_free_spare(transfer *t);

#endif
