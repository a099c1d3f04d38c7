/*
 * A file larger than memory is read through a mapping from start to end, or
 * written through one:
 *
 *     sequential FILE read|write|fail
 *
 * Pages that were used are given up again, so that the program neither fails nor
 * grows: what it has in memory stays below what there is. When it is written, page
 * N gets N + 1 as its first word and 2 N + 1 as its last. With fail it is written
 * where that cannot succeed: msync says so, and the program lives on.
 */
#include "../experiments/lab.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>

static long kilobytes_of_memory(void)
{
    struct sysinfo info;

    if (sysinfo(&info) != 0)
        lab_die("sysinfo");
    return info.totalram * info.mem_unit / 1024;
}

/* Pages in memory. Of smaps the kernel would look at each of them. */
static long resident_pages(void)
{
    long size, resident;

    if (sscanf(lab_read_file("/proc/self/statm"), "%ld %ld", &size, &resident) != 2)
        lab_die("/proc/self/statm");
    return resident;
}

int main(int argc, char **argv)
{
    struct stat stat;
    struct rusage usage;
    long sum = 0, most = 0;

    lab_begin("a file larger than memory, from start to end");
    if (argc < 3)
        return 2;
    int file = open(argv[1], O_RDWR);
    if (file < 0 || fstat(file, &stat) != 0)
        lab_die(argv[1]);
    long pages = stat.st_size / PAGE, memory_size = kilobytes_of_memory();
    lab_check("the file is larger than memory", stat.st_size / 1024 > memory_size, true);
    bool fails = strcmp(argv[2], "fail") == 0, writes = fails || strcmp(argv[2], "write") == 0;
    volatile long *words = (volatile long *)lab_map(file, stat.st_size, MAP_SHARED);
    for (long page = 0; page < pages; page++) {
        volatile long *at = words + page * (PAGE / sizeof *words);

        if (writes) {
            at[0] = page + 1;
            at[PAGE / sizeof *words - 1] = 2 * page + 1;
        } else {
            sum += at[0] + at[PAGE / sizeof *words - 1];
        }
        if (page % 512 == 511) {
            long resident = resident_pages() * (PAGE / 1024);

            most = resident > most ? resident : most;
        }
    }
    if (!writes)
        lab_show("sum", sum);
    lab_check("most in memory is less than there is", most < memory_size, true);
    lab_check("and more than nothing", most > 0, true);
    getrusage(RUSAGE_SELF, &usage);
    lab_show("pages", pages);
    lab_show("major faults", usage.ru_majflt);
    int synced = msync((void *)words, stat.st_size, MS_SYNC) == 0 ? 0 : errno;
    lab_check("error of writing back", synced, fails ? ENOSPC : 0);
    return lab_end();
}
