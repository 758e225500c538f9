#include "record.h"

#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "files.h"
#include "mailbox.h"
#include "pool.h"
#include "worker.h"

/* Chunk buffers double from 4 KiB while the consumer is behind, to 128 KiB, and shrink back once it has caught up: HTTP/3
 * delivers 1.4 KB at a time. A delivery as large as libcurl makes them (16 KiB) is one of many on a fast stream, and has a
 * large one at once. The ends are arbitrary. */
#define CHUNK_LEAST 4096u
#define CHUNK_MOST (LARGE_BLOCK - sizeof(chunk))
#define LARGE_DELIVERY 16384u
#define UNBOUNDED (INT64_MAX / 4)

static int outcome_of(const engine_record *r) { return atomic_load_explicit(&r->outcome, memory_order_acquire); }
int engine_outcome_of(const engine_record *r) { return outcome_of(r); }
uint64_t engine_record_token(const engine_record *r) { return r->token; }
int64_t engine_record_deadline(const engine_record *r) { return r->deadline_ns; }

engine_record *record_new(const engine_request *q) {
    /* One allocation: the strings stand behind the record. */
    size_t method = strlen(q->method) + 1, url = strlen(q->url) + 1, origin = strlen(q->origin) + 1;
    engine_record *r = mem_alloc(sizeof *r + method + url + origin);
    if (!r) return NULL;
    memset(r, 0, offsetof(engine_record, inline_data));
    r->method = memcpy((char *)(r + 1), q->method, method);
    r->url = memcpy(r->method + method, q->url, url);
    r->origin = memcpy(r->url + url, q->origin, origin);
    bool buffered = (q->flags & ENGINE_HAS_BODY) && !(q->flags & ENGINE_STREAM_BODY);
    if (buffered && !(r->body = mem_copy(q->body, (size_t)q->body_size))) {
        free(r);
        return NULL;
    }
    atomic_init(&r->refs, 1);
    r->config = q->config;
    config_ref(r->config);
    r->mailbox = q->mailbox;
    if (r->mailbox) mailbox_ref(r->mailbox);
    r->flags = q->flags;
    r->body_size = q->body_size;
    r->window = q->window;
    r->upload_window = q->upload_window;
    r->credit = q->window < 0 ? UNBOUNDED : q->window;
    r->token = q->token;
    r->next_room = CHUNK_LEAST;
    r->curl_code = -1;
    r->submitted_ns = now_ns();
    int64_t total_ms = r->config->limits.total_ms;
    r->deadline_ns = total_ms ? r->submitted_ns + total_ms * MS_NS : 0;
    waiters_init(&r->waiters);
    node_init(&r->in_box);
    node_init(&r->in_box_all);
    node_init(&r->in_commands);
    node_init(&r->in_worker);
    count_up(ENGINE_COUNT_TRANSFERS);
    return r;
}

void record_ref(engine_record *r) { atomic_fetch_add(&r->refs, 1); }
void engine_record_ref(engine_record *r) { record_ref(r); }
bool engine_is_played(const engine_record *r) { return r->told; }

void record_tell(engine_record *r, unsigned commands) {
    if (r->told) r->told(r->token, commands & COMMAND_FILE ? commands | COMMAND_CREDIT : commands); /* it may go on */
    else worker_command(r->worker, r, commands);
}

/* It has its outcome, by whoever came first: count it out. No lock held. */
static void leave(engine_record *r, bool ok) {
    if (r->mailbox) mailbox_leave(r->mailbox, r);
    if (r->told) {
        files_close(r);
        pool_forget_played(r->pool, r);
    }
    pool_settled(r->pool, r->worker, ok);
}

static chunk *pop_informational(engine_record *r) {
    chunk *c = r->first_informational;
    r->first_informational = c->next;
    if (!c->next) r->last_informational = NULL;
    r->informational_count--;
    r->informational_bytes -= sizeof *c + c->size;
    return c;
}

chunk *record_take_chunks(engine_record *r) {
    chunk *first = r->first_chunk;
    r->first_chunk = r->last_chunk = NULL;
    r->chunk_count = 0;
    return first;
}

static void drop_chunks(engine_record *r) {
    for (chunk *c = record_take_chunks(r), *next; c; c = next) {
        next = c->next;
        engine_chunk_free(c);
    }
    while (r->first_informational) engine_chunk_free(pop_informational(r));
}

static void drop_segments(engine_record *r) {
    for (segment *s = r->first_segment, *next; s; s = next) {
        next = s->next;
        free(s);
    }
    r->first_segment = r->last_segment = NULL;
    r->waiting_up = 0;
}

void engine_record_unref(engine_record *r) {
    if (!r || atomic_fetch_sub(&r->refs, 1) != 1) return;
    drop_chunks(r);
    drop_segments(r);
    buffer_clear(&r->block);
    buffer_clear(&r->trailers);
    buffer_clear(&r->cookies_started);
    buffer_clear(&r->cookies);
    buffer_clear(&r->response);
    free(r->effective_url);
    free(r->body);
    files_free(r);
    engine_config_unref(r->config);
    mailbox_unref(r->mailbox);
    worker_unref(r->worker);
    engine_pool_unref(r->pool);
    free(r);
    count_down(ENGINE_COUNT_TRANSFERS);
    if (!engine_counted(ENGINE_COUNT_TRANSFERS)) blocks_trim();
}

/* ---- announcing; the record lock is held */

static void announce(engine_record *r, int mask) {
    waiters_fire(&r->waiters, mask, false);
    if (r->mailbox && (mask & ENGINE_ON_NEWS)) mailbox_post(r->mailbox, r);
}

/* The conditions of `mask` that hold. */
static int holds(const engine_record *r, int mask) {
    bool settled = outcome_of(r) != ENGINE_OUTCOME_PENDING;
    int now = 0;
    if (settled) now |= ENGINE_ON_TERMINAL | ENGINE_ON_ROOM;
    if (r->waiting_up < r->upload_window || r->body_ended) now |= ENGINE_ON_ROOM;
    if (record_message_count(r) || (settled && r->terminal_taken)) now |= ENGINE_ON_NEWS;
    if (!files_open(r)) now |= ENGINE_ON_FILES_CLOSED;
    return now & mask;
}

bool engine_record_register(engine_record *r, engine_waiter *waiter, int mask) {
    lock(LOCK_RECORD, r);
    bool already = holds(r, mask) != 0;
    if (!already) waiters_add(&r->waiters, LOCK_RECORD, r, waiter, mask);
    unlock(LOCK_RECORD, r);
    return already;
}

/* ---- the way down */

bool record_informational(engine_record *r, int status, const char *block, size_t size) {
    if (!(r->flags & ENGINE_INFORMATIONAL)) return true;
    chunk *fresh = mem_alloc(sizeof *fresh + size), *dropped = NULL;
    if (!fresh) return false;
    *fresh = (chunk){.size = size, .room = size, .status = status};
    if (size) memcpy(fresh->data, block, size);
    lock(LOCK_RECORD, r);
    if (outcome_of(r) == ENGINE_OUTCOME_PENDING && !r->started && !r->discard) {
        if (r->last_informational) r->last_informational->next = fresh;
        else r->first_informational = fresh;
        r->last_informational = fresh;
        r->informational_count++;
        r->informational_bytes += sizeof *fresh + size;
        fresh = NULL;
        while (r->informational_bytes > INFORMATIONAL_MOST) {
            chunk *oldest = pop_informational(r);
            oldest->next = dropped;
            dropped = oldest;
        }
        announce(r, ENGINE_ON_NEWS);
    }
    unlock(LOCK_RECORD, r);
    free(fresh);
    while (dropped) {
        chunk *next = dropped->next;
        free(dropped);
        dropped = next;
    }
    return true;
}

void record_start(engine_record *r, int status, buffer *block, buffer *cookies, char *url) {
    lock(LOCK_RECORD, r);
    if (outcome_of(r) == ENGINE_OUTCOME_PENDING && !r->started) {
        r->status = status;
        r->block = *block;
        r->cookies_started = *cookies;
        r->effective_url = url;
        memset(block, 0, sizeof *block);
        memset(cookies, 0, sizeof *cookies);
        url = NULL;
        r->started = true;
        if (r->flags & ENGINE_STREAM) announce(r, ENGINE_ON_NEWS);
    }
    unlock(LOCK_RECORD, r);
    buffer_clear(block);
    buffer_clear(cookies);
    free(url);
}

append_answer record_append(engine_record *r, const char *data, size_t size) {
    append_answer answer = APPEND_TAKEN;
    int64_t most = r->config->limits.max_bytes;
    lock(LOCK_RECORD, r);
    bool to_file = files_take_body(r);
    if (outcome_of(r) != ENGINE_OUTCOME_PENDING) {
        answer = APPEND_SETTLED;
    } else if (r->discard) {
        r->received += (int64_t)size;
    } else if (r->credit <= 0 && !to_file) {
        r->rx_paused = true;
        answer = APPEND_PAUSE;
    } else if (most >= 0 && r->received + (int64_t)size > most) {
        answer = APPEND_TOO_LARGE;
    } else {
        chunk *last = r->last_chunk;
        if (!last || last->room - last->size < size) {
            if (last && r->next_room < CHUNK_MOST) r->next_room *= 2;
            bool large = to_file || size >= LARGE_DELIVERY || r->next_room > CHUNK_MOST;
            size_t room = large ? CHUNK_MOST : r->next_room;
            if (room < size) room = size;
            chunk *c = room == CHUNK_MOST ? block_alloc() : mem_alloc(sizeof *c + room);
            if (c) {
                c->next = NULL;
                c->status = 0;
                c->size = 0;
                c->room = room;
                if (last) last->next = c;
                else r->first_chunk = c;
                r->last_chunk = last = c;
                r->chunk_count++;
            } else {
                last = NULL;
                answer = APPEND_NO_MEMORY;
            }
        }
        if (last) {
            memcpy(last->data + last->size, data, size);
            last->size += size;
            r->received += (int64_t)size;
            if (to_file) {
                bool full = r->chunk_count > 1 || last->size + LARGE_DELIVERY > CHUNK_MOST;
                answer = full ? APPEND_WRITE : APPEND_TO_WRITE;
            } else {
                if (r->credit < UNBOUNDED) r->credit -= (int64_t)size;
                announce(r, ENGINE_ON_NEWS);
            }
        }
    }
    unlock(LOCK_RECORD, r);
    return answer;
}

void engine_credit(engine_record *r, int64_t n) {
    bool wake = false;
    lock(LOCK_RECORD, r);
    if (outcome_of(r) == ENGINE_OUTCOME_PENDING && r->credit < UNBOUNDED && n > 0) {
        r->credit = n > UNBOUNDED - 1 - r->credit ? UNBOUNDED - 1 : r->credit + n;
        wake = r->rx_paused && r->credit > 0;
    }
    unlock(LOCK_RECORD, r);
    if (wake) record_tell(r, COMMAND_CREDIT);
}

/* Credit is given back in halves of the window, or at once when the transfer stands still with nothing left to take.
 * Record lock held; returns whether the worker must hear of it. */
static bool give_back(engine_record *r, int64_t n) {
    if (r->flags & ENGINE_MANUAL_CREDIT || r->window < 0) return false;
    r->returning += n;
    if (r->returning < (r->window + 1) / 2 && !(r->rx_paused && !r->first_chunk)) return false;
    r->credit += r->returning;
    r->returning = 0;
    return r->rx_paused && r->credit > 0 && outcome_of(r) == ENGINE_OUTCOME_PENDING;
}

void engine_consumed(engine_record *r, int64_t n) {
    if (n <= 0) return;
    lock(LOCK_RECORD, r);
    bool wake = give_back(r, n);
    unlock(LOCK_RECORD, r);
    if (wake) record_tell(r, COMMAND_CREDIT);
}

size_t record_message_count(const engine_record *r) {
    bool settled = outcome_of(r) != ENGINE_OUTCOME_PENDING;
    size_t count = settled && !r->terminal_taken;
    if (r->flags & ENGINE_STREAM) count += r->informational_count + (r->started && !r->started_taken);
    if (r->flags & ENGINE_STREAM && !files_take_body(r)) count += r->chunk_count;
    return count;
}

static void describe_terminal(const engine_record *r, engine_message *m) {
    m->outcome = outcome_of(r);
    bool streamed = r->flags & ENGINE_STREAM;
    m->kind = m->outcome != ENGINE_OUTCOME_OK ? ENGINE_MESSAGE_FAILED
              : streamed                      ? ENGINE_MESSAGE_DONE
                                              : ENGINE_MESSAGE_RESPONDED;
    m->status = r->status;
    m->block = r->block.data;
    m->block_size = r->block.size;
    m->body = r->response.data;
    m->body_size = r->response.size;
    m->trailers = r->trailers.data;
    m->trailers_size = r->trailers.size;
    m->cookies = r->cookies.data;
    m->cookies_size = r->cookies.size;
    m->url = r->effective_url;
    m->detail = r->detail;
    m->detail_size = r->detail_size;
    m->clock = r->clock;
    m->curl_code = r->curl_code;
    m->request_sent = atomic_load(&r->request_sent);
    m->proxy_failed = r->proxy_failed;
    m->metrics = &r->metrics;
}

bool record_take(engine_record *r, engine_message *m) {
    memset(m, 0, sizeof *m);
    if (r->first_informational) {
        chunk *c = pop_informational(r);
        m->kind = ENGINE_MESSAGE_INFORMATIONAL;
        m->status = c->status;
        m->block = c->data;
        m->block_size = c->size;
        m->chunk = c;
        return true;
    }
    if (r->flags & ENGINE_STREAM && r->started && !r->started_taken) {
        r->started_taken = true;
        m->kind = ENGINE_MESSAGE_STARTED;
        m->status = r->status;
        m->block = r->block.data;
        m->block_size = r->block.size;
        m->cookies = r->cookies_started.data;
        m->cookies_size = r->cookies_started.size;
        m->url = r->effective_url;
        return true;
    }
    if (r->first_chunk && !files_take_body(r)) {
        chunk *c = r->first_chunk;
        r->first_chunk = c->next;
        r->chunk_count--;
        if (!r->first_chunk) {
            r->last_chunk = NULL;
            if (r->next_room > CHUNK_LEAST) r->next_room /= 2;
        }
        m->kind = ENGINE_MESSAGE_CHUNK;
        m->body = c->data;
        m->body_size = c->size;
        m->chunk = c;
        return true;
    }
    if (outcome_of(r) != ENGINE_OUTCOME_PENDING && !r->terminal_taken) {
        r->terminal_taken = true;
        describe_terminal(r, m);
        return true;
    }
    return false;
}

bool engine_take(engine_record *r, engine_message *m) {
    lock(LOCK_RECORD, r);
    bool taken = record_take(r, m);
    unlock(LOCK_RECORD, r);
    return taken;
}

bool engine_terminal(engine_record *r, engine_message *m) {
    memset(m, 0, sizeof *m);
    if (outcome_of(r) == ENGINE_OUTCOME_PENDING) return false;
    lock(LOCK_RECORD, r);
    describe_terminal(r, m);
    unlock(LOCK_RECORD, r);
    return true;
}

void engine_drop_body(engine_record *r) {
    lock(LOCK_RECORD, r);
    buffer body = r->response;
    memset(&r->response, 0, sizeof r->response);
    unlock(LOCK_RECORD, r);
    buffer_clear(&body);
}

void engine_chunk_free(void *c) {
    if (((chunk *)c)->room == CHUNK_MOST) block_free(c);
    else free(c);
}

/* ---- the way up */

engine_send_status engine_send(engine_record *r, const void *data, size_t size) {
    /* Copied outside the lock; asked twice, because another thread may send too. */
    segment *fresh = NULL;
    engine_send_status answer;
    bool wake = false;
    for (;;) {
        lock(LOCK_RECORD, r);
        if (outcome_of(r) != ENGINE_OUTCOME_PENDING) answer = ENGINE_SETTLED;
        else if (r->body_ended) answer = ENGINE_BODY_ENDED;
        else if (r->body_size >= 0 && r->accepted + (int64_t)size > r->body_size) answer = ENGINE_BEYOND_LENGTH;
        else if (r->waiting_up >= r->upload_window) answer = ENGINE_NO_ROOM;
        else answer = ENGINE_SENT;
        if (answer == ENGINE_SENT && fresh) {
            if (r->last_segment) r->last_segment->next = fresh;
            else r->first_segment = fresh;
            r->last_segment = fresh;
            r->waiting_up += (int64_t)size;
            r->accepted += (int64_t)size;
            wake = r->tx_paused;
            fresh = NULL;
            unlock(LOCK_RECORD, r);
            break;
        }
        unlock(LOCK_RECORD, r);
        if (answer != ENGINE_SENT || size == 0) break;
        fresh = malloc(sizeof *fresh + size);
        if (!fresh) {
            answer = ENGINE_SEND_NO_MEMORY;
            break;
        }
        fresh->next = NULL;
        fresh->size = size;
        fresh->sent = 0;
        memcpy(fresh->data, data, size);
    }
    free(fresh);
    if (wake) record_tell(r, COMMAND_BODY);
    return answer;
}

void engine_finish(engine_record *r) {
    bool wake = false, is_short = false;
    lock(LOCK_RECORD, r);
    if (r->flags & ENGINE_STREAM_BODY && !r->body_ended && outcome_of(r) == ENGINE_OUTCOME_PENDING) {
        is_short = r->body_size >= 0 && r->accepted < r->body_size;
        /* A short one never ends: until it is settled, below, the worker must not see an end that libcurl would report. */
        r->body_ended = !is_short;
        wake = r->tx_paused;
        if (!is_short) waiters_fire(&r->waiters, ENGINE_ON_ROOM, false);
    }
    unlock(LOCK_RECORD, r);
    /* A body that is shorter than it said must not look complete: the request fails, and the server sees it cut off. */
    static const char detail[] = "the body was finished short of its Content-Length";
    if (is_short) engine_settle(r, ENGINE_OUTCOME_BODY_SHORT, detail, sizeof detail - 1, false);
    else if (wake) record_tell(r, COMMAND_BODY);
}

int64_t record_read_body(engine_record *r, char *to, size_t room) {
    segment *used = NULL;
    int64_t answer = 0;
    lock(LOCK_RECORD, r);
    r->tx_paused = false;
    if (outcome_of(r) != ENGINE_OUTCOME_PENDING) {
        answer = BODY_ABORT;
    } else if (!r->first_segment) {
        answer = files_have_body(r) ? BODY_IN_FILE : r->body_ended ? BODY_END : BODY_PAUSE;
        r->tx_paused = !r->body_ended;
    } else {
        bool was_full = r->waiting_up >= r->upload_window;
        while (r->first_segment && (size_t)answer < room) {
            segment *s = r->first_segment;
            size_t n = s->size - s->sent;
            if (n > room - (size_t)answer) n = room - (size_t)answer;
            memcpy(to + answer, s->data + s->sent, n);
            s->sent += n;
            answer += (int64_t)n;
            if (s->sent < s->size) break;
            r->first_segment = s->next;
            s->next = used;
            used = s;
        }
        if (!r->first_segment) r->last_segment = NULL;
        r->waiting_up -= answer;
        if (was_full && r->waiting_up < r->upload_window) waiters_fire(&r->waiters, ENGINE_ON_ROOM, false);
    }
    unlock(LOCK_RECORD, r);
    while (used) {
        segment *next = used->next;
        free(used);
        used = next;
    }
    return answer;
}

void record_flow(engine_record *r, bool *rx_paused, bool *rx_blocked, bool *tx_paused, bool *tx_blocked) {
    lock(LOCK_RECORD, r);
    *rx_paused = r->rx_paused;
    *rx_blocked = r->credit <= 0 && !r->discard && !files_take_body(r);
    *tx_paused = r->tx_paused;
    *tx_blocked = r->flags & ENGINE_STREAM_BODY && !r->first_segment && !r->body_ended;
    unlock(LOCK_RECORD, r);
}

void record_unpause(engine_record *r, bool rx, bool tx) {
    lock(LOCK_RECORD, r);
    if (rx) r->rx_paused = false;
    if (tx) r->tx_paused = false;
    unlock(LOCK_RECORD, r);
}

/* ---- the end */

static void set_detail(engine_record *r, const char *detail, size_t size) {
    r->detail_size = size < DETAIL_SIZE ? size : DETAIL_SIZE;
    if (r->detail_size) memcpy(r->detail, detail, r->detail_size);
}

/* What every way to an outcome does, record lock held. */
static void conclude(engine_record *r, int outcome, bool drop_messages) {
    if (drop_messages) {
        drop_chunks(r);
        r->started_taken = true;
    }
    drop_segments(r);
    atomic_store_explicit(&r->outcome, outcome, memory_order_release);
    announce(r, ENGINE_ON_NEWS | ENGINE_ON_TERMINAL | ENGINE_ON_ROOM);
}

static void take_over(engine_record *r, buffer *to, buffer *from) {
    if (!from->size) return;
    if (from->size <= INLINE_SIZE - r->inline_used) {
        *to = (buffer){.data = memcpy(r->inline_data + r->inline_used, from->data, from->size), .size = from->size};
        r->inline_used += from->size;
        from->size = 0;
    } else {
        *to = *from;
        memset(from, 0, sizeof *from);
    }
}

bool record_settle(engine_record *r, record_end *end) {
    lock(LOCK_RECORD, r);
    bool first = outcome_of(r) == ENGINE_OUTCOME_PENDING;
    if (first) {
        r->curl_code = end->curl_code;
        r->clock = end->clock;
        r->proxy_failed = end->proxy_failed;
        r->metrics = end->metrics;
        set_detail(r, end->detail, end->detail_size);
        if (end->outcome == ENGINE_OUTCOME_OK) {
            if (!r->started) {
                r->status = end->status;
                take_over(r, &r->block, &end->block);
                r->effective_url = end->url;
                end->url = NULL;
                r->started = true;
            }
            take_over(r, &r->response, &end->body);
            take_over(r, &r->trailers, &end->trailers);
            take_over(r, &r->cookies, &end->cookies);
        }
        conclude(r, end->outcome, end->drop_messages);
    }
    unlock(LOCK_RECORD, r);
    if (first) {
        leave(r, end->outcome == ENGINE_OUTCOME_OK);
        if (r->told) r->told(r->token, COMMAND_CANCEL); /* a worker knows: it is the one that settles */
    }
    return first;
}

bool engine_settle(engine_record *r, int outcome, const char *detail, size_t detail_size, bool overrule) {
    return record_fail(r, outcome, -1, detail, detail_size, overrule);
}

bool record_fail(engine_record *r, int outcome, int curl_code, const char *detail, size_t detail_size, bool overrule) {
    lock(LOCK_RECORD, r);
    int before = outcome_of(r);
    bool first = before == ENGINE_OUTCOME_PENDING;
    bool changes = first || (overrule && before == ENGINE_OUTCOME_OK && !r->terminal_taken);
    if (changes) {
        r->curl_code = curl_code;
        set_detail(r, detail, detail_size);
        conclude(r, outcome, true);
    }
    unlock(LOCK_RECORD, r);
    if (first) {
        leave(r, false);
        record_tell(r, COMMAND_CANCEL);
    }
    return changes;
}

void engine_abandon(engine_record *r) {
    bool cancel = false, finish = false, wake = false;
    lock(LOCK_RECORD, r);
    if (outcome_of(r) == ENGINE_OUTCOME_PENDING) {
        bool half_sent = r->flags & ENGINE_STREAM_BODY && !r->body_ended;
        bool unread = r->flags & ENGINE_STREAM && !r->mailbox;
        finish = half_sent && r->flags & ENGINE_FINISH_ON_ABANDON;
        cancel = !finish && (half_sent || unread);
        if (finish && unread) {
            /* The body ends where it is, and somebody must read the answer for the request to end. */
            r->discard = true;
            drop_chunks(r);
            wake = r->rx_paused;
        }
    }
    unlock(LOCK_RECORD, r);
    if (finish) engine_finish(r);
    if (wake) record_tell(r, COMMAND_CREDIT);
    static const char detail[] = "the handle was dropped before the request had ended";
    if (cancel) engine_settle(r, ENGINE_OUTCOME_CANCELLED, detail, sizeof detail - 1, false);
}

void record_fork(engine_record *r) {
    lock(LOCK_RECORD, r);
    if (outcome_of(r) == ENGINE_OUTCOME_PENDING) conclude(r, ENGINE_OUTCOME_FORKED, true);
    unlock(LOCK_RECORD, r);
}
