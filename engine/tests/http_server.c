#include "http_server.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fake_libcurl.h"
#include "test.h"

static int listener;
static test_thread acceptor;
static _Atomic int connections, sends[FAKE_IDS], bodies[FAKE_IDS];

typedef struct {
    int fd;
    size_t size, at;
    char data[16384];
} connection;

/* The request's body, as it is framed. */
typedef struct {
    int64_t left; /* of the body, or of the chunk */
    bool chunked, ended, first;
} body;

static bool fill(connection *c) {
    ssize_t n = recv(c->fd, c->data, sizeof c->data, 0);
    c->at = 0;
    c->size = n > 0 ? (size_t)n : 0;
    return n > 0;
}

static bool read_line(connection *c, char *line, size_t room) {
    size_t size = 0;
    for (;;) {
        if (c->at == c->size && !fill(c)) return false;
        char byte = c->data[c->at++];
        if (byte == '\n') break;
        if (byte != '\r' && size + 1 < room) line[size++] = byte;
    }
    line[size] = 0;
    return true;
}

/* Some bytes of the body: their number, 0 at its end, -1 where the client has gone. */
static ssize_t read_body(connection *c, body *b, char *to, size_t room) {
    char line[64];
    if (b->chunked && !b->left && !b->ended) {
        if (!b->first && !read_line(c, line, sizeof line)) return -1;
        b->first = false;
        if (!read_line(c, line, sizeof line)) return -1;
        b->left = strtoll(line, NULL, 16);
        b->ended = !b->left;
        if (b->ended && !read_line(c, line, sizeof line)) return -1;
    }
    if (!b->left) return 0;
    if (c->at == c->size && !fill(c)) return -1;
    size_t n = c->size - c->at;
    if (n > room) n = room;
    if ((int64_t)n > b->left) n = (size_t)b->left;
    memcpy(to, c->data + c->at, n);
    c->at += n;
    b->left -= (int64_t)n;
    return (ssize_t)n;
}

static bool put(connection *c, const void *data, size_t size) {
    for (const char *at = data; size;) {
        ssize_t n = send(c->fd, at, size, MSG_NOSIGNAL);
        if (n <= 0) return false;
        at += n;
        size -= (size_t)n;
    }
    return true;
}

static bool say(connection *c, const char *text) { return put(c, text, strlen(text)); }

static bool put_chunk(connection *c, const char *data, size_t size) {
    char head[32];
    sprintf(head, "%zx\r\n", size);
    return say(c, head) && put(c, data, size) && say(c, "\r\n");
}

static int64_t word(const char *line, const char *name) {
    const char *at = strstr(line, name);
    return at ? strtoll(at + strlen(name), NULL, 10) : 0;
}

static bool echo(connection *c, body *b, int id) {
    char piece[8192];
    if (!say(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")) return false;
    for (ssize_t n; (n = read_body(c, b, piece, sizeof piece));)
        if (n < 0 || !put_chunk(c, piece, (size_t)n)) return false;
    atomic_fetch_add(&bodies[id], 1);
    return say(c, "0\r\n\r\n");
}

static bool answer(connection *c, const char *line, body *b) {
    char piece[8192], head[256];
    int id = (int)(word(line, "id=") % FAKE_IDS);
    atomic_fetch_add(&sends[id], 1);
    if (strstr(line, "kind=echo")) return echo(c, b, id);
    uint64_t hash = FAKE_HASH_START, seed = (uint64_t)word(line, "seed=");
    int64_t received = 0, size = word(line, "size=");
    if (strstr(line, "kind=early") && !say(c, "HTTP/1.1 103 Early Hints\r\nx-before: 1\r\n\r\n")) return false;
    for (ssize_t n; (n = read_body(c, b, piece, sizeof piece));) {
        if (n < 0) return false;
        hash = fake_hash(hash, piece, (uint64_t)n);
        received += n;
    }
    atomic_fetch_add(&bodies[id], 1);
    if (strstr(line, "kind=slow")) {
        while (fill(c)) continue;
        return false;
    }
    bool chunked = strstr(line, "kind=chunked"), closes = strstr(line, "kind=close"), cut = strstr(line, "kind=cut");
    int at = sprintf(head, "HTTP/1.1 200 OK\r\nx-body: %lld %llx\r\n", (long long)received, (unsigned long long)hash);
    if (chunked) sprintf(head + at, "Transfer-Encoding: chunked\r\n\r\n");
    else if (closes) sprintf(head + at, "Connection: close\r\n\r\n");
    else sprintf(head + at, "Content-Length: %lld\r\n\r\n", (long long)size);
    if (!say(c, head)) return false;
    for (int64_t sent = 0; sent < size && strncmp(line, "HEAD", 4) != 0;) {
        size_t n = sizeof piece;
        if ((int64_t)n > size - sent) n = (size_t)(size - sent);
        for (size_t i = 0; i < n; i++) piece[i] = (char)fake_byte(seed, sent + (int64_t)i);
        if (cut && sent + (int64_t)n > size / 2) return false;
        if (!(chunked ? put_chunk(c, piece, n) : put(c, piece, n))) return false;
        sent += (int64_t)n;
    }
    if (chunked && !say(c, "0\r\nx-trailer: 1\r\n\r\n")) return false;
    return !closes;
}

static void *serve(void *argument) {
    connection *c = argument;
    char line[1024], header[1024];
    for (bool go_on = true; go_on && read_line(c, line, sizeof line);) {
        body b = {.first = true};
        while ((go_on = read_line(c, header, sizeof header)) && header[0]) {
            if (!strncasecmp(header, "content-length:", 15)) b.left = strtoll(header + 15, NULL, 10);
            if (!strncasecmp(header, "transfer-encoding:", 18)) b.chunked = true;
        }
        go_on = go_on && answer(c, line, &b);
    }
    close(c->fd);
    free(c);
    atomic_fetch_sub(&connections, 1);
    return NULL;
}

static void *accept_all(void *argument) {
    (void)argument;
    for (int fd; (fd = accept(listener, NULL, NULL)) >= 0;) {
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        connection *c = calloc(1, sizeof *c);
        c->fd = fd;
        atomic_fetch_add(&connections, 1);
        pthread_t thread;
        MUST(pthread_create(&thread, NULL, serve, c) == 0);
        pthread_detach(thread);
    }
    return NULL;
}

int server_start(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    MUST(listener >= 0 && !bind(listener, (struct sockaddr *)&address, sizeof address) && !listen(listener, 512));
    MUST(!getsockname(listener, (struct sockaddr *)&address, &size));
    test_start(&acceptor, accept_all, NULL);
    return ntohs(address.sin_port);
}

void server_stop(void) {
    shutdown(listener, SHUT_RDWR);
    test_join(&acceptor);
    close(listener);
    while (atomic_load(&connections)) test_yield();
}

int server_sends(int id) { return atomic_load(&sends[id]); }
int server_bodies(int id) { return atomic_load(&bodies[id]); }
int server_connections(void) { return atomic_load(&connections); }
