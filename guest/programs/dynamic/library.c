/*
 * Sharing a library.
 *
 * Two processes that have nothing in common but the C library they are linked
 * with run its code from the same frames. Its data began as the same pages of
 * the file; each process has its own since it first wrote to them.
 *
 * To be built as a dynamically linked program; the second process is another
 * execution of it, not a fork's copy.
 */
#include "../experiments/lab.h"

/* A page of the library's code, and one of its data that start-up wrote to. */
static void frames_of_library(long frames[2])
{
    const void *code = (const void *)strtoul;
    const void *data = (const void *)stdout;

    frames[0] = strtoul("7", NULL, 10) == 7 ? lab_frame(code) : 0;
    frames[1] = lab_frame(data);
}

int main(int argc, char **argv)
{
    long mine[2], theirs[2];
    int ends[2];

    if (argc > 1) {
        frames_of_library(mine);
        return write(atoi(argv[1]), mine, sizeof mine) != sizeof mine;
    }
    lab_begin("sharing a library");
    frames_of_library(mine);
    if (pipe(ends) != 0)
        lab_die("pipe");
    pid_t child = fork();
    if (child < 0)
        lab_die("fork");
    if (child == 0) {
        char end[16];

        snprintf(end, sizeof end, "%d", ends[1]);
        execl("/proc/self/exe", argv[0], end, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    if (read(ends[0], theirs, sizeof theirs) != sizeof theirs)
        lab_die("read");
    lab_wait(child);
    lab_show("frame of the library's code", mine[0]);
    lab_check_frames("the other process runs the same frame", mine[0], theirs[0], true);
    lab_show("frame of the library's data", mine[1]);
    lab_check_frames("the other process has the same frame of data", mine[1], theirs[1], false);
    lab_check("anonymous kB of the code", lab_mapping_of((const void *)strtoul).anonymous, 0);
    return lab_end();
}
