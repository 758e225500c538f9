/* What every part uses: time, lists, counted allocation, the locks and their order.
 *
 * LOCKS. All locks are static stripes, chosen by an object's address, so that a fork can take every one of them in a fixed
 * order without walking anything. Order, outermost first:
 *
 *     registry   the lists of pools, mailboxes and queues
 *     pool       a pool's workers array, deaths, waiters
 *     record     a record: outcome, messages, credit, room, waiters
 *     mailbox    a mailbox: its list of records, count, waiters
 *     queue      a wake queue: the woken waiters
 *     (life)     which workers there are: see worker.h
 *     turns      a pool's origins, slots and waiting transfers
 *     command    a worker's command list
 *     log        the verbose lines
 *     blocks     the large blocks that are kept
 *
 * A thread holds at most one stripe of each kind, takes them in this order, and never calls libcurl, waits, or calls into
 * Python while holding one. What breaks otherwise: a worker that runs a callback with a lock held would block the thread
 * that holds the GIL, and with it the interpreter.
 */
#ifndef KATIPO_BASE_H
#define KATIPO_BASE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../include/engine.h"

#define CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

/* A doubly linked list with the head as a node: an unlinked node points to itself. */
typedef struct node {
    struct node *prev, *next;
} node;

static inline void node_init(node *l) { l->prev = l->next = l; }
static inline bool node_empty(const node *l) { return l->next == l; }
static inline void node_append(node *list, node *l) {
    l->prev = list->prev;
    l->next = list;
    list->prev->next = l;
    list->prev = l;
}
static inline void node_remove(node *l) {
    l->prev->next = l->next;
    l->next->prev = l->prev;
    node_init(l);
}
static inline node *node_pop(node *list) {
    node *l = list->next;
    if (l == list) return NULL;
    node_remove(l);
    return l;
}
/* Move all of `from` to the end of `to`. */
static inline void node_splice(node *to, node *from) {
    if (node_empty(from)) return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    node_init(from);
}

#define SECOND_NS INT64_C(1000000000)
#define MS_NS INT64_C(1000000)
#define FOREVER INT64_MAX

int64_t now_ns(void);

/* Live objects (engine_count). */
void count_up(engine_count count);
void count_down(engine_count count);
void counts_forget_threads(void); /* in a forked child: what belonged to the workers is gone */

/* Allocation for what a worker needs: fails when the worker was told to (engine_pool_fault). The rest of the program gets
 * plain malloc through it. */
void *mem_alloc(size_t size);
void *mem_zalloc(size_t size);
void *mem_realloc(void *old, size_t size);
char *mem_copy(const void *data, size_t size); /* NUL-terminated */
void mem_fail_next(void);                      /* this thread's next allocation fails */
bool mem_failed(void);                         /* whether one has, since the last call */

typedef enum {
    LOCK_REGISTRY,
    LOCK_POOL,
    LOCK_RECORD,
    LOCK_MAILBOX,
    LOCK_QUEUE,
    LOCK_TURNS,
    LOCK_COMMAND,
    LOCK_LOG,
    LOCK_BLOCKS
} lock_kind;
void lock(lock_kind kind, const void *object);
void unlock(lock_kind kind, const void *object);
bool locks_take_all(void); /* false: another thread is about to fork, and holds them */
void locks_release_all(void);

/* Large blocks for bodies on their way, LARGE_BLOCK bytes each, a few of which are kept for the next: fresh ones cost a page
 * fault every 4 KiB, three quarters of the CPU of a fast download. `blocks_trim` lets go of what is kept. */
#define LARGE_BLOCK 131072u
void *block_alloc(void);
void block_free(void *block);
void blocks_trim(void);

/* A growing byte buffer. `room` 0 with data: the bytes are somebody else's, and never grow. */
typedef struct {
    char *data;
    size_t size, room;
} buffer;
bool buffer_add(buffer *b, const void *data, size_t size);
bool buffer_reserve(buffer *b, size_t room);
void buffer_clear(buffer *b);

#endif
