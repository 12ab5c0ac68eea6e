/* The load: many connections on one epoll loop, one request under way on each, answers compared byte by byte.
 *
 *     load SCRIPT HOST PORT CLIENTS WARM_SECONDS MEASURE_SECONDS
 *
 * It knows no protocol. What is said and what must be heard stands in SCRIPT (written by script.py), a line a step:
 *
 *     hello SAY... | HEAR...      once on each connection, before anything is measured
 *     cycle SAY... | HEAR...      an operation; after the last one the first one again
 *     aside x50494e470d0a         may come between answers and means nothing to us (NATS' PING)
 *
 * SAY:   x48656c6c6f    these bytes
 *        id             the session's id: sixteen digits of our own, or what the server called it
 *        idlen          its length, in decimal
 *        who            the connection's number, six digits
 *        due            the time in an hour, seconds, ten digits
 * HEAR:  x48656c6c6f    these bytes
 *        any:N          N bytes
 *        digits         one digit or more
 *        name           up to the next CR: the session's id from now on
 *        rest           whatever comes, until what has come ends with the one token that follows
 *
 * An answer that is not the right one ends the run with exit code 1 and its text on stderr: an error is never counted
 * as work. On stdout: `begin` when warm, then one line of JSON; after that it waits for the end of its stdin (whoever
 * started it reads the servers' processor times while all connections live), finishes all sessions and ends.
 */

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { STEPS_MAX = 64, TOKENS_MAX = 64, BUFFER_BYTES = 16384, ID_BYTES = 64, ANSWER_S = 60, TIMES = 4000000, DUE_S = 3600 };

enum kind { BYTES, ID, IDLEN, WHO, DUE, ANY, DIGITS, NAME, REST };

struct token {
    enum kind kind;
    size_t length; /* of BYTES, or of ANY */
    char *bytes;
};

struct step {
    int says, hears;
    struct token say[TOKENS_MAX], hear[TOKENS_MAX];
};

struct connection {
    int fd, number, step;
    unsigned long sessions;
    int64_t sent_ns;
    size_t have;
    char id[ID_BYTES];
    char buffer[BUFFER_BYTES];
};

static struct step hello[STEPS_MAX], cycle[STEPS_MAX];
static struct token aside; /* .length 0: there is none */
static int hellos, cycles;
static uint32_t counts[TIMES]; /* by microseconds; the last one holds everything longer */

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* -- the script ------------------------------------------------------------------------------------------------- */

static struct token parse_token(const char *word) {
    struct token token = {.kind = BYTES};
    if (word[0] == 'x') {
        token.length = strlen(word + 1) / 2;
        token.bytes = malloc(token.length + 1);
        for (size_t i = 0; i < token.length; i++) {
            unsigned byte;
            if (sscanf(word + 1 + 2 * i, "%2x", &byte) != 1) die("no bytes: %s", word);
            token.bytes[i] = (char)byte;
        }
    } else if (!strncmp(word, "any:", 4)) {
        token.kind = ANY;
        token.length = strtoul(word + 4, NULL, 10);
    } else {
        static const char *const words[] = {"id", "idlen", "who", "due", "digits", "name", "rest"};
        static const enum kind kinds[] = {ID, IDLEN, WHO, DUE, DIGITS, NAME, REST};
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
            if (!strcmp(word, words[i])) {
                token.kind = kinds[i];
                return token;
            }
        die("no such token: %s", word);
    }
    return token;
}

static void read_script(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file) die("%s: %s", path, strerror(errno));
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, file) > 0) {
        char *word = strtok(line, " \n");
        if (!word) continue;
        if (!strcmp(word, "aside")) {
            aside = parse_token(strtok(NULL, " \n"));
            continue;
        }
        int is_hello = !strcmp(word, "hello");
        if (!is_hello && strcmp(word, "cycle")) die("no such line: %s", word);
        if ((is_hello ? hellos : cycles) == STEPS_MAX) die("more than %d steps", STEPS_MAX);
        struct step *step = is_hello ? &hello[hellos++] : &cycle[cycles++];
        int hears = 0;
        while ((word = strtok(NULL, " \n"))) {
            if (!strcmp(word, "|")) {
                hears = 1;
                continue;
            }
            int *count = hears ? &step->hears : &step->says;
            if (*count == TOKENS_MAX) die("more than %d tokens", TOKENS_MAX);
            (hears ? step->hear : step->say)[(*count)++] = parse_token(word);
        }
    }
    free(line);
    fclose(file);
    if (!cycles) die("%s: nothing to say", path);
}

/* -- one connection --------------------------------------------------------------------------------------------- */

static void put(char *to, size_t *length, const char *bytes, size_t count) {
    if (*length + count > BUFFER_BYTES) die("a request of more than %d bytes", BUFFER_BYTES);
    memcpy(to + *length, bytes, count);
    *length += count;
}

static void say(struct connection *c, const struct step *step) {
    char message[BUFFER_BYTES], word[32];
    size_t length = 0;
    for (int i = 0; i < step->says; i++) {
        const struct token *token = &step->say[i];
        switch (token->kind) {
        case ID: put(message, &length, c->id, strlen(c->id)); break;
        case IDLEN: put(message, &length, word, (size_t)sprintf(word, "%zu", strlen(c->id))); break;
        case WHO: put(message, &length, word, (size_t)sprintf(word, "%06d", c->number)); break;
        case DUE: put(message, &length, word, (size_t)sprintf(word, "%010ld", (long)time(NULL) + DUE_S)); break;
        default: put(message, &length, token->bytes, token->length);
        }
    }
    for (size_t at = 0; at < length;) {
        ssize_t sent = send(c->fd, message + at, length - at, MSG_NOSIGNAL);
        if (sent >= 0) {
            at += (size_t)sent;
        } else if (errno == EAGAIN) {
            struct pollfd wait = {.fd = c->fd, .events = POLLOUT};
            poll(&wait, 1, ANSWER_S * 1000);
        } else if (errno != EINTR) {
            die("the server broke the connection: %s", strerror(errno));
        }
    }
}

static void show(const char *what, const struct connection *c) {
    fprintf(stderr, "%s: ", what);
    for (size_t i = 0; i < c->have && i < 400; i++)
        fprintf(stderr, isprint((unsigned char)c->buffer[i]) ? "%c" : "\\x%02x", (unsigned char)c->buffer[i]);
    fputc('\n', stderr);
}

static void wrong(const struct connection *c) {
    show("a wrong answer", c);
    exit(1);
}

static int is_aside(const char *at, size_t left) {
    return aside.length && left >= aside.length && !memcmp(at, aside.bytes, aside.length);
}

/* Whether the answer is whole. Ends the run when it cannot become the right one. */
static int heard(struct connection *c, const struct step *step) {
    while (is_aside(c->buffer, c->have)) {
        c->have -= aside.length;
        memmove(c->buffer, c->buffer + aside.length, c->have);
    }
    const char *at = c->buffer, *end = c->buffer + c->have;
    for (int i = 0; i < step->hears; i++) {
        const struct token *token = &step->hear[i];
        size_t left = (size_t)(end - at);
        switch (token->kind) {
        case ANY:
            if (left < token->length) return 0;
            at += token->length;
            break;
        case DIGITS:
            if (at == end) return 0;
            if (!isdigit((unsigned char)*at)) wrong(c);
            while (at < end && isdigit((unsigned char)*at)) at++;
            if (at == end) return 0;
            break;
        case NAME: {
            const char *cr = memchr(at, '\r', left);
            size_t length = cr ? (size_t)(cr - at) : left;
            if (length >= ID_BYTES) wrong(c);
            if (!cr) return 0;
            memcpy(c->id, at, length);
            c->id[length] = 0;
            at = cr;
            break;
        }
        case REST: {
            const struct token *last = &step->hear[i + 1];
            if (left < last->length || memcmp(end - last->length, last->bytes, last->length)) return 0;
            at = end;
            i++;
            break;
        }
        default: {
            size_t length = left < token->length ? left : token->length;
            if (memcmp(at, token->bytes, length)) wrong(c);
            if (length < token->length) return 0;
            at += length;
        }
        }
    }
    while (is_aside(at, (size_t)(end - at))) at += aside.length;
    if (at != end) wrong(c);
    return 1;
}

/* Take what came in; whether that completes the answer to the step under way. */
static int listened(struct connection *c, const struct step *step) {
    if (c->have == BUFFER_BYTES) wrong(c);
    ssize_t came = recv(c->fd, c->buffer + c->have, BUFFER_BYTES - c->have, 0);
    if (came < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (came < 0) die("the server broke the connection: %s", strerror(errno));
    if (!came) {
        show("what came before the end", c);
        die("the server closed the connection");
    }
    c->have += (size_t)came;
    if (!heard(c, step)) return 0;
    c->have = 0;
    return 1;
}

static void greet(struct connection *c, const struct sockaddr_in *address) {
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    int on = 1;
    struct timeval patience = {.tv_sec = ANSWER_S};
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(c->fd, (const struct sockaddr *)address, sizeof *address)) die("no server: %s", strerror(errno));
    for (int i = 0; i < hellos; i++) {
        int64_t until = now_ns() + (int64_t)ANSWER_S * 1000000000;
        say(c, &hello[i]);
        while (!listened(c, &hello[i]))
            if (now_ns() > until) {
                show("what came", c);
                die("greeting %d is not answered within %d s", i + 1, ANSWER_S);
            }
    }
}

static void next(struct connection *c) {
    if (c->step == 0) snprintf(c->id, ID_BYTES, "%06d%010lu", c->number, ++c->sessions % 10000000000);
    say(c, &cycle[c->step]);
}

/* -- all of them ------------------------------------------------------------------------------------------------ */

static int epoll;

/* Keep all connections at work until then, or, with `finishing`, until each stands between two sessions. */
static int64_t turns(int64_t until, int finishing, int left) {
    static struct epoll_event ready[1024];
    int64_t now = now_ns();
    while (finishing ? left > 0 : now < until) {
        int count = epoll_wait(epoll, ready, 1024, ANSWER_S * 1000);
        if (count < 0 && errno != EINTR) die("epoll: %s", strerror(errno));
        if (!count) die("the server answered nobody for %d s", ANSWER_S);
        for (int i = 0; i < count; i++) {
            struct connection *c = ready[i].data.ptr;
            if (!listened(c, &cycle[c->step])) continue;
            now = now_ns();
            int64_t took_us = (now - c->sent_ns) / 1000;
            counts[took_us < TIMES ? took_us : TIMES - 1]++;
            c->step = (c->step + 1) % cycles;
            if (finishing && c->step == 0) {
                epoll_ctl(epoll, EPOLL_CTL_DEL, c->fd, NULL);
                left--;
                continue;
            }
            c->sent_ns = now;
            next(c);
        }
    }
    return now;
}

static double seconds_of(struct timeval t) { return (double)t.tv_sec + (double)t.tv_usec / 1e6; }

int main(int argc, char **argv) {
    if (argc != 7) die("load SCRIPT HOST PORT CLIENTS WARM_SECONDS MEASURE_SECONDS");
    read_script(argv[1]);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[3]))};
    if (inet_pton(AF_INET, argv[2], &address.sin_addr) != 1) die("no address: %s", argv[2]);
    int clients = atoi(argv[4]);
    double warm_s = atof(argv[5]), measure_s = atof(argv[6]);
    struct connection *all = calloc((size_t)clients, sizeof *all);
    if (!all) die("no memory for %d clients", clients);
    epoll = epoll_create1(0);
    for (int i = 0; i < clients; i++) {
        all[i].number = i;
        greet(&all[i], &address);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, all[i].fd, &event)) die("epoll: %s", strerror(errno));
    }
    for (int i = 0; i < clients; i++) {
        all[i].sent_ns = now_ns();
        next(&all[i]);
    }
    turns(now_ns() + (int64_t)(warm_s * 1e9), 0, 0);
    puts("begin");
    fflush(stdout);

    struct rusage before, after;
    memset(counts, 0, sizeof counts);
    getrusage(RUSAGE_SELF, &before);
    int64_t begun = now_ns(), ended = turns(begun + (int64_t)(measure_s * 1e9), 0, 0);
    getrusage(RUSAGE_SELF, &after);
    printf("{\"seconds\": %.6f, \"user_s\": %.6f, \"system_s\": %.6f, \"counts\": [", (double)(ended - begun) / 1e9,
           seconds_of(after.ru_utime) - seconds_of(before.ru_utime),
           seconds_of(after.ru_stime) - seconds_of(before.ru_stime));
    const char *comma = "";
    for (int i = 0; i < TIMES; i++)
        if (counts[i]) {
            printf("%s[%d, %u]", comma, i, counts[i]);
            comma = ", ";
        }
    puts("]}");
    fflush(stdout);

    while (getchar() != EOF) continue;
    turns(0, 1, clients);
    return 0;
}
