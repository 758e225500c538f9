/* The law of base.h about locks, checked at every lock: the linker sends the engine's calls of lock() and unlock() here
 * (--wrap). A thread holds at most one of each kind and takes them outermost first. */
#include <stdlib.h>

#include "test.h"

#ifdef KATIPO_WRAPS_LOCKS
void __real_lock(lock_kind kind, const void *object);
void __real_unlock(lock_kind kind, const void *object);
void __wrap_lock(lock_kind kind, const void *object);
void __wrap_unlock(lock_kind kind, const void *object);

static _Thread_local unsigned held; /* bit per kind */

void __wrap_lock(lock_kind kind, const void *object) {
    if (held >> kind) {
        fprintf(stderr, "lock order: kind %d is taken while kinds %#x are held\n", (int)kind, held);
        abort();
    }
    held |= 1u << kind;
    __real_lock(kind, object);
}

void __wrap_unlock(lock_kind kind, const void *object) {
    if (!(held >> kind & 1)) {
        fprintf(stderr, "lock order: kind %d is let go and not held\n", (int)kind);
        abort();
    }
    held &= ~(1u << kind);
    __real_unlock(kind, object);
}

int test_locks_held(void) { return __builtin_popcount(held); }
#else
int test_locks_held(void) { return 0; }
#endif
