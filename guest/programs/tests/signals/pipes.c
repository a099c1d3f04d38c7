/* Signals and files: blocked reads, SIGPIPE, ppoll with a mask. */
#include "check.h"
#include <fcntl.h>
#include <poll.h>

static volatile int count;

static void counting(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)info;
    (void)context;
    count++;
}

/* A child that sends a signal after 20 ms and writes to the pipe after 40. */
static pid_t writer(int signal, int to)
{
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0) {
        sleep_ms(20);
        kill(getppid(), signal);
        sleep_ms(20);
        _exit(write(to, "x", 1) != 1);
    }
    return child;
}

int main(void)
{
    struct pollfd poll = {.events = POLLIN};
    struct timespec wait = {2, 0};
    sigset_t none = set_of(0);
    int ends[2], status;
    char byte;
    pid_t child;

    CHECK_EQUAL(pipe(ends), 0);
    poll.fd = ends[0];

    handle(SIGUSR1, counting, SA_RESTART);
    child = writer(SIGUSR1, ends[1]);
    CHECK_EQUAL(read(ends[0], &byte, 1), 1);
    CHECK_EQUAL(count, 1);
    CHECK_EQUAL(status_of(child), 0);

    handle(SIGUSR1, counting, 0);
    child = writer(SIGUSR1, ends[1]);
    CHECK(read(ends[0], &byte, 1) < 0 && errno == EINTR);
    CHECK_EQUAL(count, 2);
    CHECK_EQUAL(read(ends[0], &byte, 1), 1);
    CHECK_EQUAL(status_of(child), 0);

    /* Stopped and continued while it reads, nobody notices. */
    child = fork();
    CHECK(child >= 0);
    if (child == 0)
        _exit(read(ends[0], &byte, 1) != 1);
    sleep_ms(20);
    CHECK_EQUAL(kill(child, SIGSTOP), 0);
    CHECK_EQUAL(waitpid(child, &status, WUNTRACED), child);
    CHECK_EQUAL(kill(child, SIGCONT), 0);
    sleep_ms(10);
    CHECK_EQUAL(write(ends[1], "y", 1), 1);
    CHECK_EQUAL(status_of(child), 0);

    /* Nor while it waits with a time limit. */
    child = fork();
    CHECK(child >= 0);
    if (child == 0)
        _exit(ppoll(&poll, 1, &wait, NULL) != 1);
    sleep_ms(20);
    CHECK_EQUAL(kill(child, SIGSTOP), 0);
    CHECK_EQUAL(waitpid(child, &status, WUNTRACED), child);
    CHECK_EQUAL(kill(child, SIGCONT), 0);
    sleep_ms(10);
    CHECK_EQUAL(write(ends[1], "y", 1), 1);
    CHECK_EQUAL(status_of(child), 0);
    CHECK_EQUAL(read(ends[0], &byte, 1), 1);

    /* poll is never begun anew after a handler. */
    handle(SIGUSR1, counting, SA_RESTART);
    count = 0;
    child = writer(SIGUSR1, ends[1]);
    CHECK(ppoll(&poll, 1, &wait, NULL) < 0 && errno == EINTR);
    CHECK_EQUAL(count, 1);
    CHECK_EQUAL(read(ends[0], &byte, 1), 1);
    CHECK_EQUAL(status_of(child), 0);

    /* What is blocked outside comes inside ppoll, and is blocked again after. */
    block(SIGUSR1);
    count = 0;
    raise(SIGUSR1);
    CHECK(ppoll(&poll, 1, &wait, &none) < 0 && errno == EINTR);
    CHECK_EQUAL(count, 1);
    CHECK(is_blocked(SIGUSR1));
    CHECK_EQUAL(write(ends[1], "z", 1), 1);
    CHECK_EQUAL(ppoll(&poll, 1, &wait, &none), 1);
    CHECK(is_blocked(SIGUSR1));
    unblock(SIGUSR1);

    /* Nobody reads. */
    handle(SIGPIPE, counting, 0);
    count = 0;
    CHECK_EQUAL(close(ends[0]), 0);
    CHECK(write(ends[1], "x", 1) < 0 && errno == EPIPE);
    CHECK_EQUAL(count, 1);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        signal(SIGPIPE, SIG_DFL);
        _exit(write(ends[1], "x", 1) >= 0);
    }
    status = status_of(child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE);
    passed();
}
