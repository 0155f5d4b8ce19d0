/* Acts as Kong against a plugin server, in a closed loop of events, and measures it.
 *
 * One thread, one epoll. Each call takes a connection from a last-in-first-out pool, as nginx's
 * keep-alive does, and gives it back after the reply; so the steps of an event mostly use the
 * connection that it began on. Prints one JSON object. See usage().
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "measure.h"
#include "reply.h"

#define HEAD_SIZE 256     /* of a request without its body */
#define MAX_ERRORS 1000   /* after so many there is nothing to be measured any more */

struct connection {
    int fd;
    struct pool *pool;
    struct event *event; /* whose call is under way; NULL while idle */
    uint8_t *in;
    size_t in_used, in_size;
    uint8_t head[HEAD_SIZE], tail[32]; /* the request: head, body, tail */
    struct iovec out[3];
    int blocked; /* a part of the request waits for room in the socket */
    struct connection *next;
};

/* One worker of nginx: its own connections, instance and message ids. */
struct pool {
    struct connection **idle;
    int idle_count, idle_size;
    uint64_t instance, msgid;
};

struct event {
    struct pool *pool;
    struct connection *connection; /* of the call under way; NULL between events */
    uint64_t id, msgid;
    uint64_t begun, called; /* ns */
    int stepping; /* the id is known */
};

static const char *socket_path, *plugin = "py-hello", *config = "{}", *phase = "access";
static int under_way = 1, workers = 1, scatter;
static double seconds = 3, warmup = 0.5, timeout = 10;
static size_t body_size = 1024;

static int epoll_fd, measuring, running = 1;
static uint8_t *body;
static struct connection *connections; /* all, for the end */
static struct latencies latencies; /* of the events in the measured time */
static uint64_t events, rpcs; /* in the measured time */
static uint64_t all_events, all_rpcs, all_exits, errors; /* warm-up and drain included */
static uint64_t strays; /* answers to a call that has been answered: Kong fails, or closes */

static void usage(FILE *to) {
    fprintf(to,
            "usage: load --socket PATH [options]\n"
            "  --socket PATH     of the plugin server\n"
            "  --plugin NAME     to start an instance of (py-hello)\n"
            "  --config JSON     of the instance ({})\n"
            "  --phase NAME      to run (access)\n"
            "  --under-way N     events at the same time (1)\n"
            "  --seconds S       to measure (3)\n"
            "  --warmup S        before that (0.5)\n"
            "  --scatter         each step takes a random idle connection, not the last one\n"
            "                    used; twice as many connections as events are kept\n"
            "  --workers N       workers of nginx: separate pools and instances (1)\n"
            "  --body BYTES      size of what get_raw_body gives (1024)\n"
            "  --timeout S       a call that takes longer is an error (10); so long are events that\n"
            "                    are under way at the end waited for, too\n"
            "Prints a JSON object. Status: 0, 1 if there were errors, 2 if it cannot run.\n");
}

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "load: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(2);
}

__attribute__((format(printf, 1, 2))) static void error(const char *format, ...) {
    if (errors++ == 0) {
        va_list args;
        va_start(args, format);
        fprintf(stderr, "load: first error: ");
        vfprintf(stderr, format, args);
        fprintf(stderr, "\n");
        va_end(args);
    }
    if (errors >= MAX_ERRORS) running = 0;
}

static void *allocate(void *old, size_t size) {
    void *memory = realloc(old, size);
    if (!memory) die("no memory");
    return memory;
}

/* --- connections ------------------------------------------------------------------------------ */

static struct connection *connect_to(struct pool *pool) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct connection *c;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memcpy(address.sun_path, socket_path, strlen(socket_path) + 1);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        error("cannot connect to %s: %s", socket_path, strerror(errno));
        if (fd >= 0) close(fd);
        running = 0; /* nobody is there any more */
        return NULL;
    }
    c = allocate(NULL, sizeof *c);
    memset(c, 0, sizeof *c);
    c->fd = fd;
    c->pool = pool;
    c->in = allocate(NULL, c->in_size = 16384);
    c->next = connections;
    connections = c;
    return c;
}

static void watch(struct connection *c, int operation, uint32_t interest) {
    struct epoll_event wanted = {.events = interest, .data.ptr = c};
    if (epoll_ctl(epoll_fd, operation, c->fd, &wanted) < 0) die("epoll: %s", strerror(errno));
}

static void give_back(struct connection *c) {
    struct pool *pool = c->pool;
    if (pool->idle_count == pool->idle_size) {
        pool->idle_size = pool->idle_size ? 2 * pool->idle_size : 64;
        pool->idle = allocate(pool->idle, (size_t)pool->idle_size * sizeof *pool->idle);
    }
    c->event = NULL;
    pool->idle[pool->idle_count++] = c;
}

/* A connection that is closed stays in memory: its address may be in the batch of epoll. */
static void drop(struct connection *c) {
    struct pool *pool = c->pool;
    for (int i = 0; i < pool->idle_count; i++) {
        if (pool->idle[i] == c) {
            memmove(pool->idle + i, pool->idle + i + 1,
                    (size_t)(--pool->idle_count - i) * sizeof *pool->idle);
            break;
        }
    }
    close(c->fd);
    c->fd = -1;
    c->event = NULL;
}

static void adopt(struct connection *c) {
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
    give_back(c);
}

static void add_idle(struct pool *pool) {
    struct connection *c = connect_to(pool);
    if (c) adopt(c);
}

static struct connection *take(struct pool *pool, int step) {
    struct connection *c;
    if (!pool->idle_count) add_idle(pool);
    if (!pool->idle_count) return NULL;
    int last = --pool->idle_count;
    if (scatter && step) {
        int chosen = (int)random_below((uint32_t)last + 1);
        c = pool->idle[chosen];
        pool->idle[chosen] = pool->idle[last];
        return c;
    }
    return pool->idle[last];
}

/* --- calls ------------------------------------------------------------------------------------ */

static void fail(struct event *event) { /* the event is lost; the main loop begins another */
    if (event->connection) drop(event->connection);
    event->connection = NULL;
}

/* Send what the socket takes; `again` when a part of the request has been sent before. */
static void send_request(struct connection *c, int again) {
    struct msghdr message = {.msg_iov = c->out, .msg_iovlen = 3};
    ssize_t sent = sendmsg(c->fd, &message, MSG_NOSIGNAL);
    if (sent < 0 && errno != EINTR && errno != EAGAIN) {
        error("cannot send a request: %s", strerror(errno));
        fail(c->event);
        return;
    }
    size_t left = 0, done = sent > 0 ? (size_t)sent : 0;
    for (int i = 0; i < 3; i++) {
        size_t part = done < c->out[i].iov_len ? done : c->out[i].iov_len;
        c->out[i].iov_base = (char *)c->out[i].iov_base + part;
        c->out[i].iov_len -= part;
        done -= part;
        left += c->out[i].iov_len;
    }
    c->blocked = left > 0;
    if (c->blocked != again) watch(c, EPOLL_CTL_MOD, c->blocked ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void call(struct event *event, struct connection *c, uint8_t *end, size_t body_part,
                 uint8_t *tail_end) {
    c->out[0] = (struct iovec){c->head, (size_t)(end - c->head)};
    c->out[1] = (struct iovec){body, body_part};
    c->out[2] = (struct iovec){c->tail, (size_t)(tail_end - c->tail)};
    c->event = event;
    event->connection = c;
    event->called = now();
    send_request(c, 0);
}

static uint8_t *put_call(struct event *event, struct connection *c, const char *method) {
    uint8_t *to = PUT_BYTES(c->head, "\x94\x00");
    to = put_uint(to, event->msgid = ++event->pool->msgid);
    to = put_text(to, method, strlen(method));
    return PUT_BYTES(to, "\x91");
}

static void begin(struct event *event) {
    struct connection *c = take(event->pool, 0);
    if (!c) return;
    uint8_t *to = put_call(event, c, "plugin.HandleEvent");
    to = PUT_BYTES(to, "\x82\xaaInstanceId");
    to = put_uint(to, event->pool->instance);
    to = PUT_BYTES(to, "\xa9" "EventName");
    to = put_text(to, phase, strlen(phase));
    event->stepping = 0;
    event->begun = now();
    call(event, c, to, 0, c->tail);
}

static int ends_with(struct text text, const char *end) {
    size_t size = strlen(end);
    return text.size >= size && memcmp(text.data + text.size - size, end, size) == 0;
}

static void step(struct event *event, struct text method) {
    struct connection *c = take(event->pool, 1);
    if (!c) return;
    uint8_t *to = put_call(event, c, "plugin.Step"), *tail = c->tail;
    const char *dot = memrchr(method.data, '.', method.size);
    struct text name = {dot ? dot + 1 : method.data, 0};
    name.size = (size_t)(method.data + method.size - name.data);
    int has_body = ends_with(method, ".get_raw_body");
    int has_data = name.size > 4 && memcmp(name.data, "get_", 4) == 0;
    int id_first = event->msgid & 1; /* the order of keys in Lua is anyone's guess */
    *to++ = has_data ? 0x82 : 0x81;
    if (id_first || !has_data) to = put_uint(PUT_BYTES(to, "\xa7" "EventId"), event->id);
    if (has_data) to = PUT_BYTES(to, "\xa4" "Data");
    if (has_body) {
        to = put_bin_head(to, body_size);
    } else if (has_data) {
        to = PUT_BYTES(to, "\xab" "example.com");
    }
    if (!id_first && has_data) tail = put_uint(PUT_BYTES(tail, "\xa7" "EventId"), event->id);
    call(event, c, to, has_body ? body_size : 0, tail);
}

static void end_event(struct event *event) {
    uint64_t taken = now() - event->begun;
    all_events++;
    if (measuring) {
        events++;
        if (!record(&latencies, taken)) die("no memory");
    }
    if (running) begin(event);
}

static void answered(struct connection *c, struct reply *reply) {
    struct event *event = c->event;
    struct text method = {NULL, 0};
    uint64_t id = 0;
    if (reply->msgid != event->msgid) {
        if (reply->msgid < event->msgid) {
            strays++;
        } else {
            error("a reply to message %llu, where %llu was asked",
                  (unsigned long long)reply->msgid, (unsigned long long)event->msgid);
        }
        fail(event);
        return;
    }
    give_back(c);
    event->connection = NULL;
    all_rpcs++;
    if (measuring) rpcs++;
    if (reply->error.data) {
        error("the server answers: %.*s", (int)reply->error.size, reply->error.data);
    } else if (read_turn(reply->result, &id, &method) != MP_OK) {
        error("the answer to an event or a step is not {Data, EventId}");
    } else if (event->stepping && id != event->id && id) { /* 0: refused by who knows no events */
        error("an answer for event %llu, where %llu was asked", (unsigned long long)id,
              (unsigned long long)event->id);
    } else if (!method.size || text_is(method, "kong.response.exit") ||
               text_is(method, "kong.response.error")) {
        all_exits += method.size > 0;
        end_event(event);
    } else {
        event->id = id;
        event->stepping = 1;
        step(event, method);
    }
}

static ssize_t receive(struct connection *c) {
    if (c->in_used == c->in_size) c->in = allocate(c->in, c->in_size *= 2);
    ssize_t got = recv(c->fd, c->in + c->in_used, c->in_size - c->in_used, 0);
    if (got > 0) c->in_used += (size_t)got;
    return got;
}

static void readable(struct connection *c) {
    ssize_t got = receive(c);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) { /* an idle connection may be closed at any time */
        if (!c->event) {
            drop(c);
        } else {
            error("the server has closed a connection that waited for a reply");
            fail(c->event);
        }
        return;
    }
    struct reader r = {c->in, c->in + c->in_used};
    struct reply reply = {0};
    int status = c->event ? read_reply(&r, &reply) : MP_BAD;
    if (status == MP_SHORT) return;
    if (!c->event) { /* nginx closes an idle connection then */
        strays++;
        drop(c);
        return;
    }
    if (status == MP_BAD || r.at != r.end) {
        error(status == MP_BAD ? "what the server sends is no reply"
                               : "there is more behind a reply");
        fail(c->event);
        return;
    }
    c->in_used = 0;
    answered(c, &reply);
}

/* --- the run ---------------------------------------------------------------------------------- */

/* Blocks: the only call before the measurement. */
static void start_instance(struct pool *pool) {
    size_t size = strlen(plugin) + strlen(config) + 128;
    uint8_t *message = allocate(NULL, size), *to = PUT_BYTES(message, "\x94\x00");
    struct connection *c = connect_to(pool);
    struct timeval limit = {.tv_sec = (time_t)timeout + 1};
    struct reply reply = {0};
    int status = MP_SHORT;
    if (!c) exit(2);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    to = put_uint(to, ++pool->msgid);
    to = PUT_BYTES(to, "\xb4" "plugin.StartInstance\x91\x82\xa4Name");
    to = put_text(to, plugin, strlen(plugin));
    to = PUT_BYTES(to, "\xa6" "Config");
    to = put_text(to, config, strlen(config));
    for (uint8_t *at = message; at < to;) {
        ssize_t sent = send(c->fd, at, (size_t)(to - at), MSG_NOSIGNAL);
        if (sent < 0) die("cannot start an instance: %s", strerror(errno));
        at += sent;
    }
    while (status == MP_SHORT) {
        ssize_t got = receive(c);
        if (got < 0) die("no answer to StartInstance: %s", strerror(errno));
        if (got == 0) die("the server has closed the connection in place of starting an instance");
        struct reader r = {c->in, c->in + c->in_used};
        status = read_reply(&r, &reply);
    }
    if (status == MP_OK && reply.error.data)
        die("cannot start an instance: %.*s", (int)reply.error.size, reply.error.data);
    if (status != MP_OK || read_instance(reply.result, &pool->instance) != MP_OK)
        die("the answer to StartInstance has no Id");
    free(message);
    c->in_used = 0;
    adopt(c);
}

static void look_after(struct event *all) { /* what has failed, and what takes too long */
    uint64_t limit = now() - (uint64_t)(timeout * 1e9);
    for (int i = 0; i < under_way; i++) {
        if (all[i].connection && all[i].called < limit) {
            error("no reply within %g s", timeout);
            fail(&all[i]);
        }
        if (!all[i].connection && running) begin(&all[i]);
    }
}

static int is_any_under_way(const struct event *all) {
    for (int i = 0; i < under_way; i++) {
        if (all[i].connection) return 1;
    }
    return 0;
}

static void serve(int patience_ms) {
    struct epoll_event ready[256];
    int count = epoll_wait(epoll_fd, ready, 256, patience_ms);
    for (int i = 0; i < count; i++) {
        struct connection *c = ready[i].data.ptr;
        if (c->fd >= 0 && ready[i].events & EPOLLOUT && c->event) send_request(c, 1);
        if (c->fd >= 0 && ready[i].events & ~(uint32_t)EPOLLOUT) readable(c);
    }
}

static void run(struct event *all) {
    uint64_t start = now(), next_look = 0;
    uint64_t from = start + (uint64_t)(warmup * 1e9), to = from + (uint64_t)(seconds * 1e9);
    double cpu = 0;
    while (running) {
        uint64_t time = now();
        if (!measuring && time >= from) {
            measuring = 1;
            from = time;
            cpu = cpu_seconds();
        }
        if (time >= next_look) {
            look_after(all);
            next_look = time + 50000000u;
        }
        if (time >= to) break;
        uint64_t until = measuring ? to : from;
        serve(until - time < 50000000u ? (int)((until - time) / 1000000u) + 1 : 50);
    }
    uint64_t end = now();
    cpu = measuring ? cpu_seconds() - cpu : 0;
    running = measuring = 0;
    while (is_any_under_way(all) && now() - end < (uint64_t)(timeout * 1e9)) serve(50);
    for (int i = 0; i < under_way; i++) {
        if (all[i].connection) error("an event under way at the end has had no answer");
    }
    double taken = end > from ? (double)(end - from) / 1e9 : 1;
    sort(&latencies);
    printf("{\"events\": %llu, \"all_events\": %llu, \"all_rpcs\": %llu, "
           "\"all_exits\": %llu, "
           "\"events_per_s\": %.1f, \"rpcs_per_s\": %.1f, "
           "\"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, "
           "\"errors\": %llu, \"strays\": %llu, \"cpu_us_per_event\": %.2f}\n",
           (unsigned long long)events, (unsigned long long)all_events,
           (unsigned long long)all_rpcs, (unsigned long long)all_exits, (double)events / taken, (double)rpcs / taken,
           percentile(&latencies, 0.5), percentile(&latencies, 0.9), percentile(&latencies, 0.99),
           percentile(&latencies, 1),
           (unsigned long long)errors, (unsigned long long)strays, events ? cpu * 1e6 / (double)events : 0.0);
}

static double positive(const char *name, const char *text, double least) {
    char *end;
    double value = strtod(text, &end);
    if (*end || end == text || value < least) die("--%s wants a number from %g, got %s", name,
                                                  least, text);
    return value;
}

static void read_options(int argc, char **argv) {
    static const struct option options[] = {
        {"socket", 1, 0, 's'},  {"plugin", 1, 0, 'p'},  {"config", 1, 0, 'c'},
        {"phase", 1, 0, 'f'},   {"under-way", 1, 0, 'n'}, {"seconds", 1, 0, 't'},
        {"warmup", 1, 0, 'w'},  {"scatter", 0, 0, 'x'}, {"workers", 1, 0, 'k'},
        {"body", 1, 0, 'b'},    {"timeout", 1, 0, 'o'}, {"help", 0, 0, 'h'},
        {0, 0, 0, 0},
    };
    int option, index = 0;
    while ((option = getopt_long(argc, argv, "", options, &index)) != -1) {
        const char *name = options[index].name;
        switch (option) {
        case 's': socket_path = optarg; break;
        case 'p': plugin = optarg; break;
        case 'c': config = optarg; break;
        case 'f': phase = optarg; break;
        case 'n': under_way = (int)positive(name, optarg, 1); break;
        case 't': seconds = positive(name, optarg, 0.01); break;
        case 'w': warmup = positive(name, optarg, 0); break;
        case 'x': scatter = 1; break;
        case 'k': workers = (int)positive(name, optarg, 1); break;
        case 'b': body_size = (size_t)positive(name, optarg, 0); break;
        case 'o': timeout = positive(name, optarg, 0.01); break;
        case 'h': usage(stdout); exit(0);
        default: usage(stderr); exit(2);
        }
    }
    if (optind < argc || !socket_path) {
        usage(stderr);
        exit(2);
    }
    if (strlen(socket_path) >= sizeof((struct sockaddr_un *)0)->sun_path)
        die("the path of the socket is longer than 107 bytes: %s", socket_path);
    if (strlen(phase) > 64) die("--phase is too long");
}

int main(int argc, char **argv) {
    read_options(argc, argv);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0) die("epoll: %s", strerror(errno));
    body = allocate(NULL, body_size + 1);
    memset(body, 'b', body_size);
    struct pool *pools = calloc((size_t)workers, sizeof *pools);
    struct event *all = calloc((size_t)under_way, sizeof *all);
    if (!pools || !all) die("no memory");
    for (int i = 0; i < workers; i++) start_instance(&pools[i]);
    for (int i = 0; i < under_way; i++) all[i].pool = &pools[i % workers];
    for (int i = 0; scatter && i < 2 * under_way - workers; i++) add_idle(&pools[i % workers]);
    run(all);
    while (connections) {
        struct connection *c = connections;
        connections = c->next;
        if (c->fd >= 0) close(c->fd);
        free(c->in);
        free(c);
    }
    for (int i = 0; i < workers; i++) free(pools[i].idle);
    free(pools);
    free(all);
    free(body);
    free(latencies.tenths);
    return errors ? 1 : 0;
}
