/* A descriptor that one thread waits on and any thread makes readable. */
#ifndef KATIPO_WAKE_H
#define KATIPO_WAKE_H

#include <stdbool.h>

typedef struct {
    int read_fd, write_fd; /* the same one where the system has eventfd; -1: not open */
} wake;

bool wake_open(wake *w); /* false: errno says why */
void wake_close(wake *w);
void wake_set(const wake *w);
void wake_clear(const wake *w);

#endif
