/* Requests that no worker runs: whoever asked for them plays the worker (engine.h). The record neither knows nor cares. */
#include <stdio.h>
#include <string.h>

#include "config.h"
#include "files.h"
#include "record.h"

/* What libcurl calls them: CURLE_WRITE_ERROR, _READ_ERROR, _OPERATION_TIMEDOUT. */
enum { PLAYED_WRITE_ERROR = 23, PLAYED_READ_ERROR = 26, PLAYED_TIMEDOUT = 28 };

_Static_assert((int)ENGINE_TOLD_SETTLED == (int)COMMAND_CANCEL && (int)ENGINE_TOLD_BODY == (int)COMMAND_BODY &&
                   (int)ENGINE_TOLD_CREDIT == (int)COMMAND_CREDIT,
               "who plays a worker hears what a worker would");
_Static_assert((int)ENGINE_PLAY_END == (int)BODY_END && (int)ENGINE_PLAY_WAIT == (int)BODY_PAUSE &&
                   (int)ENGINE_PLAY_ABORT == (int)BODY_ABORT,
               "a played body is read as any other");

static void fail_by_file(engine_record *r, int code, const char *what, int error) {
    char detail[DETAIL_SIZE];
    files_explain(what, error, detail, sizeof detail);
    record_fail(r, ENGINE_OUTCOME_CURL, code, detail, strlen(detail), false);
}

int64_t engine_play_read(engine_record *r, char *to, size_t room) {
    int64_t n = record_read_body(r, to, room);
    if (n != BODY_IN_FILE) return n;
    int error;
    n = files_read(r, to, room, &error);
    if (error) fail_by_file(r, PLAYED_READ_ERROR, files_cannot_read, error);
    return n;
}

/* What is queued for a file. False: it could not be written, and the request has failed. */
static bool write_file(engine_record *r) {
    int error = files_write(r);
    if (error) fail_by_file(r, PLAYED_WRITE_ERROR, files_cannot_write, error);
    return !error;
}

void engine_play_sent(engine_record *r) { atomic_store(&r->request_sent, true); }

static bool copied(buffer *to, const char *data, size_t size) { return !size || buffer_add(to, data, size); }

bool engine_play_start(engine_record *r, const engine_message *m) {
    buffer block = {0}, cookies = {0};
    bool ok = copied(&block, m->block, m->block_size) && copied(&cookies, m->cookies, m->cookies_size);
    if (ok) record_start(r, m->status, &block, &cookies, NULL); /* takes them */
    buffer_clear(&block);
    buffer_clear(&cookies);
    return ok;
}

engine_play_status engine_play_append(engine_record *r, const char *data, size_t size) {
    switch (record_append(r, data, size)) {
    case APPEND_TAKEN: return ENGINE_PLAY_TAKEN;
    case APPEND_TO_WRITE:
    case APPEND_WRITE: return write_file(r) ? ENGINE_PLAY_TAKEN : ENGINE_PLAY_SETTLED;
    case APPEND_PAUSE: return ENGINE_PLAY_PAUSE;
    case APPEND_SETTLED: return ENGINE_PLAY_SETTLED;
    case APPEND_TOO_LARGE: return ENGINE_PLAY_TOO_LARGE;
    case APPEND_NO_MEMORY: break;
    }
    return ENGINE_PLAY_NO_MEMORY;
}

bool engine_play_end(engine_record *r, const engine_message *m) {
    int error = files_write_last(r);
    if (error && m->outcome == ENGINE_OUTCOME_OK) {
        fail_by_file(r, PLAYED_WRITE_ERROR, files_cannot_write, error);
        return false;
    }
    record_end end = {.outcome = m->outcome,
                      .curl_code = m->curl_code,
                      .clock = m->clock,
                      .status = m->status,
                      .detail = m->detail,
                      .detail_size = m->detail_size};
    if (m->metrics) end.metrics = *m->metrics;
    bool ok = copied(&end.block, m->block, m->block_size) && copied(&end.body, m->body, m->body_size) &&
              copied(&end.trailers, m->trailers, m->trailers_size) && copied(&end.cookies, m->cookies, m->cookies_size);
    if (!ok) end.outcome = ENGINE_OUTCOME_NO_MEMORY;
    bool first = record_settle(r, &end);
    buffer_clear(&end.block); /* what the record did not take */
    buffer_clear(&end.body);
    buffer_clear(&end.trailers);
    buffer_clear(&end.cookies);
    return first;
}

bool engine_play_expire(engine_record *r, int clock) {
    files_write_last(r);
    const engine_limits *limits = &r->config->limits;
    bool total = clock == ENGINE_CLOCK_TOTAL;
    char detail[128];
    snprintf(detail, sizeof detail, "%s %lld ms", total ? "the request took longer than" : "nothing was received for",
             (long long)(total ? limits->total_ms : limits->read_ms));
    record_end end = {.outcome = ENGINE_OUTCOME_TIMEOUT,
                      .curl_code = PLAYED_TIMEDOUT,
                      .clock = clock,
                      .detail = detail,
                      .detail_size = strlen(detail)};
    end.metrics.total_us = (now_ns() - r->submitted_ns) / 1000;
    return record_settle(r, &end);
}
