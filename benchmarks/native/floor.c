/* The cheapest server for the documented plugin: what the machine itself costs, and no server in
 * Python can be under. One thread with epoll, or with --threads one for each connection. See
 * usage().
 */

#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "mp.h"

#define SLOTS (1u << 20) /* events under way at the same time, at most */
#define REPLY_SIZE 512

struct connection {
    int fd;
    uint8_t *in;
    size_t used, size;
};

static const char *socket_path;
static int threads;
static enum { HELLO, ECHO, BODY } traffic = HELLO;
static uint8_t stages[SLOTS]; /* how many PDK calls an event has made, by its id */
static uint64_t next_event;

static void usage(FILE *to) {
    fprintf(to,
            "usage: floor --socket PATH [--threads] [--echo | --body]\n"
            "  --socket PATH   to listen on\n"
            "  --threads       a thread per connection, in place of one thread with epoll\n"
            "  --echo          answer \"ret\" to each event at once, without a PDK call\n"
            "  --body          one PDK call per event, get_raw_body\n"
            "Ends with SIGTERM, and with the process that has started it.\n");
}

static void end(int number) {
    (void)number;
    unlink(socket_path);
    _exit(0);
}

/* --- messages --------------------------------------------------------------------------------- */

struct request {
    uint64_t msgid, event_id;
    struct text method, data;
};

static int read_request(struct reader *r, struct request *request) {
    uint64_t size, type;
    request->data = (struct text){"", 0};
    request->event_id = 0;
    MP_TRY(mp_array(r, &size));
    MP_TRY(mp_uint(r, &type));
    if (size != 4 || type != 0) return MP_BAD;
    MP_TRY(mp_uint(r, &request->msgid));
    MP_TRY(mp_text(r, &request->method));
    MP_TRY(mp_array(r, &size));
    if (size != 1) return MP_BAD;
    MP_TRY(mp_map(r, &size));
    while (size--) {
        struct text key;
        MP_TRY(mp_text(r, &key));
        if (text_is(key, "EventId")) {
            MP_TRY(mp_uint(r, &request->event_id));
        } else if (text_is(key, "Data") && mp_is_string(r)) {
            MP_TRY(mp_text(r, &request->data));
        } else {
            MP_TRY(mp_skip(r));
        }
    }
    return MP_OK;
}

static uint8_t *put_call(uint8_t *to, const char *method, int args) {
    to = PUT_BYTES(to, "\x82\xa4" "Data\x82\xa6Method");
    to = put_text(to, method, strlen(method));
    to = PUT_BYTES(to, "\xa4" "Args");
    *to = (uint8_t)(0x90 | args);
    return to + 1;
}

static uint8_t *put_hello(uint8_t *to, int stage, struct text data) {
    if (stage == 0) {
        to = put_call(to, "kong.request.get_header", 1);
        return PUT_BYTES(to, "\xa4host");
    }
    if (stage == 1) {
        static const char text[] = "Python says hello to ";
        size_t size = data.size < 200 ? data.size : 200;
        to = put_call(to, "kong.response.set_header", 2);
        to = PUT_BYTES(to, "\xb3x-hello-from-python");
        to = put_text_head(to, sizeof text - 1 + size);
        return put_raw(PUT_BYTES(to, text), data.data, size);
    }
    if (stage == 2) {
        to = put_call(to, "kong.response.set_header", 2);
        return PUT_BYTES(to, "\xacx-python-pid\xa5" "12345");
    }
    return PUT_BYTES(to, "\x82\xa4" "Data\xa3ret");
}

static uint8_t *put_body(uint8_t *to, int stage) {
    if (stage == 0) return put_call(to, "kong.request.get_raw_body", 0);
    return PUT_BYTES(to, "\x82\xa4" "Data\xa3ret");
}

static uint8_t *put_reply(uint8_t *to, const struct request *request) {
    to = put_uint(PUT_BYTES(to, "\x94\x01"), request->msgid);
    if (text_is(request->method, "plugin.StartInstance"))
        return PUT_BYTES(to, "\xc0\x84\xa4Name\xa8py-hello\xa2Id\x01\xa6" "Config\x80"
                             "\xa9StartTime\x00");
    uint64_t id = request->event_id;
    int stage = 0;
    if (text_is(request->method, "plugin.HandleEvent")) {
        id = __atomic_add_fetch(&next_event, 1, __ATOMIC_RELAXED);
    } else if (request->method.size >= 11 && !memcmp(request->method.data, "plugin.Step", 11)) {
        stage = stages[id % SLOTS] + 1;
    } else {
        return PUT_BYTES(to, "\xb5there is no such call\xc0");
    }
    stages[id % SLOTS] = (uint8_t)stage;
    *to++ = 0xc0;
    if (traffic == HELLO) {
        to = put_hello(to, stage, request->data);
    } else {
        to = put_body(to, traffic == ECHO ? 1 : stage);
    }
    return put_uint(PUT_BYTES(to, "\xa7" "EventId"), id);
}

/* --- connections ------------------------------------------------------------------------------ */

static int send_all(int fd, const uint8_t *data, size_t size) {
    while (size) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            struct pollfd room = {fd, POLLOUT, 0};
            poll(&room, 1, -1);
        } else if (sent < 0 && errno != EINTR) {
            return 0;
        } else if (sent > 0) {
            data += sent;
            size -= (size_t)sent;
        }
    }
    return 1;
}

/* Read once and answer what is complete; 0 when the connection has ended. */
static int serve(struct connection *c) {
    if (c->used == c->size) {
        size_t size = c->size ? 2 * c->size : 16384;
        uint8_t *in = realloc(c->in, size);
        if (!in) return 0;
        c->in = in;
        c->size = size;
    }
    ssize_t got = recv(c->fd, c->in + c->used, c->size - c->used, 0);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got == 0) return 0;
    c->used += (size_t)got;
    struct reader r = {c->in, c->in + c->used};
    while (r.at < r.end) {
        struct request request = {0};
        uint8_t reply[REPLY_SIZE];
        const uint8_t *start = r.at;
        int status = read_request(&r, &request);
        if (status == MP_BAD) return 0;
        if (status == MP_SHORT) {
            r.at = start;
            break;
        }
        if (!send_all(c->fd, reply, (size_t)(put_reply(reply, &request) - reply))) return 0;
    }
    c->used = (size_t)(r.end - r.at);
    if (c->used && r.at != c->in) memmove(c->in, r.at, c->used);
    return 1;
}

static void close_connection(struct connection *c) {
    close(c->fd);
    free(c->in);
    free(c);
}

static struct connection *accepted(int listener, int flags) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | flags);
    if (fd < 0) return NULL;
    struct connection *c = calloc(1, sizeof *c);
    if (!c) {
        close(fd);
        return NULL;
    }
    c->fd = fd;
    return c;
}

static void *serve_in_thread(void *argument) {
    struct connection *c = argument;
    while (serve(c)) {}
    close_connection(c);
    return NULL;
}

static void run_threads(int listener) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 64 * 1024);
    for (;;) {
        pthread_t thread;
        struct connection *c = accepted(listener, 0);
        if (c && pthread_create(&thread, &attributes, serve_in_thread, c)) close_connection(c);
    }
}

static void run_epoll(int listener) {
    struct epoll_event ready[256], wanted = {.events = EPOLLIN, .data.ptr = NULL};
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &wanted);
    for (;;) {
        int count = epoll_wait(epoll_fd, ready, 256, -1);
        for (int i = 0; i < count; i++) {
            struct connection *c = ready[i].data.ptr;
            if (c) {
                if (!serve(c)) close_connection(c);
            } else if ((c = accepted(listener, SOCK_NONBLOCK))) {
                wanted.data.ptr = c;
                epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &wanted);
            }
        }
    }
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"socket", 1, 0, 's'}, {"threads", 0, 0, 't'}, {"echo", 0, 0, 'e'},
        {"body", 0, 0, 'b'},   {"help", 0, 0, 'h'},    {0, 0, 0, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 's': socket_path = optarg; break;
        case 't': threads = 1; break;
        case 'e': traffic = ECHO; break;
        case 'b': traffic = BODY; break;
        case 'h': usage(stdout); return 0;
        default: usage(stderr); return 2;
        }
    }
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!socket_path || optind < argc || strlen(socket_path) >= sizeof address.sun_path) {
        usage(stderr);
        return 2;
    }
    strcpy(address.sun_path, socket_path);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) {
        fprintf(stderr, "floor: cannot listen on %s: %s\n", socket_path, strerror(errno));
        return 2;
    }
    signal(SIGTERM, end);
    signal(SIGINT, end);
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* nothing is left behind after a run that was killed */
    threads ? run_threads(listener) : run_epoll(listener);
}
