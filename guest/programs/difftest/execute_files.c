/*
 * What each operation on files does.
 *
 * A program has a folder of its own, some names in it, and slots of open files.
 * What is left in the folder is compared by whoever started this.
 */
#include <asm/mman.h>
#include <asm/stat.h>
#include <linux/falloc.h>
#include <linux/fcntl.h>
#include <linux/stat.h>

#include "difftest.h"

#define LONGEST (3 * PAGE)

static const char *const names[] = {"a", "b", "c", "d/a", "d/b", "e", "d", "e/a", "l", "."};

/* -1: none. */
static int slots[SLOTS] = {-1, -1, -1, -1};
static unsigned char buffer[LONGEST];

const char *file_name(unsigned index)
{
    return names[index];
}

unsigned count_file_names(void)
{
    return LENGTH(names);
}

int descriptor_of(int slot)
{
    return slots[slot];
}

/* ------------------------------------------------------------- set up -- */

/* Bytes that say where they are, with what is written in each round. */
static void fill(uint64_t count, int byte)
{
    for (uint64_t i = 0; i < count; i++)
        buffer[i] = byte + i * 7 + i / PAGE;
}

static void make_file(int slot, unsigned name, uint64_t size)
{
    long result = sys6(__NR_openat, AT_FDCWD, (long)names[name], O_RDWR | O_CREAT | O_EXCL, 0644,
                       0, 0);

    slots[slot] = result;
    while (result >= 0 && size > 0) {
        uint64_t part = size < LONGEST ? size : LONGEST;

        fill(part, 'a' + name + size / PAGE);
        result = sys3(__NR_write, slots[slot], (long)buffer, part);
        size -= part;
    }
    if (result < 0)
        give_up("the first files", result);
}

void set_up_files(const char *folder, uint64_t seed)
{
    char digits[24];
    int at = sizeof digits - 1;
    long result = sys3(__NR_chdir, (long)folder, 0, 0);

    sys3(__NR_umask, 022, 0, 0);
    digits[at] = '\0';
    do {
        digits[--at] = '0' + seed % 10;
        seed /= 10;
    } while (seed != 0);
    if (result == 0)
        result = sys3(__NR_mkdir, (long)&digits[at], 0755, 0);
    if (result == 0)
        result = sys3(__NR_chdir, (long)&digits[at], 0, 0);
    if (result != 0)
        give_up(folder, result);
    make_file(0, 0, 7 * PAGE + 1234);
    make_file(1, 1, 4 * PAGE);
    make_file(2, 2, 0);
    result = sys3(__NR_mkdir, (long)names[6], 0755, 0);
    if (result != 0)
        give_up(names[6], result);
    make_file(3, 3, 2 * PAGE);
}

/* -------------------------------------------------------------- bytes -- */

static uint64_t sum_of(const unsigned char *bytes, long count)
{
    uint64_t sum = 1;

    for (long i = 0; i < count; i++)
        sum = sum * 31 + bytes[i];
    return sum & 0xffffffff;
}

static void print_result(long result)
{
    if (result < 0)
        print_status(result);
    else
        print_decimal(result);
}

static void print_bytes(long count)
{
    print_result(count);
    if (count <= 0)
        return;
    print(" sum ");
    print_hex(sum_of(buffer, count));
}

static void run_transfer(const struct operation *operation)
{
    int file = slots[operation->file];
    uint64_t count = operation->count;

    switch (operation->kind) {
    case OP_FILE_READ:
        print_bytes(sys3(__NR_read, file, (long)buffer, count));
        break;
    case OP_PREAD:
        print_bytes(sys6(__NR_pread64, file, (long)buffer, count, operation->offset, 0, 0));
        break;
    case OP_FILE_WRITE:
        fill(count, operation->byte);
        print_result(sys3(__NR_write, file, (long)buffer, count));
        break;
    default:
        fill(count, operation->byte);
        print_result(sys6(__NR_pwrite64, file, (long)buffer, count, operation->offset, 0, 0));
    }
}

/* From or to a window. The memory may be a mapping of the same file: a page is
 * then copied over itself, in an order that is not said. So that only single bytes
 * are. And where nothing can be read, some kernels make the file longer all the
 * same, up to where the bytes would go, and set space aside. */
static void run_transfer_of_window(const struct operation *operation)
{
    uint64_t address = operation->address, count = operation->count, offset = operation->offset;
    long call = operation->kind == OP_PREAD_INTO ? __NR_pread64 : __NR_pwrite64;
    int file = slots[operation->file];
    struct stat stat;

    if (marks_of(address, count) & MARK_FILE)
        count = 1;
    if (call == __NR_pwrite64 && probe_read(address) < 0) {
        note(FACT_SPACE_SET_ASIDE);
        if (sys3(__NR_fstat, file, (long)&stat, 0) == 0 && offset > (uint64_t)stat.st_size)
            offset = stat.st_size;
    }
    print_result(sys6(call, file, address, count, offset, 0, 0));
}

/* Whether a page is in memory that has just been read. */
static void run_resident(const struct operation *operation)
{
    uint64_t page = operation->address & -PAGE;
    unsigned char resident = 0;

    if (probe_read(page) < 0) {
        print_signal();
        return;
    }
    print_status(sys3(__NR_mincore, page, PAGE, (long)&resident));
    print(resident & 1 ? " 1" : " 0");
}

/* --------------------------------------------------------- open files -- */

static void run_open(const struct operation *operation)
{
    int *slot = &slots[operation->file];

    sys3(__NR_close, *slot, 0, 0);
    *slot = sys6(__NR_openat, AT_FDCWD, (long)names[operation->name], operation->mode, 0644, 0, 0);
    print_status(*slot);
}

static void run_close(const struct operation *operation)
{
    print_status(sys3(__NR_close, slots[operation->file], 0, 0));
    slots[operation->file] = -1;
}

static void print_stat(const struct stat *stat)
{
    print("mode ");
    print_hex(stat->st_mode);
    print(" links ");
    print_decimal(stat->st_nlink);
    /* A folder's size is up to the file system. */
    if ((stat->st_mode & S_IFMT) != S_IFDIR) {
        print(" size ");
        print_decimal(stat->st_size);
    }
}

static void run_fstat(const struct operation *operation)
{
    struct stat stat;
    long result = sys3(__NR_fstat, slots[operation->file], (long)&stat, 0);

    if (result < 0)
        print_status(result);
    else
        print_stat(&stat);
}

static bool same_file(int one, int other)
{
    struct stat first, second;

    return sys3(__NR_fstat, one, (long)&first, 0) == 0 &&
           sys3(__NR_fstat, other, (long)&second, 0) == 0 && first.st_ino == second.st_ino;
}

/* From one file to another. Within one, what is read where it was just written
 * is open. */
static void run_between_files(const struct operation *operation)
{
    int to = slots[operation->file], from = slots[operation->other_file];
    uint64_t offset = operation->offset, other_offset = operation->other_offset;

    if (same_file(to, from)) {
        print("left out");
        return;
    }
    if (operation->kind == OP_SENDFILE)
        print_result(sys6(__NR_sendfile, to, from, (long)&other_offset, operation->count, 0, 0));
    else
        print_result(sys6(__NR_copy_file_range, from, (long)&other_offset, to, (long)&offset,
                          operation->count, 0));
}

/* What is a hole is up to the file system once space was set aside without being
 * written. */
static void run_lseek(const struct operation *operation)
{
    const int seek_data = 3;

    if (operation->mode >= seek_data && was_noted(FACT_SPACE_SET_ASIDE))
        print("left out");
    else
        print_result(sys3(__NR_lseek, slots[operation->file], operation->offset, operation->mode));
}

static void run_on_open_file(const struct operation *operation)
{
    int file = slots[operation->file];
    uint64_t offset = operation->offset, count = operation->count;

    switch (operation->kind) {
    case OP_FTRUNCATE:
        print_status(sys3(__NR_ftruncate, file, offset, 0));
        break;
    case OP_FALLOCATE:
        if (!(operation->mode & FALLOC_FL_PUNCH_HOLE))
            note(FACT_SPACE_SET_ASIDE);
        print_status(sys6(__NR_fallocate, file, operation->mode, offset, count, 0, 0));
        break;
    case OP_LSEEK:
        run_lseek(operation);
        break;
    case OP_FSYNC:
        print_status(sys3(operation->mode ? __NR_fdatasync : __NR_fsync, file, 0, 0));
        break;
    default:
        print_status(sys6(__NR_fadvise64, file, 0, 0, operation->mode, 0, 0));
    }
}

/* --------------------------------------------------------------- names -- */

static void run_stat(const char *name)
{
    struct stat stat;
    long result = sys3(__NR_lstat, (long)name, (long)&stat, 0);

    if (result < 0)
        print_status(result);
    else
        print_stat(&stat);
}

struct entry {
    uint64_t inode, next;
    uint16_t length;
    uint8_t type;
    char name[];
};

/* The names in a folder, in whatever order. */
static void run_list(const char *name)
{
    long folder = sys6(__NR_openat, AT_FDCWD, (long)name, O_RDONLY | O_DIRECTORY, 0, 0, 0);
    uint64_t sum = 0, count = 0;
    long got;

    if (folder < 0) {
        print_status(folder);
        return;
    }
    while ((got = sys3(__NR_getdents64, folder, (long)buffer, sizeof buffer)) > 0)
        for (long at = 0; at < got; count++) {
            const struct entry *entry = (const struct entry *)(buffer + at);
            long length = 0;

            while (entry->name[length])
                length++;
            sum += sum_of((const unsigned char *)entry->name, length) * (entry->type + 1);
            at += entry->length;
        }
    sys3(__NR_close, folder, 0, 0);
    print_result(got < 0 ? got : (long)count);
    print(" sum ");
    print_hex(sum);
}

static void run_on_names(const struct operation *operation)
{
    const char *one = names[operation->name], *other = names[operation->other_name];

    switch (operation->kind) {
    case OP_MKDIR:
        print_status(sys3(__NR_mkdir, (long)one, 0755, 0));
        break;
    case OP_RMDIR:
        print_status(sys3(__NR_rmdir, (long)one, 0, 0));
        break;
    case OP_UNLINK:
        print_status(sys3(__NR_unlink, (long)one, 0, 0));
        break;
    case OP_RENAME:
        print_status(sys3(__NR_rename, (long)one, (long)other, 0));
        break;
    case OP_SYMLINK:
        print_status(sys3(__NR_symlink, (long)one, (long)other, 0));
        break;
    case OP_READLINK:
        print_bytes(sys3(__NR_readlink, (long)one, (long)buffer, sizeof buffer));
        break;
    case OP_TRUNCATE:
        print_status(sys3(__NR_truncate, (long)one, operation->offset, 0));
        break;
    case OP_LINK:
        note(FACT_FILE_WITH_TWO_NAMES);
        print_status(sys3(__NR_link, (long)one, (long)other, 0));
        break;
    case OP_STAT:
        run_stat(one);
        break;
    default:
        run_list(one);
    }
}

/* --------------------------------------------------------- at the end -- */

/* The checksum of all that can be read from a file. */
static void print_contents(const char *name)
{
    long file = sys6(__NR_openat, AT_FDCWD, (long)name, O_RDONLY, 0, 0, 0);
    uint64_t sum = 0;
    long got;

    if (file < 0) {
        print_status(file);
        return;
    }
    while ((got = sys3(__NR_read, file, (long)buffer, sizeof buffer)) > 0)
        sum = sum * 31 + sum_of(buffer, got);
    sys3(__NR_close, file, 0, 0);
    print(" sum ");
    print_hex(sum);
    if (got < 0)
        print_status(got);
}

void print_files(void)
{
    for (size_t i = 0; i < LENGTH(names); i++) {
        print("left: ");
        print(names[i]);
        print_char(' ');
        run_stat(names[i]);
        print_contents(names[i]);
        print("\n");
    }
}

/* ---------------------------------------------------------------- all -- */

void run_on_files(const struct operation *operation)
{
    switch (operation->kind) {
    case OP_OPEN:
        run_open(operation);
        break;
    case OP_CLOSE:
        run_close(operation);
        break;
    case OP_FILE_READ:
    case OP_FILE_WRITE:
    case OP_PREAD:
    case OP_PWRITE:
        run_transfer(operation);
        break;
    case OP_PREAD_INTO:
    case OP_PWRITE_FROM:
        run_transfer_of_window(operation);
        break;
    case OP_SENDFILE:
    case OP_COPY_RANGE:
        run_between_files(operation);
        break;
    case OP_FSTAT:
        run_fstat(operation);
        break;
    case OP_RESIDENT:
        run_resident(operation);
        break;
    case OP_FTRUNCATE:
    case OP_FALLOCATE:
    case OP_LSEEK:
    case OP_FSYNC:
    case OP_FADVISE:
        run_on_open_file(operation);
        break;
    default:
        run_on_names(operation);
    }
    skip_faults();
}
