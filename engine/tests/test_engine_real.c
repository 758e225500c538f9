/* The whole engine on the real libcurl that KATIPO_LIBCURL names, with a server in this process. Without it: skipped. */
#include <strings.h>

#include "http_server.h"
#include "requests.h"

static int port;
static _Atomic int next_id = 1;
static int fresh_id(void) { return atomic_fetch_add(&next_id, 1) % FAKE_IDS; }

static engine_library library;

static void load(void) {
    const char *path = getenv("KATIPO_LIBCURL");
    char reason[256];
    if (!path || !*path) {
        printf(": skipped, no KATIPO_LIBCURL\n");
        fflush(stdout);
        _exit(77); /* "skipped", in the way of meson and automake */
    }
    if (!engine_loaded()) {
        if (engine_load(path, reason, sizeof reason)) fprintf(stderr, "%s\n", reason);
        MUST(engine_loaded());
        engine_describe(&library);
        printf(" (libcurl %s)", library.version);
    }
}

static engine_config *plain_config(engine_limits limits) {
    engine_config *c = config_with(limits, "");
    int number, kind;
    MUST(engine_option("NOSIGNAL", &number, &kind) && engine_config_add_number(c, number, 1));
    MUST(engine_option("PROXY", &number, &kind) && engine_config_add_string(c, number, "", 0));
    const char *no_expect[] = {"Expect:"};
    MUST(engine_option("HTTPHEADER", &number, &kind) && engine_config_add_list(c, number, no_expect, 1));
    return c;
}

static const char *url_of(char *to, int id, const char *words) {
    sprintf(to, "http://127.0.0.1:%d/?id=%d&seed=%d&%s", port, id, id, words);
    return to;
}

static void options_are_known(void) {
    load();
    int number, kind;
    CHECK(engine_option("URL", &number, &kind) && number == 10002);
    CHECK(!engine_option("NO_SUCH_OPTION", &number, &kind));
    CHECK(library.version_num >= 0x075700);
    CHECK(library.protocols && library.ssl_version);
}

static void single_requests(void) {
    load();
    static const char *const words[] = {"size=100000&kind=plain", "size=100000&kind=chunked", "size=0&kind=plain",
                                        "size=100000&kind=close", "size=300&kind=early",      "size=3000000&kind=plain"};
    port = server_start();
    engine_pool *p = pool_with(1, 0, 0, 0);
    engine_config *c = plain_config((engine_limits){0});
    for (size_t i = 0; i < 2 * sizeof words / sizeof *words; i++) {
        char url[512], value[64];
        int id = fresh_id();
        engine_request q = request_of(c, "GET", url_of(url, id, words[i / 2]), 0);
        engine_record *r = NULL;
        MUST(engine_submit(p, &q, &r) == ENGINE_ACCEPTED);
        await(r, ENGINE_ON_TERMINAL);
        engine_message m;
        MUST(engine_take(r, &m));
        CHECK_EQUAL(m.kind, ENGINE_MESSAGE_RESPONDED);
        CHECK_EQUAL(m.status, 200);
        for (size_t k = 0; k < m.body_size; k++) MUST((unsigned char)m.body[k] == fake_byte((uint64_t)id, (int64_t)k));
        CHECK(!*header_of(m.block, m.block_size, "x-before", value, sizeof value));
        if (strstr(words[i / 2], "chunked"))
            CHECK(!strcmp(header_of(m.trailers, m.trailers_size, "x-trailer", value, sizeof value), "1"));
        /* A connection is opened only where the one before was not kept. */
        bool after_close = i && strstr(words[(i - 1) / 2], "close");
        CHECK_EQUAL(m.metrics->connections_opened, i == 0 || after_close);
        CHECK_EQUAL(m.metrics->bytes_received, (int64_t)m.body_size);
        engine_record_unref(r);
    }
    close_pool(p);
    engine_config_unref(c);
    server_stop();
}

static void failures(void) {
    load();
    port = server_start();
    engine_pool *p = pool_with(1, 0, 0, 0);
    engine_config *c = plain_config((engine_limits){.read_ms = 100, .max_bytes = 1000000});
    char url[512];
    static const struct {
        const char *words;
        int outcome;
    } rows[] = {{"size=50000&kind=cut", ENGINE_OUTCOME_CURL},
                {"kind=slow", ENGINE_OUTCOME_TIMEOUT},
                {"size=2000000&kind=plain", ENGINE_OUTCOME_TOO_LARGE},
                {"size=1000000&kind=plain", ENGINE_OUTCOME_OK}};
    for (size_t i = 0; i < 2 * sizeof rows / sizeof *rows; i++) {
        engine_request q = request_of(c, "GET", url_of(url, fresh_id(), rows[i / 2].words), i % 2 ? ENGINE_STREAM : 0);
        q.window = -1;
        engine_record *r = NULL;
        MUST(engine_submit(p, &q, &r) == ENGINE_ACCEPTED);
        CHECK_EQUAL(outcome_of(r), rows[i / 2].outcome);
    }
    engine_request q = request_of(c, "GET", "http://127.0.0.1:1/", 0);
    engine_record *r = NULL;
    MUST(engine_submit(p, &q, &r) == ENGINE_ACCEPTED);
    await(r, ENGINE_ON_TERMINAL);
    engine_message m;
    MUST(engine_terminal(r, &m));
    CHECK_EQUAL(m.curl_code, 7);
    CHECK(!m.request_sent);
    engine_record_unref(r);
    close_pool(p);
    engine_config_unref(c);
    server_stop();
}

static void a_forked_child_and_its_parent(void) {
    if (!test_may_fork()) return;
    load();
    port = server_start();
    engine_pool *p = pool_with(1, 0, 0, 0);
    engine_config *c = plain_config((engine_limits){0});
    char url[512];
    engine_request slow = request_of(c, "GET", url_of(url, fresh_id(), "kind=slow"), 0);
    engine_record *r = NULL, *other = NULL;
    MUST(engine_submit(p, &slow, &r) == ENGINE_ACCEPTED);
    int id = fresh_id(); /* not in the child: the parent's next would be the same */
    engine_fork_prepare();
    pid_t pid = fork();
    if (!pid) {
        test_child();
        engine_fork_child();
        CHECK_EQUAL(engine_outcome_of(r), ENGINE_OUTCOME_FORKED);
        engine_request q = request_of(c, "GET", url_of(url, id, "size=1000&kind=plain"), 0);
        MUST(engine_submit(p, &q, &other) == ENGINE_ACCEPTED);
        CHECK_EQUAL(outcome_of(other), ENGINE_OUTCOME_OK);
        close_pool(p);
        _exit(test_result());
    }
    engine_fork_parent();
    int status;
    MUST(waitpid(pid, &status, 0) == pid);
    CHECK_EQUAL(status, 0);
    CHECK_EQUAL(engine_outcome_of(r), ENGINE_OUTCOME_PENDING);
    engine_settle(r, ENGINE_OUTCOME_CANCELLED, "c", 1, false);
    engine_record_unref(r);
    close_pool(p);
    engine_config_unref(c);
    server_stop();
}

#include "stress.h"

static const char *real_url(test_random *random, int id, stress_request *q, char *to) {
    static const char *const kinds[] = {"plain", "plain", "chunked", "chunked", "close", "early", "cut", "slow"};
    const char *kind = kinds[test_below(random, 8)];
    if (!strcmp(kind, "slow") && test_below(random, 3)) kind = "plain";
    if (q->streams_body && test_below(random, 2)) kind = "echo";
    q->seed = (uint64_t)id;
    q->size = test_below(random, 4) ? test_below(random, 3000) : test_below(random, 400000);
    q->hangs = !strcmp(kind, "slow");
    q->echoes = !strcmp(kind, "echo");
    q->may_fail = !strcmp(kind, "cut") && q->size;
    sprintf(to, "http://127.0.0.1:%d/?id=%d&seed=%d&size=%lld&kind=%s", port, id, id, (long long)q->size, kind);
    return to;
}

static void check_real(const stress_request *q) {
    if (!strcmp(q->method, "POST")) CHECK(server_sends(q->id) <= 1);
    if (!stress_body_whole(q)) CHECK_EQUAL(server_bodies(q->id), 0);
}

static void everything_at_once(void) {
    load();
    port = server_start();
    int rounds = test_option("rounds") ? atoi(test_option("rounds")) : 3;
    for (int round = 0; round < rounds; round++) {
        stress s = {.url_of = real_url,
                    .check = check_real,
                    .kills = round % 3 == 1,
                    .stops = round % 3 == 2,
                    .requests = 300,
                    .round = round,
                    .id_of = fresh_id,
                    .config_of = plain_config};
        stress_run(&s);
    }
    server_stop();
}

#define CASE(name) {#name, name}
CASES(CASE(options_are_known), CASE(single_requests), CASE(failures), CASE(a_forked_child_and_its_parent),
      CASE(everything_at_once))
