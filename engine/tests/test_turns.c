/* Turns: slots per origin, shares in total, order, fairness. The workers are stand-ins: a grant is noted. */
#include <stdlib.h>
#include <string.h>

#include "../src/turns.h"
#include "../src/worker.h"
#include "test.h"

#define MANY 10000

/* A ticket's record is an address in here, and its index the ticket's number. */
static char numbers[MANY + 64];
static int granted[4 * MANY];
static _Atomic int granted_count;

bool worker_command(worker *w, engine_record *r, unsigned commands) {
    (void)w;
    CHECK_EQUAL(commands, COMMAND_GRANT);
    int at = atomic_fetch_add(&granted_count, 1);
    if (at < 4 * MANY) granted[at] = (int)((char *)r - numbers);
    return true;
}

static ticket *tickets_new(int count) {
    ticket *t = calloc((size_t)count, sizeof *t);
    MUST(t && count <= (int)sizeof numbers);
    for (int i = 0; i < count; i++) t[i].record = (engine_record *)(void *)&numbers[i];
    atomic_store(&granted_count, 0);
    return t;
}

static turn enter(turns *t, ticket *k, const char *origin) { return turns_enter(t, k, "", 0, origin, false); }

static void slots_per_origin(void) {
    turns *t = turns_new(2, 100, 100, true);
    ticket *k = tickets_new(5);
    CHECK_EQUAL(enter(t, &k[0], "a"), TURN_GRANTED);
    CHECK_EQUAL(enter(t, &k[1], "a"), TURN_GRANTED);
    CHECK_EQUAL(enter(t, &k[2], "a"), TURN_WAITS);
    CHECK_EQUAL(enter(t, &k[3], "b"), TURN_GRANTED);
    CHECK_EQUAL(turns_enter(t, &k[4], "cert", 4, "a", false), TURN_GRANTED); /* another identity is another origin */
    CHECK_EQUAL(turns_waiting(t), 1);
    turns_leave(t, &k[3]);
    CHECK_EQUAL(granted_count, 0);
    turns_leave(t, &k[1]);
    CHECK_EQUAL(granted_count, 1);
    CHECK_EQUAL(granted[0], 2);
    CHECK_EQUAL(k[2].state, TICKET_HELD);
    CHECK_EQUAL(turns_waiting(t), 0);
    for (int i = 0; i < 5; i++) turns_leave(t, &k[i]); /* leaving twice does no harm */
    CHECK_EQUAL(granted_count, 1);
    free(k);
    turns_free(t);
}

static void lone_transfers_are_an_origin_with_one_stream_each(void) {
    turns *t = turns_new(2, 3, 100, true);
    ticket *k = tickets_new(5);
    CHECK_EQUAL(turns_enter(t, &k[0], "", 0, "a", true), TURN_GRANTED);
    turns_learn(t, &k[0], true);
    CHECK_EQUAL(turns_enter(t, &k[1], "", 0, "a", true), TURN_GRANTED);
    CHECK_EQUAL(turns_enter(t, &k[2], "", 0, "a", true), TURN_WAITS); /* no slot */
    CHECK_EQUAL(enter(t, &k[3], "a"), TURN_GRANTED);
    CHECK_EQUAL(enter(t, &k[4], "a"), TURN_WAITS); /* no share */
    turns_learn(t, &k[3], true);
    CHECK_EQUAL(granted_count, 1);
    CHECK_EQUAL(granted[0], 4);
    turns_leave(t, &k[0]);
    CHECK_EQUAL(granted_count, 2);
    CHECK_EQUAL(granted[1], 2);
    for (int i = 0; i < 5; i++) turns_leave(t, &k[i]);
    free(k);
    turns_free(t);
}

static void identity_and_origin_do_not_run_together(void) {
    turns *t = turns_new(1, 100, 100, true);
    ticket *k = tickets_new(3);
    CHECK_EQUAL(turns_enter(t, &k[0], "x\0", 2, "y", false), TURN_GRANTED);
    CHECK_EQUAL(turns_enter(t, &k[1], "x\0", 2, "z", false), TURN_GRANTED);
    CHECK_EQUAL(turns_enter(t, &k[2], "x\0", 2, "y", false), TURN_WAITS);
    for (int i = 0; i < 3; i++) turns_leave(t, &k[i]);
    free(k);
    turns_free(t);
}

static void first_come_first_served(void) {
    turns *t = turns_new(1, 100, 100, true);
    ticket *k = tickets_new(20);
    for (int i = 0; i < 20; i++) enter(t, &k[i], "a");
    CHECK_EQUAL(turns_waiting(t), 19);
    for (int i = 0; i < 20; i++) turns_leave(t, &k[i]);
    CHECK_EQUAL(granted_count, 19);
    for (int i = 0; i < 19; i++) CHECK_EQUAL(granted[i], i + 1);
    free(k);
    turns_free(t);
}

static void streams_multiply_slots(void) {
    turns *t = turns_new(1, 100, 10, true);
    ticket *k = tickets_new(30);
    for (int i = 0; i < 25; i++) enter(t, &k[i], "a");
    CHECK_EQUAL(turns_waiting(t), 24); /* nothing is known yet */
    turns_learn(t, &k[0], true);
    CHECK_EQUAL(granted_count, 9);
    CHECK_EQUAL(turns_waiting(t), 15);
    turns_leave(t, &k[3]);
    CHECK_EQUAL(granted_count, 10);
    turns_learn(t, &k[0], true); /* nothing new */
    CHECK_EQUAL(granted_count, 10);
    /* Later it speaks HTTP/1 only: nobody is thrown out, and nobody comes in until there is room. */
    turns_learn(t, &k[0], false);
    CHECK_EQUAL(enter(t, &k[25], "a"), TURN_WAITS);
    for (int i = 0; i < 10; i++)
        if (i != 3) turns_leave(t, &k[i]);
    CHECK_EQUAL(granted_count, 10);
    turns_leave(t, &k[10]);
    CHECK_EQUAL(granted_count, 11);
    for (int i = 0; i < 26; i++) turns_leave(t, &k[i]);
    CHECK_EQUAL(turns_waiting(t), 0);
    free(k);
    turns_free(t);
}

static void no_multiplexing_no_streams(void) {
    turns *t = turns_new(1, 100, 10, false);
    ticket *k = tickets_new(2);
    CHECK_EQUAL(enter(t, &k[0], "a"), TURN_GRANTED);
    turns_learn(t, &k[0], true);
    CHECK_EQUAL(enter(t, &k[1], "a"), TURN_WAITS);
    turns_leave(t, &k[0]);
    turns_leave(t, &k[1]);
    free(k);
    turns_free(t);
}

static void shares_in_total(void) {
    turns *t = turns_new(0, 3, 10, true);
    ticket *k = tickets_new(40);
    CHECK_EQUAL(enter(t, &k[0], "a"), TURN_GRANTED);
    CHECK_EQUAL(enter(t, &k[1], "b"), TURN_GRANTED);
    CHECK_EQUAL(enter(t, &k[2], "c"), TURN_GRANTED);
    CHECK_EQUAL(enter(t, &k[3], "d"), TURN_WAITS);
    CHECK_EQUAL(enter(t, &k[4], "a"), TURN_WAITS);
    /* a speaks HTTP/2: its second request needs no share of its own, d's does. */
    turns_learn(t, &k[0], true);
    CHECK_EQUAL(granted_count, 1);
    CHECK_EQUAL(granted[0], 4);
    for (int i = 5; i < 13; i++) CHECK_EQUAL(enter(t, &k[i], "a"), TURN_GRANTED);
    CHECK_EQUAL(enter(t, &k[13], "a"), TURN_WAITS); /* the eleventh would be a second connection */
    turns_leave(t, &k[1]);
    CHECK_EQUAL(granted_count, 2);
    CHECK_EQUAL(granted[1], 3); /* d waited for longer */
    turns_leave(t, &k[2]);
    CHECK_EQUAL(granted_count, 3);
    CHECK_EQUAL(granted[2], 13);
    for (int i = 0; i < 14; i++) turns_leave(t, &k[i]);
    free(k);
    turns_free(t);
}

/* An origin that has room on a connection of its own does not wait for another one's share. */
static void room_on_an_open_connection_needs_no_share(void) {
    turns *t = turns_new(0, 2, 3, true);
    ticket *k = tickets_new(12);
    CHECK_EQUAL(enter(t, &k[0], "slow"), TURN_GRANTED);
    CHECK_EQUAL(enter(t, &k[1], "h2"), TURN_GRANTED);
    turns_learn(t, &k[1], true);
    CHECK_EQUAL(enter(t, &k[2], "h2"), TURN_GRANTED);
    CHECK_EQUAL(enter(t, &k[3], "h2"), TURN_GRANTED);
    CHECK_EQUAL(enter(t, &k[4], "other"), TURN_WAITS); /* lacks a share, and is first in line for one */
    CHECK_EQUAL(enter(t, &k[5], "h2"), TURN_WAITS);
    turns_leave(t, &k[2]); /* h2 has a free stream */
    CHECK_EQUAL(granted_count, 1);
    CHECK_EQUAL(granted[0], 5);
    turns_leave(t, &k[0]); /* a share is free: the first in line has it */
    CHECK_EQUAL(granted_count, 2);
    CHECK_EQUAL(granted[1], 4);
    for (int i = 0; i < 6; i++) turns_leave(t, &k[i]);
    CHECK_EQUAL(turns_waiting(t), 0);
    free(k);
    turns_free(t);
}

static void origins_that_lack_a_share_take_turns(void) {
    turns *t = turns_new(0, 1, 1, true);
    ticket *k = tickets_new(31);
    MUST(enter(t, &k[30], "z") == TURN_GRANTED);
    for (int i = 0; i < 30; i++) CHECK_EQUAL(enter(t, &k[i], i < 10 ? "a" : i < 20 ? "b" : "c"), TURN_WAITS);
    turns_leave(t, &k[30]);
    for (int i = 0; i < 30; i++) {
        MUST(granted_count == i + 1);
        CHECK_EQUAL(granted[i], i % 3 * 10 + i / 3);
        turns_leave(t, &k[granted[i]]);
    }
    CHECK_EQUAL(turns_waiting(t), 0);
    free(k);
    turns_free(t);
}

static void leaving_while_waiting(void) {
    turns *t = turns_new(1, 1, 1, true);
    ticket *k = tickets_new(6);
    CHECK_EQUAL(enter(t, &k[0], "a"), TURN_GRANTED);
    for (int i = 1; i < 4; i++) CHECK_EQUAL(enter(t, &k[i], "a"), TURN_WAITS);
    CHECK_EQUAL(enter(t, &k[4], "b"), TURN_WAITS);
    turns_leave(t, &k[1]);
    turns_leave(t, &k[4]); /* the only one of those that lack a share */
    CHECK_EQUAL(turns_waiting(t), 2);
    turns_leave(t, &k[0]);
    CHECK_EQUAL(granted_count, 1);
    CHECK_EQUAL(granted[0], 2);
    turns_leave(t, &k[2]);
    turns_leave(t, &k[3]);
    CHECK_EQUAL(enter(t, &k[5], "b"), TURN_GRANTED); /* nothing was lost */
    turns_leave(t, &k[5]);
    free(k);
    turns_free(t);
}

static void ten_thousand_wait(void) {
    turns *t = turns_new(2, 1000000, 1, true);
    ticket *k = tickets_new(MANY);
    for (int i = 0; i < MANY; i++) enter(t, &k[i], "a");
    CHECK_EQUAL(turns_waiting(t), MANY - 2);
    for (int i = 1; i < MANY; i += 2) turns_leave(t, &k[i]); /* every other one gives up, but for one that held */
    for (int i = 0; i < MANY; i += 2) {
        MUST(k[i].state == TICKET_HELD);
        turns_leave(t, &k[i]);
    }
    CHECK_EQUAL(turns_waiting(t), 0);
    CHECK_EQUAL(granted_count, MANY / 2 - 1);
    free(k);
    turns_free(t);
}

static void origins_without_transfers_are_forgotten(void) {
    turns *t = turns_new(1, 1000000, 1, true);
    ticket *k = tickets_new(2);
    for (int i = 0; i < 20000; i++) {
        char name[32];
        snprintf(name, sizeof name, "https://%d", i);
        CHECK_EQUAL(enter(t, &k[0], name), TURN_GRANTED);
        turns_leave(t, &k[0]);
    }
    CHECK_EQUAL(enter(t, &k[0], "https://1"), TURN_GRANTED);
    CHECK_EQUAL(enter(t, &k[1], "https://1"), TURN_WAITS);
    turns_leave(t, &k[1]);
    turns_leave(t, &k[0]);
    free(k);
    turns_free(t);
}

static void no_memory_is_said(void) {
    turns *t = turns_new(1, 10, 1, true);
    ticket *k = tickets_new(1);
    mem_fail_next();
    CHECK_EQUAL(enter(t, &k[0], "a"), TURN_NO_MEMORY);
    turns_leave(t, &k[0]);
    CHECK_EQUAL(enter(t, &k[0], "a"), TURN_GRANTED);
    turns_leave(t, &k[0]);
    free(k);
    turns_free(t);
    mem_failed();
}

static void a_forked_child_starts_empty(void) {
    turns *t = turns_new(1, 1, 10, true);
    ticket *k = tickets_new(4);
    enter(t, &k[0], "a");
    turns_learn(t, &k[0], true);
    enter(t, &k[1], "b");
    CHECK_EQUAL(turns_waiting(t), 1);
    turns_after_fork(t);
    CHECK_EQUAL(turns_waiting(t), 0);
    CHECK_EQUAL(enter(t, &k[2], "b"), TURN_GRANTED);
    turns_leave(t, &k[2]);
    CHECK_EQUAL(enter(t, &k[3], "a"), TURN_GRANTED);
    turns_leave(t, &k[3]);
    free(k);
    turns_free(t);
}

/* Where connections are held in several places, idle ones of one are no use to the others: sockets are claimed. */
static void sockets_are_claimed(void) {
    turns *t = turns_new(0, 2, 10, true);
    ticket *k = tickets_new(4);
    turns_be_strict(t);
    MUST(enter(t, &k[0], "a") == TURN_GRANTED && enter(t, &k[1], "b") == TURN_GRANTED);
    CHECK(turns_claim(t, &k[0]) && turns_claim(t, &k[1]));
    void *a = turns_opened(t, &k[0]), *b = turns_opened(t, &k[1]);
    turns_leave(t, &k[0]); /* its connection stays open, idle */
    MUST(enter(t, &k[2], "c") == TURN_GRANTED);
    CHECK(!turns_claim(t, &k[2]));
    CHECK(turns_closed(t, a)); /* it is awaited */
    turns_stop_starving(t);
    CHECK(turns_claim(t, &k[2]));
    turns_unclaim(t, &k[2]); /* there was one for it after all */
    turns_unclaim(t, &k[2]);
    turns_leave(t, &k[2]);
    CHECK(!turns_closed(t, b));
    turns_leave(t, &k[1]);
    MUST(enter(t, &k[3], "a") == TURN_GRANTED);
    CHECK(turns_claim(t, &k[3]));
    turns_leave(t, &k[3]); /* a claim goes with its ticket */
    MUST(enter(t, &k[0], "x") == TURN_GRANTED && enter(t, &k[1], "y") == TURN_GRANTED);
    CHECK(turns_claim(t, &k[0]) && turns_claim(t, &k[1]));
    turns_leave(t, &k[0]);
    turns_leave(t, &k[1]);
    free(k);
    turns_free(t);
}

/* Whatever happens: no limit is broken, nobody waits while there is room, everybody is granted once. */
static void model_agrees(void) {
    enum { TICKETS = 60, ORIGINS = 5 };
    test_random random = test_random_of(2);
    for (int round = 0; round < 40; round++) {
        int max_host = (int)test_below(&random, 4), max_total = 1 + (int)test_below(&random, 6), streams_of[ORIGINS];
        int max_streams = 1 + (int)test_below(&random, 4);
        turns *t = turns_new(max_host, max_total, max_streams, true);
        ticket *k = tickets_new(TICKETS);
        int origin_of_ticket[TICKETS], used[ORIGINS];
        for (int i = 0; i < ORIGINS; i++) streams_of[i] = 1;
        for (int step = 0; step < 400; step++) {
            unsigned i = test_below(&random, TICKETS);
            if (!k[i].origin) {
                origin_of_ticket[i] = (int)test_below(&random, ORIGINS);
                char name[2] = {(char)('a' + origin_of_ticket[i]), 0};
                enter(t, &k[i], name);
            } else if (k[i].state == TICKET_HELD && !test_below(&random, 4)) {
                /* Only upwards: going back may leave more in flight than the limits, which is no fault. */
                turns_learn(t, &k[i], true);
                streams_of[origin_of_ticket[i]] = max_streams;
            } else {
                turns_leave(t, &k[i]);
            }
            memset(used, 0, sizeof used);
            bool waits[ORIGINS] = {0};
            long waiting = 0;
            for (int n = 0; n < TICKETS; n++) {
                if (!k[n].origin) continue;
                if (k[n].state == TICKET_HELD) used[origin_of_ticket[n]]++;
                if (k[n].state == TICKET_WAITING) waits[origin_of_ticket[n]] = true, waiting++;
            }
            MUST(turns_waiting(t) == waiting);
            int shares = 0;
            for (int o = 0; o < ORIGINS; o++) shares += (used[o] + streams_of[o] - 1) / streams_of[o];
            MUST(shares <= max_total);
            for (int o = 0; o < ORIGINS; o++) {
                MUST(!max_host || used[o] <= max_host * streams_of[o]);
                bool slot = !max_host || used[o] < max_host * streams_of[o];
                bool needs_share = used[o] % streams_of[o] == 0;
                MUST(!(waits[o] && slot && (!needs_share || shares < max_total)));
            }
        }
        for (int i = 0; i < TICKETS; i++) turns_leave(t, &k[i]);
        CHECK_EQUAL(turns_waiting(t), 0);
        free(k);
        turns_free(t);
    }
}

CASES({"slots_per_origin", slots_per_origin},
      {"lone_transfers_are_an_origin_with_one_stream_each", lone_transfers_are_an_origin_with_one_stream_each},
      {"identity_and_origin_do_not_run_together", identity_and_origin_do_not_run_together},
      {"first_come_first_served", first_come_first_served}, {"streams_multiply_slots", streams_multiply_slots},
      {"no_multiplexing_no_streams", no_multiplexing_no_streams}, {"shares_in_total", shares_in_total},
      {"room_on_an_open_connection_needs_no_share", room_on_an_open_connection_needs_no_share},
      {"origins_that_lack_a_share_take_turns", origins_that_lack_a_share_take_turns},
      {"leaving_while_waiting", leaving_while_waiting}, {"ten_thousand_wait", ten_thousand_wait},
      {"origins_without_transfers_are_forgotten", origins_without_transfers_are_forgotten},
      {"no_memory_is_said", no_memory_is_said}, {"a_forked_child_starts_empty", a_forked_child_starts_empty},
      {"sockets_are_claimed", sockets_are_claimed}, {"model_agrees", model_agrees})
