#include "mailbox.h"

#include <stdlib.h>
#include <string.h>

struct engine_mailbox {
    _Atomic int refs;
    node registered; /* in the list of all mailboxes; registry lock */
    /* Mailbox lock. */
    bool closing; /* accepts no more requests */
    bool closed;  /* what it had has been settled */
    bool dropped;
    node ready;   /* records with news that are not checked out; each with a reference */
    node entered; /* records in flight that reply here; no reference: they leave when they settle */
    size_t count; /* messages that can be taken */
    waiters waiters;
};

static node all_mailboxes = {&all_mailboxes, &all_mailboxes};

engine_mailbox *engine_mailbox_new(void) {
    engine_mailbox *m = mem_zalloc(sizeof *m);
    if (!m) return NULL;
    atomic_init(&m->refs, 1);
    node_init(&m->ready);
    node_init(&m->entered);
    waiters_init(&m->waiters);
    count_up(ENGINE_COUNT_MAILBOXES);
    lock(LOCK_REGISTRY, NULL);
    node_append(&all_mailboxes, &m->registered);
    unlock(LOCK_REGISTRY, NULL);
    return m;
}

void mailbox_ref(engine_mailbox *m) { atomic_fetch_add(&m->refs, 1); }

void mailbox_unref(engine_mailbox *m) {
    if (!m || atomic_fetch_sub(&m->refs, 1) != 1) return;
    lock(LOCK_REGISTRY, NULL);
    node_remove(&m->registered);
    unlock(LOCK_REGISTRY, NULL);
    free(m);
    count_down(ENGINE_COUNT_MAILBOXES);
}

bool mailbox_enter(engine_mailbox *m, engine_record *r) {
    lock(LOCK_MAILBOX, m);
    bool open = !m->closing;
    if (open) node_append(&m->entered, &r->in_box_all);
    unlock(LOCK_MAILBOX, m);
    return open;
}

bool mailbox_leave(engine_mailbox *m, engine_record *r) {
    lock(LOCK_MAILBOX, m);
    bool was_in = !node_empty(&r->in_box_all);
    node_remove(&r->in_box_all);
    unlock(LOCK_MAILBOX, m);
    return was_in;
}

/* A record has `available` messages. What it had before a fork is not in the count any more. */
static void recount(engine_mailbox *m, engine_record *r, size_t available) {
    m->count -= r->counted < m->count ? r->counted : m->count;
    m->count += available;
    r->counted = available;
}

/* Bring the count and the list up to date with a record that is not checked out. Record and mailbox locks held. */
static void sync_record(engine_mailbox *m, engine_record *r, size_t available) {
    recount(m, r, available);
    if (available && node_empty(&r->in_box) && !r->checked_out && !m->dropped) {
        record_ref(r);
        node_append(&m->ready, &r->in_box);
        waiters_fire(&m->waiters, ENGINE_ON_NEWS, true);
    }
}

void mailbox_post(engine_mailbox *m, engine_record *r) {
    lock(LOCK_MAILBOX, m);
    if (!m->dropped) sync_record(m, r, record_message_count(r));
    unlock(LOCK_MAILBOX, m);
}

engine_record *engine_mailbox_take(engine_mailbox *m, engine_message *message) {
    for (;;) {
        lock(LOCK_MAILBOX, m);
        node *l = node_pop(&m->ready);
        engine_record *r = l ? CONTAINER(l, engine_record, in_box) : NULL;
        if (r) r->checked_out = true;
        unlock(LOCK_MAILBOX, m);
        if (!r) return NULL;
        lock(LOCK_RECORD, r);
        bool taken = record_take(r, message);
        bool kept = false; /* queued although the engine has nothing: its consumer left something with the caller */
        lock(LOCK_MAILBOX, m);
        if (taken) {
            recount(m, r, record_message_count(r));
        } else {
            kept = r->counted > 0;
            recount(m, r, 0);
            r->checked_out = kept;
        }
        unlock(LOCK_MAILBOX, m);
        unlock(LOCK_RECORD, r);
        if (taken || kept) return r;
        engine_record_unref(r);
    }
}

void engine_mailbox_give_back(engine_mailbox *m, engine_record *r, bool more) {
    lock(LOCK_RECORD, r);
    lock(LOCK_MAILBOX, m);
    r->checked_out = false;
    if (!m->dropped) {
        size_t available = record_message_count(r);
        if (more && !available) available = 1;
        sync_record(m, r, available);
    }
    unlock(LOCK_MAILBOX, m);
    unlock(LOCK_RECORD, r);
    engine_record_unref(r);
}

bool engine_mailbox_register(engine_mailbox *m, engine_waiter *waiter) {
    lock(LOCK_MAILBOX, m);
    bool already = m->closed || !node_empty(&m->ready);
    if (!already) waiters_add(&m->waiters, LOCK_MAILBOX, m, waiter, ENGINE_ON_NEWS);
    unlock(LOCK_MAILBOX, m);
    return already;
}

void engine_mailbox_pass_on(engine_mailbox *m) {
    lock(LOCK_MAILBOX, m);
    if (!node_empty(&m->ready)) waiters_fire(&m->waiters, ENGINE_ON_NEWS, true);
    unlock(LOCK_MAILBOX, m);
}

bool engine_mailbox_closed(engine_mailbox *m) {
    lock(LOCK_MAILBOX, m);
    bool closed = m->closed;
    unlock(LOCK_MAILBOX, m);
    return closed;
}

size_t engine_mailbox_count(engine_mailbox *m) {
    lock(LOCK_MAILBOX, m);
    size_t count = m->count;
    unlock(LOCK_MAILBOX, m);
    return count;
}

void engine_mailbox_close(engine_mailbox *m) {
    lock(LOCK_MAILBOX, m);
    m->closing = true;
    unlock(LOCK_MAILBOX, m);
    /* One at a time: settling takes the record's lock, which comes before the mailbox's. */
    for (;;) {
        lock(LOCK_MAILBOX, m);
        node *l = node_pop(&m->entered);
        engine_record *r = l ? CONTAINER(l, engine_record, in_box_all) : NULL;
        if (r) record_ref(r); /* it has not left, so somebody who will make it leave holds a reference */
        unlock(LOCK_MAILBOX, m);
        if (!r) break;
        static const char detail[] = "the mailbox that it replies to was closed";
        engine_settle(r, ENGINE_OUTCOME_CANCELLED, detail, sizeof detail - 1, false);
        engine_record_unref(r);
    }
    /* Only now: who sees it closed and empty must not miss what the requests left behind. */
    lock(LOCK_MAILBOX, m);
    m->closed = true;
    waiters_fire(&m->waiters, ENGINE_ON_NEWS, false);
    unlock(LOCK_MAILBOX, m);
}

/* The first request that replies here and whose deadline is before `now`, with a reference; *next: the earliest of the
 * others. */
static engine_record *find_overdue(engine_mailbox *m, int64_t now, int64_t *next) {
    engine_record *found = NULL;
    *next = 0;
    lock(LOCK_MAILBOX, m);
    for (node *l = m->entered.next; l != &m->entered && !found; l = l->next) {
        engine_record *r = CONTAINER(l, engine_record, in_box_all);
        int64_t at = r->deadline_ns;
        if (!at) continue;
        if (at < now) {
            record_ref(r);
            found = r;
        } else if (!*next || at < *next) {
            *next = at;
        }
    }
    unlock(LOCK_MAILBOX, m);
    return found;
}

int64_t engine_mailbox_fail_overdue(engine_mailbox *m, int64_t grace_ns) {
    static const char detail[] = "the worker is stuck inside libcurl";
    int64_t next;
    for (engine_record *r; (r = find_overdue(m, now_ns() - grace_ns, &next));) {
        if (engine_is_played(r)) engine_play_expire(r, ENGINE_CLOCK_TOTAL);
        else engine_settle(r, ENGINE_OUTCOME_WORKER_DIED, detail, sizeof detail - 1, false);
        mailbox_leave(m, r); /* settled by another thread that has not got so far: it must not be found again */
        engine_record_unref(r);
    }
    return next;
}

void engine_mailbox_drop(engine_mailbox *m) {
    engine_mailbox_close(m);
    node dropped;
    node_init(&dropped);
    lock(LOCK_MAILBOX, m);
    m->dropped = true;
    m->count = 0;
    node_splice(&dropped, &m->ready);
    unlock(LOCK_MAILBOX, m);
    for (node *l; (l = node_pop(&dropped));) engine_record_unref(CONTAINER(l, engine_record, in_box));
    mailbox_unref(m);
}

void mailboxes_after_fork(void) {
    for (node *l = all_mailboxes.next; l != &all_mailboxes; l = l->next) {
        engine_mailbox *m = CONTAINER(l, engine_mailbox, registered);
        while (node_pop(&m->entered)) continue;
        waiters_forget(&m->waiters);
        m->count = 0;
        for (node *k; (k = node_pop(&m->ready));) {
            engine_record *r = CONTAINER(k, engine_record, in_box);
            r->counted = 0;
            engine_record_unref(r);
        }
    }
}
