/* Futexes: where they may be, who is woken, and what becomes of a dead owner. */
#include "../signals/check.h"

#include <pthread.h>

/* From <linux/futex.h>, which not every C library has. */
#define WAIT 0
#define WAKE 1
#define REQUEUE 3
#define CMP_REQUEUE 4
#define WAKE_OP 5
#define WAIT_BITSET 9
#define WAKE_BITSET 10
#define PRIVATE 128
#define REALTIME 256
#define OPERATION(op, argument, compare, value) \
    ((unsigned)(op) << 28 | (compare) << 24 | ((argument) & 0xfff) << 12 | ((value) & 0xfff))

static struct timespec soon = {0, 1000000};

static long futex(void *word, int op, unsigned value, const void *time, void *other, unsigned third)
{
    long result = syscall(SYS_futex, word, op, value, time, other, third);

    return result < 0 ? -errno : result;
}

static void *map(int protection, int flags)
{
    void *memory = mmap(NULL, 4096, protection, flags | MAP_ANONYMOUS, -1, 0);

    CHECK(memory != MAP_FAILED);
    return memory;
}

/* What the calls say of words in all kinds of places. */
static void places(void)
{
    int here[4] = {0};
    char *gone = map(PROT_READ, MAP_PRIVATE);
    struct {
        void *at;
        /* What waking, waiting and changing say; the same, if called private. */
        long wake, wait, change, wake_private, wait_private;
    } places[] = {
        {map(PROT_NONE, MAP_PRIVATE), -EFAULT, -EFAULT, -EFAULT, 0, -EFAULT},
        {map(PROT_READ, MAP_PRIVATE), -EFAULT, -EFAULT, -EFAULT, 0, -ETIMEDOUT},
        {map(PROT_READ | PROT_WRITE, MAP_SHARED), 0, -ETIMEDOUT, 0, 0, -ETIMEDOUT},
        {map(PROT_READ, MAP_SHARED), 0, -ETIMEDOUT, -EFAULT, 0, -ETIMEDOUT},
        {map(PROT_NONE, MAP_SHARED), -EFAULT, -EFAULT, -EFAULT, 0, -EFAULT},
        {gone, -EFAULT, -EFAULT, -EFAULT, 0, -EFAULT},
        {NULL, -EFAULT, -EFAULT, -EFAULT, 0, -EFAULT},
        {(char *)here + 1, -EINVAL, -EINVAL, -EINVAL, -EINVAL, -EINVAL},
        {(void *)0xffff800000000000, -EFAULT, -EFAULT, -EFAULT, -EFAULT, -EFAULT},
        {here, 0, -ETIMEDOUT, 0, 0, -ETIMEDOUT},
    };
    unsigned nothing = OPERATION(1, 0, 0, 1);

    munmap(gone, 4096);
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
        void *at = places[i].at;

        CHECK_EQUAL(futex(at, WAKE, 1, NULL, NULL, 0), places[i].wake);
        CHECK_EQUAL(futex(at, WAKE_BITSET, 1, NULL, NULL, 4), places[i].wake);
        CHECK_EQUAL(futex(at, REQUEUE, 1, (void *)1, here, 0), places[i].wake);
        CHECK_EQUAL(futex(here, REQUEUE, 1, (void *)1, at, 0), places[i].wake);
        CHECK_EQUAL(futex(here, CMP_REQUEUE, 1, (void *)1, at, 0), places[i].wake);
        CHECK_EQUAL(futex(at, WAIT, 0, &soon, NULL, 0), places[i].wait);
        CHECK_EQUAL(futex(here, WAKE_OP, 1, (void *)1, at, nothing), places[i].change);
        CHECK_EQUAL(futex(at, WAKE | PRIVATE, 1, NULL, NULL, 0), places[i].wake_private);
        CHECK_EQUAL(futex(at, WAIT | PRIVATE, 0, &soon, NULL, 0), places[i].wait_private);
    }
    CHECK_EQUAL(futex(here, WAIT, 1, &soon, NULL, 0), -EAGAIN);
    CHECK_EQUAL(futex(here, CMP_REQUEUE, 1, (void *)1, here + 1, 1), -EAGAIN);
    CHECK_EQUAL(futex(here, REQUEUE, -1U, (void *)1, here + 1, 0), -EINVAL);
    CHECK_EQUAL(futex(here, WAIT, 0, &(struct timespec){0, -1}, NULL, 0), -EINVAL);
    CHECK_EQUAL(futex(here, WAIT, 0, (void *)8, NULL, 0), -EFAULT);
    CHECK_EQUAL(futex(here, WAIT_BITSET, 0, NULL, NULL, 0), -EINVAL);
    CHECK_EQUAL(futex(here, WAKE_BITSET, 1, NULL, NULL, 0), -EINVAL);
    CHECK_EQUAL(futex(here, WAKE | REALTIME, 1, NULL, NULL, 0), -ENOSYS);
    CHECK_EQUAL(futex(here, 99, 0, NULL, NULL, 0), -ENOSYS);
}

/* The operations on the second word, and the comparisons with what it was. */
static void operations(void)
{
    static const int changed[] = {3, 9, 7, 4, 5};
    int words[2] = {0, 0};

    for (int op = 0; op < 5; op++) {
        words[1] = 6;
        CHECK_EQUAL(futex(words, WAKE_OP, 1, (void *)1, words + 1, OPERATION(op, 3, 0, 6)), 0);
        CHECK_EQUAL(words[1], changed[op]);
    }
    words[1] = 6;
    CHECK_EQUAL(futex(words, WAKE_OP, 1, (void *)1, words + 1, OPERATION(9, 4, 0, 6)), 0);
    CHECK_EQUAL(words[1], 22);
    CHECK_EQUAL(futex(words, WAKE_OP, 1, (void *)1, words + 1, OPERATION(1, -2, 0, 6)), 0);
    CHECK_EQUAL(words[1], 20);
    CHECK_EQUAL(futex(words, WAKE_OP, 1, (void *)1, words + 1, OPERATION(5, 1, 0, 6)), -ENOSYS);
    CHECK_EQUAL(words[1], 20);
    CHECK_EQUAL(futex(words, WAKE_OP, 1, (void *)1, words + 1, OPERATION(1, 1, 6, 6)), -ENOSYS);
}

struct waiter {
    pthread_t thread;
    int *word;
    unsigned bits;
    volatile bool ready;
};

static void *wait_for_it(void *argument)
{
    struct waiter *waiter = argument;

    waiter->ready = true;
    CHECK_EQUAL(futex(waiter->word, WAIT_BITSET | PRIVATE, 0, NULL, NULL, waiter->bits), 0);
    return NULL;
}

static void start(struct waiter *waiter, int *word, unsigned bits)
{
    waiter->word = word;
    waiter->bits = bits;
    waiter->ready = false;
    CHECK_EQUAL(pthread_create(&waiter->thread, NULL, wait_for_it, waiter), 0);
    while (!waiter->ready)
        sched_yield();
    sleep_ms(50);
}

static void waiters(void)
{
    static int words[2];
    struct waiter all[4];

    for (int i = 0; i < 4; i++)
        start(&all[i], words, 1U << i);
    /* Nobody waits by another name of the same word, or with other bits. */
    CHECK_EQUAL(futex(words, WAKE, 4, NULL, NULL, 0), 0);
    CHECK_EQUAL(futex(words, WAKE_BITSET | PRIVATE, 4, NULL, NULL, 16), 0);
    CHECK_EQUAL(futex(words, WAKE_BITSET | PRIVATE, 4, NULL, NULL, 2), 1);
    CHECK_EQUAL(pthread_join(all[1].thread, NULL), 0);
    /* One is woken, one waits elsewhere from now on, one stays. */
    CHECK_EQUAL(futex(words, CMP_REQUEUE | PRIVATE, 1, (void *)1, words + 1, 0), 2);
    CHECK_EQUAL(pthread_join(all[0].thread, NULL), 0);
    CHECK_EQUAL(futex(words + 1, WAKE | PRIVATE, 4, NULL, NULL, 0), 1);
    CHECK_EQUAL(pthread_join(all[2].thread, NULL), 0);
    /* As many as none is one. */
    CHECK_EQUAL(futex(words, WAKE | PRIVATE, 0, NULL, NULL, 0), 1);
    CHECK_EQUAL(pthread_join(all[3].thread, NULL), 0);
    start(&all[0], words, 1);
    start(&all[1], words + 1, 1);
    CHECK_EQUAL(futex(words, WAKE_OP | PRIVATE, 1, (void *)1, words + 1, OPERATION(1, 1, 0, 0)), 2);
    CHECK_EQUAL(words[1], 1);
    CHECK_EQUAL(pthread_join(all[0].thread, NULL), 0);
    CHECK_EQUAL(pthread_join(all[1].thread, NULL), 0);
}

/* Two processes that share memory at different addresses. */
static void across_processes(void)
{
    int *word = shared(4096);
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0) {
        int *moved = mremap(word, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED,
                            map(PROT_NONE, MAP_PRIVATE));

        CHECK(moved != MAP_FAILED && moved != word);
        CHECK_EQUAL(futex(moved + 5, WAIT, 0, NULL, NULL, 0), 0);
        _exit(42);
    }
    while (futex(word + 5, WAKE, 1, NULL, NULL, 0) == 0)
        sleep_ms(10);
    CHECK_EQUAL(status_of(child), 42 << 8);
}

/* A process ends with a robust mutex in its hands. */
static void dead_owner(void)
{
    pthread_mutex_t *mutex = shared(4096);
    volatile bool *locked = shared(4096);
    pthread_mutexattr_t attributes;
    pid_t child;

    pthread_mutexattr_init(&attributes);
    CHECK_EQUAL(pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED), 0);
    CHECK_EQUAL(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST), 0);
    CHECK_EQUAL(pthread_mutex_init(mutex, &attributes), 0);
    child = fork();
    if (child == 0) {
        CHECK_EQUAL(pthread_mutex_lock(mutex), 0);
        *locked = true;
        sleep_ms(100);
        _exit(0);
    }
    while (!*locked)
        sched_yield();
    CHECK_EQUAL(pthread_mutex_lock(mutex), EOWNERDEAD);
    CHECK_EQUAL(pthread_mutex_consistent(mutex), 0);
    CHECK_EQUAL(pthread_mutex_unlock(mutex), 0);
    CHECK_EQUAL(status_of(child), 0);
}

int main(void)
{
    places();
    operations();
    waiters();
    across_processes();
    dead_owner();
    passed();
}
