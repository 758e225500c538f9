/* Many transfers from several threads at once, each checked: order, bytes, window, exactly one terminal. Include once.
 *
 * Half of the requests are consumed by the thread that made them, the others by two threads at one mailbox. They are
 * cancelled, abandoned, fed, finished, credited at random; workers may be killed, the pool stopped. */
#ifndef KATIPO_STRESS_H
#define KATIPO_STRESS_H

#include "requests.h"

enum { STRESS_CLIENTS = 2, STRESS_CONSUMERS = 2, STRESS_BATCH = 10, STRESS_MOST = 1024 };

typedef struct {
    int id;
    const char *method;
    uint64_t seed;  /* of the response's bytes */
    int64_t size;   /* of the response */
    bool may_fail, hangs, early, streams_body, echoes;
    /* Who consumes it is alone with these. */
    engine_record *record;
    int64_t got, to_send, sent;
    uint64_t hash, hash_down;
    bool started, ended, finished, cancelled, streamed, manual, known;
    int outcome;
} stress_request;

typedef struct stress {
    const char *(*url_of)(test_random *random, int id, stress_request *q, char *to);
    void (*check)(const stress_request *q);
    int (*id_of)(void);
    engine_config *(*config_of)(engine_limits limits); /* NULL: without options, of two identities */
    bool kills, stops;
    int requests, round;
    /* Its own. */
    engine_pool *pool;
    engine_config *configs[3];
    engine_mailbox *mailbox;
    stress_request boxed[STRESS_MOST]; /* by token */
    _Atomic int boxed_count, boxed_ended, submitted, clients_over;
    _Atomic bool dying, stopping;
    _Atomic long accepted;
} stress;

static inline void stress_message(stress *s, stress_request *q, engine_message *m) {
    CHECK(!q->ended);
    char value[128], expected[128];
    switch (m->kind) {
    case ENGINE_MESSAGE_STARTED:
        CHECK(q->streamed && !q->started);
        q->started = true;
        break;
    case ENGINE_MESSAGE_CHUNK: CHECK(q->started && m->body_size); break;
    case ENGINE_MESSAGE_DONE:
        CHECK(q->started && q->streamed);
        q->ended = true;
        break;
    case ENGINE_MESSAGE_RESPONDED:
        CHECK(!q->streamed);
        q->ended = true;
        break;
    default: q->ended = true;
    }
    if (m->kind == ENGINE_MESSAGE_CHUNK || m->kind == ENGINE_MESSAGE_RESPONDED) {
        if (q->echoes) q->hash_down = fake_hash(q->hash_down, m->body, m->body_size);
        else
            for (size_t i = 0; i < m->body_size; i++)
                MUST((unsigned char)m->body[i] == fake_byte(q->seed, q->got + (int64_t)i));
        q->got += (int64_t)m->body_size;
    }
    if (m->chunk) engine_chunk_free(m->chunk);
    if (!q->ended) return;
    q->outcome = m->kind == ENGINE_MESSAGE_FAILED ? m->outcome : ENGINE_OUTCOME_OK;
    switch (q->outcome) {
    case ENGINE_OUTCOME_OK:
        CHECK(!q->hangs && !q->cancelled);
        if (!q->echoes) CHECK_EQUAL(q->got, q->size);
        if (q->echoes && q->streams_body) {
            CHECK_EQUAL(q->got, q->sent);
            CHECK(q->hash_down == q->hash);
        }
        if (!q->streamed && q->streams_body && !q->early && !q->echoes) {
            snprintf(expected, sizeof expected, "%lld %llx", (long long)q->sent, (unsigned long long)q->hash);
            CHECK(!strcmp(header_of(m->block, m->block_size, "x-body", value, sizeof value), expected));
        }
        break;
    case ENGINE_OUTCOME_CURL:
    case ENGINE_OUTCOME_LOST: CHECK(q->may_fail); break;
    case ENGINE_OUTCOME_CANCELLED: CHECK(q->cancelled); break;
    case ENGINE_OUTCOME_TIMEOUT: CHECK(q->hangs); break;
    case ENGINE_OUTCOME_WORKER_DIED: CHECK(s->kills && atomic_load(&s->dying)); break;
    case ENGINE_OUTCOME_POOL_CLOSED: CHECK(s->stops && atomic_load(&s->stopping)); break;
    case ENGINE_OUTCOME_NO_MEMORY: CHECK(s->kills && atomic_load(&s->dying)); break;
    default: CHECK_EQUAL(q->outcome, ENGINE_OUTCOME_OK);
    }
    if (s->check) s->check(q);
}

static inline void stress_cancel(stress_request *q) {
    if (engine_settle(q->record, ENGINE_OUTCOME_CANCELLED, "c", 1, false)) q->cancelled = true;
}

/* Send some of the body. Returns whether it could. */
static inline bool stress_feed(test_random *random, stress_request *q) {
    if (!q->streams_body || q->finished) return false;
    if (q->sent >= q->to_send) {
        engine_finish(q->record);
        q->finished = true;
        return true;
    }
    char piece[4096];
    size_t n = 1 + test_below(random, sizeof piece);
    if ((int64_t)n > q->to_send - q->sent) n = (size_t)(q->to_send - q->sent);
    for (size_t i = 0; i < n; i++) piece[i] = (char)test_next(random);
    if (engine_send(q->record, piece, n) != ENGINE_SENT) return false;
    q->hash = fake_hash(q->hash, piece, n);
    q->sent += (int64_t)n;
    return true;
}

/* Whether the server may have seen the end of its body: finished on purpose, or as long as it was said to be. */
static inline bool stress_body_whole(const stress_request *q) {
    return !q->streams_body || q->finished || (q->known && q->sent == q->to_send);
}

/* Make a request. False: refused, as may be. */
static inline bool stress_submit(stress *s, test_random *random, stress_request *q, bool boxed, uint64_t token) {
    char url[512], origin[64];
    memset(q, 0, sizeof *q);
    q->id = s->id_of();
    q->hash = q->hash_down = FAKE_HASH_START;
    q->streams_body = !boxed && test_below(random, 3) == 0;
    q->method = q->streams_body ? (test_below(random, 2) ? "POST" : "PUT") : test_below(random, 4) ? "GET" : "POST";
    s->url_of(random, q->id, q, url);
    snprintf(origin, sizeof origin, "%.*s", (int)(strcspn(url + 7, "/") + 7), url);
    q->streamed = test_below(random, 2);
    q->manual = q->streamed && test_below(random, 4) == 0;
    q->to_send = q->streams_body ? test_below(random, 40000) : 0;
    bool known = q->known = q->streams_body && test_below(random, 2);
    int flags = (q->streamed ? ENGINE_STREAM : 0) | (q->manual ? ENGINE_MANUAL_CREDIT : 0) |
                (q->streams_body ? ENGINE_STREAM_BODY : 0) | (test_below(random, 2) ? ENGINE_FINISH_ON_ABANDON : 0);
    if (q->streams_body && !q->streamed) flags &= ~ENGINE_FINISH_ON_ABANDON;
    engine_request request = request_of(s->configs[q->hangs ? 2 : test_below(random, 2)], q->method, url, flags);
    request.origin = origin;
    request.body_size = known ? q->to_send : q->streams_body ? -1 : 0;
    request.window = 1 + test_below(random, 20000);
    request.upload_window = 1 + test_below(random, 10000);
    request.mailbox = boxed ? s->mailbox : NULL;
    request.token = token;
    switch (engine_submit(s->pool, &request, &q->record)) {
    case ENGINE_ACCEPTED: atomic_fetch_add(&s->accepted, 1); return true;
    case ENGINE_CLOSED: CHECK(atomic_load(&s->stopping)); break;
    case ENGINE_GAVE_UP: CHECK(s->kills); break;
    default: CHECK(false);
    }
    CHECK(q->record == NULL);
    return false;
}

/* Work on one of the thread's own requests. Returns whether anything could be done. */
static inline bool stress_work(stress *s, test_random *random, stress_request *q) {
    bool worked = stress_feed(random, q);
    engine_message m;
    if (test_below(random, 4) && engine_take(q->record, &m)) {
        size_t n = m.kind == ENGINE_MESSAGE_CHUNK ? m.body_size : 0;
        stress_message(s, q, &m);
        if (q->manual) engine_credit(q->record, (int64_t)n);
        else engine_consumed(q->record, (int64_t)n);
        worked = true;
    }
    if (!test_below(random, 150)) stress_cancel(q);
    return worked;
}

static inline void stress_wait(stress_request *requests, int count, engine_queue *queue, engine_waiter **waiters) {
    int registered = 0;
    bool already = false;
    for (int i = 0; i < count && !already; i++) {
        if (!requests[i].record) continue;
        int mask = ENGINE_ON_NEWS | (requests[i].streams_body && !requests[i].finished ? ENGINE_ON_ROOM : 0);
        already = engine_record_register(requests[i].record, waiters[i], mask);
        registered++;
    }
    if (!already && registered)
        while (engine_queue_wait(queue, -1, NULL) != 1) continue;
    for (int i = 0; i < count; i++) engine_waiter_cancel(waiters[i]);
    while (engine_queue_take(queue, true)) continue;
}

typedef struct {
    stress *s;
    int index;
} stress_member;

static inline void *stress_client(void *argument) {
    stress_member *x = argument;
    stress *s = x->s;
    test_random random = test_random_of(100 + (uint64_t)(s->round * 10 + x->index));
    engine_queue *queue = engine_queue_new();
    engine_waiter *waiters[STRESS_BATCH];
    for (int i = 0; i < STRESS_BATCH; i++) waiters[i] = engine_waiter_new(queue, s);
    stress_request own[STRESS_BATCH];
    memset(own, 0, sizeof own);
    int active = 0;
    for (bool more = true; more || active;) {
        for (int i = 0; i < STRESS_BATCH; i++) {
            if (own[i].record || !more) continue;
            if (atomic_fetch_add(&s->submitted, 1) >= s->requests) {
                more = false;
            } else if (test_below(&random, 2)) {
                int token = atomic_fetch_add(&s->boxed_count, 1);
                MUST(token < STRESS_MOST);
                stress_request *q = &s->boxed[token];
                if (!stress_submit(s, &random, q, true, (uint64_t)token)) {
                    atomic_fetch_add(&s->boxed_ended, 1);
                } else {
                    /* Its consumer has a reference of its own while it has the record. */
                    if (!test_below(&random, 10)) engine_settle(q->record, ENGINE_OUTCOME_CANCELLED, "c", 1, false);
                    engine_record_unref(q->record);
                }
            } else if (stress_submit(s, &random, &own[i], false, 0)) {
                active++;
            }
        }
        bool worked = false;
        for (int i = 0; i < STRESS_BATCH; i++) {
            stress_request *q = &own[i];
            if (!q->record) continue;
            worked |= stress_work(s, &random, q);
            bool abandons = !q->ended && !test_below(&random, 200);
            if (!q->ended && !abandons) continue;
            if (abandons) engine_abandon(q->record);
            engine_record_unref(q->record);
            q->record = NULL;
            active--;
        }
        if (!worked && active) stress_wait(own, STRESS_BATCH, queue, waiters);
    }
    for (int i = 0; i < STRESS_BATCH; i++) engine_waiter_free(waiters[i]);
    engine_queue_unref(queue);
    atomic_fetch_add(&s->clients_over, 1);
    return NULL;
}

static inline bool stress_boxes_over(stress *s) {
    return atomic_load(&s->clients_over) == STRESS_CLIENTS && atomic_load(&s->boxed_ended) == atomic_load(&s->boxed_count);
}

static inline void *stress_consumer(void *argument) {
    stress_member *x = argument;
    stress *s = x->s;
    test_random random = test_random_of(200 + (uint64_t)(s->round * 10 + x->index));
    engine_queue *queue = engine_queue_new();
    engine_waiter *waiter = engine_waiter_new(queue, s);
    while (!stress_boxes_over(s)) {
        engine_message m;
        engine_record *r = engine_mailbox_take(s->mailbox, &m);
        if (!r) {
            if (engine_mailbox_register(s->mailbox, waiter)) continue;
            if (!test_below(&random, 8)) {
                if (engine_waiter_cancel(waiter) == 2) engine_mailbox_pass_on(s->mailbox);
                continue;
            }
            /* The end may come by a submission that was refused: looked for now and then. */
            int woken = engine_queue_wait(queue, 20 * MS_NS, NULL);
            if (engine_waiter_cancel(waiter) == 2 && woken != 1) engine_mailbox_pass_on(s->mailbox);
            while (engine_queue_take(queue, true)) continue;
            continue;
        }
        stress_request *q = &s->boxed[engine_record_token(r)];
        size_t n = m.kind == ENGINE_MESSAGE_CHUNK ? m.body_size : 0;
        if (m.kind == ENGINE_MESSAGE_FAILED && m.outcome == ENGINE_OUTCOME_CANCELLED) q->cancelled = true;
        stress_message(s, q, &m);
        bool ended = q->ended;
        if (q->manual) engine_credit(r, (int64_t)n);
        else engine_consumed(r, (int64_t)n);
        if (!test_below(&random, 200)) engine_settle(r, ENGINE_OUTCOME_CANCELLED, "c", 1, false);
        engine_mailbox_give_back(s->mailbox, r, false);
        if (ended) atomic_fetch_add(&s->boxed_ended, 1);
    }
    engine_waiter_free(waiter);
    engine_queue_unref(queue);
    return NULL;
}

static inline engine_config *stress_config(engine_limits limits) { return config_with(limits, ""); }

static inline void stress_run(stress *s) {
    MUST(s->requests <= STRESS_MOST);
    s->pool = pool_with(2, 12, 4, 0);
    engine_config *(*make)(engine_limits) = s->config_of ? s->config_of : stress_config;
    s->configs[0] = make((engine_limits){.read_ms = 50000, .total_ms = 60000});
    s->configs[1] = s->config_of ? make((engine_limits){0}) : config_with((engine_limits){0}, "other");
    s->configs[2] = make((engine_limits){.connect_ms = 50, .read_ms = 60, .total_ms = 200});
    s->mailbox = engine_mailbox_new();
    enum { THREADS = STRESS_CLIENTS + STRESS_CONSUMERS };
    test_thread threads[THREADS];
    stress_member members[THREADS];
    for (int i = 0; i < THREADS; i++) {
        members[i] = (stress_member){s, i};
        test_start(&threads[i], i < STRESS_CLIENTS ? stress_client : stress_consumer, &members[i]);
    }
    test_random random = test_random_of(300 + (uint64_t)s->round);
    if (s->kills)
        for (int kill = 0; kill < 12 && atomic_load(&s->clients_over) < STRESS_CLIENTS; kill++) {
            int seen = atomic_load(&s->submitted);
            while (atomic_load(&s->submitted) < seen + s->requests / 15 && atomic_load(&s->clients_over) < STRESS_CLIENTS)
                test_yield();
            atomic_store(&s->dying, true);
            engine_pool_fault(s->pool, kill % 2, 1 + (int)test_below(&random, 3));
        }
    if (s->stops) {
        while (atomic_load(&s->submitted) < s->requests * 2 / 3) test_yield();
        atomic_store(&s->stopping, true);
        engine_pool_stop(s->pool);
    }
    for (int i = 0; i < THREADS; i++) test_join(&threads[i]);
    await_pool(s->pool, ENGINE_ON_IDLE);
    engine_pool_statistics statistics;
    engine_pool_read(s->pool, &statistics);
    CHECK_EQUAL(statistics.in_flight, 0);
    CHECK_EQUAL(statistics.completed + statistics.failed, atomic_load(&s->accepted));
    CHECK_EQUAL(engine_mailbox_count(s->mailbox), 0);
    for (int i = 0; i < s->boxed_count; i++)
        if (s->boxed[i].id && s->boxed[i].record) CHECK(s->boxed[i].ended);
    engine_mailbox_drop(s->mailbox);
    close_pool(s->pool);
    for (int i = 0; i < 3; i++) engine_config_unref(s->configs[i]);
}

#endif
