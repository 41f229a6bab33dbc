/* The load generator of load.py at two thirds of its cost (the rest is the kernel's), under TLS at four fifths (the rest
   is OpenSSL's), so that a fast server is less held up by it: the same options, the same numbered messages, the same line
   of JSON. install.py builds it where there is a C compiler, and with tls.c a second time where OpenSSL's headers are;
   load.py, which is always there, does the rest and says what the options mean.

   One thread, one epoll loop. Every step of a session is bytes to send and a number of replies to wait for, or the
   handshake. */

#define _GNU_SOURCE
#include "tls.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* Steps before the first message, each named for what is waited for; 0.. are the envelope's, then the content. */
enum { GREETING = -5, PLAIN_HELLO, STARTTLS, HANDSHAKE, HELLO };
enum { SILENCE_MS = 20000, STAMP = 25 };

static const char HEAD[] = "\r\nFrom: <probe@bench.test>\r\nTo: <user0@bench.test>\r\n"
                           "Date: Fri, 27 Nov 2026 12:00:00 +0000\r\nMessage-ID: <load@bench.test>\r\n\r\n";

struct text { char *words; size_t size; int owed; };
struct session {
    struct ssl_st *tls; /* once it begins */
    int fd, step, owed, column, waits_to_send, taken;
    char line[4], stamp[STAMP + 1];
    struct iovec left[2];
    double began;
};

static long port, sessions = 20, messages, size = 1024, per_connection = 1, recipients = 1;
static long group, dots, starttls, opening_limit;
static double seconds, until;
static struct text *envelope, content, hello = { "EHLO bench.test\r\n", 17, 1 };
static struct text start_tls = { "STARTTLS\r\n", 10, 1 }, quit = { "QUIT\r\n", 6, 1 };
static int steps, poller;
static long begun, open_now, opening, accepted, room;
static double *latencies;

static void die(const char *what, const char *more)
{
    fprintf(stderr, "%s%s\n", what, more);
    exit(1);
}

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static void append(struct text *to, const char *words, size_t length)
{
    to->words = realloc(to->words, to->size + length + 1);
    memcpy(to->words + to->size, words, length);
    to->size += length;
}

static void write_envelope(void)
{
    char rcpt[64];
    envelope = calloc(recipients + 2, sizeof *envelope);
    for (long n = -1; n <= recipients; n++) {
        struct text *to = group ? &envelope[0] : &envelope[n + 1];
        const char *words = n < 0 ? "MAIL FROM:<probe@bench.test>\r\n" : n == recipients ? "DATA\r\n" : rcpt;
        snprintf(rcpt, sizeof rcpt, "RCPT TO:<user%ld@bench.test>\r\n", n);
        append(to, words, strlen(words));
        to->owed++;
    }
    steps = group ? 1 : recipients + 2;
}

/* What follows the stamp: lines of 76 columns with dots stuffed, and the end mark. */
static void write_content(void)
{
    char line[80], rest[80];
    long left = size - STAMP - (long)(sizeof HEAD - 1);
    size_t length = 0;
    if (dots)
        line[length++] = '.'; /* the stuffed one */
    memset(line + length, '.', 6);
    memset(line + length + 6, 'a', 70);
    if (!dots)
        memcpy(line, "abcdefghijklmnopqrstuvwxyz0123456789+/abcdefghijklmnopqrstuvwxyz0123456789+/", 76);
    memcpy(line + length + 76, "\r\n", 2);
    length += 78;
    append(&content, HEAD, sizeof HEAD - 1);
    content.words = realloc(content.words, content.size + (left > 0 ? left / 78 + 2 : 2) * length);
    for (; left >= 78; left -= 78)
        append(&content, line, length);
    if (left >= 2) {
        memset(rest, 'z', left - 2);
        memcpy(rest + left - 2, "\r\n", 2);
        append(&content, rest, left);
    }
    append(&content, ".\r\n", 3);
    content.owed = 1;
}

static int may_begin(void)
{
    return (!messages || begun < messages) && now() < until;
}

static void wait_to_send(struct session *one, int waits)
{
    struct epoll_event event = { EPOLLIN | (waits ? EPOLLOUT : 0), { .ptr = one } };
    if (one->waits_to_send != waits)
        epoll_ctl(poller, EPOLL_CTL_MOD, one->fd, &event);
    one->waits_to_send = waits;
}

static void send_left(struct session *one)
{
    struct iovec *left = one->left;
    while (left[0].iov_len + left[1].iov_len) {
        ssize_t sent = one->tls ? tls_send(one->tls, left) : writev(one->fd, left, 2);
        if (sent < 0 && errno == EAGAIN)
            return wait_to_send(one, 1);
        if (sent <= 0)
            die("sending failed: ", strerror(errno));
        for (int n = 0; n < 2; n++) {
            size_t part = (size_t)sent < left[n].iov_len ? (size_t)sent : left[n].iov_len;
            left[n].iov_base = (char *)left[n].iov_base + part;
            left[n].iov_len -= part;
            sent -= part;
        }
    }
    wait_to_send(one, 0);
}

static void say(struct session *one, struct text *text, int stamped)
{
    one->owed = text->owed;
    one->left[0] = (struct iovec){ one->stamp, stamped ? STAMP : 0 };
    one->left[1] = (struct iovec){ text->words, text->size };
    send_left(one);
}

static void open_more(void)
{
    while (open_now < sessions && (!opening_limit || opening < opening_limit)
           && (!messages || begun + opening < messages) && now() < until) {
        struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        struct session *one = calloc(1, sizeof *one);
        struct epoll_event event = { EPOLLIN, { .ptr = one } };
        int on = 1;
        one->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (one->fd < 0)
            die("no socket: ", strerror(errno));
        setsockopt(one->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (connect(one->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS)
            die("no connection: ", strerror(errno));
        one->step = GREETING;
        one->owed = 1;
        epoll_ctl(poller, EPOLL_CTL_ADD, one->fd, &event);
        open_now++;
        opening++;
    }
}

static void note_latency(double took)
{
    if (accepted == room)
        latencies = realloc(latencies, (room = room ? 2 * room : 4096) * sizeof *latencies);
    latencies[accepted++] = took;
}

static void shake_hands(struct session *one)
{
    int events = tls_shake_hands(one->tls);
    wait_to_send(one, !!(events & EPOLLOUT));
    if (events)
        return;
    one->step = HELLO;
    say(one, &hello, 0);
}

/* All replies owed have come. Returns 0 where the session is over. */
static int advance(struct session *one)
{
    if (one->step == GREETING) {
        opening--;
        if (opening_limit)
            open_more();
        one->step = starttls ? PLAIN_HELLO : HELLO;
        say(one, &hello, 0);
        return 1;
    }
    if (one->step == PLAIN_HELLO) {
        one->step = STARTTLS;
        say(one, &start_tls, 0);
        return 1;
    }
    if (one->step == STARTTLS) {
        one->step = HANDSHAKE;
        one->tls = tls_begin(one->fd);
        shake_hands(one);
        return 1;
    }
    if (one->step > steps + 1) {
        if (one->tls)
            tls_end(one->tls);
        close(one->fd);
        free(one);
        open_now--;
        open_more();
        return 0;
    }
    if (one->step == steps) { /* the content was accepted */
        note_latency(now() - one->began);
        one->step = HELLO;
    }
    if (one->step == HELLO) {
        if ((per_connection && one->taken >= per_connection) || !may_begin()) {
            one->step = steps + 2;
            say(one, &quit, 0);
            return 1;
        }
        one->taken++;
        one->began = now();
        snprintf(one->stamp, sizeof one->stamp, "Subject: bench %010ld", begun++);
    }
    one->step++;
    if (one->step < steps)
        say(one, &envelope[one->step], 0);
    else
        say(one, &content, 1);
    return 1;
}

/* Returns 0 where nothing more is to be read for now. */
static int receive(struct session *one)
{
    char buffer[65536];
    ssize_t got = one->tls ? tls_receive(one->tls, buffer, sizeof buffer) : recv(one->fd, buffer, sizeof buffer, 0);
    if (got < 0 && errno == EAGAIN)
        return 0;
    if (got <= 0)
        die("the server hung up early", got ? strerror(errno) : "");
    for (char *at = buffer, *end = buffer + got; at < end;) {
        while (at < end && one->column < 4 && *at != '\n')
            one->line[one->column++] = *at++;
        char *feed = memchr(at, '\n', end - at);
        if (!feed)
            break;
        if (one->line[0] != '2' && one->line[0] != '3')
            die("the server refused: ", (buffer[got - 1] = 0, buffer));
        one->owed -= one->line[3] != '-';
        one->column = 0;
        at = feed + 1;
    }
    int goes_on = one->owed || advance(one);
    return goes_on && one->tls && one->step != HANDSHAKE && tls_has_more(one->tls);
}

static int by_size(const void *a, const void *b)
{
    double difference = *(const double *)a - *(const double *)b;
    return (difference > 0) - (difference < 0);
}

static double processor(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void read_options(int count, char **words)
{
    struct { const char *name; long *value; int is_flag; } known[] = {
        { "--port", &port, 0 }, { "--sessions", &sessions, 0 }, { "--messages", &messages, 0 },
        { "--size", &size, 0 }, { "--per-connection", &per_connection, 0 }, { "--recipients", &recipients, 0 },
        { "--group", &group, 1 }, { "--dots", &dots, 1 }, { "--starttls", &starttls, 1 },
        { "--opening", &opening_limit, 0 },
    };
    for (int n = 1; n < count; n++) {
        size_t row = 0, rows = sizeof known / sizeof *known;
        if (!strcmp(words[n], "--seconds") && n + 1 < count) {
            seconds = atof(words[++n]);
            continue;
        }
        while (row < rows && strcmp(words[n], known[row].name))
            row++;
        if (row == rows || (!known[row].is_flag && n + 1 == count))
            die("unknown option: ", words[n]);
        *known[row].value = known[row].is_flag ? 1 : atol(words[++n]);
    }
    if (starttls && !tls_begin)
        die("--starttls: built without tls.c; load.py has TLS", "");
}

int main(int count, char **words)
{
    struct epoll_event events[512];
    signal(SIGPIPE, SIG_IGN);
    read_options(count, words);
    write_envelope();
    write_content();
    poller = epoll_create1(0);
    double began = now(), used = processor();
    until = seconds ? began + seconds : began + 1e9;
    open_more();
    while (open_now) {
        int ready = epoll_wait(poller, events, 512, SILENCE_MS);
        if (ready == 0)
            die("the server was silent for 20 s", "");
        for (int n = 0; n < ready; n++) {
            struct session *one = events[n].data.ptr;
            if (one->step == HANDSHAKE) {
                shake_hands(one);
                continue;
            }
            if (events[n].events & EPOLLOUT)
                send_left(one);
            if (events[n].events & ~EPOLLOUT)
                while (receive(one))
                    continue;
        }
    }
    double took = now() - began;
    used = processor() - used;
    if (accepted != begun || !begun)
        die("not all messages that were begun were accepted", "");
    qsort(latencies, accepted, sizeof *latencies, by_size);
    printf("{\"messages\": %ld, \"seconds\": %.6f, \"cpu\": %.6f, \"p50_ms\": %.4f, \"p99_ms\": %.4f}\n", accepted,
           took, used, latencies[accepted / 2] * 1000, latencies[accepted * 99 / 100] * 1000);
    return 0;
}
