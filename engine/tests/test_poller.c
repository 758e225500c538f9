/* Both pollers, by the same cases: readiness, removal, the other side's end, many descriptors, the wake-up. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../src/poller.h"
#include "test.h"

#define MANY 400

static const struct poller_kind *kind;
static poller_event events[64];

static poller *make(void) {
    poller *p = kind->make();
    MUST(p);
    CHECK(p->kind == kind);
    return p;
}

/* What has come for `fd`: -1 for nothing. At once, or after as long as it takes. */
static int what_came(poller *p, int fd, int64_t timeout_ns, uint32_t *generation) {
    int n = kind->wait(p, events, 64, timeout_ns);
    MUST(n >= 0);
    for (int i = 0; i < n; i++)
        if (events[i].fd == fd) {
            if (generation) *generation = events[i].generation;
            return events[i].what;
        }
    return -1;
}

static void pair(int fds[2]) { MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0); }

static void readiness(void) {
    poller *p = make();
    int fds[2];
    pair(fds);
    uint32_t generation = 0;
    CHECK_EQUAL(kind->set(p, fds[0], 0, POLLER_IN, 7), 0);
    CHECK_EQUAL(what_came(p, fds[0], 0, NULL), -1);
    MUST(write(fds[1], "x", 1) == 1);
    CHECK_EQUAL(what_came(p, fds[0], FOREVER, &generation), POLLER_IN);
    CHECK_EQUAL(generation, 7);
    CHECK_EQUAL(what_came(p, fds[0], FOREVER, NULL), POLLER_IN); /* level-triggered */
    CHECK_EQUAL(kind->set(p, fds[0], POLLER_IN, POLLER_IN | POLLER_OUT, UINT32_MAX), 0);
    CHECK_EQUAL(what_came(p, fds[0], FOREVER, &generation), POLLER_IN | POLLER_OUT);
    CHECK_EQUAL(generation, UINT32_MAX);
    CHECK_EQUAL(kind->set(p, fds[0], POLLER_IN | POLLER_OUT, POLLER_OUT, 8), 0);
    CHECK_EQUAL(what_came(p, fds[0], FOREVER, &generation), POLLER_OUT);
    CHECK_EQUAL(generation, 8);
    kind->destroy(p);
    close(fds[0]);
    close(fds[1]);
}

static void removal(void) {
    poller *p = make();
    int fds[2];
    pair(fds);
    MUST(write(fds[1], "x", 1) == 1);
    CHECK_EQUAL(kind->set(p, fds[0], 0, 0, 1), 0); /* was not there */
    CHECK_EQUAL(kind->set(p, fds[0], 0, POLLER_IN, 1), 0);
    CHECK_EQUAL(kind->set(p, fds[0], POLLER_IN, 0, 1), 0);
    CHECK_EQUAL(what_came(p, fds[0], 0, NULL), -1);
    CHECK_EQUAL(kind->set(p, fds[0], 0, POLLER_IN, 2), 0);
    CHECK_EQUAL(what_came(p, fds[0], FOREVER, NULL), POLLER_IN);
    /* Closed before it is removed, as older versions of libcurl do: no error. */
    close(fds[0]);
    CHECK_EQUAL(kind->set(p, fds[0], POLLER_IN, 0, 2), 0);
    CHECK_EQUAL(kind->set(p, fds[0], 0, 0, 2), 0);
    CHECK_EQUAL(what_came(p, fds[0], 0, NULL), -1);
    kind->destroy(p);
    close(fds[1]);
}

/* The caller's `before` may be wrong after a close that nobody told of: the number is another descriptor now. */
static void wrong_before_is_repaired(void) {
    poller *p = make();
    int fds[2];
    pair(fds);
    MUST(write(fds[1], "x", 1) == 1);
    CHECK_EQUAL(kind->set(p, fds[0], POLLER_IN, POLLER_IN, 1), 0); /* was said to be there, and is not */
    CHECK_EQUAL(what_came(p, fds[0], FOREVER, NULL), POLLER_IN);
    CHECK_EQUAL(kind->set(p, fds[0], 0, POLLER_OUT, 2), 0); /* was said not to be there, and is */
    CHECK_EQUAL(what_came(p, fds[0], FOREVER, NULL), POLLER_OUT);
    kind->destroy(p);
    close(fds[0]);
    close(fds[1]);
}

static void end_of_the_other_side(void) {
    poller *p = make();
    int fds[2];
    pair(fds);
    CHECK_EQUAL(kind->set(p, fds[0], 0, POLLER_IN, 1), 0);
    close(fds[1]);
    int what = what_came(p, fds[0], FOREVER, NULL);
    CHECK(what > 0 && what & POLLER_IN);
    close(fds[0]);
    CHECK_EQUAL(kind->set(p, fds[0], POLLER_IN, 0, 1), 0);
    /* A writer whose reader is gone hears of an error, although it asked for room only. */
    MUST(pipe(fds) == 0);
    close(fds[0]);
    CHECK_EQUAL(kind->set(p, fds[1], 0, POLLER_OUT, 2), 0);
    what = what_came(p, fds[1], FOREVER, NULL);
    CHECK(what > 0 && what & POLLER_ERROR);
    kind->destroy(p);
    close(fds[1]);
}

static void many_descriptors_none_starves(void) {
    struct rlimit limit;
    MUST(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    int count = limit.rlim_cur < 2 * MANY + 50 ? ((int)limit.rlim_cur - 50) / 2 : MANY;
    poller *p = make();
    static int fds[MANY][2];
    static bool seen[1 << 16];
    memset(seen, 0, sizeof seen);
    for (int i = 0; i < count; i++) {
        pair(fds[i]);
        MUST(fds[i][0] < 1 << 16);
        CHECK_EQUAL(kind->set(p, fds[i][0], 0, POLLER_IN, (uint32_t)i), 0);
        MUST(write(fds[i][1], "x", 1) == 1);
    }
    /* All stay ready, and few are taken at a time: each comes up within a bounded number of waits. */
    int left = count;
    for (int wait = 0; wait < 4 * MANY && left; wait++) {
        int n = kind->wait(p, events, 16, 0);
        MUST(n > 0 && n <= 16);
        for (int i = 0; i < n; i++) {
            CHECK_EQUAL(fds[events[i].generation][0], events[i].fd);
            if (!seen[events[i].fd]) left--;
            seen[events[i].fd] = true;
        }
    }
    CHECK_EQUAL(left, 0);
    for (int i = 0; i < count; i += 2) CHECK_EQUAL(kind->set(p, fds[i][0], POLLER_IN, 0, (uint32_t)i), 0);
    for (int wait = 0; wait < 4 * MANY; wait++) {
        int n = kind->wait(p, events, 64, 0);
        for (int i = 0; i < n; i++) MUST(events[i].generation % 2 == 1);
    }
    kind->destroy(p);
    for (int i = 0; i < count; i++) {
        close(fds[i][0]);
        close(fds[i][1]);
    }
}

static void wake_up_is_no_event(void) {
    poller *p = make();
    poller_wake(p);
    poller_wake(p);
    CHECK_EQUAL(kind->wait(p, events, 64, FOREVER), 0);
    CHECK_EQUAL(kind->wait(p, events, 64, 0), 0);
    CHECK_EQUAL(kind->wait(p, events, 64, MS_NS / 2), 0); /* less than its resolution: no spinning, no eternity */
    kind->destroy(p);
}

static void *wakes(void *argument) {
    poller_wake(argument);
    return NULL;
}

static void wakes_from_another_thread(void) {
    poller *p = make();
    for (int i = 0; i < 50; i++) {
        test_thread t;
        test_start(&t, wakes, p);
        CHECK_EQUAL(kind->wait(p, events, 64, FOREVER), 0);
        test_join(&t);
    }
    kind->destroy(p);
}

static void fails_when_told(void) {
    poller *p = make();
    p->fail = true;
    CHECK(kind->wait(p, events, 64, 0) < 0);
    kind->destroy(p);
}

static void chosen_by_environment(void) {
#ifdef __linux__
    setenv("KATIPO_POLLER", "poll", 1);
    poller *p = poller_new();
    MUST(p);
    CHECK(p->kind == &poller_poll);
    p->kind->destroy(p);
    setenv("KATIPO_POLLER", "epoll", 1);
    p = poller_new();
    CHECK(p->kind == &poller_epoll);
    p->kind->destroy(p);
    unsetenv("KATIPO_POLLER");
#endif
}

static void leaves_no_descriptor(void) {
    int before = dup(0);
    close(before);
    for (int i = 0; i < 10; i++) kind->destroy(make());
    int after = dup(0);
    CHECK_EQUAL(after, before);
    close(after);
    CHECK_EQUAL(engine_counted(ENGINE_COUNT_SOCKETS), 0);
}

#define WITH(name, case_) \
    static void name##_##case_(void) { \
        kind = &poller_##name; \
        case_(); \
    }
/* clang-format off */
#define EACH(X, name) \
    X(name, readiness) \
    X(name, removal) X(name, wrong_before_is_repaired) X(name, end_of_the_other_side) \
        X(name, many_descriptors_none_starves) X(name, wake_up_is_no_event) X(name, wakes_from_another_thread) \
            X(name, fails_when_told) X(name, leaves_no_descriptor)
/* clang-format on */
#define ENTRY(name, case_) {#name "_" #case_, name##_##case_},
EACH(WITH, poll)
#ifdef __linux__
EACH(WITH, epoll)
CASES(EACH(ENTRY, poll) EACH(ENTRY, epoll){"chosen_by_environment", chosen_by_environment})
#else
CASES(EACH(ENTRY, poll){"chosen_by_environment", chosen_by_environment})
#endif
