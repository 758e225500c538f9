/* A pool: its workers, which of them gets a request, its limits and counts. */
#ifndef KATIPO_POOL_H
#define KATIPO_POOL_H

#include "base.h"
#include "curl_driver.h"
#include "worker.h"

void pool_ref(engine_pool *p);
const char *pool_name(const engine_pool *p);
turns *pool_turns(engine_pool *p);
void pool_driver_options(engine_pool *p, int index, driver_options *options);
/* A request of the pool has its outcome; `w` is NULL for one that is played. Any thread, no lock held. */
void pool_settled(engine_pool *p, worker *w, bool ok);
/* A request that is played has its outcome. Any thread, no lock held. */
void pool_forget_played(engine_pool *p, engine_record *r);
/* A worker's thread is about to end. Returns whether nobody will join it. */
bool pool_worker_ended(engine_pool *p, worker *w, bool died);
/* Its connections are held in more than one multi handle. */
void pool_scatters(engine_pool *p);
/* A transfer lacks a socket, or one has been closed while it does. */
void pool_look_for_sockets(engine_pool *p);
void pools_after_fork(void);

#endif
