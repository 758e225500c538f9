#include "pool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "config.h"
#include "files.h"
#include "log.h"
#include "mailbox.h"
#include "queue.h"
#include "record.h"

/* So many deaths in that time: until they are longer ago, the pool gives up instead of starting another worker. Both
 * arbitrary. */
#define DEATHS_MOST 20
#define DEATHS_WINDOW_NS (10 * SECOND_NS)
/* Descriptors left to the rest of the process when connections are not limited otherwise; arbitrary. */
#define DESCRIPTORS_RESERVED 64

struct engine_pool {
    _Atomic int refs;
    engine_pool_options options; /* immutable; `name` is NULL: see below */
    char name[12];               /* as much of it as a thread's name has room for */
    turns *turns;
    int slots; /* workers, and one more for requests that Kerberos may wedge */
    int max_total;
    _Atomic long in_flight, connections, restarts, completed, failed;
    node registered; /* registry lock */

    /* Pool lock. */
    bool closed, dropped;
    int alive; /* threads that have not left their loop */
    int64_t deaths[DEATHS_MOST];
    unsigned deaths_next; /* where the next one goes: the oldest */
    waiters waiters;
    worker **workers; /* `slots` of them, NULL where none runs; references */
    worker **ended;   /* threads to join; references */
    size_t ended_count, ended_room;
    node played; /* records in flight that have no worker, each with a reference */
};

static node all_pools = {&all_pools, &all_pools};

/* How many connections the process may open, as the system has it: its limit on descriptors, less a reserve. */
static int descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > 1000000) return 1000000;
    long reserve = (long)limit.rlim_cur / 8 > DESCRIPTORS_RESERVED ? (long)limit.rlim_cur / 8 : DESCRIPTORS_RESERVED;
    long most = (long)limit.rlim_cur - reserve;
    return most > 8 ? (int)most : 8;
}

void pool_scatters(engine_pool *p) {
    /* The system's own limit has a reserve, and needs no such care. Where libcurl cannot be told to close idle connections,
     * a transfer that waits for that would wait for ever: the limit then holds for each multi handle alone. */
    if (p->options.max_total_connections && driver_trims()) turns_be_strict(p->turns);
}

engine_pool *engine_pool_new(const engine_pool_options *options) {
    engine_pool *p = mem_zalloc(sizeof *p);
    if (!p) return NULL;
    p->options = *options;
    p->options.name = NULL;
    snprintf(p->name, sizeof p->name, "%s", options->name && options->name[0] ? options->name : "katipo");
    p->slots = options->workers + 1;
    p->max_total = options->max_total_connections ? options->max_total_connections : descriptor_limit();
    p->workers = mem_zalloc((size_t)p->slots * sizeof(worker *));
    p->turns =
        turns_new(options->max_host_connections, p->max_total, options->max_concurrent_streams, options->multiplexing);
    if (!p->workers || !p->turns) {
        free(p->workers);
        turns_free(p->turns);
        free(p);
        return NULL;
    }
    if (options->workers > 1) pool_scatters(p);
    atomic_init(&p->refs, 1);
    waiters_init(&p->waiters);
    node_init(&p->played);
    count_up(ENGINE_COUNT_POOLS);
    lock(LOCK_REGISTRY, NULL);
    node_append(&all_pools, &p->registered);
    unlock(LOCK_REGISTRY, NULL);
    return p;
}

void pool_ref(engine_pool *p) { atomic_fetch_add(&p->refs, 1); }

void engine_pool_unref(engine_pool *p) {
    if (!p || atomic_fetch_sub(&p->refs, 1) != 1) return;
    lock(LOCK_REGISTRY, NULL);
    node_remove(&p->registered);
    unlock(LOCK_REGISTRY, NULL);
    for (int i = 0; i < p->slots; i++) worker_unref(p->workers[i]);
    for (size_t i = 0; i < p->ended_count; i++) {
        worker_detach(p->ended[i]); /* the pool was not joined: its threads' stacks must go all the same */
        worker_unref(p->ended[i]);
    }
    free(p->workers);
    free(p->ended);
    turns_free(p->turns);
    free(p);
    count_down(ENGINE_COUNT_POOLS);
}

const char *pool_name(const engine_pool *p) { return p->name; }
turns *pool_turns(engine_pool *p) { return p->turns; }

void pool_look_for_sockets(engine_pool *p) {
    lock(LOCK_POOL, p);
    for (int i = 0; i < p->slots; i++)
        if (p->workers[i]) worker_look_for_sockets(p->workers[i]);
    unlock(LOCK_POOL, p);
}

static void socket_closed(void *user, void *opened) {
    engine_pool *p = user;
    if (turns_closed(p->turns, opened)) pool_look_for_sockets(p);
}

void pool_driver_options(engine_pool *p, int index, driver_options *o) {
    const engine_pool_options *mine = &p->options;
    memset(o, 0, sizeof *o);
    o->multiplexing = mine->multiplexing;
    o->max_host = mine->max_host_connections;
    o->max_total = p->max_total;
    o->max_streams = mine->max_concurrent_streams > 0 ? mine->max_concurrent_streams : 100;
    o->connections = &p->connections;
    o->closed = socket_closed;
    o->user = p;
    if (mine->max_idle_connections < 0) {
        o->max_idle = p->max_total;
    } else {
        /* The pool's idle connections are shared out among its workers; the one for Kerberos keeps none of them. */
        int share = mine->max_idle_connections / mine->workers;
        int rest = mine->max_idle_connections % mine->workers;
        o->max_idle = index < mine->workers ? share + (index < rest) : 0;
    }
}

/* ---- accepting */

static bool dies_too_often(engine_pool *p) {
    int64_t oldest = p->deaths[p->deaths_next];
    return oldest && now_ns() - oldest < DEATHS_WINDOW_NS;
}

/* Keep a worker whose thread is to be joined. Pool lock held; takes over the reference. */
static bool keep_ended(engine_pool *p, worker *w) {
    for (size_t i = 0; i < p->ended_count; i++) {
        if (p->ended[i] != w) continue;
        worker_unref(w);
        return true;
    }
    if (p->ended_count == p->ended_room) {
        size_t room = p->ended_room ? p->ended_room * 2 : 8;
        worker **ended = realloc(p->ended, room * sizeof *ended);
        if (!ended) return false;
        p->ended = ended;
        p->ended_room = room;
    }
    p->ended[p->ended_count++] = w;
    return true;
}

/* The worker of a slot, started when there is none. Pool lock held. */
static engine_status worker_of(engine_pool *p, int slot, worker **w) {
    if (p->workers[slot] && !worker_gone(p->workers[slot])) {
        *w = p->workers[slot];
        return ENGINE_ACCEPTED;
    }
    if (dies_too_often(p)) return ENGINE_GAVE_UP;
    worker *fresh = worker_start(p, slot);
    if (!fresh) return ENGINE_NO_THREAD;
    p->alive++;
    /* The one before is on its way out. */
    if (p->workers[slot] && !keep_ended(p, p->workers[slot])) worker_unref(p->workers[slot]);
    *w = p->workers[slot] = fresh;
    return ENGINE_ACCEPTED;
}

/* An origin of an identity has a home among the workers, so that HTTP/2 finds its connection. */
static int home_of(const engine_pool *p, const engine_record *r) {
    if (r->config->limits.flags & ENGINE_NEGOTIATE) return p->slots - 1;
    if (p->options.workers == 1) return 0;
    unsigned hash = 2166136261u;
    for (const char *c = r->origin; *c; c++) hash = (hash ^ (unsigned char)*c) * 16777619u;
    for (size_t i = 0; i < r->config->identity_size; i++) hash = (hash ^ (unsigned char)r->config->identity[i]) * 16777619u;
    return (int)((hash ^ hash >> 16) % (unsigned)p->options.workers);
}

/* Choose a worker with room and count the request in. Pool lock held. */
static engine_status choose(engine_pool *p, engine_record *r) {
    if (p->closed) return ENGINE_CLOSED;
    int home = home_of(p, r), tries = home == p->slots - 1 ? 1 : p->options.workers;
    long most = p->options.max_in_flight;
    engine_status status = ENGINE_OVERLOAD;
    for (int i = 0; i < tries; i++) {
        int slot = tries == 1 ? home : (home + i) % p->options.workers;
        worker *w;
        status = worker_of(p, slot, &w);
        if (status != ENGINE_ACCEPTED) return status;
        _Atomic long *in_flight = worker_in_flight(w);
        if (most && atomic_load(in_flight) >= most) {
            status = ENGINE_OVERLOAD;
            continue;
        }
        atomic_fetch_add(in_flight, 1);
        atomic_fetch_add(&p->in_flight, 1);
        worker_ref(w);
        r->worker = w;
        return ENGINE_ACCEPTED;
    }
    return status;
}

static void count_out(engine_pool *p, worker *w) {
    if (w) atomic_fetch_sub(worker_in_flight(w), 1);
    if (atomic_fetch_sub(&p->in_flight, 1) != 1) return;
    lock(LOCK_POOL, p);
    if (!atomic_load(&p->in_flight)) waiters_fire(&p->waiters, ENGINE_ON_IDLE, false);
    unlock(LOCK_POOL, p);
}

engine_status engine_submit(engine_pool *p, const engine_request *request, engine_record **record) {
    *record = NULL;
    engine_record *r = record_new(request);
    if (!r) return ENGINE_NO_MEMORY;
    pool_ref(p);
    r->pool = p;
    engine_status status;
    for (;;) {
        lock(LOCK_POOL, p);
        status = choose(p, r);
        unlock(LOCK_POOL, p);
        if (status != ENGINE_ACCEPTED) break;
        if (r->mailbox && !mailbox_enter(r->mailbox, r)) {
            count_out(p, r->worker);
            status = ENGINE_CLOSED;
            break;
        }
        if (worker_command(r->worker, r, COMMAND_SUBMIT)) {
            *record = r;
            return ENGINE_ACCEPTED;
        }
        /* It died in between; nothing was sent. */
        if (r->mailbox && !mailbox_leave(r->mailbox, r)) {
            /* The mailbox was closed as well, and its close settles the request and counts it out: it was accepted, then. */
            *record = r;
            return ENGINE_ACCEPTED;
        }
        count_out(p, r->worker);
        worker_unref(r->worker);
        r->worker = NULL;
    }
    engine_record_unref(r);
    return status;
}

void pool_settled(engine_pool *p, worker *w, bool ok) {
    atomic_fetch_add_explicit(ok ? &p->completed : &p->failed, 1, memory_order_relaxed);
    count_out(p, w);
}

/* ---- requests without a worker */

static bool list_played(engine_pool *p, engine_record *r) {
    lock(LOCK_POOL, p);
    bool open = !p->closed;
    if (open) {
        record_ref(r);
        node_append(&p->played, &r->in_worker);
    }
    unlock(LOCK_POOL, p);
    return open;
}

static void settle_closed(engine_record *r) {
    static const char detail[] = "the pool was closed";
    record_end end = {
        .outcome = ENGINE_OUTCOME_POOL_CLOSED, .curl_code = -1, .detail = detail, .detail_size = sizeof detail - 1};
    record_settle(r, &end);
}

engine_status engine_play(engine_pool *p, const engine_request *request, engine_told told, engine_record **record) {
    *record = NULL;
    engine_record *r = record_new(request);
    if (!r) return ENGINE_NO_MEMORY;
    r->told = told;
    pool_ref(p);
    r->pool = p;
    lock(LOCK_POOL, p);
    bool open = !p->closed;
    if (open) atomic_fetch_add(&p->in_flight, 1);
    unlock(LOCK_POOL, p);
    if (open && r->mailbox && !mailbox_enter(r->mailbox, r)) {
        count_out(p, NULL);
        open = false;
    }
    if (!open) {
        engine_record_unref(r);
        return ENGINE_CLOSED;
    }
    /* From here it is accepted. The pool may have been closed meanwhile, or the mailbox, which then has settled it: it leaves
     * the pool's list after it got its outcome, so one of the two finds it there. */
    if (!list_played(p, r)) settle_closed(r);
    else if (engine_outcome_of(r) != ENGINE_OUTCOME_PENDING) pool_forget_played(p, r);
    *record = r;
    return ENGINE_ACCEPTED;
}

void pool_forget_played(engine_pool *p, engine_record *r) {
    lock(LOCK_POOL, p);
    bool held = !node_empty(&r->in_worker);
    node_remove(&r->in_worker);
    unlock(LOCK_POOL, p);
    if (held) engine_record_unref(r);
}

static void settle_played(engine_pool *p) {
    for (;;) {
        lock(LOCK_POOL, p);
        engine_record *r = node_empty(&p->played) ? NULL : CONTAINER(p->played.next, engine_record, in_worker);
        if (r) record_ref(r);
        unlock(LOCK_POOL, p);
        if (!r) break;
        settle_closed(r);
        pool_forget_played(p, r); /* settled by a thread that has not got so far: it must not be found again */
        engine_record_unref(r);
    }
}

/* ---- ending */

/* References on the workers that run, for use without the lock. The count; *list is to be freed. */
static int running(engine_pool *p, worker ***list) {
    int count = 0;
    *list = malloc((size_t)p->slots * sizeof(worker *));
    if (!*list) return 0;
    lock(LOCK_POOL, p);
    for (int i = 0; i < p->slots; i++) {
        if (!p->workers[i]) continue;
        worker_ref(p->workers[i]);
        (*list)[count++] = p->workers[i];
    }
    unlock(LOCK_POOL, p);
    return count;
}

void engine_pool_refuse(engine_pool *p) {
    lock(LOCK_POOL, p);
    p->closed = true;
    unlock(LOCK_POOL, p);
}

static void order_all(engine_pool *p, worker_order order) {
    worker **list;
    int count = running(p, &list);
    for (int i = 0; i < count; i++) {
        worker_order_to(list[i], order);
        worker_unref(list[i]);
    }
    free(list);
}

void engine_pool_stop(engine_pool *p) {
    engine_pool_refuse(p);
    order_all(p, WORKER_STOPS);
    settle_played(p);
}

void engine_pool_abandon(engine_pool *p) {
    lock(LOCK_POOL, p);
    p->closed = p->dropped = true;
    unlock(LOCK_POOL, p);
    order_all(p, WORKER_DRAINS);
}

bool pool_worker_ended(engine_pool *p, worker *w, bool died) {
    lock(LOCK_POOL, p);
    p->alive--;
    for (int i = 0; i < p->slots; i++) {
        if (p->workers[i] != w) continue;
        p->workers[i] = NULL;
        worker_unref(w);
    }
    if (died) {
        p->deaths[p->deaths_next] = now_ns();
        p->deaths_next = (p->deaths_next + 1) % DEATHS_MOST;
        atomic_fetch_add(&p->restarts, 1);
    }
    worker *over = NULL; /* an earlier one, whose thread may be joined by now: its stack is let go */
    for (size_t i = 0; i < p->ended_count && !over; i++) {
        if (p->ended[i] == w || !worker_ended(p->ended[i])) continue;
        over = p->ended[i];
        p->ended[i] = p->ended[--p->ended_count];
    }
    bool kept = !p->dropped;
    if (kept) {
        worker_ref(w);
        kept = keep_ended(p, w);
        if (!kept) worker_unref(w);
    }
    if (!p->alive) waiters_fire(&p->waiters, ENGINE_ON_STOPPED, false);
    unlock(LOCK_POOL, p);
    if (over) {
        worker_join(over, now_ns());
        worker_unref(over);
    }
    return !kept;
}

int engine_pool_join(engine_pool *p, int64_t timeout_ns) {
    int64_t deadline = now_ns() + timeout_ns;
    int left_behind = 0;
    worker **list;
    int count = running(p, &list);
    for (int i = 0; i < count; i++) {
        if (!worker_join(list[i], deadline)) left_behind++;
        worker_unref(list[i]);
    }
    free(list);
    for (;;) {
        lock(LOCK_POOL, p);
        worker *w = p->ended_count ? p->ended[--p->ended_count] : NULL;
        unlock(LOCK_POOL, p);
        if (!w) break;
        worker_join(w, now_ns() + SECOND_NS); /* it has left its loop: a matter of microseconds */
        worker_unref(w);
    }
    return left_behind;
}

int engine_stop_all(int64_t timeout_ns) {
    int64_t deadline = now_ns() + timeout_ns;
    int left_behind = 0;
    size_t count = 0, room = 0;
    engine_pool **pools = NULL;
    lock(LOCK_REGISTRY, NULL);
    for (node *l = all_pools.next; l != &all_pools; l = l->next) room++;
    pools = malloc(room * sizeof(engine_pool *) + 1);
    for (node *l = all_pools.next; pools && l != &all_pools; l = l->next) {
        engine_pool *p = CONTAINER(l, engine_pool, registered);
        int refs = atomic_load(&p->refs);
        /* One whose last reference is going just now is on its way out of the list. */
        while (refs && !atomic_compare_exchange_weak(&p->refs, &refs, refs + 1)) continue;
        if (refs) pools[count++] = p;
    }
    unlock(LOCK_REGISTRY, NULL);
    for (size_t i = 0; i < count; i++) engine_pool_stop(pools[i]);
    for (size_t i = 0; i < count; i++) {
        int64_t left = deadline - now_ns();
        left_behind += engine_pool_join(pools[i], left > 0 ? left : 0);
        engine_pool_unref(pools[i]);
    }
    free(pools);
    return left_behind;
}

/* ---- looking */

bool engine_pool_register(engine_pool *p, engine_waiter *waiter, int mask) {
    lock(LOCK_POOL, p);
    bool already = (mask & ENGINE_ON_IDLE && !atomic_load(&p->in_flight)) || (mask & ENGINE_ON_STOPPED && !p->alive);
    if (!already) waiters_add(&p->waiters, LOCK_POOL, p, waiter, mask);
    unlock(LOCK_POOL, p);
    return already;
}

void engine_pool_read(engine_pool *p, engine_pool_statistics *s) {
    lock(LOCK_POOL, p);
    s->workers = p->alive;
    unlock(LOCK_POOL, p);
    s->in_flight = atomic_load(&p->in_flight);
    s->queued = turns_waiting(p->turns);
    s->connections = atomic_load(&p->connections);
    s->restarts = atomic_load(&p->restarts);
    s->completed = atomic_load(&p->completed);
    s->failed = atomic_load(&p->failed);
}

bool engine_pool_fault(engine_pool *p, int index, int how) {
    worker *w = NULL;
    lock(LOCK_POOL, p);
    if (index >= 0 && index < p->slots && p->workers[index] && !worker_gone(p->workers[index])) {
        w = p->workers[index];
        worker_ref(w);
    }
    unlock(LOCK_POOL, p);
    if (!w) return false;
    worker_fault(w, how);
    worker_unref(w);
    return true;
}

/* ---- fork */

void engine_fork_park(void) { workers_park(now_ns() + SECOND_NS); }
bool engine_fork_lock(void) { return locks_take_all(); }

void engine_fork_prepare(void) {
    engine_fork_park();
    while (!engine_fork_lock()) engine_fork_wait();
}

void engine_fork_parent(void) {
    locks_release_all();
    workers_unpark();
}

void engine_fork_child(void) {
    /* This is the only thread, and it held every lock: what they guard is consistent. */
    locks_release_all();
    queues_after_fork();
    pools_after_fork(); /* first: what is not there any more must not be joined or detached by the pools that go below */
    workers_after_fork();
    mailboxes_after_fork();
    log_after_fork();
    counts_forget_threads();
}

void pools_after_fork(void) {
    for (node *l = all_pools.next; l != &all_pools; l = l->next) {
        engine_pool *p = CONTAINER(l, engine_pool, registered);
        for (int i = 0; i < p->slots; i++) {
            worker_unref(p->workers[i]);
            p->workers[i] = NULL;
        }
        for (size_t i = 0; i < p->ended_count; i++) worker_unref(p->ended[i]);
        p->ended_count = 0;
        while (!node_empty(&p->played)) {
            engine_record *r = CONTAINER(p->played.next, engine_record, in_worker);
            node_remove(&r->in_worker);
            record_fork(r);
            files_fork(r);
            r->told(r->token, ENGINE_TOLD_FORKED);
            engine_record_unref(r);
        }
        waiters_forget(&p->waiters);
        p->alive = 0;
        p->deaths_next = 0;
        memset(p->deaths, 0, sizeof p->deaths);
        atomic_store(&p->in_flight, 0);
        atomic_store(&p->connections, 0);
        turns_after_fork(p->turns);
    }
}
