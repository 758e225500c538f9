/* Lists, buffers, allocation that fails when told to, counts, names, locks. */
#include <stdlib.h>
#include <string.h>

#include "test.h"

typedef struct {
    int value;
    node link;
} item;

static int values_of(node *list, int *values) {
    int count = 0;
    for (node *l = list->next; l != list; l = l->next) values[count++] = CONTAINER(l, item, link)->value;
    return count;
}

static void list_keeps_order(void) {
    node list;
    node_init(&list);
    CHECK(node_empty(&list));
    CHECK(node_pop(&list) == NULL);
    item items[5];
    for (int i = 0; i < 5; i++) {
        items[i].value = i;
        node_init(&items[i].link);
        node_append(&list, &items[i].link);
    }
    node_remove(&items[2].link);
    CHECK(node_empty(&items[2].link));
    node_remove(&items[2].link); /* twice does no harm */
    int values[8];
    CHECK_EQUAL(values_of(&list, values), 4);
    CHECK(values[0] == 0 && values[1] == 1 && values[2] == 3 && values[3] == 4);
    CHECK(CONTAINER(node_pop(&list), item, link)->value == 0);
}

static void splice_moves_all_to_the_end(void) {
    node a, b;
    node_init(&a);
    node_init(&b);
    node_splice(&a, &b);
    CHECK(node_empty(&a) && node_empty(&b));
    item items[4];
    for (int i = 0; i < 4; i++) {
        items[i].value = i;
        node_init(&items[i].link);
        node_append(i < 2 ? &a : &b, &items[i].link);
    }
    node_splice(&a, &b);
    CHECK(node_empty(&b));
    int values[8];
    CHECK_EQUAL(values_of(&a, values), 4);
    for (int i = 0; i < 4; i++) CHECK_EQUAL(values[i], i);
    node_splice(&b, &a);
    CHECK(node_empty(&a));
    CHECK_EQUAL(values_of(&b, values), 4);
}

static void buffer_grows(void) {
    buffer b = {0};
    char expected[5000];
    for (int i = 0; i < 5000; i++) {
        expected[i] = (char)(i * 7);
        MUST(buffer_add(&b, &expected[i], 1));
    }
    CHECK_EQUAL(b.size, 5000);
    CHECK(b.room >= b.size);
    CHECK(!memcmp(b.data, expected, sizeof expected));
    CHECK(buffer_add(&b, NULL, 0));
    CHECK(buffer_reserve(&b, 1));
    CHECK_EQUAL(b.size, 5000);
    buffer_clear(&b);
    CHECK(!b.data && !b.size && !b.room);
}

static void buffer_without_memory_stays_as_it_was(void) {
    buffer b = {0};
    MUST(buffer_add(&b, "abc", 3));
    char *many = calloc(1, 1000);
    mem_fail_next();
    CHECK(!buffer_add(&b, many, 1000));
    CHECK_EQUAL(b.size, 3);
    CHECK(!memcmp(b.data, "abc", 3));
    CHECK(buffer_add(&b, many, 1000));
    CHECK_EQUAL(b.size, 1003);
    free(many);
    buffer_clear(&b);
    CHECK(mem_failed());
}

static void allocation_fails_once_when_told(void) {
    CHECK(!mem_failed());
    mem_fail_next();
    CHECK(mem_alloc(10) == NULL);
    void *p = mem_alloc(0);
    CHECK(p != NULL); /* nothing of no size is still something */
    free(p);
    CHECK(mem_failed());
    CHECK(!mem_failed());
    mem_fail_next();
    CHECK(mem_zalloc(10) == NULL);
    mem_fail_next();
    p = mem_alloc(4);
    CHECK(p == NULL);
    p = mem_zalloc(4);
    MUST(p);
    CHECK(!memcmp(p, "\0\0\0\0", 4));
    mem_fail_next();
    CHECK(mem_realloc(p, 100) == NULL); /* the old one is still there */
    free(p);
    char *copy = mem_copy("a\0b", 3);
    CHECK(!memcmp(copy, "a\0b", 4));
    free(copy);
    copy = mem_copy(NULL, 0);
    CHECK(copy && !*copy);
    free(copy);
    CHECK(mem_failed());
}

static void *fails_in_its_own_thread(void *argument) {
    (void)argument;
    mem_fail_next();
    return NULL;
}

static void failure_is_the_threads_own(void) {
    test_thread t;
    test_start(&t, fails_in_its_own_thread, NULL);
    test_join(&t);
    void *p = mem_alloc(1);
    CHECK(p != NULL);
    free(p);
}

static void names_end_with_null(void) {
    for (int i = 0; i < ENGINE_OUTCOME_END; i++) CHECK(engine_outcome_name(i) && *engine_outcome_name(i));
    for (int i = 0; i < ENGINE_CLOCK_END; i++) CHECK(engine_clock_name(i) && *engine_clock_name(i));
    for (int i = 0; i < ENGINE_COUNT_END; i++) CHECK(engine_count_name(i) && *engine_count_name(i));
    CHECK(!engine_outcome_name(ENGINE_OUTCOME_END) && !engine_outcome_name(-1));
    CHECK(!engine_clock_name(ENGINE_CLOCK_END) && !engine_clock_name(-1));
    CHECK(!engine_count_name(ENGINE_COUNT_END) && !engine_count_name(-1));
    CHECK(!strcmp(engine_outcome_name(ENGINE_OUTCOME_PENDING), "pending"));
    CHECK_EQUAL(ENGINE_OUTCOME_PENDING, 0);
}

static void *counts_up_and_down(void *argument) {
    (void)argument;
    for (int i = 0; i < 10000; i++) {
        count_up(ENGINE_COUNT_EASIES);
        if (i % 2) count_down(ENGINE_COUNT_EASIES);
    }
    for (int i = 0; i < 5000; i++) count_down(ENGINE_COUNT_EASIES);
    return NULL;
}

static void counts_hold_between_threads(void) {
    test_thread threads[3];
    for (int i = 0; i < 3; i++) test_start(&threads[i], counts_up_and_down, NULL);
    for (int i = 0; i < 3; i++) test_join(&threads[i]);
    CHECK_EQUAL(engine_counted(ENGINE_COUNT_EASIES), 0);
    count_up(ENGINE_COUNT_WEDGED);
    count_up(ENGINE_COUNT_CONFIGS);
    counts_forget_threads();
    CHECK_EQUAL(engine_counted(ENGINE_COUNT_WEDGED), 0);
    CHECK_EQUAL(engine_counted(ENGINE_COUNT_CONFIGS), 1);
    count_down(ENGINE_COUNT_CONFIGS);
}

static long guarded[2];

static void *adds_under_lock(void *argument) {
    (void)argument;
    for (int i = 0; i < 5000; i++) {
        long *l = &guarded[i & 1];
        lock(LOCK_RECORD, l);
        ++*l;
        unlock(LOCK_RECORD, l);
    }
    return NULL;
}

static void locks_exclude(void) {
    guarded[0] = guarded[1] = 0;
    test_thread threads[3];
    for (int i = 0; i < 3; i++) test_start(&threads[i], adds_under_lock, NULL);
    for (int i = 0; i < 20; i++) {
        locks_take_all();
        long before = guarded[0];
        test_yield();
        CHECK_EQUAL(guarded[0], before);
        locks_release_all();
    }
    for (int i = 0; i < 3; i++) test_join(&threads[i]);
    CHECK_EQUAL(guarded[0] + guarded[1], 15000);
}

static void clock_goes_on(void) {
    int64_t before = engine_now();
    CHECK(before > 0);
    CHECK(now_ns() >= before);
}

CASES({"list_keeps_order", list_keeps_order}, {"splice_moves_all_to_the_end", splice_moves_all_to_the_end},
      {"buffer_grows", buffer_grows}, {"buffer_without_memory_stays_as_it_was", buffer_without_memory_stays_as_it_was},
      {"allocation_fails_once_when_told", allocation_fails_once_when_told},
      {"failure_is_the_threads_own", failure_is_the_threads_own}, {"names_end_with_null", names_end_with_null},
      {"counts_hold_between_threads", counts_hold_between_threads}, {"locks_exclude", locks_exclude},
      {"clock_goes_on", clock_goes_on})
