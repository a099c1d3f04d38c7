/*
 * A thread that is not the first one executes a program: the others end, and it
 * goes on as the process's only thread, with the number of the first.
 */
#include "../signals/check.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>

extern char **environ;
/* Where this program is. */
static char own_name[4096];

static void *sleep_for_ever(void *nothing)
{
    for (;;)
        pause();
    return nothing;
}

static void *execute(void *how)
{
    char before[32];
    char *arguments[] = {own_name, (char *)"second", before, NULL};

    (void)how;
    CHECK(syscall(SYS_gettid) != getpid());
    snprintf(before, sizeof before, "%d", getpid());
    execve(own_name, arguments, environ);
    CHECK(!"execve went well");
    return NULL;
}

static void second_program(const char *pid)
{
    struct dirent *thread;
    int count = 0;
    DIR *threads;

    CHECK_EQUAL(getpid(), atoi(pid));
    CHECK_EQUAL(syscall(SYS_gettid), getpid());
    CHECK_EQUAL(syscall(SYS_tgkill, getpid(), getpid(), 0), 0);
    CHECK((threads = opendir("/proc/self/task")) != NULL);
    while ((thread = readdir(threads)) != NULL)
        if (thread->d_name[0] != '.')
            CHECK_EQUAL(atoi(thread->d_name) == getpid() && ++count == 1, 1);
    CHECK_EQUAL(count, 1);
    _exit(42);
}

static void in_thread(bool leader_ends)
{
    pid_t child = fork();
    pthread_t thread;

    CHECK(child >= 0);
    if (child == 0) {
        CHECK_EQUAL(pthread_create(&thread, NULL, sleep_for_ever, NULL), 0);
        CHECK_EQUAL(pthread_create(&thread, NULL, execute, NULL), 0);
        if (leader_ends)
            syscall(SYS_exit, 1);
        sleep_for_ever(NULL);
    }
    CHECK_EQUAL(status_of(child), 42 << 8);
}

/* Files that another process shares are shared no more, and not closed there. */
static int execute_alone(void *nothing)
{
    char *arguments[] = {own_name, (char *)"third", NULL};

    (void)nothing;
    execve(own_name, arguments, environ);
    _exit(1);
}

static void shared_files(void)
{
    static char stack[65536] __attribute__((aligned(16)));
    int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    pid_t child = clone(execute_alone, stack + sizeof stack, CLONE_FILES | SIGCHLD, NULL);

    CHECK(child > 0);
    CHECK_EQUAL(status_of(child), 43 << 8);
    CHECK(fcntl(file, F_GETFD) == FD_CLOEXEC);
}

int main(int argc, char **argv)
{
    CHECK(readlink("/proc/self/exe", own_name, sizeof own_name - 1) > 0);
    if (argc == 3)
        second_program(argv[2]);
    if (argc == 2) {
        CHECK(fcntl(3, F_GETFD) == -1);
        _exit(43);
    }
    close(3);
    in_thread(false);
    in_thread(true);
    shared_files();
    passed();
}
