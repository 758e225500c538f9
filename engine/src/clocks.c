#include "clocks.h"

#include <stdlib.h>

static void put(clocks *c, size_t i, alarm_entry *a) {
    c->heap[i] = a;
    a->place = i + 1;
}

static void sift_up(clocks *c, size_t i) {
    alarm_entry *a = c->heap[i];
    while (i && c->heap[(i - 1) / 2]->at_ns > a->at_ns) {
        put(c, i, c->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    put(c, i, a);
}

static void sift_down(clocks *c, size_t i) {
    alarm_entry *a = c->heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= c->count) break;
        if (child + 1 < c->count && c->heap[child + 1]->at_ns < c->heap[child]->at_ns) child++;
        if (c->heap[child]->at_ns >= a->at_ns) break;
        put(c, i, c->heap[child]);
        i = child;
    }
    put(c, i, a);
}

void clocks_remove(clocks *c, alarm_entry *a) {
    if (!a->place) return;
    size_t i = a->place - 1;
    a->place = 0;
    alarm_entry *last = c->heap[--c->count];
    if (last == a) return;
    put(c, i, last);
    sift_up(c, i);
    sift_down(c, last->place - 1);
}

bool clocks_set(clocks *c, alarm_entry *a, int64_t at_ns) {
    if (at_ns == FOREVER) {
        clocks_remove(c, a);
        return true;
    }
    if (!a->place) {
        if (c->count == c->room) {
            size_t room = c->room ? c->room * 2 : 64;
            alarm_entry **heap = mem_realloc(c->heap, room * sizeof *heap);
            if (!heap) return false;
            c->heap = heap;
            c->room = room;
        }
        a->at_ns = at_ns;
        put(c, c->count++, a);
        sift_up(c, a->place - 1);
        return true;
    }
    a->at_ns = at_ns;
    sift_up(c, a->place - 1);
    sift_down(c, a->place - 1);
    return true;
}

void clocks_clear(clocks *c) {
    free(c->heap);
    *c = (clocks){0};
}
