/*
 * Operations from a seed and an index.
 *
 * An operation depends on nothing else, so that leaving out some operations of
 * a program leaves the others as they were.
 */
#include <asm/mman.h>
#include <linux/mman.h>

#include "difftest.h"
#include "random.h"

/* Each kind's name and how often it comes. */
static struct {
    const char *name;
    unsigned weight;
} kinds[KINDS] = {
    [OP_MMAP_FIXED] = {"mmap_fixed", 11},
    [OP_MMAP_NOREPLACE] = {"mmap_noreplace", 3},
    [OP_MMAP_HINT] = {"mmap_hint", 3},
    [OP_MMAP_ANYWHERE] = {"mmap_anywhere", 4},
    [OP_MUNMAP] = {"munmap", 7},
    [OP_MPROTECT] = {"mprotect", 9},
    [OP_MREMAP] = {"mremap", 8},
    [OP_MADVISE] = {"madvise", 9},
    [OP_BRK] = {"brk", 4},
    [OP_FORK] = {"fork", 3},
    [OP_FORK_HELD] = {"fork_held", 2},
    [OP_READ] = {"read", 9},
    [OP_WRITE] = {"write", 14},
    [OP_EXEC] = {"exec", 3},
    [OP_SUM] = {"sum", 4},
    [OP_FILL] = {"fill", 6},
    [OP_MINCORE] = {"mincore", 4},
    [OP_MSYNC] = {"msync", 2},
    [OP_MLOCK] = {"mlock", 2},
    [OP_MLOCK_ONFAULT] = {"mlock_onfault", 1},
    [OP_MUNLOCK] = {"munlock", 2},
    [OP_COPY_IN] = {"copy_in", 2},
    [OP_COPY_OUT] = {"copy_out", 2},
    [OP_MAPS] = {"maps", 3},
    [OP_SMAPS] = {"smaps", 1},
    [OP_PAGEMAP] = {"pagemap", 2},
    /* Of programs with files only: */
    [OP_OPEN] = {"open", 14},
    [OP_CLOSE] = {"close", 2},
    [OP_FILE_READ] = {"file_read", 3},
    [OP_FILE_WRITE] = {"file_write", 5},
    [OP_PREAD] = {"pread", 7},
    [OP_PWRITE] = {"pwrite", 10},
    [OP_PREAD_INTO] = {"pread_into", 3},
    [OP_PWRITE_FROM] = {"pwrite_from", 3},
    [OP_FTRUNCATE] = {"ftruncate", 6},
    [OP_FALLOCATE] = {"fallocate", 5},
    [OP_LSEEK] = {"lseek", 5},
    [OP_FSYNC] = {"fsync", 2},
    [OP_SENDFILE] = {"sendfile", 2},
    [OP_COPY_RANGE] = {"copy_range", 2},
    [OP_FADVISE] = {"fadvise", 2},
    [OP_FSTAT] = {"fstat", 3},
    [OP_RESIDENT] = {"resident", 2},
    [OP_MKDIR] = {"mkdir", 1},
    [OP_RMDIR] = {"rmdir", 1},
    [OP_UNLINK] = {"unlink", 3},
    [OP_RENAME] = {"rename", 3},
    [OP_SYMLINK] = {"symlink", 1},
    [OP_READLINK] = {"readlink", 1},
    [OP_TRUNCATE] = {"truncate", 2},
    [OP_LINK] = {"link", 2},
    [OP_STAT] = {"stat", 2},
    [OP_LIST] = {"list", 2},
};

/* Whether there are files to work on. */
static bool with_files;

const char *name_of_kind(enum kind kind)
{
    return kinds[kind].name;
}

/* ------------------------------------------------------ which kinds -- */

static bool names_contain(const char *names, const char *name)
{
    while (*names) {
        const char *wanted = name;

        while (*wanted && *names == *wanted)
            names++, wanted++;
        if (*wanted == '\0' && (*names == ',' || *names == '\0'))
            return true;
        while (*names && *names != ',')
            names++;
        if (*names == ',')
            names++;
    }
    return false;
}

bool select_kinds(const char *names, bool keep)
{
    unsigned sum = 0;

    for (size_t i = 0; i < KINDS; i++) {
        if (names_contain(names, kinds[i].name) != keep)
            kinds[i].weight = 0;
        sum += kinds[i].weight;
    }
    return sum > 0;
}

bool allow_files(bool allowed)
{
    unsigned sum = 0;

    with_files = allowed;
    for (size_t i = 0; i < KINDS; i++) {
        if (i >= FIRST_OF_FILES && !allowed)
            kinds[i].weight = 0;
        sum += kinds[i].weight;
    }
    return sum > 0;
}

/* --------------------------------------------------------- arguments -- */

/* Some pages, as a length in bytes. Most operations are small and many near
 * one another, for that is where mappings meet. */
static uint64_t random_length(struct random *random)
{
    unsigned pages = percent(random, 65) ? 1 + below(random, 4) : 1 + below(random, 12);

    if (percent(random, 2))
        return 0;
    if (percent(random, 1))
        return EXCESSIVE_LENGTH;
    if (percent(random, 4))
        return pages * PAGE - below(random, PAGE);
    return pages * PAGE;
}

/* A range within one window: nothing else can be hit. */
static void random_range(struct random *random, uint64_t *address, uint64_t *length)
{
    unsigned choice = below(random, 100);
    const struct window *window = &windows[choice < 76   ? WINDOW_A
                                           : choice < 88 ? WINDOW_B
                                                         : WINDOW_C];
    unsigned page = below(random, WINDOW_PAGES);

    /* The middle of window A, the top of B and the bottom of C are where most
     * happens. */
    if (window == &windows[WINDOW_A] && percent(random, 70))
        page = WINDOW_PAGES / 2 - 5 + below(random, 10);
    if (window == &windows[WINDOW_B] && percent(random, 85))
        page = WINDOW_PAGES - 1 - below(random, 8);
    if (window == &windows[WINDOW_C] && percent(random, 85))
        page = below(random, 8);
    *length = random_length(random);
    if (*length != EXCESSIVE_LENGTH && *length > (WINDOW_PAGES - page) * PAGE)
        *length = (WINDOW_PAGES - page) * PAGE;
    *address = window->start + page * PAGE;
    if (percent(random, 2))
        *address += 16;
}

/* A page's bytes that are read and written one by one: few enough that reads
 * find what was written. */
static uint64_t random_byte_address(struct random *random)
{
    static const int offsets[] = {0, 0, 0, 8, 0x7f8, 0xfff};
    uint64_t address, length;

    random_range(random, &address, &length);
    return (address & -PAGE) + ONE_OF(random, offsets);
}

/* PROT_EXEC alone is left out: some processors can do without PROT_READ, and
 * then reading faults there. */
static int random_protection(struct random *random)
{
    static const int protections[] = {
        PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE,
        PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE,
        PROT_READ,              PROT_READ,
        PROT_NONE,              PROT_WRITE,
        PROT_READ | PROT_EXEC,  PROT_READ | PROT_WRITE | PROT_EXEC,
    };

    return ONE_OF(random, protections);
}

static int random_map_flags(struct random *random)
{
    static const int extras[] = {MAP_NORESERVE, MAP_POPULATE, MAP_STACK, MAP_LOCKED, MAP_GROWSDOWN};
    int flags = MAP_ANONYMOUS;

    if (percent(random, 72))
        flags |= MAP_PRIVATE;
    else if (percent(random, 92))
        flags |= MAP_SHARED;
    else if (percent(random, 50))
        flags |= MAP_SHARED_VALIDATE;
    for (unsigned i = 0; i < LENGTH(extras); i++)
        if (percent(random, i == 0 || i == 1 ? 8 : 4))
            flags |= extras[i];
    return flags;
}

static int random_advice(struct random *random)
{
    static const int advices[] = {
        MADV_DONTNEED,      MADV_DONTNEED,       MADV_DONTNEED,   MADV_DONTNEED,
        MADV_FREE,          MADV_FREE,           MADV_WILLNEED,   MADV_POPULATE_READ,
        MADV_POPULATE_READ, MADV_POPULATE_WRITE, MADV_DONTFORK,   MADV_DOFORK,
        MADV_WIPEONFORK,    MADV_WIPEONFORK,     MADV_KEEPONFORK, MADV_NORMAL,
        MADV_RANDOM,        MADV_SEQUENTIAL,     MADV_REMOVE,     MADV_DONTDUMP,
        MADV_DODUMP,        MADV_COLD,           99,
    };

    return ONE_OF(random, advices);
}

static void random_mremap(struct random *random, struct operation *operation)
{
    uint64_t unused;

    random_range(random, &operation->address, &operation->length);
    random_range(random, &operation->new_address, &unused);
    operation->new_length = percent(random, 30) ? operation->length : random_length(random);
    operation->flags = percent(random, 85) ? MREMAP_MAYMOVE : 0;
    if (percent(random, 15)) {
        operation->flags |= MREMAP_DONTUNMAP;
        operation->new_length = operation->length;
    }
    if (percent(random, 45)) {
        uint64_t room = PAGE * WINDOW_PAGES;

        operation->flags |= MREMAP_FIXED;
        /* The new place must lie within its window, too. */
        for (int i = 0; i < WINDOWS; i++)
            if (operation->new_address - windows[i].start < PAGE * WINDOW_PAGES)
                room = windows[i].start + PAGE * WINDOW_PAGES - (operation->new_address & -PAGE);
        if (operation->new_length != EXCESSIVE_LENGTH && operation->new_length > room)
            operation->new_length = room;
    }
}

static enum kind random_kind(struct random *random)
{
    unsigned sum = 0, choice;
    enum kind kind = 0;

    for (size_t i = 0; i < KINDS; i++)
        sum += kinds[i].weight;
    for (choice = below(random, sum); choice >= kinds[kind].weight; kind++)
        choice -= kinds[kind].weight;
    return kind;
}

/* Programs begin with memory to work on. */
#define OPENING 3
static const enum kind opening[OPENING] = {OP_MMAP_FIXED, OP_MMAP_ANYWHERE, OP_BRK};

static void generate_opening(struct random *random, struct operation *operation, unsigned index)
{
    operation->kind = opening[index];
    operation->address = windows[WINDOW_A].start + (WINDOW_PAGES / 2 - 8 + below(random, 4)) * PAGE;
    operation->length = (4 + below(random, 10)) * PAGE;
    operation->protection = PROT_READ | PROT_WRITE;
}

void generate(struct operation *operation, uint64_t seed, unsigned index)
{
    static const int sync_flags[] = {MS_ASYNC,
                                     MS_SYNC,
                                     MS_SYNC | MS_INVALIDATE,
                                     MS_INVALIDATE,
                                     MS_ASYNC | MS_SYNC,
                                     64};
    struct random random = {(seed * 0x100000001b3 + index) * 0xd1342543de82ef95};

    next_random(&random);
    *operation = (struct operation){.kind = random_kind(&random), .file = NO_FILE};
    random_range(&random, &operation->address, &operation->length);
    operation->protection = random_protection(&random);
    if (index < OPENING && kinds[opening[index]].weight > 0)
        generate_opening(&random, operation, index);
    operation->byte = 1 + below(&random, 255);
    operation->block = 1 + below(&random, 10);

    switch (operation->kind) {
    case OP_MMAP_FIXED:
    case OP_MMAP_NOREPLACE:
    case OP_MMAP_HINT:
    case OP_MMAP_ANYWHERE:
        operation->flags = random_map_flags(&random);
        if (with_files)
            choose_file_to_map(&random, operation);
        if (operation->kind == OP_MMAP_FIXED)
            operation->flags |= MAP_FIXED;
        if (operation->kind == OP_MMAP_NOREPLACE)
            operation->flags |= MAP_FIXED_NOREPLACE;
        if (operation->kind == OP_MMAP_ANYWHERE)
            operation->address = 0;
        break;
    case OP_MPROTECT:
        if (percent(&random, 3))
            operation->protection |= PROT_GROWSDOWN;
        break;
    case OP_MREMAP:
        random_mremap(&random, operation);
        break;
    case OP_MADVISE:
        operation->flags = random_advice(&random);
        break;
    case OP_MSYNC:
        operation->flags = ONE_OF(&random, sync_flags);
        break;
    case OP_BRK:
        operation->address = windows[WINDOW_C].start + below(&random, 24) * PAGE;
        if (percent(&random, 10))
            operation->address += 100;
        break;
    case OP_READ:
    case OP_WRITE:
        operation->address = random_byte_address(&random);
        break;
    case OP_COPY_IN:
    case OP_COPY_OUT:
        operation->address = (operation->address & -PAGE) + 8 * below(&random, 4);
        operation->length = 1 + below(&random, 16);
        break;
    case OP_MLOCK:
    case OP_MLOCK_ONFAULT:
        /* Which error an excessive length gives depends on being root. */
    case OP_SUM:
    case OP_FILL:
        if (operation->length == EXCESSIVE_LENGTH)
            operation->length = PAGE;
        break;
    default:
        if (operation->kind >= FIRST_OF_FILES)
            generate_on_files(&random, operation);
        break;
    }
}
