/* Files that a request's body is read from, or a response's is written to.
 *
 * Descriptors are the record's own: made by the caller's thread, used by the worker alone, closed by it when it lets the record
 * go; by a forked child; or with the record, if no worker ever had it. Those of a played request are used by who plays it, and
 * closed when it is settled, or by the last use that is under way then. So nobody closes one that is in use, and no lock is
 * held while a file is read or written. What a settled request has queued is not written any more, but a write that is under way when
 * it is cancelled ends: ENGINE_ON_FILES_CLOSED tells when. Syncing and renaming are the caller's. Knows no libcurl.
 */
#ifndef KATIPO_FILES_H
#define KATIPO_FILES_H

#include "record.h"

/* ---- with the record lock held */

/* The body goes to a file: chunks are no messages. */
bool files_take_body(const engine_record *r);
/* What follows the pieces sent comes from a file. */
bool files_have_body(const engine_record *r);
bool files_open(const engine_record *r);

/* ---- what the worker calls */

/* What a file did not allow: an errno, or FILES_SHORT. 0: nothing. */
enum { FILES_SHORT = -1 };
/* Up to `room` bytes of the body's file into `to`; BODY_END; BODY_ABORT, with *error set where that is the file's doing. */
int64_t files_read(engine_record *r, char *to, size_t room, int *error);
/* Go on reading where the body is at `offset`. False: that is not in the file. */
bool files_seek(engine_record *r, int64_t offset);
/* The whole body is in a file: it can be sent again from its beginning. */
bool files_have_all(engine_record *r);
/* Write what is queued. Returns 0 or an errno; what could not be written is gone. */
int files_write(engine_record *r);
/* The same, the last time before it is settled: nothing more is delivered, and who comes with a file from now on writes what
 * is queued himself. */
int files_write_last(engine_record *r);
/* They will not be used again: close them, and tell who waits for that. */
void files_close(engine_record *r);
/* The same in a forked child. */
void files_fork(engine_record *r);
/* The error's text: "WHAT: why". */
extern const char files_cannot_read[], files_cannot_write[];
void files_explain(const char *what, int error, char *to, size_t room);

/* The last reference on the record has gone. */
void files_free(engine_record *r);

#endif
