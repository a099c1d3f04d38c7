/* How many files a process may open. */
#include "check.h"

#include <sys/resource.h>

static unsigned long number_in(const char *path)
{
    char text[32] = "";
    int file = open(path, O_RDONLY);

    CHECK(file >= 0 && read(file, text, sizeof text - 1) > 0);
    close(file);
    return strtoul(text, NULL, 10);
}

int main(void)
{
    unsigned long most = number_in("/proc/sys/fs/nr_open");
    struct rlimit before, wrong = {.rlim_cur = 3, .rlim_max = most + 1}, few = {3, 0};

    check_begin();
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK_FAILS(setrlimit(RLIMIT_NOFILE, &wrong), EPERM);
    wrong = (struct rlimit){.rlim_cur = 4, .rlim_max = 3};
    CHECK_FAILS(setrlimit(RLIMIT_NOFILE, &wrong), EINVAL);
    few.rlim_max = before.rlim_max;
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    CHECK_FAILS(open(".", O_RDONLY), EMFILE);
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(open(".", O_RDONLY) == 3);
    return check_end();
}
