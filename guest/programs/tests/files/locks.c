/* Records of fcntl: who is in the way, and who waits for whom. */
#include "check.h"

static int file;

static int lock(int command, short kind, off_t start, off_t length)
{
    struct flock lock = {.l_type = kind, .l_whence = SEEK_SET, .l_start = start, .l_len = length};

    return fcntl(file, command, &lock);
}

/* A child that does something, says so, and stays until it is killed. */
static pid_t holder(void (*what)(void))
{
    int ends[2];
    char byte;
    pid_t child;

    CHECK(pipe(ends) == 0);
    child = fork();
    if (child == 0) {
        what();
        CHECK(write(ends[1], "x", 1) == 1);
        pause();
        _exit(0);
    }
    CHECK(read(ends[0], &byte, 1) == 1);
    close(ends[0]);
    close(ends[1]);
    return child;
}

static void end(pid_t child)
{
    kill(child, SIGKILL);
    CHECK(waitpid(child, NULL, 0) == child);
}

static void two_locks(void)
{
    CHECK(lock(F_SETLK, F_WRLCK, 10, 5) == 0);
    CHECK(lock(F_SETLK, F_RDLCK, 1, 5) == 0);
}

/* The first in the file is told, not the one that is older. */
static void first_in_the_way(void)
{
    struct flock got = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    pid_t child = holder(two_locks);

    CHECK(fcntl(file, F_GETLK, &got) == 0 && got.l_type == F_RDLCK);
    CHECK(got.l_start == 1 && got.l_len == 5 && got.l_pid == child);
    got = (struct flock){.l_type = F_RDLCK, .l_whence = SEEK_SET};
    CHECK(fcntl(file, F_GETLK, &got) == 0 && got.l_type == F_WRLCK && got.l_start == 10);
    CHECK_FAILS(lock(F_SETLK, F_WRLCK, 14, 1), EAGAIN);
    CHECK(lock(F_SETLK, F_WRLCK, 6, 4) == 0 && lock(F_SETLK, F_UNLCK, 0, 0) == 0);
    end(child);
    CHECK(lock(F_SETLK, F_WRLCK, 0, 0) == 0 && lock(F_SETLK, F_UNLCK, 0, 0) == 0);
}

static void deadlock(void)
{
    int ends[2], status;
    char byte;
    pid_t child;

    CHECK(lock(F_SETLK, F_WRLCK, 0, 1) == 0 && pipe(ends) == 0);
    child = fork();
    if (child == 0) {
        CHECK(lock(F_SETLK, F_WRLCK, 1, 1) == 0);
        CHECK(write(ends[1], "x", 1) == 1);
        /* Sleeps until its parent, which was refused, gives back what it has. */
        CHECK(lock(F_SETLKW, F_WRLCK, 0, 1) == 0);
        _exit(check_failures);
    }
    CHECK(read(ends[0], &byte, 1) == 1);
    usleep(200000);
    CHECK_FAILS(lock(F_SETLKW, F_WRLCK, 1, 1), EDEADLK);
    CHECK(lock(F_SETLK, F_UNLCK, 0, 1) == 0);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(lock(F_SETLKW, F_WRLCK, 0, 2) == 0);
}

int main(void)
{
    check_begin();
    file = open("file", O_RDWR | O_CREAT, 0600);
    CHECK(write(file, "0123456789abcdefghij", 20) == 20);
    first_in_the_way();
    deadlock();
    return check_end();
}
