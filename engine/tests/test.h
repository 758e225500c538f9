/* A test program: named cases, run one after another, each with its checks and with all counts back at zero at its end.
 *
 *     CASES({"name_of_a_behaviour", function}, ...)
 *
 * Arguments: words that are not options choose the cases whose names contain one of them. `--seed=N` or the environment
 * variable KATIPO_TEST_SEED sets the seed of what is random; it is printed. The program ends by SIGALRM rather than hang.
 */
#ifndef KATIPO_TEST_H
#define KATIPO_TEST_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "../src/base.h"

typedef struct {
    const char *name;
    void (*run)(void);
} test_case;

/* Noted; the case goes on. */
#define CHECK(condition) test_check(!!(condition), __FILE__, __LINE__, #condition)
#define CHECK_EQUAL(got, expected) \
    test_check_equal((long long)(got), (long long)(expected), __FILE__, __LINE__, #got, #expected)
/* The case cannot go on without it: the program aborts. */
#define MUST(condition) test_must(!!(condition), __FILE__, __LINE__, #condition)

bool test_check(bool ok, const char *file, int line, const char *text);
bool test_check_equal(long long got, long long expected, const char *file, int line, const char *got_text,
                      const char *expected_text);
void test_must(bool ok, const char *file, int line, const char *text);
/* Every count is at zero. Done at the end of each case. */
void test_check_counts(void);
/* In a forked child: a count of failures and an alarm of its own. It leaves by _exit with the result, 0 or 1. */
void test_child(void);
int test_result(void);
/* Whether a child may start threads: the ThreadSanitizer of older gcc aborts then. */
bool test_may_fork(void);

/* Every program defines these with CASES. */
extern const test_case test_cases[];
extern const size_t test_case_count;
#define CASES(...) \
    const test_case test_cases[] = {__VA_ARGS__}; \
    const size_t test_case_count = sizeof test_cases / sizeof *test_cases;

/* Called before the cases with what the arguments begin with "--"; a program that takes none leaves it alone. */
extern uint64_t test_seed;
const char *test_option(const char *name); /* the value of --name=value, or NULL */

/* A generator of one's own for each thread: xorshift64*. */
typedef struct {
    uint64_t state;
} test_random;
test_random test_random_of(uint64_t stream);
uint64_t test_next(test_random *r);
static inline unsigned test_below(test_random *r, unsigned n) { return (unsigned)((test_next(r) >> 33) % n); }

typedef struct {
    pthread_t thread;
    void *(*run)(void *);
    void *argument;
} test_thread;
void test_start(test_thread *t, void *(*run)(void *), void *argument);
void test_join(test_thread *t);

/* How many engine locks this thread holds (lock_order.c); 0 where the linker cannot wrap functions. */
int test_locks_held(void);

/* A loop that waits for another thread without being told: lets that one run. */
void test_yield(void);

#endif
