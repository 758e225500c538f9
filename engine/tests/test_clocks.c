/* The heap of deadlines against a plain list. */
#include <stdlib.h>

#include "../src/clocks.h"
#include "test.h"

#define MANY 300

static void empty_is_forever(void) {
    clocks c = {0};
    CHECK_EQUAL(clocks_first(&c), FOREVER);
    alarm_entry a = {0};
    CHECK(clocks_set(&c, &a, FOREVER)); /* taking out what is not there */
    clocks_remove(&c, &a);
    CHECK_EQUAL(c.count, 0);
    clocks_clear(&c);
}

static void earliest_is_first(void) {
    clocks c = {0};
    alarm_entry a = {0}, b = {0}, d = {0};
    CHECK(clocks_set(&c, &a, 30) && clocks_set(&c, &b, 10) && clocks_set(&c, &d, 20));
    CHECK_EQUAL(clocks_first(&c), 10);
    CHECK(clocks_set(&c, &b, 40)); /* moved back */
    CHECK_EQUAL(clocks_first(&c), 20);
    CHECK(clocks_set(&c, &a, 5)); /* moved forth */
    CHECK_EQUAL(clocks_first(&c), 5);
    CHECK(clocks_set(&c, &a, FOREVER));
    CHECK_EQUAL(a.place, 0);
    CHECK_EQUAL(clocks_first(&c), 20);
    clocks_clear(&c);
    CHECK_EQUAL(clocks_first(&c), FOREVER);
}

static void model_agrees(void) {
    test_random random = test_random_of(1);
    clocks c = {0};
    alarm_entry entries[MANY] = {{0}};
    int64_t model[MANY];
    for (int i = 0; i < MANY; i++) model[i] = FOREVER;
    for (int step = 0; step < 20000; step++) {
        unsigned i = test_below(&random, MANY);
        switch (test_below(&random, 4)) {
        case 0:
            clocks_remove(&c, &entries[i]);
            model[i] = FOREVER;
            break;
        case 1: /* what a worker does: the first one is due */
            if (c.count) {
                alarm_entry *first = c.heap[0];
                model[first - entries] = FOREVER;
                CHECK(clocks_set(&c, first, FOREVER));
            }
            break;
        default:
            model[i] = test_below(&random, 1000); /* equal ones come up */
            MUST(clocks_set(&c, &entries[i], model[i]));
        }
        int64_t first = FOREVER;
        size_t count = 0;
        for (int k = 0; k < MANY; k++) {
            if (model[k] < first) first = model[k];
            if (model[k] != FOREVER) count++;
            MUST((model[k] == FOREVER) == (entries[k].place == 0));
        }
        MUST(clocks_first(&c) == first);
        MUST(c.count == count);
        for (size_t k = 0; k < c.count; k++) MUST(c.heap[k]->place == k + 1);
    }
    clocks_clear(&c);
}

static void no_memory_leaves_it_whole(void) {
    clocks c = {0};
    alarm_entry entries[65] = {{0}};
    for (int i = 0; i < 64; i++) MUST(clocks_set(&c, &entries[i], 100 + i));
    mem_fail_next();
    CHECK(!clocks_set(&c, &entries[64], 1));
    CHECK_EQUAL(entries[64].place, 0);
    CHECK_EQUAL(clocks_first(&c), 100);
    CHECK(clocks_set(&c, &entries[0], 90)); /* moving needs none */
    CHECK(clocks_set(&c, &entries[64], 1));
    CHECK_EQUAL(clocks_first(&c), 1);
    clocks_clear(&c);
    mem_failed();
}

CASES({"empty_is_forever", empty_is_forever}, {"earliest_is_first", earliest_is_first}, {"model_agrees", model_agrees},
      {"no_memory_leaves_it_whole", no_memory_leaves_it_whole})
