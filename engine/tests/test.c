#include "test.h"

#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ALARM_SECONDS 120 /* far beyond what a program takes under TSan; a hang ends here, by the signal itself */

uint64_t test_seed;
static _Atomic int failures;
static const char *current = "";
static int arguments_count;
static char **arguments;

/* The sanitizers ask for these. A child of a process with threads starts threads of its own here; and before a fork all locks
 * are held at once, which are more than the deadlock detector counts to: lock_order.c watches their order instead. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) { return "die_after_fork=0:detect_deadlocks=0"; }
const char *__ubsan_default_options(void);
const char *__ubsan_default_options(void) { return "print_stacktrace=1:halt_on_error=1"; }

bool test_check(bool ok, const char *file, int line, const char *text) {
    if (ok) return true;
    atomic_fetch_add(&failures, 1);
    fprintf(stderr, "%s:%d: %s: false: %s\n", file, line, current, text);
    return false;
}

bool test_check_equal(long long got, long long expected, const char *file, int line, const char *got_text,
                      const char *expected_text) {
    if (got == expected) return true;
    atomic_fetch_add(&failures, 1);
    fprintf(stderr, "%s:%d: %s: %s is %lld, not %s (%lld)\n", file, line, current, got_text, got, expected_text, expected);
    return false;
}

void test_must(bool ok, const char *file, int line, const char *text) {
    if (ok) return;
    fprintf(stderr, "%s:%d: %s: cannot go on: %s\n", file, line, current, text);
    abort();
}

void test_child(void) {
    atomic_store(&failures, 0);
    alarm(ALARM_SECONDS / 2);
}

bool test_may_fork(void) {
#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
    printf(" (no forks under gcc's ThreadSanitizer)");
    return false;
#else
    return true;
#endif
}

int test_result(void) { return atomic_load(&failures) ? 1 : 0; }

const char *test_option(const char *name) {
    size_t size = strlen(name);
    for (int i = 1; i < arguments_count; i++)
        if (!strncmp(arguments[i], "--", 2) && !strncmp(arguments[i] + 2, name, size) && arguments[i][2 + size] == '=')
            return arguments[i] + 3 + size;
    return NULL;
}

test_random test_random_of(uint64_t stream) {
    test_random r = {(test_seed + 1) * UINT64_C(0x9e3779b97f4a7c15) ^ (stream + 1) * UINT64_C(0xbf58476d1ce4e5b9)};
    if (!r.state) r.state = 1;
    for (int i = 0; i < 4; i++) test_next(&r);
    return r;
}

uint64_t test_next(test_random *r) {
    r->state ^= r->state >> 12;
    r->state ^= r->state << 25;
    r->state ^= r->state >> 27;
    return r->state * UINT64_C(0x2545f4914f6cdd1d);
}

void test_start(test_thread *t, void *(*run)(void *), void *argument) {
    t->run = run;
    t->argument = argument;
    MUST(pthread_create(&t->thread, NULL, run, argument) == 0);
}

void test_join(test_thread *t) { MUST(pthread_join(t->thread, NULL) == 0); }

void test_yield(void) { sched_yield(); }

void test_check_counts(void) {
    for (int i = 0; i < ENGINE_COUNT_END; i++)
        if (engine_counted(i)) {
            atomic_fetch_add(&failures, 1);
            fprintf(stderr, "%s: %ld %s left\n", current, engine_counted(i), engine_count_name(i));
        }
}

static bool chosen(const char *name) {
    bool any = false;
    for (int i = 1; i < arguments_count; i++) {
        if (!strncmp(arguments[i], "--", 2)) continue;
        any = true;
        if (strstr(name, arguments[i])) return true;
    }
    return !any;
}

int main(int argc, char **argv) {
    arguments_count = argc;
    arguments = argv;
    signal(SIGPIPE, SIG_IGN);
    alarm(ALARM_SECONDS);
    const char *seed = test_option("seed");
    if (!seed) seed = getenv("KATIPO_TEST_SEED");
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    test_seed = seed ? strtoull(seed, NULL, 0) : (uint64_t)(ts.tv_nsec / 1000 ^ ts.tv_sec) % 1000000;
    printf("seed %llu\n", (unsigned long long)test_seed);
    fflush(stdout);
    for (size_t i = 0; i < test_case_count; i++) {
        if (!chosen(test_cases[i].name)) continue;
        current = test_cases[i].name;
        int before = atomic_load(&failures);
        int64_t began = now_ns();
        printf("%s", current);
        fflush(stdout);
        test_cases[i].run();
        test_check_counts();
        printf(": %s (%lld ms)\n", atomic_load(&failures) == before ? "ok" : "FAILED",
               (long long)((now_ns() - began) / MS_NS));
        fflush(stdout);
    }
    return test_result();
}
