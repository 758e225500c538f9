/* Configurations: values by the kind of their option, copies, references. */
#include <stdlib.h>
#include <string.h>

#include "../src/config.h"
#include "../src/libcurl.h"
#include "test.h"

static engine_config *fresh(void) {
    engine_limits limits = {.connect_ms = 5, .max_bytes = -1};
    engine_config *c = engine_config_new(&limits, "ident\0ity", 9);
    MUST(c);
    return c;
}

static void kinds_are_checked(void) {
    engine_config *c = fresh();
    CHECK(engine_config_add_number(c, 41, 1));
    CHECK(engine_config_add_number(c, 30115, INT64_C(1) << 40));
    CHECK(!engine_config_add_number(c, 10002, 1));
    CHECK(!engine_config_add_number(c, 20011, 1)); /* no functions */
    CHECK(!engine_config_add_number(c, 40291, 1));
    CHECK(!engine_config_add_number(c, -1, 1));
    CHECK(engine_config_add_string(c, 10002, "text", 4));
    CHECK(engine_config_add_string(c, 40291, "a\0b", 3));
    CHECK(!engine_config_add_string(c, 10002, "a\0b", 3)); /* would be cut short */
    CHECK(!engine_config_add_string(c, 41, "1", 1));
    CHECK(!engine_config_add_string(c, 20011, "x", 1));
    const char *items[] = {"A: b", "", "C: d"};
    CHECK(engine_config_add_list(c, 10023, items, 3));
    CHECK(engine_config_add_list(c, 10023, NULL, 0));
    CHECK(!engine_config_add_list(c, 41, items, 3));
    CHECK(!engine_config_add_list(c, 20011, items, 3));
    CHECK_EQUAL(c->count, 6);
    CHECK_EQUAL(c->items[0].kind, ITEM_NUMBER);
    CHECK_EQUAL(c->items[1].kind, ITEM_LARGE);
    CHECK_EQUAL(c->items[1].number, INT64_C(1) << 40);
    CHECK_EQUAL(c->items[2].kind, ITEM_STRING);
    CHECK_EQUAL(c->items[3].kind, ITEM_BLOB);
    CHECK_EQUAL(c->items[3].size, 3);
    CHECK(!memcmp(c->items[3].string, "a\0b", 3));
    CHECK_EQUAL(c->items[4].kind, ITEM_LIST);
    const struct curl_slist *l = c->items[4].list;
    CHECK(!strcmp(l->data, "A: b") && !strcmp(l->next->data, "") && !strcmp(l->next->next->data, "C: d"));
    CHECK(l->next->next->next == NULL);
    CHECK(c->items[5].list == NULL);
    engine_config_unref(c);
}

static void everything_is_copied(void) {
    char identity[] = "who", value[] = "value", item[] = "item";
    engine_limits limits = {.total_ms = 7};
    engine_config *c = engine_config_new(&limits, identity, 3);
    MUST(c);
    const char *items[] = {item};
    CHECK(engine_config_add_string(c, 10002, value, 5) && engine_config_add_list(c, 10023, items, 1));
    memset(identity, 'x', 3);
    memset(value, 'x', 5);
    memset(item, 'x', 4);
    limits.total_ms = 8;
    CHECK(!strcmp(c->identity, "who"));
    CHECK(!strcmp(c->items[0].string, "value"));
    CHECK(!strcmp(c->items[1].list->data, "item"));
    CHECK_EQUAL(c->limits.total_ms, 7);
    engine_config_unref(c);
}

static void grows_and_counts(void) {
    engine_config *c = fresh();
    CHECK_EQUAL(engine_counted(ENGINE_COUNT_CONFIGS), 1);
    for (int i = 0; i < 1000; i++) MUST(engine_config_add_string(c, 10002, "text", 4));
    CHECK_EQUAL(c->count, 1000);
    config_ref(c);
    engine_config_unref(c);
    CHECK(!memcmp(c->identity, "ident\0ity", 9));
    CHECK_EQUAL(c->identity_size, 9);
    engine_config_unref(c);
    engine_config_unref(NULL);
    CHECK_EQUAL(engine_counted(ENGINE_COUNT_CONFIGS), 0);
}

static void no_memory_leaves_it_whole(void) {
    engine_limits limits = {0};
    mem_fail_next();
    CHECK(engine_config_new(&limits, "", 0) == NULL);
    engine_config *c = fresh();
    for (int i = 0; i < 32; i++) MUST(engine_config_add_number(c, 41, 1)); /* the next one needs room */
    const char *items[] = {"a", "b"};
    mem_fail_next();
    CHECK(!engine_config_add_number(c, 41, 1));
    CHECK(engine_config_add_number(c, 41, 1));
    mem_fail_next();
    CHECK(!engine_config_add_string(c, 10002, "x", 1));
    mem_fail_next();
    CHECK(!engine_config_add_list(c, 10023, items, 2));
    CHECK_EQUAL(c->count, 33);
    engine_config_unref(c);
    mem_failed();
}

CASES({"kinds_are_checked", kinds_are_checked}, {"everything_is_copied", everything_is_copied},
      {"grows_and_counts", grows_and_counts}, {"no_memory_leaves_it_whole", no_memory_leaves_it_whole})
