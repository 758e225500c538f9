/* Wake queues and waiters, with a plain source of their own. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../src/queue.h"
#include "test.h"

/* A source of news: its list under a record's lock. */
typedef struct {
    waiters waiters;
    bool news;
} source;

static void add(source *s, engine_waiter *w, int mask) {
    lock(LOCK_RECORD, s);
    waiters_add(&s->waiters, LOCK_RECORD, s, w, mask);
    unlock(LOCK_RECORD, s);
}

static bool fire(source *s, int mask, bool one) {
    lock(LOCK_RECORD, s);
    bool fired = waiters_fire(&s->waiters, mask, one);
    unlock(LOCK_RECORD, s);
    return fired;
}

static bool readable(engine_queue *q) {
    struct pollfd fd = {.fd = engine_queue_fd(q), .events = POLLIN};
    return poll(&fd, 1, 0) == 1;
}

/* How often the descriptor was written since the last look. */
static uint64_t writes(engine_queue *q) {
    eventfd_t count = 0;
    return eventfd_read(engine_queue_fd(q), &count) ? 0 : count;
}

static int owners[8];

static engine_waiter *waiter(engine_queue *q, int i) {
    engine_waiter *w = engine_waiter_new(q, &owners[i]);
    MUST(w);
    return w;
}

static engine_queue *queue(void) {
    engine_queue *q = engine_queue_new();
    MUST(q);
    return q;
}

static void fired_waiters_arrive_in_order(void) {
    source s = {0};
    waiters_init(&s.waiters);
    engine_queue *q = queue();
    engine_waiter *w[3];
    for (int i = 0; i < 3; i++) add(&s, w[i] = waiter(q, i), ENGINE_ON_NEWS);
    CHECK(!readable(q));
    CHECK(engine_queue_take(q, true) == NULL);
    CHECK(!fire(&s, ENGINE_ON_ROOM, false)); /* nobody asked for that */
    CHECK(!readable(q));
    CHECK(fire(&s, ENGINE_ON_NEWS | ENGINE_ON_ROOM, false));
    CHECK(readable(q));
    CHECK(engine_queue_take(q, true) == &owners[0]);
    CHECK(engine_queue_take(q, false) == &owners[1]);
    CHECK(engine_queue_take(q, false) == &owners[2]);
    CHECK(engine_queue_take(q, false) == NULL);
    CHECK(!readable(q));
    CHECK(!fire(&s, ENGINE_ON_NEWS, false)); /* single shot */
    add(&s, w[0], ENGINE_ON_TERMINAL); /* and may be registered again */
    CHECK(fire(&s, ENGINE_ON_TERMINAL, false));
    CHECK(engine_queue_take(q, true) == &owners[0]);
    for (int i = 0; i < 3; i++) engine_waiter_free(w[i]);
    engine_queue_unref(q);
}

static void one_is_woken_when_one_is_wanted(void) {
    source s = {0};
    waiters_init(&s.waiters);
    engine_queue *q = queue();
    engine_waiter *a = waiter(q, 0), *b = waiter(q, 1), *c = waiter(q, 2);
    add(&s, a, ENGINE_ON_ROOM);
    add(&s, b, ENGINE_ON_NEWS);
    add(&s, c, ENGINE_ON_NEWS);
    CHECK(fire(&s, ENGINE_ON_NEWS, true));
    CHECK(engine_queue_take(q, true) == &owners[1]);
    CHECK(engine_queue_take(q, false) == NULL);
    CHECK_EQUAL(engine_waiter_cancel(a), 1);
    CHECK_EQUAL(engine_waiter_cancel(c), 1);
    CHECK(!fire(&s, ENGINE_ON_NEWS, true));
    engine_waiter_free(a);
    engine_waiter_free(b);
    engine_waiter_free(c);
    engine_queue_unref(q);
}

static void one_wake_up_a_batch(void) {
    source s = {0};
    waiters_init(&s.waiters);
    engine_queue *q = queue();
    engine_waiter *w[8];
    for (int i = 0; i < 8; i++) add(&s, w[i] = waiter(q, i), ENGINE_ON_NEWS);
    for (int i = 0; i < 8; i++) fire(&s, ENGINE_ON_NEWS, true);
    CHECK_EQUAL(writes(q), 1);
    while (engine_queue_take(q, false)) continue;
    add(&s, w[0], ENGINE_ON_NEWS);
    fire(&s, ENGINE_ON_NEWS, true);
    CHECK_EQUAL(writes(q), 1); /* drained: the next one writes again */
    while (engine_queue_take(q, true)) continue;
    for (int i = 0; i < 8; i++) engine_waiter_free(w[i]);
    engine_queue_unref(q);
}

typedef struct {
    source *s;
    engine_queue **queues;
    int count;
    bool ok;
} collector;

static void *collects(void *argument) {
    collector *c = argument;
    wakes_collect();
    for (int i = 0; i < c->count; i++) fire(c->s, ENGINE_ON_NEWS, true);
    c->ok = true;
    /* 64 fit: from the next on they are written at once. */
    for (int i = 0; i < c->count; i++) c->ok &= readable(c->queues[i]) == (i >= 64);
    wakes_flush();
    for (int i = 0; i < c->count; i++) c->ok &= writes(c->queues[i]) == 1;
    wakes_flush();
    for (int i = 0; i < c->count; i++) c->ok &= !readable(c->queues[i]);
    return NULL;
}

static void a_collecting_thread_wakes_when_it_flushes(void) {
    enum { QUEUES = 70 };
    source s = {0};
    waiters_init(&s.waiters);
    engine_queue *queues[QUEUES];
    engine_waiter *w[QUEUES];
    for (int i = 0; i < QUEUES; i++) {
        queues[i] = queue();
        add(&s, w[i] = waiter(queues[i], 0), ENGINE_ON_NEWS);
    }
    collector c = {&s, queues, QUEUES, false};
    test_thread t;
    test_start(&t, collects, &c);
    test_join(&t);
    CHECK(c.ok);
    for (int i = 0; i < QUEUES; i++) {
        CHECK(engine_queue_take(queues[i], true) == &owners[0]);
        engine_waiter_free(w[i]);
        engine_queue_unref(queues[i]);
    }
}

static void cancel_says_what_it_found(void) {
    source s = {0};
    waiters_init(&s.waiters);
    engine_queue *q = queue();
    engine_waiter *w = waiter(q, 0), *other = waiter(q, 1);
    CHECK_EQUAL(engine_waiter_cancel(w), 0); /* never registered */
    add(&s, w, ENGINE_ON_NEWS);
    add(&s, other, ENGINE_ON_NEWS);
    CHECK_EQUAL(engine_waiter_cancel(w), 1);
    CHECK_EQUAL(engine_waiter_cancel(w), 0);
    fire(&s, ENGINE_ON_NEWS, false);
    CHECK_EQUAL(engine_waiter_cancel(other), 2);
    CHECK_EQUAL(engine_waiter_cancel(other), 0);
    CHECK(engine_queue_take(q, true) == NULL);
    add(&s, other, ENGINE_ON_NEWS);
    fire(&s, ENGINE_ON_NEWS, false);
    CHECK(engine_queue_take(q, true) == &owners[1]);
    CHECK_EQUAL(engine_waiter_cancel(other), 0);
    engine_waiter_free(w);
    engine_waiter_free(other);
    engine_queue_unref(q);
}

static void a_waiter_keeps_its_queue(void) {
    engine_queue *q = queue();
    engine_waiter *w = waiter(q, 0);
    engine_queue_unref(q);
    CHECK_EQUAL(engine_counted(ENGINE_COUNT_QUEUES), 1);
    engine_waiter_free(w);
    CHECK_EQUAL(engine_counted(ENGINE_COUNT_QUEUES), 0);
    engine_waiter_free(NULL);
    engine_queue_unref(NULL);
}

static void waiting_ends_by_news_time_or_poke(void) {
    source s = {0};
    waiters_init(&s.waiters);
    engine_queue *q = queue();
    CHECK_EQUAL(engine_queue_wait(q, 0, NULL), 0);
    CHECK_EQUAL(engine_queue_wait(q, MS_NS, NULL), 0);
    engine_queue_poke(q);
    CHECK_EQUAL(engine_queue_wait(q, -1, NULL), 1);
    CHECK(engine_queue_take(q, true) == NULL);
    CHECK_EQUAL(engine_queue_wait(q, 0, NULL), 0);
    engine_waiter *w = waiter(q, 0);
    add(&s, w, ENGINE_ON_NEWS);
    fire(&s, ENGINE_ON_NEWS, false);
    CHECK_EQUAL(engine_queue_wait(q, -1, NULL), 1);
    CHECK(engine_queue_take(q, true) == &owners[0]);
    engine_waiter_free(w);
    engine_queue_unref(q);
}

static void ignore(int signal_number) { (void)signal_number; }

static void a_signal_ends_the_wait(void) {
    engine_queue *q = queue();
    sigset_t usr1, before;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    struct sigaction action = {.sa_handler = ignore};
    sigaction(SIGUSR1, &action, NULL);
    pthread_sigmask(SIG_BLOCK, &usr1, &before);
    raise(SIGUSR1); /* pending before the wait begins: nothing is missed */
    CHECK_EQUAL(engine_queue_wait(q, -1, &before), -1);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    engine_queue_unref(q);
}

static void a_forked_child_has_descriptors_of_its_own(void) {
    source s = {0};
    waiters_init(&s.waiters);
    engine_queue *a = queue(), *b = queue();
    engine_waiter *w = waiter(a, 0);
    add(&s, w, ENGINE_ON_NEWS);
    fire(&s, ENGINE_ON_NEWS, false);
    int inherited = dup(engine_queue_fd(b));
    queues_after_fork(); /* as a child would call it */
    engine_queue_poke(b);
    struct pollfd fd = {.fd = inherited, .events = POLLIN};
    CHECK_EQUAL(poll(&fd, 1, 0), 0); /* the parent's is untouched */
    CHECK(readable(a));              /* what was woken still is */
    CHECK(engine_queue_take(a, true) == &owners[0]);
    close(inherited);
    engine_waiter_free(w);
    engine_queue_unref(a);
    engine_queue_unref(b);
}

/* ---- racing: threads that fire against threads that take and cancel */

enum { ROUNDS = 3000 };
static _Atomic bool firing;

static void *fires(void *argument) {
    source *s = argument;
    while (atomic_load(&firing)) {
        lock(LOCK_RECORD, s);
        s->news = true;
        waiters_fire(&s->waiters, ENGINE_ON_NEWS, false);
        unlock(LOCK_RECORD, s);
    }
    return NULL;
}

static void racing_cancels_lose_nothing(void) {
    source s = {0};
    waiters_init(&s.waiters);
    engine_queue *q = queue();
    engine_waiter *w = waiter(q, 0);
    atomic_store(&firing, true);
    test_thread threads[2];
    for (int i = 0; i < 2; i++) test_start(&threads[i], fires, &s);
    test_random random = test_random_of(3);
    for (int i = 0; i < ROUNDS; i++) {
        add(&s, w, ENGINE_ON_NEWS);
        if (test_below(&random, 2)) {
            /* Fired for certain: the wait ends, whatever was left in the descriptor. */
            void *owner = NULL;
            while (!owner) {
                MUST(engine_queue_wait(q, -1, NULL) == 1);
                owner = engine_queue_take(q, true);
            }
            CHECK(owner == &owners[0]);
            CHECK_EQUAL(engine_waiter_cancel(w), 0);
            CHECK(engine_queue_take(q, false) == NULL);
        } else {
            CHECK(engine_waiter_cancel(w) > 0);
        }
    }
    atomic_store(&firing, false);
    for (int i = 0; i < 2; i++) test_join(&threads[i]);
    engine_waiter_free(w);
    engine_queue_unref(q);
}

/* The thread that cancels is not the one that takes, as where an event loop's waiter is given up by another thread. */
typedef struct {
    engine_queue *q;
    _Atomic int taken;
    _Atomic bool over;
} taker;

static void *takes(void *argument) {
    taker *t = argument;
    while (!atomic_load(&t->over)) {
        if (engine_queue_wait(t->q, 10 * MS_NS, NULL) != 1) continue;
        for (bool first = true; engine_queue_take(t->q, first); first = false) atomic_fetch_add(&t->taken, 1);
    }
    return NULL;
}

static void taken_or_cancelled_never_both(void) {
    source s = {0};
    waiters_init(&s.waiters);
    taker t = {.q = queue()};
    test_thread thread;
    test_start(&thread, takes, &t);
    int cancelled = 0;
    for (int i = 0; i < ROUNDS; i++) {
        engine_waiter *w = waiter(t.q, 0);
        add(&s, w, ENGINE_ON_NEWS);
        fire(&s, ENGINE_ON_NEWS, false);
        int before = i - cancelled; /* taken so far, without this one */
        if (engine_waiter_cancel(w)) cancelled++;
        else
            while (atomic_load(&t.taken) < before + 1) test_yield();
        engine_waiter_free(w);
    }
    atomic_store(&t.over, true);
    engine_queue_poke(t.q);
    test_join(&thread);
    CHECK_EQUAL(atomic_load(&t.taken) + cancelled, ROUNDS);
    engine_queue_unref(t.q);
}

CASES({"fired_waiters_arrive_in_order", fired_waiters_arrive_in_order},
      {"one_is_woken_when_one_is_wanted", one_is_woken_when_one_is_wanted}, {"one_wake_up_a_batch", one_wake_up_a_batch},
      {"a_collecting_thread_wakes_when_it_flushes", a_collecting_thread_wakes_when_it_flushes},
      {"cancel_says_what_it_found", cancel_says_what_it_found}, {"a_waiter_keeps_its_queue", a_waiter_keeps_its_queue},
      {"waiting_ends_by_news_time_or_poke", waiting_ends_by_news_time_or_poke},
      {"a_signal_ends_the_wait", a_signal_ends_the_wait},
      {"a_forked_child_has_descriptors_of_its_own", a_forked_child_has_descriptors_of_its_own},
      {"racing_cancels_lose_nothing", racing_cancels_lose_nothing},
      {"taken_or_cancelled_never_both", taken_or_cancelled_never_both})
