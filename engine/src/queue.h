/* Wake queues and waiters: how a thread or an event loop learns that something it waits for has come.
 *
 * A source (a record, a mailbox, a pool) has a list of waiters under its own lock. When a condition becomes true it fires
 * the waiters that asked for it: each moves to its queue's list, under the queue's lock, and the queue's descriptor is made
 * readable if it was not. A worker collects the queues that it has to wake and writes their descriptors once, at the end of
 * its turn (`wakes_collect`, `wakes_flush`); every other thread writes at once.
 */
#ifndef KATIPO_QUEUE_H
#define KATIPO_QUEUE_H

#include "base.h"

typedef struct {
    node waiters; /* guarded by the source's lock */
} waiters;

static inline void waiters_init(waiters *w) { node_init(&w->waiters); }
/* Under the source's lock. */
void waiters_add(waiters *w, lock_kind kind, const void *source, engine_waiter *waiter, int mask);
/* Wake every waiter that asked for something in `mask`; `one`: the first one only. Returns whether one was woken. Under the
 * source's lock. */
bool waiters_fire(waiters *w, int mask, bool one);

/* In a forked child: those who waited are not there any more. */
void waiters_forget(waiters *w);

/* A worker, once: this thread's wake-ups wait for the next flush. */
void wakes_collect(void);
void wakes_flush(void);

/* In a forked child: fresh descriptors, nothing woken. */
void queues_after_fork(void);

#endif
