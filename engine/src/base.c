#include "base.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

int64_t now_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * SECOND_NS + ts.tv_nsec;
}

int64_t engine_now(void) { return now_ns(); }

/* ---- names: each enum, its names and its text come from one X-macro */

#define NAME(id, name) name,
static const char *const outcome_names[] = {ENGINE_OUTCOMES(NAME)};
static const char *const clock_names[] = {ENGINE_CLOCKS(NAME)};
static const char *const count_names[] = {ENGINE_COUNTS(NAME)};

const char *engine_outcome_name(int i) { return i >= 0 && i < ENGINE_OUTCOME_END ? outcome_names[i] : NULL; }
const char *engine_clock_name(int i) { return i >= 0 && i < ENGINE_CLOCK_END ? clock_names[i] : NULL; }
const char *engine_count_name(int i) { return i >= 0 && i < ENGINE_COUNT_END ? count_names[i] : NULL; }

/* ---- live objects */

static _Atomic long live[ENGINE_COUNT_END];

long engine_counted(int i) { return atomic_load_explicit(&live[i], memory_order_relaxed); }
void count_up(engine_count i) { atomic_fetch_add_explicit(&live[i], 1, memory_order_relaxed); }
void count_down(engine_count i) { atomic_fetch_sub_explicit(&live[i], 1, memory_order_relaxed); }

void counts_forget_threads(void) {
    static const engine_count gone[] = {ENGINE_COUNT_EASIES, ENGINE_COUNT_MULTIS, ENGINE_COUNT_SOCKETS, ENGINE_COUNT_WEDGED};
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) atomic_store(&live[gone[i]], 0);
}

/* ---- memory */

static _Thread_local bool fail_next, has_failed;

static bool told_to_fail(void) {
    if (!fail_next) return false;
    fail_next = false;
    has_failed = true;
    return true;
}

void mem_fail_next(void) { fail_next = true; }
bool mem_failed(void) {
    bool failed = has_failed;
    has_failed = false;
    return failed;
}

void *mem_alloc(size_t size) {
    void *p = told_to_fail() ? NULL : malloc(size ? size : 1);
    if (!p) has_failed = true;
    return p;
}
void *mem_zalloc(size_t size) {
    void *p = told_to_fail() ? NULL : calloc(1, size ? size : 1);
    if (!p) has_failed = true;
    return p;
}
void *mem_realloc(void *old, size_t size) {
    void *p = told_to_fail() ? NULL : realloc(old, size);
    if (!p) has_failed = true;
    return p;
}
char *mem_copy(const void *data, size_t size) {
    char *p = mem_alloc(size + 1);
    if (!p) return NULL;
    if (size) memcpy(p, data, size);
    p[size] = 0;
    return p;
}

/* Blocks lock. 16 of them, 2 MiB: two default windows; arbitrary. */
static void *kept_blocks[16];
static int kept_count;

void *block_alloc(void) {
    void *block = NULL;
    lock(LOCK_BLOCKS, NULL);
    if (kept_count) block = kept_blocks[--kept_count];
    unlock(LOCK_BLOCKS, NULL);
    return block ? block : mem_alloc(LARGE_BLOCK);
}

void block_free(void *block) {
    lock(LOCK_BLOCKS, NULL);
    if (kept_count < (int)(sizeof kept_blocks / sizeof *kept_blocks)) {
        kept_blocks[kept_count++] = block;
        block = NULL;
    }
    unlock(LOCK_BLOCKS, NULL);
    free(block);
}

void blocks_trim(void) {
    void *block;
    do {
        block = NULL;
        lock(LOCK_BLOCKS, NULL);
        if (kept_count) block = kept_blocks[--kept_count];
        unlock(LOCK_BLOCKS, NULL);
        free(block);
    } while (block);
}

bool buffer_reserve(buffer *b, size_t room) {
    if (room <= b->room) return true;
    char *data = mem_realloc(b->data, room);
    if (!data) return false;
    b->data = data;
    b->room = room;
    return true;
}

bool buffer_add(buffer *b, const void *data, size_t size) {
    if (size > b->room - b->size) {
        size_t room = b->room ? b->room : 256;
        while (room - b->size < size) room *= 2;
        if (!buffer_reserve(b, room)) return false;
    }
    if (size) memcpy(b->data + b->size, data, size);
    b->size += size;
    return true;
}

void buffer_clear(buffer *b) {
    if (b->room) free(b->data);
    memset(b, 0, sizeof *b);
}

/* ---- locks */

/* Stripes of each kind, in lock order. 64 for records, of which thousands are alive; the others are few. The numbers are
 * arbitrary powers of two. */
static const unsigned char stripes[] = {1, 8, 64, 16, 16, 8, 16, 1, 1};
#define STRIPES_TOTAL (1 + 8 + 64 + 16 + 16 + 8 + 16 + 1 + 1)
static const unsigned char first_stripe[] = {0, 1, 9, 73, 89, 105, 113, 129, 130};
static struct {
    pthread_mutex_t mutex;
    char pad[128 - sizeof(pthread_mutex_t)]; /* a cache line (pair) of its own each */
} all_locks[STRIPES_TOTAL];
static pthread_once_t locks_once = PTHREAD_ONCE_INIT;

static void locks_make(void) {
    for (int i = 0; i < STRIPES_TOTAL; i++) pthread_mutex_init(&all_locks[i].mutex, NULL);
}

__attribute__((constructor)) static void locks_init(void) { pthread_once(&locks_once, locks_make); }

static pthread_mutex_t *stripe_of(lock_kind kind, const void *object) {
    uintptr_t a = (uintptr_t)object;
    unsigned hash = (unsigned)((a >> 4) ^ (a >> 10) ^ (a >> 16));
    return &all_locks[first_stripe[kind] + (hash & (stripes[kind] - 1u))].mutex;
}

/* Between the two, the forking thread runs other people's code: their at-fork hooks, finalizers of objects of ours. What that
 * locks, it holds already. */
static _Thread_local bool holds_all;

/* Every lock is held by a thread that is about to fork. A thread that would block on one while it holds what that thread may
 * need, the interpreter's lock, gives it up meanwhile (engine_fork_lock). Set and looked at with that lock held: no race. */
static _Atomic bool fork_locked;
static void (*_Atomic give_way)(void);

bool engine_fork_locked(void) { return atomic_load(&fork_locked); }
void engine_fork_give_way(void (*function)(void)) { atomic_store(&give_way, function); }

void engine_fork_wait(void) {
    pthread_mutex_lock(&all_locks[0].mutex);
    pthread_mutex_unlock(&all_locks[0].mutex);
}

void lock(lock_kind kind, const void *object) {
    if (holds_all) return;
    if (atomic_load_explicit(&fork_locked, memory_order_relaxed) && give_way) give_way();
    pthread_mutex_lock(stripe_of(kind, object));
}
void unlock(lock_kind kind, const void *object) {
    if (!holds_all) pthread_mutex_unlock(stripe_of(kind, object));
}

bool locks_take_all(void) {
    if (atomic_load(&fork_locked)) return false;
    for (int i = 0; i < STRIPES_TOTAL; i++) pthread_mutex_lock(&all_locks[i].mutex);
    holds_all = true;
    atomic_store(&fork_locked, true);
    return true;
}
void locks_release_all(void) {
    atomic_store(&fork_locked, false);
    holds_all = false;
    for (int i = STRIPES_TOTAL; i-- > 0;) pthread_mutex_unlock(&all_locks[i].mutex);
}
