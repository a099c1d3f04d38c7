/*
 * Operations on files: their arguments, and their printed form.
 */
#include <asm/mman.h>
#include <linux/falloc.h>
#include <linux/fcntl.h>
#include <linux/mman.h>

#include "difftest.h"
#include "random.h"

/* Files are a few pages long, so that mappings lie beyond their end, too. */
#define FILE_PAGES 10
#define LONGEST (3 * PAGE)

/* Often near the edge of a page. */
static uint64_t random_offset(struct random *random)
{
    uint64_t page = below(random, FILE_PAGES) * PAGE;

    if (percent(random, 40))
        return page + below(random, PAGE);
    return page + below(random, 9) - (page ? 4 : 0);
}

static uint64_t random_count(struct random *random)
{
    return 1 + (percent(random, 65) ? below(random, 300) : below(random, LONGEST));
}

void choose_file_to_map(struct random *random, struct operation *operation)
{
    if (!percent(random, 60))
        return;
    operation->flags &= ~MAP_ANONYMOUS;
    operation->file = below(random, SLOTS);
    operation->offset = percent(random, 50) ? 0 : below(random, 4) * PAGE;
    if (percent(random, 2))
        operation->offset += 512;
    /* Shared mappings of files are what writes to them. */
    if (percent(random, 40) && (operation->flags & MAP_TYPE) == MAP_PRIVATE)
        operation->flags ^= MAP_PRIVATE | MAP_SHARED;
}

static int random_open_flags(struct random *random)
{
    static const int access[] = {O_RDWR, O_RDWR, O_RDWR, O_RDWR, O_RDONLY, O_WRONLY};
    static const int extra[] = {0,       0,       0,          O_TRUNC,
                                O_EXCL,  O_APPEND, O_DSYNC,   O_NOFOLLOW,
                                O_DIRECTORY};
    int flags = ONE_OF(random, access) | (percent(random, 65) ? O_CREAT : 0);

    flags |= ONE_OF(random, extra);
    /* What O_EXCL means without O_CREAT, and O_DIRECTORY with it, is open. */
    if (!(flags & O_CREAT))
        flags &= ~O_EXCL;
    if (flags & O_DIRECTORY)
        flags &= ~O_CREAT;
    return flags;
}

static int random_mode(struct random *random, enum kind kind)
{
    static const int fallocate_modes[] = {
        0,
        FALLOC_FL_KEEP_SIZE,
        FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
        FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
    };

    switch (kind) {
    case OP_OPEN:
        return random_open_flags(random);
    case OP_FALLOCATE:
        return ONE_OF(random, fallocate_modes);
    case OP_LSEEK:
        return below(random, 5);
    case OP_FADVISE:
        return below(random, 6);
    case OP_FSYNC:
        return below(random, 2);
    default:
        return 0;
    }
}

void generate_on_files(struct random *random, struct operation *operation)
{
    operation->file = below(random, SLOTS);
    operation->other_file = below(random, SLOTS);
    operation->name = below(random, count_file_names());
    operation->other_name = below(random, count_file_names());
    operation->offset = random_offset(random);
    operation->other_offset = random_offset(random);
    operation->count = random_count(random);
    operation->mode = random_mode(random, operation->kind);
}

/* ----------------------------------------------------------- printing -- */

static void print_number(int64_t number)
{
    print_char(' ');
    print_decimal(number);
}

static void print_name(unsigned index)
{
    print_char(' ');
    print(file_name(index));
}

static void print_names(const struct operation *operation)
{
    print_name(operation->name);
    switch (operation->kind) {
    case OP_RENAME:
    case OP_SYMLINK:
    case OP_LINK:
        print_name(operation->other_name);
        break;
    case OP_TRUNCATE:
        print_number(operation->offset);
        break;
    default:
        break;
    }
}

static void print_open(const struct operation *operation)
{
    print_number(operation->file);
    print_name(operation->name);
    print_char(' ');
    print_hex(operation->mode);
}

void print_operation_on_files(const struct operation *operation)
{
    switch (operation->kind) {
    case OP_OPEN:
        print_open(operation);
        return;
    case OP_RESIDENT:
        print_char(' ');
        print_address(operation->address);
        return;
    case OP_MKDIR:
    case OP_RMDIR:
    case OP_UNLINK:
    case OP_RENAME:
    case OP_SYMLINK:
    case OP_READLINK:
    case OP_TRUNCATE:
    case OP_LINK:
    case OP_STAT:
    case OP_LIST:
        print_names(operation);
        return;
    default:
        break;
    }
    print_number(operation->file);
    switch (operation->kind) {
    case OP_PREAD_INTO:
    case OP_PWRITE_FROM:
        print_char(' ');
        print_address(operation->address);
        /* fall through */
    case OP_PREAD:
    case OP_PWRITE:
        print_number(operation->offset);
        /* fall through */
    case OP_FILE_READ:
    case OP_FILE_WRITE:
        print_number(operation->count);
        break;
    case OP_FTRUNCATE:
        print_number(operation->offset);
        break;
    case OP_FALLOCATE:
        print_number(operation->mode);
        print_number(operation->offset);
        print_number(operation->count);
        break;
    case OP_LSEEK:
        print_number(operation->offset);
        print_number(operation->mode);
        break;
    case OP_FSYNC:
    case OP_FADVISE:
        print_number(operation->mode);
        break;
    case OP_SENDFILE:
    case OP_COPY_RANGE:
        print(" from");
        print_number(operation->other_file);
        print_number(operation->other_offset);
        print_number(operation->count);
        break;
    default:
        break;
    }
}
