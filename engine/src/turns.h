/* Turns: which waiting transfer may enter libcurl next.
 *
 * An origin (of an identity) has `max_host` slots, times the stream limit once a response has shown HTTP/2 or 3. A transfer
 * also needs a share of the pool-wide connections: one per connection that its origin's transfers need, so HTTP/2 streams
 * share one. Waiting is first come, first served within an origin; origins that only lack a share take turns. Every operation
 * costs the same whatever the length of the queues. Knows no libcurl.
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
} ticket;

typedef struct turns turns;

turns *turns_new(int max_host, int max_total, int max_streams, bool multiplexing);
void turns_free(turns *t);
typedef enum { TURN_GRANTED, TURN_WAITS, TURN_NO_MEMORY } turn;
/* Join the queue of `key`; the ticket's worker and record are set. */
turn turns_enter(turns *t, ticket *k, const char *identity, size_t identity_size, const char *origin_name);
/* Leave: the slot, or the place in the queue, is given up, and those whose turn has come are told. */
void turns_leave(turns *t, ticket *k);
/* A response has shown what the origin speaks. */
void turns_learn(turns *t, ticket *k, bool multiplexed);
long turns_waiting(turns *t);
/* In a forked child: nobody holds or waits for anything. */
void turns_after_fork(turns *t);

#endif
