#include "log.h"

#include <stdlib.h>
#include <string.h>

#include "queue.h"

#define LOG_MOST (1u << 22) /* bytes kept until somebody takes them; arbitrary */
#define LINE_MOST 65536u

/* Log lock. */
static buffer lines;
static long lost;
static waiters log_waiters = {{&log_waiters.waiters, &log_waiters.waiters}};

void log_add(int kind, const char *text, size_t size) {
    if (size > LINE_MOST) size = LINE_MOST;
    char head[5] = {(char)kind};
    uint32_t length = (uint32_t)size;
    memcpy(head + 1, &length, sizeof length);
    lock(LOCK_LOG, NULL);
    size_t before = lines.size;
    bool kept = before + size + sizeof head <= LOG_MOST && buffer_add(&lines, head, sizeof head);
    if (kept && !buffer_add(&lines, text, size)) {
        lines.size = before;
        kept = false;
    }
    if (!kept) lost++;
    unlock(LOCK_LOG, NULL);
    /* The queue's lock comes before the log's: what was added is announced under the registry's stripe instead. */
    lock(LOCK_REGISTRY, NULL);
    waiters_fire(&log_waiters, ENGINE_ON_NEWS, false);
    unlock(LOCK_REGISTRY, NULL);
}

bool engine_log_register(engine_waiter *waiter) {
    lock(LOCK_REGISTRY, NULL);
    lock(LOCK_LOG, NULL);
    bool already = lines.size || lost;
    unlock(LOCK_LOG, NULL);
    if (!already) waiters_add(&log_waiters, LOCK_REGISTRY, &log_waiters, waiter, ENGINE_ON_NEWS);
    unlock(LOCK_REGISTRY, NULL);
    return already;
}

size_t engine_log_take(char *to, size_t size, long *lost_lines) {
    lock(LOCK_LOG, NULL);
    size_t taken = 0;
    while (taken + 5 <= lines.size) {
        uint32_t length;
        memcpy(&length, lines.data + taken + 1, sizeof length);
        if (taken + 5 + length > size) break;
        taken += 5 + length;
    }
    if (taken) {
        memcpy(to, lines.data, taken);
        lines.size -= taken;
        memmove(lines.data, lines.data + taken, lines.size);
    }
    if (!lines.size) buffer_clear(&lines);
    *lost_lines = lost;
    lost = 0;
    unlock(LOCK_LOG, NULL);
    return taken;
}

void log_after_fork(void) {
    buffer_clear(&lines);
    lost = 0;
    waiters_forget(&log_waiters);
}
