#include "turns.h"

#include <stdlib.h>
#include <string.h>

#include "record.h"
#include "worker.h"

#define BUCKETS 1024        /* of the hash table; arbitrary */
#define REMEMBERED_MOST 4096 /* origins without transfers that are kept for what was learnt of them; arbitrary */

struct origin {
    origin *next; /* in its bucket */
    unsigned hash;
    int used;     /* slots held */
    int sockets;  /* open, idle ones included */
    int streams;  /* per connection: 1 until HTTP/2 or 3 was seen */
    bool lone;    /* 1 for good */
    bool http1;   /* a response was HTTP/1 */
    bool connected; /* there has been a connection */
    int64_t released_ns; /* when there was the first, or an attempt at one had failed; 0: never */
    node waiting; /* tickets, first come first */
    node starved; /* in turns.starved: has waiters that lack nothing but a share */
    size_t size;
    char key[];
};

struct turns {
    int max_host, max_total, max_streams;
    bool multiplexing;
    int shares; /* in use, of max_total */
    long waiting;
    bool strict;  /* claims are needed */
    int claims;   /* sockets open or claimed */
    int starving; /* transfers whose claim was refused */
    int count;
    node starved;
    origin *buckets[BUCKETS];
};

turns *turns_new(int max_host, int max_total, int max_streams, bool multiplexing) {
    turns *t = mem_zalloc(sizeof *t);
    if (!t) return NULL;
    t->max_host = max_host;
    t->max_total = max_total;
    t->max_streams = max_streams > 0 ? max_streams : 1;
    t->multiplexing = multiplexing;
    node_init(&t->starved);
    return t;
}

void turns_free(turns *t) {
    if (!t) return;
    for (int i = 0; i < BUCKETS; i++)
        for (origin *o = t->buckets[i], *next; o; o = next) {
            next = o->next;
            free(o);
        }
    free(t);
}

static unsigned hash_of(unsigned hash, const char *data, size_t size) {
    for (size_t i = 0; i < size; i++) hash = (hash ^ (unsigned char)data[i]) * 16777619u; /* FNV-1a */
    return hash;
}

static origin *origin_of(turns *t, const char *identity, size_t identity_size, const char *name, bool lone) {
    size_t name_size = strlen(name), size = identity_size + name_size;
    unsigned hash = hash_of(hash_of(2166136261u, identity, identity_size), name, name_size);
    origin **bucket = &t->buckets[hash % BUCKETS];
    for (origin *o = *bucket; o; o = o->next)
        if (o->hash == hash && o->size == size && o->lone == lone && !memcmp(o->key, identity, identity_size) &&
            !memcmp(o->key + identity_size, name, name_size))
            return o;
    origin *o = mem_zalloc(sizeof *o + size);
    if (!o) return NULL;
    o->hash = hash;
    o->streams = 1;
    o->lone = lone;
    o->size = size;
    memcpy(o->key, identity, identity_size);
    memcpy(o->key + identity_size, name, name_size);
    node_init(&o->waiting);
    node_init(&o->starved);
    o->next = *bucket;
    *bucket = o;
    t->count++;
    return o;
}

static void forget_if_many(turns *t, origin *o) {
    if (t->count <= REMEMBERED_MOST || o->used || o->sockets || !node_empty(&o->waiting)) return;
    origin **p = &t->buckets[o->hash % BUCKETS];
    while (*p != o) p = &(*p)->next;
    *p = o->next;
    t->count--;
    free(o);
}

static int shares_of(const origin *o, int used) { return (used + o->streams - 1) / o->streams; }

typedef enum { FREE, HOST_FULL, TOTAL_FULL } room;

static room room_for(const turns *t, const origin *o) {
    if (t->max_host && o->used >= t->max_host * o->streams) return HOST_FULL;
    int more = shares_of(o, o->used + 1) - shares_of(o, o->used);
    return more && t->max_total && t->shares + more > t->max_total ? TOTAL_FULL : FREE;
}

static void set_used(turns *t, origin *o, int used) {
    t->shares += shares_of(o, used) - shares_of(o, o->used);
    o->used = used;
}

static void grant(turns *t, origin *o, ticket *k) {
    set_used(t, o, o->used + 1);
    k->state = TICKET_HELD;
}

static void grant_first(turns *t, origin *o) {
    ticket *k = CONTAINER(node_pop(&o->waiting), ticket, waiting);
    t->waiting--;
    grant(t, o, k);
    worker_command(k->worker, k->record, COMMAND_GRANT);
}

/* Grant what can be granted to the origin's waiters. */
static void serve(turns *t, origin *o) {
    node_remove(&o->starved);
    while (!node_empty(&o->waiting)) {
        room r = room_for(t, o);
        if (r == TOTAL_FULL) node_append(&t->starved, &o->starved);
        if (r != FREE) return;
        grant_first(t, o);
    }
}

/* Grant what needs no further share: streams of the connections that the origin has. Where shares are what is short, its
 * waiters have no reason to stand in line for one behind other origins'. It keeps its place in that line. */
static void serve_without_share(turns *t, origin *o) {
    while (!node_empty(&o->waiting) && shares_of(o, o->used + 1) == shares_of(o, o->used) && room_for(t, o) == FREE)
        grant_first(t, o);
    if (node_empty(&o->waiting)) node_remove(&o->starved);
}

static void serve_starved(turns *t) {
    while (!node_empty(&t->starved)) {
        origin *o = CONTAINER(t->starved.next, origin, starved);
        if (room_for(t, o) == TOTAL_FULL) return;
        /* One share each, so that origins take turns: serve() would give all to the first. */
        node_remove(&o->starved);
        if (room_for(t, o) == FREE) {
            grant_first(t, o);
            serve_without_share(t, o);
        }
        if (!node_empty(&o->waiting) && room_for(t, o) != HOST_FULL) node_append(&t->starved, &o->starved);
    }
}

turn turns_enter(turns *t, ticket *k, const char *identity, size_t identity_size, const char *name, bool lone) {
    turn answer = TURN_GRANTED;
    lock(LOCK_TURNS, t);
    origin *o = origin_of(t, identity, identity_size, name, lone);
    if (!o) {
        answer = TURN_NO_MEMORY;
    } else {
        k->origin = o;
        node_init(&k->waiting);
        room r = node_empty(&o->waiting) ? room_for(t, o) : HOST_FULL;
        if (r == FREE) {
            grant(t, o, k);
        } else {
            answer = TURN_WAITS;
            k->state = TICKET_WAITING;
            node_append(&o->waiting, &k->waiting);
            t->waiting++;
            if (r == TOTAL_FULL) node_append(&t->starved, &o->starved);
        }
    }
    unlock(LOCK_TURNS, t);
    return answer;
}

void turns_leave(turns *t, ticket *k) {
    origin *o = k->origin;
    if (!o) return;
    lock(LOCK_TURNS, t);
    if (k->state == TICKET_WAITING) {
        node_remove(&k->waiting);
        t->waiting--;
        if (node_empty(&o->waiting)) node_remove(&o->starved);
    } else if (k->state == TICKET_HELD) {
        set_used(t, o, o->used - 1);
        if (node_empty(&o->starved)) serve(t, o);
        else serve_without_share(t, o);
        serve_starved(t);
    }
    if (k->claimed) t->claims--;
    k->claimed = false;
    k->state = TICKET_NONE;
    k->origin = NULL;
    forget_if_many(t, o);
    unlock(LOCK_TURNS, t);
}

void turns_learn(turns *t, ticket *k, bool multiplexed) {
    origin *o = k->origin;
    if (!o) return;
    int streams = multiplexed && t->multiplexing && !o->lone ? t->max_streams : 1;
    lock(LOCK_TURNS, t);
    o->http1 = !multiplexed;
    if (o->streams != streams) {
        t->shares -= shares_of(o, o->used);
        o->streams = streams;
        t->shares += shares_of(o, o->used);
        if (!node_empty(&o->waiting)) serve(t, o);
        serve_starved(t);
    }
    unlock(LOCK_TURNS, t);
}

bool turns_is_alone(turns *t, const ticket *k) {
    lock(LOCK_TURNS, t);
    bool alone = !k->origin || k->origin->used <= 1;
    unlock(LOCK_TURNS, t);
    return alone;
}

bool turns_knows_http1(turns *t, const ticket *k) {
    lock(LOCK_TURNS, t);
    bool http1 = k->origin->http1;
    unlock(LOCK_TURNS, t);
    return http1;
}

bool turns_connected(turns *t, ticket *k) {
    lock(LOCK_TURNS, t);
    bool first = !k->origin->connected;
    k->origin->connected = true;
    if (first) k->origin->released_ns = now_ns();
    unlock(LOCK_TURNS, t);
    return first;
}

void turns_release(turns *t, ticket *k) {
    if (!k->origin) return;
    lock(LOCK_TURNS, t);
    k->origin->released_ns = now_ns();
    unlock(LOCK_TURNS, t);
}

bool turns_is_released(turns *t, const ticket *k) {
    lock(LOCK_TURNS, t);
    int64_t at = k->origin->released_ns;
    bool released = at && now_ns() - at < SECOND_NS; /* longer than two turns of a worker, shorter than an idle connection */
    unlock(LOCK_TURNS, t);
    return released;
}

long turns_waiting(turns *t) {
    lock(LOCK_TURNS, t);
    long waiting = t->waiting;
    unlock(LOCK_TURNS, t);
    return waiting;
}

/* ---- sockets */

void turns_be_strict(turns *t) {
    lock(LOCK_TURNS, t);
    t->strict = true;
    unlock(LOCK_TURNS, t);
}

bool turns_claim(turns *t, ticket *k) {
    lock(LOCK_TURNS, t);
    origin *o = k->origin;
    /* Its own share is among `used`: as many sockets as shares means that one of them is idle, or can take a stream. */
    bool granted = !t->strict || o->sockets >= shares_of(o, o->used) || t->claims < t->max_total;
    if (!granted) {
        t->starving++;
    } else if (t->strict && o->sockets < shares_of(o, o->used)) {
        t->claims++;
        k->claimed = true;
    }
    unlock(LOCK_TURNS, t);
    return granted;
}

void turns_stop_starving(turns *t) {
    lock(LOCK_TURNS, t);
    t->starving--;
    unlock(LOCK_TURNS, t);
}

void turns_unclaim(turns *t, ticket *k) {
    if (!k->claimed) return;
    lock(LOCK_TURNS, t);
    k->claimed = false;
    t->claims--;
    unlock(LOCK_TURNS, t);
}

void *turns_opened(turns *t, ticket *k) {
    lock(LOCK_TURNS, t);
    origin *o = k->origin;
    if (!k->claimed) t->claims++;
    k->claimed = false;
    o->sockets++;
    unlock(LOCK_TURNS, t);
    return o;
}

bool turns_closed(turns *t, void *opened) {
    origin *o = opened;
    lock(LOCK_TURNS, t);
    o->sockets--;
    t->claims--;
    forget_if_many(t, o);
    bool awaited = t->starving > 0;
    unlock(LOCK_TURNS, t);
    return awaited;
}

void turns_after_fork(turns *t) {
    node_init(&t->starved);
    t->shares = t->claims = t->starving = 0;
    t->waiting = 0;
    for (int i = 0; i < BUCKETS; i++)
        for (origin *o = t->buckets[i]; o; o = o->next) {
            o->used = o->sockets = 0;
            node_init(&o->waiting);
            node_init(&o->starved);
        }
}
