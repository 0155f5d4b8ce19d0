/* Small pieces of C for _speedups: an atomic state, and epoll where there is one. */
#ifndef KONG_PDK_POLL_H
#define KONG_PDK_POLL_H

#include <errno.h>
#include <stdatomic.h>

typedef struct { _Atomic int value; } kp_state;

static int kp_change(kp_state *state, int expected, int wanted)
{
    return atomic_compare_exchange_strong(&state->value, &expected, wanted);
}

static void kp_set(kp_state *state, int wanted)
{
    atomic_store(&state->value, wanted);
}

#if defined(__linux__)

#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int kp_poll_new(void) { return epoll_create1(EPOLL_CLOEXEC); }

/* Report fd when it is readable: each time, or once until it is watched again. */
static int kp_poll_watch(int poller, int fd, int again, int once)
{
    struct epoll_event event = { .events = EPOLLIN | EPOLLRDHUP | (once ? EPOLLONESHOT : 0) };
    event.data.fd = fd;
    return epoll_ctl(poller, again ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
}

static int kp_poll_drop(int poller, int fd)
{
    return epoll_ctl(poller, EPOLL_CTL_DEL, fd, 0);
}

/* The readable ones; waits for the first so many nanoseconds, where the kernel can wait for less than
 * a millisecond. */
static int kp_poll_ready(int poller, int *fds, int size, long wait)
{
    struct epoll_event events[256];
    int count = -1;
    if (size > 256)
        size = 256;
#ifdef SYS_epoll_pwait2
    if (wait) {
        struct timespec time = { 0, wait };
        count = (int)syscall(SYS_epoll_pwait2, poller, events, size, &time, 0, 0);
    }
#endif
    if (!wait)
        count = epoll_wait(poller, events, size, 0);
    for (int i = 0; i < count; i++)
        fds[i] = events[i].data.fd;
    return count < 0 ? 0 : count;
}

#else

static int kp_poll_new(void) { errno = ENOSYS; return -1; }
static int kp_poll_watch(int poller, int fd, int again, int once)
{
    (void)poller; (void)fd; (void)again; (void)once;
    errno = ENOSYS;
    return -1;
}
static int kp_poll_drop(int poller, int fd) { (void)poller; (void)fd; return -1; }
static int kp_poll_ready(int poller, int *fds, int size, long wait)
{
    (void)poller; (void)fds; (void)size; (void)wait;
    return 0;
}

#endif
#endif
