/*
 * What the tests of signals share. A test says `ok`, or `FAILED:` and what was
 * expected, by write(2) alone; its exit status is 0 or 1.
 */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))

static UNUSED void say(const char *text)
{
    if (write(STDOUT_FILENO, text, strlen(text)) < 0)
        _exit(2);
}

static UNUSED void say_number(long number)
{
    char digits[24];
    char *at = digits + sizeof digits - 1;
    unsigned long rest = number < 0 ? -(unsigned long)number : (unsigned long)number;

    *at = 0;
    do
        *--at = (char)('0' + rest % 10);
    while (rest /= 10);
    if (number < 0)
        *--at = '-';
    say(at);
}

static UNUSED void failed(const char *file, int line, const char *expected)
{
    int error = errno;

    say("FAILED: ");
    say(file);
    say(":");
    say_number(line);
    say(": ");
    say(expected);
    say(" (errno ");
    say_number(error);
    say(")\n");
    _exit(1);
}

#define CHECK(condition)                              \
    do {                                              \
        if (!(condition))                             \
            failed(__FILE__, __LINE__, #condition);   \
    } while (0)

/* CHECK that two numbers agree, and say both if not. */
#define CHECK_EQUAL(actual, expected)                        \
    do {                                                     \
        long actual_ = (long)(actual);                       \
        long expected_ = (long)(expected);                   \
        if (actual_ != expected_) {                          \
            say("got ");                                     \
            say_number(actual_);                             \
            say(" instead of ");                             \
            say_number(expected_);                           \
            say("\n");                                       \
            failed(__FILE__, __LINE__, #actual " == " #expected); \
        }                                                    \
    } while (0)

static UNUSED void passed(void)
{
    say("ok\n");
    exit(0);
}

typedef void information_handler(int, siginfo_t *, void *);

/* Installs a handler with three arguments. */
static UNUSED void handle(int signal, information_handler *handler, int flags)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = flags | SA_SIGINFO};

    sigemptyset(&action.sa_mask);
    CHECK_EQUAL(sigaction(signal, &action, NULL), 0);
}

static UNUSED sigset_t set_of(int signal)
{
    sigset_t set;

    sigemptyset(&set);
    if (signal)
        sigaddset(&set, signal);
    return set;
}

static UNUSED void block(int signal)
{
    sigset_t set = set_of(signal);

    CHECK_EQUAL(sigprocmask(SIG_BLOCK, &set, NULL), 0);
}

static UNUSED void unblock(int signal)
{
    sigset_t set = set_of(signal);

    CHECK_EQUAL(sigprocmask(SIG_UNBLOCK, &set, NULL), 0);
}

static UNUSED bool is_blocked(int signal)
{
    sigset_t set;

    CHECK_EQUAL(sigprocmask(SIG_BLOCK, NULL, &set), 0);
    return sigismember(&set, signal);
}

static UNUSED bool is_pending(int signal)
{
    sigset_t set;

    CHECK_EQUAL(sigpending(&set), 0);
    return sigismember(&set, signal);
}

static UNUSED void sleep_ms(long milliseconds)
{
    struct timespec left = {milliseconds / 1000, milliseconds % 1000 * 1000000};

    while (nanosleep(&left, &left) < 0)
        CHECK_EQUAL(errno, EINTR);
}

static UNUSED long now_ms(void)
{
    struct timespec now;

    CHECK_EQUAL(clock_gettime(CLOCK_MONOTONIC, &now), 0);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Memory that parent and children share. */
static UNUSED void *shared(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    CHECK(memory != MAP_FAILED);
    return memory;
}

/* Waits for a child's end and returns its wait status. */
static UNUSED int status_of(pid_t child)
{
    int status;

    CHECK_EQUAL(waitpid(child, &status, 0), child);
    return status;
}

#endif
