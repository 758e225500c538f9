#include "curl_driver.h"

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLEARS_CONNECTIONS 0x081000 /* CURLMOPT_NETWORK_CHANGED */
#define EVENTS 256      /* a turn; arbitrary */
#define MULTIS_MOST 64  /* identities kept open, 10 KiB and 2 descriptors each; arbitrary */
#define LOOKUP_THREADS 64 /* an abandoned lookup holds its thread until the resolver gives up; arbitrary */

/* What we know of a descriptor. Only sockets that libcurl asked us to open (`ours`) may stay registered after libcurl has
 * stopped watching them, which saves two system calls a request: their end is told to us (close_socket). libcurl's own
 * eventfd and the like are removed at once, for nobody tells when they are closed. */
typedef struct {
    multi *owner;
    int wanted;     /* POLLER_*: what libcurl wants to hear of */
    int registered; /* POLLER_*: what the poller watches */
    uint32_t generation;
    bool ours;
    void *opened; /* what the opener said */
} socket_entry;

struct driver {
    poller *poller;
    driver_options options;
    node multis;
    int multi_count;
    socket_entry *sockets; /* by descriptor */
    int socket_room;
    bool fail_next;
    const char *error;
    int64_t now_ns;
    int event_count; /* of the last wait */
    poller_event events[EVENTS];
};

static int multi_answer(driver *d, int code) {
    if (code != CURLM_OK && !d->error) d->error = lc.curl_multi_strerror(code);
    return code;
}

static bool told_to_fail(driver *d) {
    if (!d->fail_next) return false;
    d->fail_next = false;
    d->error = "a multi call was made to fail";
    return true;
}

void driver_fail_next(driver *d) { d->fail_next = true; }

const char *driver_error(driver *d) {
    const char *error = d->error;
    d->error = NULL;
    return error;
}

static socket_entry *entry_of(driver *d, int fd) {
    if (fd < 0) return NULL;
    if (fd >= d->socket_room) {
        int room = d->socket_room ? d->socket_room : 64;
        while (room <= fd) room *= 2;
        socket_entry *sockets = mem_realloc(d->sockets, (size_t)room * sizeof *sockets);
        if (!sockets) return NULL;
        memset(sockets + d->socket_room, 0, (size_t)(room - d->socket_room) * sizeof *sockets);
        d->sockets = sockets;
        d->socket_room = room;
    }
    return &d->sockets[fd];
}

static void watch(driver *d, int fd, socket_entry *e, int what) {
    if (e->registered == what) return;
    int error = d->poller->kind->set(d->poller, fd, e->registered, what, e->generation);
    if (error && what && !d->error) d->error = strerror(error);
    e->registered = what;
}

/* ---- libcurl's callbacks */

static int on_socket(CURL *easy, int fd, int what, void *user, void *socket_data) {
    multi *m = user;
    driver *d = m->driver;
    (void)easy;
    (void)socket_data;
    socket_entry *e = entry_of(d, fd);
    if (!e) {
        if (!d->error) d->error = "no memory";
        return -1;
    }
    if (what == CURL_POLL_REMOVE) {
        e->wanted = 0;
        if (!e->ours) {
            watch(d, fd, e, 0);
            e->generation++;
            e->owner = NULL;
        }
        return 0;
    }
    e->owner = m;
    e->wanted = (what & CURL_POLL_IN ? POLLER_IN : 0) | (what & CURL_POLL_OUT ? POLLER_OUT : 0);
    watch(d, fd, e, e->wanted);
    return 0;
}

static int on_timer(CURLM *handle, long timeout_ms, void *user) {
    multi *m = user;
    (void)handle;
    m->timer_ns = timeout_ms < 0 ? FOREVER : timeout_ms == 0 ? 0 : now_ns() + timeout_ms * MS_NS;
    return 0;
}

/* The descriptor is closed, or about to be. Version 7.88 closes some, of connections given up half-made, without telling: those
 * are found when the number comes up again, or their multi handle goes. */
static void forget_socket(driver *d, int fd, socket_entry *e) {
    void *opened = e->opened;
    e->owner->sockets--;
    watch(d, fd, e, 0);
    *e = (socket_entry){.generation = e->generation + 1};
    atomic_fetch_sub_explicit(d->options.connections, 1, memory_order_relaxed);
    count_down(ENGINE_COUNT_SOCKETS);
    d->options.closed(d->options.user, opened);
}

static int open_socket(void *user, int purpose, struct curl_sockaddr *address) {
    opener *o = user;
    multi *m = o->multi;
    (void)purpose;
#ifdef SOCK_CLOEXEC
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
#else
    int fd = socket(address->family, address->socktype, address->protocol);
    if (fd >= 0) fcntl(fd, F_SETFD, FD_CLOEXEC);
#endif
    if (fd < 0) return CURL_SOCKET_BAD;
    socket_entry *e = entry_of(m->driver, fd);
    if (!e) {
        close(fd);
        return CURL_SOCKET_BAD;
    }
    if (e->ours) forget_socket(m->driver, fd, e);
    *e = (socket_entry){.owner = m, .generation = e->generation + 1, .ours = true};
    m->sockets++;
    atomic_fetch_add_explicit(m->driver->options.connections, 1, memory_order_relaxed);
    count_up(ENGINE_COUNT_SOCKETS);
    void *opened = o->opening(o);
    m->driver->sockets[fd].opened = opened; /* fetched again: the opener may do anything */
    return fd;
}

static int close_socket(void *user, int fd) {
    multi *m = user;
    socket_entry *e = entry_of(m->driver, fd);
    if (e && e->ours) {
        watch(m->driver, fd, e, 0); /* while it is open */
        close(fd);
        forget_socket(m->driver, fd, e);
    } else {
        close(fd);
    }
    return 0;
}

/* ---- the driver */

driver *driver_new(const driver_options *options) {
    driver *d = mem_zalloc(sizeof *d);
    if (!d) return NULL;
    d->options = *options;
    node_init(&d->multis);
    d->poller = poller_new();
    if (!d->poller) {
        free(d);
        return NULL;
    }
    d->now_ns = now_ns();
    return d;
}

void driver_wake(driver *d) { poller_wake(d->poller); }
void driver_fail_wait(driver *d) { d->poller->fail = true; }

static void drop_spare(multi *m, int i) {
    lc.curl_easy_cleanup(m->spares[i].easy);
    count_down(ENGINE_COUNT_EASIES);
    engine_config_unref(m->spares[i].config);
    memmove(&m->spares[i], &m->spares[i + 1], (size_t)(--m->spare_count - i) * sizeof *m->spares);
}

void driver_spare(multi *m, CURL *easy, engine_config *config) {
    if (m->spare_count == SPARES_MOST) drop_spare(m, 0);
    config_ref(config);
    m->spares[m->spare_count++] = (spare_easy){easy, config};
}

/* Only the latest are looked at: a program that uses many configurations in turn finds none, at no cost. */
CURL *driver_take_spare(multi *m, const engine_config *config) {
    for (int i = m->spare_count - 1; i >= 0 && i >= m->spare_count - 4; i--) {
        if (m->spares[i].config != config) continue;
        CURL *easy = m->spares[i].easy;
        engine_config_unref(m->spares[i].config);
        m->spares[i] = m->spares[--m->spare_count];
        return easy;
    }
    return NULL;
}

static void multi_free(multi *m) {
    driver *d = m->driver;
    while (m->spare_count) drop_spare(m, m->spare_count - 1);
    lc.curl_multi_cleanup(m->handle);
    node_remove(&m->in_driver);
    d->multi_count--;
    /* Descriptors that libcurl watched and closed by itself must not point here any more. */
    for (int fd = 0; fd < d->socket_room; fd++) {
        socket_entry *e = &d->sockets[fd];
        if (e->owner != m) continue;
        if (e->ours) {
            forget_socket(d, fd, e);
        } else {
            watch(d, fd, e, 0);
            *e = (socket_entry){.generation = e->generation + 1};
        }
    }
    free(m->identity);
    free(m);
    count_down(ENGINE_COUNT_MULTIS);
}

void driver_free(driver *d) {
    if (!d) return;
    while (!node_empty(&d->multis)) multi_free(CONTAINER(d->multis.next, multi, in_driver));
    d->poller->kind->destroy(d->poller);
    free(d->sockets);
    free(d);
}

void driver_close_inherited(driver *d) {
    for (int fd = 0; fd < d->socket_room; fd++)
        if (d->sockets[fd].ours) close(fd);
    /* The spare easy handles stay as they are, unreachable; the configurations are the pool's users'. */
    for (node *l = d->multis.next; l != &d->multis; l = l->next) {
        multi *m = CONTAINER(l, multi, in_driver);
        while (m->spare_count) engine_config_unref(m->spares[--m->spare_count].config);
    }
    d->poller->kind->destroy(d->poller);
    d->poller = NULL;
}

static void set_limits(multi *m) {
    const driver_options *o = &m->driver->options;
    CURLM *h = m->handle;
    lc.curl_multi_setopt(h, CURLMOPT_SOCKETFUNCTION, on_socket);
    lc.curl_multi_setopt(h, CURLMOPT_SOCKETDATA, m);
    lc.curl_multi_setopt(h, CURLMOPT_TIMERFUNCTION, on_timer);
    lc.curl_multi_setopt(h, CURLMOPT_TIMERDATA, m);
    lc.curl_multi_setopt(h, CURLMOPT_PIPELINING, o->multiplexing ? 2L : 0L);
    lc.curl_multi_setopt(h, CURLMOPT_MAX_CONCURRENT_STREAMS, m->lone ? 1L : o->max_streams);
    lc.curl_multi_setopt(h, CURLMOPT_MAX_HOST_CONNECTIONS, o->max_host);
    lc.curl_multi_setopt(h, CURLMOPT_MAX_TOTAL_CONNECTIONS, o->max_total);
    /* Left alone it is 4 x running, which throws idle connections away. */
    lc.curl_multi_setopt(h, CURLMOPT_MAXCONNECTS, o->max_idle > 0 ? o->max_idle : 1L);
    /* Unknown to older versions, which is no error: the easy option QUICK_EXIT serves there (driver_prepare). */
    lc.curl_multi_setopt(h, CURLMOPT_QUICK_EXIT, 1L);
    lc.curl_multi_setopt(h, CURLMOPT_RESOLVE_THREADS_MAX, (long)LOOKUP_THREADS);
}

static void close_least_used(driver *d) {
    for (node *l = d->multis.next; l != &d->multis; l = l->next) {
        multi *m = CONTAINER(l, multi, in_driver);
        if ((m->identity_size == 0 && !m->lone) || m->running) continue; /* the plain one is permanent */
        multi_free(m);
        return;
    }
}

multi *driver_multi(driver *d, const char *identity, size_t size, bool lone) {
    for (node *l = d->multis.prev; l != &d->multis; l = l->prev) {
        multi *m = CONTAINER(l, multi, in_driver);
        if (m->identity_size != size || m->lone != lone || memcmp(m->identity, identity, size) != 0) continue;
        if (l != d->multis.prev) {
            node_remove(l);
            node_append(&d->multis, l);
        }
        return m;
    }
    if (d->multi_count >= MULTIS_MOST) close_least_used(d);
    if (told_to_fail(d)) return NULL;
    multi *m = mem_zalloc(sizeof *m);
    if (!m) return NULL;
    m->driver = d;
    m->identity = mem_copy(identity, size);
    m->handle = m->identity ? lc.curl_multi_init() : NULL;
    if (!m->handle) {
        if (!d->error) d->error = "no memory for a multi handle";
        free(m->identity);
        free(m);
        return NULL;
    }
    m->identity_size = size;
    m->lone = lone;
    m->timer_ns = FOREVER;
    memset(m->multiplexed, 0xff, sizeof m->multiplexed); /* -1: the ids of connections begin with 0 */
    set_limits(m);
    node_append(&d->multis, &m->in_driver);
    d->multi_count++;
    count_up(ENGINE_COUNT_MULTIS);
    return m;
}

int driver_events(const driver *d) { return d->event_count; }
int64_t driver_now(const driver *d) { return d->now_ns; }

void driver_set_opener(multi *m, CURL *easy, opener *o) {
    o->multi = m;
    lc.curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, o);
}

/* Newer versions close what is idle when the transfer has gone (driver_remove). FORBID_REUSE is second to that: it would also
 * close between the rounds of an authentication that is bound to its connection. */
static bool forbids_reuse(const multi *m) { return m->driver->options.max_idle == 0 && lc.version_num < CLEARS_CONNECTIONS; }

void driver_allow_reuse(multi *m, CURL *easy, bool allowed) {
    lc.curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, allowed && !forbids_reuse(m) ? 0L : 1L);
}

void driver_prepare(multi *m, CURL *easy) {
    lc.curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    lc.curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, close_socket);
    lc.curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, m);
    if (forbids_reuse(m)) lc.curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
    /* From 7.87 to the multi option of that name, removing a handle in the middle of a lookup waited for it. */
    if (lc.version_num >= 0x075700) lc.curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
}

int driver_add(multi *m, CURL *easy) {
    if (told_to_fail(m->driver)) return 4;
    int code = multi_answer(m->driver, lc.curl_multi_add_handle(m->handle, easy));
    if (code == CURLM_OK) m->running++;
    return code;
}

bool driver_is_multiplexed(const multi *m, int64_t connection) {
    for (size_t i = 0; i < sizeof m->multiplexed / sizeof *m->multiplexed; i++)
        if (m->multiplexed[i] == connection) return true;
    return false;
}

void driver_multiplexes(multi *m, int64_t connection) {
    const unsigned room = sizeof m->multiplexed / sizeof *m->multiplexed;
    if (m->multiplexed[(m->multiplexed_next + room - 1) % room] == connection) return;
    m->multiplexed[m->multiplexed_next] = connection;
    m->multiplexed_next = (m->multiplexed_next + 1) % room;
}

bool driver_has_unread(const driver *d) {
    for (const node *l = d->multis.next; l != &d->multis; l = l->next) {
        const multi *m = CONTAINER(l, multi, in_driver);
        if (m->unread_count || m->unread_more) return true;
    }
    return false;
}

void driver_forget_unread(driver *d) {
    for (node *l = d->multis.next; l != &d->multis; l = l->next) {
        multi *m = CONTAINER(l, multi, in_driver);
        m->unread_count = 0;
        m->unread_more = false;
    }
}

void driver_trim_one(multi *m) {
    if (m->sockets && lc.version_num >= CLEARS_CONNECTIONS)
        lc.curl_multi_setopt(m->handle, CURLMOPT_NETWORK_CHANGED, CURLMNWC_CLEAR_CONNS);
}

int driver_sockets(const driver *d) {
    int count = 0;
    for (const node *l = d->multis.next; l != &d->multis; l = l->next) count += CONTAINER(l, multi, in_driver)->sockets;
    return count;
}

bool driver_trims(void) { return lc.version_num >= CLEARS_CONNECTIONS; }

int driver_remove(multi *m, CURL *easy) {
    m->running--;
    m->dirty = true;
    int code = lc.curl_multi_remove_handle(m->handle, easy);
    if (m->driver->options.max_idle == 0) driver_trim_one(m);
    return code;
}

int driver_kick(multi *m) {
    int running;
    m->dirty = true;
    if (told_to_fail(m->driver)) return 4;
    return multi_answer(m->driver, lc.curl_multi_socket_action(m->handle, CURL_SOCKET_TIMEOUT, 0, &running));
}

void driver_trim(driver *d) {
    for (node *l = d->multis.next; l != &d->multis; l = l->next) {
        driver_trim_one(CONTAINER(l, multi, in_driver));
    }
}

int64_t driver_deadline(driver *d) {
    int64_t earliest = FOREVER;
    for (node *l = d->multis.next; l != &d->multis; l = l->next) {
        multi *m = CONTAINER(l, multi, in_driver);
        if (m->timer_ns < earliest) earliest = m->timer_ns;
    }
    return earliest;
}

static void on_event(driver *d, const poller_event *event) {
    socket_entry *e = entry_of(d, event->fd);
    if (!e || e->generation != event->generation) return; /* of a descriptor that is another one now */
    if (!e->wanted || !e->owner) {
        /* libcurl does not watch it now: an idle connection that the server closed, say. Unwatched, it costs nothing. */
        watch(d, event->fd, e, 0);
        return;
    }
    multi *m = e->owner;
    int what = (event->what & POLLER_IN ? CURL_CSELECT_IN : 0) | (event->what & POLLER_OUT ? CURL_CSELECT_OUT : 0) |
               (event->what & POLLER_ERROR ? CURL_CSELECT_ERR : 0);
    int running;
    m->dirty = true;
    if (told_to_fail(d)) return;
    multi_answer(d, lc.curl_multi_socket_action(m->handle, event->fd, what, &running));
}

static void run_timers(driver *d) {
    int64_t now = 0;
    for (node *l = d->multis.next; l != &d->multis; l = l->next) {
        multi *m = CONTAINER(l, multi, in_driver);
        if (m->timer_ns == FOREVER) continue;
        if (m->timer_ns && !now) now = now_ns();
        if (m->timer_ns > now) continue; /* 0, at once, is always due */
        m->timer_ns = FOREVER; /* one shot: libcurl sets the next one */
        driver_kick(m);
    }
}

const char *driver_turn(driver *d, int64_t until_ns) {
    int64_t deadline = driver_deadline(d);
    if (deadline < until_ns) until_ns = deadline;
    int64_t wait_ns = until_ns == FOREVER ? FOREVER : until_ns == 0 ? 0 : until_ns - now_ns();
    if (wait_ns < 0) wait_ns = 0;
    int count = d->event_count = d->poller->kind->wait(d->poller, d->events, EVENTS, wait_ns);
    d->now_ns = now_ns();
    if (count < 0) return strerror(-count);
    for (int i = 0; i < count; i++) on_event(d, &d->events[i]);
    run_timers(d);
    return driver_error(d);
}

CURL *driver_finished(driver *d, int *result) {
    for (node *l = d->multis.next; l != &d->multis; l = l->next) {
        multi *m = CONTAINER(l, multi, in_driver);
        if (!m->dirty) continue;
        int left;
        for (CURLMsg *msg; (msg = lc.curl_multi_info_read(m->handle, &left));) {
            if (msg->msg != CURLMSG_DONE) continue;
            *result = msg->data.result;
            return msg->easy_handle;
        }
        m->dirty = false;
    }
    return NULL;
}
