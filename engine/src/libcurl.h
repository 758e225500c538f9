/* The part of libcurl's stable ABI that the engine uses, declared here so that no curl header is needed, and the functions,
 * looked up at run time. Numbers are from curl's documented interface, which never changes them. */
#ifndef KATIPO_LIBCURL_H
#define KATIPO_LIBCURL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

typedef void CURL;
typedef void CURLM;

struct curl_slist {
    char *data;
    struct curl_slist *next;
};

struct curl_sockaddr {
    int family, socktype, protocol;
    unsigned int addrlen;
    struct sockaddr addr;
};

typedef struct {
    int msg; /* CURLMSG_DONE */
    CURL *easy_handle;
    union {
        void *whatever;
        int result;
    } data;
} CURLMsg;

/* curl_version_info_data up to what the engine reads. */
struct curl_version {
    int age;
    const char *version;
    unsigned version_num;
    const char *host;
    int features;
    const char *ssl_version;
    long ssl_version_num;
    const char *libz_version;
    const char *const *protocols;
    const char *ares;
    int ares_num;
    const char *libidn;
    int iconv_ver_num;
    const char *libssh_version;
    unsigned brotli_ver_num;
    const char *brotli_version;
    unsigned nghttp2_ver_num;
    const char *nghttp2_version;
    const char *quic_version;
    const char *cainfo;
    const char *capath;
    unsigned zstd_ver_num;
    const char *zstd_version;
    const char *hyper_version;
    const char *gsasl_version;
    const char *const *feature_names; /* age >= 10 (7.87) */
};

struct curl_option {
    const char *name;
    int id;
    int type; /* 0 long, 1 values, 2 off_t, 3 object, 4 string, 5 slist, 6 cbptr, 7 blob, 8 function */
    unsigned flags;
};

struct curl_blob {
    void *data;
    size_t len;
    unsigned flags; /* 1: copy */
};

enum { KIND_LONG, KIND_VALUES, KIND_OFF_T, KIND_OBJECT, KIND_STRING, KIND_SLIST, KIND_CBPTR, KIND_BLOB, KIND_FUNCTION };

enum {
    CURLE_OK = 0,
    CURLE_UNSUPPORTED_PROTOCOL = 1,
    CURLE_COULDNT_RESOLVE_PROXY = 5,
    CURLE_COULDNT_RESOLVE_HOST = 6,
    CURLE_COULDNT_CONNECT = 7,
    CURLE_HTTP2 = 16,
    CURLE_PARTIAL_FILE = 18,
    CURLE_WRITE_ERROR = 23,
    CURLE_READ_ERROR = 26,
    CURLE_OUT_OF_MEMORY = 27,
    CURLE_OPERATION_TIMEDOUT = 28,
    CURLE_ABORTED_BY_CALLBACK = 42,
    CURLE_GOT_NOTHING = 52,
    CURLE_SEND_ERROR = 55,
    CURLE_RECV_ERROR = 56,
    CURLE_BAD_CONTENT_ENCODING = 61,
    CURLE_FILESIZE_EXCEEDED = 63,
    CURLE_SEND_FAIL_REWIND = 65,
    CURLE_HTTP2_STREAM = 92,
    CURLE_HTTP3 = 95,
    CURLE_QUIC_CONNECT_ERROR = 96,
};

#define CURLOPTTYPE_OBJECT 10000
#define CURLOPTTYPE_FUNCTION 20000
#define CURLOPTTYPE_OFF_T 30000
#define CURLOPTTYPE_BLOB 40000

enum {
    CURLOPT_WRITEDATA = 10001,
    CURLOPT_URL = 10002,
    CURLOPT_READDATA = 10009,
    CURLOPT_ERRORBUFFER = 10010,
    CURLOPT_WRITEFUNCTION = 20011,
    CURLOPT_READFUNCTION = 20012,
    CURLOPT_HTTPHEADER = 10023,
    CURLOPT_HEADERDATA = 10029,
    CURLOPT_CUSTOMREQUEST = 10036,
    CURLOPT_VERBOSE = 41,
    CURLOPT_NOBODY = 44,
    CURLOPT_UPLOAD = 46,
    CURLOPT_POST = 47,
    CURLOPT_FORBID_REUSE = 75,
    CURLOPT_HEADERFUNCTION = 20079,
    CURLOPT_HTTPGET = 80,
    CURLOPT_DEBUGFUNCTION = 20094,
    CURLOPT_DEBUGDATA = 10095,
    CURLOPT_NOPROGRESS = 43,
    CURLOPT_XFERINFOFUNCTION = 20219,
    CURLOPT_XFERINFODATA = 10057,
    CURLOPT_HTTP_VERSION = 84,
    CURLOPT_BUFFERSIZE = 98,
    CURLOPT_NOSIGNAL = 99,
    CURLOPT_PRIVATE = 10103,
    CURLOPT_INFILESIZE_LARGE = 30115,
    CURLOPT_POSTFIELDSIZE_LARGE = 30120,
    CURLOPT_COOKIELIST = 10135,
    CURLOPT_CONNECTTIMEOUT_MS = 156,
    CURLOPT_OPENSOCKETFUNCTION = 20163,
    CURLOPT_OPENSOCKETDATA = 10164,
    CURLOPT_SEEKFUNCTION = 20167,
    CURLOPT_SEEKDATA = 10168,
    CURLOPT_CLOSESOCKETFUNCTION = 20208,
    CURLOPT_CLOSESOCKETDATA = 10209,
    CURLOPT_RESOLVER_START_FUNCTION = 20272,
    CURLOPT_RESOLVER_START_DATA = 10273,
    CURLOPT_PIPEWAIT = 237,
    CURLOPT_UPLOAD_BUFFERSIZE = 280,
    CURLOPT_PREREQFUNCTION = 20312,
    CURLOPT_PREREQDATA = 10313,
    CURLOPT_QUICK_EXIT = 322,
    CURLOPT_ALTSVC_CTRL = 286,
    CURLOPT_ALTSVC = 10287,
    CURLOPT_HSTS_CTRL = 299,
    CURLOPT_HSTS = 10300,
};

enum {
    CURLMOPT_SOCKETFUNCTION = 20001,
    CURLMOPT_SOCKETDATA = 10002,
    CURLMOPT_PIPELINING = 3,
    CURLMOPT_TIMERFUNCTION = 20004,
    CURLMOPT_TIMERDATA = 10005,
    CURLMOPT_MAXCONNECTS = 6,
    CURLMOPT_MAX_HOST_CONNECTIONS = 7,
    CURLMOPT_MAX_TOTAL_CONNECTIONS = 13,
    CURLMOPT_MAX_CONCURRENT_STREAMS = 16,
    CURLMOPT_NETWORK_CHANGED = 17,
    CURLMOPT_RESOLVE_THREADS_MAX = 20,
    CURLMOPT_QUICK_EXIT = 21,
};
#define CURLMNWC_CLEAR_CONNS 2L

#define CURLINFO_STRING 0x100000
#define CURLINFO_LONG 0x200000
#define CURLINFO_SLIST 0x400000
#define CURLINFO_SOCKET 0x500000
#define CURLINFO_OFF_T 0x600000
enum {
    CURLINFO_EFFECTIVE_URL = CURLINFO_STRING + 1,
    CURLINFO_REDIRECT_COUNT = CURLINFO_LONG + 20,
    CURLINFO_PRIVATE = CURLINFO_STRING + 21,
    CURLINFO_HTTP_CONNECTCODE = CURLINFO_LONG + 22,
    CURLINFO_REQUEST_SIZE = CURLINFO_LONG + 12,
    CURLINFO_NUM_CONNECTS = CURLINFO_LONG + 26,
    CURLINFO_COOKIELIST = CURLINFO_SLIST + 28,
    CURLINFO_PRIMARY_IP = CURLINFO_STRING + 32,
    CURLINFO_PRIMARY_PORT = CURLINFO_LONG + 40,
    CURLINFO_LOCAL_PORT = CURLINFO_LONG + 42,
    CURLINFO_SIZE_UPLOAD_T = CURLINFO_OFF_T + 7,
    CURLINFO_SIZE_DOWNLOAD_T = CURLINFO_OFF_T + 8,
    CURLINFO_CONTENT_LENGTH_DOWNLOAD_T = CURLINFO_OFF_T + 15,
    CURLINFO_TOTAL_TIME_T = CURLINFO_OFF_T + 50,
    CURLINFO_NAMELOOKUP_TIME_T = CURLINFO_OFF_T + 51,
    CURLINFO_CONNECT_TIME_T = CURLINFO_OFF_T + 52,
    CURLINFO_PRETRANSFER_TIME_T = CURLINFO_OFF_T + 53,
    CURLINFO_STARTTRANSFER_TIME_T = CURLINFO_OFF_T + 54,
    CURLINFO_REDIRECT_TIME_T = CURLINFO_OFF_T + 55,
    CURLINFO_APPCONNECT_TIME_T = CURLINFO_OFF_T + 56,
    CURLINFO_CONN_ID = CURLINFO_OFF_T + 64,
    CURLINFO_EFFECTIVE_METHOD = CURLINFO_STRING + 58,
    CURLINFO_ACTIVESOCKET = CURLINFO_SOCKET + 44,
};

#define CURL_HTTP_VERSION_2_0 3
#define CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE 5
#define CURL_HTTP_VERSION_3 30

#define CURL_GLOBAL_ALL 3L
#define CURLMSG_DONE 1
#define CURL_SOCKET_TIMEOUT (-1)
#define CURL_SOCKET_BAD (-1)
#define CURL_POLL_IN 1
#define CURL_POLL_OUT 2
#define CURL_POLL_REMOVE 4
#define CURL_CSELECT_IN 1
#define CURL_CSELECT_OUT 2
#define CURL_CSELECT_ERR 4
#define CURL_WRITEFUNC_PAUSE 0x10000001
#define CURL_WRITEFUNC_ERROR 0xFFFFFFFF
#define CURL_READFUNC_PAUSE 0x10000001
#define CURL_READFUNC_ABORT 0x10000000
#define CURL_SEEKFUNC_OK 0
#define CURL_SEEKFUNC_FAIL 1
#define CURL_PREREQFUNC_OK 0
#define CURL_PREREQFUNC_ABORT 1
#define CURLPAUSE_RECV 1
#define CURLPAUSE_SEND 4
#define CURL_ERROR_SIZE 256
#define CURLM_OK 0
#define CURLM_UNKNOWN_OPTION 6

/* name, result, arguments. All must be there. */
#define LIBCURL_FUNCTIONS(X) \
    X(curl_global_init, int, (long)) \
    X(curl_version_info, const struct curl_version *, (int)) \
    X(curl_easy_init, CURL *, (void)) \
    X(curl_easy_setopt, int, (CURL *, int, ...)) \
    X(curl_easy_getinfo, int, (CURL *, int, ...)) \
    X(curl_easy_pause, int, (CURL *, int)) \
    X(curl_easy_cleanup, void, (CURL *)) \
    X(curl_easy_strerror, const char *, (int)) \
    X(curl_easy_option_by_name, const struct curl_option *, (const char *)) \
    X(curl_easy_option_by_id, const struct curl_option *, (int)) \
    X(curl_slist_append, struct curl_slist *, (struct curl_slist *, const char *)) \
    X(curl_slist_free_all, void, (struct curl_slist *)) \
    X(curl_multi_init, CURLM *, (void)) \
    X(curl_multi_setopt, int, (CURLM *, int, ...)) \
    X(curl_multi_add_handle, int, (CURLM *, CURL *)) \
    X(curl_multi_remove_handle, int, (CURLM *, CURL *)) \
    X(curl_multi_socket_action, int, (CURLM *, int, int, int *)) \
    X(curl_multi_info_read, CURLMsg *, (CURLM *, int *)) \
    X(curl_multi_cleanup, int, (CURLM *)) \
    X(curl_multi_strerror, const char *, (int))

#define LIBCURL_DECLARE(name, result, arguments) result(*name) arguments;
/* Written once by engine_load, before any worker exists; read by everybody. */
struct libcurl {
    LIBCURL_FUNCTIONS(LIBCURL_DECLARE)
    unsigned version_num;
};
extern struct libcurl lc;

#endif
