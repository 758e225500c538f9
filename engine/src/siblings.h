/* Transfers that share a connection, and what one of them owes the others. Worker's thread only. */
#ifndef KATIPO_SIBLINGS_H
#define KATIPO_SIBLINGS_H

#include "transfer.h"

/* Whether another transfer is on its connection, and drives it. */
bool siblings_drive(const transfer *t);
/* It has stopped reading from its connection: it was removed, or is paused. What that leaves unread, its siblings are to read
 * before the worker sleeps. */
void siblings_read_on(const transfer *t);
/* Have libcurl do that in the driver's next turn, for all that was said. */
void siblings_look(struct worker *w);

#endif
