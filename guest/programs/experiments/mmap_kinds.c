/*
 * The kinds of mmap, across fork: the anonymous ones.
 *
 * A private mapping is a private copy, page by page, from the first write on.
 * A shared mapping stays one memory for both processes. Four pages each are
 * written by the parent; then the child writes two of them.
 */
#include "lab.h"

#define PAGES 4

/* What differs between the kinds. */
struct kind {
    const char *name;
    int flags;
    bool parent_sees_child; /* writes of the child reach the parent */
    long child_faults;      /* page faults of the child's two writes */
};

static const struct kind kinds[] = {
    /* The frames are there, read-only: each write is a fault and a copy. */
    {"private anonymous", MAP_PRIVATE, false, 2},
    /* The frames are there, but fork has not entered them in the child's page
     * table: what can be found again is left to the first access. */
    {"shared anonymous", MAP_SHARED, true, 2},
};

static void check(const struct kind *kind, const char *what, long value, long expected)
{
    char key[96];

    snprintf(key, sizeof key, "%s: %s", kind->name, what);
    lab_check(key, value, expected);
}

static int child_part(const struct kind *kind, char *memory)
{
    /* The writes come first: a read of a shared page may bring its neighbours
     * along (Linux calls that fault-around). */
    check(kind, "faults of the child's writes", lab_write_faults(memory + 2 * PAGE, 2, 'c'),
          kind->child_faults);
    check(kind, "child reads the parent's byte", memory[0], 'p');
    return lab_failures != 0;
}

static void run(const struct kind *kind)
{
    char *memory =
        mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, kind->flags | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        lab_die("mmap");
    check(kind, "faults of the parent's writes", lab_write_faults(memory, PAGES, 'p'), PAGES);

    long first = lab_frame(memory);
    long last = lab_frame(memory + 3 * PAGE);
    pid_t child = fork();
    if (child < 0)
        lab_die("fork");
    if (child == 0)
        exit(child_part(kind, memory));
    lab_wait(child);

    check(kind, "parent sees the child's write", memory[3 * PAGE] == 'c', kind->parent_sees_child);
    check(kind, "parent's other pages unchanged", memory[0] == 'p' && memory[PAGE] == 'p', true);
    lab_check_frames("parent kept its first frame", first, lab_frame(memory), true);
    lab_check_frames("parent kept its last frame", last, lab_frame(memory + 3 * PAGE), true);
    check(kind, "Rss", lab_mapping_of(memory).rss, PAGES * 4);
    munmap(memory, PAGES * PAGE);
}

int main(void)
{
    lab_begin("the kinds of mmap: anonymous");
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        run(&kinds[i]);
    return lab_end();
}
