#include "libcurl.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../include/engine.h"

struct libcurl lc;
static char *loaded_path;

static void stop_at_exit(void) { engine_stop_all(INT64_C(2000000000)); }

int engine_load(const char *path, char *reason, size_t reason_size) {
    if (loaded_path) return 0;
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!object) {
        snprintf(reason, reason_size, "%s", dlerror());
        return -1;
    }
    /* dlsym also looks into what the object is linked to: an extension module that uses libcurl serves as well. */
#define LOOK_UP(name, result, arguments) \
    *(void **)&lc.name = dlsym(object, #name); \
    if (!lc.name) { \
        snprintf(reason, reason_size, "%s has no %s", path, #name); \
        dlclose(object); \
        memset(&lc, 0, sizeof lc); \
        return -1; \
    }
    LIBCURL_FUNCTIONS(LOOK_UP)
    int code = lc.curl_global_init(CURL_GLOBAL_ALL);
    if (code) {
        snprintf(reason, reason_size, "curl_global_init: %s", lc.curl_easy_strerror(code));
        dlclose(object);
        memset(&lc, 0, sizeof lc);
        return -1;
    }
    lc.version_num = lc.curl_version_info(0)->version_num;
    /* Handlers run in reverse order: registered after libcurl's (and its TLS library's) initialisation, ours runs before
     * their clean-up. Without it 15 of 60 exits with live workers crashed. */
    atexit(stop_at_exit);
    loaded_path = strdup(path);
    return 0;
}

bool engine_loaded(void) { return loaded_path != NULL; }

void engine_describe(engine_library *library) {
    const struct curl_version *v = lc.curl_version_info(10);
    memset(library, 0, sizeof *library);
    library->path = loaded_path;
    library->version = v->version;
    library->version_num = v->version_num;
    library->ssl_version = v->ssl_version;
    library->protocols = v->protocols;
    library->feature_bits = v->features;
    library->libz = v->libz_version;
    library->libidn = v->libidn;
    library->libssh = v->libssh_version;
    /* `age` tells which members the struct has: 4 since 7.57, 5 since 7.66, 9 since 7.77, 10 since 7.87. */
    if (v->age >= 4) library->brotli = v->brotli_version;
    if (v->age >= 5) library->nghttp2 = v->nghttp2_version;
    if (v->age >= 5) library->quic = v->quic_version;
    if (v->age >= 9) library->gsasl = v->gsasl_version;
    if (v->age >= 10) library->features = v->feature_names;
}

bool engine_option(const char *name, int *number, int *kind) {
    const struct curl_option *option = lc.curl_easy_option_by_name(name);
    if (!option) return false;
    *number = option->id;
    *kind = option->type;
    return true;
}
