/*
 * What /proc and mincore say of the windows, for the transcript.
 */
#include <linux/fcntl.h>

#include "difftest.h"

/* -------------------------------------------------- reading /proc files -- */

/* A file read line by line, without allocating memory. */
static struct reader {
    int file;
    size_t used, length;
    char chunk[4096];
    char line[512];
} reader;

static void open_file(const char *path)
{
    long result = sys6(__NR_openat, AT_FDCWD, (long)path, O_RDONLY, 0, 0, 0);

    if (result < 0)
        give_up(path, result);
    reader.file = result;
    reader.used = reader.length = 0;
}

static void close_file(void)
{
    sys3(__NR_close, reader.file, 0, 0);
}

/* Takes the next line into reader.line; false at the end of the file. */
static bool next_line(void)
{
    size_t count = 0;

    for (;;) {
        if (reader.used == reader.length) {
            long result = sys3(__NR_read, reader.file, (long)reader.chunk, sizeof reader.chunk);

            if (result < 0)
                give_up("read from /proc", result);
            reader.used = 0;
            reader.length = result;
            if (result == 0)
                break;
        }
        char c = reader.chunk[reader.used++];
        if (c == '\n')
            break;
        if (count < sizeof reader.line - 1)
            reader.line[count++] = c;
    }
    reader.line[count] = '\0';
    return count > 0 || reader.length > 0;
}

static uint64_t take_hex(const char **text)
{
    uint64_t value = 0;

    for (;; ++*text) {
        char c = **text;

        if (c >= '0' && c <= '9')
            value = value * 16 + c - '0';
        else if (c >= 'a' && c <= 'f')
            value = value * 16 + c - 'a' + 10;
        else
            return value;
    }
}

static bool starts_with(const char *text, const char *prefix)
{
    while (*prefix)
        if (*text++ != *prefix++)
            return false;
    return true;
}

/* ------------------------------------------------------------ mappings -- */

struct mapping {
    int window; /* -1: in none */
    uint64_t start, end;
    bool shared, of_file;
};

/* The name of the file behind a line's access rights, `rw-p offset device inode
 * name`; NULL if there is none. Shared memory looks like a file, too. */
static const char *mapped_file(const char *rights)
{
    const char *name = rights;

    for (int words = 4; words > 0; words--) {
        while (*name && *name != ' ')
            name++;
        while (*name == ' ')
            name++;
    }
    return *name == '/' && !starts_with(name, "/dev/zero") ? name : NULL;
}

/* Neighbouring mappings of one file with the same rights. Linux keeps those apart
 * that were made through files opened one by one, others may not: what is printed
 * is where the first begins and the last ends. */
static struct {
    uint64_t end; /* 0: none under way */
    uint64_t next_offset;
    char rights[4];
    char name[64];
} run;

static void end_run(void)
{
    if (run.end == 0)
        return;
    print("     to ");
    print_address(run.end);
    print("\n");
    run.end = 0;
}

/* Takes a mapping of a file into the run, or begins another one. The folder is
 * not the same on all kernels: the last part of the name says which file it is. */
static void take_into_run(uint64_t start, uint64_t end, const char *rights, const char *name)
{
    const char *base = name, *offset_text = rights + 5;
    uint64_t offset = take_hex(&offset_text);
    size_t length = 0;
    bool alike = run.end == start && run.next_offset == offset;

    for (const char *at = name; *at; at++)
        if (*at == '/')
            base = at + 1;
    /* Which of two names a mapping goes by is not the same everywhere. */
    if (was_noted(FACT_FILE_WITH_TWO_NAMES))
        base = "?";
    for (int i = 0; i < 4; i++)
        alike = alike && run.rights[i] == rights[i];
    while (alike && run.name[length] == base[length] && base[length])
        length++;
    alike = alike && run.name[length] == base[length];
    if (!alike) {
        end_run();
        print("    ");
        print_address(start);
        print(" ");
        for (int i = 0; i < 4; i++)
            print_char(run.rights[i] = rights[i]);
        print(" ");
        print_hex(offset);
        print(" ");
        print(base);
        print("\n");
        for (length = 0; base[length] && length < sizeof run.name - 1; length++)
            run.name[length] = base[length];
        run.name[length] = '\0';
    }
    run.end = end;
    run.next_offset = offset + (end - start);
}

/* Takes a line like `1000-3000 rw-p …`, cut to what a window shows of it, and
 * prints it; false if it is no such line. */
static bool take_mapping(struct mapping *mapping)
{
    const char *text = reader.line, *file;

    if (!((*text >= '0' && *text <= '9') || (*text >= 'a' && *text <= 'f')))
        return false;
    mapping->start = take_hex(&text);
    text++;
    mapping->end = take_hex(&text);
    text++;
    file = mapped_file(text);
    mapping->shared = text[3] == 's';
    mapping->of_file = file != NULL;
    mapping->window = -1;
    for (int i = 0; i < WINDOWS; i++) {
        uint64_t start = windows[i].start - (i == WINDOW_C ? 0 : BESIDE);
        uint64_t end = windows[i].start + WINDOW_PAGES * PAGE + (i == WINDOW_B ? 0 : BESIDE);

        if (mapping->end <= start || mapping->start >= end)
            continue;
        mapping->window = i;
        if (mapping->start < start)
            mapping->start = start;
        if (mapping->end > end)
            mapping->end = end;
    }
    if (mapping->window >= 0 && file != NULL) {
        take_into_run(mapping->start, mapping->end, text, file);
    } else if (mapping->window >= 0) {
        end_run();
        print("    ");
        print_address(mapping->start);
        print(" ");
        print_address(mapping->end);
        print(" ");
        for (int i = 0; i < 4; i++)
            print_char(text[i]);
        print("\n");
    }
    return true;
}

void observe_maps(void)
{
    struct mapping mapping;

    print("\n");
    open_file("/proc/self/maps");
    while (next_line())
        take_mapping(&mapping);
    end_run();
    close_file();
}

/* Prints the line's name and values, with one space between them. */
static void print_field(const char *text)
{
    print("     ");
    for (; *text; text++)
        if (*text != ' ' || (text[1] != ' ' && text[1] != '\0'))
            print_char(*text);
    print("\n");
}

/* Soft-dirty is shown by kernels that were built to track it only. */
static void drop_soft_dirty(char *line)
{
    char *at = line;

    while (*at && !(starts_with(at, " sd") && (at[3] == ' ' || !at[3] || at[3] == '\n')))
        at++;
    for (; at[0] && at[1] && at[2]; at++)
        at[0] = at[3];
}

/* Of a shared mapping only that is shown which does not depend on how many of
 * its pages have been entered in the page table. Accessed bits are left out:
 * the kernel may clear them whenever it looks for memory. */
static void take_smaps_field(const struct mapping *mapping)
{
    static const char *const always[] = {"Size:", "VmFlags:"};
    static const char *const if_private[] = {
        "Rss:",           "Pss:",           "Shared_Clean:", "Shared_Dirty:",
        "Private_Clean:", "Private_Dirty:", "Anonymous:",
    };

    if (starts_with(reader.line, "VmFlags:"))
        drop_soft_dirty(reader.line);
    for (size_t i = 0; i < LENGTH(always); i++)
        if (starts_with(reader.line, always[i]))
            print_field(reader.line);
    for (size_t i = 0; !mapping->shared && i < LENGTH(if_private); i++)
        if (starts_with(reader.line, if_private[i]))
            print_field(reader.line);
}

void observe_smaps(void)
{
    struct mapping mapping = {.window = -1};

    print("\n");
    open_file("/proc/self/smaps");
    while (next_line())
        if (!take_mapping(&mapping) && mapping.window >= 0 && !mapping.of_file)
            take_smaps_field(&mapping);
    end_run();
    close_file();
}

/* ------------------------------------------------------------ presence -- */

#define PRESENT (1UL << 63)
#define EXCLUSIVE (1UL << 56)

/* For each page of the window: `.` not present, `1` mapped here alone, `2`
 * mapped elsewhere, too (or the page of zeros), `?` not exact. */
static void observe_pagemap_of(const struct window *window)
{
    static uint64_t entries[WINDOW_PAGES];
    int last = WINDOW_PAGES - 1;
    long result = sys6(__NR_pread64, reader.file, (long)entries, sizeof entries,
                       window->start / PAGE * sizeof entries[0], 0, 0);

    if (result != sizeof entries)
        give_up("/proc/self/pagemap", result);
    while (last >= 0 && !(entries[last] & PRESENT) && !(window->marks[last] & MARK_INEXACT))
        last--;
    print("    ");
    print_char(window->name);
    print(" ");
    for (int page = 0; page <= last; page++)
        print_char(window->marks[page] & MARK_INEXACT ? '?'
                   : !(entries[page] & PRESENT)       ? '.'
                   : (entries[page] & EXCLUSIVE)      ? '1'
                                                      : '2');
    print("\n");
}

void observe_pagemap(void)
{
    print("\n");
    open_file("/proc/self/pagemap");
    for (int i = 0; i < WINDOWS; i++)
        observe_pagemap_of(&windows[i]);
    close_file();
}

void observe_mincore(uint64_t start, uint64_t length)
{
    static unsigned char resident[WINDOW_PAGES];
    long result = sys3(__NR_mincore, start, length, (long)resident);

    print_status(result);
    if (result != 0)
        return;
    print_char(' ');
    for (uint64_t page = 0; page * PAGE < length; page++) {
        bool of_file = marks_of(start + page * PAGE, 1) & MARK_FILE;

        print_char(of_file ? '?' : resident[page] & 1 ? '1' : '0');
    }
}
