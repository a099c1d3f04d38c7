/*
 * The kinds of mmap, across fork: those of files.
 *
 * Four pages of a file are written by the parent; then the child writes two of
 * them. A private mapping gives each writer copies of its own, and the file stays
 * as it was. A shared mapping is the file: for both processes, and for whoever
 * reads it.
 */
#include "lab.h"

#define PAGES 4

struct kind {
    const char *name;
    int flags;
    bool parent_sees_child;
    char in_file; /* what the file holds where the parent wrote */
};

static const struct kind kinds[] = {
    {"private file", MAP_PRIVATE, false, 'f'},
    {"shared file", MAP_SHARED, true, 'p'},
};

static void check(const struct kind *kind, const char *what, long value, long expected)
{
    char key[96];

    snprintf(key, sizeof key, "%s: %s", kind->name, what);
    lab_check(key, value, expected);
}

static void run(const struct kind *kind, int file)
{
    char bytes[PAGES * PAGE];

    memset(bytes, 'f', sizeof bytes);
    /* Page by page: Linux may otherwise keep all of them in one large piece. */
    for (int page = 0; page < PAGES; page++)
        if (pwrite(file, bytes, PAGE, page * PAGE) != PAGE)
            lab_die("write");
    char *memory = lab_map(file, PAGES * PAGE, kind->flags);
    check(kind, "faults of the parent's writes", lab_file_write_faults(memory, PAGES, 'p'), PAGES);
    check(kind, "the rest of a page is the file's", memory[1], 'f');

    pid_t child = fork();
    if (child < 0)
        lab_die("fork");
    if (child == 0) {
        check(kind, "faults of the child's writes", lab_file_write_faults(memory + 2 * PAGE, 2, 'c'), 2);
        check(kind, "child reads the parent's byte", memory[0], 'p');
        exit(lab_failures != 0);
    }
    lab_wait(child);

    check(kind, "parent sees the child's write", memory[3 * PAGE] == 'c', kind->parent_sees_child);
    if (pread(file, bytes, sizeof bytes, 0) != sizeof bytes)
        lab_die("read");
    check(kind, "in the file where the parent wrote", bytes[0], kind->in_file);
    check(kind, "in the file where the child wrote", bytes[3 * PAGE],
          kind->parent_sees_child ? 'c' : 'f');
    check(kind, "anonymous memory", lab_mapping_of(memory).anonymous,
          kind->flags == MAP_PRIVATE ? PAGES * 4 : 0);
    check(kind, "Rss", lab_mapping_of(memory).rss, PAGES * 4);
    munmap(memory, PAGES * PAGE);
}

int main(int argc, char **argv)
{
    lab_begin("the kinds of mmap: files");
    int file = lab_new_file(argc, argv, "kinds.bin");
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        run(&kinds[i], file);
    return lab_end();
}
