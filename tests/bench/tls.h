/* What load.c asks of TLS: each is a client's side of one connection, over a socket that never blocks. Weak, so that
   load.c builds without it; what sends and receives tells as writev and recv do, EAGAIN included. */

#include <sys/uio.h>

struct ssl_st; /* OpenSSL's SSL */

#pragma weak tls_begin
#pragma weak tls_shake_hands
#pragma weak tls_send
#pragma weak tls_receive
#pragma weak tls_has_more
#pragma weak tls_end

struct ssl_st *tls_begin(int fd);
int tls_shake_hands(struct ssl_st *one); /* the events of epoll to wait for; 0 where it is done */
ssize_t tls_send(struct ssl_st *one, const struct iovec left[2]);
ssize_t tls_receive(struct ssl_st *one, char *buffer, size_t room);
int tls_has_more(struct ssl_st *one); /* what epoll can't see: it is read already */
void tls_end(struct ssl_st *one);
