#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char files_cannot_read[] = "the body's file cannot be read";
const char files_cannot_write[] = "the response's file cannot be written";

struct record_files {
    /* Record lock. -1: none, or closed. */
    int source, sink;

    /* Set under the record lock with the descriptor, and immutable then. */
    int64_t source_offset; /* in the file */
    int64_t source_size;
    int64_t source_begins; /* of the body: bytes of pieces that were sent before it */
    int64_t sink_offset;   /* in the file */
    bool takes_body;       /* stays, when the descriptor is gone */

    /* Record lock. */
    int users; /* reads and writes under way: the last of them closes what files_close could not */
    bool over;

    /* Who sends: the worker. */
    int64_t source_at; /* bytes of it handed to libcurl */

    _Atomic int64_t written; /* by whoever writes; read anywhere */
};

bool files_take_body(const engine_record *r) { return r->files && r->files->takes_body; }
bool files_have_body(const engine_record *r) { return r->files && r->files->source >= 0; }
bool files_open(const engine_record *r) { return r->files && (r->files->source >= 0 || r->files->sink >= 0); }

/* ---- descriptors */

/* A descriptor of our own. -1, errno: what cannot be read or written at an offset is found out here, a pipe by pread. */
static int take_fd(int fd, bool writes, int64_t offset) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) return -1;
    bool wrong_way = (flags & O_ACCMODE) == (writes ? O_RDONLY : O_WRONLY);
    if (wrong_way || offset < 0 || (writes && flags & O_APPEND)) { /* pwrite would append, whatever the offset */
        errno = wrong_way ? EBADF : EINVAL;
        return -1;
    }
    if (lseek(fd, 0, SEEK_CUR) < 0) return -1;
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (own >= 0) count_up(ENGINE_COUNT_FILES);
    return own;
}

static void drop_fd(int fd) {
    if (fd < 0) return;
    int error = errno;
    close(fd);
    errno = error;
    count_down(ENGINE_COUNT_FILES);
}

/* 0 or an errno. *written grows by what was. */
static int write_all(int fd, const char *data, size_t size, int64_t offset, _Atomic int64_t *written) {
    while (size) {
        ssize_t n = pwrite(fd, data, size, offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n ? errno : EIO;
        data += n;
        size -= (size_t)n;
        offset += n;
        atomic_fetch_add(written, n);
    }
    return 0;
}

/* Write and free them. 0 or an errno. */
static int write_chunks(record_files *f, int fd, chunk *c) {
    int error = 0;
    while (c) {
        chunk *next = c->next;
        if (!error) error = write_all(fd, c->data, c->size, f->sink_offset + atomic_load(&f->written), &f->written);
        engine_chunk_free(c);
        c = next;
    }
    return error;
}

/* strerror_r has two forms; whichever it is, this is its text. */
static const char *text_of_number(int result, const char *buffer) { return result ? "unknown error" : buffer; }
static const char *text_of_pointer(const char *result, const char *buffer) {
    (void)buffer;
    return result;
}

void files_explain(const char *what, int error, char *to, size_t room) {
    char buffer[96] = "";
    const char *why = "it is shorter than was said";
    if (error != FILES_SHORT)
        why = _Generic(strerror_r(error, buffer, sizeof buffer), int: text_of_number, default: text_of_pointer)(
            strerror_r(error, buffer, sizeof buffer), buffer);
    snprintf(to, room, "%s: %s", what, why);
}

/* ---- any thread */

/* Record lock held: the record's files, where `fresh` becomes them if there are none. */
static record_files *settle_on(engine_record *r, record_files **fresh) {
    if (!r->files) {
        r->files = *fresh;
        *fresh = NULL;
    }
    return r->files;
}

static record_files *files_new(void) {
    record_files *f = calloc(1, sizeof *f);
    if (f) f->source = f->sink = -1;
    return f;
}

/* Record lock held. */
static engine_send_status may_send_file(const engine_record *r, int64_t size) {
    if (engine_outcome_of(r) != ENGINE_OUTCOME_PENDING) return ENGINE_SETTLED;
    if (r->body_ended) return ENGINE_BODY_ENDED;
    if (r->body_size >= 0 && size > r->body_size - r->accepted) return ENGINE_BEYOND_LENGTH;
    return ENGINE_SENT;
}

engine_send_status engine_send_file(engine_record *r, int fd, int64_t offset, int64_t size) {
    if (size < 0 || !(r->flags & ENGINE_STREAM_BODY) || offset > INT64_MAX - size) {
        errno = EINVAL;
        return ENGINE_SEND_NO_FILE;
    }
    int own = take_fd(fd, false, offset);
    if (own < 0) return ENGINE_SEND_NO_FILE;
    record_files *fresh = files_new();
    if (!fresh) {
        drop_fd(own);
        return ENGINE_SEND_NO_MEMORY;
    }
    bool is_short = false, wake = false;
    lock(LOCK_RECORD, r);
    engine_send_status answer = may_send_file(r, size);
    if (answer == ENGINE_SENT) is_short = r->body_size >= 0 && r->accepted + size < r->body_size;
    if (answer == ENGINE_SENT && !is_short) {
        record_files *f = settle_on(r, &fresh);
        f->source = own;
        f->source_offset = offset;
        f->source_size = size;
        f->source_begins = r->accepted;
        r->accepted += size;
        r->body_ended = true;
        wake = r->tx_paused;
        waiters_fire(&r->waiters, ENGINE_ON_ROOM, false);
        own = -1;
    }
    unlock(LOCK_RECORD, r);
    free(fresh);
    drop_fd(own);
    if (is_short) engine_finish(r); /* a body that is shorter than it said must not look complete: it fails */
    else if (wake) record_tell(r, COMMAND_BODY);
    return answer;
}

int engine_write_to(engine_record *r, int fd, int64_t offset) {
    if (!(r->flags & ENGINE_STREAM) || r->mailbox) return EINVAL;
    int own = take_fd(fd, true, offset);
    if (own < 0) return errno;
    record_files *fresh = files_new();
    if (!fresh) {
        drop_fd(own);
        return ENOMEM;
    }
    chunk *left = NULL;
    lock(LOCK_RECORD, r);
    record_files *f = settle_on(r, &fresh);
    bool twice = f->takes_body;
    bool by_worker = !r->complete && engine_outcome_of(r) == ENGINE_OUTCOME_PENDING;
    if (!twice) {
        f->takes_body = true;
        f->sink_offset = offset;
        if (by_worker) f->sink = own;
        else left = record_take_chunks(r);
    }
    unlock(LOCK_RECORD, r);
    free(fresh);
    if (!twice && by_worker) {
        record_tell(r, COMMAND_FILE);
        return 0;
    }
    int error = write_chunks(f, own, left);
    drop_fd(own);
    if (error) {
        char detail[DETAIL_SIZE];
        files_explain(files_cannot_write, error, detail, sizeof detail);
        record_fail(r, ENGINE_OUTCOME_CURL, 23 /* CURLE_WRITE_ERROR */, detail, strlen(detail), true);
    }
    return twice ? EINVAL : 0;
}

int64_t engine_written(const engine_record *r) {
    lock(LOCK_RECORD, r);
    int64_t written = r->files ? atomic_load(&r->files->written) : 0;
    unlock(LOCK_RECORD, r);
    return written;
}

/* ---- the worker, or who plays it */

/* Nobody uses them any more. No lock held. */
static void close_files(engine_record *r) {
    record_files *f = r->files;
    drop_fd(f->source);
    drop_fd(f->sink);
    /* Said when it is true: a lock on the file is gone by now. */
    lock(LOCK_RECORD, r);
    f->source = f->sink = -1;
    waiters_fire(&r->waiters, ENGINE_ON_FILES_CLOSED, false);
    unlock(LOCK_RECORD, r);
}

/* To read or write, without a lock, until leave(). NULL: the request is settled. */
static record_files *use(engine_record *r) {
    lock(LOCK_RECORD, r);
    record_files *f = engine_outcome_of(r) == ENGINE_OUTCOME_PENDING ? r->files : NULL;
    if (f) f->users++;
    unlock(LOCK_RECORD, r);
    return f;
}

static void leave(engine_record *r) {
    lock(LOCK_RECORD, r);
    bool last = !--r->files->users && r->files->over;
    unlock(LOCK_RECORD, r);
    if (last) close_files(r);
}

int64_t files_read(engine_record *r, char *to, size_t room, int *error) {
    *error = 0;
    record_files *f = use(r);
    if (!f) return BODY_ABORT;
    int64_t left = f->source_size - f->source_at;
    if (left < (int64_t)room) room = (size_t)left;
    ssize_t n = 0;
    if (left) {
        do n = pread(f->source, to, room, f->source_offset + f->source_at);
        while (n < 0 && errno == EINTR);
        if (n <= 0) *error = n ? errno : FILES_SHORT;
        else f->source_at += n;
    }
    leave(r);
    return !left ? BODY_END : *error ? BODY_ABORT : n;
}

bool files_seek(engine_record *r, int64_t offset) {
    lock(LOCK_RECORD, r);
    record_files *f = r->files;
    bool there = f && f->source >= 0 && !r->first_segment && engine_outcome_of(r) == ENGINE_OUTCOME_PENDING &&
                 offset >= f->source_begins && offset - f->source_begins <= f->source_size;
    if (there) f->source_at = offset - f->source_begins;
    unlock(LOCK_RECORD, r);
    return there;
}

bool files_have_all(engine_record *r) {
    lock(LOCK_RECORD, r);
    bool all = files_have_body(r) && r->files->source_begins == 0;
    unlock(LOCK_RECORD, r);
    return all;
}

static int write_queued(engine_record *r, bool last) {
    chunk *queued = NULL;
    lock(LOCK_RECORD, r);
    record_files *f = r->files;
    if (last) r->complete = true;
    if (f && f->sink >= 0 && !f->over) queued = record_take_chunks(r);
    if (queued) f->users++;
    unlock(LOCK_RECORD, r);
    if (!queued) return 0;
    int error = write_chunks(f, f->sink, queued);
    leave(r);
    return error;
}

int files_write(engine_record *r) { return write_queued(r, false); }
int files_write_last(engine_record *r) { return write_queued(r, true); }

void files_close(engine_record *r) {
    if (!(r->flags & (ENGINE_STREAM | ENGINE_STREAM_BODY))) return;
    lock(LOCK_RECORD, r);
    bool mine = files_open(r) && !r->files->over;
    if (mine) {
        r->files->over = true;
        mine = !r->files->users;
    }
    unlock(LOCK_RECORD, r);
    if (mine) close_files(r);
}

void files_fork(engine_record *r) {
    /* Whoever was at it is not in this process. */
    if (r->files) r->files->users = 0;
    files_close(r);
}

void files_free(engine_record *r) {
    if (!r->files) return;
    drop_fd(r->files->source);
    drop_fd(r->files->sink);
    free(r->files);
    r->files = NULL;
}
