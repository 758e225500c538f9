/* The laws of the transfer record, each on the record alone. */
#include "stand_ins.h"

static engine_message_kind take(engine_record *r) {
    engine_message m;
    if (!engine_take(r, &m)) return ENGINE_MESSAGE_NONE;
    if (m.chunk) engine_chunk_free(m.chunk);
    return m.kind;
}

static engine_record *stream(int64_t window) { return record_of(ENGINE_STREAM, window, 0, 0, NULL); }
static engine_record *upload(int64_t length, int64_t room) { return record_of(ENGINE_STREAM_BODY, -1, length, room, NULL); }

static append_answer append(engine_record *r, size_t size) {
    char *data = calloc(1, size ? size : 1);
    append_answer answer = record_append(r, data, size);
    free(data);
    return answer;
}

/* ---- the outcome */

static void outcome_is_set_once(void) {
    engine_record *r = record_of(0, -1, 0, 0, NULL);
    CHECK_EQUAL(engine_outcome_of(r), ENGINE_OUTCOME_PENDING);
    engine_message m;
    CHECK(!engine_terminal(r, &m));
    CHECK(!engine_take(r, &m));
    CHECK(end_with(r, ENGINE_OUTCOME_OK));
    CHECK(!end_with(r, ENGINE_OUTCOME_CURL));
    CHECK(!cancel(r));
    CHECK_EQUAL(commands_taken(), 0);
    CHECK_EQUAL(engine_outcome_of(r), ENGINE_OUTCOME_OK);
    CHECK(engine_terminal(r, &m));
    CHECK_EQUAL(m.kind, ENGINE_MESSAGE_RESPONDED);
    CHECK(engine_take(r, &m));
    CHECK_EQUAL(m.kind, ENGINE_MESSAGE_RESPONDED);
    CHECK_EQUAL(m.status, 200);
    CHECK(m.body_size == 4 && !memcmp(m.body, "body", 4));
    CHECK(m.trailers_size == 6);
    CHECK(!engine_take(r, &m));
    CHECK(engine_terminal(r, &m)); /* without taking: as often as wanted */
    engine_drop_body(r);
    CHECK(engine_terminal(r, &m));
    CHECK_EQUAL(m.body_size, 0);
    CHECK_EQUAL(engine_record_token(r), 42);
    engine_record_unref(r);
}

static void a_cancel_is_told_to_the_worker(void) {
    engine_record *r = stream(-1);
    CHECK(cancel(r));
    CHECK_EQUAL(commands_taken(), COMMAND_CANCEL);
    engine_message m;
    MUST(engine_take(r, &m));
    CHECK_EQUAL(m.kind, ENGINE_MESSAGE_FAILED);
    CHECK_EQUAL(m.outcome, ENGINE_OUTCOME_CANCELLED);
    CHECK(m.detail_size == 4 && !memcmp(m.detail, "gone", 4));
    CHECK(m.metrics != NULL);
    engine_record_unref(r);
}

typedef struct {
    engine_record *r;
    pthread_barrier_t *barrier;
    int how;
    bool first;
} racer;

static void *settles(void *argument) {
    racer *x = argument;
    pthread_barrier_wait(x->barrier);
    switch (x->how) {
    case 0: x->first = end_with(x->r, ENGINE_OUTCOME_OK); break;
    case 1: x->first = cancel(x->r); break;
    case 2: x->first = end_with(x->r, ENGINE_OUTCOME_TIMEOUT); break;
    default: x->first = engine_settle(x->r, ENGINE_OUTCOME_POOL_CLOSED, NULL, 0, false);
    }
    return NULL;
}

static void one_of_racing_settles_wins(void) {
    static const int outcomes[] = {ENGINE_OUTCOME_OK, ENGINE_OUTCOME_CANCELLED, ENGINE_OUTCOME_TIMEOUT,
                                   ENGINE_OUTCOME_POOL_CLOSED};
    for (int round = 0; round < 100; round++) {
        engine_record *r = stream(-1);
        start(r);
        append(r, 10);
        pthread_barrier_t barrier;
        pthread_barrier_init(&barrier, NULL, 4);
        racer racers[4];
        test_thread threads[4];
        int ok = settled_ok, failed = settled_failed;
        for (int i = 0; i < 4; i++) {
            racers[i] = (racer){r, &barrier, i, false};
            test_start(&threads[i], settles, &racers[i]);
        }
        int winner = -1;
        for (int i = 0; i < 4; i++) {
            test_join(&threads[i]);
            if (racers[i].first) {
                CHECK_EQUAL(winner, -1);
                winner = i;
            }
        }
        MUST(winner >= 0);
        CHECK_EQUAL(engine_outcome_of(r), outcomes[winner]);
        CHECK_EQUAL(settled_ok - ok + settled_failed - failed, 1);
        int terminals = 0;
        engine_message m;
        while (engine_take(r, &m)) {
            if (m.chunk) engine_chunk_free(m.chunk);
            if (m.kind >= ENGINE_MESSAGE_DONE) terminals++;
        }
        CHECK_EQUAL(terminals, 1);
        pthread_barrier_destroy(&barrier);
        engine_record_unref(r);
    }
    commands_taken();
}

static void overruling_needs_an_untaken_ok(void) {
    engine_record *r = record_of(0, -1, 0, 0, NULL);
    end_with(r, ENGINE_OUTCOME_OK);
    int failed = settled_failed;
    CHECK(engine_settle(r, ENGINE_OUTCOME_CANCELLED, "c", 1, true));
    CHECK_EQUAL(settled_failed, failed); /* counted once */
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_FAILED);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_NONE);
    engine_record_unref(r);
    r = record_of(0, -1, 0, 0, NULL);
    end_with(r, ENGINE_OUTCOME_OK);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_RESPONDED);
    CHECK(!engine_settle(r, ENGINE_OUTCOME_CANCELLED, "c", 1, true));
    engine_record_unref(r);
    r = record_of(0, -1, 0, 0, NULL);
    end_with(r, ENGINE_OUTCOME_CURL);
    CHECK(!engine_settle(r, ENGINE_OUTCOME_CANCELLED, "c", 1, true));
    CHECK_EQUAL(engine_outcome_of(r), ENGINE_OUTCOME_CURL);
    engine_record_unref(r);
}

static void details_are_bounded(void) {
    engine_record *r = record_of(0, -1, 0, 0, NULL);
    char text[2 * DETAIL_SIZE];
    memset(text, 'x', sizeof text);
    CHECK(engine_settle(r, ENGINE_OUTCOME_CANCELLED, text, sizeof text, false));
    engine_message m;
    MUST(engine_terminal(r, &m));
    CHECK_EQUAL(m.detail_size, DETAIL_SIZE);
    engine_record_unref(r);
    commands_taken();
}

/* ---- messages */

static void started_then_chunks_then_terminal(void) {
    engine_record *r = stream(-1);
    CHECK_EQUAL(record_message_count(r), 0);
    start(r);
    start(r); /* a second one is not told */
    CHECK_EQUAL(append(r, 3), APPEND_TAKEN);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_STARTED);
    CHECK_EQUAL(append(r, 4), APPEND_TAKEN);
    end_with(r, ENGINE_OUTCOME_OK);
    engine_message m;
    MUST(engine_take(r, &m));
    CHECK_EQUAL(m.kind, ENGINE_MESSAGE_CHUNK);
    CHECK_EQUAL(m.body_size, 7); /* put together while nobody took them */
    engine_chunk_free(m.chunk);
    MUST(engine_take(r, &m));
    CHECK_EQUAL(m.kind, ENGINE_MESSAGE_DONE);
    CHECK_EQUAL(m.trailers_size, 6);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_NONE);
    CHECK_EQUAL(record_message_count(r), 0);
    engine_record_unref(r);
}

static void a_stream_that_ends_without_body_has_started(void) {
    engine_record *r = stream(-1);
    end_with(r, ENGINE_OUTCOME_OK);
    CHECK_EQUAL(record_message_count(r), 2);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_STARTED);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_DONE);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_NONE);
    engine_record_unref(r);
}

static engine_record *curious(engine_mailbox *mailbox) {
    return record_of(ENGINE_STREAM | ENGINE_INFORMATIONAL, -1, 0, 0, mailbox);
}

static bool inform(engine_record *r, int status, const char *text) {
    return record_informational(r, status, text, strlen(text));
}

static void informational_blocks_come_first(void) {
    engine_record *r = curious(NULL);
    CHECK(inform(r, 100, "HTTP/1.1 100 Continue\r\n"));
    CHECK(inform(r, 103, "HTTP/1.1 103 \r\n"));
    start(r);
    CHECK(inform(r, 102, "too late"));
    CHECK_EQUAL(append(r, 3), APPEND_TAKEN);
    CHECK_EQUAL(record_message_count(r), 4);
    engine_message m;
    MUST(engine_take(r, &m));
    CHECK_EQUAL(m.kind, ENGINE_MESSAGE_INFORMATIONAL);
    CHECK_EQUAL(m.status, 100);
    CHECK(m.block_size == 23 && !memcmp(m.block, "HTTP/1.1 100 Continue\r\n", 23));
    engine_chunk_free(m.chunk);
    MUST(engine_take(r, &m));
    CHECK_EQUAL(m.status, 103);
    engine_chunk_free(m.chunk);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_STARTED);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_CHUNK);
    CHECK_EQUAL(record_message_count(r), 0);
    end_with(r, ENGINE_OUTCOME_OK);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_DONE);
    engine_record_unref(r);
}

static void informational_blocks_are_for_who_asked(void) {
    engine_record *r = stream(-1);
    CHECK(inform(r, 103, "x"));
    CHECK_EQUAL(record_message_count(r), 0);
    CHECK(!r->first_informational);
    end_with(r, ENGINE_OUTCOME_OK);
    engine_record_unref(r);
}

static void informational_blocks_are_bounded(void) {
    static char text[1001];
    memset(text, 'x', 1000);
    engine_mailbox *m = engine_mailbox_new();
    MUST(m);
    engine_record *r = curious(m);
    for (int i = 0; i < 1000; i++) CHECK(inform(r, 100 + i % 100, text));
    CHECK(r->informational_bytes <= INFORMATIONAL_MOST);
    CHECK(r->informational_bytes > INFORMATIONAL_MOST - 2000);
    size_t left = r->informational_count;
    CHECK_EQUAL(engine_mailbox_count(m), left); /* what was dropped is not in the count */
    for (size_t i = 0; i < left; i++) {
        engine_message message;
        engine_record *taken = engine_mailbox_take(m, &message);
        MUST(taken == r);
        CHECK_EQUAL(message.status, (int)(100 + (1000 - left + i) % 100)); /* the oldest went */
        engine_chunk_free(message.chunk);
        engine_mailbox_give_back(m, taken, false);
    }
    CHECK_EQUAL(engine_mailbox_count(m), 0);
    CHECK_EQUAL(r->informational_bytes, 0);
    inform(r, 103, text);
    CHECK(cancel(r)); /* drops it */
    CHECK_EQUAL(engine_mailbox_count(m), 1);
    CHECK(!r->first_informational);
    engine_record_unref(r);
    engine_mailbox_drop(m);
    commands_taken();
}

static void no_memory_for_an_informational_block(void) {
    engine_record *r = curious(NULL);
    mem_fail_next();
    CHECK(!inform(r, 103, "x"));
    CHECK(mem_failed());
    CHECK_EQUAL(record_message_count(r), 0);
    inform(r, 103, "left when the record goes");
    end_with(r, ENGINE_OUTCOME_CURL);
    engine_record_unref(r);
}

static void a_failure_comes_after_the_chunks(void) {
    engine_record *r = stream(-1);
    start(r);
    append(r, 5);
    end_with(r, ENGINE_OUTCOME_TIMEOUT);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_STARTED);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_CHUNK);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_FAILED);
    engine_record_unref(r);
}

static void a_cancel_drops_what_was_not_taken(void) {
    engine_record *r = stream(-1);
    start(r);
    append(r, 5);
    cancel(r);
    CHECK_EQUAL(record_message_count(r), 1);
    CHECK_EQUAL(append(r, 5), APPEND_SETTLED);
    start(r);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_FAILED);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_NONE);
    engine_record_unref(r);
    commands_taken();
}

static void bytes_arrive_as_sent(void) {
    enum { TOTAL = 3000000 };
    test_random random = test_random_of(4);
    engine_record *r = stream(-1);
    start(r);
    take(r);
    unsigned char *sent = malloc(TOTAL), *got = malloc(TOTAL);
    for (int i = 0; i < TOTAL; i++) sent[i] = (unsigned char)test_next(&random);
    size_t given = 0, taken = 0;
    engine_message m;
    while (taken < TOTAL) {
        if (given < TOTAL && test_below(&random, 20)) {
            size_t n = 1 + test_below(&random, test_below(&random, 10) ? 20000 : 400000);
            if (n > TOTAL - given) n = TOTAL - given;
            MUST(record_append(r, (char *)sent + given, n) == APPEND_TAKEN);
            given += n;
        } else if (engine_take(r, &m)) {
            memcpy(got + taken, m.body, m.body_size);
            taken += m.body_size;
            engine_chunk_free(m.chunk);
        }
    }
    CHECK(!memcmp(sent, got, TOTAL));
    free(sent);
    free(got);
    cancel(r);
    engine_record_unref(r);
    commands_taken();
}

static void the_limit_on_bytes_holds(void) {
    engine_limits limits = {.max_bytes = 10};
    engine_config *config = engine_config_new(&limits, "", 0);
    engine_request request = {
        .config = config, .method = "GET", .url = "u", .origin = "o", .flags = ENGINE_STREAM, .window = -1};
    engine_record *r = record_new(&request);
    engine_config_unref(config);
    start(r);
    CHECK_EQUAL(append(r, 6), APPEND_TAKEN);
    CHECK_EQUAL(append(r, 4), APPEND_TAKEN);
    CHECK_EQUAL(append(r, 1), APPEND_TOO_LARGE);
    cancel(r);
    engine_record_unref(r);
    commands_taken();
}

static void no_memory_for_a_chunk(void) {
    engine_record *r = stream(-1);
    start(r);
    mem_fail_next();
    CHECK_EQUAL(record_append(r, "x", 1), APPEND_NO_MEMORY);
    CHECK_EQUAL(record_append(r, "y", 1), APPEND_TAKEN);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_STARTED);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_CHUNK);
    cancel(r);
    engine_record_unref(r);
    commands_taken();
    mem_failed();
}

static void no_memory_for_a_record(void) {
    for (int i = 0; i < 5; i++) {
        engine_limits limits = {0};
        engine_config *config = engine_config_new(&limits, "", 0);
        engine_request request = {.config = config,
                                  .method = "PUT",
                                  .url = "u",
                                  .origin = "o",
                                  .flags = ENGINE_HAS_BODY,
                                  .body = "abc",
                                  .body_size = 3};
        if (!i) mem_fail_next();
        engine_record *r = record_new(&request);
        CHECK((r == NULL) == (i == 0));
        if (r) end_with(r, ENGINE_OUTCOME_OK);
        engine_record_unref(r);
        engine_config_unref(config);
    }
    mem_failed();
}

/* ---- credit */

static bool blocked_rx(engine_record *r) {
    bool rx_paused, rx_blocked, tx_paused, tx_blocked;
    record_flow(r, &rx_paused, &rx_blocked, &tx_paused, &tx_blocked);
    return rx_blocked;
}

static void pauses_at_no_credit(void) {
    engine_record *r = stream(100);
    start(r);
    CHECK_EQUAL(append(r, 99), APPEND_TAKEN);
    CHECK_EQUAL(append(r, 50), APPEND_TAKEN); /* one delivery beyond */
    CHECK_EQUAL(append(r, 1), APPEND_PAUSE);
    CHECK(blocked_rx(r));
    take(r);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_CHUNK);
    CHECK_EQUAL(commands_taken(), 0); /* taking alone returns nothing */
    engine_consumed(r, 149);
    CHECK_EQUAL(commands_taken(), COMMAND_CREDIT);
    CHECK(!blocked_rx(r));
    record_unpause(r, true, false);
    CHECK_EQUAL(append(r, 100), APPEND_TAKEN);
    CHECK_EQUAL(append(r, 1), APPEND_PAUSE); /* the debt was paid: 149 back, 49 owed */
    cancel(r);
    engine_record_unref(r);
    commands_taken();
}

static void credit_returns_by_half_windows(void) {
    engine_record *r = stream(100);
    start(r);
    append(r, 60);
    append(r, 60);
    CHECK_EQUAL(append(r, 1), APPEND_PAUSE);
    engine_consumed(r, 49); /* chunks are still there: not yet */
    CHECK_EQUAL(commands_taken(), 0);
    CHECK(blocked_rx(r));
    engine_consumed(r, 1);
    CHECK_EQUAL(commands_taken(), COMMAND_CREDIT);
    CHECK(!blocked_rx(r));
    cancel(r);
    engine_record_unref(r);
    commands_taken();
}

static void credit_returns_at_once_when_nothing_is_left(void) {
    engine_record *r = stream(100);
    start(r);
    append(r, 90);
    append(r, 100);
    CHECK_EQUAL(append(r, 1), APPEND_PAUSE);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_STARTED);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_CHUNK);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_NONE);
    engine_consumed(r, 1); /* less than half, of a consumer that reads byte by byte */
    CHECK_EQUAL(commands_taken(), 0); /* 90 are still owed */
    engine_consumed(r, 89);
    CHECK_EQUAL(commands_taken(), 0);
    engine_consumed(r, 1);
    CHECK_EQUAL(commands_taken(), COMMAND_CREDIT);
    cancel(r);
    engine_record_unref(r);
    commands_taken();
}

/* Whatever the sizes: what is delivered and not consumed stays within the window and one delivery, and a consumer that takes
 * everything is never left waiting for a transfer that is paused. */
static void window_holds_and_never_sticks(void) {
    test_random random = test_random_of(5);
    for (int round = 0; round < 200; round++) {
        int64_t window = 1 + test_below(&random, 300), outstanding = 0, unconsumed = 0;
        unsigned most = 1 + test_below(&random, 400);
        engine_record *r = stream(window);
        start(r);
        take(r);
        bool paused = false;
        for (int step = 0; step < 300; step++) {
            if (commands_taken() & COMMAND_CREDIT) {
                paused = false;
                record_unpause(r, true, false);
            }
            if (!paused && test_below(&random, 2)) {
                size_t n = 1 + test_below(&random, most);
                switch (append(r, n)) {
                case APPEND_TAKEN:
                    MUST(outstanding < window);
                    outstanding += (int64_t)n;
                    break;
                default: paused = true;
                }
            } else {
                engine_message m;
                if (test_below(&random, 2) && engine_take(r, &m)) {
                    unconsumed += (int64_t)m.body_size;
                    engine_chunk_free(m.chunk);
                }
                int64_t n = unconsumed ? 1 + test_below(&random, (unsigned)unconsumed) : 0;
                engine_consumed(r, n);
                unconsumed -= n;
                outstanding -= n;
            }
        }
        engine_message m;
        while (engine_take(r, &m)) {
            unconsumed += (int64_t)m.body_size;
            engine_chunk_free(m.chunk);
        }
        engine_consumed(r, unconsumed);
        if (paused) CHECK(commands_taken() & COMMAND_CREDIT);
        CHECK(!blocked_rx(r));
        cancel(r);
        commands_taken();
        engine_record_unref(r);
    }
}

static void manual_credit_is_the_callers(void) {
    engine_record *r = record_of(ENGINE_STREAM | ENGINE_MANUAL_CREDIT, 10, 0, 0, NULL);
    start(r);
    append(r, 10);
    CHECK_EQUAL(append(r, 1), APPEND_PAUSE);
    take(r);
    take(r);
    engine_consumed(r, 10);
    CHECK_EQUAL(commands_taken(), 0);
    engine_credit(r, 0);
    engine_credit(r, -5);
    CHECK_EQUAL(commands_taken(), 0);
    engine_credit(r, 5);
    CHECK_EQUAL(commands_taken(), COMMAND_CREDIT);
    record_unpause(r, true, false);
    CHECK_EQUAL(append(r, 8), APPEND_TAKEN);
    engine_credit(r, 2); /* still 1 owed */
    CHECK_EQUAL(append(r, 1), APPEND_PAUSE);
    CHECK_EQUAL(commands_taken(), 0);
    for (int i = 0; i < 5; i++) engine_credit(r, INT64_MAX);
    CHECK_EQUAL(commands_taken(), COMMAND_CREDIT);
    CHECK(!blocked_rx(r));
    CHECK_EQUAL(append(r, 1000), APPEND_TAKEN);
    cancel(r);
    engine_credit(r, 5);
    CHECK_EQUAL(commands_taken(), COMMAND_CANCEL);
    engine_record_unref(r);
}

/* ---- the way up */

static void sends_while_there_is_room(void) {
    engine_record *r = upload(-1, 10);
    CHECK_EQUAL(engine_send(r, "", 0), ENGINE_SENT);
    CHECK_EQUAL(engine_send(r, "123456789", 9), ENGINE_SENT);
    CHECK_EQUAL(engine_send(r, "abcdefghij", 10), ENGINE_SENT); /* whole or not: never a part */
    CHECK_EQUAL(engine_send(r, "x", 1), ENGINE_NO_ROOM);
    char to[64];
    CHECK_EQUAL(record_read_body(r, to, 5), 5);
    CHECK_EQUAL(engine_send(r, "x", 1), ENGINE_NO_ROOM); /* 14 wait */
    CHECK_EQUAL(record_read_body(r, to + 5, 5), 5);
    CHECK_EQUAL(engine_send(r, "x", 1), ENGINE_SENT); /* 9 waited */
    CHECK_EQUAL(record_read_body(r, to + 10, sizeof to - 10), 10);
    CHECK(!memcmp(to, "123456789abcdefghijx", 20));
    CHECK_EQUAL(record_read_body(r, to, sizeof to), BODY_PAUSE);
    CHECK_EQUAL(commands_taken(), 0);
    CHECK_EQUAL(engine_send(r, "y", 1), ENGINE_SENT);
    CHECK_EQUAL(commands_taken(), COMMAND_BODY);
    CHECK_EQUAL(record_read_body(r, to, sizeof to), 1);
    engine_finish(r);
    CHECK_EQUAL(commands_taken(), 0); /* it was not waiting */
    CHECK_EQUAL(engine_send(r, "z", 1), ENGINE_BODY_ENDED);
    CHECK_EQUAL(record_read_body(r, to, sizeof to), BODY_END);
    CHECK_EQUAL(record_read_body(r, to, sizeof to), BODY_END);
    engine_finish(r);
    end_with(r, ENGINE_OUTCOME_OK);
    CHECK_EQUAL(engine_send(r, "z", 1), ENGINE_SETTLED);
    CHECK_EQUAL(record_read_body(r, to, sizeof to), BODY_ABORT);
    engine_record_unref(r);
}

static void finish_wakes_a_paused_upload(void) {
    engine_record *r = upload(-1, 10);
    char to[8];
    CHECK_EQUAL(record_read_body(r, to, sizeof to), BODY_PAUSE);
    bool rx_paused, rx_blocked, tx_paused, tx_blocked;
    record_flow(r, &rx_paused, &rx_blocked, &tx_paused, &tx_blocked);
    CHECK(tx_paused && tx_blocked && !rx_paused && !rx_blocked);
    engine_finish(r);
    CHECK_EQUAL(commands_taken(), COMMAND_BODY);
    record_flow(r, &rx_paused, &rx_blocked, &tx_paused, &tx_blocked);
    CHECK(tx_paused && !tx_blocked);
    CHECK_EQUAL(record_read_body(r, to, sizeof to), BODY_END);
    cancel(r);
    commands_taken();
    engine_record_unref(r);
}

static void declared_length_is_kept(void) {
    engine_record *r = upload(5, 100);
    CHECK_EQUAL(engine_send(r, "123", 3), ENGINE_SENT);
    CHECK_EQUAL(engine_send(r, "456", 3), ENGINE_BEYOND_LENGTH);
    CHECK_EQUAL(engine_send(r, "45", 2), ENGINE_SENT);
    CHECK_EQUAL(engine_send(r, "6", 1), ENGINE_BEYOND_LENGTH);
    engine_finish(r);
    CHECK_EQUAL(engine_outcome_of(r), ENGINE_OUTCOME_PENDING);
    end_with(r, ENGINE_OUTCOME_OK);
    engine_record_unref(r);
    commands_taken();
}

static void a_short_body_fails(void) {
    engine_record *r = upload(5, 100);
    CHECK_EQUAL(engine_send(r, "123", 3), ENGINE_SENT);
    engine_finish(r);
    CHECK_EQUAL(engine_outcome_of(r), ENGINE_OUTCOME_BODY_SHORT);
    CHECK_EQUAL(commands_taken(), COMMAND_CANCEL);
    char to[8];
    CHECK_EQUAL(record_read_body(r, to, sizeof to), BODY_ABORT);
    engine_record_unref(r);
}

typedef struct {
    engine_record *r;
    _Atomic bool over;
    bool ended;
} body_reader;

static void *reads_body(void *argument) {
    body_reader *x = argument;
    char to[16];
    int64_t n = 0;
    while (!atomic_load(&x->over) && (n = record_read_body(x->r, to, sizeof to)) != BODY_ABORT)
        if (n == BODY_END) x->ended = true;
    return NULL;
}

/* However a finish races with the worker's reading: a body that is short never reads as ended. */
static void a_short_body_never_looks_ended(void) {
    for (int round = 0; round < 200; round++) {
        engine_record *r = upload(5, 100);
        engine_send(r, "123", 3);
        body_reader x = {.r = r};
        test_thread t;
        test_start(&t, reads_body, &x);
        engine_finish(r);
        atomic_store(&x.over, true);
        test_join(&t);
        CHECK(!x.ended);
        engine_record_unref(r);
    }
    commands_taken();
}

typedef struct {
    engine_record *r;
    int index;
    _Atomic int *sent;
} sender;

static void *sends(void *argument) {
    sender *x = argument;
    for (int i = 0; i < 2000;) {
        char piece[8];
        memset(piece, 'a' + x->index, sizeof piece);
        if (engine_send(x->r, piece, sizeof piece) != ENGINE_SENT) {
            test_yield();
            continue;
        }
        i++;
        atomic_fetch_add(x->sent, 1);
    }
    return NULL;
}

static void pieces_of_many_senders_stay_whole(void) {
    engine_record *r = upload(-1, 100);
    _Atomic int sent = 0;
    sender senders[3];
    test_thread threads[3];
    for (int i = 0; i < 3; i++) {
        senders[i] = (sender){r, i, &sent};
        test_start(&threads[i], sends, &senders[i]);
    }
    int counts[3] = {0}, at = 0;
    char piece[8];
    for (int64_t total = 0; total < 3 * 2000 * 8;) {
        char to[37];
        int64_t n = record_read_body(r, to, sizeof to);
        if (n == BODY_PAUSE) {
            test_yield();
            continue;
        }
        MUST(n > 0);
        for (int64_t i = 0; i < n; i++) {
            piece[at++] = to[i];
            if (at < 8) continue;
            at = 0;
            for (int k = 1; k < 8; k++) MUST(piece[k] == piece[0]);
            counts[piece[0] - 'a']++;
        }
        total += n;
    }
    for (int i = 0; i < 3; i++) {
        test_join(&threads[i]);
        CHECK_EQUAL(counts[i], 2000);
    }
    cancel(r);
    engine_record_unref(r);
    commands_taken();
}

/* ---- waiters */

static void waiters_hear_what_they_asked_for(void) {
    static int owner;
    engine_queue *q = engine_queue_new();
    engine_waiter *w = engine_waiter_new(q, &owner);
    engine_record *r = record_of(ENGINE_STREAM | ENGINE_STREAM_BODY, -1, -1, 4, NULL);
    CHECK(engine_record_register(r, w, ENGINE_ON_ROOM)); /* holds already: not registered */
    CHECK_EQUAL(engine_waiter_cancel(w), 0);
    engine_send(r, "1234", 4);
    CHECK(!engine_record_register(r, w, ENGINE_ON_ROOM));
    char to[8];
    record_read_body(r, to, 1);
    CHECK(engine_queue_take(q, true) == &owner);
    CHECK(!engine_record_register(r, w, ENGINE_ON_NEWS));
    start(r);
    CHECK(engine_queue_take(q, true) == &owner);
    CHECK(engine_record_register(r, w, ENGINE_ON_NEWS)); /* Started is not taken yet */
    take(r);
    CHECK(!engine_record_register(r, w, ENGINE_ON_NEWS));
    append(r, 1);
    CHECK(engine_queue_take(q, true) == &owner);
    CHECK(!engine_record_register(r, w, ENGINE_ON_TERMINAL));
    append(r, 1);
    CHECK(engine_queue_take(q, true) == NULL);
    end_with(r, ENGINE_OUTCOME_CURL);
    CHECK(engine_queue_take(q, true) == &owner);
    CHECK(engine_record_register(r, w, ENGINE_ON_TERMINAL));
    CHECK(engine_record_register(r, w, ENGINE_ON_ROOM));
    take(r);
    take(r);
    CHECK(engine_record_register(r, w, ENGINE_ON_NEWS)); /* nothing will come any more: do not wait */
    engine_record_unref(r);
    engine_waiter_free(w);
    engine_queue_unref(q);
}

static void every_end_wakes_everybody(void) {
    for (int mask = 1; mask <= 4; mask *= 2)
        for (int how = 0; how < 3; how++) {
            static int owner;
            engine_queue *q = engine_queue_new();
            engine_waiter *w = engine_waiter_new(q, &owner);
            engine_record *r = record_of(ENGINE_STREAM | ENGINE_STREAM_BODY, -1, -1, 4, NULL);
            engine_send(r, "1234", 4);
            CHECK(!engine_record_register(r, w, mask));
            if (how == 0) end_with(r, ENGINE_OUTCOME_OK);
            if (how == 1) cancel(r);
            if (how == 2) record_fork(r);
            CHECK(engine_queue_take(q, true) == &owner);
            engine_record_unref(r);
            engine_waiter_free(w);
            engine_queue_unref(q);
        }
    commands_taken();
}

/* ---- abandoning */

static void check_abandon(int flags, bool finish_body, bool mailbox, int expected, unsigned commands) {
    engine_mailbox *m = mailbox ? engine_mailbox_new() : NULL;
    engine_record *r = record_of(flags, 10, -1, 100, m);
    char to[8];
    if (flags & ENGINE_STREAM_BODY) {
        engine_send(r, "ab", 2);
        record_read_body(r, to, 8);
        record_read_body(r, to, 8);
        if (finish_body) engine_finish(r);
    }
    commands_taken();
    engine_abandon(r);
    CHECK_EQUAL(engine_outcome_of(r), expected);
    CHECK_EQUAL(commands_taken(), commands);
    if (expected == ENGINE_OUTCOME_PENDING) end_with(r, ENGINE_OUTCOME_OK);
    engine_abandon(r); /* settled: nothing happens */
    if (m) engine_mailbox_drop(m);
    engine_record_unref(r);
    commands_taken();
}

static void abandoned_requests(void) {
    const int pending = ENGINE_OUTCOME_PENDING, gone = ENGINE_OUTCOME_CANCELLED;
    const int up = ENGINE_STREAM_BODY, down = ENGINE_STREAM, ends = ENGINE_FINISH_ON_ABANDON;
    check_abandon(0, false, false, pending, 0);
    check_abandon(0, false, true, pending, 0);
    check_abandon(down, false, false, gone, COMMAND_CANCEL);
    check_abandon(down, false, true, pending, 0); /* the mailbox reads it */
    check_abandon(up, false, false, gone, COMMAND_CANCEL);
    check_abandon(up, false, true, gone, COMMAND_CANCEL);
    check_abandon(up, true, false, pending, 0);
    check_abandon(up | ends, false, false, pending, COMMAND_BODY);
    check_abandon(up | ends, false, true, pending, COMMAND_BODY);
    check_abandon(up | down | ends, false, true, pending, COMMAND_BODY);
    check_abandon(up | down, true, false, gone, COMMAND_CANCEL);
}

static void an_abandoned_exchange_runs_out(void) {
    engine_record *r = record_of(ENGINE_STREAM | ENGINE_STREAM_BODY | ENGINE_FINISH_ON_ABANDON, 10, -1, 100, NULL);
    start(r);
    append(r, 10);
    CHECK_EQUAL(append(r, 1), APPEND_PAUSE);
    engine_abandon(r);
    CHECK_EQUAL(engine_outcome_of(r), ENGINE_OUTCOME_PENDING);
    CHECK(commands_taken() & COMMAND_CREDIT);
    CHECK(!blocked_rx(r));
    for (int i = 0; i < 100; i++) CHECK_EQUAL(append(r, 1000), APPEND_TAKEN); /* thrown away */
    char to[8];
    CHECK_EQUAL(record_read_body(r, to, 8), BODY_END);
    CHECK(r->first_chunk == NULL);
    end_with(r, ENGINE_OUTCOME_OK);
    engine_record_unref(r);
    commands_taken();
}

static void abandoned_short_of_its_length(void) {
    engine_record *r = record_of(ENGINE_STREAM_BODY | ENGINE_FINISH_ON_ABANDON, -1, 100, 100, NULL);
    engine_send(r, "ab", 2);
    engine_abandon(r);
    CHECK_EQUAL(engine_outcome_of(r), ENGINE_OUTCOME_BODY_SHORT); /* must not look complete */
    engine_record_unref(r);
    commands_taken();
}

static void a_forked_childs_record(void) {
    engine_record *r = stream(-1);
    start(r);
    append(r, 5);
    int failed = settled_failed;
    record_fork(r);
    CHECK_EQUAL(engine_outcome_of(r), ENGINE_OUTCOME_FORKED);
    CHECK_EQUAL(settled_failed, failed);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_FAILED);
    engine_record_unref(r);
    r = stream(-1);
    end_with(r, ENGINE_OUTCOME_OK);
    record_fork(r);
    CHECK_EQUAL(engine_outcome_of(r), ENGINE_OUTCOME_OK);
    engine_record_unref(r);
    CHECK_EQUAL(commands_taken(), 0);
}

CASES({"outcome_is_set_once", outcome_is_set_once}, {"a_cancel_is_told_to_the_worker", a_cancel_is_told_to_the_worker},
      {"one_of_racing_settles_wins", one_of_racing_settles_wins},
      {"overruling_needs_an_untaken_ok", overruling_needs_an_untaken_ok}, {"details_are_bounded", details_are_bounded},
      {"started_then_chunks_then_terminal", started_then_chunks_then_terminal},
      {"a_stream_that_ends_without_body_has_started", a_stream_that_ends_without_body_has_started},
      {"informational_blocks_come_first", informational_blocks_come_first},
      {"informational_blocks_are_for_who_asked", informational_blocks_are_for_who_asked},
      {"informational_blocks_are_bounded", informational_blocks_are_bounded},
      {"no_memory_for_an_informational_block", no_memory_for_an_informational_block},
      {"a_failure_comes_after_the_chunks", a_failure_comes_after_the_chunks},
      {"a_cancel_drops_what_was_not_taken", a_cancel_drops_what_was_not_taken},
      {"bytes_arrive_as_sent", bytes_arrive_as_sent}, {"the_limit_on_bytes_holds", the_limit_on_bytes_holds},
      {"no_memory_for_a_chunk", no_memory_for_a_chunk}, {"no_memory_for_a_record", no_memory_for_a_record},
      {"pauses_at_no_credit", pauses_at_no_credit}, {"credit_returns_by_half_windows", credit_returns_by_half_windows},
      {"credit_returns_at_once_when_nothing_is_left", credit_returns_at_once_when_nothing_is_left},
      {"window_holds_and_never_sticks", window_holds_and_never_sticks},
      {"manual_credit_is_the_callers", manual_credit_is_the_callers},
      {"sends_while_there_is_room", sends_while_there_is_room},
      {"finish_wakes_a_paused_upload", finish_wakes_a_paused_upload}, {"declared_length_is_kept", declared_length_is_kept},
      {"a_short_body_fails", a_short_body_fails}, {"a_short_body_never_looks_ended", a_short_body_never_looks_ended},
      {"pieces_of_many_senders_stay_whole", pieces_of_many_senders_stay_whole},
      {"waiters_hear_what_they_asked_for", waiters_hear_what_they_asked_for},
      {"every_end_wakes_everybody", every_end_wakes_everybody}, {"abandoned_requests", abandoned_requests},
      {"an_abandoned_exchange_runs_out", an_abandoned_exchange_runs_out},
      {"abandoned_short_of_its_length", abandoned_short_of_its_length}, {"a_forked_childs_record", a_forked_childs_record})
