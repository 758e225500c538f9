/* The only place where the poller and libcurl meet: socket and timer callbacks on one side, events and deadlines on the
 * other. One driver belongs to one worker; every function here is called by that worker's thread only. */
#ifndef KATIPO_CURL_DRIVER_H
#define KATIPO_CURL_DRIVER_H

#include "base.h"
#include "libcurl.h"
#include "poller.h"

typedef struct driver driver;
struct engine_config;

#define SPARES_MOST 64 /* about 8 KiB each; arbitrary */
#define UNREAD_MOST 16 /* beyond, every connection is looked at; arbitrary */

/* An easy handle that carries the options of a configuration and nothing else. */
typedef struct {
    CURL *easy;
    engine_config *config; /* a reference */
} spare_easy;

/* One multi handle: the connections of one identity, or those of its lone transfers (transfer.c): one transfer each. */
typedef struct multi {
    driver *driver;
    CURLM *handle;
    char *identity;
    size_t identity_size;
    bool lone;
    int running;      /* easy handles in it */
    int sockets;      /* opened and not yet closed */
    int64_t timer_ns; /* when libcurl wants to be called; FOREVER: not */
    bool dirty;       /* something happened: look for finished transfers */
    node in_driver;   /* least recently used first */
    /* Connections seen to speak HTTP/2 or 3, the latest of them, by id (see transfer.c). */
    int64_t multiplexed[256];
    unsigned multiplexed_next;
    /* Connections, by id, from which something may have been left unread (see siblings.c). */
    int64_t unread[UNREAD_MOST];
    int unread_count;
    bool unread_more; /* and others */
    /* Easy handles to be used again, the latest last (see transfer.c). */
    spare_easy spares[SPARES_MOST];
    int spare_count;
} multi;

typedef struct {
    bool multiplexing;
    long max_host, max_total, max_idle, max_streams;
    _Atomic long *connections; /* the pool's count of open sockets */
    /* A socket was closed, of which opener.opening returned `opened`. */
    void (*closed)(void *user, void *opened);
    void *user;
} driver_options;

driver *driver_new(const driver_options *options);
/* All easy handles must have been removed. */
void driver_free(driver *d);
/* Have the driver's wait return. Any thread. */
void driver_wake(driver *d);
/* Make its next wait fail (engine_pool_fault). */
void driver_fail_wait(driver *d);
/* After a fork, in the child: close what the parent's worker had open, without touching libcurl or the poller. */
void driver_close_inherited(driver *d);

/* The multi handle of an identity, made when first needed. NULL: no memory, or libcurl failed. */
multi *driver_multi(driver *d, const char *identity, size_t size, bool lone);
/* 0 or a CURLMcode; anything but 0 is fatal for the worker. */
int driver_add(multi *m, CURL *easy);
int driver_remove(multi *m, CURL *easy);
/* A connection was seen to speak HTTP/2 or 3; whether one was. */
void driver_multiplexes(multi *m, int64_t connection);
bool driver_is_multiplexed(const multi *m, int64_t connection);
/* Whether something may be left unread anywhere; nothing is. */
bool driver_has_unread(const driver *d);
void driver_forget_unread(driver *d);
/* Whether the connection of a transfer may serve others when it has ended; it is closed otherwise. */
void driver_allow_reuse(multi *m, CURL *easy, bool allowed);
/* Keep an easy handle that was removed, for the next transfer of the same configuration; take such a one, or NULL. */
void driver_spare(multi *m, CURL *easy, engine_config *config);
CURL *driver_take_spare(multi *m, const engine_config *config);
/* Let libcurl look at its timers now. */
int driver_kick(multi *m);
/* Close the idle connections of every identity, as far as this libcurl can (from 8.16 on). */
void driver_trim(driver *d);
void driver_trim_one(multi *m);
/* Sockets that are open, idle ones included. */
int driver_sockets(const driver *d);
/* Whether this libcurl can. */
bool driver_trims(void);
/* Where a transfer hears that a socket is being opened for it: connecting has begun. */
typedef struct opener {
    multi *multi;
    void *(*opening)(struct opener *o);
} opener;
/* Options of a fresh easy handle that have to do with sockets; and its opener, which must outlive the transfer. */
void driver_prepare(multi *m, CURL *easy);
void driver_set_opener(multi *m, CURL *easy, opener *o);
/* The time when the last wait ended: good enough for every clock. */
int64_t driver_now(const driver *d);

/* When to come back at the latest, on CLOCK_MONOTONIC. */
int64_t driver_deadline(driver *d);
/* Wait until then, and have libcurl do what is due. 0, or a description of the fatal error. */
const char *driver_turn(driver *d, int64_t until_ns);
/* How many descriptors the last turn found ready. */
int driver_events(const driver *d);
/* The next finished transfer, or NULL. */
CURL *driver_finished(driver *d, int *result);
/* Set when a multi call is to fail (engine_pool_fault). */
void driver_fail_next(driver *d);
/* The description of what failed since the last call, or NULL. */
const char *driver_error(driver *d);

#endif
