/* Signals to a thread, to a process with several, and what stops them all. */
#include "check.h"
#include <pthread.h>

static volatile int count, seen_by, running;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static int self(void)
{
    return (int)syscall(SYS_gettid);
}

static void note(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)info;
    (void)context;
    seen_by = self();
    count++;
}

static void *waiting(void *given)
{
    *(volatile int *)given = self();
    running++;
    while (count == 0)
        sched_yield();
    return NULL;
}

static void *blocked_in_lock(void *given)
{
    *(volatile int *)given = self();
    running++;
    pthread_mutex_lock(&mutex);
    pthread_mutex_unlock(&mutex);
    return NULL;
}

static void *spinning(void *given)
{
    volatile int *counter = given;

    for (;;)
        ++*counter;
    return NULL;
}

int main(void)
{
    volatile int tid = 0;
    pthread_t thread;
    int status;

    handle(SIGUSR1, note, SA_RESTART);
    handle(SIGUSR2, note, SA_RESTART);

    /* FUTEX_CMP_REQUEUE: its counts have a sign. */
    CHECK_EQUAL(syscall(SYS_futex, &tid, 4, -1, 1L, &tid, 0), -1);
    CHECK_EQUAL(errno, EINVAL);
    CHECK_EQUAL(syscall(SYS_futex, &tid, 4, 1, -1L, &tid, 0), -1);
    CHECK_EQUAL(errno, EINVAL);

    /* To one thread. */
    CHECK_EQUAL(pthread_create(&thread, NULL, waiting, (void *)&tid), 0);
    while (!running)
        sched_yield();
    CHECK_EQUAL(pthread_kill(thread, SIGUSR1), 0);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    CHECK_EQUAL(count, 1);
    CHECK_EQUAL(seen_by, tid);

    /* To the process, while the main thread blocks it. */
    count = running = 0;
    CHECK_EQUAL(pthread_create(&thread, NULL, waiting, (void *)&tid), 0);
    while (!running)
        sched_yield();
    block(SIGUSR2);
    CHECK_EQUAL(kill(getpid(), SIGUSR2), 0);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    CHECK_EQUAL(seen_by, tid);
    unblock(SIGUSR2);

    /* A thread that waits for a lock handles it and waits on. */
    count = running = 0;
    pthread_mutex_lock(&mutex);
    CHECK_EQUAL(pthread_create(&thread, NULL, blocked_in_lock, (void *)&tid), 0);
    while (!running)
        sched_yield();
    sleep_ms(20);
    CHECK_EQUAL(pthread_kill(thread, SIGUSR1), 0);
    while (!count)
        sched_yield();
    CHECK_EQUAL(seen_by, tid);
    pthread_mutex_unlock(&mutex);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);

    /* Stopping stops all threads, and the end of one by a signal is the end of all. */
    volatile int *counter = shared(4096);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        pthread_create(&thread, NULL, spinning, (void *)counter);
        for (;;)
            sleep_ms(5);
    }
    while (!*counter)
        sched_yield();
    CHECK_EQUAL(kill(child, SIGSTOP), 0);
    CHECK_EQUAL(waitpid(child, &status, WUNTRACED), child);
    int before = *counter;
    sleep_ms(30);
    CHECK_EQUAL(*counter, before);
    CHECK_EQUAL(kill(child, SIGCONT), 0);
    while (*counter == before)
        sleep_ms(1);
    CHECK_EQUAL(kill(child, SIGTERM), 0);
    status = status_of(child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    passed();
}
