/* A libcurl without a network, for the engine's tests: a shared object with the functions that libcurl.h looks up.
 *
 * A transfer does what its URL says, in an order that its seed drives: which callback comes when, by a timer, by a readable
 * or a writable descriptor, how large the pieces are, how many of them at a time. Its descriptors are real ones, and behave
 * like those of libcurl: connections come from the open-socket callback and go through the close-socket callback; the
 * resolver's go through neither. Rules that libcurl asks its user to keep are checked, and a breach aborts the program.
 *
 *     http://HOST/?id=1&seed=2&size=1000 ...
 *
 *     id       index of the counters (fake_libcurl.h)         status   of the final response (200)
 *     seed     of everything random                           size     of its body (0)
 *     pre      blocks before the final one: c 100, e 103,     piece    bytes of a delivery, at most (16384)
 *              r a redirect, a a 401                          trailers 1: the response has some
 *     v        2, 3: HTTP/2, 3: many requests on one          cookie   1: the response sets one
 *              connection
 *     fail     the result, at stage `at`: 1 connecting,       close    1: the connection is not kept
 *              2 sent, 3 headers came, 4 in the body          dead     1: a reused connection turns out to be dead
 *     hang     stage at which nothing happens any more        early    1: answers while the body is being sent
 *              (0: resolving)                                 wedge    1: gets stuck when it is sent
 *
 * Over HTTP/3 a transfer that ends may leave something of its body behind, which the connection does not survive: no other
 * transfer may be on it then, or come later.
 */
#include "fake_libcurl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "../src/libcurl.h"

#define EXPORT __attribute__((visibility("default")))
#define SMALL_BODY 16000 /* as in transfer.c: of a body no larger nothing is left behind once there is a response */
enum { STAGE_RESOLVE, STAGE_CONNECT, STAGE_SENT, STAGE_HEADERS, STAGE_BODY };
enum { WAIT_NOTHING, WAIT_TIMER, WAIT_IN, WAIT_OUT, WAIT_RESOLVER };

typedef struct connection connection;
typedef struct fake_multi fake_multi;

typedef struct fake_easy {
    pid_t pid;
    fake_multi *multi;
    /* Options. */
    char *url;
    long nobody, verbose, upload, post, forbid_reuse;
    int64_t body_size;
    void *private_data, *write_data, *header_data, *read_data, *seek_data, *open_data, *close_data, *prereq_data,
        *resolver_data, *debug_data;
    size_t (*write)(char *, size_t, size_t, void *);
    size_t (*header)(char *, size_t, size_t, void *);
    size_t (*read)(char *, size_t, size_t, void *);
    int (*seek)(void *, int64_t, int);
    int (*open)(void *, int, struct curl_sockaddr *);
    int (*close)(void *, int);
    int (*prereq)(void *, char *, char *, int, int);
    int (*resolver)(void *, void *, void *);
    int (*debug)(CURL *, int, char *, size_t, void *);
    char *error;
    /* The URL's words. */
    uint64_t random, seed;
    char host[64], pre[16];
    int id, status, version, fail, at, hang;
    int64_t size, piece;
    bool trailers, cookie, close_after, dead, early, wedge;
    /* The transfer. */
    int stage, wait;
    int64_t due_ns;
    connection *connection;
    int resolver_fd;
    int connects, redirects, pre_next;
    long request_size; /* bytes of request that have left, all attempts together */
    bool up, up_done, down_done, rx_paused, tx_paused, done, told;
    char *held; /* a piece that was refused */
    int64_t held_size, delivered, uploaded;
    uint64_t hash;
    int result;
    CURLMsg message;
} fake_easy;

struct connection {
    fake_multi *multi;
    connection *next;
    char host[64];
    int fd, peer, users, watched, version, port;
    int64_t id;
    int (*close)(void *, int);
    void *close_data;
    bool closed_by_peer, removed_late, not_again;
    bool has_body;    /* HTTP/3: one of its users sends one */
    bool left_behind; /* some of one */
};

struct fake_multi {
    pid_t pid;
    pthread_t thread;
    bool in_callback;
    int (*socket)(CURL *, int, int, void *, void *);
    void *socket_data;
    int (*timer)(CURLM *, long, void *);
    void *timer_data;
    int64_t next_id; /* of connections */
    long streams;    /* a connection, at most */
    int64_t told_ns; /* the timer that was asked for; 0: none */
    fake_easy **easies;
    int count, room;
    connection *connections;
    int listener;
    struct sockaddr_un address;
    socklen_t address_size;
    uint64_t random;
};

static void (*_Atomic hook)(const char *);
static _Atomic int sends[FAKE_IDS], bodies[FAKE_IDS];
static _Atomic long live, wedged_now, connections_now, next_multi;
static _Atomic int connections_peak;
static _Atomic unsigned version_now = 0x081700;
static pthread_mutex_t wedge_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wedge_changed = PTHREAD_COND_INITIALIZER;
static bool wedges;

static void breach(const char *what) {
    fprintf(stderr, "fake libcurl: %s\n", what);
    abort();
}

static void entered(const char *function) {
    void (*h)(const char *) = atomic_load(&hook);
    if (h) h(function);
}

static fake_multi *multi_of(CURLM *handle, const char *function) {
    fake_multi *m = handle;
    entered(function);
    if (m->pid != getpid()) breach("a multi handle is used in a forked child");
    if (!pthread_equal(m->thread, pthread_self())) breach("a multi handle is used in another thread");
    if (m->in_callback) breach("a multi handle is used in a callback");
    return m;
}

static fake_easy *easy_of(CURL *handle, const char *function) {
    fake_easy *e = handle;
    entered(function);
    if (e->pid != getpid()) breach("an easy handle is used in a forked child");
    return e;
}

static uint64_t next_random(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545f4914f6cdd1d);
}
static int64_t below(fake_easy *e, int64_t n) { return (int64_t)((next_random(&e->random) >> 16) % (uint64_t)n); }

static int64_t now(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* ------------------------------------------------------------------------------------------------ callbacks of the multi */

static void tell_socket(fake_multi *m, fake_easy *e, int fd, int what) {
    bool before = m->in_callback;
    m->in_callback = true;
    if (m->socket(e, fd, what, m->socket_data, NULL)) breach("the socket callback failed");
    m->in_callback = before;
}

static void tell_timer(fake_multi *m) {
    int64_t earliest = INT64_MAX;
    for (int i = 0; i < m->count; i++)
        if (m->easies[i]->wait == WAIT_TIMER && m->easies[i]->due_ns < earliest) earliest = m->easies[i]->due_ns;
    if (earliest == INT64_MAX) earliest = 0;
    if (earliest == m->told_ns) return;
    m->told_ns = earliest;
    int64_t left = earliest ? earliest - now() : 0;
    bool before = m->in_callback;
    m->in_callback = true;
    m->timer(m, !earliest ? -1 : left <= 0 ? 0 : (long)((left + 999999) / 1000000), m->timer_data);
    m->in_callback = before;
}

/* ------------------------------------------------------------------------------------------------ connections */

static void watch_connection(fake_multi *m, fake_easy *e, connection *c) {
    int what = 0;
    for (int i = 0; i < m->count; i++) {
        if (m->easies[i]->connection != c) continue;
        if (m->easies[i]->wait == WAIT_IN) what |= CURL_POLL_IN;
        if (m->easies[i]->wait == WAIT_OUT) what |= CURL_POLL_OUT;
    }
    if (what == c->watched) return;
    c->watched = what;
    tell_socket(m, e, c->fd, what ? what : CURL_POLL_REMOVE);
}

static connection *open_connection(fake_easy *e) {
    fake_multi *m = e->multi;
    struct curl_sockaddr address = {.family = AF_UNIX, .socktype = SOCK_STREAM, .addrlen = sizeof(struct sockaddr)};
    int fd = e->open ? e->open(e->open_data, 0, &address) : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return NULL;
    connection *c = calloc(1, sizeof *c);
    if (connect(fd, (struct sockaddr *)&m->address, m->address_size)) breach("connect failed");
    c->peer = accept4(m->listener, NULL, NULL, SOCK_CLOEXEC);
    if (c->peer < 0) {
        if (e->close) e->close(e->close_data, fd);
        else close(fd);
        free(c);
        return NULL;
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    c->multi = m;
    c->fd = fd;
    c->version = e->version;
    c->close = e->close;
    c->close_data = e->close_data;
    c->id = m->next_id++;
    c->port = (int)(c->id % 60000) + 1;
    c->removed_late = next_random(&m->random) % 4 == 0;
    snprintf(c->host, sizeof c->host, "%s", e->host);
    c->next = m->connections;
    m->connections = c;
    atomic_fetch_add(&live, 1);
    int count = (int)atomic_fetch_add(&connections_now, 1) + 1, peak = atomic_load(&connections_peak);
    while (count > peak && !atomic_compare_exchange_weak(&connections_peak, &peak, count)) continue;
    return c;
}

static void close_connection(connection *c) {
    fake_multi *m = c->multi;
    connection **p = &m->connections;
    while (*p != c) p = &(*p)->next;
    *p = c->next;
    /* Versions differ: some close first and say afterwards that the descriptor is not to be watched. */
    if (c->watched && !c->removed_late) tell_socket(m, NULL, c->fd, CURL_POLL_REMOVE);
    bool before = m->in_callback;
    m->in_callback = true;
    if (c->close) c->close(c->close_data, c->fd);
    else close(c->fd);
    m->in_callback = before;
    if (c->watched && c->removed_late) tell_socket(m, NULL, c->fd, CURL_POLL_REMOVE);
    if (c->peer >= 0) close(c->peer);
    free(c);
    atomic_fetch_sub(&live, 1);
    atomic_fetch_sub(&connections_now, 1);
}

static bool has_body(const fake_easy *e) { return e->up && e->body_size; }

static void leave_connection(fake_easy *e, bool keep) {
    connection *c = e->connection;
    if (!c) return;
    e->connection = NULL;
    if (c->version == 3) {
        bool all_sent = e->stage >= STAGE_HEADERS && e->body_size >= 0 && e->body_size <= SMALL_BODY;
        if (has_body(e)) c->left_behind |= !all_sent && e->stage >= STAGE_SENT;
        c->has_body = false; /* it was the only user */
        keep = !e->close_after;
    }
    keep = keep && !e->forbid_reuse;
    if (--c->users) {
        watch_connection(e->multi, e, c);
        return;
    }
    if (!keep || c->not_again) {
        close_connection(c);
        return;
    }
    watch_connection(e->multi, e, c);
    if (next_random(&e->multi->random) % 8 == 0) { /* the server closes it while it idles */
        close(c->peer);
        c->peer = -1;
        c->closed_by_peer = true;
    }
}

static connection *find_connection(fake_easy *e) {
    for (connection *c = e->multi->connections, *next; c; c = next) {
        next = c->next;
        if (strcmp(c->host, e->host) != 0 || c->version != e->version || (c->users && c->version < 2)) continue;
        if (c->not_again || c->users >= c->multi->streams) continue;
        if (!c->closed_by_peer) return c;
        if (!c->users) close_connection(c); /* found dead before it is used again */
    }
    return NULL;
}

static void end_resolving(fake_easy *e) {
    if (e->resolver_fd < 0) return;
    tell_socket(e->multi, e, e->resolver_fd, CURL_POLL_REMOVE);
    close(e->resolver_fd);
    e->resolver_fd = -1;
}

/* ------------------------------------------------------------------------------------------------ a transfer */

static void finish(fake_easy *e, int result) {
    end_resolving(e);
    e->done = true;
    e->result = result;
    e->wait = WAIT_NOTHING;
    if (result && e->error) snprintf(e->error, CURL_ERROR_SIZE, "fake error %d", result);
    leave_connection(e, !result && !e->close_after);
}

static void wait_for_timer(fake_easy *e, int64_t ms) {
    e->wait = WAIT_TIMER;
    e->due_ns = now() + ms * 1000000;
}

/* What brings it on next. */
static void wait_somehow(fake_easy *e) {
    int before = e->wait;
    int64_t kind = below(e, 10);
    if (kind < 5 || !e->connection) {
        wait_for_timer(e, kind == 0 ? 1 : 0);
    } else if (kind < 8) {
        e->wait = WAIT_IN;
        if (write(e->connection->peer, "!", 1) != 1) breach("cannot write to a connection");
    } else {
        e->wait = WAIT_OUT;
    }
    if (e->connection && (before != e->wait || e->wait == WAIT_IN || e->wait == WAIT_OUT))
        watch_connection(e->multi, e, e->connection);
}

static bool reaches(fake_easy *e, int stage) {
    e->stage = stage;
    if (e->fail && e->at == stage) {
        finish(e, e->fail);
        return false;
    }
    if (e->hang == stage) {
        e->wait = WAIT_NOTHING;
        if (e->connection) watch_connection(e->multi, e, e->connection);
        return false;
    }
    return true;
}

static size_t call_header(fake_easy *e, const char *line) {
    char copy[256];
    snprintf(copy, sizeof copy, "%s\r\n", line);
    size_t size = strlen(copy);
    if (e->verbose && e->debug) e->debug(e, 1, copy, size, e->debug_data);
    return e->header ? e->header(copy, 1, size, e->header_data) == size : 1;
}

/* Begin to send: the last moment before the request leaves. */
static bool begin_send(fake_easy *e) {
    char remote[] = "127.0.0.1", local[] = "127.0.0.1";
    if (e->prereq && e->prereq(e->prereq_data, remote, local, 80, e->connection->port)) {
        finish(e, CURLE_ABORTED_BY_CALLBACK);
        return false;
    }
    atomic_fetch_add(&sends[e->id], 1);
    e->request_size += 100;
    e->tx_paused = false;
    if (e->uploaded) {
        if (!e->seek || e->seek(e->seek_data, 0, SEEK_SET)) {
            finish(e, 65);
            return false;
        }
        e->uploaded = 0;
        e->hash = FAKE_HASH_START;
    }
    e->up_done = !e->up || e->nobody;
    return true;
}

static bool connect_it(fake_easy *e, bool fresh) {
    connection *c = fresh ? NULL : find_connection(e);
    if (!c) {
        c = open_connection(e);
        if (!c) {
            finish(e, CURLE_COULDNT_CONNECT);
            return false;
        }
        e->connects++;
    }
    if (c->users && (c->has_body || (c->version == 3 && has_body(e)))) breach("a body shares its HTTP/3 connection");
    if (c->left_behind) breach("an HTTP/3 connection is used on which some of a body was left behind");
    c->has_body = c->version == 3 && has_body(e);
    c->users++;
    e->connection = c;
    return true;
}

static void get_stuck(void) {
    pthread_mutex_lock(&wedge_lock);
    atomic_fetch_add(&wedged_now, 1);
    while (wedges) pthread_cond_wait(&wedge_changed, &wedge_lock);
    atomic_fetch_sub(&wedged_now, 1);
    pthread_mutex_unlock(&wedge_lock);
}

static bool send_it(fake_easy *e) {
    bool reused = e->connects == 0;
    if (!begin_send(e)) return false;
    if (e->wedge) get_stuck();
    if (e->dead && reused) {
        e->dead = false;
        if (e->version >= 2) {
            finish(e, e->version == 2 ? CURLE_HTTP2 : CURLE_HTTP3);
            return false;
        }
        if (e->up && !e->up_done && below(e, 2)) { /* part of the body was gone by then */
            char byte;
            size_t n = e->read(&byte, 1, 1, e->read_data);
            if (n == 1) e->uploaded = 1;
        }
        leave_connection(e, false);
        if (!connect_it(e, true) || !begin_send(e)) return false;
    }
    return true;
}

/* Read some of the request's body. */
static void take_body(fake_easy *e) {
    static _Thread_local char space[65536];
    size_t room = (size_t)(1 + below(e, below(e, 2) ? 100 : (int64_t)sizeof space));
    size_t n = e->read(space, 1, room, e->read_data);
    if (n == CURL_READFUNC_PAUSE) {
        e->tx_paused = true;
        return;
    }
    if (n == CURL_READFUNC_ABORT) {
        finish(e, CURLE_ABORTED_BY_CALLBACK);
        return;
    }
    if (n > room) breach("the read callback gave more than there was room for");
    e->uploaded += (int64_t)n;
    e->hash = fake_hash(e->hash, space, n);
    bool ended = n == 0;
    if (e->body_size >= 0) {
        if (e->uploaded > e->body_size) breach("the body is longer than it was said to be");
        if (ended && e->uploaded < e->body_size) {
            finish(e, CURLE_PARTIAL_FILE);
            return;
        }
        ended = e->uploaded == e->body_size;
    }
    if (ended) {
        e->up_done = true;
        atomic_fetch_add(&bodies[e->id], 1);
    }
}

static bool deliver(fake_easy *e, char *data, int64_t size) {
    size_t n = e->write ? e->write(data, 1, (size_t)size, e->write_data) : (size_t)size;
    if (n == CURL_WRITEFUNC_PAUSE) {
        if (e->held != data) {
            e->held = malloc((size_t)size);
            memcpy(e->held, data, (size_t)size);
            e->held_size = size;
        }
        e->rx_paused = true;
        return false;
    }
    if (n != (size_t)size) {
        finish(e, CURLE_WRITE_ERROR);
        return false;
    }
    e->delivered += size;
    return true;
}

static bool header_block(fake_easy *e, int status, bool final) {
    char line[128];
    snprintf(line, sizeof line, "HTTP/%s %d", e->version == 2 ? "2" : e->version == 3 ? "3" : "1.1", status);
    if (!call_header(e, line)) return false;
    if (final) {
        snprintf(line, sizeof line, "x-body: %lld %llx", (long long)e->uploaded, (unsigned long long)e->hash);
        if (!call_header(e, line)) return false;
        if (e->cookie && !call_header(e, "Set-Cookie: a=b")) return false;
    } else if (!call_header(e, "x-before: 1")) {
        return false;
    }
    return call_header(e, "");
}

/* One step of the response. */
static void respond(fake_easy *e) {
    if (e->stage < STAGE_HEADERS) {
        char next = e->pre[e->pre_next];
        if (next) {
            e->pre_next++;
            int status = next == 'c' ? 100 : next == 'e' ? 103 : next == 'r' ? 302 : 401;
            if (!header_block(e, status, false)) {
                finish(e, CURLE_WRITE_ERROR);
                return;
            }
            if (status >= 300) { /* and once more, on the same connection */
                if (status == 302) e->redirects++;
                begin_send(e);
            }
            return;
        }
        if (!header_block(e, e->status, true)) {
            finish(e, CURLE_WRITE_ERROR);
            return;
        }
        reaches(e, STAGE_HEADERS);
        return;
    }
    if (e->held) {
        char *held = e->held;
        bool taken = deliver(e, held, e->held_size);
        if (e->rx_paused && !taken && !e->done) return;
        free(held);
        e->held = NULL;
        if (!taken) return;
    } else if (!e->nobody && e->delivered < e->size) {
        static _Thread_local char space[65536];
        int64_t n = 1 + below(e, e->piece < (int64_t)sizeof space ? e->piece : (int64_t)sizeof space);
        if (n > e->size - e->delivered) n = e->size - e->delivered;
        for (int64_t i = 0; i < n; i++) space[i] = (char)fake_byte(e->seed, e->delivered + i);
        if (!deliver(e, space, n)) return;
    }
    if (e->stage == STAGE_HEADERS && !reaches(e, STAGE_BODY)) return;
    if (e->nobody || e->delivered >= e->size) {
        if (e->trailers && (!call_header(e, "x-trailer: 1") || !call_header(e, ""))) {
            finish(e, CURLE_WRITE_ERROR);
            return;
        }
        e->down_done = true;
    }
}

static void go_on(fake_easy *e) {
    switch (e->stage) {
    case STAGE_RESOLVE:
        end_resolving(e);
        if (!connect_it(e, false)) return;
        if (reaches(e, STAGE_CONNECT)) wait_somehow(e);
        return;
    case STAGE_CONNECT:
        if (!send_it(e)) return;
        if (reaches(e, STAGE_SENT)) wait_somehow(e);
        return;
    default: break;
    }
    for (int64_t steps = 1 + below(e, 4); steps && !e->done; steps--) {
        bool can_take = e->up && !e->up_done && !e->tx_paused;
        bool may_respond = e->up_done || e->early || e->stage >= STAGE_HEADERS;
        bool can_respond = may_respond && !e->rx_paused && !e->down_done;
        if (!can_take && !can_respond) break;
        int stage = e->stage;
        if (can_take && (!can_respond || below(e, 2))) take_body(e);
        else respond(e);
        if (stage != e->stage && e->hang == e->stage) return;
    }
    if (e->done) return;
    if (e->up_done && e->down_done) {
        finish(e, 0);
        return;
    }
    bool can_take = e->up && !e->up_done && !e->tx_paused;
    bool can_respond = (e->up_done || e->early || e->stage >= STAGE_HEADERS) && !e->rx_paused && !e->down_done;
    if (can_take || can_respond) {
        wait_somehow(e);
    } else {
        e->wait = WAIT_NOTHING;
        watch_connection(e->multi, e, e->connection);
    }
}

static void begin(fake_easy *e) {
    if (e->resolver) e->resolver(NULL, NULL, e->resolver_data);
    if (!reaches(e, STAGE_RESOLVE)) return;
    if (find_connection(e) || below(e, 2)) {
        go_on(e);
        return;
    }
    e->resolver_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    if (e->resolver_fd < 0) {
        finish(e, CURLE_COULDNT_RESOLVE_HOST);
        return;
    }
    e->wait = WAIT_RESOLVER;
    tell_socket(e->multi, e, e->resolver_fd, CURL_POLL_IN);
}

static int64_t word(const char *url, const char *name, int64_t otherwise) {
    size_t size = strlen(name);
    for (const char *at = strchr(url, '?'); at; at = strchr(at + 1, '&'))
        if (!strncmp(at + 1, name, size) && at[1 + size] == '=') return strtoll(at + 2 + size, NULL, 10);
    return otherwise;
}

static void read_url(fake_easy *e) {
    const char *url = e->url;
    const char *host = strstr(url, "://");
    host = host ? host + 3 : url;
    snprintf(e->host, sizeof e->host, "%.*s", (int)strcspn(host, "/"), host);
    e->seed = (uint64_t)word(url, "seed", 1);
    e->random = (e->seed + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1;
    for (int i = 0; i < 4; i++) next_random(&e->random);
    e->id = (int)(word(url, "id", 0) % FAKE_IDS);
    e->status = (int)word(url, "status", 200);
    e->version = (int)word(url, "v", 1);
    e->fail = (int)word(url, "fail", 0);
    e->at = (int)word(url, "at", STAGE_SENT);
    e->hang = (int)word(url, "hang", -1);
    e->size = word(url, "size", 0);
    e->piece = word(url, "piece", 16384);
    e->trailers = word(url, "trailers", 0);
    e->cookie = word(url, "cookie", 0);
    e->close_after = word(url, "close", 0);
    e->dead = word(url, "dead", 0);
    e->early = word(url, "early", 0);
    e->wedge = word(url, "wedge", 0);
    const char *pre = strstr(url, "pre=");
    snprintf(e->pre, sizeof e->pre, "%.*s", pre ? (int)strcspn(pre + 4, "&") : 0, pre ? pre + 4 : "");
}

/* ------------------------------------------------------------------------------------------------ the interface */

EXPORT int curl_global_init(long flags);
int curl_global_init(long flags) {
    const char *version = getenv("FAKE_LIBCURL_VERSION"); /* 0xMMmmpp */
    (void)flags;
    if (version) atomic_store(&version_now, (unsigned)strtoul(version, NULL, 0));
    return 0;
}

EXPORT const struct curl_version *curl_version_info(int age);
const struct curl_version *curl_version_info(int age) {
    static const char *const protocols[] = {"http", "https", NULL}, *const features[] = {"HTTP2", NULL};
    static _Thread_local struct curl_version v;
    (void)age;
    v = (struct curl_version){.age = 11,
                              .version = "fake",
                              .version_num = atomic_load(&version_now),
                              .ssl_version = "none",
                              .protocols = protocols,
                              .feature_names = features};
    return &v;
}

EXPORT const char *curl_easy_strerror(int code);
const char *curl_easy_strerror(int code) {
    (void)code;
    return "an error of the fake libcurl";
}
EXPORT const char *curl_multi_strerror(int code);
const char *curl_multi_strerror(int code) {
    (void)code;
    return "a multi error of the fake libcurl";
}

static const struct curl_option url_option = {"URL", CURLOPT_URL, KIND_STRING, 0};
EXPORT const struct curl_option *curl_easy_option_by_name(const char *name);
const struct curl_option *curl_easy_option_by_name(const char *name) { return strcmp(name, "URL") ? NULL : &url_option; }
EXPORT const struct curl_option *curl_easy_option_by_id(int id);
const struct curl_option *curl_easy_option_by_id(int id) { return id == CURLOPT_URL ? &url_option : NULL; }

EXPORT struct curl_slist *curl_slist_append(struct curl_slist *list, const char *text);
struct curl_slist *curl_slist_append(struct curl_slist *list, const char *text) {
    struct curl_slist *fresh = calloc(1, sizeof *fresh), **end = &list;
    fresh->data = strdup(text);
    while (*end) end = &(*end)->next;
    *end = fresh;
    return list;
}
EXPORT void curl_slist_free_all(struct curl_slist *list);
void curl_slist_free_all(struct curl_slist *list) {
    while (list) {
        struct curl_slist *next = list->next;
        free(list->data);
        free(list);
        list = next;
    }
}

EXPORT CURL *curl_easy_init(void);
CURL *curl_easy_init(void) {
    entered("curl_easy_init");
    fake_easy *e = calloc(1, sizeof *e);
    e->pid = getpid();
    e->resolver_fd = -1;
    e->body_size = -1;
    atomic_fetch_add(&live, 1);
    return e;
}

EXPORT void curl_easy_cleanup(CURL *handle);
void curl_easy_cleanup(CURL *handle) {
    fake_easy *e = easy_of(handle, "curl_easy_cleanup");
    if (e->multi) breach("an easy handle is cleaned up while it is in a multi handle");
    free(e->url);
    free(e->held);
    free(e);
    atomic_fetch_sub(&live, 1);
}

EXPORT int curl_easy_setopt(CURL *handle, int option, ...);
int curl_easy_setopt(CURL *handle, int option, ...) {
    fake_easy *e = easy_of(handle, "curl_easy_setopt");
    /* That one is looked at when the transfer ends. */
    if (e->multi && option != CURLOPT_FORBID_REUSE) breach("an option is set while the handle is in a multi handle");
    va_list arguments;
    va_start(arguments, option);
    long number = 0;
    int64_t large = 0;
    void *pointer = NULL;
    if (option < CURLOPTTYPE_OBJECT) number = va_arg(arguments, long);
    else if (option >= CURLOPTTYPE_OFF_T && option < CURLOPTTYPE_BLOB) large = va_arg(arguments, int64_t);
    else pointer = va_arg(arguments, void *);
    va_end(arguments);
    switch (option) {
    case CURLOPT_URL:
        free(e->url);
        e->url = strdup(pointer);
        break;
    case CURLOPT_NOBODY: e->nobody = number; break;
    case CURLOPT_VERBOSE: e->verbose = number; break;
    case CURLOPT_FORBID_REUSE: e->forbid_reuse = number; break;
    case CURLOPT_UPLOAD: e->upload = number; break;
    case CURLOPT_POST: e->post = number; break;
    case CURLOPT_INFILESIZE_LARGE:
    case CURLOPT_POSTFIELDSIZE_LARGE: e->body_size = large; break;
    case CURLOPT_PRIVATE: e->private_data = pointer; break;
    case CURLOPT_ERRORBUFFER: e->error = pointer; break;
    case CURLOPT_WRITEDATA: e->write_data = pointer; break;
    case CURLOPT_HEADERDATA: e->header_data = pointer; break;
    case CURLOPT_READDATA: e->read_data = pointer; break;
    case CURLOPT_SEEKDATA: e->seek_data = pointer; break;
    case CURLOPT_OPENSOCKETDATA: e->open_data = pointer; break;
    case CURLOPT_CLOSESOCKETDATA: e->close_data = pointer; break;
    case CURLOPT_PREREQDATA: e->prereq_data = pointer; break;
    case CURLOPT_RESOLVER_START_DATA: e->resolver_data = pointer; break;
    case CURLOPT_DEBUGDATA: e->debug_data = pointer; break;
    case CURLOPT_WRITEFUNCTION: *(void **)&e->write = pointer; break;
    case CURLOPT_HEADERFUNCTION: *(void **)&e->header = pointer; break;
    case CURLOPT_READFUNCTION: *(void **)&e->read = pointer; break;
    case CURLOPT_SEEKFUNCTION: *(void **)&e->seek = pointer; break;
    case CURLOPT_OPENSOCKETFUNCTION: *(void **)&e->open = pointer; break;
    case CURLOPT_CLOSESOCKETFUNCTION: *(void **)&e->close = pointer; break;
    case CURLOPT_PREREQFUNCTION: *(void **)&e->prereq = pointer; break;
    case CURLOPT_RESOLVER_START_FUNCTION: *(void **)&e->resolver = pointer; break;
    case CURLOPT_DEBUGFUNCTION: *(void **)&e->debug = pointer; break;
    default: break;
    }
    return 0;
}

EXPORT int curl_easy_getinfo(CURL *handle, int info, ...);
int curl_easy_getinfo(CURL *handle, int info, ...) {
    fake_easy *e = easy_of(handle, "curl_easy_getinfo");
    va_list arguments;
    va_start(arguments, info);
    void *to = va_arg(arguments, void *);
    va_end(arguments);
    switch (info) {
    case CURLINFO_PRIVATE: *(void **)to = e->private_data; break;
    case CURLINFO_EFFECTIVE_URL: *(const char **)to = e->url; break;
    case CURLINFO_PRIMARY_IP: *(const char **)to = "127.0.0.1"; break;
    case CURLINFO_REDIRECT_COUNT: *(long *)to = e->redirects; break;
    case CURLINFO_NUM_CONNECTS: *(long *)to = e->connects; break;
    case CURLINFO_REQUEST_SIZE: *(long *)to = e->request_size; break;
    case CURLINFO_ACTIVESOCKET: *(int *)to = e->connection ? e->connection->fd : -1; break;
    case CURLINFO_CONN_ID: *(int64_t *)to = e->connection ? e->connection->id : -1; break;
    case CURLINFO_CONTENT_LENGTH_DOWNLOAD_T: *(int64_t *)to = e->size; break;
    case CURLINFO_SIZE_DOWNLOAD_T: *(int64_t *)to = e->delivered; break;
    case CURLINFO_SIZE_UPLOAD_T: *(int64_t *)to = e->uploaded; break;
    case CURLINFO_COOKIELIST:
        *(struct curl_slist **)to = e->cookie ? curl_slist_append(NULL, "h\tFALSE\t/\tFALSE\t0\ta\tb") : NULL;
        break;
    default:
        if ((info & 0xf00000) == CURLINFO_LONG) *(long *)to = 0;
        else if ((info & 0xf00000) == CURLINFO_OFF_T) *(int64_t *)to = 0;
        else *(void **)to = NULL;
    }
    return 0;
}

EXPORT int curl_easy_pause(CURL *handle, int mask);
int curl_easy_pause(CURL *handle, int mask) {
    fake_easy *e = easy_of(handle, "curl_easy_pause");
    fake_multi *m = e->multi;
    if (!m || e->done || !e->connection) return 43;
    if (m->in_callback) breach("a transfer is unpaused in a callback");
    bool rx = e->rx_paused && !(mask & CURLPAUSE_RECV), tx = e->tx_paused && !(mask & CURLPAUSE_SEND);
    if (rx) {
        e->rx_paused = false;
        m->in_callback = true;
        if (e->held) respond(e); /* the write callback is called in here */
        m->in_callback = false;
    }
    if (tx) e->tx_paused = false;
    if ((rx || tx) && !e->done && e->wait == WAIT_NOTHING && e->hang != e->stage) wait_for_timer(e, 0);
    tell_timer(m);
    return 0;
}

EXPORT CURLM *curl_multi_init(void);
CURLM *curl_multi_init(void) {
    entered("curl_multi_init");
    fake_multi *m = calloc(1, sizeof *m);
    m->pid = getpid();
    m->thread = pthread_self();
    m->random = (uint64_t)atomic_fetch_add(&next_multi, 1) * 977 + 12345;
    m->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    m->address.sun_family = AF_UNIX;
    m->address_size = sizeof m->address;
    /* Bound to no name, the system chooses one. */
    if (m->listener < 0 || bind(m->listener, (struct sockaddr *)&m->address, sizeof(sa_family_t)) ||
        listen(m->listener, 16) || getsockname(m->listener, (struct sockaddr *)&m->address, &m->address_size)) {
        if (m->listener >= 0) close(m->listener);
        free(m);
        return NULL;
    }
    atomic_fetch_add(&live, 1);
    return m;
}

EXPORT int curl_multi_setopt(CURLM *handle, int option, ...);
int curl_multi_setopt(CURLM *handle, int option, ...) {
    fake_multi *m = multi_of(handle, "curl_multi_setopt");
    va_list arguments;
    va_start(arguments, option);
    switch (option) {
    case CURLMOPT_SOCKETFUNCTION: *(void **)&m->socket = va_arg(arguments, void *); break;
    case CURLMOPT_SOCKETDATA: m->socket_data = va_arg(arguments, void *); break;
    case CURLMOPT_TIMERFUNCTION: *(void **)&m->timer = va_arg(arguments, void *); break;
    case CURLMOPT_NETWORK_CHANGED:
        if (atomic_load(&version_now) < 0x081000) {
            va_end(arguments);
            return CURLM_UNKNOWN_OPTION;
        }
        /* No connection is used again: idle ones are closed, the others when they fall idle. */
        if (!(va_arg(arguments, long) & CURLMNWC_CLEAR_CONNS)) break;
        for (connection *c = m->connections, *next; c; c = next) {
            next = c->next;
            c->not_again = true;
            if (!c->users) close_connection(c);
        }
        break;
    case CURLMOPT_MAX_CONCURRENT_STREAMS: m->streams = va_arg(arguments, long); break;
    case CURLMOPT_TIMERDATA: m->timer_data = va_arg(arguments, void *); break;
    default: break;
    }
    va_end(arguments);
    return 0;
}

EXPORT int curl_multi_add_handle(CURLM *handle, CURL *easy);
int curl_multi_add_handle(CURLM *handle, CURL *easy) {
    fake_multi *m = multi_of(handle, "curl_multi_add_handle");
    fake_easy *e = easy_of(easy, "curl_multi_add_handle");
    if (e->multi) return 7;
    if (m->count == m->room) {
        m->room = m->room ? 2 * m->room : 16;
        m->easies = realloc(m->easies, (size_t)m->room * sizeof *m->easies);
    }
    m->easies[m->count++] = e;
    read_url(e);
    e->multi = m;
    e->stage = -1;
    e->connects = e->redirects = e->pre_next = 0;
    e->rx_paused = e->tx_paused = e->done = e->told = e->down_done = false;
    e->up = e->read && (e->upload || e->post);
    e->up_done = !e->up;
    free(e->held);
    e->held = NULL;
    e->delivered = e->uploaded = 0;
    e->hash = FAKE_HASH_START;
    wait_for_timer(e, 0);
    tell_timer(m);
    return 0;
}

EXPORT int curl_multi_remove_handle(CURLM *handle, CURL *easy);
int curl_multi_remove_handle(CURLM *handle, CURL *easy) {
    fake_multi *m = multi_of(handle, "curl_multi_remove_handle");
    fake_easy *e = easy_of(easy, "curl_multi_remove_handle");
    if (e->multi != m) return e->multi ? 2 : 0;
    e->wait = WAIT_NOTHING;
    end_resolving(e);
    leave_connection(e, false);
    int i = 0;
    while (m->easies[i] != e) i++;
    m->easies[i] = m->easies[--m->count];
    e->multi = NULL;
    tell_timer(m);
    return 0;
}

static void bring_on(fake_easy *e) {
    e->wait = WAIT_NOTHING;
    if (e->stage < 0) begin(e);
    else go_on(e);
}

EXPORT int curl_multi_socket_action(CURLM *handle, int fd, int what, int *running);
int curl_multi_socket_action(CURLM *handle, int fd, int what, int *running) {
    fake_multi *m = multi_of(handle, "curl_multi_socket_action");
    /* Those whose time it is, chosen first: each is brought on once, whatever the others do meanwhile. */
    int chosen_count = 0;
    fake_easy **chosen = malloc((size_t)m->count * sizeof *chosen + 1);
    if (fd == CURL_SOCKET_TIMEOUT) {
        m->told_ns = 0;
        int64_t at = now();
        for (int i = 0; i < m->count; i++)
            if (m->easies[i]->wait == WAIT_TIMER && m->easies[i]->due_ns <= at) chosen[chosen_count++] = m->easies[i];
    } else {
        bool in = what & (CURL_CSELECT_IN | CURL_CSELECT_ERR), out = what & (CURL_CSELECT_OUT | CURL_CSELECT_ERR);
        for (int i = 0; i < m->count; i++) {
            fake_easy *e = m->easies[i];
            if (e->resolver_fd == fd && e->wait == WAIT_RESOLVER && in) chosen[chosen_count++] = e;
            if (!e->connection || e->connection->fd != fd) continue;
            if ((e->wait == WAIT_IN && in) || (e->wait == WAIT_OUT && out)) chosen[chosen_count++] = e;
        }
        for (connection *c = m->connections; c; c = c->next) {
            char tokens[256];
            if (c->fd == fd && in)
                while (read(fd, tokens, sizeof tokens) == (ssize_t)sizeof tokens) continue;
        }
    }
    m->in_callback = true; /* callbacks of all kinds are called in here */
    for (int i = 0; i < chosen_count; i++) bring_on(chosen[i]);
    m->in_callback = false;
    free(chosen);
    *running = 0;
    for (int i = 0; i < m->count; i++) {
        if (!m->easies[i]->done) ++*running;
        if (m->easies[i]->connection) watch_connection(m, m->easies[i], m->easies[i]->connection);
    }
    tell_timer(m);
    return 0;
}

EXPORT CURLMsg *curl_multi_info_read(CURLM *handle, int *left);
CURLMsg *curl_multi_info_read(CURLM *handle, int *left) {
    fake_multi *m = multi_of(handle, "curl_multi_info_read");
    *left = 0;
    for (int i = 0; i < m->count; i++) {
        fake_easy *e = m->easies[i];
        if (!e->done || e->told) continue;
        e->told = true;
        e->message = (CURLMsg){CURLMSG_DONE, e, {.result = e->result}};
        return &e->message;
    }
    return NULL;
}

EXPORT int curl_multi_cleanup(CURLM *handle);
int curl_multi_cleanup(CURLM *handle) {
    fake_multi *m = multi_of(handle, "curl_multi_cleanup");
    if (m->count) breach("a multi handle is cleaned up while easy handles are in it");
    while (m->connections) close_connection(m->connections);
    close(m->listener);
    free(m->easies);
    free(m);
    atomic_fetch_sub(&live, 1);
    return 0;
}

/* ------------------------------------------------------------------------------------------------ for the test */

static void set_hook(void (*h)(const char *)) { atomic_store(&hook, h); }
static int count_sends(int id) { return atomic_load(&sends[id]); }
static int count_bodies(int id) { return atomic_load(&bodies[id]); }
static long count_wedged(void) { return atomic_load(&wedged_now); }
static long count_live(void) { return atomic_load(&live); }
static int take_peak(void) { return atomic_exchange(&connections_peak, 0); }
static void set_wedges(bool on) {
    pthread_mutex_lock(&wedge_lock);
    wedges = on;
    pthread_cond_broadcast(&wedge_changed);
    pthread_mutex_unlock(&wedge_lock);
}
static void release(void) { set_wedges(false); }
static void wedge(void) { set_wedges(true); }

EXPORT extern const fake_control fake;
const fake_control fake = {set_hook, count_sends, count_bodies, count_wedged, release, wedge, count_live, take_peak};
