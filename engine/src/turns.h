/* Turns: which waiting transfer may enter libcurl next.
 *
 * An origin (of an identity) has `max_host` slots, times the stream limit once a response has shown HTTP/2 or 3. A transfer
 * also needs a share of the pool-wide connections: one per connection that its origin's transfers need, so HTTP/2 streams
 * share one. Lone transfers, which share no connection, are an origin of their own with one stream each. Waiting is first
 * come, first served within an origin; origins that only lack a share take turns. Every operation costs the same whatever the
 * length of the queues. Knows no libcurl.
 *
 * Shares count transfers. Sockets are counted too, idle ones with them, because a worker's (or an identity's) idle
 * connections are out of the others' reach: where a pool has several and a limit of its own, a transfer for whose origin
 * there is no idle connection claims a socket before it starts, and when there is none left, idle ones are closed first.
 *
 * One `turns` serves all workers of a pool, under its own lock; a grant reaches the transfer's worker as a command.
 */
#ifndef KATIPO_TURNS_H
#define KATIPO_TURNS_H

#include "base.h"

struct worker;

typedef struct origin origin;

typedef struct {
    origin *origin; /* NULL: has not entered */
    node waiting;   /* turns lock */
    enum { TICKET_NONE, TICKET_WAITING, TICKET_HELD } state; /* turns lock */
    struct worker *worker;
    engine_record *record;
    bool claimed; /* has claimed a socket that it has not opened; written under the turns lock by its own worker */
} ticket;

typedef struct turns turns;

turns *turns_new(int max_host, int max_total, int max_streams, bool multiplexing);
void turns_free(turns *t);
typedef enum { TURN_GRANTED, TURN_WAITS, TURN_NO_MEMORY } turn;
/* Join the queue of an origin; the ticket's worker and record are set. */
turn turns_enter(turns *t, ticket *k, const char *identity, size_t identity_size, const char *origin_name, bool lone);
/* Leave: the slot, or the place in the queue, is given up, and those whose turn has come are told. */
void turns_leave(turns *t, ticket *k);
/* A response has shown what the origin speaks. */
void turns_learn(turns *t, ticket *k, bool multiplexed);
/* Whether no other transfer of its origin has a slot. */
bool turns_is_alone(turns *t, const ticket *k);
/* Whether a response has shown that it speaks HTTP/1. */
bool turns_knows_http1(turns *t, const ticket *k);
/* A request is being sent on a connection to the origin. True: the first one ever; who waits for it is released. */
bool turns_connected(turns *t, ticket *k);
/* Who waits for a connection to the origin is to wait no more. turns_is_released: whether that was said. */
void turns_release(turns *t, ticket *k);
bool turns_is_released(turns *t, const ticket *k);
long turns_waiting(turns *t);

/* Sockets. From now on claims are needed, because connections are held in several places. */
void turns_be_strict(turns *t);
/* Whether the transfer may start. False: every socket is taken; it is counted as starving until turns_stop_starving. */
bool turns_claim(turns *t, ticket *k);
void turns_stop_starving(turns *t);
/* Its connection is there, perhaps a reused one: a claim that was not needed is given up. */
void turns_unclaim(turns *t, ticket *k);
/* A socket was opened for the transfer; returns what turns_closed must be told. */
void *turns_opened(turns *t, ticket *k);
/* One was closed. Returns whether somebody waits for that. */
bool turns_closed(turns *t, void *opened);
/* In a forked child: nobody holds or waits for anything. */
void turns_after_fork(turns *t);

#endif
