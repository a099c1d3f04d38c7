/* System calls that a signal cuts short: begun anew, or EINTR. */
#include "check.h"

static volatile int count;

static void counting(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)info;
    (void)context;
    count++;
}

/* A child that sends a signal to its parent after 20 ms and ends after 60. */
static pid_t sender(int signal)
{
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0) {
        sleep_ms(20);
        kill(getppid(), signal);
        sleep_ms(40);
        _exit(5);
    }
    return child;
}

static void waiting(void)
{
    int status = 0;
    pid_t child;

    count = 0;
    handle(SIGUSR1, counting, SA_RESTART);
    child = sender(SIGUSR1);
    CHECK_EQUAL(waitpid(child, &status, 0), child);
    CHECK(count == 1 && WEXITSTATUS(status) == 5);

    count = 0;
    handle(SIGUSR1, counting, 0);
    child = sender(SIGUSR1);
    CHECK(waitpid(child, &status, 0) < 0 && errno == EINTR);
    CHECK_EQUAL(count, 1);
    CHECK_EQUAL(waitpid(child, &status, 0), child);

    /* Ignored: nothing is cut short. */
    signal(SIGUSR1, SIG_IGN);
    child = sender(SIGUSR1);
    CHECK_EQUAL(waitpid(child, &status, 0), child);
}

static void sleeping(void)
{
    /* Far longer than any host takes to send a signal. */
    struct timespec length = {40, 0}, left = {99, 9};
    pid_t child;
    long start;

    /* SA_RESTART does not count for sleeping. */
    count = 0;
    handle(SIGUSR1, counting, SA_RESTART);
    child = sender(SIGUSR1);
    start = now_ms();
    CHECK(nanosleep(&length, &left) < 0 && errno == EINTR);
    CHECK(now_ms() - start < 40000);
    CHECK(left.tv_sec < 40 && (left.tv_sec > 0 || left.tv_nsec > 0));
    CHECK_EQUAL(count, 1);
    status_of(child);

    count = 0;
    child = sender(SIGUSR1);
    CHECK(pause() < 0 && errno == EINTR);
    CHECK_EQUAL(count, 1);
    status_of(child);
}

/* Stopped and continued in its sleep, a process does not notice. */
static void stopped_asleep(void)
{
    struct timespec length = {0, 150000000};
    long start = now_ms();
    pid_t child = fork();
    int status;

    CHECK(child >= 0);
    if (child == 0)
        _exit(nanosleep(&length, NULL) == 0 && now_ms() - start >= 150 ? 3 : 4);
    sleep_ms(20);
    CHECK_EQUAL(kill(child, SIGSTOP), 0);
    CHECK_EQUAL(waitpid(child, &status, WUNTRACED), child);
    CHECK(WIFSTOPPED(status));
    sleep_ms(20);
    CHECK_EQUAL(kill(child, SIGCONT), 0);
    status = status_of(child);
    CHECK(WIFEXITED(status));
    CHECK_EQUAL(WEXITSTATUS(status), 3);
}

int main(void)
{
    signal(SIGCHLD, SIG_DFL);
    waiting();
    sleeping();
    stopped_asleep();
    passed();
}
