/*
 * The same work done both ways: a file of 64 pages is changed in every page, by
 * read and write, and through a shared mapping.
 *
 * read and write copy each byte out and in again and take a call for each page
 * and direction, but fault only for their one buffer. The mapping copies nothing
 * and takes no call, but each page is a page fault. For a small file that grows,
 * the mapping has to be made anew each time.
 */
#include "lab.h"

#define PAGES 64

static long calls, copied;

static void by_read_and_write(int file)
{
    static char buffer[PAGE];

    for (int page = 0; page < PAGES; page++) {
        if (pread(file, buffer, PAGE, page * PAGE) != PAGE)
            lab_die("read");
        buffer[page]++;
        if (pwrite(file, buffer, PAGE, page * PAGE) != PAGE)
            lab_die("write");
        calls += 2;
        copied += 2 * PAGE;
    }
}

/* Appends a few bytes at a time; the mapping covers the file as it is. */
static long faults_of_growing(int file, int rounds)
{
    volatile long before = 0, after = 0;

    for (int warm = 0; warm < 2; warm++) {
        int most = warm == 0 ? 0 : rounds;

        before = lab_all_faults();
        for (int round = 0; round < most; round++) {
            if (ftruncate(file, (round + 1) * 16) != 0)
                lab_die("ftruncate");
            char *memory = lab_map(file, (round + 1) * 16, MAP_SHARED);
            memory[round * 16] = 'g';
            munmap(memory, (round + 1) * 16);
            calls += 3;
        }
        after = lab_all_faults();
    }
    return after - before;
}

int main(int argc, char **argv)
{
    static char page[PAGE];

    lab_begin("mmap against read and write");
    int file = lab_new_file(argc, argv, "ways.bin");
    for (int i = 0; i < PAGES; i++)
        if (write(file, page, PAGE) != PAGE)
            lab_die("write");

    by_read_and_write(file);
    calls = copied = 0;
    lab_all_faults();
    long before = lab_all_faults();
    by_read_and_write(file);
    long faults = lab_all_faults() - before;
    lab_check("read and write: calls", calls, 2 * PAGES);
    lab_check("read and write: bytes copied", copied, 2 * PAGES * PAGE);
    lab_check("read and write: page faults", faults, 0);

    char *memory = lab_map(file, PAGES * PAGE, MAP_SHARED);
    lab_check("mmap: page faults", lab_file_write_faults(memory, PAGES, 1), PAGES);
    lab_check("mmap: page faults of the second time", lab_file_write_faults(memory, PAGES, 2), 0);
    munmap(memory, PAGES * PAGE);

    int small = open("small.bin", O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (small < 0)
        lab_die("small.bin");
    calls = 0;
    lab_check("growing by mmap: page faults", faults_of_growing(small, 100), 100);
    lab_check("growing by mmap: calls", calls, 300);
    calls = 0;
    before = lab_all_faults();
    for (int i = 0; i < 100; i++)
        calls += pwrite(small, "0123456789abcdef", 16, i * 16) == 16;
    lab_check("growing by write: page faults", lab_all_faults() - before, 0);
    lab_check("growing by write: calls", calls, 100);
    return lab_end();
}
