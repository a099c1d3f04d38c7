/*
 * Writes numbered records through a mapping and says of each that it is safe,
 * once msync has: "N\n" on standard output. Whoever kills this at any moment must
 * find every record that was said to be safe, whole.
 *
 *     records FILE COUNT [msync|fsync]
 *
 * A record: its number, bytes that follow from it, and a checksum. It is not as
 * long as a page, so that records lie across pages.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LENGTH 1000
#define WORDS (LENGTH / 8)

static void fill(uint64_t *record, uint64_t number)
{
    uint64_t sum = number;

    record[0] = number;
    for (int i = 1; i < WORDS - 1; i++) {
        record[i] = (number + i) * 0x9e3779b97f4a7c15;
        sum = sum * 31 + record[i];
    }
    record[WORDS - 1] = sum;
}

int main(int argc, char **argv)
{
    uint64_t record[WORDS];

    if (argc < 3)
        return 2;
    long count = atol(argv[2]);
    int by_fsync = argc > 3 && strcmp(argv[3], "fsync") == 0;
    int file = open(argv[1], O_RDWR | O_CREAT, 0644);
    if (file < 0 || (!by_fsync && ftruncate(file, count * LENGTH) != 0))
        return 3;
    char *memory = NULL;
    if (!by_fsync) {
        memory = mmap(NULL, count * LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (memory == MAP_FAILED)
            return 4;
    }
    for (long number = 0; number < count; number++) {
        long start = number * LENGTH, first = start & -4096L;

        fill(record, number);
        if (by_fsync) {
            if (pwrite(file, record, LENGTH, start) != LENGTH || fsync(file) != 0)
                return 5;
        } else {
            memcpy(memory + start, record, LENGTH);
            if (msync(memory + first, start + LENGTH - first, MS_SYNC) != 0)
                return 6;
        }
        printf("%ld\n", number);
        fflush(stdout);
    }
    return 0;
}
