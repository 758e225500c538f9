/* Immutable, counted options of a request. Knows no libcurl: what a value is follows from its option's number. */
#ifndef KATIPO_CONFIG_H
#define KATIPO_CONFIG_H

#include "base.h"

struct curl_slist;

typedef struct {
    int option;
    enum { ITEM_NUMBER, ITEM_LARGE, ITEM_STRING, ITEM_LIST, ITEM_BLOB } kind;
    int64_t number;
    char *string;
    size_t size;
    struct curl_slist *list;
} config_item;

struct engine_config {
    _Atomic int refs;
    engine_limits limits;
    char *identity;
    size_t identity_size;
    config_item *items;
    size_t count, room;
    bool pipewait;     /* CURLOPT_PIPEWAIT: applied where multiplexing is possible (transfer.c) */
    int http_version;  /* CURLOPT_HTTP_VERSION; 0: not given */
    bool stateful;     /* has an option that makes an easy handle remember something (HSTS, alt-svc) */
    bool forbid_reuse; /* CURLOPT_FORBID_REUSE */
    bool alt_svc;      /* HTTP/3 may be used without being asked for */
    _Atomic long used; /* transfers that it was applied to */
};

void config_ref(engine_config *config);

#endif
