#include "queue.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "wake.h"

struct engine_queue {
    _Atomic int refs;
    wake wake;       /* immutable, but for a fork */
    node woken;      /* waiters; queue lock */
    bool signalled;  /* the descriptor is readable, or about to be made so; queue lock */
    bool deferred;   /* ... by a worker, at the end of its turn, if it ever comes there; queue lock */
    node registered; /* in the list of all queues; registry lock */
};

enum { IDLE, REGISTERED, WOKEN };

struct engine_waiter {
    engine_queue *queue; /* immutable; a reference */
    void *owner;         /* immutable */
    lock_kind kind;      /* with `source`: which lock guards `in_source`; written by the registering thread */
    const void *source;  /* only its address is used: it may be gone */
    int mask;            /* source lock */
    int state;           /* source lock, and queue lock for the changes to and from WOKEN */
    node in_source;      /* source lock */
    node in_queue;       /* queue lock */
};

static node all_queues = {&all_queues, &all_queues};

engine_queue *engine_queue_new(void) {
    engine_queue *q = mem_zalloc(sizeof *q);
    if (!q) {
        errno = ENOMEM;
        return NULL;
    }
    if (!wake_open(&q->wake)) {
        int error = errno;
        free(q);
        errno = error;
        return NULL;
    }
    atomic_init(&q->refs, 1);
    node_init(&q->woken);
    count_up(ENGINE_COUNT_QUEUES);
    lock(LOCK_REGISTRY, NULL);
    node_append(&all_queues, &q->registered);
    unlock(LOCK_REGISTRY, NULL);
    return q;
}

void engine_queue_unref(engine_queue *q) {
    if (!q || atomic_fetch_sub(&q->refs, 1) != 1) return;
    lock(LOCK_REGISTRY, NULL);
    node_remove(&q->registered);
    unlock(LOCK_REGISTRY, NULL);
    wake_close(&q->wake);
    free(q);
    count_down(ENGINE_COUNT_QUEUES);
}

int engine_queue_fd(const engine_queue *q) { return q->wake.read_fd; }

void *engine_queue_take(engine_queue *q, bool first) {
    /* Cleared before the list is looked at: what is woken from here on either is seen below or makes it readable again. */
    if (first) wake_clear(&q->wake);
    lock(LOCK_QUEUE, q);
    node *l = node_pop(&q->woken);
    engine_waiter *waiter = l ? CONTAINER(l, engine_waiter, in_queue) : NULL;
    if (waiter) waiter->state = IDLE;
    else q->signalled = q->deferred = false;
    unlock(LOCK_QUEUE, q);
    return waiter ? waiter->owner : NULL;
}

int engine_queue_wait(engine_queue *q, int64_t timeout_ns, const sigset_t *mask) {
    struct pollfd fd = {.fd = q->wake.read_fd, .events = POLLIN};
    int n;
#ifdef __linux__
    struct timespec ts = {timeout_ns / SECOND_NS, timeout_ns % SECOND_NS};
    n = ppoll(&fd, 1, timeout_ns < 0 ? NULL : &ts, mask);
#else
    /* No ppoll: the mask is lifted first, and a signal in between is found by the short wait's end. */
    if (mask) pthread_sigmask(SIG_SETMASK, mask, NULL);
    int ms = timeout_ns < 0 || timeout_ns > 100 * MS_NS ? 100 : (int)((timeout_ns + MS_NS - 1) / MS_NS);
    n = poll(&fd, 1, mask || timeout_ns >= 0 ? ms : -1);
    if (n == 0 && (timeout_ns < 0 || ms * MS_NS < timeout_ns)) return -1;
#endif
    if (n < 0) return -1; /* EINTR; nothing else can happen with one open descriptor */
    return n > 0;
}

void engine_queue_poke(engine_queue *q) { wake_set(&q->wake); }

/* ---- waiters */

engine_waiter *engine_waiter_new(engine_queue *q, void *owner) {
    engine_waiter *w = mem_zalloc(sizeof *w);
    if (!w) return NULL;
    atomic_fetch_add(&q->refs, 1);
    w->queue = q;
    w->owner = owner;
    node_init(&w->in_source);
    node_init(&w->in_queue);
    count_up(ENGINE_COUNT_WAITERS);
    return w;
}

void engine_waiter_free(engine_waiter *w) {
    if (!w) return;
    engine_queue_unref(w->queue);
    free(w);
    count_down(ENGINE_COUNT_WAITERS);
}

void waiters_add(waiters *list, lock_kind kind, const void *source, engine_waiter *w, int mask) {
    w->kind = kind;
    w->source = source;
    w->mask = mask;
    w->state = REGISTERED;
    node_append(&list->waiters, &w->in_source);
}

int engine_waiter_cancel(engine_waiter *w) {
    if (!w->source) return 0;
    int answer = 0;
    lock(w->kind, w->source);
    lock(LOCK_QUEUE, w->queue); /* also for the look: whoever takes it out of the queue holds only this one */
    if (w->state == REGISTERED) {
        node_remove(&w->in_source);
        answer = 1;
    } else if (w->state == WOKEN) {
        node_remove(&w->in_queue);
        answer = 2;
    }
    w->state = IDLE;
    unlock(LOCK_QUEUE, w->queue);
    unlock(w->kind, w->source);
    return answer;
}

/* ---- waking, in batches where the thread asked for it */

#define BATCH 64
static _Thread_local struct {
    bool collecting;
    int count;
    engine_queue *queues[BATCH]; /* each with a reference */
} batch;

static void wake_queue(engine_queue *q) {
    if (!batch.collecting || batch.count == BATCH) {
        wake_set(&q->wake);
        return;
    }
    atomic_fetch_add(&q->refs, 1);
    batch.queues[batch.count++] = q;
}

void wakes_collect(void) { batch.collecting = true; }

void wakes_flush(void) {
    for (int i = 0; i < batch.count; i++) {
        wake_set(&batch.queues[i]->wake);
        engine_queue_unref(batch.queues[i]);
    }
    batch.count = 0;
}

bool waiters_fire(waiters *list, int mask, bool one) {
    bool fired = false;
    for (node *l = list->waiters.next, *next; l != &list->waiters; l = next) {
        next = l->next;
        engine_waiter *w = CONTAINER(l, engine_waiter, in_source);
        if (!(w->mask & mask)) continue;
        engine_queue *q = w->queue;
        node_remove(&w->in_source);
        lock(LOCK_QUEUE, q);
        w->state = WOKEN;
        node_append(&q->woken, &w->in_queue);
        /* A worker that is stuck inside libcurl does not come to the end of its turn: whoever fires after it does not count on
         * that. */
        bool silent = q->signalled && (!q->deferred || batch.collecting);
        q->deferred = batch.collecting && (q->deferred || !silent);
        q->signalled = true;
        /* The waiter may be taken and freed as soon as the lock is let go, and with it the last reference on the queue: wake
         * it before. */
        if (!silent) wake_queue(q);
        unlock(LOCK_QUEUE, q);
        fired = true;
        if (one) break;
    }
    return fired;
}

void waiters_forget(waiters *list) {
    for (node *l; (l = node_pop(&list->waiters));) CONTAINER(l, engine_waiter, in_source)->state = IDLE;
}

void queues_after_fork(void) {
    batch.count = 0;
    for (node *l = all_queues.next; l != &all_queues; l = l->next) {
        engine_queue *q = CONTAINER(l, engine_queue, registered);
        /* An inherited eventfd is shared with the parent: reading it would steal the parent's wake-up. */
        wake_close(&q->wake);
        (void)wake_open(&q->wake);
        q->signalled = !node_empty(&q->woken);
        q->deferred = false;
        if (q->signalled) wake_set(&q->wake);
    }
}
