#include "wake.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/eventfd.h>

bool wake_open(wake *w) {
    w->read_fd = w->write_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return w->read_fd >= 0;
}

void wake_close(wake *w) {
    if (w->read_fd >= 0) close(w->read_fd);
    w->read_fd = w->write_fd = -1;
}

void wake_set(const wake *w) {
    const uint64_t one = 1;
    ssize_t n;
    do n = write(w->write_fd, &one, sizeof one);
    while (n < 0 && errno == EINTR);
    /* EAGAIN: the counter is full, so the descriptor is readable already. */
}

void wake_clear(const wake *w) {
    uint64_t count;
    ssize_t n;
    do n = read(w->read_fd, &count, sizeof count);
    while (n < 0 && errno == EINTR);
}

#else

bool wake_open(wake *w) {
    int fds[2];
    if (pipe(fds)) {
        w->read_fd = w->write_fd = -1;
        return false;
    }
    for (int i = 0; i < 2; i++) {
        fcntl(fds[i], F_SETFD, FD_CLOEXEC);
        fcntl(fds[i], F_SETFL, O_NONBLOCK);
    }
    w->read_fd = fds[0];
    w->write_fd = fds[1];
    return true;
}

void wake_close(wake *w) {
    if (w->read_fd >= 0) close(w->read_fd);
    if (w->write_fd >= 0) close(w->write_fd);
    w->read_fd = w->write_fd = -1;
}

void wake_set(const wake *w) {
    ssize_t n;
    do n = write(w->write_fd, "!", 1);
    while (n < 0 && errno == EINTR);
}

void wake_clear(const wake *w) {
    char many[64];
    ssize_t n;
    do n = read(w->read_fd, many, sizeof many);
    while (n == (ssize_t)sizeof many || (n < 0 && errno == EINTR));
}

#endif
