#include "worker.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "config.h"
#include "files.h"
#include "pool.h"
#include "siblings.h"
#include "transfer.h"

#define LEAVE_NS (100 * MS_NS) /* arbitrary; on a loopback it takes one */
#define BUSY_TURNS 4       /* arbitrary */
#define SPARE_TRANSFERS 64 /* under 2 KiB each for small responses; arbitrary */

struct worker {
    _Atomic int refs;
    engine_pool *pool; /* alive as long as the thread: it holds a reference */
    int index;
    pthread_t thread;
    _Atomic long in_flight;
    _Atomic int order; /* worker_order; only grows */
    _Atomic int fault; /* engine_pool_fault: what is to fail next */
    _Atomic bool trim; /* a transfer of the pool lacks a socket */

    /* Command lock. */
    node commands; /* records with pending commands, each with a reference */
    node records;  /* all that it holds, each with a reference */
    bool sleeping; /* in the poller, or about to be, having seen no command */
    bool gone;     /* takes no more commands; the poller may be closed */

    /* Life lock. */
    node alive; /* in all_workers */
    bool parked, ended, joined, left_behind;

    /* Worker only. */
    driver *driver;
    turns *turns;
    clocks clocks;
    bool alarm_failed;
    bool unread;       /* connections may hold what nobody reads (siblings.c) */
    bool stopping;     /* its last transfers go */
    bool quic;         /* it has had QUIC connections */
    int busy_turns;    /* in a row that found descriptors ready */
    int turns_to_look; /* for transfers that libcurl holds back in vain; 0: not */
    bool scatters; /* the pool knows that there is more than the plain identity */
    node transfers; /* all of them */
    transfer *spares[SPARE_TRANSFERS];
    int spare_count;
    node starving;  /* transfers that have their turn, and wait for a socket */
    node unwritten; /* transfers with bytes for a file */
};

static pthread_mutex_t life = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t life_changed = PTHREAD_COND_INITIALIZER;
static node all_workers = {&all_workers, &all_workers};
static _Atomic int parking; /* forks that are being prepared: two threads may be at it at once */

/* Wait for `life_changed` until a point on CLOCK_MONOTONIC. False: too late. The condition's own clock may be set back or
 * forth meanwhile, so it is never asked for more than a tenth of a second. */
static bool wait_for_life(int64_t deadline_ns) {
    int64_t left = deadline_ns - now_ns();
    if (left <= 0) return false;
    if (left > 100 * MS_NS) left = 100 * MS_NS;
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    int64_t until = (int64_t)ts.tv_nsec + left;
    ts.tv_sec += (time_t)(until / SECOND_NS);
    ts.tv_nsec = (long)(until % SECOND_NS);
    pthread_cond_timedwait(&life_changed, &life, &ts);
    return true;
}

void worker_ref(worker *w) { atomic_fetch_add(&w->refs, 1); }

void worker_unref(worker *w) {
    if (!w || atomic_fetch_sub(&w->refs, 1) != 1) return;
    free(w);
    count_down(ENGINE_COUNT_WORKERS);
}

_Atomic long *worker_in_flight(worker *w) { return &w->in_flight; }
driver *worker_driver(worker *w) { return w->driver; }
turns *worker_turns(worker *w) { return w->turns; }

void worker_alarm(worker *w, alarm_entry *a, int64_t at_ns) {
    if (!clocks_set(&w->clocks, a, at_ns)) w->alarm_failed = true;
}

/* ------------------------------------------------------------------------------------------------ commands, any thread */

bool worker_command(worker *w, engine_record *r, unsigned commands) {
    lock(LOCK_COMMAND, w);
    bool taken = !w->gone;
    if (taken) {
        r->commands |= commands;
        if (commands & COMMAND_SUBMIT) {
            record_ref(r);
            node_append(&w->records, &r->in_worker);
        }
        if (node_empty(&r->in_commands)) {
            record_ref(r);
            node_append(&w->commands, &r->in_commands);
        }
        if (w->sleeping) {
            w->sleeping = false;
            driver_wake(w->driver); /* under the lock: the poller is closed only after `gone` */
        }
    }
    unlock(LOCK_COMMAND, w);
    return taken;
}

static void poke(worker *w) {
    lock(LOCK_COMMAND, w);
    if (!w->gone) driver_wake(w->driver);
    unlock(LOCK_COMMAND, w);
}

void worker_order_to(worker *w, worker_order order) {
    int before = atomic_load(&w->order);
    /* A drain does not call off a stop. */
    while (before != WORKER_STOPS && before != (int)order)
        if (atomic_compare_exchange_weak(&w->order, &before, (int)order)) break;
    poke(w);
}

void worker_fault(worker *w, int how) {
    atomic_store(&w->fault, how);
    poke(w);
}

void worker_look_for_sockets(worker *w) {
    atomic_store(&w->trim, true);
    poke(w);
}

bool worker_gone(worker *w) {
    lock(LOCK_COMMAND, w);
    bool gone = w->gone;
    unlock(LOCK_COMMAND, w);
    return gone;
}

/* ------------------------------------------------------------------------------------------------ the thread */

static void let_go(worker *w, engine_record *r) {
    lock(LOCK_COMMAND, w);
    bool held = !node_empty(&r->in_worker);
    node_remove(&r->in_worker);
    unlock(LOCK_COMMAND, w);
    if (r->transfer) transfer_free(r->transfer);
    files_close(r);
    if (held) engine_record_unref(r);
}

void worker_close_idle(worker *w, multi *m) {
    if (!w->stopping) driver_trim_one(m);
}

void worker_speaks_quic(worker *w) { w->quic = true; }

node *worker_transfers(worker *w) { return &w->transfers; }
transfer *worker_spare(worker *w) { return w->spare_count ? w->spares[--w->spare_count] : NULL; }

bool worker_keep_spare(worker *w, transfer *t) {
    if (w->spare_count == SPARE_TRANSFERS) return false;
    w->spares[w->spare_count++] = t;
    return true;
}

void worker_stop_starving(worker *w, transfer *t) {
    if (node_empty(&t->starving)) return;
    node_remove(&t->starving);
    turns_stop_starving(w->turns);
}

void worker_will_write(worker *w, transfer *t) {
    if (node_empty(&t->unwritten)) node_append(&w->unwritten, &t->unwritten);
}

void worker_has_unread(worker *w) { w->unread = true; }

/* What a turn leaves behind. Small deliveries (HTTP/3: 1.4 KB) make one write. */
static void write_files(worker *w) {
    while (!node_empty(&w->unwritten)) {
        transfer *t = CONTAINER(w->unwritten.next, transfer, unwritten);
        if (!transfer_write(t)) let_go(w, t->record);
    }
}

/* Its turn has come. Where the pool's sockets are all open, idle ones are closed first, by every worker at the top of its
 * next turn: by then libcurl has given the transfers that count on an idle connection theirs. */
static bool start(worker *w, transfer *t) {
    if (!w->scatters && (t->lone || t->record->config->identity_size)) {
        w->scatters = true;
        pool_scatters(w->pool);
    }
    if (!turns_claim(w->turns, &t->ticket)) {
        node_append(&w->starving, &t->starving);
        pool_look_for_sockets(w->pool);
        return true;
    }
    return transfer_start(t);
}

/* Somebody in the pool lacks a socket, or one was closed while somebody did. */
static bool feed_starving(worker *w) {
    if (!atomic_load_explicit(&w->trim, memory_order_relaxed) || !atomic_exchange(&w->trim, false)) return true;
    driver_trim(w->driver);
    for (node *l = w->starving.next, *next; l != &w->starving; l = next) {
        next = l->next;
        transfer *t = CONTAINER(l, transfer, starving);
        worker_stop_starving(w, t);
        if (turns_claim(w->turns, &t->ticket)) {
            if (!transfer_start(t)) return false;
        } else {
            node_append(&w->starving, &t->starving); /* counted again by the claim */
            return true;
        }
    }
    return true;
}

static bool begin(worker *w, engine_record *r) {
    transfer *t = transfer_new(w, r);
    if (!t) return false;
    switch (turns_enter(w->turns, &t->ticket, r->config->identity, r->config->identity_size, r->origin, t->lone)) {
    case TURN_GRANTED: return start(w, t);
    case TURN_WAITS: transfer_arm(t); return true;
    case TURN_NO_MEMORY: break;
    }
    return false;
}

/* False: fatal. */
static bool obey(worker *w, engine_record *r, unsigned commands) {
    if (engine_outcome_of(r) != ENGINE_OUTCOME_PENDING) {
        let_go(w, r);
        return true;
    }
    if (commands & COMMAND_SUBMIT) return begin(w, r);
    if (!r->transfer) return true;
    if (commands & COMMAND_GRANT && !r->transfer->easy) return start(w, r->transfer);
    if (commands & COMMAND_FILE && !transfer_write(r->transfer)) {
        let_go(w, r);
        return true;
    }
    if (commands & (COMMAND_BODY | COMMAND_CREDIT | COMMAND_FILE)) transfer_resume(r->transfer);
    if (commands & COMMAND_END) transfer_push_end(r->transfer);
    return true;
}

static bool take_commands(worker *w) {
    node taken;
    node_init(&taken);
    lock(LOCK_COMMAND, w);
    node_splice(&taken, &w->commands);
    unlock(LOCK_COMMAND, w);
    bool ok = true;
    while (ok && !node_empty(&taken)) {
        engine_record *r = CONTAINER(taken.next, engine_record, in_commands);
        lock(LOCK_COMMAND, w);
        node_remove(&r->in_commands);
        unsigned commands = r->commands;
        r->commands = 0;
        unlock(LOCK_COMMAND, w);
        ok = obey(w, r, commands);
        engine_record_unref(r);
    }
    if (!ok) {
        /* The rest is settled with everything else that the worker holds. */
        lock(LOCK_COMMAND, w);
        node_splice(&w->commands, &taken);
        unlock(LOCK_COMMAND, w);
    }
    return ok;
}

static void expire(worker *w) {
    int64_t now = driver_now(w->driver);
    while (clocks_first(&w->clocks) <= now) {
        transfer *t = CONTAINER(w->clocks.heap[0], transfer, alarm);
        if (transfer_expired(t, now)) let_go(w, t->record);
    }
}

static bool reap(worker *w) {
    int result;
    for (CURL *easy; (easy = driver_finished(w->driver, &result));) {
        transfer *t = NULL;
        lc.curl_easy_getinfo(easy, CURLINFO_PRIVATE, &t);
        bool again;
        if (!transfer_finished(t, result, &again)) return false;
        if (!again) let_go(w, t->record);
    }
    return true;
}

static void park(worker *w) {
    if (!atomic_load(&parking)) return;
    pthread_mutex_lock(&life);
    w->parked = true;
    pthread_cond_broadcast(&life_changed);
    while (atomic_load(&parking)) pthread_cond_wait(&life_changed, &life);
    w->parked = false;
    pthread_mutex_unlock(&life);
}

/* What engine_pool_fault asked for, by the way that a real failure would take. */
static void obey_fault(worker *w) {
    switch (atomic_exchange(&w->fault, 0)) {
    case ENGINE_FAULT_POLLER: driver_fail_wait(w->driver); break;
    case ENGINE_FAULT_MEMORY:
        mem_fail_next();
        free(mem_alloc(1));
        break;
    case ENGINE_FAULT_MULTI: {
        driver_fail_next(w->driver);
        multi *m = driver_multi(w->driver, "", 0, false);
        if (m) driver_kick(m);
        break;
    }
    default: break;
    }
}

static bool holds_nothing(worker *w) {
    lock(LOCK_COMMAND, w);
    bool nothing = node_empty(&w->records) && node_empty(&w->commands);
    unlock(LOCK_COMMAND, w);
    return nothing;
}

/* Whether the worker may sleep: no command has come. From here on a command wakes it. */
static bool fall_asleep(worker *w) {
    lock(LOCK_COMMAND, w);
    w->sleeping = node_empty(&w->commands);
    bool asleep = w->sleeping;
    unlock(LOCK_COMMAND, w);
    return asleep;
}

static void wake_up(worker *w) {
    lock(LOCK_COMMAND, w);
    w->sleeping = false;
    unlock(LOCK_COMMAND, w);
}

void worker_look_for_held_back(worker *w) { w->turns_to_look = 3; }

/* libcurl releases transfers that wait for an undecided connection (PIPEWAIT) when it turns out to multiplex. Where it does
 * not, it lets them go one at a time, as others end: a first request that hangs would hold up its whole origin. */
static bool release_held_back(worker *w) {
    if (!w->turns_to_look || --w->turns_to_look) return true;
    for (node *l = w->transfers.next; l != &w->transfers; l = l->next)
        if (!transfer_stop_waiting(CONTAINER(l, transfer, in_worker))) return false;
    return true;
}

/* One turn; the reason to end, or NULL. */
static const char *turn_once(worker *w) {
    obey_fault(w);
    if (!feed_starving(w) || !release_held_back(w)) return "a multi handle failed";
    if (!take_commands(w)) {
        const char *error = driver_error(w->driver);
        return error ? error : "out of memory";
    }
    expire(w);
    if (!reap(w)) return "a multi handle failed";
    const char *fatal = driver_error(w->driver);
    if (fatal) return fatal;
    if (mem_failed() || w->alarm_failed) return "out of memory";
    /* While there is more to do at once, the wake-ups wait for it, a few turns at most: whoever is woken takes more at a
     * time, and the two threads change places less often. */
    bool goes_on = w->busy_turns > 0 && w->busy_turns < BUSY_TURNS;
    if (!goes_on) {
        write_files(w);
        wakes_flush();
        w->busy_turns = 0;
        if (w->unread) siblings_look(w);
        w->unread = false;
    }
    int64_t until = !goes_on && fall_asleep(w) ? clocks_first(&w->clocks) : 0;
    if (atomic_load(&parking) || atomic_load(&w->order) == WORKER_STOPS || atomic_load(&w->fault) || atomic_load(&w->trim) ||
        w->turns_to_look)
        until = 0;
    fatal = driver_turn(w->driver, until);
    wake_up(w);
    if (fatal) return fatal;
    expire(w);
    if (!reap(w)) return "a multi handle failed";
    w->busy_turns = driver_events(w->driver) > 0 ? w->busy_turns + 1 : 0;
    if (!w->busy_turns) {
        write_files(w);
        wakes_flush();
    }
    return NULL;
}

static void settle_all(worker *w, int outcome, const char *detail) {
    node taken;
    node_init(&taken);
    lock(LOCK_COMMAND, w);
    w->gone = true;
    node_splice(&taken, &w->commands);
    unlock(LOCK_COMMAND, w);
    for (node *l; (l = node_pop(&taken));) engine_record_unref(CONTAINER(l, engine_record, in_commands));
    /* All are settled before the first easy handle is cleaned up: nobody waits for libcurl here. A record stays in the list
     * until let_go, so the walk is safe; settling takes the record lock, which comes before the command lock. */
    engine_record *r = NULL;
    for (node *l = w->records.next; l != &w->records; l = l->next) {
        r = CONTAINER(l, engine_record, in_worker);
        record_end end = {.outcome = outcome, .curl_code = -1, .detail = detail, .detail_size = strlen(detail)};
        record_settle(r, &end);
    }
    wakes_flush();
    w->stopping = true;
    while (!node_empty(&w->records)) let_go(w, CONTAINER(w->records.next, engine_record, in_worker));
}

/* As `top -H` and debuggers show it; 15 characters at most. */
static void set_name(const worker *w) {
#ifdef __linux__
    char name[16];
    snprintf(name, sizeof name, "%s-%d", pool_name(w->pool), w->index % 1000);
    pthread_setname_np(pthread_self(), name);
#else
    (void)w;
#endif
}

/* A QUIC server learns of the end by a packet that libcurl sends when its pacing allows, and only while it is driven. Plain
 * connections need no such care: the system closes them. */
static void take_leave(worker *w) {
    int64_t until = now_ns() + LEAVE_NS;
    if (!w->quic) return;
    driver_trim(w->driver);
    while (driver_sockets(w->driver) && now_ns() < until)
        if (driver_turn(w->driver, until)) return;
}

static void *run(void *argument) {
    worker *w = argument;
    engine_pool *pool = w->pool;
    const char *fatal = NULL;
    int order;
    wakes_collect();
    mem_failed();
    set_name(w);
    do {
        park(w);
        fatal = turn_once(w);
        order = atomic_load(&w->order);
    } while (!fatal && order != WORKER_STOPS && !(order == WORKER_DRAINS && holds_nothing(w)));
    if (fatal) {
        char detail[DETAIL_SIZE];
        snprintf(detail, sizeof detail, "the worker that ran the request died: %s", fatal);
        settle_all(w, ENGINE_OUTCOME_WORKER_DIED, detail);
    } else {
        settle_all(w, ENGINE_OUTCOME_POOL_CLOSED, "the pool was closed");
        take_leave(w);
    }
    driver_free(w->driver);
    w->driver = NULL;
    while (w->spare_count) transfer_free_spare(w->spares[--w->spare_count]);
    clocks_clear(&w->clocks);
    bool joined = pool_worker_ended(pool, w, fatal != NULL);
    wakes_flush();
    pthread_mutex_lock(&life);
    w->ended = true;
    node_remove(&w->alive);
    if (w->left_behind) count_down(ENGINE_COUNT_WEDGED);
    if (joined && !w->joined) {
        w->joined = true; /* nobody will: the pool was dropped */
        pthread_detach(w->thread);
    }
    pthread_cond_broadcast(&life_changed);
    pthread_mutex_unlock(&life);
    worker_unref(w);
    engine_pool_unref(pool);
    return NULL;
}

worker *worker_start(engine_pool *pool, int index) {
    worker *w = mem_zalloc(sizeof *w);
    if (!w) return NULL;
    atomic_init(&w->refs, 2); /* the pool's and the thread's */
    w->pool = pool;
    w->index = index;
    w->turns = pool_turns(pool);
    node_init(&w->commands);
    node_init(&w->records);
    node_init(&w->alive);
    node_init(&w->transfers);
    node_init(&w->starving);
    node_init(&w->unwritten);
    driver_options options;
    pool_driver_options(pool, index, &options);
    w->driver = driver_new(&options);
    if (!w->driver) {
        free(w);
        return NULL;
    }
    count_up(ENGINE_COUNT_WORKERS);
    pool_ref(pool);
    /* A worker takes no signal: they are for the threads that run Python. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_mutex_lock(&life);
    int error = pthread_create(&w->thread, NULL, run, w);
    if (!error) node_append(&all_workers, &w->alive);
    pthread_mutex_unlock(&life);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!error) return w;
    driver_free(w->driver);
    atomic_store(&w->refs, 1);
    worker_unref(w);
    engine_pool_unref(pool);
    errno = error;
    return NULL;
}

bool worker_join(worker *w, int64_t deadline_ns) {
    pthread_mutex_lock(&life);
    bool mine = !w->joined;
    w->joined = true;
    while (!w->ended && wait_for_life(deadline_ns)) continue;
    bool ended = w->ended;
    if (!ended && mine) {
        w->left_behind = true;
        count_up(ENGINE_COUNT_WEDGED);
    }
    pthread_mutex_unlock(&life);
    if (ended) {
        if (mine) pthread_join(w->thread, NULL);
        return true;
    }
    if (mine) pthread_detach(w->thread);
    /* What it holds is settled from here. The records stay in its list: should it come back, it lets them go. */
    lock(LOCK_COMMAND, w);
    w->gone = true;
    size_t count = 0;
    for (node *l = w->records.next; l != &w->records; l = l->next) count++;
    engine_record **held = malloc(count * sizeof(engine_record *) + 1);
    count = 0;
    for (node *l = w->records.next; held && l != &w->records; l = l->next) {
        held[count] = CONTAINER(l, engine_record, in_worker);
        record_ref(held[count++]);
    }
    unlock(LOCK_COMMAND, w);
    for (size_t i = 0; i < count; i++) {
        static const char detail[] = "the worker that ran the request does not answer";
        engine_settle(held[i], ENGINE_OUTCOME_WORKER_DIED, detail, sizeof detail - 1, false);
        engine_record_unref(held[i]);
    }
    free(held);
    return false;
}

void worker_detach(worker *w) {
    pthread_mutex_lock(&life);
    bool mine = !w->joined;
    w->joined = true;
    pthread_mutex_unlock(&life);
    if (mine) pthread_detach(w->thread);
}

bool worker_ended(worker *w) {
    pthread_mutex_lock(&life);
    bool ended = w->ended;
    pthread_mutex_unlock(&life);
    return ended;
}

/* ------------------------------------------------------------------------------------------------ fork */

void workers_park(int64_t deadline_ns) {
    pthread_mutex_lock(&life);
    atomic_fetch_add(&parking, 1);
    for (node *l = all_workers.next; l != &all_workers; l = l->next) poke(CONTAINER(l, worker, alive));
    for (;;) {
        bool all = true;
        for (node *l = all_workers.next; l != &all_workers; l = l->next)
            if (!CONTAINER(l, worker, alive)->parked) all = false;
        if (all || !wait_for_life(deadline_ns)) break;
    }
    pthread_mutex_unlock(&life);
}

void workers_unpark(void) {
    pthread_mutex_lock(&life);
    atomic_fetch_sub(&parking, 1);
    pthread_cond_broadcast(&life_changed);
    pthread_mutex_unlock(&life);
}

void workers_after_fork(void) {
    atomic_store(&parking, 0);
    pthread_mutex_init(&life, NULL);
    pthread_cond_init(&life_changed, NULL);
    for (node *l; (l = node_pop(&all_workers));) {
        worker *w = CONTAINER(l, worker, alive);
        w->gone = w->ended = w->joined = true;
        if (w->driver) driver_close_inherited(w->driver);
        w->driver = NULL;
        for (node *k; (k = node_pop(&w->commands));) engine_record_unref(CONTAINER(k, engine_record, in_commands));
        for (node *k; (k = node_pop(&w->records));) {
            engine_record *r = CONTAINER(k, engine_record, in_worker);
            record_fork(r);
            files_fork(r);
            if (r->transfer) transfer_forget(r->transfer);
            engine_record_unref(r);
        }
        while (w->spare_count) transfer_free_spare(w->spares[--w->spare_count]);
        engine_pool *pool = w->pool;
        worker_unref(w); /* the thread's */
        engine_pool_unref(pool);
    }
}
