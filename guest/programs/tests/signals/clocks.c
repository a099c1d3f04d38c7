/*
 * Clocks and timers: a process's time is told apart from real time, and ring 3
 * from the kernel; timers by each of them; the timers of timer_create.
 */
#include "check.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/times.h>

#define MS 1000000L

static volatile int count;
static volatile siginfo_t last;

static void note(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)context;
    *(siginfo_t *)&last = *info;
    count++;
}

static long clock_ns(clockid_t clock)
{
    struct timespec time;

    CHECK_EQUAL(clock_gettime(clock, &time), 0);
    return time.tv_sec * 1000 * MS + time.tv_nsec;
}

/* Works until so much of a clock has passed. */
static void work(clockid_t clock, long ns)
{
    long end = clock_ns(clock) + ns;

    while (clock_ns(clock) < end)
        for (volatile int i = 0; i < 8000000; i++)
            ;
}

static long usage_us(bool system)
{
    struct rusage usage;
    struct timeval *time = system ? &usage.ru_stime : &usage.ru_utime;

    CHECK_EQUAL(getrusage(RUSAGE_SELF, &usage), 0);
    return time->tv_sec * 1000000 + time->tv_usec;
}

static void own_time(void)
{
    long real = clock_ns(CLOCK_MONOTONIC);
    long own = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    long user = usage_us(false);
    long system = usage_us(true);
    struct tms ticks;
    struct rusage usage;
    clockid_t clock;

    /* Sleeping is no work. */
    sleep_ms(200);
    CHECK(clock_ns(CLOCK_MONOTONIC) - real >= 200 * MS);
    CHECK(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own < 100 * MS);
    work(CLOCK_PROCESS_CPUTIME_ID, 100 * MS);
    CHECK(usage_us(false) - user >= 40000);
    /* Calls are the kernel's time. */
    for (long end = clock_ns(CLOCK_PROCESS_CPUTIME_ID) + 200 * MS;
         clock_ns(CLOCK_PROCESS_CPUTIME_ID) < end;)
        for (int i = 0; i < 100; i++)
            syscall(SYS_getppid);
    CHECK(usage_us(true) - system >= 20000);
    CHECK(times(&ticks) > 0);
    CHECK(ticks.tms_utime >= 4 && ticks.tms_stime >= 1);
    CHECK_EQUAL(getrusage(RUSAGE_THREAD, &usage), 0);
    CHECK(usage.ru_nvcsw >= 1);
    CHECK_EQUAL(clock_getcpuclockid(getpid(), &clock), 0);
    own = clock_ns(clock);
    CHECK(own > 0 && clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own < 80 * MS);
}

static volatile bool done;

static void *idle(void *clock)
{
    CHECK_EQUAL(pthread_getcpuclockid(pthread_self(), clock), 0);
    while (!done)
        sleep_ms(10);
    return NULL;
}

static void thread_time(void)
{
    pthread_t thread;
    clockid_t clock;
    long own = clock_ns(CLOCK_THREAD_CPUTIME_ID);

    CHECK_EQUAL(pthread_create(&thread, NULL, idle, &clock), 0);
    work(CLOCK_THREAD_CPUTIME_ID, 100 * MS);
    CHECK(clock_ns(CLOCK_THREAD_CPUTIME_ID) - own >= 100 * MS);
    CHECK(clock_ns(clock) < 80 * MS);
    done = true;
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
}

/* An interval timer by the process's time does not go on while it sleeps. */
static void interval_timer(int which, int signal)
{
    struct itimerval timer = {{0, 60000}, {0, 60000}}, left;

    handle(signal, note, SA_RESTART);
    count = 0;
    CHECK_EQUAL(setitimer(which, &timer, NULL), 0);
    sleep_ms(100);
    CHECK(count <= 1);
    for (long end = now_ms() + 20000; count < 3;) {
        CHECK(now_ms() < end);
        work(CLOCK_PROCESS_CPUTIME_ID, 20 * MS);
    }
    CHECK_EQUAL(getitimer(which, &left), 0);
    CHECK_EQUAL(left.it_interval.tv_usec, 60000);
    CHECK(left.it_value.tv_sec == 0 && left.it_value.tv_usec <= 60000);
    memset(&timer, 0, sizeof timer);
    CHECK_EQUAL(setitimer(which, &timer, &left), 0);
    CHECK_EQUAL(left.it_interval.tv_usec, 60000);
    count = 0;
    work(CLOCK_PROCESS_CPUTIME_ID, 120 * MS);
    CHECK_EQUAL(count, 0);
}

static void posix_timer(clockid_t clock)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1};
    struct itimerspec set = {{0, 0}, {0, 30 * MS}}, left;
    timer_t timer;
    long start;

    event.sigev_value.sival_int = 4711;
    handle(SIGRTMIN + 1, note, SA_RESTART);
    count = 0;
    CHECK_EQUAL(timer_create(clock, &event, &timer), 0);
    CHECK_EQUAL(timer_gettime(timer, &left), 0);
    CHECK(left.it_value.tv_sec == 0 && left.it_value.tv_nsec == 0);
    CHECK_EQUAL(timer_settime(timer, 0, &set, NULL), 0);
    CHECK_EQUAL(timer_gettime(timer, &left), 0);
    CHECK(left.it_value.tv_nsec > 0 && left.it_value.tv_nsec <= 30 * MS);
    work(CLOCK_PROCESS_CPUTIME_ID, 100 * MS);
    CHECK_EQUAL(count, 1);
    CHECK_EQUAL(last.si_code, SI_TIMER);
    CHECK_EQUAL(last.si_value.sival_int, 4711);
    CHECK_EQUAL(last.si_overrun, 0);
    CHECK_EQUAL(timer_gettime(timer, &left), 0);
    CHECK(left.it_value.tv_sec == 0 && left.it_value.tv_nsec == 0);

    /* At a moment, and again: one signal is pending, the others are counted. */
    start = clock_ns(clock) + 20 * MS;
    set = (struct itimerspec){{0, 100 * MS}, {start / (1000 * MS), start % (1000 * MS)}};
    block(SIGRTMIN + 1);
    CHECK_EQUAL(timer_settime(timer, TIMER_ABSTIME, &set, &left), 0);
    CHECK(left.it_value.tv_sec == 0 && left.it_value.tv_nsec == 0);
    work(CLOCK_PROCESS_CPUTIME_ID, 150 * MS);
    CHECK_EQUAL(count, 1);
    unblock(SIGRTMIN + 1);
    CHECK(count >= 2);
    CHECK_EQUAL(timer_delete(timer), 0);
    errno = 0;
    CHECK(timer_gettime(timer, &left) == -1 && errno == EINVAL);
}

static void overrun(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct itimerspec set = {{0, 10 * MS}, {0, 10 * MS}};
    struct timespec none = {0, 0};
    sigset_t only = set_of(SIGUSR1);
    siginfo_t info;
    timer_t timer;

    /* One more may come between looking and deleting. */
    handle(SIGUSR1, note, SA_RESTART);
    block(SIGUSR1);
    CHECK_EQUAL(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    CHECK_EQUAL(timer_settime(timer, 0, &set, NULL), 0);
    sleep_ms(105);
    CHECK_EQUAL(sigtimedwait(&only, &info, &none), SIGUSR1);
    CHECK(info.si_overrun >= 5 && info.si_overrun < 50);
    CHECK_EQUAL(timer_getoverrun(timer), info.si_overrun);
    CHECK_EQUAL(timer_delete(timer), 0);
    unblock(SIGUSR1);
}

static void errors(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = 65};
    struct itimerspec set = {{0, 0}, {0, 1000 * MS}};
    struct timespec time = {0, 0};
    int timer = 0;

    errno = 0;
    CHECK(syscall(SYS_timer_create, 77, NULL, &timer) == -1 && errno == EINVAL);
    CHECK(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer) == -1 && errno == EINVAL);
    event = (struct sigevent){.sigev_notify = SIGEV_THREAD, .sigev_signo = SIGALRM};
    CHECK_EQUAL(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer), 0);
    CHECK_EQUAL(syscall(SYS_timer_delete, timer), 0);
    event.sigev_notify = 99;
    CHECK(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer) == -1 && errno == EINVAL);
    CHECK(syscall(SYS_timer_create, CLOCK_MONOTONIC, (void *)8, &timer) == -1 && errno == EFAULT);
    CHECK(syscall(SYS_timer_settime, 1234, 0, &set, NULL) == -1 && errno == EINVAL);
    CHECK(syscall(SYS_timer_delete, 1234) == -1 && errno == EINVAL);
    CHECK_EQUAL(clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, &time, NULL), EINVAL);
    CHECK(setitimer(3, (void *)&set, NULL) == -1 && errno == EINVAL);
}

/* The coarse clocks go in steps, and are never ahead. */
static void coarse(void)
{
    static const clockid_t clocks[][2] = {
        {CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE},
        {CLOCK_REALTIME, CLOCK_REALTIME_COARSE},
    };

    for (int i = 0; i < 2; i++) {
        struct timespec fine, step;
        long before = clock_ns(clocks[i][0]), seen = clock_ns(clocks[i][1]);

        CHECK_EQUAL(clock_getres(clocks[i][0], &fine), 0);
        CHECK_EQUAL(clock_getres(clocks[i][1], &step), 0);
        CHECK(fine.tv_sec == 0 && fine.tv_nsec == 1 && step.tv_sec == 0);
        CHECK(step.tv_nsec >= MS && step.tv_nsec <= 10 * MS);
        CHECK(seen <= clock_ns(clocks[i][0]) && seen > before - 2 * step.tv_nsec);
    }
}

int main(void)
{
    coarse();
    own_time();
    thread_time();
    interval_timer(ITIMER_VIRTUAL, SIGVTALRM);
    interval_timer(ITIMER_PROF, SIGPROF);
    posix_timer(CLOCK_MONOTONIC);
    posix_timer(CLOCK_REALTIME);
    posix_timer(CLOCK_PROCESS_CPUTIME_ID);
    overrun();
    errors();
    passed();
}
