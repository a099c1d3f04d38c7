/*
 * What the experiments share: a way to look at one's own memory.
 *
 *   lab_begin, lab_check, lab_end   print `key: value` lines and a verdict
 *   lab_minor_faults                page faults so far (getrusage)
 *   lab_write_faults, ..._read_...  page faults that one access costs
 *   lab_mapping_of                  what /proc/self/smaps says of an address
 *   lab_pagemap, lab_frame          which physical frame lies behind a page
 *
 * Observing must not disturb what is observed, so nothing here allocates
 * memory: files are read with read(2) into one static buffer.
 */
#ifndef LAB_H
#define LAB_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
#define UNUSED __attribute__((unused))

/* ------------------------------------------------------------- verdict -- */

static int lab_failures;

/* Ends the experiment because something it needs is not there. */
static UNUSED void lab_die(const char *what)
{
    perror(what);
    printf("FAILED: %s\n", what);
    exit(1);
}

/*
 * Prepares for measuring. Lines go out one by one, so that a fork never
 * duplicates buffered output. Huge pages are refused: the experiments count
 * pages of 4 KiB.
 */
static UNUSED void lab_begin(const char *experiment)
{
    static char line_buffer[BUFSIZ];

    setvbuf(stdout, line_buffer, _IOLBF, sizeof line_buffer);
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    printf("experiment: %s\n", experiment);
}

/* Prints a number that is only shown, not judged. */
static UNUSED void lab_show(const char *key, long value)
{
    printf("%s: %ld\n", key, value);
}

/* Prints a number and remembers a failure if it is not the expected one. */
static UNUSED void lab_check(const char *key, long value, long expected)
{
    printf("%s: %ld\n", key, value);
    if (value != expected) {
        printf("FAILED: %s is %ld, expected %ld\n", key, value, expected);
        lab_failures++;
    }
}

/* The verdict: the last line of every experiment, and its exit status. */
static UNUSED int lab_end(void)
{
    if (lab_failures == 0) {
        printf("ok\n");
        return 0;
    }
    printf("FAILED: %d of the checks\n", lab_failures);
    return 1;
}

/* Waits for a child; its failed checks become the parent's. */
static UNUSED void lab_wait(pid_t child)
{
    int status;

    if (waitpid(child, &status, 0) != child)
        lab_die("waitpid");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        printf("FAILED: the child ended with status 0x%x\n", status);
        lab_failures++;
    }
}

/* -------------------------------------------------------------- files -- */

/*
 * Opens an empty file of the experiment's own. It lies in the folder that the
 * experiment was given as its first argument, else in the current one.
 */
static UNUSED int lab_new_file(int argc, char **argv, const char *name)
{
    int file;

    if (argc > 1 && chdir(argv[1]) != 0)
        lab_die(argv[1]);
    file = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (file < 0)
        lab_die(name);
    return file;
}

/* Maps `length` bytes of a file from its start. */
static UNUSED char *lab_map(int file, size_t length, int flags)
{
    char *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, flags, file, 0);

    if (memory == MAP_FAILED)
        lab_die("mmap of a file");
    return memory;
}

/* ------------------------------------------------------- taking turns -- */

/* A pipe used as a signal from one process to the other. */
struct lab_turn {
    int ends[2];
};

static UNUSED struct lab_turn lab_new_turn(void)
{
    struct lab_turn turn;

    if (pipe(turn.ends) != 0)
        lab_die("pipe");
    return turn;
}

/* Hands the turn, and a number, to the process that waits for it. */
static UNUSED void lab_give_turn(struct lab_turn *turn, long number)
{
    if (write(turn->ends[1], &number, sizeof number) != sizeof number)
        lab_die("write to a pipe");
}

static UNUSED long lab_take_turn(struct lab_turn *turn)
{
    long number;

    if (read(turn->ends[0], &number, sizeof number) != sizeof number)
        lab_die("read from a pipe");
    return number;
}

/*
 * Linux parks new pages in a list per CPU, and such a page counts one owner
 * too many when its process has moved to another CPU meanwhile: then "last
 * owner" is not seen. On one CPU that cannot happen.
 */
static UNUSED void lab_stay_on_one_cpu(void)
{
    cpu_set_t cpus;

    CPU_ZERO(&cpus);
    CPU_SET(0, &cpus);
    sched_setaffinity(0, sizeof cpus, &cpus);
}

/* ------------------------------------------------------ counting faults -- */

/* Page faults of this process so far that needed no I/O. */
static UNUSED long lab_minor_faults(void)
{
    struct rusage usage;

    memset(&usage, 0, sizeof usage);
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        lab_die("getrusage");
    return usage.ru_minflt;
}

/*
 * Fills `count` pages from `address` with `value`, one write a page, and
 * returns how many page faults that took.
 *
 * The stack, this code and getrusage's can fault, too, above all in a child
 * that has just been forked. Going round the loop first with no page at all
 * gets that out of the way.
 */
static UNUSED long lab_write_faults(void *address, size_t count, char value)
{
    volatile char *bytes = address;
    volatile long before = 0, after = 0;

    for (int round = 0; round < 2; round++) {
        size_t end = round == 0 ? 0 : count;

        before = lab_minor_faults();
        for (size_t page = 0; page < end; page++)
            bytes[page * PAGE] = value;
        after = lab_minor_faults();
    }
    return after - before;
}

/* Page faults of this process so far, with and without I/O. */
static UNUSED long lab_all_faults(void)
{
    struct rusage usage;

    memset(&usage, 0, sizeof usage);
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        lab_die("getrusage");
    return usage.ru_minflt + usage.ru_majflt;
}

/* As lab_write_faults, for pages of files, which may have to be read first. */
static UNUSED long lab_file_write_faults(void *address, size_t count, char value)
{
    volatile char *bytes = address;
    volatile long before = 0, after = 0;

    for (int round = 0; round < 2; round++) {
        size_t end = round == 0 ? 0 : count;

        before = lab_all_faults();
        for (size_t page = 0; page < end; page++)
            bytes[page * PAGE] = value;
        after = lab_all_faults();
    }
    return after - before;
}

/* The same for reading; the bytes read are added up in `*sum`. */
static UNUSED long lab_read_faults(const void *address, size_t count, long *sum)
{
    const volatile char *bytes = address;
    volatile long before = 0, after = 0;

    *sum = 0;
    for (int round = 0; round < 2; round++) {
        size_t end = round == 0 ? 0 : count;

        before = lab_minor_faults();
        for (size_t page = 0; page < end; page++)
            *sum += bytes[page * PAGE];
        after = lab_minor_faults();
    }
    return after - before;
}

/* --------------------------------------------------------------- smaps -- */

/* One mapping as /proc/self/smaps shows it; sizes in kB, as there. */
struct lab_mapping {
    unsigned long start, end;
    char perms[5];
    long size, rss, pss;
    long shared_clean, shared_dirty, private_clean, private_dirty;
    long referenced, anonymous, swap;
};

/* Reads a whole /proc file; the text is valid until the next call. */
static UNUSED char *lab_read_file(const char *path)
{
    static char text[128 * 1024];
    size_t length = 0;
    ssize_t count;
    int file = open(path, O_RDONLY);

    if (file < 0)
        lab_die(path);
    while ((count = read(file, text + length, sizeof text - 1 - length)) > 0)
        length += count;
    close(file);
    text[length] = '\0';
    return text;
}

/* Takes one `Name:   123 kB` line of smaps into the mapping. */
static UNUSED void lab_take_field(struct lab_mapping *mapping, const char *line)
{
    const struct {
        const char *name;
        long *value;
    } fields[] = {
        {"Size:", &mapping->size},
        {"Rss:", &mapping->rss},
        {"Pss:", &mapping->pss},
        {"Shared_Clean:", &mapping->shared_clean},
        {"Shared_Dirty:", &mapping->shared_dirty},
        {"Private_Clean:", &mapping->private_clean},
        {"Private_Dirty:", &mapping->private_dirty},
        {"Referenced:", &mapping->referenced},
        {"Anonymous:", &mapping->anonymous},
        {"Swap:", &mapping->swap},
    };

    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        size_t length = strlen(fields[i].name);

        if (strncmp(line, fields[i].name, length) == 0)
            *fields[i].value = strtol(line + length, NULL, 10);
    }
}

/* The mapping that holds `address`. */
static UNUSED struct lab_mapping lab_mapping_of(const void *address)
{
    struct lab_mapping mapping;
    unsigned long wanted = (unsigned long)address;
    bool found = false;
    char *line = lab_read_file("/proc/self/smaps"), *next;

    memset(&mapping, 0, sizeof mapping);
    for (; *line != '\0'; line = next) {
        unsigned long start, end;
        char perms[5];

        next = strchr(line, '\n');
        next = next ? next + 1 : line + strlen(line);
        if (sscanf(line, "%lx-%lx %4s", &start, &end, perms) == 3) {
            if (found)
                break;
            found = start <= wanted && wanted < end;
            if (found) {
                mapping.start = start;
                mapping.end = end;
                memcpy(mapping.perms, perms, sizeof perms);
            }
        } else if (found) {
            lab_take_field(&mapping, line);
        }
    }
    if (!found)
        lab_die("no such mapping in /proc/self/smaps");
    return mapping;
}

/* ------------------------------------------------------------- pagemap -- */

#define LAB_PRESENT (1ULL << 63)
#define LAB_EXCLUSIVE (1ULL << 56)
#define LAB_FRAME_MASK ((1ULL << 55) - 1)

/* The entry of /proc/self/pagemap for the page that holds `address`. */
static UNUSED uint64_t lab_pagemap(const void *address)
{
    uint64_t entry;
    int file = open("/proc/self/pagemap", O_RDONLY);
    off_t offset = (unsigned long)address / PAGE * sizeof entry;

    if (file < 0)
        lab_die("/proc/self/pagemap");
    if (pread(file, &entry, sizeof entry, offset) != sizeof entry)
        lab_die("read from /proc/self/pagemap");
    close(file);
    return entry;
}

/* Whether a frame lies behind the page of `address` now. */
static UNUSED bool lab_present(const void *address)
{
    return (lab_pagemap(address) & LAB_PRESENT) != 0;
}

/* Whether this process alone maps the frame behind `address`. */
static UNUSED bool lab_exclusive(const void *address)
{
    return (lab_pagemap(address) & LAB_EXCLUSIVE) != 0;
}

/* The number of the frame behind `address`; 0 if there is none or if Linux
 * hides it, as it does from all but root. */
static UNUSED long lab_frame(const void *address)
{
    uint64_t entry = lab_pagemap(address);

    return entry & LAB_PRESENT ? (long)(entry & LAB_FRAME_MASK) : 0;
}

/* Checks that two frame numbers are the same, or that they differ, where
 * frame numbers can be seen at all. */
static UNUSED void lab_check_frames(const char *key, long one, long other, bool same)
{
    if (one == 0 || other == 0)
        printf("%s: hidden\n", key);
    else
        lab_check(key, one == other, same);
}

#endif
