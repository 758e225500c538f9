#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "poller.h"

typedef struct {
    poller base;
    struct pollfd *fds; /* the first is the wake-up's */
    uint32_t *generations;
    size_t count, room;
    size_t next; /* where to look first in the next wait, so that no descriptor starves */
} poll_poller;

static void destroy(poller *base) {
    poll_poller *p = CONTAINER(base, poll_poller, base);
    wake_close(&base->wake);
    free(p->fds);
    free(p->generations);
    free(p);
}

static bool make_room(poll_poller *p) {
    if (p->count < p->room) return true;
    size_t room = p->room ? p->room * 2 : 16;
    struct pollfd *fds = mem_realloc(p->fds, room * sizeof *fds);
    if (fds) p->fds = fds;
    uint32_t *generations = mem_realloc(p->generations, room * sizeof *generations);
    if (generations) p->generations = generations;
    if (!fds || !generations) return false;
    p->room = room;
    return true;
}

static poller *make(void) {
    poll_poller *p = mem_zalloc(sizeof *p);
    if (!p) {
        errno = ENOMEM;
        return NULL;
    }
    p->base.kind = &poller_poll;
    p->base.wake.read_fd = p->base.wake.write_fd = -1;
    if (!make_room(p) || !wake_open(&p->base.wake)) {
        int error = p->room ? errno : ENOMEM;
        destroy(&p->base);
        errno = error;
        return NULL;
    }
    p->fds[0] = (struct pollfd){.fd = p->base.wake.read_fd, .events = POLLIN};
    p->count = 1;
    return &p->base;
}

static int set(poller *base, int fd, int before, int what, uint32_t generation) {
    poll_poller *p = CONTAINER(base, poll_poller, base);
    (void)before;
    size_t i = 1;
    while (i < p->count && p->fds[i].fd != fd) i++;
    if (what == 0) {
        if (i < p->count) {
            p->fds[i] = p->fds[--p->count];
            p->generations[i] = p->generations[p->count];
        }
        return 0;
    }
    if (i == p->count) {
        if (!make_room(p)) return ENOMEM;
        p->count++;
    }
    short events = (short)((what & POLLER_IN ? POLLIN : 0) | (what & POLLER_OUT ? POLLOUT : 0));
    p->fds[i] = (struct pollfd){.fd = fd, .events = events};
    p->generations[i] = generation;
    return 0;
}

static int wait_for(poller *base, poller_event *events, int most, int64_t timeout_ns) {
    poll_poller *p = CONTAINER(base, poll_poller, base);
    if (base->fail) return -EBADF;
    int64_t ms = timeout_ns == FOREVER ? -1 : (timeout_ns + MS_NS - 1) / MS_NS;
    if (ms > INT32_MAX) ms = INT32_MAX;
    int n = poll(p->fds, (nfds_t)p->count, (int)ms);
    if (n < 0) return errno == EINTR ? 0 : -errno;
    if (n > 0 && p->fds[0].revents) wake_clear(&base->wake);
    int count = 0;
    size_t others = p->count - 1;
    for (size_t k = 0; k < others && n > 0 && count < most; k++) {
        size_t i = 1 + (p->next + k) % others;
        short got = p->fds[i].revents;
        if (!got) continue;
        int what = 0;
        if (got & (POLLIN | POLLHUP)) what |= POLLER_IN;
        if (got & POLLOUT) what |= POLLER_OUT;
        if (got & (POLLERR | POLLNVAL)) what |= POLLER_ERROR;
        events[count++] = (poller_event){p->fds[i].fd, what, p->generations[i]};
    }
    if (others) p->next = (p->next + 1) % others;
    return count;
}

const struct poller_kind poller_poll = {"poll", make, destroy, set, wait_for};

poller *poller_new(void) {
#ifdef __linux__
    const char *wanted = getenv("KATIPO_POLLER");
    if (!wanted || strcmp(wanted, "poll") != 0) return poller_epoll.make();
#endif
    return poller_poll.make();
}
