/* A worker: the thread that drives libcurl. It waits, takes commands, drives, delivers; it parks for a fork, and stops.
 *
 * Any thread hands it commands: bits set in a record, the record put on the worker's list, under a lock held for that long.
 * The worker is woken only if it sleeps, and takes the whole list at once. Everything else in here is the worker's own.
 *
 * LIFE LOCK. One mutex and one condition guard which workers there are, whether they are parked, and whether their threads
 * have ended. In the order of base.h it comes after the pool's lock (a worker is started under that) and before the command
 * lock. A fork does not hold it: the child makes a fresh one.
 */
#ifndef KATIPO_WORKER_H
#define KATIPO_WORKER_H

#include "clocks.h"
#include "curl_driver.h"
#include "record.h"
#include "turns.h"

typedef struct worker worker;

typedef enum { WORKER_RUNS, WORKER_STOPS, WORKER_DRAINS } worker_order;

/* Start a worker's thread. NULL: no memory, descriptor or thread. The pool holds the reference that is returned. */
worker *worker_start(engine_pool *pool, int index);
void worker_ref(worker *w);
void worker_unref(worker *w);
/* Tell it something about a record. False: it is gone, and the record untouched. Any thread. */
bool worker_command(worker *w, engine_record *r, unsigned commands);
/* STOPS: settle what it holds with "pool_closed" and end. DRAINS: end once it holds nothing. Any thread. */
void worker_order_to(worker *w, worker_order order);
void worker_fault(worker *w, int how);
/* A transfer somewhere in the pool lacks a socket: close idle connections, and see whether one of its own may start. Any
 * thread. */
void worker_look_for_sockets(worker *w);
/* Requests accepted for it and not settled. Any thread. */
_Atomic long *worker_in_flight(worker *w);
/* Wait until its thread has ended, until `deadline_ns` at most, and join it. False: it has not; it is left behind, and what
 * it holds is settled. Once per worker. */
bool worker_join(worker *w, int64_t deadline_ns);
/* Nobody will join its thread. */
void worker_detach(worker *w);
bool worker_gone(worker *w);
/* Its thread is over: joining it does not wait. */
bool worker_ended(worker *w);

/* ---- for the transfers; worker's thread only */
driver *worker_driver(worker *w);
turns *worker_turns(worker *w);
struct transfer;
node *worker_transfers(worker *w);
/* Close the idle connections of a multi handle, unless all go soon anyway. */
void worker_close_idle(worker *w, multi *m);
/* There may be QUIC connections, which take a moment to close. */
void worker_speaks_quic(worker *w);
/* Transfers that have ended, their memory kept for the next. worker_spare: NULL where there is none. */
struct transfer *worker_spare(worker *w);
bool worker_keep_spare(worker *w, struct transfer *t);
void worker_stop_starving(worker *w, struct transfer *t);
/* Its record has bytes for a file: write them before the worker sleeps. */
void worker_will_write(worker *w, struct transfer *t);
/* A connection may have been left unread (siblings.c): see to it before the worker sleeps. */
void worker_has_unread(worker *w);
/* An origin has its first connection, whose protocol libcurl knows, or an attempt at one has failed: those that waited for it
 * are on it after one more turn, or wait in vain. */
void worker_look_for_held_back(worker *w);
void worker_alarm(worker *w, alarm_entry *a, int64_t at_ns);

/* ---- fork */
/* Have every worker wait at the top of its loop, outside libcurl. One that is started from now on waits as well. */
void workers_park(int64_t deadline_ns);
void workers_unpark(void);
void workers_after_fork(void);          /* in the child: their threads are not there */

#endif
