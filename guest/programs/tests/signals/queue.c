/* Real-time signals are queued in order with their values; others are not. */
#include "check.h"

#ifndef SI_TKILL
#define SI_TKILL (-6)
#endif

static volatile int count;
static volatile int signals[16], values[16], codes[16];

static void note(int signal, siginfo_t *info, void *context)
{
    (void)context;
    signals[count] = signal;
    values[count] = info->si_value.sival_int;
    codes[count] = info->si_code;
    CHECK_EQUAL(info->si_pid, getpid());
    CHECK_EQUAL(info->si_uid, getuid());
    count++;
}

static void send_value(int signal, int value)
{
    CHECK_EQUAL(sigqueue(getpid(), signal, (union sigval){.sival_int = value}), 0);
}

int main(void)
{
    int low = SIGRTMIN + 1, high = SIGRTMIN + 2;
    sigset_t set = set_of(low), all;
    siginfo_t info;
    struct timespec no_time = {0, 0}, short_time = {0, 30000000};
    long start;

    sigaddset(&set, high);
    sigaddset(&set, SIGUSR1);
    CHECK_EQUAL(sigprocmask(SIG_BLOCK, &set, &all), 0);

    /* Taken by number, then by age. */
    send_value(high, 1);
    send_value(low, 2);
    send_value(high, 3);
    send_value(low, 4);
    send_value(SIGUSR1, 5);
    send_value(SIGUSR1, 6);
    int expected[][2] = {{SIGUSR1, 5}, {low, 2}, {low, 4}, {high, 1}, {high, 3}};
    for (int i = 0; i < 5; i++) {
        CHECK_EQUAL(sigtimedwait(&set, &info, &no_time), expected[i][0]);
        CHECK_EQUAL(info.si_signo, expected[i][0]);
        CHECK_EQUAL(info.si_code, SI_QUEUE);
        CHECK_EQUAL(info.si_value.sival_int, expected[i][1]);
        CHECK_EQUAL(info.si_pid, getpid());
    }
    CHECK(sigtimedwait(&set, &info, &no_time) < 0 && errno == EAGAIN);
    start = now_ms();
    CHECK(sigtimedwait(&set, &info, &short_time) < 0 && errno == EAGAIN);
    CHECK(now_ms() - start >= 29);

    /* Delivered to handlers: the last frame is that of the highest number. */
    handle(low, note, 0);
    handle(high, note, 0);
    handle(SIGUSR1, note, 0);
    send_value(high, 1);
    send_value(high, 2);
    CHECK_EQUAL(kill(getpid(), SIGUSR1), 0);
    CHECK_EQUAL(sigprocmask(SIG_UNBLOCK, &set, NULL), 0);
    CHECK_EQUAL(count, 3);
    CHECK(signals[0] == high && values[0] == 1 && codes[0] == SI_QUEUE);
    CHECK(signals[1] == high && values[1] == 2);
    CHECK(signals[2] == SIGUSR1 && codes[2] == SI_USER);
    count = 0;
    CHECK_EQUAL(raise(low), 0);
    CHECK(count == 1 && codes[0] == SI_TKILL);

    /* A signal that comes while it is waited for. */
    CHECK_EQUAL(sigprocmask(SIG_BLOCK, &set, NULL), 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        sleep_ms(20);
        _exit(sigqueue(getppid(), low, (union sigval){.sival_int = 77}) != 0);
    }
    CHECK_EQUAL(sigwaitinfo(&set, &info), low);
    CHECK(info.si_value.sival_int == 77 && info.si_pid == child);
    CHECK_EQUAL(status_of(child), 0);

    /* Nobody may pretend to be the kernel. */
    memset(&info, 0, sizeof info);
    info.si_code = SI_KERNEL;
    CHECK(syscall(SYS_rt_sigqueueinfo, getppid(), SIGUSR1, &info) < 0 && errno == EPERM);
    CHECK(sigqueue(getpid(), 99, (union sigval){0}) < 0 && errno == EINVAL);
    passed();
}
