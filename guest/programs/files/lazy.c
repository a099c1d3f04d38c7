/*
 * A file larger than memory is mapped, which costs nothing, and read here and
 * there: what is not touched is not loaded. With MADV_RANDOM the pages that were
 * read from the file are exactly those that were touched.
 *
 *     lazy FILE
 */
#include "../experiments/lab.h"

#include <sys/stat.h>

#define TOUCHES 100

static long major_faults(void)
{
    struct rusage usage;

    memset(&usage, 0, sizeof usage);
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        lab_die("getrusage");
    return usage.ru_majflt;
}

/* Touches pages far apart, no two of them neighbours; returns the bytes' sum. */
static long touch(const volatile char *memory, long pages)
{
    long sum = 0;

    for (long i = 0; i < TOUCHES; i++)
        sum += memory[(i * 37 % TOUCHES) * (pages / TOUCHES) * PAGE];
    return sum;
}

int main(int argc, char **argv)
{
    struct stat stat;

    lab_begin("lazy loading");
    if (argc < 2)
        return 2;
    int file = open(argv[1], O_RDONLY);
    if (file < 0 || fstat(file, &stat) != 0)
        lab_die(argv[1]);
    long pages = stat.st_size / PAGE;
    lab_all_faults();
    long before = lab_all_faults();
    char *memory = mmap(NULL, stat.st_size, PROT_READ, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED)
        lab_die("mmap");
    lab_check("page faults of mmap", lab_all_faults() - before, 0);
    lab_check("Rss before", lab_mapping_of(memory).rss, 0);
    lab_check("madvise", madvise(memory, stat.st_size, MADV_RANDOM), 0);

    before = major_faults();
    long sum = touch(memory, pages);
    lab_check("major faults = pages read from the file", major_faults() - before, TOUCHES);
    lab_check("Rss", lab_mapping_of(memory).rss, TOUCHES * 4);
    before = lab_all_faults();
    lab_check("the same bytes again", touch(memory, pages), sum);
    lab_check("page faults of the second time", lab_all_faults() - before, 0);
    lab_show("sum", sum);
    return lab_end();
}
