#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "libcurl.h" /* for the layout of curl_slist alone */

engine_config *engine_config_new(const engine_limits *limits, const char *identity, size_t identity_size) {
    engine_config *c = mem_zalloc(sizeof *c);
    if (!c) return NULL;
    c->identity = mem_copy(identity, identity_size);
    if (!c->identity) {
        free(c);
        return NULL;
    }
    atomic_init(&c->refs, 1);
    c->identity_size = identity_size;
    c->limits = *limits;
    count_up(ENGINE_COUNT_CONFIGS);
    return c;
}

void config_ref(engine_config *c) { atomic_fetch_add(&c->refs, 1); }

static void list_free(struct curl_slist *list) {
    while (list) {
        struct curl_slist *next = list->next;
        free(list->data);
        free(list);
        list = next;
    }
}

void engine_config_unref(engine_config *c) {
    if (!c || atomic_fetch_sub(&c->refs, 1) != 1) return;
    for (size_t i = 0; i < c->count; i++) {
        /* Strings may be passwords or keys. */
        if (c->items[i].string) memset(c->items[i].string, 0, c->items[i].size);
        free(c->items[i].string);
        list_free(c->items[i].list);
    }
    free(c->items);
    free(c->identity);
    free(c);
    count_down(ENGINE_COUNT_CONFIGS);
}

static config_item *new_item(engine_config *c, int option) {
    if (c->count == c->room) {
        size_t room = c->room ? c->room * 2 : 32;
        config_item *items = mem_realloc(c->items, room * sizeof *items);
        if (!items) return NULL;
        c->items = items;
        c->room = room;
    }
    config_item *item = &c->items[c->count];
    memset(item, 0, sizeof *item);
    item->option = option;
    c->alt_svc |= option == CURLOPT_ALTSVC || option == CURLOPT_ALTSVC_CTRL;
    c->stateful |= option == CURLOPT_HSTS || option == CURLOPT_HSTS_CTRL || c->alt_svc;
    return item;
}

bool engine_config_add_number(engine_config *c, int option, int64_t value) {
    bool is_long = option >= 0 && option < CURLOPTTYPE_OBJECT;
    bool is_large = option >= CURLOPTTYPE_OFF_T && option < CURLOPTTYPE_BLOB;
    if (!is_long && !is_large) return false;
    if (is_long && (long)value != value) return false;
    if (option == CURLOPT_FORBID_REUSE) c->forbid_reuse = value != 0;
    if (option == CURLOPT_HTTP_VERSION) c->http_version = (int)value;
    if (option == CURLOPT_PIPEWAIT) {
        c->pipewait = value != 0;
        return true;
    }
    config_item *item = new_item(c, option);
    if (!item) return false;
    item->kind = is_long ? ITEM_NUMBER : ITEM_LARGE;
    item->number = value;
    c->count++;
    return true;
}

bool engine_config_add_string(engine_config *c, int option, const char *value, size_t size) {
    bool is_string = option >= CURLOPTTYPE_OBJECT && option < CURLOPTTYPE_FUNCTION;
    bool is_blob = option >= CURLOPTTYPE_BLOB;
    if (!is_string && !is_blob) return false;
    if (is_string && memchr(value, 0, size)) return false;
    config_item *item = new_item(c, option);
    if (!item) return false;
    item->kind = is_string ? ITEM_STRING : ITEM_BLOB;
    item->string = mem_copy(value, size);
    if (!item->string) return false;
    item->size = size;
    c->count++;
    return true;
}

bool engine_config_add_list(engine_config *c, int option, const char *const *strings, size_t count) {
    if (option < CURLOPTTYPE_OBJECT || option >= CURLOPTTYPE_FUNCTION) return false;
    config_item *item = new_item(c, option);
    if (!item) return false;
    item->kind = ITEM_LIST;
    struct curl_slist **end = &item->list;
    for (size_t i = 0; i < count; i++) {
        struct curl_slist *node = mem_zalloc(sizeof *node);
        if (node) node->data = mem_copy(strings[i], strlen(strings[i]));
        if (!node || !node->data) {
            free(node);
            list_free(item->list);
            return false;
        }
        *end = node;
        end = &node->next;
    }
    c->count++;
    return true;
}
