/* The whole engine on a libcurl without a network (fake_libcurl.c): its laws, deterministically, and then all at once. */
#include <dlfcn.h>
#include <strings.h>

#include "../src/libcurl.h"
#include "requests.h"

static const fake_control *fake;
static _Atomic int next_id = 1;
static _Atomic bool frozen; /* between the preparation of a fork and its end: nobody may be in libcurl */

static void on_call(const char *function) {
    if (test_locks_held()) {
        fprintf(stderr, "%s is called with a lock held\n", function);
        abort();
    }
    if (atomic_load(&frozen)) {
        fprintf(stderr, "%s is called while the process forks\n", function);
        abort();
    }
}

static void load(void) {
    if (fake) return;
    const char *path = test_option("libcurl");
    char reason[256];
    MUST(path);
    MUST(!engine_loaded());
    MUST(engine_load("/nowhere", reason, sizeof reason) == -1);
    CHECK(reason[0]);
    MUST(!engine_load(path, reason, sizeof reason));
    MUST(engine_loaded());
    CHECK(!engine_load(path, reason, sizeof reason));
    void *object = dlopen(path, RTLD_NOW);
    fake = dlsym(object, "fake");
    MUST(fake);
    fake->set_hook(on_call);
}

static int fresh_id(void) { return atomic_fetch_add(&next_id, 1) % FAKE_IDS; }

static const char *url_of(char *to, int id, const char *words) {
    sprintf(to, "http://host/?id=%d&seed=%llu&%s", id, (unsigned long long)(test_seed + (uint64_t)id), words);
    return to;
}

static engine_record *submit(engine_pool *p, const engine_request *q) {
    engine_record *r = NULL;
    MUST(engine_submit(p, q, &r) == ENGINE_ACCEPTED);
    MUST(r);
    return r;
}

/* A request without any more to it; its outcome. */
static int simple(engine_pool *p, engine_config *c, const char *method, int flags, int *id, const char *words) {
    char url[512];
    *id = fresh_id();
    engine_request q = request_of(c, method, url_of(url, *id, words), flags);
    return outcome_of(submit(p, &q));
}

/* One pool, one worker; all closed and counted at the end. */
#define WITH_POOL(p, c) \
    load(); \
    engine_pool *p = pool_with(1, 0, 0, 0); \
    engine_config *c = config_with((engine_limits){0}, "")
#define CLOSE(p, c) \
    close_pool(p); \
    engine_config_unref(c); \
    CHECK_EQUAL(fake->live(), 0)

/* ------------------------------------------------------------------------------------------------ single requests */

static void a_buffered_response(void) {
    WITH_POOL(p, c);
    char url[512], value[128];
    for (int i = 0; i < 20; i++) {
        int id = fresh_id();
        engine_request q = request_of(c, "GET", url_of(url, id, "size=100000&trailers=1&pre=ce&status=201"), 0);
        q.token = 7;
        engine_record *r = submit(p, &q);
        CHECK_EQUAL(engine_record_token(r), 7);
        await(r, ENGINE_ON_TERMINAL);
        engine_message m;
        MUST(engine_take(r, &m));
        CHECK_EQUAL(m.kind, ENGINE_MESSAGE_RESPONDED);
        CHECK_EQUAL(m.status, 201);
        CHECK_EQUAL(m.body_size, 100000);
        for (size_t k = 0; k < m.body_size; k++)
            MUST((unsigned char)m.body[k] == fake_byte(test_seed + (uint64_t)id, (int64_t)k));
        CHECK(!strncmp(m.block, "HTTP/1.1 201\r\n", 14));
        CHECK(!*header_of(m.block, m.block_size, "x-before", value, sizeof value)); /* of the final block alone */
        CHECK(!strcmp(header_of(m.trailers, m.trailers_size, "x-trailer", value, sizeof value), "1"));
        CHECK_EQUAL(m.metrics->bytes_received, 100000);
        CHECK(!engine_take(r, &m));
        engine_record_unref(r);
        CHECK_EQUAL(fake->sends(id), 1);
    }
    CLOSE(p, c);
}

static void the_final_block_alone_counts(void) {
    static const struct {
        const char *words;
        int flags, status;
        bool redirected;
    } rows[] = {
        {"pre=r&size=10", ENGINE_FOLLOW, 200, true},
        {"pre=cr&size=0", ENGINE_FOLLOW, 200, true},
        {"pre=rr&status=302&size=5", ENGINE_FOLLOW, 302, true},
        {"status=302&size=0", ENGINE_FOLLOW, 302, false},
        {"status=302&size=5", 0, 302, false},
        {"pre=a&size=10", ENGINE_MAY_RETRY_AUTH, 200, false},
        {"status=401&size=3", ENGINE_MAY_RETRY_AUTH, 401, false},
        {"status=421&size=0", 0, 421, false},
        {"status=204", 0, 204, false},
        {"v=2&size=10&trailers=1", 0, 200, false},
        {"cookie=1&size=3", 0, 200, false},
    };
    load();
    engine_pool *p = pool_with(1, 0, 0, 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int streamed = 0; streamed < 2; streamed++) {
            engine_config *c = config_with((engine_limits){.flags = rows[i].flags}, "");
            char url[512], value[64];
            engine_request q = request_of(c, "GET", url_of(url, fresh_id(), rows[i].words), streamed ? ENGINE_STREAM : 0);
            engine_record *r = submit(p, &q);
            await(r, ENGINE_ON_TERMINAL);
            CHECK_EQUAL(engine_outcome_of(r), ENGINE_OUTCOME_OK);
            engine_message m;
            MUST(engine_take(r, &m));
            CHECK_EQUAL(m.kind, streamed ? ENGINE_MESSAGE_STARTED : ENGINE_MESSAGE_RESPONDED);
            CHECK_EQUAL(m.status, rows[i].status);
            CHECK(!*header_of(m.block, m.block_size, "x-before", value, sizeof value));
            CHECK_EQUAL(m.url != NULL, rows[i].redirected);
            CHECK_EQUAL(m.cookies_size > 0, !strncmp(rows[i].words, "cookie", 6));
            while (engine_take(r, &m))
                if (m.chunk) engine_chunk_free(m.chunk);
            engine_record_unref(r);
            engine_config_unref(c);
        }
    close_pool(p);
    CHECK_EQUAL(fake->live(), 0);
}

static void a_stream_within_its_window(void) {
    WITH_POOL(p, c);
    for (int manual = 0; manual < 2; manual++) {
        char url[512];
        int id = fresh_id();
        engine_request q = request_of(c, "GET", url_of(url, id, "size=300000&piece=2000"),
                                      ENGINE_STREAM | (manual ? ENGINE_MANUAL_CREDIT : 0));
        q.window = 10000;
        engine_record *r = submit(p, &q);
        int64_t got = 0, credit = 10000;
        for (bool over = false; !over;) {
            await(r, ENGINE_ON_NEWS);
            engine_message m;
            int64_t most = 0;
            while (engine_take(r, &m)) {
                if (m.kind == ENGINE_MESSAGE_CHUNK) {
                    for (size_t k = 0; k < m.body_size; k++)
                        MUST((unsigned char)m.body[k] == fake_byte(test_seed + (uint64_t)id, got + (int64_t)k));
                    got += (int64_t)m.body_size;
                    credit -= (int64_t)m.body_size;
                    most += (int64_t)m.body_size;
                    engine_chunk_free(m.chunk);
                    CHECK(credit > -2000); /* one delivery beyond, at most */
                }
                over = m.kind == ENGINE_MESSAGE_DONE;
                MUST(m.kind != ENGINE_MESSAGE_FAILED);
            }
            CHECK(most < 12000);
            if (manual) engine_credit(r, most);
            else engine_consumed(r, most);
            credit += most;
        }
        CHECK_EQUAL(got, 300000);
        engine_record_unref(r);
    }
    CLOSE(p, c);
}

static void an_upload(void) {
    WITH_POOL(p, c);
    test_random random = test_random_of(1);
    for (int round = 0; round < 12; round++) {
        char url[512], piece[3000], value[128], expected[128];
        bool known = round % 2, duplex = round % 3 == 0;
        int64_t total = 1 + test_below(&random, 50000), sent = 0;
        int id = fresh_id();
        engine_request q =
            request_of(c, round % 4 < 2 ? "POST" : "PUT", url_of(url, id, duplex ? "early=1&size=5000" : "size=10"),
                       ENGINE_STREAM_BODY | ENGINE_STREAM);
        q.body_size = known ? total : -1;
        q.upload_window = 4096;
        engine_record *r = submit(p, &q);
        uint64_t hash = FAKE_HASH_START;
        while (sent < total) {
            size_t n = 1 + test_below(&random, sizeof piece);
            if ((int64_t)n > total - sent) n = (size_t)(total - sent);
            for (size_t i = 0; i < n; i++) piece[i] = (char)test_next(&random);
            engine_send_status status = engine_send(r, piece, n);
            if (status == ENGINE_NO_ROOM) {
                await(r, ENGINE_ON_ROOM);
                continue;
            }
            MUST(status == ENGINE_SENT);
            hash = fake_hash(hash, piece, n);
            sent += (int64_t)n;
        }
        if (!known) { /* with a length, the last byte is the end */
            CHECK_EQUAL(engine_outcome_of(r), ENGINE_OUTCOME_PENDING);
            CHECK_EQUAL(fake->bodies(id), 0);
        }
        engine_finish(r);
        await(r, ENGINE_ON_TERMINAL);
        engine_message m;
        MUST(engine_take(r, &m));
        CHECK_EQUAL(m.kind, ENGINE_MESSAGE_STARTED);
        snprintf(expected, sizeof expected, "%lld %llx", (long long)total, (unsigned long long)hash);
        if (!duplex) CHECK(!strcmp(header_of(m.block, m.block_size, "x-body", value, sizeof value), expected));
        CHECK_EQUAL(fake->bodies(id), 1);
        CHECK_EQUAL(outcome_of(r), ENGINE_OUTCOME_OK);
    }
    CLOSE(p, c);
}

static void a_buffered_body(void) {
    WITH_POOL(p, c);
    static const char *const methods[] = {"POST", "PUT", "PATCH", "DELETE", "GET"};
    char *body = malloc(100000);
    for (int i = 0; i < 100000; i++) body[i] = (char)(i * 13);
    for (int i = 0; i < 10; i++) {
        char url[512], value[128], expected[128];
        engine_request q = request_of(c, methods[i % 5], url_of(url, fresh_id(), "size=1"), ENGINE_HAS_BODY);
        q.body = body;
        q.body_size = i < 5 ? 100000 : 0;
        engine_record *r = submit(p, &q);
        await(r, ENGINE_ON_TERMINAL);
        engine_message m;
        MUST(engine_terminal(r, &m));
        snprintf(expected, sizeof expected, "%lld %llx", (long long)q.body_size,
                 (unsigned long long)fake_hash(FAKE_HASH_START, body, (uint64_t)q.body_size));
        CHECK(!strcmp(header_of(m.block, m.block_size, "x-body", value, sizeof value), expected));
        CHECK_EQUAL(outcome_of(r), ENGINE_OUTCOME_OK);
    }
    free(body);
    CLOSE(p, c);
}

/* Law 5: cancelled, abandoned or short, the server does not see an end of the body. */
static void an_unfinished_upload_never_looks_complete(void) {
    WITH_POOL(p, c);
    for (int round = 0; round < 30; round++) {
        char url[512];
        int id = fresh_id(), how = round % 3;
        engine_request q = request_of(c, "POST", url_of(url, id, "size=1"), ENGINE_STREAM_BODY);
        if (how == 2) q.body_size = 1000;
        engine_record *r = submit(p, &q);
        engine_send(r, "some", 4);
        if (round % 2)
            while (!fake->sends(id)) test_yield();
        switch (how) {
        case 0: CHECK(engine_settle(r, ENGINE_OUTCOME_CANCELLED, "c", 1, false)); break;
        case 1: engine_abandon(r); break;
        default: engine_finish(r);
        }
        CHECK_EQUAL(outcome_of(r), how == 2 ? ENGINE_OUTCOME_BODY_SHORT : ENGINE_OUTCOME_CANCELLED);
        await_pool(p, ENGINE_ON_IDLE);
        CHECK_EQUAL(fake->bodies(id), 0);
    }
    CLOSE(p, c);
}

static void an_abandoned_upload_may_finish(void) {
    WITH_POOL(p, c);
    for (int round = 0; round < 10; round++) {
        char url[512];
        int id = fresh_id();
        int flags = ENGINE_STREAM_BODY | ENGINE_FINISH_ON_ABANDON | (round % 2 ? ENGINE_STREAM : 0);
        engine_request q = request_of(c, "POST", url_of(url, id, "size=500000&early=1"), flags);
        q.window = 100;
        engine_record *r = submit(p, &q);
        engine_send(r, "some", 4);
        if (round % 4 > 1) await(r, round % 2 ? ENGINE_ON_NEWS : ENGINE_ON_ROOM);
        engine_abandon(r);
        engine_record_unref(r);
        await_pool(p, ENGINE_ON_IDLE); /* nobody reads it: it runs to its end nevertheless */
        CHECK_EQUAL(fake->bodies(id), 1);
    }
    engine_pool_statistics s;
    engine_pool_read(p, &s);
    CHECK_EQUAL(s.completed, 10);
    CLOSE(p, c);
}

/* ------------------------------------------------------------------------------------------------ bodies over HTTP/3 */

static engine_config *http3_config(engine_limits limits) {
    engine_config *c = config_with(limits, "");
    MUST(engine_config_add_number(c, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_3));
    return c;
}

static int64_t connections_opened(engine_record *r) {
    engine_message m;
    await(r, ENGINE_ON_TERMINAL);
    CHECK_EQUAL(engine_outcome_of(r), ENGINE_OUTCOME_OK);
    MUST(engine_terminal(r, &m));
    return m.metrics->connections_opened;
}

static engine_request http3_upload(engine_config *c, char *url, const char *words, const char *body, int64_t size) {
    engine_request q =
        request_of(c, "POST", url_of(url, fresh_id(), words), size < 0 ? ENGINE_STREAM_BODY : ENGINE_HAS_BODY);
    if (size >= 0) q.body = body;
    q.body_size = size;
    return q;
}

/* The fake takes it for a breach if a body shares its connection, or one is used on which some of a body was left behind. */
static void a_body_over_http3_shares_no_connection(void) {
    enum { MANY = 120 };
    static const char body[100000];
    static const int64_t sizes[] = {-1, 1, 16000, 16001, 100000};
    static const char *const words[] = {"v=3&size=9",       "v=3&size=100000",   "v=3&size=9&early=1",
                                        "v=3&hang=2",       "v=3&size=9&hang=3", "v=3&size=5000&early=1&hang=4",
                                        "v=3&pre=er&size=1"};
    load();
    for (int round = 0; round < 8; round++) {
        const bool limited = round % 2;
        engine_pool *p = pool_with(1, 0, limited ? 3 : 0, 0);
        engine_config *c =
            http3_config((engine_limits){.max_bytes = round % 3 == 2 ? 4000 : -1, .read_ms = round % 4 == 3 ? 5 : 0});
        engine_record *gets[MANY], *uploads[MANY];
        fake->peak();
        for (int i = 0; i < MANY; i++) {
            char url[512];
            engine_request q = request_of(c, "GET", url_of(url, fresh_id(), "v=3&size=100"), 0);
            gets[i] = submit(p, &q);
            q = http3_upload(c, url, words[i % 7], body, sizes[(i + i / 7) % 5]);
            uploads[i] = submit(p, &q);
            if (q.body_size < 0) engine_send(uploads[i], body, 1000);
            if (q.body_size < 0 && i % 2) engine_finish(uploads[i]);
            if (i % 3 == 0) test_yield();
            /* At once, or some time later. */
            if (i % 4 == 1) engine_settle(uploads[i], ENGINE_OUTCOME_CANCELLED, "c", 1, false);
            if (i >= 20) engine_settle(uploads[i - 20], ENGINE_OUTCOME_CANCELLED, "c", 1, false);
        }
        for (int i = 0; i < MANY; i++) CHECK_EQUAL(outcome_of(gets[i]), ENGINE_OUTCOME_OK);
        if (limited) CHECK(fake->peak() <= 2 * 3);
        if (round % 3) /* else the pool's close ends what is left */
            for (int i = 0; i < MANY; i++) engine_settle(uploads[i], ENGINE_OUTCOME_CANCELLED, "c", 1, false);
        CLOSE(p, c);
        for (int i = 0; i < MANY; i++) engine_record_unref(uploads[i]);
    }
}

static void small_bodies_over_http3_use_a_connection_in_turn(void) {
    enum { MANY = 40 };
    static const char body[16001];
    load();
    engine_pool *p = pool_with(1, 0, 0, 0);
    engine_config *c = http3_config((engine_limits){0});
    int64_t small = 0, large = 0, other = 0, none = 0;
    for (int i = 0; i < MANY; i++) {
        char url[512];
        engine_request q = http3_upload(c, url, "v=3", body, 16000);
        engine_record *r = submit(p, &q);
        small += connections_opened(r);
        engine_record_unref(r);
        q = http3_upload(c, url, "v=3&size=3", body, 0); /* one that is empty is none */
        r = submit(p, &q);
        none += connections_opened(r);
        engine_record_unref(r);
    }
    for (int i = 0; i < MANY; i++) {
        char url[512];
        engine_request q = http3_upload(c, url, "v=3", body, 16001);
        engine_record *r = submit(p, &q);
        large += connections_opened(r);
        engine_record_unref(r);
        q = http3_upload(c, url, "v=2", body, 16001); /* it is not HTTP/3 after all */
        r = submit(p, &q);
        other += connections_opened(r);
        engine_record_unref(r);
    }
    /* One in eight idle connections is closed by the server. */
    CHECK(small >= 1 && small < MANY / 2);
    CHECK(none >= 1 && none < MANY / 2);
    CHECK(other >= 1 && other < MANY / 2);
    CHECK(large >= MANY - 1); /* the first may have found one of the small ones' */
    CLOSE(p, c);
}

static void failures_are_told(void) {
    WITH_POOL(p, c);
    for (int at = 1; at <= 4; at++)
        for (int streamed = 0; streamed < 2; streamed++) {
            char words[128], url[512];
            snprintf(words, sizeof words, "fail=56&at=%d&size=1000", at);
            engine_request q = request_of(c, "GET", url_of(url, fresh_id(), words), streamed ? ENGINE_STREAM : 0);
            engine_record *r = submit(p, &q);
            await(r, ENGINE_ON_TERMINAL);
            engine_message m;
            MUST(engine_terminal(r, &m));
            CHECK_EQUAL(m.kind, ENGINE_MESSAGE_FAILED);
            CHECK_EQUAL(m.outcome, ENGINE_OUTCOME_CURL);
            CHECK_EQUAL(m.curl_code, 56);
            CHECK_EQUAL(m.request_sent, at > 1);
            CHECK(m.detail_size > 0);
            engine_record_unref(r);
        }
    CLOSE(p, c);
}

static void a_response_that_is_too_large(void) {
    load();
    engine_pool *p = pool_with(1, 0, 0, 0);
    engine_config *c = config_with((engine_limits){.max_bytes = 1000}, "");
    int id;
    CHECK_EQUAL(simple(p, c, "GET", 0, &id, "size=1000"), ENGINE_OUTCOME_OK);
    CHECK_EQUAL(simple(p, c, "GET", 0, &id, "size=1001"), ENGINE_OUTCOME_TOO_LARGE);
    CHECK_EQUAL(simple(p, c, "GET", ENGINE_STREAM, &id, "size=1000"), ENGINE_OUTCOME_OK);
    CHECK_EQUAL(simple(p, c, "GET", ENGINE_STREAM, &id, "size=1001"), ENGINE_OUTCOME_TOO_LARGE);
    CLOSE(p, c);
}

/* Law 7. */
static void a_request_is_sent_again_only_if_that_is_safe(void) {
    static const struct {
        const char *method;
        int version, outcome, sends;
    } rows[] = {
        {"POST", 1, ENGINE_OUTCOME_LOST, 1}, /* the first: on the connection with the id 0 */
        {"PATCH", 1, ENGINE_OUTCOME_LOST, 1}, {"GET", 1, ENGINE_OUTCOME_OK, 2}, {"PUT", 1, ENGINE_OUTCOME_OK, 2},
        {"POST", 1, ENGINE_OUTCOME_LOST, 1},  {"GET", 2, ENGINE_OUTCOME_OK, 2}, {"DELETE", 2, ENGINE_OUTCOME_OK, 2},
        {"POST", 2, ENGINE_OUTCOME_CURL, 1},
    };
    WITH_POOL(p, c);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char words[64], url[512];
        int id, reuses = 0;
        snprintf(words, sizeof words, "v=%d&size=1", rows[i].version);
        /* The connection before may have been closed by the server: as often as it takes. */
        for (int tries = 0; tries < 100 && !reuses; tries++) {
            CHECK_EQUAL(simple(p, c, "GET", 0, &id, words), ENGINE_OUTCOME_OK);
            snprintf(words, sizeof words, "v=%d&size=1&dead=1", rows[i].version);
            id = fresh_id();
            engine_request q = request_of(c, rows[i].method, url_of(url, id, words), 0);
            engine_record *r = submit(p, &q);
            await(r, ENGINE_ON_TERMINAL);
            engine_message m;
            MUST(engine_terminal(r, &m));
            bool fresh = m.outcome == ENGINE_OUTCOME_OK && fake->sends(id) == 1;
            if (!fresh) {
                CHECK_EQUAL(m.outcome, rows[i].outcome);
                CHECK_EQUAL(fake->sends(id), rows[i].sends);
                CHECK(m.request_sent);
                reuses++;
            }
            engine_record_unref(r);
        }
        CHECK(reuses);
    }
    CLOSE(p, c);
}

static void clocks_run_out(void) {
    static const struct {
        engine_limits limits;
        const char *words;
        int clock;
    } rows[] = {
        {{.total_ms = 20}, "hang=2", ENGINE_CLOCK_TOTAL},
        {{.total_ms = 20}, "hang=0", ENGINE_CLOCK_TOTAL},
        {{.connect_ms = 20}, "hang=0", ENGINE_CLOCK_CONNECT},
        {{.connect_ms = 20}, "hang=1", ENGINE_CLOCK_CONNECT},
        {{.read_ms = 20}, "hang=2", ENGINE_CLOCK_READ},
        {{.read_ms = 20}, "hang=3", ENGINE_CLOCK_READ},
        {{.read_ms = 20}, "hang=4&size=100000", ENGINE_CLOCK_READ},
        {{.connect_ms = 60000, .read_ms = 60000, .total_ms = 30, .pool_ms = 60000}, "hang=4&size=9", ENGINE_CLOCK_TOTAL},
    };
    load();
    engine_pool *p = pool_with(1, 0, 0, 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        engine_config *c = config_with(rows[i].limits, "");
        char url[512];
        engine_request q = request_of(c, "GET", url_of(url, fresh_id(), rows[i].words), 0);
        engine_record *r = submit(p, &q);
        CHECK_EQUAL(engine_record_deadline(r) != 0, rows[i].limits.total_ms != 0);
        await(r, ENGINE_ON_TERMINAL);
        engine_message m;
        MUST(engine_terminal(r, &m));
        CHECK_EQUAL(m.outcome, ENGINE_OUTCOME_TIMEOUT);
        CHECK_EQUAL(m.clock, rows[i].clock);
        engine_record_unref(r);
        engine_config_unref(c);
    }
    close_pool(p);
    CHECK_EQUAL(fake->live(), 0);
}

static void the_write_clock(void) {
    load();
    engine_pool *p = pool_with(1, 0, 0, 0);
    engine_config *c = config_with((engine_limits){.write_ms = 20}, "");
    char url[512];
    engine_request q = request_of(c, "POST", url_of(url, fresh_id(), "hang=2"), ENGINE_HAS_BODY);
    q.body = "body";
    q.body_size = 4;
    engine_record *r = submit(p, &q);
    await(r, ENGINE_ON_TERMINAL);
    engine_message m;
    MUST(engine_terminal(r, &m));
    CHECK_EQUAL(m.clock, ENGINE_CLOCK_WRITE);
    engine_record_unref(r);
    CLOSE(p, c);
}

static void waiting_for_a_turn_has_a_clock(void) {
    load();
    engine_pool *p = pool_with(1, 0, 1, 0);
    engine_config *c = config_with((engine_limits){.pool_ms = 20}, "");
    char url[512];
    engine_request q = request_of(c, "GET", url_of(url, fresh_id(), "hang=2"), 0);
    engine_record *first = submit(p, &q);
    q.url = url_of(url, fresh_id(), "size=1");
    engine_record *second = submit(p, &q);
    await(second, ENGINE_ON_TERMINAL);
    engine_message m;
    MUST(engine_terminal(second, &m));
    CHECK_EQUAL(m.outcome, ENGINE_OUTCOME_TIMEOUT);
    CHECK_EQUAL(m.clock, ENGINE_CLOCK_POOL);
    CHECK(!m.request_sent);
    engine_record_unref(second);
    CHECK_EQUAL(engine_outcome_of(first), ENGINE_OUTCOME_PENDING);
    CHECK(engine_settle(first, ENGINE_OUTCOME_CANCELLED, "c", 1, false));
    engine_record_unref(first);
    CLOSE(p, c);
}

static void a_paused_transfer_does_not_time_out_by_reading(void) {
    load();
    engine_pool *p = pool_with(1, 0, 0, 0);
    engine_config *c = config_with((engine_limits){.read_ms = 30}, "");
    char url[512];
    engine_request q = request_of(c, "GET", url_of(url, fresh_id(), "size=100000&piece=100"), ENGINE_STREAM);
    q.window = 100;
    engine_record *r = submit(p, &q);
    /* Others' clocks run out meanwhile, longer ones than its own. */
    engine_limits longer = {.read_ms = 100};
    engine_config *other = config_with(longer, "");
    int id;
    CHECK_EQUAL(simple(p, other, "GET", 0, &id, "hang=2"), ENGINE_OUTCOME_TIMEOUT);
    CHECK_EQUAL(engine_outcome_of(r), ENGINE_OUTCOME_PENDING);
    engine_config_unref(other);
    CHECK(engine_settle(r, ENGINE_OUTCOME_CANCELLED, "c", 1, false));
    engine_record_unref(r);
    CLOSE(p, c);
}

/* ------------------------------------------------------------------------------------------------ pools */

static void limits_on_connections(void) {
    load();
    enum { MANY = 200 };
    for (int limited = 0; limited < 2; limited++) {
        engine_pool *p = limited ? pool_with(2, 5, 0, 0) : pool_with(1, 0, 3, 0);
        engine_config *c = config_with((engine_limits){0}, "");
        engine_record *records[MANY];
        fake->peak();
        for (int i = 0; i < MANY; i++) {
            char url[512], origin[32];
            sprintf(url, "http://h%d/?id=%d&seed=%d&size=100&close=1", limited ? i % 7 : 0, fresh_id(), i);
            sprintf(origin, "http://h%d", limited ? i % 7 : 0);
            engine_request q = request_of(c, "GET", url, 0);
            q.origin = origin;
            records[i] = submit(p, &q);
        }
        for (int i = 0; i < MANY; i += 5) engine_settle(records[i], ENGINE_OUTCOME_CANCELLED, "c", 1, false);
        for (int i = 0; i < MANY; i++) {
            int outcome = outcome_of(records[i]);
            CHECK(outcome == ENGINE_OUTCOME_OK || (i % 5 == 0 && outcome == ENGINE_OUTCOME_CANCELLED));
        }
        int peak = fake->peak();
        CHECK(peak > 0 && peak <= (limited ? 5 : 3));
        engine_pool_statistics s;
        await_pool(p, ENGINE_ON_IDLE);
        engine_pool_read(p, &s);
        CHECK_EQUAL(s.queued, 0);
        CHECK_EQUAL(s.in_flight, 0);
        CHECK_EQUAL(s.completed + s.failed, MANY);
        CLOSE(p, c);
    }
}

static void overload_and_close(void) {
    load();
    engine_pool *p = pool_with(2, 0, 0, 1);
    engine_config *c = config_with((engine_limits){0}, "");
    char url[512];
    engine_request q = request_of(c, "GET", url_of(url, fresh_id(), "hang=2"), 0);
    engine_record *a = submit(p, &q), *b = submit(p, &q), *none;
    CHECK_EQUAL(engine_submit(p, &q, &none), ENGINE_OVERLOAD);
    CHECK(none == NULL);
    engine_settle(a, ENGINE_OUTCOME_CANCELLED, "c", 1, false);
    engine_record *again = submit(p, &q); /* the room is free at once */
    engine_pool_refuse(p);
    CHECK_EQUAL(engine_submit(p, &q, &none), ENGINE_CLOSED);
    CHECK_EQUAL(engine_outcome_of(b), ENGINE_OUTCOME_PENDING);
    engine_pool_stop(p);
    CHECK_EQUAL(outcome_of(b), ENGINE_OUTCOME_POOL_CLOSED);
    CHECK_EQUAL(outcome_of(again), ENGINE_OUTCOME_POOL_CLOSED);
    CHECK_EQUAL(outcome_of(a), ENGINE_OUTCOME_CANCELLED);
    await_pool(p, ENGINE_ON_STOPPED);
    engine_pool_stop(p);
    CLOSE(p, c);
}

static void a_closed_mailbox_is_refused(void) {
    WITH_POOL(p, c);
    engine_mailbox *m = engine_mailbox_new();
    engine_mailbox_close(m);
    char url[512];
    engine_request q = request_of(c, "GET", url_of(url, fresh_id(), "size=1"), 0);
    q.mailbox = m;
    engine_record *r;
    CHECK_EQUAL(engine_submit(p, &q, &r), ENGINE_CLOSED);
    engine_pool_statistics s;
    engine_pool_read(p, &s);
    CHECK_EQUAL(s.in_flight, 0);
    engine_mailbox_drop(m);
    CLOSE(p, c);
}

static void a_dropped_pool_ends_its_work(void) {
    WITH_POOL(p, c);
    int ids[20];
    for (int i = 0; i < 20; i++) {
        char url[512];
        engine_request q = request_of(c, "GET", url_of(url, ids[i] = fresh_id(), "size=10000"), 0);
        engine_record_unref(submit(p, &q));
    }
    engine_pool_abandon(p);
    engine_pool_unref(p);
    engine_config_unref(c);
    while (engine_counted(ENGINE_COUNT_POOLS) || engine_counted(ENGINE_COUNT_WORKERS)) test_yield();
    for (int i = 0; i < 20; i++) CHECK_EQUAL(fake->sends(ids[i]), 1);
    while (fake->live()) test_yield();
}

static void a_pool_that_lost_a_worker_may_be_dropped(void) {
    for (int stop = 0; stop < 2; stop++) {
        WITH_POOL(p, c);
        char url[512];
        engine_request q = request_of(c, "GET", url_of(url, fresh_id(), "hang=2"), 0);
        engine_record *r = submit(p, &q);
        CHECK(engine_pool_fault(p, 0, ENGINE_FAULT_POLLER));
        CHECK_EQUAL(outcome_of(r), ENGINE_OUTCOME_WORKER_DIED);
        await_pool(p, ENGINE_ON_STOPPED);
        if (stop) engine_pool_stop(p); /* and never joined */
        else engine_pool_abandon(p);
        engine_pool_unref(p);
        engine_config_unref(c);
        while (engine_counted(ENGINE_COUNT_POOLS) || engine_counted(ENGINE_COUNT_WORKERS)) test_yield();
        while (fake->live()) test_yield();
    }
}

static void a_worker_dies_and_another_takes_over(void) {
    WITH_POOL(p, c);
    char url[512];
    for (int how = ENGINE_FAULT_POLLER; how <= ENGINE_FAULT_MULTI; how++) {
        engine_request q = request_of(c, "GET", url_of(url, fresh_id(), "hang=2"), 0);
        engine_record *hangs = submit(p, &q);
        q.flags = ENGINE_STREAM;
        q.url = url_of(url, fresh_id(), "hang=4&size=100000");
        engine_record *streams = submit(p, &q);
        await(streams, ENGINE_ON_NEWS);
        CHECK(engine_pool_fault(p, 0, how));
        await(streams, ENGINE_ON_TERMINAL);
        engine_message m;
        MUST(engine_take(streams, &m));
        CHECK_EQUAL(m.kind, ENGINE_MESSAGE_STARTED); /* what had come is kept */
        while (engine_take(streams, &m))
            if (m.chunk) engine_chunk_free(m.chunk);
        CHECK_EQUAL(m.kind, ENGINE_MESSAGE_NONE);
        CHECK_EQUAL(outcome_of(streams), ENGINE_OUTCOME_WORKER_DIED);
        CHECK_EQUAL(outcome_of(hangs), ENGINE_OUTCOME_WORKER_DIED);
        int id;
        CHECK_EQUAL(simple(p, c, "GET", 0, &id, "size=1"), ENGINE_OUTCOME_OK);
    }
    engine_pool_statistics s;
    do engine_pool_read(p, &s); /* counted when the thread has let everything go */
    while (s.restarts < 3);
    CHECK_EQUAL(s.restarts, 3);
    CHECK(!engine_pool_fault(p, 1, ENGINE_FAULT_POLLER)); /* none runs there */
    CHECK(!engine_pool_fault(p, -1, ENGINE_FAULT_POLLER));
    CHECK(!engine_pool_fault(p, 99, ENGINE_FAULT_POLLER));
    CLOSE(p, c);
}

static void a_pool_gives_up_in_the_end(void) {
    WITH_POOL(p, c);
    char url[512];
    engine_request q = request_of(c, "GET", url_of(url, fresh_id(), "hang=2"), 0);
    int deaths = 0;
    for (;;) {
        engine_record *r;
        engine_status status = engine_submit(p, &q, &r);
        if (status == ENGINE_GAVE_UP) break;
        MUST(status == ENGINE_ACCEPTED);
        MUST(++deaths < 1000);
        CHECK(engine_pool_fault(p, 0, ENGINE_FAULT_POLLER));
        CHECK_EQUAL(outcome_of(r), ENGINE_OUTCOME_WORKER_DIED);
        await_pool(p, ENGINE_ON_STOPPED); /* counted */
    }
    CHECK(deaths >= 20);
    CLOSE(p, c);
}

static void a_wedged_worker_is_left_behind(void) {
    WITH_POOL(p, c);
    fake->wedge();
    char url[512];
    engine_request q = request_of(c, "GET", url_of(url, fresh_id(), "wedge=1"), 0);
    engine_record *stuck = submit(p, &q);
    while (!fake->wedged()) test_yield();
    q.url = url_of(url, fresh_id(), "size=1");
    engine_record *behind = submit(p, &q);
    engine_pool_stop(p);
    CHECK_EQUAL(engine_pool_join(p, 20 * MS_NS), 1);
    CHECK_EQUAL(engine_counted(ENGINE_COUNT_WEDGED), 1);
    CHECK_EQUAL(outcome_of(stuck), ENGINE_OUTCOME_WORKER_DIED);
    CHECK_EQUAL(outcome_of(behind), ENGINE_OUTCOME_WORKER_DIED);
    await_pool(p, ENGINE_ON_IDLE);
    CHECK_EQUAL(engine_pool_join(p, 0), 1);
    CHECK_EQUAL(engine_counted(ENGINE_COUNT_WEDGED), 1);
    /* It comes back after all: everything is as if it had not been away. */
    fake->release();
    engine_pool_unref(p);
    engine_config_unref(c);
    while (engine_counted(ENGINE_COUNT_WEDGED) || engine_counted(ENGINE_COUNT_WORKERS)) test_yield();
    while (engine_counted(ENGINE_COUNT_POOLS) || fake->live()) test_yield();
}

static void many_identities(void) {
    load();
    engine_pool *p = pool_with(1, 0, 0, 0);
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 100; i++) {
            char identity[16];
            sprintf(identity, "%d", i);
            engine_config *c = config_with((engine_limits){0}, identity);
            int id;
            CHECK_EQUAL(simple(p, c, "GET", 0, &id, "size=1"), ENGINE_OUTCOME_OK);
            engine_config_unref(c);
            CHECK(engine_counted(ENGINE_COUNT_MULTIS) <= 65);
        }
    close_pool(p);
    CHECK_EQUAL(fake->live(), 0);
}

static void verbose_lines(void) {
    load();
    engine_pool *p = pool_with(1, 0, 0, 0);
    engine_config *c = config_with((engine_limits){.flags = ENGINE_VERBOSE}, "");
    static int owner;
    engine_queue *q = engine_queue_new();
    engine_waiter *w = engine_waiter_new(q, &owner);
    CHECK(!engine_log_register(w));
    int id;
    CHECK_EQUAL(simple(p, c, "GET", 0, &id, "size=1"), ENGINE_OUTCOME_OK);
    CHECK(engine_queue_take(q, true) == &owner);
    CHECK(engine_log_register(w));
    char lines[1024];
    long lost;
    size_t size = engine_log_take(lines, sizeof lines, &lost);
    CHECK_EQUAL(lost, 0);
    uint32_t length;
    memcpy(&length, lines + 1, sizeof length);
    CHECK_EQUAL(lines[0], 1);
    CHECK(size > 5 && length == 14 && !memcmp(lines + 5, "HTTP/1.1 200\r\n", 14));
    CHECK_EQUAL(engine_log_take(lines, sizeof lines, &lost), 0);
    engine_waiter_free(w);
    engine_queue_unref(q);
    CLOSE(p, c);
}

static void stopping_all_pools(void) {
    WITH_POOL(p, c);
    engine_pool *other = pool_with(2, 0, 0, 0);
    char url[512];
    engine_request q = request_of(c, "GET", url_of(url, fresh_id(), "hang=2"), 0);
    engine_record *a = submit(p, &q), *b = submit(other, &q);
    CHECK_EQUAL(engine_stop_all(60 * SECOND_NS), 0);
    CHECK_EQUAL(outcome_of(a), ENGINE_OUTCOME_POOL_CLOSED);
    CHECK_EQUAL(outcome_of(b), ENGINE_OUTCOME_POOL_CLOSED);
    engine_pool_unref(other);
    CLOSE(p, c);
}

/* ------------------------------------------------------------------------------------------------ forks */

static int wait_for_child(pid_t pid) {
    int status;
    MUST(pid > 0);
    MUST(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static pid_t forks(void) {
    engine_fork_prepare();
    atomic_store(&frozen, true);
    pid_t pid = fork();
    atomic_store(&frozen, false);
    if (pid) {
        engine_fork_parent();
        return pid;
    }
    test_child();
    engine_fork_child();
    return 0;
}

static void a_forked_child_starts_anew(void) {
    if (!test_may_fork()) return;
    for (int round = 0; round < 6; round++) {
        load();
        engine_pool *p = pool_with(2, 0, 2, 0);
        engine_config *c = config_with((engine_limits){0}, "");
        engine_mailbox *m = engine_mailbox_new();
        engine_record *records[12];
        int id;
        for (int i = 0; i < 3; i++) CHECK_EQUAL(simple(p, c, "GET", 0, &id, "size=1"), ENGINE_OUTCOME_OK);
        for (int i = 0; i < 12; i++) {
            char url[512], origin[32];
            sprintf(origin, "http://h%d", i % 3);
            engine_request q = request_of(c, "POST", url_of(url, fresh_id(), i % 2 ? "hang=4&size=100000" : "size=9"),
                                          i % 3 ? ENGINE_STREAM : 0);
            q.origin = origin; /* more than may be in flight: some wait for their turn */
            q.mailbox = i % 4 == 3 ? m : NULL;
            records[i] = submit(p, &q);
        }
        for (int k = 0; k < round; k++) test_yield();
        pid_t pid = forks();
        for (int i = 0; i < 12 && !pid; i++) {
            int outcome = engine_outcome_of(records[i]);
            CHECK(outcome == ENGINE_OUTCOME_FORKED || (outcome == ENGINE_OUTCOME_OK && i % 2 == 0));
            engine_record_unref(records[i]);
        }
        if (!pid) {
            engine_message message;
            CHECK_EQUAL(engine_mailbox_count(m), 0);
            CHECK(engine_mailbox_take(m, &message) == NULL);
            engine_pool_statistics s;
            engine_pool_read(p, &s);
            CHECK(!s.in_flight && !s.queued && !s.connections && !s.workers);
            for (int i = 0; i < 5; i++) CHECK_EQUAL(simple(p, c, "POST", 0, &id, "size=100"), ENGINE_OUTCOME_OK);
            pid_t grandchild = forks();
            if (!grandchild) {
                CHECK_EQUAL(simple(p, c, "GET", 0, &id, "size=100"), ENGINE_OUTCOME_OK);
                engine_stop_all(60 * SECOND_NS);
                _exit(test_result());
            }
            CHECK_EQUAL(wait_for_child(grandchild), 0);
            engine_mailbox_drop(m);
            close_pool(p);
            engine_config_unref(c);
            test_check_counts();
            _exit(test_result());
        }
        /* Nothing has happened to the parent. */
        CHECK_EQUAL(wait_for_child(pid), 0);
        for (int i = 0; i < 3; i++) CHECK_EQUAL(simple(p, c, "GET", 0, &id, "size=0"), ENGINE_OUTCOME_OK);
        for (int i = 0; i < 12; i++) {
            int outcome = engine_outcome_of(records[i]);
            CHECK(outcome == ENGINE_OUTCOME_PENDING || outcome == ENGINE_OUTCOME_OK);
            engine_settle(records[i], ENGINE_OUTCOME_CANCELLED, "c", 1, false);
            engine_record_unref(records[i]);
        }
        engine_mailbox_drop(m);
        CLOSE(p, c);
    }
}

static void a_fork_beside_a_wedged_worker(void) {
    if (!test_may_fork()) return;
    WITH_POOL(p, c);
    fake->wedge();
    char url[512];
    engine_request q = request_of(c, "GET", url_of(url, fresh_id(), "wedge=1"), 0);
    engine_record *stuck = submit(p, &q);
    while (!fake->wedged()) test_yield();
    pid_t pid = forks();
    if (!pid) {
        int id;
        CHECK_EQUAL(engine_outcome_of(stuck), ENGINE_OUTCOME_FORKED);
        CHECK_EQUAL(simple(p, c, "GET", 0, &id, "size=1"), ENGINE_OUTCOME_OK);
        close_pool(p);
        _exit(test_result());
    }
    CHECK_EQUAL(wait_for_child(pid), 0);
    CHECK_EQUAL(engine_outcome_of(stuck), ENGINE_OUTCOME_PENDING);
    fake->release();
    CHECK_EQUAL(outcome_of(stuck), ENGINE_OUTCOME_OK);
    CLOSE(p, c);
}

typedef struct {
    engine_pool *p;
    engine_config *c;
    _Atomic bool over;
} busy;

static void *keeps_busy(void *argument) {
    busy *b = argument;
    while (!atomic_load(&b->over)) {
        int id;
        CHECK_EQUAL(simple(b->p, b->c, "GET", 0, &id, "size=2000"), ENGINE_OUTCOME_OK);
    }
    return NULL;
}

static void *prepares_forks(void *argument) {
    (void)argument;
    for (int i = 0; i < 30; i++) {
        engine_fork_prepare();
        atomic_store(&frozen, true);
        for (int k = 0; k < 5; k++) test_yield();
        atomic_store(&frozen, false);
        engine_fork_parent();
    }
    return NULL;
}

/* Two threads that fork at once: while either of them does, no worker is in libcurl. */
static void forks_of_two_threads(void) {
    WITH_POOL(p, c);
    busy b = {p, c, false};
    test_thread worker, forkers[2];
    test_start(&worker, keeps_busy, &b);
    for (int i = 0; i < 2; i++) test_start(&forkers[i], prepares_forks, NULL);
    for (int i = 0; i < 2; i++) test_join(&forkers[i]);
    atomic_store(&b.over, true);
    test_join(&worker);
    CLOSE(p, c);
}

#include "stress.h"

static const char *fake_url(test_random *random, int id, stress_request *q, char *to) {
    static const char *const pres[] = {"", "", "", "c", "e", "ce"};
    int at = sprintf(to, "http://h%u/?id=%d&seed=%d&pre=%s", test_below(random, 4), id, id, pres[test_below(random, 6)]);
    q->seed = (uint64_t)id;
    q->size = test_below(random, 4) ? test_below(random, 3000) : test_below(random, 200000);
    at += sprintf(to + at, "&size=%lld&piece=%u", (long long)q->size, 1 + test_below(random, 20000));
    if (!test_below(random, 4)) at += sprintf(to + at, "&v=2");
    if (!test_below(random, 4)) at += sprintf(to + at, "&trailers=1");
    if (!test_below(random, 6)) at += sprintf(to + at, "&close=1");
    if (!test_below(random, 6)) at += sprintf(to + at, "&dead=1"), q->may_fail = true;
    if (!test_below(random, 4)) at += sprintf(to + at, "&early=1"), q->early = true;
    if (!test_below(random, 12)) at += sprintf(to + at, "&fail=56&at=%u", 1 + test_below(random, 4)), q->may_fail = true;
    if (!test_below(random, 20)) at += sprintf(to + at, "&hang=%u", test_below(random, 5)), q->hangs = true;
    return to;
}

static void check_fake(const stress_request *q) {
    if (!strcmp(q->method, "POST")) CHECK(fake->sends(q->id) <= 1);
    if (!stress_body_whole(q)) CHECK_EQUAL(fake->bodies(q->id), 0);
}

static void everything_at_once(void) {
    load();
    int rounds = test_option("rounds") ? atoi(test_option("rounds")) : 3;
    for (int round = 0; round < rounds; round++) {
        stress s = {.url_of = fake_url,
                    .check = check_fake,
                    .kills = round % 3 == 1,
                    .stops = round % 3 == 2,
                    .requests = 400,
                    .round = round,
                    .id_of = fresh_id};
        stress_run(&s);
        while (fake->live()) test_yield();
    }
}

#define CASE(name) {#name, name}
CASES(CASE(a_buffered_response), CASE(the_final_block_alone_counts), CASE(a_stream_within_its_window), CASE(an_upload),
      CASE(a_buffered_body), CASE(an_unfinished_upload_never_looks_complete), CASE(an_abandoned_upload_may_finish),
      CASE(a_body_over_http3_shares_no_connection), CASE(small_bodies_over_http3_use_a_connection_in_turn),
      CASE(failures_are_told), CASE(a_response_that_is_too_large), CASE(a_request_is_sent_again_only_if_that_is_safe),
      CASE(clocks_run_out), CASE(the_write_clock), CASE(waiting_for_a_turn_has_a_clock),
      CASE(a_paused_transfer_does_not_time_out_by_reading), CASE(limits_on_connections), CASE(overload_and_close),
      CASE(a_closed_mailbox_is_refused), CASE(a_dropped_pool_ends_its_work), CASE(a_pool_that_lost_a_worker_may_be_dropped),
      CASE(a_worker_dies_and_another_takes_over), CASE(a_pool_gives_up_in_the_end), CASE(a_wedged_worker_is_left_behind),
      CASE(many_identities), CASE(verbose_lines), CASE(stopping_all_pools), CASE(a_forked_child_starts_anew),
      CASE(a_fork_beside_a_wedged_worker), CASE(forks_of_two_threads), CASE(everything_at_once))
