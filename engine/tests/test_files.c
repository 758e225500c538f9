/* Files that a body is read from or written to, on the record alone: what is read, written, refused, replayed, closed. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "../src/config.h"
#include "../src/files.h"
#include "stand_ins.h"

static unsigned char byte_at(int64_t i) { return (unsigned char)(i % 251); }

/* A file without a name that holds `size` bytes. */
static int file_of(int64_t size) {
    char name[] = "/tmp/katipo-test-XXXXXX";
    int fd = mkstemp(name);
    MUST(fd >= 0);
    MUST(!unlink(name));
    for (int64_t i = 0; i < size; i++) {
        unsigned char byte = byte_at(i);
        MUST(pwrite(fd, &byte, 1, i) == 1);
    }
    return fd;
}

static int64_t size_of(int fd) { return lseek(fd, 0, SEEK_END); }

static void check_content(int fd, int64_t offset, int64_t size) {
    for (int64_t i = 0; i < size; i++) {
        unsigned char byte;
        MUST(pread(fd, &byte, 1, offset + i) == 1);
        MUST(byte == byte_at(i));
    }
}

static engine_record *upload(int64_t length) { return record_of(ENGINE_STREAM_BODY, -1, length, 100, NULL); }
static engine_record *stream(int64_t window) { return record_of(ENGINE_STREAM, window, 0, 0, NULL); }

static append_answer append(engine_record *r, int64_t from, size_t size) {
    char *data = malloc(size);
    for (size_t i = 0; i < size; i++) data[i] = (char)byte_at(from + (int64_t)i);
    append_answer answer = record_append(r, data, size);
    free(data);
    return answer;
}

static engine_message_kind take(engine_record *r) {
    engine_message m;
    if (!engine_take(r, &m)) return ENGINE_MESSAGE_NONE;
    if (m.chunk) engine_chunk_free(m.chunk);
    return m.kind;
}

/* Up to `room` bytes, as the worker's read callback gets them. */
static int64_t read_body(engine_record *r, char *to, size_t room) {
    int error;
    int64_t n = record_read_body(r, to, room);
    if (n == BODY_IN_FILE) n = files_read(r, to, room, &error);
    return n;
}

static bool holds(engine_record *r, int mask) {
    static int owner;
    engine_queue *q = engine_queue_new();
    MUST(q);
    engine_waiter *w = engine_waiter_new(q, &owner);
    MUST(w);
    bool now = engine_record_register(r, w, mask);
    if (!now) CHECK_EQUAL(engine_waiter_cancel(w), 1);
    engine_waiter_free(w);
    engine_queue_unref(q);
    return now;
}

/* ---- up */

static void pieces_then_the_file_then_the_end(void) {
    engine_record *r = upload(3 + 50);
    int fd = file_of(100);
    CHECK_EQUAL(record_read_body(r, (char[8]){0}, 8), BODY_PAUSE);
    CHECK_EQUAL(engine_send(r, "abc", 3), ENGINE_SENT);
    commands_taken();
    CHECK_EQUAL(engine_send_file(r, fd, 20, 50), ENGINE_SENT);
    close(fd);
    CHECK_EQUAL(commands_taken(), COMMAND_BODY);
    CHECK_EQUAL(engine_counted(ENGINE_COUNT_FILES), 1);
    CHECK_EQUAL(engine_send(r, "more", 4), ENGINE_BODY_ENDED);
    char to[64];
    CHECK_EQUAL(read_body(r, to, 40), 3);
    CHECK(!memcmp(to, "abc", 3));
    CHECK_EQUAL(read_body(r, to, 40), 40);
    CHECK_EQUAL(read_body(r, to + 40, 40 - 16), 10);
    for (int i = 0; i < 50; i++) CHECK_EQUAL((unsigned char)to[i], byte_at(20 + i));
    CHECK_EQUAL(read_body(r, to, 40), BODY_END);
    CHECK_EQUAL(read_body(r, to, 40), BODY_END);
    CHECK(!holds(r, ENGINE_ON_FILES_CLOSED));
    end_with(r, ENGINE_OUTCOME_OK);
    CHECK(!holds(r, ENGINE_ON_FILES_CLOSED)); /* the worker has not let it go */
    files_close(r);
    CHECK(holds(r, ENGINE_ON_FILES_CLOSED));
    CHECK_EQUAL(engine_counted(ENGINE_COUNT_FILES), 0);
    engine_record_unref(r);
}

static void a_file_wakes_who_waits_for_room(void) {
    engine_record *r = upload(-1);
    char piece[100] = {0};
    int fd = file_of(1);
    CHECK_EQUAL(engine_send(r, piece, 100), ENGINE_SENT);
    CHECK(!holds(r, ENGINE_ON_ROOM));
    CHECK_EQUAL(engine_send_file(r, fd, 0, 1), ENGINE_SENT);
    CHECK(holds(r, ENGINE_ON_ROOM)); /* what is sent now is dropped */
    CHECK_EQUAL(commands_taken(), 0); /* nobody had paused */
    close(fd);
    cancel(r);
    engine_record_unref(r); /* no worker ever had it: closed with the record */
    commands_taken();
}

static void the_declared_length_is_kept(void) {
    engine_record *r = upload(10);
    int fd = file_of(20);
    CHECK_EQUAL(engine_send(r, "abc", 3), ENGINE_SENT);
    CHECK_EQUAL(engine_send_file(r, fd, 0, 8), ENGINE_BEYOND_LENGTH);
    CHECK_EQUAL(engine_send_file(r, fd, 0, INT64_MAX), ENGINE_BEYOND_LENGTH);
    CHECK_EQUAL(engine_counted(ENGINE_COUNT_FILES), 0);
    CHECK_EQUAL(engine_send_file(r, fd, 0, 7), ENGINE_SENT);
    CHECK_EQUAL(engine_send_file(r, fd, 0, 0), ENGINE_BODY_ENDED);
    engine_record_unref(r);
    r = upload(10);
    CHECK_EQUAL(engine_send_file(r, fd, 0, 9), ENGINE_SENT);
    CHECK_EQUAL(engine_outcome_of(r), ENGINE_OUTCOME_BODY_SHORT); /* must not look complete */
    CHECK_EQUAL(engine_send_file(r, fd, 0, 1), ENGINE_SETTLED);
    CHECK_EQUAL(engine_counted(ENGINE_COUNT_FILES), 0);
    engine_record_unref(r);
    close(fd);
    commands_taken();
}

static void what_cannot_be_read_is_refused(void) {
    engine_record *r = upload(-1), *buffered = record_of(0, -1, 0, 0, NULL);
    int fd = file_of(3), pipes[2];
    MUST(!pipe(pipes));
    CHECK(engine_send_file(r, pipes[0], 0, 1) == ENGINE_SEND_NO_FILE && errno == ESPIPE);
    CHECK(engine_send_file(r, pipes[1], 0, 1) == ENGINE_SEND_NO_FILE && errno == EBADF);
    CHECK(engine_send_file(r, -1, 0, 1) == ENGINE_SEND_NO_FILE && errno == EBADF);
    CHECK(engine_send_file(r, fd, -1, 1) == ENGINE_SEND_NO_FILE && errno == EINVAL);
    CHECK(engine_send_file(r, fd, 0, -1) == ENGINE_SEND_NO_FILE && errno == EINVAL);
    CHECK(engine_send_file(r, fd, 2, INT64_MAX) == ENGINE_SEND_NO_FILE && errno == EINVAL);
    CHECK(engine_send_file(buffered, fd, 0, 1) == ENGINE_SEND_NO_FILE && errno == EINVAL);
    CHECK_EQUAL(engine_send_file(r, fd, 0, 3), ENGINE_SENT); /* as if nothing had been */
    close(fd);
    close(pipes[0]);
    close(pipes[1]);
    engine_record_unref(r);
    engine_record_unref(buffered);
    commands_taken();
}

static void a_file_that_is_shorter_than_was_said(void) {
    engine_record *r = upload(50);
    int fd = file_of(50), error;
    char to[64], text[128];
    CHECK_EQUAL(engine_send_file(r, fd, 0, 50), ENGINE_SENT);
    CHECK_EQUAL(files_read(r, to, 20, &error), 20);
    MUST(!ftruncate(fd, 30));
    close(fd);
    CHECK_EQUAL(files_read(r, to, 64, &error), 10);
    CHECK_EQUAL(files_read(r, to, 64, &error), BODY_ABORT); /* an end would look complete */
    CHECK_EQUAL(error, FILES_SHORT);
    files_explain("it", error, text, sizeof text);
    CHECK(!strcmp(text, "it: it is shorter than was said"));
    files_explain("it", EIO, text, sizeof text);
    CHECK(strstr(text, strerror(EIO)));
    cancel(r);
    CHECK_EQUAL(files_read(r, to, 64, &error), BODY_ABORT);
    CHECK_EQUAL(error, 0); /* not the file's doing */
    engine_record_unref(r);
    commands_taken();
}

static void a_file_can_be_read_again(void) {
    char to[64];
    int fd = file_of(50);
    engine_record *r = upload(50);
    CHECK(!files_seek(r, 0));
    CHECK(!files_have_all(r));
    CHECK_EQUAL(engine_send_file(r, fd, 0, 50), ENGINE_SENT);
    CHECK(files_have_all(r));
    CHECK_EQUAL(read_body(r, to, 64), 50);
    static const int64_t offsets[] = {0, 20, 50};
    for (size_t i = 0; i < 3; i++) {
        CHECK(files_seek(r, offsets[i]));
        CHECK_EQUAL(read_body(r, to, 64), 50 - offsets[i]);
        if (offsets[i] < 50) CHECK_EQUAL((unsigned char)to[0], byte_at(offsets[i]));
        CHECK_EQUAL(read_body(r, to, 64), BODY_END);
    }
    CHECK(!files_seek(r, 51));
    CHECK(!files_seek(r, -1));
    engine_record_unref(r);
    /* Behind pieces: those are gone once they were read. */
    r = upload(53);
    engine_send(r, "abc", 3);
    CHECK_EQUAL(engine_send_file(r, fd, 0, 50), ENGINE_SENT);
    CHECK(!files_have_all(r));
    CHECK(!files_seek(r, 3)); /* the pieces have not been read: that would pass over them */
    CHECK_EQUAL(read_body(r, to, 64), 3);
    CHECK(!files_seek(r, 0));
    CHECK(files_seek(r, 3));
    CHECK(files_seek(r, 13));
    CHECK_EQUAL(read_body(r, to, 64), 40);
    CHECK_EQUAL((unsigned char)to[0], byte_at(10));
    files_close(r);
    CHECK(!files_seek(r, 3));
    engine_record_unref(r);
    close(fd);
    commands_taken();
}

/* ---- down */

static void chunks_are_written_and_not_taken(void) {
    engine_record *r = stream(100);
    int fd = file_of(0);
    start(r);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_STARTED);
    CHECK_EQUAL(append(r, 0, 100), APPEND_TAKEN);
    CHECK_EQUAL(append(r, 100, 1), APPEND_PAUSE);
    CHECK_EQUAL(engine_write_to(r, fd, 7), 0);
    CHECK_EQUAL(commands_taken(), COMMAND_FILE);
    CHECK_EQUAL(engine_counted(ENGINE_COUNT_FILES), 1);
    bool rx_paused, rx_blocked, tx_paused, tx_blocked;
    record_flow(r, &rx_paused, &rx_blocked, &tx_paused, &tx_blocked);
    CHECK(rx_paused && !rx_blocked); /* no window holds it any more */
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_NONE);
    CHECK(!holds(r, ENGINE_ON_NEWS));
    CHECK_EQUAL(engine_written(r), 0);
    CHECK_EQUAL(files_write(r), 0);
    CHECK_EQUAL(engine_written(r), 100);
    int64_t at = 100;
    append_answer answer;
    for (int i = 0; (answer = append(r, at, 16384)) == APPEND_TO_WRITE; i++) {
        MUST(i < 100);
        at += 16384;
    }
    CHECK_EQUAL(answer, APPEND_WRITE); /* a block is full */
    at += 16384;
    CHECK_EQUAL(engine_written(r), 100);
    CHECK_EQUAL(files_write(r), 0);
    CHECK_EQUAL(append(r, at, 3), APPEND_TO_WRITE);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_NONE);
    CHECK_EQUAL(files_write_last(r), 0);
    CHECK_EQUAL(files_write_last(r), 0);
    end_with(r, ENGINE_OUTCOME_OK);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_DONE);
    files_close(r);
    CHECK_EQUAL(engine_written(r), at + 3);
    CHECK_EQUAL(size_of(fd), 7 + at + 3);
    check_content(fd, 7, at + 3);
    close(fd);
    engine_record_unref(r);
}

static void what_comes_after_the_end_is_written_by_the_caller(void) {
    for (int settled = 0; settled < 3; settled++) {
        engine_record *r = stream(-1);
        int fd = file_of(0);
        start(r);
        take(r);
        append(r, 0, 5000);
        append(r, 5000, 5000);
        CHECK_EQUAL(files_write_last(r), 0); /* the worker's last look, and no file yet */
        if (settled) end_with(r, settled == 1 ? ENGINE_OUTCOME_OK : ENGINE_OUTCOME_CURL);
        CHECK_EQUAL(engine_write_to(r, fd, 0), 0);
        CHECK_EQUAL(commands_taken(), 0);
        CHECK_EQUAL(engine_written(r), 10000);
        CHECK_EQUAL(engine_counted(ENGINE_COUNT_FILES), 0);
        check_content(fd, 0, 10000);
        if (!settled) end_with(r, ENGINE_OUTCOME_OK);
        CHECK_EQUAL(take(r), settled == 2 ? ENGINE_MESSAGE_FAILED : ENGINE_MESSAGE_DONE);
        close(fd);
        engine_record_unref(r);
    }
}

static void a_file_that_cannot_be_written(void) {
    engine_message m;
    int full = open("/dev/full", O_WRONLY);
    if (full < 0) return; /* Linux has it */
    engine_record *r = stream(-1);
    start(r);
    take(r);
    CHECK_EQUAL(engine_write_to(r, full, 0), 0);
    append(r, 0, 5000);
    append(r, 5000, 5000);
    CHECK_EQUAL(files_write(r), ENOSPC);
    CHECK_EQUAL(engine_written(r), 0);
    CHECK_EQUAL(files_write_last(r), 0); /* said once; nothing is left to try */
    cancel(r);
    files_close(r);
    engine_record_unref(r);
    /* By the caller: it takes the place of an "ok" that nobody has seen. */
    r = stream(-1);
    start(r);
    take(r);
    append(r, 0, 5000);
    files_write_last(r);
    end_with(r, ENGINE_OUTCOME_OK);
    CHECK_EQUAL(engine_write_to(r, full, 0), 0);
    MUST(engine_take(r, &m));
    CHECK_EQUAL(m.kind, ENGINE_MESSAGE_FAILED);
    CHECK_EQUAL(m.outcome, ENGINE_OUTCOME_CURL);
    CHECK_EQUAL(m.curl_code, 23);
    CHECK(m.detail_size && memmem(m.detail, m.detail_size, strerror(ENOSPC), strlen(strerror(ENOSPC))));
    engine_record_unref(r);
    close(full);
    commands_taken();
}

static void what_cannot_be_written_is_refused(void) {
    engine_mailbox *box = engine_mailbox_new();
    engine_record *r = stream(-1), *buffered = record_of(0, -1, 0, 0, NULL),
                  *mailed = record_of(ENGINE_STREAM, -1, 0, 0, box);
    char name[] = "/tmp/katipo-test-XXXXXX";
    int fd = mkstemp(name), appends = open(name, O_WRONLY | O_APPEND), reads = open(name, O_RDONLY), pipes[2];
    MUST(fd >= 0 && appends >= 0 && reads >= 0 && !pipe(pipes) && !unlink(name));
    start(r);
    append(r, 0, 10);
    CHECK_EQUAL(engine_write_to(r, pipes[1], 0), ESPIPE);
    CHECK_EQUAL(engine_write_to(r, reads, 0), EBADF);
    CHECK_EQUAL(engine_write_to(r, -1, 0), EBADF);
    CHECK_EQUAL(engine_write_to(r, appends, 0), EINVAL);
    CHECK_EQUAL(engine_write_to(r, fd, -1), EINVAL);
    CHECK_EQUAL(engine_write_to(buffered, fd, 0), EINVAL);
    CHECK_EQUAL(engine_write_to(mailed, fd, 0), EINVAL);
    CHECK_EQUAL(engine_counted(ENGINE_COUNT_FILES), 0);
    take(r);
    CHECK_EQUAL(take(r), ENGINE_MESSAGE_CHUNK); /* as if nothing had been */
    CHECK_EQUAL(engine_write_to(r, fd, 0), 0);
    CHECK_EQUAL(engine_write_to(r, fd, 0), EINVAL);
    cancel(r);
    CHECK_EQUAL(engine_write_to(buffered, fd, 0), EINVAL);
    close(fd);
    close(appends);
    close(reads);
    close(pipes[0]);
    close(pipes[1]);
    engine_record_unref(r);
    engine_record_unref(buffered);
    engine_mailbox_drop(box);
    engine_record_unref(mailed);
    commands_taken();
}

static void the_limit_on_bytes_holds(void) {
    engine_record *r = stream(-1);
    int fd = file_of(0);
    r->config->limits.max_bytes = 10;
    start(r);
    append(r, 0, 4);
    CHECK_EQUAL(engine_write_to(r, fd, 0), 0);
    CHECK_EQUAL(append(r, 4, 6), APPEND_TO_WRITE);
    CHECK_EQUAL(append(r, 10, 1), APPEND_TOO_LARGE);
    close(fd);
    cancel(r);
    CHECK_EQUAL(append(r, 10, 1), APPEND_SETTLED);
    CHECK_EQUAL(files_write(r), 0);
    CHECK_EQUAL(engine_written(r), 0); /* a cancel drops what is queued */
    engine_record_unref(r);
    commands_taken();
}

/* ---- both sides at once */

typedef struct {
    engine_record *r;
    int fd;
    pthread_barrier_t *barrier;
} racer;

static void *brings_a_file(void *argument) {
    racer *x = argument;
    pthread_barrier_wait(x->barrier);
    CHECK_EQUAL(engine_write_to(x->r, x->fd, 0), 0);
    return NULL;
}

/* A file that comes while the worker delivers and ends: every byte is written, by the one or the other. */
static void a_file_that_comes_at_any_moment(void) {
    test_random random = test_random_of(7);
    for (int round = 0; round < 300; round++) {
        engine_record *r = stream(-1);
        int fd = file_of(0);
        pthread_barrier_t barrier;
        pthread_barrier_init(&barrier, NULL, 2);
        racer x = {r, fd, &barrier};
        test_thread thread;
        start(r);
        take(r);
        test_start(&thread, brings_a_file, &x);
        int64_t total = 1 + test_below(&random, 40000), at = 0;
        pthread_barrier_wait(&barrier);
        while (at < total) {
            size_t n = 1 + test_below(&random, 20000);
            if ((int64_t)n > total - at) n = (size_t)(total - at);
            append_answer answer = append(r, at, n);
            MUST(answer == APPEND_TAKEN || answer == APPEND_TO_WRITE || answer == APPEND_WRITE);
            at += (int64_t)n;
            if (answer == APPEND_WRITE || (commands_taken() & COMMAND_FILE)) CHECK_EQUAL(files_write(r), 0);
        }
        CHECK_EQUAL(files_write_last(r), 0);
        end_with(r, ENGINE_OUTCOME_OK);
        files_close(r);
        test_join(&thread);
        CHECK_EQUAL(engine_written(r), total);
        CHECK_EQUAL(size_of(fd), total);
        CHECK_EQUAL(take(r), ENGINE_MESSAGE_DONE);
        pthread_barrier_destroy(&barrier);
        close(fd);
        engine_record_unref(r);
    }
    commands_taken();
}

#define CASE(name) {#name, name}
CASES(CASE(pieces_then_the_file_then_the_end), CASE(a_file_wakes_who_waits_for_room), CASE(the_declared_length_is_kept),
      CASE(what_cannot_be_read_is_refused), CASE(a_file_that_is_shorter_than_was_said), CASE(a_file_can_be_read_again),
      CASE(chunks_are_written_and_not_taken), CASE(what_comes_after_the_end_is_written_by_the_caller),
      CASE(a_file_that_cannot_be_written), CASE(what_cannot_be_written_is_refused), CASE(the_limit_on_bytes_holds),
      CASE(a_file_that_comes_at_any_moment))
