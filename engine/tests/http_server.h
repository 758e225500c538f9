/* A tiny HTTP/1.1 server, a thread a connection, for the test with the real libcurl.
 *
 *     http://127.0.0.1:PORT/?id=1&seed=2&size=1000&kind=...
 *
 * answers `size` bytes (fake_byte) and says in "x-body: SIZE HASH" what it received. Kinds: plain (a Content-Length), chunked
 * (with a trailer), close (the connection ends the body), cut (the connection is closed half-way), slow (no answer, until the
 * client goes), early (an interim answer before), echo (the body, while it comes, chunked). */
#ifndef KATIPO_HTTP_SERVER_H
#define KATIPO_HTTP_SERVER_H

int server_start(void); /* its port */
void server_stop(void); /* when every client has closed its connections: waits for the threads */
int server_sends(int id);  /* requests with that id that arrived */
int server_bodies(int id); /* of which the body's end was seen */
int server_connections(void);

#endif
