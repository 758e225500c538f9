/* A fast HTTP/1.1 origin for measurements: one thread, epoll, no allocation per request.
 *
 * It must never be what limits a client. So answers are copied from memory, large bodies leave by sendfile from a memfd, and
 * request bodies are dropped inside the kernel (recv with MSG_TRUNC), which reads 0 bytes into this process.
 *
 *   GET  /small                1 KiB
 *   GET  /big?size=N           N bytes, Content-Length given, sent as fast as they are taken
 *   POST /upload               drops the body, answers its length in decimal
 *   POST /slow-upload?rate=N   the same, reading at most N bytes a second
 *   GET  /hold?size=N          N bytes (at most 4 KiB), but only after a /release
 *   GET  /held                 how many /hold requests are waiting, in decimal
 *   GET  /release              answers them all
 *
 * Prints its port and runs until standard input is closed, so that it cannot outlive who started it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    IN_BYTES = 16 * 1024,      /* longest request head; also how much of a chunked body is looked at per call */
    OUT_BYTES = 16 * 1024,     /* answers of pipelined requests gathered before one send */
    ANSWER_BYTES = 4096 + 256, /* room that must be left in `out` before a request is parsed */
    SOURCE_BYTES = 1 << 20,    /* the memfd that large bodies come from, sent over and over */
    TURN_BYTES = 8 << 20,      /* one connection's share of a round of the loop */
    TICK_MS = 5,               /* how often a connection with a rate is looked at again */
    MAX_EVENTS = 256,
};

enum body { BODY_NONE, BODY_LENGTH, BODY_CHUNK_SIZE, BODY_CHUNK_DATA, BODY_CHUNK_END, BODY_TRAILERS };
enum step { STEP_DONE, STEP_NEEDS_INPUT, STEP_NEEDS_ROOM, STEP_HELD, STEP_BROKEN };

struct conn {
    int fd;
    uint32_t events;        /* what epoll watches for */
    enum body body;         /* where the parser is in the current request's body */
    uint64_t body_left;     /* bytes to the end of the body, or of the chunk */
    uint64_t body_total;    /* bytes of the body so far */
    uint64_t stream_left;   /* bytes of a /big answer still to be sent, after `out` */
    double rate, started;   /* /slow-upload: bytes a second, and since when; 0: no limit */
    bool held, last;        /* waiting for /release; to be closed after this answer */
    size_t held_size;
    size_t in_have, in_at, out_have, out_at;
    struct conn *prev, *next; /* in `held_list`, `slow_list` or `closed_list` */
    char in[IN_BYTES], out[OUT_BYTES];
};

static int poller, source;
static char payload[4096];
static struct conn held_list = {.prev = &held_list, .next = &held_list};
static struct conn slow_list = {.prev = &slow_list, .next = &slow_list};
static struct conn closed_list = {.prev = &closed_list, .next = &closed_list};
static unsigned held_count;

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static void list_add(struct conn *list, struct conn *c) {
    c->prev = list->prev, c->next = list;
    list->prev->next = c, list->prev = c;
}

static void list_remove(struct conn *c) {
    if (!c->next) return;
    c->prev->next = c->next, c->next->prev = c->prev;
    c->next = c->prev = NULL;
}

static void watch(struct conn *c, uint32_t events) {
    if (c->events == events) return;
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
    c->events = events;
}

/* The memory is kept until the round is over: a later event of the same round may still point to it. */
static void conn_close(struct conn *c) {
    if (c->held) held_count--;
    list_remove(c);
    close(c->fd);
    c->fd = -1;
    list_add(&closed_list, c);
}

/* --- answers --- */

static void answer(struct conn *c, const char *body, uint64_t size, uint64_t inline_size) {
    int head = snprintf(
        c->out + c->out_have, OUT_BYTES - c->out_have,
        "HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Type: application/octet-stream\r\nContent-Length: %llu\r\n\r\n",
        (unsigned long long)size);
    c->out_have += (size_t)head;
    memcpy(c->out + c->out_have, body, inline_size);
    c->out_have += inline_size;
}

static void answer_number(struct conn *c, uint64_t number) {
    char text[24];
    int length = snprintf(text, sizeof text, "%llu", (unsigned long long)number);
    answer(c, text, (uint64_t)length, (uint64_t)length);
}

static uint64_t query_number(const char *target, const char *name, uint64_t missing) {
    const char *found = strstr(target, name);
    return found ? strtoull(found + strlen(name), NULL, 10) : missing;
}

static void serve(struct conn *c);

static void release_all(void) {
    while (held_list.next != &held_list) {
        struct conn *c = held_list.next;
        list_remove(c);
        held_count--;
        c->held = false;
        answer(c, payload, c->held_size, c->held_size);
        serve(c);
    }
}

static bool starts(const char *text, const char *with) { return strncmp(text, with, strlen(with)) == 0; }

/* Answers a request whose head is at `target` (NUL-terminated) and which has no body, or whose body has ended. */
static enum step respond(struct conn *c, const char *target) {
    if (starts(target, "/small")) {
        answer(c, payload, 1024, 1024);
    } else if (starts(target, "/big")) {
        c->stream_left = query_number(target, "size=", 1 << 20);
        answer(c, payload, c->stream_left, 0);
    } else if (starts(target, "/held")) {
        answer_number(c, held_count);
    } else if (starts(target, "/release")) {
        answer_number(c, held_count);
        release_all();
    } else if (starts(target, "/hold")) {
        uint64_t size = query_number(target, "size=", 1024);
        c->held_size = size < sizeof payload ? (size_t)size : sizeof payload;
        c->held = true, held_count++;
        list_add(&held_list, c);
        return STEP_HELD;
    } else {
        c->out_have += (size_t)snprintf(c->out + c->out_have, OUT_BYTES - c->out_have,
                                        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    }
    return STEP_DONE;
}

/* --- requests --- */

static const char *header(const char *head, const char *name) {
    const size_t length = strlen(name);
    for (const char *line = strchr(head, '\n'); line && line[1]; line = strchr(line + 1, '\n'))
        if (strncasecmp(line + 1, name, length) == 0) return line + 1 + length + strspn(line + 1 + length, " ");
    return NULL;
}

static enum step parse_head(struct conn *c) {
    char *head = c->in + c->in_at;
    char *end = memmem(head, c->in_have - c->in_at, "\r\n\r\n", 4);
    if (!end) return STEP_NEEDS_INPUT;
    if (OUT_BYTES - c->out_have < ANSWER_BYTES) return STEP_NEEDS_ROOM;
    end[2] = '\0';
    char *target = strchr(head, ' ');
    if (!target) return STEP_BROKEN;
    target++;
    char *line_end = strpbrk(target, " \r");
    const char *length = header(head, "content-length:"), *coding = header(head, "transfer-encoding:");
    const char *connection = header(head, "connection:"), *expect = header(head, "expect:");
    *line_end = '\0';
    c->in_at = (size_t)(end + 4 - c->in);
    c->last = connection && strncasecmp(connection, "close", 5) == 0;
    const bool slow = starts(target, "/slow-upload");
    if (!slow && !starts(target, "/upload")) return respond(c, target);
    c->body_total = 0;
    c->body_left = length ? strtoull(length, NULL, 10) : 0;
    c->body = coding ? BODY_CHUNK_SIZE : BODY_LENGTH;
    c->rate = slow ? (double)query_number(target, "rate=", 64 << 20) : 0;
    c->started = now();
    if (expect)
        c->out_have += (size_t)snprintf(c->out + c->out_have, OUT_BYTES - c->out_have, "HTTP/1.1 100 Continue\r\n\r\n");
    return STEP_DONE;
}

static enum step end_body(struct conn *c) {
    c->body = BODY_NONE, c->rate = 0;
    list_remove(c);
    answer_number(c, c->body_total);
    return STEP_DONE;
}

/* Drops what is in the buffer of `body_left`; the rest is dropped by fill(), unseen. */
static enum step drop(struct conn *c, enum body after) {
    const size_t have = c->in_have - c->in_at;
    const size_t taken = c->body_left < have ? (size_t)c->body_left : have;
    c->in_at += taken, c->body_left -= taken, c->body_total += taken;
    if (c->body_left) return STEP_NEEDS_INPUT;
    c->body = after;
    return STEP_DONE;
}

static enum step parse_chunk_line(struct conn *c) {
    char *line = c->in + c->in_at;
    char *end = memchr(line, '\n', c->in_have - c->in_at);
    if (!end) return STEP_NEEDS_INPUT;
    c->in_at = (size_t)(end + 1 - c->in);
    if (c->body == BODY_CHUNK_END) {
        c->body = BODY_CHUNK_SIZE;
    } else if (c->body == BODY_CHUNK_SIZE) {
        c->body_left = strtoull(line, NULL, 16);
        c->body = c->body_left ? BODY_CHUNK_DATA : BODY_TRAILERS;
    } else if (end - line <= 1) {
        return end_body(c);
    }
    return STEP_DONE;
}

static enum step parse(struct conn *c) {
    switch (c->body) {
    case BODY_NONE: return parse_head(c);
    case BODY_LENGTH:
        if (OUT_BYTES - c->out_have < ANSWER_BYTES) return STEP_NEEDS_ROOM;
        return c->body_left && drop(c, BODY_LENGTH) == STEP_NEEDS_INPUT ? STEP_NEEDS_INPUT : end_body(c);
    case BODY_CHUNK_DATA: return drop(c, BODY_CHUNK_END);
    default: return parse_chunk_line(c);
    }
}

/* --- the loop --- */

/* Sends what is pending. 1: all of it; 0: the socket is full, or the turn is over; -1: the connection is gone. */
static int flush(struct conn *c) {
    while (c->out_at < c->out_have) {
        ssize_t sent =
            send(c->fd, c->out + c->out_at, c->out_have - c->out_at, MSG_NOSIGNAL | (c->stream_left ? MSG_MORE : 0));
        if (sent < 0) return errno == EAGAIN ? 0 : -1;
        c->out_at += (size_t)sent;
    }
    c->out_at = c->out_have = 0;
    for (size_t turn = 0; c->stream_left && turn < TURN_BYTES;) {
        off_t from = 0;
        ssize_t sent = sendfile(c->fd, source, &from, c->stream_left < SOURCE_BYTES ? (size_t)c->stream_left : SOURCE_BYTES);
        if (sent < 0) return errno == EAGAIN ? 0 : -1;
        c->stream_left -= (uint64_t)sent, turn += (size_t)sent;
    }
    return c->stream_left == 0;
}

/* Reads, or drops body bytes in the kernel. 1: got some; 0: nothing there, or not yet allowed; -1: it is gone. */
static int fill(struct conn *c) {
    memmove(c->in, c->in + c->in_at, c->in_have - c->in_at);
    c->in_have -= c->in_at, c->in_at = 0;
    size_t room = IN_BYTES - c->in_have;
    const bool dropping = c->body_left && c->in_have == 0 && (c->body == BODY_LENGTH || c->body == BODY_CHUNK_DATA);
    if (dropping) room = c->body_left < TURN_BYTES ? (size_t)c->body_left : TURN_BYTES;
    if (c->rate > 0) {
        const double allowed = c->rate * (now() - c->started) - (double)c->body_total;
        if (allowed < 1) {
            if (!c->next) list_add(&slow_list, c);
            return 0;
        }
        if (allowed < (double)room) room = (size_t)allowed;
    }
    if (!room) return -1;
    ssize_t got = recv(c->fd, dropping ? NULL : c->in + c->in_have, room, dropping ? MSG_TRUNC : 0);
    if (got <= 0) return got < 0 && errno == EAGAIN ? 0 : -1;
    if (dropping) c->body_left -= (uint64_t)got, c->body_total += (uint64_t)got;
    else c->in_have += (size_t)got;
    return 1;
}

static void serve(struct conn *c) {
    if (c->fd < 0) return;
    for (int turns = 0; turns < 64; turns++) {
        enum step step = STEP_NEEDS_ROOM;
        while (!c->stream_left && !(c->last && c->body == BODY_NONE) && (step = parse(c)) == STEP_DONE) {
        }
        const int sent = step == STEP_BROKEN ? -1 : flush(c);
        const int got = sent == 1 && !c->held && step == STEP_NEEDS_INPUT ? fill(c) : 1;
        if (sent < 0 || got < 0 || (sent == 1 && c->last && c->body == BODY_NONE && !c->held)) {
            conn_close(c);
            return;
        }
        if (sent == 0 || c->held || got == 0) {
            watch(c, sent == 0 ? EPOLLOUT : c->held || c->next ? EPOLLRDHUP : EPOLLIN);
            return;
        }
    }
    watch(c, EPOLLIN | EPOLLOUT);
}

static void accept_all(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        struct conn *c = calloc(1, sizeof *c);
        if (!c) {
            close(fd);
            return;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        c->fd = fd, c->events = EPOLLIN;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
}

/* Serving puts a connection back at the end of the list, so only those that are there now get a turn. */
static void serve_slow(void) {
    struct conn *last = slow_list.prev, *c = NULL;
    while (c != last && slow_list.next != &slow_list) {
        c = slow_list.next;
        list_remove(c);
        serve(c);
    }
}

static void free_closed(void) {
    while (closed_list.next != &closed_list) {
        struct conn *c = closed_list.next;
        list_remove(c);
        free(c);
    }
}

static int listen_on(uint16_t *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) || listen(fd, 4096)) return -1;
    getsockname(fd, (struct sockaddr *)&address, &length);
    *port = ntohs(address.sin_port);
    return fd;
}

int main(void) {
    uint16_t port;
    const int listener = listen_on(&port);
    source = memfd_create("origin", MFD_CLOEXEC);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (listener < 0 || source < 0 || poller < 0 || ftruncate(source, SOURCE_BYTES)) return perror("origin"), 1;
    memset(payload, 'x', sizeof payload);
    for (off_t at = 0; at < SOURCE_BYTES; at += (off_t)sizeof payload)
        if (pwrite(source, payload, sizeof payload, at) < 0) return perror("origin"), 1;
    signal(SIGPIPE, SIG_IGN);

    struct epoll_event on_listener = {.events = EPOLLIN, .data.ptr = NULL},
                       on_stdin = {.events = EPOLLIN, .data.ptr = &source};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &on_listener);
    if (epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &on_stdin) && errno != EPERM) return perror("origin"), 1;
    printf("%u\n", port);
    fflush(stdout);

    for (struct epoll_event events[MAX_EVENTS];;) {
        const int count = epoll_wait(poller, events, MAX_EVENTS, slow_list.next != &slow_list ? TICK_MS : -1);
        for (int i = 0; i < count; i++) {
            struct conn *c = events[i].data.ptr;
            if (!c) accept_all(listener);
            else if ((void *)c == &source) return 0;
            else if (c->fd >= 0 && !(events[i].events & (EPOLLIN | EPOLLOUT))) /* an error, or closed by the client */
                conn_close(c);
            else serve(c);
        }
        serve_slow();
        free_closed();
    }
}
