#include "transfer.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "config.h"
#include "files.h"
#include "log.h"
#include "siblings.h"
#include "worker.h"

/* libcurl's receive buffer, bytes. Its default of 16 KiB costs three times the CPU on long downloads; one buffer serves all
 * transfers of a multi handle since 8.9, so that size is no matter there. */
#define RECEIVE_BUFFER 262144L
#define SEND_BUFFER 262144L
#define KEPT_BUFFER 16384u     /* bytes of a buffer that is kept for the next transfer; arbitrary */
/* A body that nghttp3 asks for whole, whenever it is asked to send: it keeps asking below 16,382 bytes of a stream unsent
 * (NGHTTP3_MIN_UNSENT_BYTES). */
#define SMALL_BODY 16000
#define RESERVE_MOST (1 << 20) /* of a buffered body, on the word of its Content-Length */

/* ------------------------------------------------------------------------------------------------ header blocks
 *
 * libcurl's header callback sees every block: 1xx, 401, 302, the final one, and trailers. What a line means follows from the
 * phase that the response is in; a pair that is not in the table is a response that makes no sense. */

typedef enum { ON_STATUS_LINE, ON_LINE, ON_END_INTERIM, ON_END_HELD, ON_END_FINAL, ON_DATA, ON_EVENT_END } transfer_event;

#define NEVER PHASE_END
/* clang-format off */
static const unsigned char next_phase[PHASE_END][ON_EVENT_END] = {
    /*               status line  line         1xx ends     may go on    final ends   data */
    [PHASE_START] = {PHASE_BLOCK, NEVER,       NEVER,       NEVER,       NEVER,       NEVER},
    [PHASE_BLOCK] = {PHASE_BLOCK, PHASE_BLOCK, PHASE_START, PHASE_HELD,  PHASE_FINAL, NEVER},
    [PHASE_HELD]  = {PHASE_BLOCK, PHASE_HELD,  NEVER,       NEVER,       NEVER,       PHASE_FINAL},
    [PHASE_FINAL] = {PHASE_BLOCK, PHASE_FINAL, NEVER,       NEVER,       NEVER,       PHASE_FINAL},
};
/* clang-format on */

static bool advance(transfer *t, transfer_event event) {
    unsigned next = next_phase[t->phase][event];
    if (next == NEVER) {
        t->bad_response = true;
        return false;
    }
    t->phase = (transfer_phase)next;
    return true;
}

static bool is_streamed(const transfer *t) { return t->record->flags & ENGINE_STREAM; }
static bool is_streaming_body(const transfer *t) { return t->record->flags & ENGINE_STREAM_BODY; }
static bool has_body(const transfer *t) { return t->record->flags & (ENGINE_STREAM_BODY | ENGINE_HAS_BODY); }
static bool may_use_http3(const engine_config *c) { return c->http_version >= CURL_HTTP_VERSION_3 || c->alt_svc; }

/* A block after which libcurl may send again: the next block, or a byte of body, or the end will tell. Waiting for that byte
 * is only done here; a 200 of server-sent events is delivered at its blank line. */
static bool may_go_on(const transfer *t) {
    int flags = t->record->config->limits.flags;
    if (t->status >= 300 && t->status < 400) return flags & ENGINE_FOLLOW; /* libcurl follows any that has a Location */
    switch (t->status) {
    case 101: return t->record->config->http_version == CURL_HTTP_VERSION_2_0; /* the upgrade that libcurl asked for */
    case 401: return flags & ENGINE_MAY_RETRY_AUTH;
    case 407: return flags & ENGINE_PROXIED;
    case 417: return true; /* an Expect of the caller's: it may send again without */
    case 421: return true; /* it may try another connection */
    default: return false;
    }
}

/* The cookies that libcurl's jar holds now, a line each. */
static bool read_cookies(transfer *t, buffer *cookies) {
    if (!t->saw_cookie && !(t->record->config->limits.flags & ENGINE_HAS_COOKIES)) return true;
    struct curl_slist *list = NULL;
    lc.curl_easy_getinfo(t->easy, CURLINFO_COOKIELIST, &list);
    bool ok = true;
    for (struct curl_slist *l = list; l && ok; l = l->next)
        ok = buffer_add(cookies, l->data, strlen(l->data)) && buffer_add(cookies, "\n", 1);
    lc.curl_slist_free_all(list);
    return ok;
}

/* The effective URL, where it is not the request's own. */
static char *read_url(transfer *t) {
    long redirects = 0;
    const char *url = NULL;
    lc.curl_easy_getinfo(t->easy, CURLINFO_REDIRECT_COUNT, &redirects);
    if (redirects) lc.curl_easy_getinfo(t->easy, CURLINFO_EFFECTIVE_URL, &url);
    return url ? mem_copy(url, strlen(url)) : NULL;
}

/* The block at hand is the final one. */
static bool announce_final(transfer *t) {
    if (!is_streamed(t)) return true;
    buffer cookies = {0};
    if (!read_cookies(t, &cookies)) {
        buffer_clear(&cookies);
        t->no_memory = true;
        return false;
    }
    record_start(t->record, t->status, &t->block, &cookies, read_url(t));
    return true;
}

static bool starts_with_status_line(const char *line, size_t size) { return size >= 5 && !memcmp(line, "HTTP/", 5); }

static bool is_blank(const char *line, size_t size) {
    return size == 0 || (size == 1 && line[0] == '\n') || (size == 2 && line[0] == '\r' && line[1] == '\n');
}

/* "HTTP/1.1 200 OK", "HTTP/2 200": the version ends at the first blank. */
static void read_status_line(transfer *t, const char *line, size_t size) {
    size_t i = 5;
    t->http3 = size > 5 && line[5] == '3';
    t->multiplexed = t->http3 || (size > 5 && line[5] == '2');
    while (i < size && line[i] != ' ') i++;
    while (i < size && line[i] == ' ') i++;
    t->status = 0;
    for (int digits = 0; digits < 3 && i < size && line[i] >= '0' && line[i] <= '9'; digits++, i++)
        t->status = t->status * 10 + (line[i] - '0');
}

/* LONE TRANSFERS. A transfer over HTTP/3 that ends while libcurl holds some of its body, because it was cancelled or because
 * the response came early, may leave a stream behind for which nghttp3 asks in vain. That fails the whole connection, and may
 * end the process if another stream shares a packet with it. Nothing tells when libcurl's queue is empty. So a request that
 * sends a body over HTTP/3 has a connection to itself, which goes with it. One connection may serve one such request after
 * the other where nothing can be left behind: where a response has come, and either the body is so small that all of it has
 * been asked for, or it is not HTTP/3 after all. */
static bool is_lone(const transfer *t) { return has_body(t) && t->record->body_size && may_use_http3(t->record->config); }

static void allow_reuse(transfer *t) {
    int64_t size = t->record->body_size;
    if (t->record->config->forbid_reuse) return;
    if (t->lone && (!t->http3 || (size >= 0 && size <= SMALL_BODY))) driver_allow_reuse(t->multi, t->easy, true);
}

static void learn_version(transfer *t) {
    if (t->multiplexed) driver_multiplexes(t->multi, t->connection);
    turns_learn(worker_turns(t->worker), &t->ticket, t->multiplexed);
    allow_reuse(t);
}

/* A 1xx block, for who asked for them. */
static bool announce_informational(transfer *t) {
    if (record_informational(t->record, t->status, t->block.data, t->block.size)) return true;
    t->no_memory = true;
    return false;
}

static bool end_of_block(transfer *t) {
    if (t->phase == PHASE_HELD || t->phase == PHASE_FINAL) return true; /* the blank line after trailers */
    if (t->status >= 100 && t->status < 200 && t->status != 101) {
        bool told = announce_informational(t);
        t->block.size = 0;
        return advance(t, ON_END_INTERIM) && told;
    }
    learn_version(t);
    if (may_go_on(t)) return advance(t, ON_END_HELD);
    return advance(t, ON_END_FINAL) && announce_final(t);
}

static void listen_for_refusal(transfer *t, bool on);

static size_t on_header(char *line, size_t size, size_t n, void *user) {
    transfer *t = user;
    size *= n;
    t->answered = true;
    listen_for_refusal(t, false);
    t->last_rx_ns = driver_now(t->multi->driver);
    bool ok;
    if (starts_with_status_line(line, size)) {
        /* A 101 that another block follows was no answer: libcurl has changed to HTTP/2, as it had asked for. */
        ok = t->phase != PHASE_HELD || t->status != 101 || announce_informational(t);
        ok = advance(t, ON_STATUS_LINE) && ok;
        t->block.size = t->trailers.size = 0;
        read_status_line(t, line, size);
        ok = ok && buffer_add(&t->block, line, size);
    } else if (is_blank(line, size)) {
        ok = end_of_block(t);
    } else {
        ok = advance(t, ON_LINE) && buffer_add(t->phase == PHASE_BLOCK ? &t->block : &t->trailers, line, size);
        if (size > 11 && (line[0] | 32) == 's' && !strncasecmp(line, "set-cookie:", 11)) t->saw_cookie = true;
    }
    return ok ? size : 0;
}

/* ------------------------------------------------------------------------------------------------ body, down */

/* The record is settled: what libcurl has for it, or wants of it, is in vain. A lone transfer is not broken off inside libcurl,
 * which would close its connection without seeing to it that the server hears of that, but let go at the top of the loop. */
static bool leaves(transfer *t) {
    if (t->lone) worker_command(t->worker, t->record, COMMAND_END);
    return t->lone;
}

static size_t on_data(char *data, size_t size, size_t n, void *user) {
    transfer *t = user;
    size *= n;
    t->last_rx_ns = driver_now(t->multi->driver);
    bool held = t->phase == PHASE_HELD;
    if (!advance(t, ON_DATA) || (held && !announce_final(t))) return 0;
    if (is_streamed(t)) {
        switch (record_append(t->record, data, size)) {
        case APPEND_TAKEN: return size;
        case APPEND_TO_WRITE: worker_will_write(t->worker, t); return size;
        case APPEND_WRITE: return transfer_write(t) ? size : leaves(t) ? CURL_WRITEFUNC_PAUSE : 0;
        case APPEND_PAUSE: siblings_read_on(t); return CURL_WRITEFUNC_PAUSE;
        case APPEND_TOO_LARGE: t->too_large = true; return 0;
        case APPEND_NO_MEMORY: t->no_memory = true; return 0;
        case APPEND_SETTLED: return leaves(t) ? CURL_WRITEFUNC_PAUSE : 0;
        }
    }
    int64_t most = t->record->config->limits.max_bytes;
    if (most >= 0 && (int64_t)(t->body.size + size) > most) {
        t->too_large = true;
        return 0;
    }
    if (t->body.room < KEPT_BUFFER && !t->body.size && size > t->body.room) {
        int64_t length = -1;
        lc.curl_easy_getinfo(t->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
        if (length > 0) buffer_reserve(&t->body, (size_t)(length < RESERVE_MOST ? length : RESERVE_MOST));
    }
    if (!buffer_add(&t->body, data, size)) {
        t->no_memory = true;
        return 0;
    }
    return size;
}

/* ------------------------------------------------------------------------------------------------ body, up */

static bool fail(transfer *t, int outcome, int curl_code, const char *detail);

static int64_t read_file(transfer *t, char *to, size_t room) {
    int error;
    int64_t given = files_read(t->record, to, room, &error);
    if (error) {
        char detail[DETAIL_SIZE];
        files_explain(files_cannot_read, error, detail, sizeof detail);
        fail(t, ENGINE_OUTCOME_CURL, CURLE_READ_ERROR, detail);
    }
    return given;
}

static size_t on_read(char *to, size_t size, size_t n, void *user) {
    transfer *t = user;
    size *= n;
    engine_record *r = t->record;
    int64_t given;
    if (is_streaming_body(t)) {
        given = record_read_body(r, to, size);
        if (given == BODY_IN_FILE) given = read_file(t, to, size);
    } else {
        given = r->body_size - t->body_at;
        if (given > (int64_t)size) given = (int64_t)size;
        if (given) memcpy(to, r->body + t->body_at, (size_t)given);
    }
    t->last_tx_ns = driver_now(t->multi->driver);
    if (given == BODY_PAUSE) return CURL_READFUNC_PAUSE;
    if (given == BODY_ABORT) return leaves(t) ? CURL_READFUNC_PAUSE : CURL_READFUNC_ABORT;
    if (given == BODY_END && is_streaming_body(t)) worker_command(t->worker, r, COMMAND_END);
    t->body_at += given;
    t->given += given;
    if (given == BODY_END || (r->body_size >= 0 && t->body_at >= r->body_size)) {
        t->upload_done = true;
        t->last_rx_ns = t->last_tx_ns;
        transfer_arm(t);
    }
    return (size_t)given;
}

/* libcurl wants to send the body again: after a redirect, a 401, on another connection. Honest only where the bytes are
 * still there: a buffered body, a file, or a streamed body of which nothing was consumed. Otherwise error 65 says so. */
static int on_seek(void *user, int64_t offset, int origin) {
    transfer *t = user;
    if (origin != SEEK_SET) return CURL_SEEKFUNC_FAIL;
    int64_t length = t->record->body_size;
    if (is_streaming_body(t)) {
        if (offset == 0 && t->body_at == 0) return CURL_SEEKFUNC_OK;
        if (!files_seek(t->record, offset)) return CURL_SEEKFUNC_FAIL;
    } else if (offset < 0 || offset > length) {
        return CURL_SEEKFUNC_FAIL;
    }
    t->body_at = offset;
    t->upload_done = length >= 0 && offset >= length;
    return CURL_SEEKFUNC_OK;
}

/* libcurl takes body in large pieces and sends them in small ones; the write clock is about the latter. */
static int on_progress(void *user, int64_t down_total, int64_t down, int64_t up_total, int64_t up) {
    transfer *t = user;
    (void)down_total;
    (void)down;
    (void)up_total;
    if (up != t->sent) {
        t->sent = up;
        t->last_tx_ns = driver_now(t->multi->driver);
    }
    return 0;
}

/* ------------------------------------------------------------------------------------------------ connecting, sending */

static void begin_connecting(transfer *t) {
    if (t->connect_ns) return;
    t->connect_ns = driver_now(t->multi->driver);
    transfer_arm(t);
}

static void *on_opening(opener *o) {
    transfer *t = CONTAINER(o, transfer, opener);
    begin_connecting(t);
    return turns_opened(worker_turns(t->worker), &t->ticket);
}

static int on_resolving(void *resolver, void *reserved, void *user) {
    transfer *t = user;
    (void)resolver;
    (void)reserved;
    begin_connecting(t);
    return 0;
}

/* RFC 9110 9.2.2. */
static bool is_idempotent(const char *method) {
    static const char *const idempotent[] = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"};
    for (size_t i = 0; i < sizeof idempotent / sizeof *idempotent; i++)
        if (!strcmp(method, idempotent[i])) return true;
    return false;
}

/* Whether the attempt before is known not to have been processed: no byte of it was sent, or the server refused its stream.
 * (What is given to a connection at once is one system call, up to a TLS record's 16 KiB: if that failed, nothing was sent.) */
static bool was_not_processed(const transfer *t) {
    long size = -1;
    if (t->stale) return true;
    lc.curl_easy_getinfo(t->easy, CURLINFO_REQUEST_SIZE, &size);
    return t->refused || (size == t->size_before && t->given < 16384);
}

static int on_debug(CURL *easy, int kind, char *data, size_t size, void *user) {
    transfer *t = user;
    (void)easy;
    static const char refused[] = "refused by server, try again";
    if (kind == 0 && t->listening && memmem(data, size, refused, sizeof refused - 1)) t->refused = true;
    if (kind <= 2 && t->record->config->limits.flags & ENGINE_VERBOSE) log_add(kind, data, size);
    return 0;
}

/* That a stream was refused is told nowhere but in libcurl's verbose words. So they are listened to, from the sending of what
 * must not be sent twice to the first line of its response. */
static void listen_for_refusal(transfer *t, bool on) {
    if (t->listening == on) return;
    t->listening = on;
    lc.curl_easy_setopt(t->easy, CURLOPT_DEBUGFUNCTION, on_debug);
    lc.curl_easy_setopt(t->easy, CURLOPT_DEBUGDATA, t);
    lc.curl_easy_setopt(t->easy, CURLOPT_VERBOSE, on || t->record->config->limits.flags & ENGINE_VERBOSE ? 1L : 0L);
}

/* Whether the server has closed the connection that the request is about to be sent on. libcurl looks for that about once a
 * second; a POST on such a connection would be lost otherwise, although nobody can have executed it. */
static bool is_closed_by_peer(const transfer *t) {
    int fd = -1;
    if (lc.curl_easy_getinfo(t->easy, CURLINFO_ACTIVESOCKET, &fd) || fd < 0) return false;
#ifdef POLLRDHUP
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};
    return poll(&p, 1, 0) > 0 && p.revents & (POLLRDHUP | POLLHUP | POLLERR);
#else
    char byte;
    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
#endif
}

/* A redirect turned the request into one without a body (303, or a POST's 301). */
static void forget_body_where_it_is_dropped(transfer *t) {
    const char *method = NULL;
    if (!t->sends || !has_body(t)) return;
    lc.curl_easy_getinfo(t->easy, CURLINFO_EFFECTIVE_METHOD, &method);
    if (!method || !strcmp(method, t->record->method)) return;
    t->upload_done = true;
    record_unpause(t->record, false, true);
}

static bool may_be_refused(const transfer *t) {
    const engine_record *r = t->record;
    if (is_idempotent(r->method) || (t->reused && !driver_is_multiplexed(t->multi, t->connection))) return false;
    return !strncmp(r->url, "https:", 6) || r->config->http_version == CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE;
}

/* The last moment before a request is sent; libcurl comes here for each attempt.
 *
 * On a reused connection that died without a byte of response libcurl sends again by itself, up to five times: a POST may
 * have been executed by then, and would be again. What the server declared unprocessed passes, and so does what follows an
 * answer: a redirect, a 401. */
static int on_sending(void *user, char *remote_ip, char *local_ip, int remote_port, int local_port) {
    transfer *t = user;
    (void)remote_ip;
    (void)local_ip;
    if (t->sends && !t->answered && !is_idempotent(t->record->method) && !was_not_processed(t)) {
        t->lost = true;
        return CURL_PREREQFUNC_ABORT;
    }
    long connects = 0;
    int64_t connection = -1;
    lc.curl_easy_getinfo(t->easy, CURLINFO_NUM_CONNECTS, &connects);
    if (lc.version_num < 0x080200 || lc.curl_easy_getinfo(t->easy, CURLINFO_CONN_ID, &connection))
        connection = (int64_t)remote_port << 32 | local_port; /* before 8.2 a connection has no id: its addresses */
    t->reused = connects == t->connections_before;
    t->connections_before = connects;
    t->connection = connection;
    lc.curl_easy_getinfo(t->easy, CURLINFO_REQUEST_SIZE, &t->size_before);
    forget_body_where_it_is_dropped(t);
    if (t->lone) driver_allow_reuse(t->multi, t->easy, false); /* until there is a response */
    t->sends++;
    t->given = 0;
    t->answered = t->refused = false;
    t->stale = t->reused && !is_idempotent(t->record->method) && !driver_is_multiplexed(t->multi, t->connection) &&
               is_closed_by_peer(t);
    listen_for_refusal(t, may_be_refused(t));
    t->sending = true;
    t->connect_ns = 0;
    turns_unclaim(worker_turns(t->worker), &t->ticket);
    if (t->pipewait && turns_connected(worker_turns(t->worker), &t->ticket)) worker_look_for_held_back(t->worker);
    t->last_rx_ns = t->last_tx_ns = driver_now(t->multi->driver);
    atomic_store(&t->record->request_sent, true);
    transfer_arm(t);
    return CURL_PREREQFUNC_OK;
}

/* ------------------------------------------------------------------------------------------------ starting */

transfer *transfer_new(struct worker *w, engine_record *r) {
    transfer *t = worker_spare(w);
    if (t) {
        buffer block = t->block, trailers = t->trailers, body = t->body;
        memset(t, 0, sizeof *t);
        t->block = block;
        t->trailers = trailers;
        t->body = body;
    } else {
        t = mem_zalloc(sizeof *t);
        if (!t) return NULL;
    }
    t->worker = w;
    t->record = r;
    record_ref(r);
    r->transfer = t;
    t->ticket.worker = w;
    t->ticket.record = r;
    node_init(&t->starving);
    node_init(&t->unwritten);
    node_append(worker_transfers(w), &t->in_worker);
    t->opener.opening = on_opening;
    t->upload_done = !has_body(t) || (!is_streaming_body(t) && r->body_size == 0);
    t->lone = is_lone(t);
    return t;
}

static void apply(CURL *easy, const engine_config *c) {
    for (size_t i = 0; i < c->count; i++) {
        const config_item *item = &c->items[i];
        switch (item->kind) {
        case ITEM_NUMBER: lc.curl_easy_setopt(easy, item->option, (long)item->number); break;
        case ITEM_LARGE: lc.curl_easy_setopt(easy, item->option, item->number); break;
        case ITEM_STRING: lc.curl_easy_setopt(easy, item->option, item->string); break;
        case ITEM_LIST: lc.curl_easy_setopt(easy, item->option, item->list); break;
        case ITEM_BLOB: {
            struct curl_blob blob = {item->string, item->size, 1};
            lc.curl_easy_setopt(easy, item->option, &blob);
            break;
        }
        }
    }
}

/* UPLOAD with CUSTOMREQUEST serves every method; POST is set as POST, so that a redirect turns it into GET where RFC 9110
 * has it so. */
static void set_method(transfer *t) {
    const engine_record *r = t->record;
    CURL *easy = t->easy;
    bool body = has_body(t);
    int64_t length = body ? r->body_size : 0;
    bool old_chunking = lc.version_num < 0x080700 && length < 0; /* POST of unknown length was not chunked by itself */
    if (!strcmp(r->method, "HEAD")) {
        lc.curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    } else if (!strcmp(r->method, "POST") && !old_chunking) {
        lc.curl_easy_setopt(easy, CURLOPT_POST, 1L);
        lc.curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, length);
    } else if (body || !strcmp(r->method, "PUT") || !strcmp(r->method, "PATCH")) {
        lc.curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
        lc.curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, length);
        if (strcmp(r->method, "PUT") != 0) lc.curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, r->method);
    } else if (strcmp(r->method, "GET") != 0) {
        lc.curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, r->method);
    }
    if (body || !strcmp(r->method, "POST") || !strcmp(r->method, "PUT") || !strcmp(r->method, "PATCH")) {
        lc.curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
        lc.curl_easy_setopt(easy, CURLOPT_READDATA, t);
        lc.curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
        lc.curl_easy_setopt(easy, CURLOPT_SEEKDATA, t);
        lc.curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, SEND_BUFFER);
        if (r->config->limits.read_ms || r->config->limits.write_ms) {
            lc.curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
            lc.curl_easy_setopt(easy, CURLOPT_XFERINFODATA, t);
            lc.curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
        }
    }
}

static void set_callbacks(transfer *t) {
    CURL *easy = t->easy;
    lc.curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    lc.curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_data);
    lc.curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_sending);
    lc.curl_easy_setopt(easy, CURLOPT_RESOLVER_START_FUNCTION, on_resolving);
    if (t->record->config->limits.flags & ENGINE_VERBOSE) {
        lc.curl_easy_setopt(easy, CURLOPT_VERBOSE, 1L);
        lc.curl_easy_setopt(easy, CURLOPT_DEBUGFUNCTION, on_debug);
        lc.curl_easy_setopt(easy, CURLOPT_DEBUGDATA, t);
    }
}

/* Whether to wait for a connection that is being opened, because it may turn out to carry many requests. Over plain HTTP it
 * does so only where HTTP/2 was agreed on beforehand; waiting would cost a burst to a new origin a whole round trip. */
static bool may_multiplex(const transfer *t) {
    const engine_config *c = t->record->config;
    if (t->lone) return false;
    if (c->http_version == CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE || c->http_version >= CURL_HTTP_VERSION_3) return true;
    return !strncmp(t->record->url, "https:", 6) && !turns_knows_http1(worker_turns(t->worker), &t->ticket);
}

/* What differs between requests of one configuration, in a handle fresh or not. */
static void set_own(transfer *t) {
    CURL *easy = t->easy;
    lc.curl_easy_setopt(easy, CURLOPT_URL, t->record->url);
    t->pipewait = t->record->config->pipewait && may_multiplex(t);
    lc.curl_easy_setopt(easy, CURLOPT_PIPEWAIT, (long)t->pipewait);
    lc.curl_easy_setopt(easy, CURLOPT_PRIVATE, t);
    lc.curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, t->error);
    lc.curl_easy_setopt(easy, CURLOPT_HEADERDATA, t);
    lc.curl_easy_setopt(easy, CURLOPT_WRITEDATA, t);
    lc.curl_easy_setopt(easy, CURLOPT_PREREQDATA, t);
    lc.curl_easy_setopt(easy, CURLOPT_RESOLVER_START_DATA, t);
}

/* Easy handles are fresh, so that no state leaks from one request to the next, with one exception, which saves a third of
 * the CPU of a small request: a GET without a body may take over the handle of a GET before it that had the very same
 * configuration, if nothing that a handle remembers was in play: no cookie was given or received, no credentials, no
 * redirect, no failure, no option that keeps state. Everything else that differs between the two is set here. */
static bool may_share_handle(const transfer *t) {
    const engine_record *r = t->record;
    return !r->config->limits.flags && !r->config->stateful && !has_body(t) && !strcmp(r->method, "GET") &&
           !strchr(r->url, '@');
}

static void prepare_fresh(transfer *t) {
    const engine_config *c = t->record->config;
    lc.curl_easy_setopt(t->easy, CURLOPT_BUFFERSIZE, RECEIVE_BUFFER);
    /* The connect clock is ours; libcurl's own default of 300 s would be another one. */
    lc.curl_easy_setopt(t->easy, CURLOPT_CONNECTTIMEOUT_MS, (long)INT32_MAX);
    apply(t->easy, c);
    set_method(t);
    set_callbacks(t);
    driver_prepare(t->multi, t->easy);
}

bool transfer_start(transfer *t) {
    engine_record *r = t->record;
    engine_config *c = r->config;
    t->multi = driver_multi(worker_driver(t->worker), c->identity, c->identity_size, t->lone);
    if (!t->multi) return false;
    t->clean = may_share_handle(t) && atomic_fetch_add_explicit(&c->used, 1, memory_order_relaxed);
    if (t->clean) t->easy = driver_take_spare(t->multi, c);
    if (!t->easy) {
        t->easy = lc.curl_easy_init();
        if (!t->easy) return false;
        count_up(ENGINE_COUNT_EASIES);
        prepare_fresh(t);
    }
    set_own(t);
    driver_set_opener(t->multi, t->easy, &t->opener);
    if (driver_add(t->multi, t->easy)) {
        lc.curl_easy_cleanup(t->easy);
        t->easy = NULL;
        count_down(ENGINE_COUNT_EASIES);
        return false;
    }
    if (may_use_http3(c)) worker_speaks_quic(t->worker);
    t->entered_ns = driver_now(t->multi->driver);
    transfer_arm(t);
    return true;
}

void transfer_resume(transfer *t) {
    bool rx_paused, rx_blocked, tx_paused, tx_blocked;
    if (!t->easy) return;
    record_flow(t->record, &rx_paused, &rx_blocked, &tx_paused, &tx_blocked);
    bool rx_goes = rx_paused && !rx_blocked, tx_goes = tx_paused && !tx_blocked;
    if (!rx_goes && !tx_goes) return;
    /* Both directions at once: a plain CONT would also resume the one that must stay. Resuming calls the callbacks inside
     * the call, so what was noted is forgotten before it. 43 comes where there is no connection (yet, or any more). */
    int mask = (rx_paused && rx_blocked ? CURLPAUSE_RECV : 0) | (tx_paused && tx_blocked ? CURLPAUSE_SEND : 0);
    record_unpause(t->record, rx_goes, tx_goes);
    t->last_rx_ns = t->last_tx_ns = driver_now(t->multi->driver);
    multi *m = t->multi;
    lc.curl_easy_pause(t->easy, mask);
    m->dirty = true;
    transfer_arm(t);
}

/* Over HTTP/3 libcurl notes an end of body that comes alone, and does not send it before it has something else to do for the
 * transfer: for as long as 30 s. Unpausing what is not paused makes it look at once; if the response is paused by us, its
 * write callback pauses it again. */
void transfer_push_end(transfer *t) {
    if (!t->easy) return;
    record_unpause(t->record, true, true);
    lc.curl_easy_pause(t->easy, 0);
    driver_kick(t->multi);
}

/* ------------------------------------------------------------------------------------------------ clocks */

static void earlier(int64_t *best, int *clock, int64_t at_ns, int which) {
    if (at_ns >= *best) return;
    *best = at_ns;
    *clock = which;
}

int64_t transfer_deadline(const transfer *t, int *clock) {
    const engine_record *r = t->record;
    const engine_limits *limits = &r->config->limits;
    int64_t best = FOREVER;
    *clock = ENGINE_CLOCK_NONE;
    if (r->deadline_ns) earlier(&best, clock, r->deadline_ns, ENGINE_CLOCK_TOTAL);
    if (!t->entered_ns) {
        if (limits->pool_ms) earlier(&best, clock, r->submitted_ns + limits->pool_ms * MS_NS, ENGINE_CLOCK_POOL);
        return best;
    }
    if (t->connect_ns) {
        if (limits->connect_ms) earlier(&best, clock, t->connect_ns + limits->connect_ms * MS_NS, ENGINE_CLOCK_CONNECT);
        return best;
    }
    if (!t->sending || (!limits->read_ms && !limits->write_ms)) return best;
    bool rx_paused, rx_blocked, tx_paused, tx_blocked;
    record_flow(t->record, &rx_paused, &rx_blocked, &tx_paused, &tx_blocked);
    /* The caller sends nothing, or leaves its window full: nobody waits for the peer. */
    if (tx_paused || rx_paused) return best;
    if (!t->upload_done && limits->write_ms)
        earlier(&best, clock, t->last_tx_ns + limits->write_ms * MS_NS, ENGINE_CLOCK_WRITE);
    /* What libcurl has taken may still be on its way to a slow server: that is no silence of the server's. */
    int64_t last = t->last_rx_ns > t->last_tx_ns ? t->last_rx_ns : t->last_tx_ns;
    if ((t->upload_done || t->phase != PHASE_START) && limits->read_ms)
        earlier(&best, clock, last + limits->read_ms * MS_NS, ENGINE_CLOCK_READ);
    return best;
}

void transfer_arm(transfer *t) {
    int clock;
    int64_t at = transfer_deadline(t, &clock);
    /* Later is left alone: the entry is looked at when it is due, and set anew then. */
    if (!t->alarm.place || at < t->alarm.at_ns) worker_alarm(t->worker, &t->alarm, at);
}

/* ------------------------------------------------------------------------------------------------ the end */

static int64_t number(CURL *easy, int info) {
    int64_t value = 0;
    lc.curl_easy_getinfo(easy, info, &value);
    return value;
}

static int64_t small_number(CURL *easy, int info) {
    long value = 0;
    lc.curl_easy_getinfo(easy, info, &value);
    return value > 0 ? value : 0; /* a port is -1 where there was no connection */
}

static void read_metrics(const transfer *t, engine_metrics *m) {
    CURL *easy = t->easy;
    int64_t waited = (t->entered_ns ? t->entered_ns : now_ns()) - t->record->submitted_ns;
    m->queue_us = waited > 0 ? waited / 1000 : 0; /* the worker's clock stands still during a turn */
    if (!easy) return;
    m->namelookup_us = number(easy, CURLINFO_NAMELOOKUP_TIME_T);
    m->connect_us = number(easy, CURLINFO_CONNECT_TIME_T);
    m->appconnect_us = number(easy, CURLINFO_APPCONNECT_TIME_T);
    m->pretransfer_us = number(easy, CURLINFO_PRETRANSFER_TIME_T);
    m->starttransfer_us = number(easy, CURLINFO_STARTTRANSFER_TIME_T);
    m->redirect_us = number(easy, CURLINFO_REDIRECT_TIME_T);
    m->total_us = number(easy, CURLINFO_TOTAL_TIME_T);
    m->bytes_sent = number(easy, CURLINFO_SIZE_UPLOAD_T);
    m->bytes_received = number(easy, CURLINFO_SIZE_DOWNLOAD_T);
    m->connections_opened = small_number(easy, CURLINFO_NUM_CONNECTS);
    m->primary_port = small_number(easy, CURLINFO_PRIMARY_PORT);
    m->local_port = small_number(easy, CURLINFO_LOCAL_PORT);
    const char *ip = NULL;
    lc.curl_easy_getinfo(easy, CURLINFO_PRIMARY_IP, &ip);
    if (ip) strncpy(m->primary_ip, ip, sizeof m->primary_ip - 1);
}

/* Whether the failure was in reaching the proxy, or its answer to CONNECT, rather than the origin's. */
static bool proxy_failed(const transfer *t) {
    if (!(t->record->config->limits.flags & ENGINE_PROXIED) || t->sending) return false;
    int64_t code = small_number(t->easy, CURLINFO_HTTP_CONNECTCODE);
    return code < 200 || code > 299;
}

/* Connecting failed: who waits for the connection must not try one after the other, each for its whole connect timeout. */
static void release_waiting(transfer *t) {
    if (t->easy && t->pipewait && !t->sending) {
        turns_release(worker_turns(t->worker), &t->ticket);
        worker_look_for_held_back(t->worker);
    }
}

/* What is queued for a file, before the record is settled: nobody writes it after. 0 or an errno. */
static int write_rest(transfer *t) { return is_streamed(t) ? files_write_last(t->record) : 0; }

static bool fail(transfer *t, int outcome, int curl_code, const char *detail) {
    release_waiting(t);
    write_rest(t); /* a file that fails too is not what the request has failed by */
    record_end end = {.outcome = outcome, .curl_code = curl_code, .detail = detail, .detail_size = strlen(detail)};
    read_metrics(t, &end.metrics);
    if (t->easy && outcome == ENGINE_OUTCOME_CURL) end.proxy_failed = proxy_failed(t);
    return record_settle(t->record, &end);
}

static void fail_to_write(transfer *t, int error) {
    char detail[DETAIL_SIZE];
    files_explain(files_cannot_write, error, detail, sizeof detail);
    fail(t, ENGINE_OUTCOME_CURL, CURLE_WRITE_ERROR, detail);
}

bool transfer_write(transfer *t) {
    node_remove(&t->unwritten);
    int error = files_write(t->record);
    if (error) fail_to_write(t, error);
    else t->last_rx_ns = now_ns(); /* the read clock is not to count what the disk took */
    return !error;
}

static void succeed(transfer *t) {
    int error = write_rest(t);
    if (error) {
        fail_to_write(t, error);
        return;
    }
    record_end end = {.outcome = ENGINE_OUTCOME_OK, .status = t->status, .curl_code = -1};
    if (!is_streamed(t)) end.url = read_url(t);
    if (!read_cookies(t, &end.cookies)) {
        buffer_clear(&end.cookies);
        free(end.url);
        fail(t, ENGINE_OUTCOME_NO_MEMORY, CURLE_OUT_OF_MEMORY, "no memory for the response's cookies");
        return;
    }
    read_metrics(t, &end.metrics);
    end.block = t->block;
    end.body = t->body;
    end.trailers = t->trailers;
    record_settle(t->record, &end);
    t->block = end.block;
    t->body = end.body;
    t->trailers = end.trailers;
    buffer_clear(&end.cookies);
    free(end.url);
}

/* A request that died on a reused HTTP/2 or 3 connection before a byte of response: libcurl sends nothing again there, not
 * even a GET. Where the method and the body allow it we do, once. */
static bool may_send_again(const transfer *t, int result) {
    switch (result) {
    case CURLE_HTTP2:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2_STREAM:
    case CURLE_HTTP3: break;
    default: return false;
    }
    bool body_whole = !is_streaming_body(t) || t->body_at == 0 || files_have_all(t->record);
    return !t->again && t->sends && t->reused && !t->answered && body_whole && is_idempotent(t->record->method) &&
           driver_is_multiplexed(t->multi, t->connection);
}

/* Into libcurl again, after it was removed. False: fatal; it is out for good. */
static bool put_back(transfer *t) {
    if (!driver_add(t->multi, t->easy)) return true;
    lc.curl_easy_cleanup(t->easy);
    t->easy = NULL;
    count_down(ENGINE_COUNT_EASIES);
    return false;
}

static bool send_again(transfer *t) {
    t->again = true;
    t->finished = false;
    driver_remove(t->multi, t->easy);
    t->phase = PHASE_START;
    t->block.size = t->trailers.size = t->body.size = 0;
    if (is_streaming_body(t) && t->body_at) files_seek(t->record, 0);
    t->body_at = t->given = 0;
    t->upload_done = !has_body(t) || (!is_streaming_body(t) && t->record->body_size == 0);
    t->sending = false;
    t->sends = 0;
    t->connections_before = 0;
    t->connect_ns = 0;
    record_unpause(t->record, true, true);
    if (!put_back(t)) return false;
    transfer_arm(t);
    return true;
}

bool transfer_stop_waiting(transfer *t) {
    if (!t->easy || !t->pipewait || t->sending || t->connect_ns) return true;
    if (!turns_is_released(worker_turns(t->worker), &t->ticket)) return true;
    driver_remove(t->multi, t->easy);
    t->pipewait = t->clean = false;
    lc.curl_easy_setopt(t->easy, CURLOPT_PIPEWAIT, 0L);
    return put_back(t);
}

bool transfer_finished(transfer *t, int result, bool *again) {
    *again = false;
    t->finished = result != CURLE_ABORTED_BY_CALLBACK && result != CURLE_WRITE_ERROR; /* else it is we who broke it off */
    if (engine_outcome_of(t->record) != ENGINE_OUTCOME_PENDING) return true;
    if (result == CURLE_OK && t->phase == PHASE_HELD) {
        /* It was the final one after all, without a body. */
        advance(t, ON_DATA);
        if (!announce_final(t)) result = CURLE_OUT_OF_MEMORY;
    }
    if (result == CURLE_OK && t->phase != PHASE_FINAL) {
        /* The connection ended inside the headers, which libcurl lets pass for their end. */
        fail(t, ENGINE_OUTCOME_CURL, CURLE_PARTIAL_FILE, "the connection was closed inside the response's headers");
        return true;
    }
    if (result == CURLE_OK) {
        succeed(t);
        return true;
    }
    if (may_send_again(t, result)) {
        *again = true;
        return send_again(t);
    }
    const char *detail = t->error[0] ? t->error : lc.curl_easy_strerror(result);
    if (t->lost)
        fail(t, ENGINE_OUTCOME_LOST, CURLE_RECV_ERROR,
             "the connection was lost before a response came, and the method does not allow to send the request again");
    else if (t->too_large)
        fail(t, ENGINE_OUTCOME_TOO_LARGE, CURLE_FILESIZE_EXCEEDED, "the response is larger than max_response_bytes");
    else if (t->no_memory || result == CURLE_OUT_OF_MEMORY)
        fail(t, ENGINE_OUTCOME_NO_MEMORY, CURLE_OUT_OF_MEMORY, "out of memory");
    else if (result == CURLE_WRITE_ERROR && !t->bad_response && engine_outcome_of(t->record) == ENGINE_OUTCOME_PENDING)
        fail(t, ENGINE_OUTCOME_CURL, CURLE_BAD_CONTENT_ENCODING, detail); /* not ours: libcurl's decoder gave up */
    else if (result == CURLE_SEND_FAIL_REWIND)
        fail(t, ENGINE_OUTCOME_CURL, result,
             "the request's body has to be sent again (after a redirect, a 401 or on another connection), and what was "
             "streamed is not there any more");
    else if (t->bad_response) fail(t, ENGINE_OUTCOME_CURL, 8, "the response's header blocks make no sense");
    else fail(t, ENGINE_OUTCOME_CURL, result, detail);
    return true;
}

static const char *const clock_details[ENGINE_CLOCK_END] = {
    [ENGINE_CLOCK_CONNECT] = "connecting took longer than", [ENGINE_CLOCK_READ] = "nothing was received for",
    [ENGINE_CLOCK_WRITE] = "nothing could be sent for",     [ENGINE_CLOCK_POOL] = "no connection was free for",
    [ENGINE_CLOCK_TOTAL] = "the request took longer than",
};

bool transfer_expired(transfer *t, int64_t now) {
    int clock;
    int64_t at = transfer_deadline(t, &clock);
    if (at > now) {
        worker_alarm(t->worker, &t->alarm, at);
        return false;
    }
    if (clock == ENGINE_CLOCK_CONNECT) release_waiting(t);
    const engine_limits *l = &t->record->config->limits;
    const int64_t ms[ENGINE_CLOCK_END] = {0, l->connect_ms, l->read_ms, l->write_ms, l->pool_ms, l->total_ms};
    char detail[128];
    snprintf(detail, sizeof detail, "%s %lld ms", clock_details[clock], (long long)ms[clock]);
    record_end end = {.outcome = ENGINE_OUTCOME_TIMEOUT,
                      .curl_code = CURLE_OPERATION_TIMEDOUT,
                      .clock = clock,
                      .detail = detail,
                      .detail_size = strlen(detail)};
    write_rest(t);
    read_metrics(t, &end.metrics);
    /* libcurl brings its timers up to date only when it is called, and nothing has called it. */
    if (t->entered_ns) {
        int64_t since_us = (now - t->entered_ns) / 1000;
        if (since_us > end.metrics.total_us) end.metrics.total_us = since_us;
    }
    record_settle(t->record, &end);
    return true;
}

void transfer_free_spare(transfer *t) {
    buffer_clear(&t->block);
    buffer_clear(&t->trailers);
    buffer_clear(&t->body);
    free(t);
}

/* The transfer and its buffers serve the worker's next one, unless they have grown large. */
static void free_memory(transfer *t, bool keep) {
    engine_record *r = t->record;
    t->block.size = t->trailers.size = t->body.size = 0;
    if (t->body.room > KEPT_BUFFER) buffer_clear(&t->body);
    if (t->block.room > KEPT_BUFFER) buffer_clear(&t->block);
    buffer_clear(&t->trailers);
    if (!keep || !worker_keep_spare(t->worker, t)) transfer_free_spare(t);
    free(r->body); /* nobody reads it any more, and the handle may live long */
    r->body = NULL;
    r->transfer = NULL;
    engine_record_unref(r);
}

/* libcurl tells an HTTP/3 server of a cancelled stream when its pacing next lets a packet out, and nobody drives a connection
 * without transfers: the server might never hear of it. So such a connection is closed, which libcurl sees through. (Where
 * reuse is forbidden it does not: it says goodbye if it can at once, and closes. So a lone transfer's is kept, and closed.) */
static bool nobody_drives(const transfer *t) {
    return !t->finished && t->sending && may_use_http3(t->record->config) && !siblings_drive(t);
}

void transfer_free(transfer *t) {
    worker_alarm(t->worker, &t->alarm, FOREVER);
    if (t->easy) {
        bool close = nobody_drives(t);
        if (close && t->lone && driver_trims()) driver_allow_reuse(t->multi, t->easy, true);
        driver_remove(t->multi, t->easy);
        siblings_read_on(t);
        if (close) worker_close_idle(t->worker, t->multi);
        bool keep = t->clean && !t->saw_cookie && t->phase == PHASE_FINAL && !t->again &&
                    engine_outcome_of(t->record) == ENGINE_OUTCOME_OK;
        if (keep) {
            driver_spare(t->multi, t->easy, t->record->config);
        } else {
            lc.curl_easy_cleanup(t->easy);
            count_down(ENGINE_COUNT_EASIES);
        }
    }
    node_remove(&t->in_worker);
    node_remove(&t->unwritten);
    worker_stop_starving(t->worker, t);
    turns_leave(worker_turns(t->worker), &t->ticket);
    free_memory(t, true);
}

void transfer_forget(transfer *t) { free_memory(t, false); }
