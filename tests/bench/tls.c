/* TLS for load.c, by OpenSSL, as load.py has it from Python's ssl: TLS 1.2 or later, the library's groups, Python's
   ciphers, no certificate checked. One context for all; no session is ever resumed: every handshake is a full one. */

#include "tls.h"
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>
#include <sys/epoll.h>

/* Python's own; TLS 1.3 has the library's. */
static const char CIPHERS[] = "@SECLEVEL=2:ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:DHE+AES:!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM";
enum { RECORD = 16384 };

static SSL_CTX *context;

static void fail(void)
{
    ERR_print_errors_fp(stderr);
    exit(1);
}

static void make_context(void)
{
    context = SSL_CTX_new(TLS_client_method());
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) || !SSL_CTX_set_cipher_list(context, CIPHERS))
        fail();
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF); /* load.c says who hung up */
    /* What is left to send is put together anew for each attempt: the same octets, elsewhere. */
    SSL_CTX_set_mode(context, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_ENABLE_PARTIAL_WRITE);
    SSL_CTX_set_read_ahead(context, 1); /* a flight is read at once, not header by header */
}

SSL *tls_begin(int fd)
{
    if (!context)
        make_context();
    SSL *one = SSL_new(context);
    if (!one || !SSL_set_fd(one, fd))
        fail();
    SSL_set_connect_state(one);
    return one;
}

/* What there is to wait for after a call that did not succeed; 0 where the other side is gone. */
static int wanted(SSL *one, int returned)
{
    switch (SSL_get_error(one, returned)) {
    case SSL_ERROR_WANT_READ: return EPOLLIN;
    case SSL_ERROR_WANT_WRITE: return EPOLLOUT;
    case SSL_ERROR_SSL: fail();
    }
    return 0;
}

int tls_shake_hands(SSL *one)
{
    ERR_clear_error();
    int done = SSL_do_handshake(one);
    if (done == 1)
        return 0;
    int events = wanted(one, done);
    if (!events) {
        fputs("the server hung up during the handshake\n", stderr);
        exit(1);
    }
    return events;
}

static ssize_t told(SSL *one, int returned)
{
    if (returned > 0)
        return returned;
    if (wanted(one, returned)) {
        errno = EAGAIN;
        return -1;
    }
    return 0;
}

ssize_t tls_send(SSL *one, const struct iovec left[2])
{
    char record[RECORD];
    const char *from = left[1].iov_base;
    size_t length = left[1].iov_len;
    if (left[0].iov_len) { /* the stamp goes into one record with what follows it */
        size_t more = RECORD - left[0].iov_len < length ? RECORD - left[0].iov_len : length;
        memcpy(record, left[0].iov_base, left[0].iov_len);
        memcpy(record + left[0].iov_len, from, more);
        length = left[0].iov_len + more;
        from = record;
    }
    ERR_clear_error();
    return told(one, SSL_write(one, from, (int)length));
}

ssize_t tls_receive(SSL *one, char *buffer, size_t room)
{
    ERR_clear_error();
    return told(one, SSL_read(one, buffer, (int)room));
}

int tls_has_more(SSL *one)
{
    return SSL_has_pending(one);
}

void tls_end(SSL *one)
{
    SSL_free(one);
}
