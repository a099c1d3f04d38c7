/*
 * Swap: more anonymous memory than there are frames.
 *
 * A page that is written goes to swap when frames run short, and comes back
 * with the same bytes when it is touched: a major fault. Pages that parent and
 * child share since fork go out once and come back as one frame, as long as
 * nobody has written them. Locked pages stay.
 *
 * Needs swap of at least the size of memory; where there is none (or memory is
 * too large to be filled in a moment) nothing is shown.
 */
#include "lab.h"

#define SHARED 16
#define LAB_SWAPPED (1ULL << 62)
#define MOST_KB (256 * 1024L)
#define LOCKED_KB (7 * 1024L)

/* A line of a /proc file: the number behind `name`. */
static long number_of(const char *path, const char *name)
{
    char *line = strstr(lab_read_file(path), name);

    return line ? strtol(line + strlen(name), NULL, 10) : 0;
}

static long major_faults(void)
{
    struct rusage usage;

    if (getrusage(RUSAGE_SELF, &usage) != 0)
        lab_die("getrusage");
    return usage.ru_majflt;
}

/* Each page says at both ends which one it is. */
static void fill(unsigned long *page, unsigned long number)
{
    page[0] = number * 0x9e3779b97f4a7c15UL;
    page[PAGE / sizeof *page - 1] = ~number;
}

static bool holds(const unsigned long *page, unsigned long number)
{
    return page[0] == number * 0x9e3779b97f4a7c15UL && page[PAGE / sizeof *page - 1] == ~number;
}

static unsigned long *page_at(char *memory, unsigned long number)
{
    return (unsigned long *)(memory + number * PAGE);
}

/* The child: looks at a page whenever it is told to, and says where it is. */
static int look_at_pages(char *memory, struct lab_turn *asked, struct lab_turn *answer)
{
    for (long number; (number = lab_take_turn(asked)) >= 0;) {
        if (!holds(page_at(memory, number), number))
            lab_failures++;
        lab_give_turn(answer, lab_frame(page_at(memory, number)));
    }
    fill(page_at(memory, 0), 77);
    lab_give_turn(answer, holds(page_at(memory, 0), 77));
    return lab_failures != 0;
}

/* Locks some memory, so that less of it has to be filled; returns where. */
static char *lock_some(void)
{
    char *locked = mmap(NULL, LOCKED_KB * 1024, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (locked == MAP_FAILED || mlock(locked, LOCKED_KB * 1024) != 0)
        lab_die("mlock");
    return locked;
}

static void compare_frames(char *memory, struct lab_turn *ask, struct lab_turn *answer)
{
    long same = 0;

    for (unsigned long number = 0; number < SHARED; number++) {
        bool ours = holds(page_at(memory, number), number);

        lab_give_turn(ask, number);
        long theirs = lab_take_turn(answer);
        same += ours && theirs == lab_frame(page_at(memory, number));
    }
    lab_check("pages that came back as one frame", same, SHARED);
}

int main(void)
{
    lab_begin("swap: more anonymous memory than frames");
    long total = number_of("/proc/meminfo", "MemTotal:");

    if (number_of("/proc/meminfo", "SwapTotal:") < total || total > MOST_KB) {
        printf("swap: too little for %ld kB of memory, nothing to show\n", total);
        return lab_end();
    }
    char *locked = lock_some();
    long left = number_of("/proc/meminfo", "MemFree:") / 4;
    unsigned long count = left + left / 4;
    char *memory =
        mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        lab_die("mmap");
    for (unsigned long number = 0; number < SHARED; number++)
        fill(page_at(memory, number), number);

    struct lab_turn ask = lab_new_turn(), answer = lab_new_turn();
    pid_t child = fork();
    if (child < 0)
        lab_die("fork");
    if (child == 0)
        return look_at_pages(memory, &ask, &answer);

    for (unsigned long number = SHARED; number < count; number++)
        fill(page_at(memory, number), number);
    long out = 0;
    for (unsigned long number = 0; number < SHARED; number++)
        out += (lab_pagemap(page_at(memory, number)) & LAB_SWAPPED) != 0;
    lab_check("shared pages that went out", out, SHARED);
    struct lab_mapping mapping = lab_mapping_of(memory);
    lab_check("resident or in swap, in pages", (mapping.rss + mapping.swap) / 4, count);
    lab_check("an eighth of it is in swap", mapping.swap / 4 > (long)count / 8, 1);
    lab_check("nothing that is locked is", lab_mapping_of(locked).swap, 0);

    long before = major_faults();
    compare_frames(memory, &ask, &answer);
    lab_check("our major faults for them", major_faults() - before, SHARED);

    long wrong = 0;
    for (unsigned long number = 0; number < count; number++)
        wrong += !holds(page_at(memory, number), number);
    lab_check("pages with wrong contents", wrong, 0);
    lab_show("pages written to swap", number_of("/proc/vmstat", "pswpout "));
    lab_show("pages read from swap", number_of("/proc/vmstat", "pswpin "));

    lab_give_turn(&ask, -1);
    lab_check("the child wrote its own copy", lab_take_turn(&answer), 1);
    lab_check("ours is as it was", holds(page_at(memory, 0), 0), 1);
    lab_wait(child);
    return lab_end();
}
