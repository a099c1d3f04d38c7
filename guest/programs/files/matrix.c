/*
 * A matrix in a mapped file that is larger than the memory that is left for it,
 * added up by rows and by columns. A row is as long as a page, and a column takes one word of each row.
 *
 * By rows each page is read once. By columns each of them is read for the first
 * column, and has been given up again when the second one comes: as often as
 * there are columns.
 *
 *     matrix FILE
 */
#include "../experiments/lab.h"

#include <sys/stat.h>
#include <sys/sysinfo.h>

#define COLUMNS 3
/* What is left of memory, in bytes: less than the file is long. */
#define LEFT (5UL << 18)

static long rows, sums[2];
static volatile int *words;

static long major_faults(void)
{
    struct rusage usage;

    memset(&usage, 0, sizeof usage);
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        lab_die("getrusage");
    return usage.ru_majflt;
}

static int element(long row, long column)
{
    return words[row * (PAGE / sizeof *words) + column * (PAGE / sizeof *words / COLUMNS)];
}

/* Takes memory until little is left. */
static void take_memory(void)
{
    struct sysinfo info;

    if (sysinfo(&info) != 0)
        lab_die("sysinfo");
    unsigned long free_bytes = info.freeram * info.mem_unit;
    if (free_bytes <= LEFT)
        return;
    char *memory = mmap(NULL, free_bytes - LEFT, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED)
        lab_die("mmap");
}

static long by_rows(void)
{
    long before = major_faults();

    for (long row = 0; row < rows; row++)
        for (long column = 0; column < COLUMNS; column++)
            sums[0] += element(row, column);
    return major_faults() - before;
}

static long by_columns(void)
{
    long before = major_faults();

    for (long column = 0; column < COLUMNS; column++)
        for (long row = 0; row < rows; row++)
            sums[1] += element(row, column);
    return major_faults() - before;
}

int main(int argc, char **argv)
{
    struct stat stat;

    lab_begin("by rows and by columns, with little memory");
    if (argc < 2)
        return 2;
    int file = open(argv[1], O_RDONLY);
    if (file < 0 || fstat(file, &stat) != 0)
        lab_die(argv[1]);
    rows = stat.st_size / PAGE;
    take_memory();
    lab_check("the file is larger than the memory that is left", stat.st_size > (long)LEFT, true);
    words = mmap(NULL, stat.st_size, PROT_READ, MAP_SHARED, file, 0);
    if (words == MAP_FAILED || madvise((void *)words, stat.st_size, MADV_RANDOM) != 0)
        lab_die("mmap");
    long rowwise = by_rows(), columnwise = by_columns();
    lab_check("by rows: major faults", rowwise, rows);
    lab_show("by columns: major faults", columnwise);
    lab_check("about as many times as there are columns",
              columnwise > (COLUMNS - 1) * rows && columnwise <= COLUMNS * rows, true);
    lab_check("the sums agree", sums[0], sums[1]);
    return lab_end();
}
