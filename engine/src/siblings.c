/* libcurl reads from an HTTP/2 connection on behalf of one transfer at a time, and stops where that one's stream has ended or is
 * paused. Its TLS may by then have taken more from the socket than was asked for (OpenSSL's read-ahead: up to 64 KiB). The
 * descriptor does not tell of that, and libcurl asks only for the transfer that has just stopped (`h2_progress_ingress` in
 * lib/http2.c, `sendrecv_dl` in lib/transfer.c). If no other transfer reads after it in the same turn, the others' messages lie
 * there until the server sends something else: for ever, if it is they who are to go on.
 *
 * So before a worker sleeps, one transfer of each such connection is made to read. curl_easy_pause with what holds already
 * marks it as to be run, and does nothing else (from libcurl 8.8 on; before, it does nothing at all). It costs one call of
 * recv that finds nothing, in a turn that would sleep and in which a stream has ended beside others. */
#include "siblings.h"

#include "worker.h"

bool siblings_drive(const transfer *t) {
    const node *all = worker_transfers(t->worker);
    for (const node *l = all->next; l != all; l = l->next) {
        const transfer *other = CONTAINER(l, transfer, in_worker);
        if (other != t && other->multi == t->multi && other->easy && other->connection == t->connection) return true;
    }
    return false;
}

static bool is_noted(const transfer *t) {
    const multi *m = t->multi;
    for (int i = 0; i < m->unread_count; i++)
        if (m->unread[i] == t->connection) return true;
    return false;
}

void siblings_read_on(const transfer *t) {
    multi *m = t->multi;
    if (!t->sending || t->http3 || m->lone || !driver_is_multiplexed(m, t->connection)) return;
    if (is_noted(t) || turns_is_alone(worker_turns(t->worker), &t->ticket)) return;
    if (m->unread_count < UNREAD_MOST) m->unread[m->unread_count++] = t->connection;
    else m->unread_more = true;
    worker_has_unread(t->worker);
}

static bool read_now(transfer *t) {
    bool rx_paused, rx_blocked, tx_paused, tx_blocked;
    record_flow(t->record, &rx_paused, &rx_blocked, &tx_paused, &tx_blocked);
    if (rx_paused) return false;
    lc.curl_easy_pause(t->easy, tx_paused ? CURLPAUSE_SEND : 0);
    t->multi->timer_ns = 0; /* libcurl asks for no call if nothing has changed */
    return true;
}

static void forget(const transfer *t) {
    multi *m = t->multi;
    for (int i = 0; i < m->unread_count; i++)
        if (m->unread[i] == t->connection) m->unread[i--] = m->unread[--m->unread_count];
}

void siblings_look(struct worker *w) {
    node *all = worker_transfers(w);
    for (node *l = all->next; l != all; l = l->next) {
        transfer *t = CONTAINER(l, transfer, in_worker);
        if (!t->easy || !t->sending) continue;
        if (is_noted(t)) {
            if (!read_now(t)) continue;
            forget(t);
            if (!driver_has_unread(worker_driver(w))) return;
        } else if (t->multi->unread_more && driver_is_multiplexed(t->multi, t->connection)) {
            read_now(t);
        }
    }
    driver_forget_unread(worker_driver(w)); /* what is left has nobody, or they are paused, and read when they go on */
}
