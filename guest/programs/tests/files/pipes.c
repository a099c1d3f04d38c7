/* Pipes, duplicated descriptors, waiting for several files. */
#include "check.h"
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <time.h>

static void into_nobody(void)
{
    int ends[2];

    if (pipe(ends) == 0) {
        close(ends[0]);
        (void)!write(ends[1], "x", 1);
    }
}

static void one_process(void)
{
    int ends[2], waiting = 0;
    char text[10] = "";

    CHECK(pipe2(ends, O_NONBLOCK | O_CLOEXEC) == 0);
    CHECK(fcntl(ends[0], F_GETFD) == FD_CLOEXEC && fcntl(ends[1], F_GETFL) == (O_WRONLY | O_NONBLOCK));
    CHECK_FAILS(read(ends[0], text, 1), EAGAIN);
    CHECK(write(ends[1], "hello", 5) == 5);
    CHECK(ioctl(ends[0], FIONREAD, &waiting) == 0 && waiting == 5);
    CHECK_FAILS(lseek(ends[0], 0, SEEK_CUR), ESPIPE);
    CHECK_FAILS(write(ends[0], "x", 1), EBADF);
    CHECK(read(ends[0], text, 10) == 5 && strcmp(text, "hello") == 0);
    CHECK(fcntl(ends[1], F_GETPIPE_SZ) == 65536);
    long total = 0;
    static char block[4096];
    while (write(ends[1], block, sizeof block) == sizeof block)
        total += sizeof block;
    CHECK(errno == EAGAIN && total == 65536);
    close(ends[1]);
    while (read(ends[0], block, sizeof block) > 0)
        total -= sizeof block;
    CHECK(total == 0 && read(ends[0], text, 1) == 0);
    close(ends[0]);
    int status = check_child(into_nobody);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE);
    CHECK_FAILS(pipe(check_nowhere), EFAULT);
    CHECK_FAILS(pipe2(ends, 1), EINVAL);
}

/* More than fits, so that both sides have to wait for each other. */
static void two_processes(void)
{
    enum { SIZE = 300000 };
    static unsigned char bytes[SIZE];
    int ends[2], status;
    long got = 0, wrong = 0;

    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        for (int i = 0; i < SIZE; i++)
            bytes[i] = (unsigned char)(i % 251);
        _exit(write(ends[1], bytes, SIZE) != SIZE);
    }
    close(ends[1]);
    for (;;) {
        ssize_t count = read(ends[0], bytes, 10000);
        if (count <= 0)
            break;
        for (ssize_t i = 0; i < count; i++)
            wrong += bytes[i] != (unsigned char)((got + i) % 251);
        got += count;
    }
    close(ends[0]);
    CHECK(got == SIZE && wrong == 0);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void duplicates(void)
{
    int file = open("file", O_RDWR | O_CREAT, 0600);
    int copy = dup(file), third = fcntl(file, F_DUPFD_CLOEXEC, 50);

    CHECK(copy > file && third == 50 && fcntl(third, F_GETFD) == FD_CLOEXEC);
    CHECK(write(file, "abc", 3) == 3 && lseek(copy, 0, SEEK_CUR) == 3);
    CHECK(dup2(file, 60) == 60 && dup2(60, 60) == 60);
    CHECK(dup3(file, 61, O_CLOEXEC) == 61 && fcntl(61, F_GETFD) == FD_CLOEXEC);
    CHECK_FAILS(dup3(file, file, 0), EINVAL);
    CHECK_FAILS(dup2(999, 5), EBADF);
    CHECK_FAILS(dup2(file, 1 << 24), EBADF);
    CHECK(close(file) == 0 && write(60, "d", 1) == 1 && lseek(61, 0, SEEK_CUR) == 4);
    CHECK(open("file", O_RDONLY) == file);
    CHECK(syscall(SYS_close_range, 50L, 61L, 0L) == 0);
    CHECK_FAILS(fcntl(50, F_GETFD), EBADF);
    close(file);
    close(copy);
}

static void waiting_for_several(void)
{
    int ends[2], quiet[2];
    struct timespec before, after;
    fd_set readable, writable;
    struct timeval none = {0, 0};

    CHECK(pipe(ends) == 0 && pipe(quiet) == 0);
    struct pollfd polled[3] = {{ends[0], POLLIN, 0}, {quiet[0], POLLIN, 0}, {ends[1], POLLOUT, 0}};
    CHECK(poll(polled, 2, 0) == 0);
    clock_gettime(CLOCK_MONOTONIC, &before);
    CHECK(poll(polled, 2, 30) == 0);
    clock_gettime(CLOCK_MONOTONIC, &after);
    long passed = (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000;
    CHECK(passed >= 29);
    CHECK(poll(polled, 3, -1) == 1 && polled[2].revents == POLLOUT);
    pid_t child = fork();
    if (child == 0) {
        struct timespec moment = {0, 20000000};
        nanosleep(&moment, NULL);
        _exit(write(ends[1], "x", 1) != 1);
    }
    CHECK(poll(polled, 2, -1) == 1 && polled[0].revents == POLLIN && polled[1].revents == 0);
    waitpid(child, NULL, 0);
    FD_ZERO(&readable);
    FD_ZERO(&writable);
    FD_SET(ends[0], &readable);
    FD_SET(quiet[0], &readable);
    FD_SET(quiet[1], &writable);
    CHECK(select(quiet[1] + 1, &readable, &writable, NULL, &none) == 2);
    CHECK(FD_ISSET(ends[0], &readable) && !FD_ISSET(quiet[0], &readable));
    CHECK(FD_ISSET(quiet[1], &writable));
    close(ends[1]);
    char byte;
    CHECK(read(ends[0], &byte, 1) == 1);
    CHECK(poll(polled, 1, -1) == 1 && polled[0].revents == POLLHUP);
    close(quiet[0]);
    struct pollfd broken = {quiet[1], POLLOUT, 0}, invalid = {999, POLLIN, 0};
    CHECK(poll(&broken, 1, -1) == 1 && broken.revents == (POLLOUT | POLLERR));
    CHECK(poll(&invalid, 1, -1) == 1 && invalid.revents == POLLNVAL);
    close(quiet[1]);
    close(ends[0]);
}

static void named(void)
{
    char text[3] = "";

    CHECK(mkfifo("fifo", 0600) == 0);
    pid_t child = fork();
    if (child == 0) {
        int writer = open("fifo", O_WRONLY);
        _exit(write(writer, "hi", 2) != 2);
    }
    int reader = open("fifo", O_RDONLY);
    CHECK(reader >= 0 && read(reader, text, 2) == 2 && strcmp(text, "hi") == 0);
    CHECK(read(reader, text, 2) == 0);
    close(reader);
    waitpid(child, NULL, 0);
    CHECK_FAILS(open("fifo", O_WRONLY | O_NONBLOCK), ENXIO);
}

static void counters(void)
{
    uint64_t value = 5;
    int counter = eventfd(0, EFD_NONBLOCK);

    CHECK(counter >= 0);
    CHECK_FAILS(read(counter, &value, 8), EAGAIN);
    CHECK(write(counter, &value, 8) == 8 && write(counter, &value, 8) == 8);
    CHECK(read(counter, &value, 8) == 8 && value == 10);
    close(counter);
}

static void devices(void)
{
    char bytes[64];
    int null = open("/dev/null", O_RDWR), zero = open("/dev/zero", O_RDONLY);
    int full = open("/dev/full", O_WRONLY), random = open("/dev/urandom", O_RDONLY);

    CHECK(write(null, bytes, 10) == 10 && read(null, bytes, 10) == 0);
    memset(bytes, 1, sizeof bytes);
    CHECK(read(zero, bytes, 64) == 64 && bytes[0] == 0 && bytes[63] == 0);
    CHECK_FAILS(write(full, bytes, 1), ENOSPC);
    CHECK(read(random, bytes, 64) == 64);
    struct stat stat_null;
    CHECK(fstat(null, &stat_null) == 0 && S_ISCHR(stat_null.st_mode) && stat_null.st_rdev == 0x103);
    CHECK(isatty(null) == 0 && errno == ENOTTY);
    close(null);
    close(zero);
    close(full);
    close(random);
}

int main(void)
{
    check_begin();
    one_process();
    two_processes();
    duplicates();
    waiting_for_several();
    named();
    counters();
    devices();
    return check_end();
}
