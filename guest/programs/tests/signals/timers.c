/* alarm and setitimer, also while nothing but a loop runs. */
#include "check.h"

static volatile int count;

static void counting(int signal, siginfo_t *info, void *context)
{
    (void)context;
    CHECK_EQUAL(signal, SIGALRM);
    CHECK_EQUAL(info->si_code, SI_KERNEL);
    count++;
}

static struct itimerval timer(long first_us, long interval_us)
{
    return (struct itimerval){{0, interval_us}, {0, first_us}};
}

int main(void)
{
    struct itimerval given, seen;
    long start = now_ms();
    int status;
    pid_t child;

    handle(SIGALRM, counting, 0);
    given = timer(30000, 0);
    CHECK_EQUAL(setitimer(ITIMER_REAL, &given, NULL), 0);
    CHECK_EQUAL(getitimer(ITIMER_REAL, &seen), 0);
    CHECK(seen.it_value.tv_usec > 0 && seen.it_value.tv_usec <= 30000);
    while (count == 0)
        ;
    CHECK(now_ms() - start >= 29);
    CHECK_EQUAL(getitimer(ITIMER_REAL, &seen), 0);
    CHECK(seen.it_value.tv_usec == 0 && seen.it_value.tv_sec == 0);

    count = 0;
    given = timer(10000, 10000);
    CHECK_EQUAL(setitimer(ITIMER_REAL, &given, NULL), 0);
    while (count < 5)
        pause();
    given = timer(0, 0);
    CHECK_EQUAL(setitimer(ITIMER_REAL, &given, &seen), 0);
    CHECK_EQUAL(seen.it_interval.tv_usec, 10000);
    count = 0;
    sleep_ms(30);
    CHECK_EQUAL(count, 0);

    CHECK_EQUAL(alarm(100), 0);
    child = fork();
    CHECK(child >= 0);
    if (child == 0)
        /* A child has no alarm. */
        _exit(alarm(0) != 0);
    CHECK_EQUAL(status_of(child), 0);
    CHECK_EQUAL(alarm(1), 100);
    start = now_ms();
    CHECK(pause() < 0 && errno == EINTR);
    CHECK(count == 1 && now_ms() - start >= 900);
    CHECK_EQUAL(alarm(0), 0);

    /* Without a handler it ends the process. */
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        signal(SIGALRM, SIG_DFL);
        given = timer(10000, 0);
        setitimer(ITIMER_REAL, &given, NULL);
        for (;;)
            ;
    }
    status = status_of(child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM);
    given = timer(1000000, 0);
    CHECK(setitimer(ITIMER_REAL, &given, NULL) < 0 && errno == EINVAL);
    CHECK(setitimer(99, &given, NULL) < 0 && errno == EINVAL);
    passed();
}
