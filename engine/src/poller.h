/* Wait for descriptors and a deadline. Knows no libcurl. Two implementations, epoll and poll(2), behind one table of
 * functions; both carry a wake-up descriptor of their own. Thread: the worker's only, except poller_wake. */
#ifndef KATIPO_POLLER_H
#define KATIPO_POLLER_H

#include "base.h"
#include "wake.h"

enum { POLLER_IN = 1, POLLER_OUT = 2, POLLER_ERROR = 4 };

typedef struct {
    int fd;
    int what; /* POLLER_IN | POLLER_OUT | POLLER_ERROR */
    uint32_t generation;
} poller_event;

typedef struct poller poller;

struct poller_kind {
    const char *name;
    poller *(*make)(void);
    void (*destroy)(poller *p);
    /* Watch `fd` for `what` (0: no more), from `before`. `generation` comes back with its events. 0 or an errno; removing
     * what is not there is no error: older versions of libcurl close before they remove. */
    int (*set)(poller *p, int fd, int before, int what, uint32_t generation);
    /* At most `most` events, after `timeout_ns` at the latest. The number of events, or -errno. */
    int (*wait)(poller *p, poller_event *events, int most, int64_t timeout_ns);
};

struct poller {
    const struct poller_kind *kind;
    wake wake;
    bool fail; /* told to fail at its next wait */
};

extern const struct poller_kind poller_poll;
#ifdef __linux__
extern const struct poller_kind poller_epoll;
#endif

/* The system's best, or what the environment variable KATIPO_POLLER names ("epoll", "poll"). NULL: errno says why. */
poller *poller_new(void);
static inline void poller_wake(poller *p) { wake_set(&p->wake); }

#endif
