/*
 * How fast a file is read: in order and at random, by read and through a mapping.
 *
 *     throughput FILE [warm]
 *
 * A line for each way: its name and the kilobytes of a second. Each way begins
 * with what it can of the file forgotten (posix_fadvise); warm, the whole file was
 * read before, and nothing is forgotten.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096L
#define PIECE (32 * PAGE)

static char buffer[PIECE];
static volatile long sum;
static int file;
static int warm;
static long size;

/* How much is read at random: a quarter, but no more than takes a moment. */
static long sample(void)
{
    const long most = 1024 * PAGE;

    return size / 4 < most ? size / 4 : most;
}

/* The pages in an order that jumps about: an odd step, modulo a power of two. */
static long scattered(long i, long pages)
{
    long all = 1;

    while (all < pages)
        all *= 2;
    return i * 40503 % all;
}

static long read_in_order(void)
{
    for (long at = 0; at < size; at += PIECE)
        sum += pread(file, buffer, PIECE, at);
    return size;
}

static long read_at_random(void)
{
    long done = 0;

    for (long i = 0; done < sample(); i++) {
        long page = scattered(i, size / PAGE);

        if (page < size / PAGE)
            done += pread(file, buffer, PAGE, page * PAGE);
    }
    return done;
}

static long map_in_order(void)
{
    char *memory = mmap(NULL, size, PROT_READ, MAP_SHARED, file, 0);

    for (long at = 0; at < size; at += PAGE)
        sum += ((volatile char *)memory)[at];
    munmap(memory, size);
    return size;
}

static long map_at_random(void)
{
    char *memory = mmap(NULL, size, PROT_READ, MAP_SHARED, file, 0);
    long done = 0;

    madvise(memory, size, MADV_RANDOM);
    for (long i = 0; done < sample(); i++) {
        long page = scattered(i, size / PAGE);

        if (page < size / PAGE) {
            sum += ((volatile char *)memory)[page * PAGE];
            done += PAGE;
        }
    }
    munmap(memory, size);
    return done;
}

static void measure(const char *name, long (*way)(void))
{
    struct timespec before, after;

    if (!warm)
        posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    clock_gettime(CLOCK_MONOTONIC, &before);
    long bytes = way();
    clock_gettime(CLOCK_MONOTONIC, &after);
    double seconds = after.tv_sec - before.tv_sec + (after.tv_nsec - before.tv_nsec) / 1e9;
    printf("%s %.0f\n", name, bytes / 1024.0 / seconds);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct stat stat;

    if (argc < 2 || (file = open(argv[1], O_RDONLY)) < 0 || fstat(file, &stat) != 0)
        return 2;
    size = stat.st_size / PAGE * PAGE;
    warm = argc > 2;
    if (warm)
        read_in_order();
    measure("read-in-order", read_in_order);
    measure("read-at-random", read_at_random);
    measure("mmap-in-order", map_in_order);
    measure("mmap-at-random", map_at_random);
    return 0;
}
