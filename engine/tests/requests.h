/* Helpers of the tests that run whole engines: configurations, requests, waiting for what was asked for. Include once. */
#ifndef KATIPO_REQUESTS_H
#define KATIPO_REQUESTS_H

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake_libcurl.h"
#include "test.h"

static inline engine_pool *pool_with(int workers, int max_total, int max_host, int max_in_flight) {
    engine_pool_options options = {.workers = workers,
                                   .multiplexing = true,
                                   .max_total_connections = max_total,
                                   .max_host_connections = max_host,
                                   .max_idle_connections = -1,
                                   .max_concurrent_streams = 10,
                                   .max_in_flight = max_in_flight,
                                   .name = "test"};
    engine_pool *p = engine_pool_new(&options);
    MUST(p);
    return p;
}

static inline engine_config *config_with(engine_limits limits, const char *identity) {
    if (!limits.max_bytes) limits.max_bytes = -1;
    engine_config *c = engine_config_new(&limits, identity, strlen(identity));
    MUST(c);
    return c;
}

/* The defaults of a request, to be altered. */
static inline engine_request request_of(engine_config *config, const char *method, const char *url, int flags) {
    return (engine_request){.config = config,
                            .method = method,
                            .url = url,
                            .origin = "http://origin",
                            .flags = flags,
                            .body_size = flags & ENGINE_STREAM_BODY ? -1 : 0,
                            .window = 65536,
                            .upload_window = 65536};
}

/* Wait until a record has what `mask` says. */
static inline void await(engine_record *r, int mask) {
    static int owner;
    engine_queue *q = engine_queue_new();
    MUST(q);
    engine_waiter *w = engine_waiter_new(q, &owner);
    if (!engine_record_register(r, w, mask)) {
        while (engine_queue_wait(q, -1, NULL) != 1) continue;
        CHECK(engine_queue_take(q, true) == &owner);
    }
    engine_waiter_free(w);
    engine_queue_unref(q);
}

static inline void await_pool(engine_pool *p, int mask) {
    static int owner;
    engine_queue *q = engine_queue_new();
    MUST(q);
    engine_waiter *w = engine_waiter_new(q, &owner);
    if (!engine_pool_register(p, w, mask)) {
        while (engine_queue_wait(q, -1, NULL) != 1) continue;
        CHECK(engine_queue_take(q, true) == &owner);
    }
    engine_waiter_free(w);
    engine_queue_unref(q);
}

/* The outcome, waited for; the record is let go. */
static inline int outcome_of(engine_record *r) {
    await(r, ENGINE_ON_TERMINAL);
    int outcome = engine_outcome_of(r);
    engine_record_unref(r);
    return outcome;
}

static inline void close_pool(engine_pool *p) {
    engine_pool_stop(p);
    CHECK_EQUAL(engine_pool_join(p, 60 * SECOND_NS), 0);
    engine_pool_unref(p);
}

/* A header line's value in a block, copied to `to`; empty where there is none. */
static inline const char *header_of(const char *block, size_t size, const char *name, char *to, size_t room) {
    size_t length = strlen(name);
    to[0] = 0;
    for (const char *at = block, *end = block + size; at && at < end;) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        size_t line = (size_t)((line_end ? line_end : end) - at);
        if (line > length + 2 && !strncasecmp(at, name, length) && at[length] == ':')
            snprintf(to, room, "%.*s", (int)strcspn(at + length + 2, "\r\n"), at + length + 2);
        at = line_end ? line_end + 1 : NULL;
    }
    return to;
}

#endif
