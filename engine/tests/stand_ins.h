/* For the tests of the record and the mailbox: a worker and a pool that only note what they are told. Include once. */
#ifndef KATIPO_STAND_INS_H
#define KATIPO_STAND_INS_H

#include <stdlib.h>
#include <string.h>

#include "../src/mailbox.h"
#include "../src/pool.h"
#include "../src/record.h"
#include "../src/worker.h"
#include "test.h"

static _Atomic unsigned commands_seen; /* their union */
static _Atomic int settled_ok, settled_failed;

bool worker_command(worker *w, engine_record *r, unsigned commands) {
    (void)w;
    (void)r;
    CHECK_EQUAL(test_locks_held(), 0);
    atomic_fetch_or(&commands_seen, commands);
    return true;
}
static _Atomic int played_forgotten;
void pool_forget_played(engine_pool *p, engine_record *r) {
    (void)p;
    (void)r;
    CHECK_EQUAL(test_locks_held(), 0);
    atomic_fetch_add(&played_forgotten, 1);
}
void worker_unref(worker *w) { (void)w; }
void engine_pool_unref(engine_pool *p) { (void)p; }
void pool_settled(engine_pool *p, worker *w, bool ok) {
    (void)p;
    (void)w;
    CHECK_EQUAL(test_locks_held(), 0);
    atomic_fetch_add(ok ? &settled_ok : &settled_failed, 1);
}

static inline unsigned commands_taken(void) { return atomic_exchange(&commands_seen, 0); }

/* A record as engine_submit would make it. */
static inline engine_record *record_of(int flags, int64_t window, int64_t body_size, int64_t upload_window,
                                       engine_mailbox *mailbox) {
    engine_limits limits = {.max_bytes = -1};
    engine_config *config = engine_config_new(&limits, "", 0);
    engine_request request = {.config = config,
                              .method = "GET",
                              .url = "http://a/",
                              .origin = "http://a",
                              .flags = flags,
                              .window = window,
                              .body_size = body_size,
                              .upload_window = upload_window,
                              .mailbox = mailbox,
                              .token = 42};
    engine_record *r = record_new(&request);
    engine_config_unref(config);
    MUST(r);
    if (mailbox) MUST(mailbox_enter(mailbox, r));
    return r;
}

static inline buffer buffer_of(const char *text) {
    buffer b = {0};
    MUST(buffer_add(&b, text, strlen(text)));
    return b;
}

static inline void start(engine_record *r) {
    buffer block = buffer_of("HTTP/1.1 200 OK\r\n"), cookies = {0};
    record_start(r, 200, &block, &cookies, NULL);
}

/* What the worker says at the end. */
static inline bool end_with(engine_record *r, int outcome) {
    record_end end = {.outcome = outcome, .curl_code = -1, .status = 200, .detail = "why", .detail_size = 3};
    if (outcome == ENGINE_OUTCOME_OK) {
        end.block = buffer_of("HTTP/1.1 200 OK\r\n");
        end.body = buffer_of("body");
        end.trailers = buffer_of("T: 1\r\n");
    }
    bool first = record_settle(r, &end);
    buffer_clear(&end.block); /* what the record did not take */
    buffer_clear(&end.body);
    buffer_clear(&end.trailers);
    return first;
}

static inline bool cancel(engine_record *r) { return engine_settle(r, ENGINE_OUTCOME_CANCELLED, "gone", 4, false); }

#endif
