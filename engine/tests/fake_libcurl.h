/* What a test may ask of the fake libcurl, beside the functions that the engine looks up. Got by dlsym. */
#ifndef KATIPO_FAKE_LIBCURL_H
#define KATIPO_FAKE_LIBCURL_H

#include <stdbool.h>
#include <stdint.h>

#define FAKE_IDS 65536

typedef struct {
    void (*set_hook)(void (*hook)(const char *function)); /* called first thing in every function */
    int (*sends)(int id);           /* times that a request with `id` was begun to be sent */
    int (*bodies)(int id);          /* times that the server saw the end of its body */
    long (*wedged)(void);           /* threads that are stuck in here */
    void (*release)(void);          /* let them go on, and whoever comes later */
    void (*wedge)(void);            /* have `wedge` requests get stuck again */
    long (*live)(void);             /* easy and multi handles and connections */
    int (*peak)(void);              /* the most connections at once since the last call */
} fake_control;

/* FNV-1a, as the fake computes it of a request body and says it in the header line "x-body: SIZE HASH". */
static inline uint64_t fake_hash(uint64_t hash, const void *data, uint64_t size) {
    const unsigned char *bytes = data;
    for (uint64_t i = 0; i < size; i++) hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    return hash;
}
#define FAKE_HASH_START UINT64_C(0xcbf29ce484222325)
/* Byte `i` of the response to a request with `seed`. */
static inline unsigned char fake_byte(uint64_t seed, int64_t i) {
    return (unsigned char)((uint64_t)i * 31 + (uint64_t)(i >> 8) + seed);
}

#endif
