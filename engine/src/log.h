/* The lines of verbose transfers, on their way to whoever logs them: a bounded buffer, never waited for. */
#ifndef KATIPO_LOG_H
#define KATIPO_LOG_H

#include "base.h"

void log_add(int kind, const char *text, size_t size);
void log_after_fork(void);

#endif
