/* A heap of deadlines: one entry a transfer, its earliest. An entry may be earlier than what it stands for, never later:
 * whoever finds it due looks again. Knows nothing but numbers. Thread: the worker's only. */
#ifndef KATIPO_CLOCKS_H
#define KATIPO_CLOCKS_H

#include "base.h"

typedef struct {
    int64_t at_ns;
    size_t place; /* 1 + index in the heap; 0: not in it */
} alarm_entry;

typedef struct {
    alarm_entry **heap;
    size_t count, room;
} clocks;

/* FOREVER takes the entry out. False: no memory. */
bool clocks_set(clocks *c, alarm_entry *a, int64_t at_ns);
void clocks_remove(clocks *c, alarm_entry *a);
static inline int64_t clocks_first(const clocks *c) { return c->count ? c->heap[0]->at_ns : FOREVER; }
void clocks_clear(clocks *c);

#endif
