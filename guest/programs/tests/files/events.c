/* Files that say when something happened: epoll, timerfd, eventfd. */
#include "check.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>

static int epoll, pipes[2];

static int wait_ms(struct epoll_event *events, int most, int ms)
{
    return epoll_wait(epoll, events, most, ms);
}

static void control(void)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0x1122334455667788};
    int file = open("file", O_RDWR | O_CREAT, 0600);
    int other = epoll_create1(0);

    CHECK_FAILS(syscall(SYS_epoll_create, 0), EINVAL);
    CHECK_FAILS(epoll_create1(1), EINVAL);
    CHECK_FAILS(epoll_ctl(epoll, EPOLL_CTL_ADD, file, &event), EPERM);
    CHECK_FAILS(epoll_ctl(epoll, EPOLL_CTL_ADD, 77, &event), EBADF);
    CHECK_FAILS(epoll_ctl(77, EPOLL_CTL_ADD, pipes[0], &event), EBADF);
    CHECK_FAILS(epoll_ctl(pipes[1], EPOLL_CTL_ADD, pipes[0], &event), EINVAL);
    CHECK_FAILS(epoll_ctl(epoll, EPOLL_CTL_ADD, epoll, &event), EINVAL);
    CHECK_FAILS(epoll_ctl(epoll, 9, pipes[0], &event), EINVAL);
    CHECK_FAILS(epoll_ctl(epoll, EPOLL_CTL_MOD, pipes[0], &event), ENOENT);
    CHECK_FAILS(epoll_ctl(epoll, EPOLL_CTL_DEL, pipes[0], NULL), ENOENT);
    CHECK_FAILS(epoll_ctl(epoll, EPOLL_CTL_ADD, pipes[0], check_nowhere), EFAULT);
    CHECK_FAILS(epoll_wait(epoll, &event, 0, 0), EINVAL);
    CHECK_FAILS(epoll_wait(pipes[0], &event, 1, 0), EINVAL);
    /* Instances in each other, but not in a circle. */
    CHECK(epoll_ctl(other, EPOLL_CTL_ADD, epoll, &event) == 0);
    CHECK_FAILS(epoll_ctl(epoll, EPOLL_CTL_ADD, other, &event), ELOOP);
    close(other);
    close(file);
}

static void level(void)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0x1122334455667788}, found[4];
    char byte;

    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, pipes[0], &event) == 0);
    CHECK_FAILS(epoll_ctl(epoll, EPOLL_CTL_ADD, pipes[0], &event), EEXIST);
    CHECK(wait_ms(found, 4, 0) == 0);
    CHECK(wait_ms(found, 4, 30) == 0);
    CHECK(write(pipes[1], "ab", 2) == 2);
    for (int i = 0; i < 2; i++) {
        CHECK(wait_ms(found, 4, -1) == 1);
        CHECK(found[0].events == EPOLLIN && found[0].data.u64 == event.data.u64);
    }
    CHECK(read(pipes[0], &byte, 1) == 1 && wait_ms(found, 4, 0) == 1);
    CHECK(read(pipes[0], &byte, 1) == 1 && wait_ms(found, 4, 0) == 0);
    /* Two are ready; one at a time they have their turns. */
    event = (struct epoll_event){.events = EPOLLOUT, .data.u64 = 7};
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, pipes[1], &event) == 0);
    CHECK(write(pipes[1], "c", 1) == 1);
    CHECK(wait_ms(found, 4, 0) == 2);
    CHECK(wait_ms(found, 1, 0) == 1 && wait_ms(found + 1, 1, 0) == 1);
    CHECK(found[0].data.u64 != found[1].data.u64);
    CHECK(epoll_ctl(epoll, EPOLL_CTL_DEL, pipes[1], NULL) == 0);
    CHECK(read(pipes[0], &byte, 1) == 1 && wait_ms(found, 4, 0) == 0);
}

static void edge_and_once(void)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET}, found[4];
    char bytes[8];

    CHECK(epoll_ctl(epoll, EPOLL_CTL_MOD, pipes[0], &event) == 0);
    CHECK(write(pipes[1], "a", 1) == 1);
    CHECK(wait_ms(found, 4, -1) == 1 && wait_ms(found, 4, 30) == 0);
    CHECK(write(pipes[1], "b", 1) == 1);
    CHECK(wait_ms(found, 4, -1) == 1 && wait_ms(found, 4, 0) == 0);
    event.events = EPOLLIN | EPOLLONESHOT;
    CHECK(epoll_ctl(epoll, EPOLL_CTL_MOD, pipes[0], &event) == 0);
    CHECK(wait_ms(found, 4, 0) == 1 && wait_ms(found, 4, 30) == 0);
    CHECK(epoll_ctl(epoll, EPOLL_CTL_MOD, pipes[0], &event) == 0);
    CHECK(wait_ms(found, 4, 0) == 1);
    CHECK(read(pipes[0], bytes, sizeof bytes) == 2);
    event.events = EPOLLIN;
    CHECK(epoll_ctl(epoll, EPOLL_CTL_MOD, pipes[0], &event) == 0);
}

/* What happens at one end is no news of the other. */
static void edges_of_both_ends(void)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = 1}, found;
    int ends[2];
    char bytes[4096] = "";

    CHECK(pipe2(ends, O_NONBLOCK) == 0 && fcntl(ends[1], F_SETPIPE_SZ, sizeof bytes) == sizeof bytes);
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event) == 0);
    event = (struct epoll_event){.events = EPOLLOUT | EPOLLET, .data.u64 = 2};
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[1], &event) == 0);
    CHECK(write(ends[1], bytes, sizeof bytes) == sizeof bytes);
    CHECK(wait_ms(&found, 1, 0) == 1 && found.data.u64 == 1);
    CHECK(read(ends[0], bytes, 2048) == 2048 && wait_ms(&found, 1, 0) == 0);
    CHECK(read(ends[0], bytes, 2048) == 2048);
    CHECK(wait_ms(&found, 1, 0) == 1 && found.data.u64 == 2 && wait_ms(&found, 1, 0) == 0);
    close(ends[0]);
    close(ends[1]);
}

static void from_outside(void)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 3}, found[4];
    struct pollfd poll_epoll = {.fd = epoll, .events = POLLIN};
    int outer = epoll_create1(EPOLL_CLOEXEC);
    pid_t child;
    char byte;
    int status;

    CHECK(fcntl(outer, F_GETFD) == FD_CLOEXEC);
    CHECK(epoll_ctl(outer, EPOLL_CTL_ADD, epoll, &event) == 0);
    CHECK(poll(&poll_epoll, 1, 0) == 0 && epoll_wait(outer, found, 4, 0) == 0);
    child = fork();
    if (child == 0) {
        usleep(100000);
        _exit(write(pipes[1], "x", 1) != 1);
    }
    CHECK(epoll_wait(outer, found, 4, -1) == 1 && found[0].data.u64 == 3);
    CHECK(poll(&poll_epoll, 1, -1) == 1 && poll_epoll.revents == POLLIN);
    CHECK(wait_ms(found, 4, 0) == 1 && read(pipes[0], &byte, 1) == 1);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    /* The last writer goes. */
    close(pipes[1]);
    CHECK(wait_ms(found, 4, -1) == 1 && found[0].events == EPOLLHUP);
    /* A file that is closed is waited for no more. */
    close(pipes[0]);
    CHECK(wait_ms(found, 4, 0) == 0);
    close(outer);
}

static void timers(void)
{
    struct itimerspec set = {{0, 20000000}, {0, 500000000}}, left;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 5}, found;
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    unsigned long count;
    struct timespec now;

    CHECK(timer >= 0);
    CHECK_FAILS(timerfd_create(CLOCK_MONOTONIC, 1), EINVAL);
    CHECK_FAILS(timerfd_create(99, 0), EINVAL);
    CHECK_FAILS(timerfd_settime(epoll, 0, &set, NULL), EINVAL);
    CHECK_FAILS(read(timer, &count, 8), EAGAIN);
    CHECK_FAILS(read(timer, &count, 4), EINVAL);
    CHECK_FAILS(write(timer, &count, 8), EINVAL);
    CHECK(timerfd_gettime(timer, &left) == 0 && left.it_value.tv_nsec == 0);
    CHECK(timerfd_settime(timer, 0, &set, &left) == 0);
    CHECK(timerfd_gettime(timer, &left) == 0);
    CHECK(left.it_value.tv_nsec > 0 && left.it_value.tv_nsec <= 500000000);
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event) == 0);
    CHECK(wait_ms(&found, 1, 20) == 0);
    CHECK(wait_ms(&found, 1, -1) == 1 && found.data.u64 == 5);
    usleep(100000);
    CHECK(read(timer, &count, 8) == 8 && count >= 3);
    CHECK(wait_ms(&found, 1, -1) == 1);
    memset(&set, 0, sizeof set);
    CHECK(timerfd_settime(timer, 0, &set, NULL) == 0 && wait_ms(&found, 1, 50) == 0);
    /* At a moment, read by somebody who waits. */
    close(timer);
    timer = timerfd_create(CLOCK_REALTIME, 0);
    CHECK(clock_gettime(CLOCK_REALTIME, &now) == 0);
    set.it_value = (struct timespec){now.tv_sec + 1, now.tv_nsec};
    CHECK(timerfd_settime(timer, TFD_TIMER_ABSTIME, &set, NULL) == 0);
    CHECK(read(timer, &count, 8) == 8 && count == 1);
    CHECK(timerfd_gettime(timer, &left) == 0);
    CHECK(left.it_value.tv_sec == 0 && left.it_value.tv_nsec == 0);
    close(timer);
}

static void counters(void)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = 6}, found;
    int counter = eventfd(2, EFD_NONBLOCK);
    unsigned long count = 3;

    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, counter, &event) == 0);
    CHECK(wait_ms(&found, 1, 0) == 1 && found.data.u64 == 6 && wait_ms(&found, 1, 0) == 0);
    CHECK(write(counter, &count, 8) == 8);
    CHECK(wait_ms(&found, 1, 0) == 1 && wait_ms(&found, 1, 0) == 0);
    CHECK(read(counter, &count, 8) == 8 && count == 5);
    CHECK_FAILS(read(counter, &count, 8), EAGAIN);
    close(counter);
}

enum { WAITERS = 4 };

/* Waits exclusively for `what` of `file`, says so, and says when that came. */
static void wait_alone(int file, unsigned what, int say)
{
    struct epoll_event event = {.events = what | EPOLLEXCLUSIVE}, found;
    int own = epoll_create1(0);

    CHECK(epoll_ctl(own, EPOLL_CTL_ADD, file, &event) == 0);
    CHECK(write(say, "w", 1) == 1);
    CHECK(epoll_wait(own, &found, 1, 5000) == 1 && found.events & what);
    CHECK(write(say, what & EPOLLIN ? "i" : "o", 1) == 1);
    _exit(check_failures);
}

/* How many children say `what` until nothing comes for a while. */
static int count_answers(int said, char what)
{
    struct pollfd answer = {.fd = said, .events = POLLIN};
    int count = 0;
    char byte;

    while (poll(&answer, 1, 300) == 1) {
        CHECK(read(said, &byte, 1) == 1);
        count += byte == what;
    }
    return count;
}

/* Each event wakes one of those who wait for it alone. */
static void exclusive(void)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT | EPOLLEXCLUSIVE};
    int ends[2], said[2], status;
    char byte;

    CHECK(pipe(ends) == 0 && pipe(said) == 0);
    CHECK_FAILS(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event), EINVAL);
    event.events = EPOLLIN | EPOLLEXCLUSIVE;
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event) == 0);
    CHECK_FAILS(epoll_ctl(epoll, EPOLL_CTL_MOD, ends[0], &event), EINVAL);
    event.events = EPOLLIN;
    CHECK_FAILS(epoll_ctl(epoll, EPOLL_CTL_MOD, ends[0], &event), EINVAL);
    CHECK(epoll_ctl(epoll, EPOLL_CTL_DEL, ends[0], NULL) == 0);
    for (int i = 0; i < WAITERS; i++) {
        if (fork() == 0)
            wait_alone(ends[0], EPOLLIN, said[1]);
    }
    CHECK(count_answers(said[0], 'w') == WAITERS);
    for (int i = 0; i < WAITERS; i++) {
        CHECK(write(ends[1], "x", 1) == 1);
        CHECK(count_answers(said[0], 'i') == 1);
        CHECK(read(ends[0], &byte, 1) == 1);
    }
    for (int i = 0; i < WAITERS; i++)
        CHECK(wait(&status) > 0 && status == 0);
}

int main(void)
{
    check_begin();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    CHECK(epoll >= 0 && pipe(pipes) == 0);
    control();
    level();
    edge_and_once();
    edges_of_both_ends();
    from_outside();
    timers();
    counters();
    exclusive();
    return check_end();
}
