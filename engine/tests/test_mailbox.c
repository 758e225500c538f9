/* Mailboxes: order, counts, many consumers, closing. */
#include "stand_ins.h"

static engine_record *stream_to(engine_mailbox *m) { return record_of(ENGINE_STREAM, -1, 0, 0, m); }

static engine_mailbox *box(void) {
    engine_mailbox *m = engine_mailbox_new();
    MUST(m);
    return m;
}

/* Take the next message and give the record back. */
static engine_message_kind receive(engine_mailbox *m, engine_record **from) {
    engine_message message;
    engine_record *r = engine_mailbox_take(m, &message);
    if (from) *from = r;
    if (!r) return ENGINE_MESSAGE_NONE;
    if (message.chunk) engine_chunk_free(message.chunk);
    engine_mailbox_give_back(m, r, false);
    return message.kind;
}

static void messages_come_in_order(void) {
    engine_mailbox *m = box();
    engine_record *r = stream_to(m);
    CHECK_EQUAL(receive(m, NULL), ENGINE_MESSAGE_NONE);
    CHECK_EQUAL(engine_mailbox_count(m), 0);
    start(r);
    record_append(r, "abc", 3);
    end_with(r, ENGINE_OUTCOME_OK);
    CHECK_EQUAL(engine_mailbox_count(m), 3);
    CHECK_EQUAL(receive(m, NULL), ENGINE_MESSAGE_STARTED);
    CHECK_EQUAL(engine_mailbox_count(m), 2);
    CHECK_EQUAL(receive(m, NULL), ENGINE_MESSAGE_CHUNK);
    CHECK_EQUAL(receive(m, NULL), ENGINE_MESSAGE_DONE);
    CHECK_EQUAL(receive(m, NULL), ENGINE_MESSAGE_NONE);
    CHECK_EQUAL(engine_mailbox_count(m), 0);
    engine_record_unref(r);
    engine_mailbox_drop(m);
}

static void records_take_turns(void) {
    engine_mailbox *m = box();
    engine_record *r[3], *from;
    for (int i = 0; i < 3; i++) {
        r[i] = stream_to(m);
        start(r[i]);
        record_append(r[i], "x", 1);
    }
    for (int i = 0; i < 6; i++) {
        CHECK_EQUAL(receive(m, &from), i < 3 ? ENGINE_MESSAGE_STARTED : ENGINE_MESSAGE_CHUNK);
        CHECK(from == r[i % 3]);
    }
    for (int i = 0; i < 3; i++) {
        cancel(r[i]);
        engine_record_unref(r[i]);
    }
    CHECK_EQUAL(engine_mailbox_count(m), 3);
    engine_mailbox_drop(m);
    commands_taken();
}

static void a_record_is_with_one_consumer_at_a_time(void) {
    engine_mailbox *m = box();
    engine_record *r = stream_to(m);
    start(r);
    engine_message first, second;
    engine_record *out = engine_mailbox_take(m, &first);
    CHECK(out == r);
    record_append(r, "x", 1);
    CHECK_EQUAL(engine_mailbox_count(m), 1);
    CHECK(engine_mailbox_take(m, &second) == NULL); /* its next message waits for the first consumer */
    engine_mailbox_give_back(m, out, false);
    CHECK_EQUAL(receive(m, NULL), ENGINE_MESSAGE_CHUNK);
    cancel(r);
    CHECK_EQUAL(receive(m, NULL), ENGINE_MESSAGE_FAILED);
    engine_record_unref(r);
    engine_mailbox_drop(m);
    commands_taken();
}

static void a_consumer_may_have_more(void) {
    engine_mailbox *m = box();
    engine_record *r = stream_to(m);
    start(r);
    engine_message message;
    engine_record *out = engine_mailbox_take(m, &message);
    engine_mailbox_give_back(m, out, true); /* decoded output is left with the caller */
    CHECK_EQUAL(engine_mailbox_count(m), 1);
    out = engine_mailbox_take(m, &message);
    CHECK(out == r);
    CHECK_EQUAL(message.kind, ENGINE_MESSAGE_NONE);
    CHECK_EQUAL(engine_mailbox_count(m), 0);
    engine_mailbox_give_back(m, out, false);
    CHECK(engine_mailbox_take(m, &message) == NULL);
    /* With something in the engine besides, that comes as it is. */
    record_append(r, "x", 1);
    out = engine_mailbox_take(m, &message);
    CHECK_EQUAL(message.kind, ENGINE_MESSAGE_CHUNK);
    engine_chunk_free(message.chunk);
    engine_mailbox_give_back(m, out, true);
    cancel(r);
    CHECK_EQUAL(engine_mailbox_count(m), 1); /* the terminal, and nothing else */
    CHECK_EQUAL(receive(m, NULL), ENGINE_MESSAGE_FAILED);
    CHECK_EQUAL(receive(m, NULL), ENGINE_MESSAGE_NONE);
    CHECK_EQUAL(engine_mailbox_count(m), 0);
    engine_record_unref(r);
    engine_mailbox_drop(m);
    commands_taken();
}

static void a_cancel_leaves_the_terminal_alone(void) {
    engine_mailbox *m = box();
    engine_record *r = stream_to(m);
    start(r);
    record_append(r, "x", 1);
    cancel(r);
    CHECK_EQUAL(engine_mailbox_count(m), 1);
    CHECK_EQUAL(receive(m, NULL), ENGINE_MESSAGE_FAILED);
    engine_record_unref(r);
    engine_mailbox_drop(m);
    commands_taken();
}

static void closing_cancels_what_is_in_flight(void) {
    engine_mailbox *m = box();
    engine_record *r[3];
    for (int i = 0; i < 3; i++) r[i] = stream_to(m);
    start(r[0]);
    end_with(r[1], ENGINE_OUTCOME_OK);
    CHECK(!engine_mailbox_closed(m));
    engine_mailbox_close(m);
    CHECK(engine_mailbox_closed(m));
    CHECK_EQUAL(engine_outcome_of(r[0]), ENGINE_OUTCOME_CANCELLED);
    CHECK_EQUAL(engine_outcome_of(r[1]), ENGINE_OUTCOME_OK);
    CHECK_EQUAL(engine_outcome_of(r[2]), ENGINE_OUTCOME_CANCELLED);
    engine_record *late = record_of(0, -1, 0, 0, NULL);
    CHECK(!mailbox_enter(m, late));
    cancel(late);
    engine_record_unref(late);
    /* What is there can still be received: Failed, Started and Done, Failed. */
    int count = 0;
    while (receive(m, NULL) != ENGINE_MESSAGE_NONE) count++;
    CHECK_EQUAL(count, 4);
    engine_mailbox_close(m);
    for (int i = 0; i < 3; i++) engine_record_unref(r[i]);
    engine_mailbox_drop(m);
    commands_taken();
}

static void dropping_lets_go_of_everything(void) {
    engine_mailbox *m = box();
    engine_record *r = stream_to(m), *other = stream_to(m);
    start(r);
    engine_message message;
    engine_record *out = engine_mailbox_take(m, &message);
    start(other);
    engine_mailbox_drop(m); /* its owner is gone; a consumer is not yet */
    CHECK_EQUAL(engine_outcome_of(r), ENGINE_OUTCOME_CANCELLED);
    engine_mailbox_give_back(m, out, false);
    engine_record_unref(r);
    CHECK_EQUAL(engine_counted(ENGINE_COUNT_MAILBOXES), 1);
    engine_record_unref(other);
    CHECK_EQUAL(engine_counted(ENGINE_COUNT_MAILBOXES), 0);
    commands_taken();
}

static void one_waiter_a_record(void) {
    static int owners[3];
    engine_mailbox *m = box();
    engine_queue *q = engine_queue_new();
    engine_waiter *w[3];
    for (int i = 0; i < 3; i++) {
        w[i] = engine_waiter_new(q, &owners[i]);
        CHECK(!engine_mailbox_register(m, w[i]));
    }
    engine_record *a = stream_to(m), *b = stream_to(m);
    start(a);
    record_append(a, "x", 1); /* the same record: its one consumer will see it */
    CHECK(engine_queue_take(q, true) == &owners[0]);
    CHECK(engine_queue_take(q, false) == NULL);
    start(b);
    CHECK(engine_queue_take(q, true) == &owners[1]);
    CHECK(engine_queue_take(q, false) == NULL);
    /* The first gives up without taking: the third hears of it instead. */
    engine_mailbox_pass_on(m);
    CHECK(engine_queue_take(q, true) == &owners[2]);
    CHECK(engine_mailbox_register(m, w[0])); /* there is something: do not wait */
    while (receive(m, NULL) != ENGINE_MESSAGE_NONE) continue;
    engine_mailbox_pass_on(m); /* nothing to pass on */
    CHECK(!engine_mailbox_register(m, w[0]));
    CHECK(!engine_mailbox_register(m, w[1]));
    CHECK(engine_queue_take(q, true) == NULL);
    engine_mailbox_close(m); /* wakes all */
    CHECK(engine_queue_take(q, true) == &owners[0]);
    CHECK(engine_queue_take(q, false) == &owners[1]);
    CHECK(engine_mailbox_register(m, w[0]));
    engine_record_unref(a);
    engine_record_unref(b);
    for (int i = 0; i < 3; i++) engine_waiter_free(w[i]);
    engine_queue_unref(q);
    engine_mailbox_drop(m);
    commands_taken();
}

static void giving_back_wakes_the_next(void) {
    static int owner;
    engine_mailbox *m = box();
    engine_record *r = stream_to(m);
    start(r);
    engine_message message;
    engine_record *out = engine_mailbox_take(m, &message);
    engine_queue *q = engine_queue_new();
    engine_waiter *w = engine_waiter_new(q, &owner);
    CHECK(!engine_mailbox_register(m, w));
    record_append(r, "x", 1);
    CHECK(engine_queue_take(q, true) == NULL);
    engine_mailbox_give_back(m, out, false);
    CHECK(engine_queue_take(q, true) == &owner);
    cancel(r);
    engine_record_unref(r);
    engine_waiter_free(w);
    engine_queue_unref(q);
    engine_mailbox_drop(m);
    commands_taken();
}

static void a_forked_childs_mailboxes_are_empty(void) {
    engine_mailbox *m = box();
    engine_record *r = stream_to(m), *other = stream_to(m);
    start(r);
    record_fork(r);
    record_fork(other);
    mailboxes_after_fork();
    CHECK_EQUAL(engine_mailbox_count(m), 0);
    CHECK_EQUAL(receive(m, NULL), ENGINE_MESSAGE_NONE);
    engine_record *fresh = stream_to(m);
    start(fresh);
    CHECK_EQUAL(engine_mailbox_count(m), 1);
    cancel(fresh);
    CHECK_EQUAL(receive(m, NULL), ENGINE_MESSAGE_FAILED);
    CHECK_EQUAL(engine_mailbox_count(m), 0);
    engine_record_unref(r);
    engine_record_unref(other);
    engine_record_unref(fresh);
    engine_mailbox_drop(m);
    commands_taken();
}

static engine_record *due_to(engine_mailbox *m, int64_t total_ms) {
    engine_limits limits = {.total_ms = total_ms, .max_bytes = -1};
    engine_config *config = engine_config_new(&limits, "", 0);
    engine_request request = {.config = config, .method = "GET", .url = "u", .origin = "o", .window = -1, .mailbox = m};
    engine_record *r = record_new(&request);
    engine_config_unref(config);
    MUST(r && mailbox_enter(m, r));
    return r;
}

static void what_is_overdue_is_failed_by_who_waits(void) {
    engine_mailbox *m = box();
    CHECK_EQUAL(engine_mailbox_fail_overdue(m, 0), 0);
    engine_record *none = due_to(m, 0), *later = due_to(m, 3600000), *soon = due_to(m, 1);
    int64_t at = engine_record_deadline(soon);
    CHECK_EQUAL(engine_mailbox_fail_overdue(m, 3600 * SECOND_NS), at); /* within its grace */
    CHECK_EQUAL(engine_outcome_of(soon), ENGINE_OUTCOME_PENDING);
    while (now_ns() <= at) test_yield();
    CHECK_EQUAL(engine_mailbox_fail_overdue(m, 0), engine_record_deadline(later));
    CHECK_EQUAL(engine_outcome_of(soon), ENGINE_OUTCOME_WORKER_DIED);
    CHECK_EQUAL(engine_outcome_of(later), ENGINE_OUTCOME_PENDING);
    CHECK_EQUAL(engine_outcome_of(none), ENGINE_OUTCOME_PENDING);
    CHECK_EQUAL(receive(m, NULL), ENGINE_MESSAGE_FAILED);
    engine_record_unref(soon);
    engine_mailbox_close(m);
    engine_record_unref(later);
    engine_record_unref(none);
    engine_mailbox_drop(m);
    commands_taken();
}

/* ---- many producers, many consumers */

enum { RECORDS = 60, PIECES = 40, CONSUMERS = 3, PRODUCERS = 2 };

typedef struct {
    uint32_t pieces; /* the number that its next chunk must begin with */
    bool started, ended, busy;
} progress;

typedef struct {
    engine_mailbox *m;
    engine_record *records[RECORDS];
    progress progress[RECORDS]; /* the consumer's that has the record: a race here is a fault of the mailbox */
    _Atomic int ended;
} crowd;

typedef struct {
    crowd *c;
    int index;
} member;

static void *produces(void *argument) {
    member *x = argument;
    test_random random = test_random_of(10 + (uint64_t)x->index);
    for (uint32_t piece = 0; piece <= PIECES; piece++)
        for (int i = x->index; i < RECORDS; i += PRODUCERS) {
            engine_record *r = x->c->records[i];
            if (piece == 0) start(r);
            if (piece == PIECES) end_with(r, test_below(&random, 2) ? ENGINE_OUTCOME_OK : ENGINE_OUTCOME_CURL);
            else if (engine_outcome_of(r) == ENGINE_OUTCOME_PENDING) record_append(r, (const char *)&piece, sizeof piece);
        }
    return NULL;
}

static void *consumes(void *argument) {
    member *x = argument;
    crowd *c = x->c;
    test_random random = test_random_of(20 + (uint64_t)x->index);
    engine_queue *q = engine_queue_new();
    engine_waiter *w = engine_waiter_new(q, x);
    engine_message m;
    while (atomic_load(&c->ended) < RECORDS) {
        engine_record *r = engine_mailbox_take(c->m, &m);
        if (!r) {
            if (engine_mailbox_register(c->m, w)) continue;
            if (!test_below(&random, 8)) { /* gives up, as a caller whose time is over */
                if (engine_waiter_cancel(w) == 2) engine_mailbox_pass_on(c->m);
                continue;
            }
            while (engine_queue_wait(q, -1, NULL) != 1) continue;
            for (bool first = true; engine_queue_take(q, first); first = false) continue;
            engine_waiter_cancel(w);
            continue;
        }
        int i = 0;
        while (c->records[i] != r) i++;
        progress *p = &c->progress[i];
        MUST(!p->busy && !p->ended);
        p->busy = true;
        if (m.kind == ENGINE_MESSAGE_STARTED) {
            MUST(!p->started);
            p->started = true;
        } else if (m.kind == ENGINE_MESSAGE_CHUNK) {
            MUST(p->started);
            for (size_t k = 0; k < m.body_size; k += sizeof(uint32_t)) {
                uint32_t piece;
                memcpy(&piece, m.body + k, sizeof piece);
                MUST(piece == p->pieces);
                p->pieces++;
            }
            engine_chunk_free(m.chunk);
        }
        bool last = m.kind >= ENGINE_MESSAGE_DONE;
        p->ended = last;
        p->busy = false;
        engine_mailbox_give_back(c->m, r, false);
        if (last && atomic_fetch_add(&c->ended, 1) == RECORDS - 1) engine_mailbox_close(c->m);
        if (!test_below(&random, 50)) cancel(c->records[test_below(&random, RECORDS)]);
    }
    engine_waiter_cancel(w);
    engine_waiter_free(w);
    engine_queue_unref(q);
    return NULL;
}

static void a_crowd_takes_each_message_once(void) {
    for (int round = 0; round < 5; round++) {
        static crowd c;
        memset(&c, 0, sizeof c);
        c.m = box();
        for (int i = 0; i < RECORDS; i++) c.records[i] = stream_to(c.m);
        test_thread threads[PRODUCERS + CONSUMERS];
        member members[PRODUCERS + CONSUMERS];
        for (int i = 0; i < PRODUCERS + CONSUMERS; i++) {
            members[i] = (member){&c, i < PRODUCERS ? i : i - PRODUCERS};
            test_start(&threads[i], i < PRODUCERS ? produces : consumes, &members[i]);
        }
        for (int i = 0; i < PRODUCERS + CONSUMERS; i++) test_join(&threads[i]);
        CHECK_EQUAL(c.ended, RECORDS);
        CHECK_EQUAL(engine_mailbox_count(c.m), 0);
        for (int i = 0; i < RECORDS; i++) engine_record_unref(c.records[i]);
        engine_mailbox_drop(c.m);
        commands_taken();
    }
}

CASES({"messages_come_in_order", messages_come_in_order}, {"records_take_turns", records_take_turns},
      {"a_record_is_with_one_consumer_at_a_time", a_record_is_with_one_consumer_at_a_time},
      {"a_consumer_may_have_more", a_consumer_may_have_more},
      {"a_cancel_leaves_the_terminal_alone", a_cancel_leaves_the_terminal_alone},
      {"closing_cancels_what_is_in_flight", closing_cancels_what_is_in_flight},
      {"dropping_lets_go_of_everything", dropping_lets_go_of_everything}, {"one_waiter_a_record", one_waiter_a_record},
      {"giving_back_wakes_the_next", giving_back_wakes_the_next},
      {"a_forked_childs_mailboxes_are_empty", a_forked_childs_mailboxes_are_empty},
      {"what_is_overdue_is_failed_by_who_waits", what_is_overdue_is_failed_by_who_waits},
      {"a_crowd_takes_each_message_once", a_crowd_takes_each_message_once})
