# Declarations of engine/include/engine.h, in its order.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t

cdef extern from "signal.h" nogil:
    ctypedef struct sigset_t:
        pass
    int sigfillset(sigset_t *mask)
    int pthread_sigmask(int how, const sigset_t *mask, sigset_t *old)
    int SIG_SETMASK

cdef extern from "engine.h" nogil:
    const char *engine_outcome_name(int outcome)
    const char *engine_clock_name(int clock)
    const char *engine_count_name(int count)
    long engine_counted(int count)

    ctypedef enum engine_status:
        ENGINE_ACCEPTED
        ENGINE_OVERLOAD
        ENGINE_CLOSED
        ENGINE_NO_MEMORY
        ENGINE_NO_THREAD
        ENGINE_GAVE_UP

    ctypedef enum engine_send_status:
        ENGINE_SENT
        ENGINE_NO_ROOM
        ENGINE_BODY_ENDED
        ENGINE_SETTLED
        ENGINE_BEYOND_LENGTH
        ENGINE_SEND_NO_MEMORY
        ENGINE_SEND_NO_FILE

    ctypedef struct engine_library:
        const char *path
        const char *version
        unsigned version_num
        const char *ssl_version
        const char **protocols
        const char **features
        long feature_bits
        const char *libz
        const char *brotli
        const char *nghttp2
        const char *quic
        const char *libidn
        const char *libssh
        const char *gsasl

    int engine_load(const char *path, char *reason, size_t reason_size)
    bint engine_loaded()
    void engine_describe(engine_library *library)
    bint engine_option(const char *name, int *number, int *kind)

    ctypedef struct engine_config:
        pass

    int ENGINE_FOLLOW
    int ENGINE_MAY_RETRY_AUTH
    int ENGINE_NEGOTIATE
    int ENGINE_PROXIED
    int ENGINE_HAS_COOKIES
    int ENGINE_VERBOSE
    int ENGINE_OWN_ACCEPT

    ctypedef struct engine_limits:
        int64_t connect_ms
        int64_t total_ms
        int64_t read_ms
        int64_t write_ms
        int64_t pool_ms
        int64_t max_bytes
        int flags

    engine_config *engine_config_new(const engine_limits *limits, const char *identity, size_t identity_size)
    bint engine_config_add_number(engine_config *config, int option, int64_t value)
    bint engine_config_add_string(engine_config *config, int option, const char *value, size_t size)
    bint engine_config_add_list(engine_config *config, int option, const char **items, size_t count)
    void engine_config_unref(engine_config *config)

    ctypedef struct engine_queue:
        pass
    ctypedef struct engine_waiter:
        pass
    ctypedef struct engine_record:
        pass
    ctypedef struct engine_mailbox:
        pass
    ctypedef struct engine_pool:
        pass

    int ENGINE_ON_TERMINAL
    int ENGINE_ON_NEWS
    int ENGINE_ON_ROOM
    int ENGINE_ON_IDLE
    int ENGINE_ON_STOPPED
    int ENGINE_ON_FILES_CLOSED

    engine_queue *engine_queue_new()
    void engine_queue_unref(engine_queue *queue)
    int engine_queue_fd(const engine_queue *queue)
    void *engine_queue_take(engine_queue *queue, bint first)
    int engine_queue_wait(engine_queue *queue, int64_t timeout_ns, const sigset_t *mask)
    void engine_queue_poke(engine_queue *queue)

    engine_waiter *engine_waiter_new(engine_queue *queue, void *owner)
    void engine_waiter_free(engine_waiter *waiter)
    int engine_waiter_cancel(engine_waiter *waiter)

    ctypedef struct engine_pool_options:
        int workers
        bint multiplexing
        int max_total_connections
        int max_host_connections
        int max_idle_connections
        int max_concurrent_streams
        int max_in_flight
        const char *name

    ctypedef struct engine_pool_statistics:
        int workers
        long in_flight
        long queued
        long connections
        long restarts
        long completed
        long failed

    engine_pool *engine_pool_new(const engine_pool_options *options)
    void engine_pool_unref(engine_pool *pool)
    void engine_pool_refuse(engine_pool *pool)
    void engine_pool_stop(engine_pool *pool)
    void engine_pool_abandon(engine_pool *pool)
    int engine_pool_join(engine_pool *pool, int64_t timeout_ns)
    bint engine_pool_register(engine_pool *pool, engine_waiter *waiter, int mask)
    void engine_pool_read(engine_pool *pool, engine_pool_statistics *statistics)
    bint engine_pool_fault(engine_pool *pool, int index, int how)
    int engine_stop_all(int64_t timeout_ns)

    int ENGINE_STREAM
    int ENGINE_STREAM_BODY
    int ENGINE_MANUAL_CREDIT
    int ENGINE_FINISH_ON_ABANDON
    int ENGINE_HAS_BODY
    int ENGINE_INFORMATIONAL

    ctypedef struct engine_request:
        engine_config *config
        const char *method
        const char *url
        const char *origin
        int flags
        const void *body
        int64_t body_size
        int64_t window
        int64_t upload_window
        engine_mailbox *mailbox
        uint64_t token

    engine_status engine_submit(engine_pool *pool, const engine_request *request, engine_record **record)
    void engine_record_unref(engine_record *record)
    void engine_abandon(engine_record *record)
    int engine_outcome_of(const engine_record *record)
    bint engine_settle(engine_record *record, int outcome, const char *detail, size_t detail_size, bint overrule)
    engine_send_status engine_send(engine_record *record, const void *data, size_t size)
    void engine_finish(engine_record *record)
    engine_send_status engine_send_file(engine_record *record, int fd, int64_t offset, int64_t size)
    int engine_write_to(engine_record *record, int fd, int64_t offset)
    int64_t engine_written(const engine_record *record)
    void engine_credit(engine_record *record, int64_t n)
    void engine_consumed(engine_record *record, int64_t n)
    bint engine_record_register(engine_record *record, engine_waiter *waiter, int mask)
    uint64_t engine_record_token(const engine_record *record)
    int64_t engine_record_deadline(const engine_record *record)
    int64_t engine_now()

    ctypedef struct engine_metrics:
        int64_t starttransfer_us
        int64_t total_us
        int64_t bytes_sent
        int64_t bytes_received

    ctypedef enum engine_message_kind:
        ENGINE_MESSAGE_NONE
        ENGINE_MESSAGE_INFORMATIONAL
        ENGINE_MESSAGE_STARTED
        ENGINE_MESSAGE_CHUNK
        ENGINE_MESSAGE_DONE
        ENGINE_MESSAGE_RESPONDED
        ENGINE_MESSAGE_FAILED

    ctypedef struct engine_message:
        engine_message_kind kind
        int status
        const char *block
        size_t block_size
        const char *body
        size_t body_size
        const char *trailers
        size_t trailers_size
        const char *cookies
        size_t cookies_size
        const char *url
        const char *detail
        size_t detail_size
        int outcome
        int clock
        int curl_code
        bint request_sent
        bint proxy_failed
        const engine_metrics *metrics
        void *chunk

    bint engine_take(engine_record *record, engine_message *message)
    bint engine_terminal(engine_record *record, engine_message *message)
    void engine_drop_body(engine_record *record)
    void engine_chunk_free(void *chunk)

    int ENGINE_TOLD_SETTLED
    int ENGINE_TOLD_BODY
    int ENGINE_TOLD_CREDIT
    int ENGINE_TOLD_FORKED
    ctypedef void (*engine_told)(uint64_t token, unsigned what) noexcept

    ctypedef enum engine_play_status:
        ENGINE_PLAY_TAKEN
        ENGINE_PLAY_PAUSE
        ENGINE_PLAY_SETTLED
        ENGINE_PLAY_TOO_LARGE
        ENGINE_PLAY_NO_MEMORY

    int ENGINE_PLAY_END
    int ENGINE_PLAY_WAIT
    int ENGINE_PLAY_ABORT

    engine_status engine_play(engine_pool *pool, const engine_request *request, engine_told told, engine_record **record)
    void engine_record_ref(engine_record *record)
    int64_t engine_play_read(engine_record *record, char *to, size_t room)
    void engine_play_sent(engine_record *record)
    bint engine_play_start(engine_record *record, const engine_message *m)
    engine_play_status engine_play_append(engine_record *record, const char *data, size_t size)
    bint engine_play_end(engine_record *record, const engine_message *m)
    bint engine_play_expire(engine_record *record, int clock)
    bint engine_is_played(const engine_record *record)

    engine_mailbox *engine_mailbox_new()
    void engine_mailbox_drop(engine_mailbox *mailbox)
    void engine_mailbox_close(engine_mailbox *mailbox)
    bint engine_mailbox_closed(engine_mailbox *mailbox)
    size_t engine_mailbox_count(engine_mailbox *mailbox)
    engine_record *engine_mailbox_take(engine_mailbox *mailbox, engine_message *message)
    void engine_mailbox_give_back(engine_mailbox *mailbox, engine_record *record, bint more)
    bint engine_mailbox_register(engine_mailbox *mailbox, engine_waiter *waiter)
    void engine_mailbox_pass_on(engine_mailbox *mailbox)
    int64_t engine_mailbox_fail_overdue(engine_mailbox *mailbox, int64_t grace_ns)

    void engine_fork_park()
    bint engine_fork_lock()
    void engine_fork_wait()
    bint engine_fork_locked()
    void engine_fork_give_way(void (*function)() noexcept nogil)
    void engine_fork_parent()
    void engine_fork_child()

    size_t engine_log_take(char *buffer, size_t size, long *lost)
    bint engine_log_register(engine_waiter *waiter)
