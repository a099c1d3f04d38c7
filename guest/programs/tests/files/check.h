/*
 * What every test here uses: checks that count failures, and the end.
 *
 * A test prints `ok`, or a line for each check that failed and its value; the
 * same on Linux and in a lab.
 */
#ifndef CHECK_H
#define CHECK_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* An address where nothing is, that the compiler does not know. */
static void *volatile check_nowhere = (void *)8;

static int check_failures;

#define CHECK(condition)                                                           \
    do {                                                                           \
        if (!(condition)) {                                                        \
            check_failures++;                                                      \
            printf("FAILED: %s:%d: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno); \
        }                                                                          \
    } while (0)

/* A call that has to fail with this error. */
#define CHECK_FAILS(call, error)                                                   \
    do {                                                                           \
        errno = 0;                                                                 \
        long check_result = (long)(call);                                          \
        if (check_result != -1 || errno != (error)) {                              \
            check_failures++;                                                      \
            printf("FAILED: %s:%d: %s gives %ld, errno %d instead of %d\n", __FILE__, __LINE__, \
                   #call, check_result, errno, error);                             \
        }                                                                          \
    } while (0)

/* Goes to an empty folder of this test's own. */
static inline void check_begin(void)
{
    char folder[] = "/tmp/files-XXXXXX";

    setvbuf(stdout, NULL, _IONBF, 0);
    if (mkdtemp(folder) == NULL || chdir(folder) != 0) {
        perror("a folder in /tmp");
        exit(2);
    }
}

static inline int check_end(void)
{
    if (check_failures == 0)
        puts("ok");
    return check_failures != 0;
}

/* Runs `body` in a child; returns how it ended, as wait has it. */
static inline int check_child(void (*body)(void))
{
    int status = -1;
    pid_t child = fork();

    if (child == 0) {
        body();
        _exit(0);
    }
    waitpid(child, &status, 0);
    return status;
}

#endif
