#ifdef __linux__
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "poller.h"

#define MANY 256 /* events a wait; arbitrary */

typedef struct {
    poller base;
    int epoll_fd;
    struct epoll_event events[MANY];
} epoll_poller;

static void destroy(poller *base) {
    epoll_poller *p = CONTAINER(base, epoll_poller, base);
    wake_close(&base->wake);
    if (p->epoll_fd >= 0) close(p->epoll_fd);
    free(p);
}

static poller *make(void) {
    epoll_poller *p = mem_zalloc(sizeof *p);
    if (!p) {
        errno = ENOMEM;
        return NULL;
    }
    p->base.kind = &poller_epoll;
    p->base.wake.read_fd = p->base.wake.write_fd = -1;
    p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = UINT64_MAX};
    if (p->epoll_fd < 0 || !wake_open(&p->base.wake) ||
        epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, p->base.wake.read_fd, &event)) {
        int error = errno;
        destroy(&p->base);
        errno = error;
        return NULL;
    }
    return &p->base;
}

static int set(poller *base, int fd, int before, int what, uint32_t generation) {
    epoll_poller *p = CONTAINER(base, epoll_poller, base);
    struct epoll_event event = {
        .events = (what & POLLER_IN ? EPOLLIN : 0u) | (what & POLLER_OUT ? EPOLLOUT : 0u),
        .data.u64 = (uint64_t)generation << 32 | (uint32_t)fd,
    };
    int operation = what == 0 ? EPOLL_CTL_DEL : before == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    if (!epoll_ctl(p->epoll_fd, operation, fd, &event)) return 0;
    if (operation == EPOLL_CTL_DEL && (errno == ENOENT || errno == EBADF)) return 0;
    if (operation == EPOLL_CTL_ADD && errno == EEXIST) operation = EPOLL_CTL_MOD;
    else if (operation == EPOLL_CTL_MOD && errno == ENOENT) operation = EPOLL_CTL_ADD;
    else return errno;
    return epoll_ctl(p->epoll_fd, operation, fd, &event) ? errno : 0;
}

static int wait_for(poller *base, poller_event *events, int most, int64_t timeout_ns) {
    epoll_poller *p = CONTAINER(base, epoll_poller, base);
    if (base->fail) return -EBADF;
    if (most > MANY) most = MANY;
    int64_t ms = timeout_ns == FOREVER ? -1 : (timeout_ns + MS_NS - 1) / MS_NS;
    if (ms > INT32_MAX) ms = INT32_MAX;
    int n = epoll_wait(p->epoll_fd, p->events, most, (int)ms);
    if (n < 0) return errno == EINTR ? 0 : -errno;
    int count = 0;
    for (int i = 0; i < n; i++) {
        const struct epoll_event *e = &p->events[i];
        if (e->data.u64 == UINT64_MAX) {
            wake_clear(&base->wake);
            continue;
        }
        int what = 0;
        if (e->events & (EPOLLIN | EPOLLHUP | EPOLLRDHUP)) what |= POLLER_IN;
        if (e->events & EPOLLOUT) what |= POLLER_OUT;
        if (e->events & EPOLLERR) what |= POLLER_ERROR;
        events[count++] = (poller_event){(int)(uint32_t)e->data.u64, what, (uint32_t)(e->data.u64 >> 32)};
    }
    return count;
}

const struct poller_kind poller_epoll = {"epoll", make, destroy, set, wait_for};
#endif
