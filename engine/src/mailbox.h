/* A mailbox: the records that have news for its consumers. */
#ifndef KATIPO_MAILBOX_H
#define KATIPO_MAILBOX_H

#include "record.h"

void mailbox_ref(engine_mailbox *m);
void mailbox_unref(engine_mailbox *m);
/* A request that replies here was accepted. False: the mailbox is closed. */
bool mailbox_enter(engine_mailbox *m, engine_record *r);
/* It has its outcome, or was not accepted after all. False: it had left, or a close took it out to settle it. */
bool mailbox_leave(engine_mailbox *m, engine_record *r);
/* The record's messages have changed. Record lock held. */
void mailbox_post(engine_mailbox *m, engine_record *r);
/* In a forked child: every mailbox is empty. */
void mailboxes_after_fork(void);

#endif
