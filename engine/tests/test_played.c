/* Requests that no worker runs: this program plays the workers, the rest is the engine's. No thread of it, no libcurl. */
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "requests.h"

#define TOKENS 256

/* What was told, by token; a played request's own thread tells. */
static _Atomic unsigned told_of[TOKENS];
static _Atomic int times_told;

static void told(uint64_t token, unsigned what) {
    CHECK_EQUAL(test_locks_held(), 0);
    atomic_fetch_or(&told_of[token], what);
    atomic_fetch_add(&times_told, 1);
}

static unsigned heard(uint64_t token) { return atomic_exchange(&told_of[token], 0); }

static engine_record *play_on(engine_pool *p, int flags, int64_t window, int64_t max_bytes, engine_mailbox *mailbox,
                              uint64_t token) {
    engine_config *c = config_with((engine_limits){.max_bytes = max_bytes}, "");
    engine_request request = request_of(c, "POST", "http://origin/", flags);
    request.window = window;
    request.mailbox = mailbox;
    request.token = token;
    engine_record *r;
    engine_status status = engine_play(p, &request, told, &r);
    engine_config_unref(c);
    CHECK_EQUAL(status == ENGINE_ACCEPTED, r != NULL);
    return r;
}

static bool end_ok(engine_record *r) {
    engine_metrics metrics = {.total_us = 7};
    engine_message m = {.outcome = ENGINE_OUTCOME_OK, .status = 201, .curl_code = -1, .metrics = &metrics};
    m.block = "HTTP/1.1 201 Created\r\n";
    m.block_size = strlen(m.block);
    m.body = "body";
    m.body_size = 4;
    return engine_play_end(r, &m);
}

static engine_message_kind take(engine_record *r) {
    engine_message m;
    if (!engine_take(r, &m)) return ENGINE_MESSAGE_NONE;
    if (m.chunk) engine_chunk_free(m.chunk);
    return m.kind;
}

static void buffered(void) {
    engine_pool *p = pool_with(1, 0, 0, 0);
    engine_record *r = play_on(p, 0, -1, -1, NULL, 1);
    MUST(r);
    CHECK(engine_is_played(r));
    engine_pool_statistics s;
    engine_pool_read(p, &s);
    CHECK_EQUAL(s.in_flight, 1);
    CHECK_EQUAL(s.workers, 0);
    engine_play_sent(r);
    CHECK(end_ok(r));
    CHECK_EQUAL(heard(1), ENGINE_TOLD_SETTLED);
    CHECK(!end_ok(r));
    engine_message m;
    MUST(engine_terminal(r, &m));
    CHECK_EQUAL(m.kind, ENGINE_MESSAGE_RESPONDED);
    CHECK_EQUAL(m.status, 201);
    CHECK(m.body_size == 4 && !memcmp(m.body, "body", 4));
    CHECK_EQUAL(m.metrics->total_us, 7);
    CHECK(m.request_sent);
    engine_pool_read(p, &s);
    CHECK_EQUAL(s.in_flight, 0);
    CHECK_EQUAL(s.completed, 1);
    engine_record_unref(r);
    engine_pool_unref(p);
}

static void streamed_under_its_window(void) {
    engine_pool *p = pool_with(1, 0, 0, 0);
    engine_record *r = play_on(p, ENGINE_STREAM, 10, -1, NULL, 2);
    engine_message m = {.status = 200, .block = "HTTP/1.1 200 OK\r\n", .block_size = 17};
    CHECK(engine_play_start(r, &m));
    CHECK_EQUAL(engine_play_append(r, "0123456789", 10), ENGINE_PLAY_TAKEN);
    CHECK_EQUAL(engine_play_append(r, "x", 1), ENGINE_PLAY_PAUSE);
    CHECK_EQUAL(heard(2), 0);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_STARTED);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_CHUNK);
    engine_consumed(r, 10);
    CHECK_EQUAL(heard(2), ENGINE_TOLD_CREDIT);
    CHECK_EQUAL(engine_play_append(r, "x", 1), ENGINE_PLAY_TAKEN);
    CHECK(end_ok(r));
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_CHUNK);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_DONE);
    CHECK_EQUAL(engine_play_append(r, "x", 1), ENGINE_PLAY_SETTLED);
    CHECK_EQUAL(heard(2), ENGINE_TOLD_SETTLED);
    engine_record_unref(r);
    r = play_on(p, ENGINE_STREAM, -1, 5, NULL, 2);
    CHECK_EQUAL(engine_play_append(r, "123456", 6), ENGINE_PLAY_TOO_LARGE);
    mem_fail_next();
    CHECK_EQUAL(engine_play_append(r, "1234", 4), ENGINE_PLAY_NO_MEMORY);
    CHECK(mem_failed());
    engine_message gone = {.outcome = ENGINE_OUTCOME_TOO_LARGE};
    CHECK(engine_play_end(r, &gone));
    engine_record_unref(r);
    engine_pool_unref(p);
    heard(2);
}

static void a_body_is_read_as_it_comes(void) {
    engine_pool *p = pool_with(1, 0, 0, 0);
    engine_record *r = play_on(p, ENGINE_STREAM_BODY, -1, -1, NULL, 3);
    char to[8];
    CHECK_EQUAL(engine_play_read(r, to, 8), ENGINE_PLAY_WAIT);
    CHECK_EQUAL(engine_send(r, "hello", 5), ENGINE_SENT);
    CHECK_EQUAL(heard(3), ENGINE_TOLD_BODY);
    CHECK_EQUAL(engine_play_read(r, to, 8), 5);
    CHECK(!memcmp(to, "hello", 5));
    CHECK_EQUAL(engine_play_read(r, to, 8), ENGINE_PLAY_WAIT);
    engine_finish(r);
    CHECK_EQUAL(heard(3), ENGINE_TOLD_BODY);
    CHECK_EQUAL(engine_play_read(r, to, 8), ENGINE_PLAY_END);
    CHECK(engine_settle(r, ENGINE_OUTCOME_CANCELLED, NULL, 0, false));
    CHECK_EQUAL(heard(3), ENGINE_TOLD_SETTLED);
    CHECK_EQUAL(engine_play_read(r, to, 8), ENGINE_PLAY_ABORT);
    engine_record_unref(r);
    engine_pool_unref(p);
}

static void a_dropped_handle_is_told(void) {
    engine_pool *p = pool_with(1, 0, 0, 0);
    engine_record *r = play_on(p, ENGINE_STREAM, 10, -1, NULL, 4);
    engine_abandon(r);
    CHECK_EQUAL(heard(4), ENGINE_TOLD_SETTLED);
    CHECK_EQUAL(engine_outcome_of(r), ENGINE_OUTCOME_CANCELLED);
    engine_record_unref(r);
    engine_pool_unref(p);
}

static void the_clocks_are_the_players(void) {
    engine_pool *p = pool_with(1, 0, 0, 0);
    static const int clocks[] = {ENGINE_CLOCK_TOTAL, ENGINE_CLOCK_READ};
    for (int i = 0; i < 2; i++) {
        engine_config *c = config_with((engine_limits){.total_ms = 70, .read_ms = 30}, "");
        engine_request request = request_of(c, "GET", "http://origin/", 0);
        request.token = 5;
        engine_record *r;
        CHECK_EQUAL(engine_play(p, &request, told, &r), ENGINE_ACCEPTED);
        engine_config_unref(c);
        CHECK(engine_play_expire(r, clocks[i]));
        CHECK(!engine_play_expire(r, clocks[i]));
        engine_message m;
        MUST(engine_terminal(r, &m));
        CHECK_EQUAL(m.outcome, ENGINE_OUTCOME_TIMEOUT);
        CHECK_EQUAL(m.clock, clocks[i]);
        CHECK_EQUAL(m.curl_code, 28);
        CHECK(m.detail_size && memmem(m.detail, m.detail_size, i ? "30 ms" : "70 ms", 5));
        engine_record_unref(r);
        CHECK_EQUAL(heard(5), ENGINE_TOLD_SETTLED);
    }
    engine_pool_unref(p);
}

static void closing_settles_what_is_played(void) {
    engine_pool *p = pool_with(1, 0, 0, 0);
    engine_record *r[3];
    for (int i = 0; i < 3; i++) r[i] = play_on(p, 0, -1, -1, NULL, (uint64_t)(10 + i));
    CHECK(end_ok(r[1]));
    CHECK_EQUAL(heard(11), ENGINE_TOLD_SETTLED);
    engine_pool_refuse(p);
    CHECK(!play_on(p, 0, -1, -1, NULL, 13));
    CHECK_EQUAL(engine_outcome_of(r[0]), ENGINE_OUTCOME_PENDING);
    engine_pool_stop(p);
    CHECK_EQUAL(engine_outcome_of(r[0]), ENGINE_OUTCOME_POOL_CLOSED);
    CHECK_EQUAL(engine_outcome_of(r[1]), ENGINE_OUTCOME_OK);
    CHECK_EQUAL(heard(10), ENGINE_TOLD_SETTLED);
    CHECK_EQUAL(heard(11), 0);
    CHECK_EQUAL(heard(12), ENGINE_TOLD_SETTLED);
    CHECK_EQUAL(heard(13), 0);
    engine_pool_statistics s;
    engine_pool_read(p, &s);
    CHECK_EQUAL(s.in_flight, 0);
    CHECK_EQUAL(s.failed, 2);
    CHECK_EQUAL(engine_pool_join(p, 0), 0);
    for (int i = 0; i < 3; i++) engine_record_unref(r[i]);
    engine_pool_unref(p);
}

static void a_mailbox_and_a_pool_that_close(void) {
    engine_pool *p = pool_with(1, 0, 0, 0);
    engine_mailbox *m = engine_mailbox_new();
    engine_record *r = play_on(p, 0, -1, -1, m, 20);
    MUST(r);
    engine_mailbox_close(m);
    CHECK_EQUAL(engine_outcome_of(r), ENGINE_OUTCOME_CANCELLED);
    CHECK_EQUAL(heard(20), ENGINE_TOLD_SETTLED);
    CHECK(!play_on(p, 0, -1, -1, m, 21));
    engine_pool_statistics s;
    engine_pool_read(p, &s);
    CHECK_EQUAL(s.in_flight, 0);
    CHECK_EQUAL(s.failed, 1); /* what was refused is not counted */
    engine_record_unref(r);
    engine_mailbox_drop(m);
    engine_pool_unref(p);
}

static void an_overdue_one_of_a_mailbox_times_out(void) {
    engine_pool *p = pool_with(1, 0, 0, 0);
    engine_mailbox *m = engine_mailbox_new();
    engine_config *c = config_with((engine_limits){.total_ms = 1}, "");
    engine_request request = request_of(c, "GET", "http://origin/", 0);
    request.mailbox = m;
    request.token = 22;
    engine_record *r;
    CHECK_EQUAL(engine_play(p, &request, told, &r), ENGINE_ACCEPTED);
    engine_config_unref(c);
    while (engine_now() <= engine_record_deadline(r)) test_yield();
    CHECK_EQUAL(engine_mailbox_fail_overdue(m, 0), 0);
    CHECK_EQUAL(engine_outcome_of(r), ENGINE_OUTCOME_TIMEOUT);
    CHECK_EQUAL(heard(22), ENGINE_TOLD_SETTLED);
    engine_record_unref(r);
    engine_mailbox_drop(m);
    engine_pool_unref(p);
}

/* Threads that make, end and cancel, while the pool and the mailbox close under them. */
typedef struct {
    engine_pool *pool;
    engine_mailbox *mailbox;
    int index;
    int made;
} maker;

static void *makes(void *argument) {
    maker *x = argument;
    test_random random = test_random_of((uint64_t)x->index);
    for (int i = 0; i < 500; i++) {
        engine_mailbox *mailbox = test_below(&random, 2) ? x->mailbox : NULL;
        engine_record *r = play_on(x->pool, 0, -1, -1, mailbox, (uint64_t)(30 + x->index));
        if (!r) continue;
        x->made++;
        switch (test_below(&random, 3)) {
        case 0: end_ok(r); break;
        case 1: engine_settle(r, ENGINE_OUTCOME_CANCELLED, NULL, 0, false); break;
        default: break; /* left to the pool */
        }
        engine_record_unref(r);
    }
    return NULL;
}

static void closing_while_others_make(void) {
    for (int round = 0; round < 20; round++) {
        engine_pool *p = pool_with(1, 0, 0, 0);
        engine_mailbox *m = engine_mailbox_new();
        maker makers[3];
        test_thread threads[3];
        for (int i = 0; i < 3; i++) {
            makers[i] = (maker){p, m, i, 0};
            test_start(&threads[i], makes, &makers[i]);
        }
        engine_pool_statistics s;
        do {
            test_yield();
            engine_pool_read(p, &s);
        } while (s.completed + s.failed < 30 * round);
        if (round % 2) engine_mailbox_close(m);
        engine_pool_stop(p);
        int made = 0;
        for (int i = 0; i < 3; i++) {
            test_join(&threads[i]);
            made += makers[i].made;
        }
        engine_pool_read(p, &s);
        CHECK_EQUAL(s.in_flight, 0);
        CHECK_EQUAL(s.completed + s.failed, made);
        engine_mailbox_drop(m);
        engine_pool_unref(p);
    }
    for (uint64_t i = 30; i < 33; i++) heard(i);
}

static void a_forked_child_has_lost_them(void) {
    if (!test_may_fork()) return;
    engine_pool *p = pool_with(1, 0, 0, 0);
    engine_record *r = play_on(p, 0, -1, -1, NULL, 40);
    engine_fork_prepare();
    pid_t child = fork();
    if (!child) {
        engine_fork_child();
        test_child();
        CHECK_EQUAL(engine_outcome_of(r), ENGINE_OUTCOME_FORKED);
        CHECK_EQUAL(heard(40), ENGINE_TOLD_FORKED);
        CHECK(!end_ok(r));
        engine_record *fresh = play_on(p, 0, -1, -1, NULL, 41);
        MUST(fresh);
        CHECK(end_ok(fresh));
        engine_record_unref(fresh);
        engine_record_unref(r);
        engine_pool_unref(p);
        test_check_counts();
        _exit(test_result());
    }
    engine_fork_parent();
    int status;
    MUST(waitpid(child, &status, 0) == child);
    CHECK_EQUAL(status, 0);
    CHECK_EQUAL(engine_outcome_of(r), ENGINE_OUTCOME_PENDING);
    CHECK_EQUAL(heard(40), 0);
    CHECK(end_ok(r));
    heard(40);
    engine_record_unref(r);
    engine_pool_unref(p);
}

CASES({"buffered", buffered}, {"streamed_under_its_window", streamed_under_its_window},
      {"a_body_is_read_as_it_comes", a_body_is_read_as_it_comes}, {"a_dropped_handle_is_told", a_dropped_handle_is_told},
      {"the_clocks_are_the_players", the_clocks_are_the_players},
      {"closing_settles_what_is_played", closing_settles_what_is_played},
      {"a_mailbox_and_a_pool_that_close", a_mailbox_and_a_pool_that_close},
      {"an_overdue_one_of_a_mailbox_times_out", an_overdue_one_of_a_mailbox_times_out},
      {"closing_while_others_make", closing_while_others_make},
      {"a_forked_child_has_lost_them", a_forked_child_has_lost_them})
