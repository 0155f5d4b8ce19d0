/* The gate: at most one of our threads asks for the GIL.
 *
 * A Python thread that wakes up with work must get the GIL. When many do at once, each hand-over
 * from core to core costs far more than the work itself. So a thread passes this gate, a plain
 * mutex, while it does not yet want the GIL, and leaves it when it goes to sleep again: the GIL is
 * then nearly always free for whoever holds the gate. The mutex is unfair on purpose: a thread
 * whose next message is there already goes on without a switch, and no convoy forms.
 *
 * A holder that blocks (in a plugin's own I/O, say) has let go of the GIL but not of the gate.
 * A watchman thread, asleep while nobody waits, sees that the holder has not changed for a while
 * and opens the gate. Correctness never depends on the gate: two threads inside only compete.
 */
#ifndef KONG_PDK_GATE_H
#define KONG_PDK_GATE_H

#if defined(__linux__) && !defined(Py_GIL_DISABLED)

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef KP_GATE_WATCH_NS
#define KP_GATE_WATCH_NS 200000 /* a holder that is there at two looks in a row counts as blocked */
#endif
#ifndef KP_GATE_QUIET_LOOKS
#define KP_GATE_QUIET_LOOKS 50 /* looks without anybody waiting until the watchman sleeps */
#endif

/* How often a thread looks again before it sleeps at the gate: about as long as a holder stays, a
 * few microseconds. Going to sleep and being woken takes longer than that. */
#ifndef KP_GATE_SPINS
#define KP_GATE_SPINS 300
#endif

#if defined(__x86_64__) || defined(__i386__)
#define KP_PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define KP_PAUSE() __asm__ volatile("isb" ::: "memory") /* most cores pass over a yield at once */
#else
#define KP_PAUSE() ((void)0)
#endif

static _Atomic uint32_t kp_gate;     /* 0 free, 1 held, 2 held and somebody may wait */
static _Atomic uint32_t kp_turn;     /* counts the holders */
static _Atomic uintptr_t kp_holder;
static _Atomic uint32_t kp_asleep;   /* the watchman is */
static _Atomic uint32_t kp_watched;  /* the watchman exists */

static void kp_sleep_on(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void kp_wake_one(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void kp_gate_open(void)
{
    if (atomic_exchange(&kp_gate, 0) == 2)
        kp_wake_one(&kp_gate);
}

static void *kp_watch(void *unused)
{
    struct timespec pause = { 0, KP_GATE_WATCH_NS };
    uint32_t last = 0, quiet = 0;
    (void)unused;
    for (;;) {
        nanosleep(&pause, NULL);
        uint32_t turn = atomic_load(&kp_turn);
        if (atomic_load(&kp_gate) == 2) {
            quiet = 0;
            if (turn == last) {
                atomic_store(&kp_holder, 0);
                kp_gate_open();
            }
        } else if (++quiet >= KP_GATE_QUIET_LOOKS) {
            atomic_store(&kp_asleep, 1);
            if (atomic_load(&kp_gate) != 2) /* whoever waits from here on wakes us */
                kp_sleep_on(&kp_asleep, 1);
            atomic_store(&kp_asleep, 0);
            quiet = 0;
        }
        last = turn;
    }
    return NULL;
}

static void kp_gate_watch(void)
{
    pthread_t thread;
    pthread_attr_t attr;
    sigset_t all, old;

    if (atomic_load(&kp_watched)) {
        if (atomic_load(&kp_asleep) && atomic_exchange(&kp_asleep, 0))
            kp_wake_one(&kp_asleep);
        return;
    }
    if (atomic_exchange(&kp_watched, 1))
        return;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 128 * 1024); /* the least that glibc takes on aarch64 */
    sigfillset(&all); /* signals are for Python's threads */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    if (pthread_create(&thread, &attr, kp_watch, NULL))
        atomic_store(&kp_watched, 0);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
}

static int kp_gate_try(void)
{
    uint32_t free_ = 0;
    return atomic_load_explicit(&kp_gate, memory_order_relaxed) == 0
        && atomic_compare_exchange_strong(&kp_gate, &free_, 1);
}

static int kp_gate_spin(void)
{
    static _Atomic long cores;
    if (!cores)
        cores = sysconf(_SC_NPROCESSORS_ONLN);
    for (int i = cores > 1 ? KP_GATE_SPINS : 1; i; i--) {
        if (kp_gate_try())
            return 1;
        KP_PAUSE();
    }
    return 0;
}

static void kp_gate_enter(void *who)
{
    if (!kp_gate_spin()) {
        while (atomic_exchange(&kp_gate, 2) != 0) {
            kp_gate_watch();
            kp_sleep_on(&kp_gate, 2);
        }
        kp_gate_watch(); /* it may have fallen asleep between the wake of this thread and here */
    }
    atomic_store(&kp_holder, (uintptr_t)who);
    atomic_fetch_add(&kp_turn, 1);
}

/* 1 if the gate had been opened, because of this holder or behind its back. */
static int kp_gate_leave(void *who)
{
    uintptr_t me = (uintptr_t)who;
    if (!atomic_compare_exchange_strong(&kp_holder, &me, 0))
        return 1;
    kp_gate_open();
    return 0;
}

static void kp_gate_reset(void)
{
    atomic_store(&kp_gate, 0);
    atomic_store(&kp_holder, 0);
    atomic_store(&kp_asleep, 0);
    atomic_store(&kp_watched, 0);
}

#else /* no futex, or no GIL: no gate */

static void kp_gate_enter(void *who) { (void)who; }
static int kp_gate_leave(void *who) { (void)who; return 0; }
static void kp_gate_reset(void) {}

#endif
#endif
