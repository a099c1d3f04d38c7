/*
 * Operations as the transcript shows them.
 */
#include <asm/mman.h>
#include <linux/mman.h>

#include "difftest.h"

struct flag_name {
    int flag;
    const char *name;
};

static void print_flags(const struct flag_name *names, size_t count, int flags)
{
    const char *separator = "";

    for (size_t i = 0; i < count; i++)
        if ((flags & names[i].flag) == names[i].flag) {
            print(separator);
            print(names[i].name);
            separator = "|";
            flags &= ~names[i].flag;
        }
    if (flags != 0 || *separator == '\0') {
        print(separator);
        print_hex(flags);
    }
}

static void print_map_flags(int flags)
{
    static const struct flag_name names[] = {
        {MAP_SHARED_VALIDATE, "SHARED_VALIDATE"},
        {MAP_PRIVATE, "PRIVATE"},
        {MAP_SHARED, "SHARED"},
        {MAP_FIXED, "FIXED"},
        {MAP_FIXED_NOREPLACE, "FIXED_NOREPLACE"},
        {MAP_NORESERVE, "NORESERVE"},
        {MAP_POPULATE, "POPULATE"},
        {MAP_STACK, "STACK"},
        {MAP_LOCKED, "LOCKED"},
        {MAP_GROWSDOWN, "GROWSDOWN"},
    };

    print_flags(names, LENGTH(names), flags & ~MAP_ANONYMOUS);
}

static void print_protection(int protection)
{
    print_char(protection & PROT_READ ? 'r' : '-');
    print_char(protection & PROT_WRITE ? 'w' : '-');
    print_char(protection & PROT_EXEC ? 'x' : '-');
    if (protection & PROT_GROWSDOWN)
        print("|GROWSDOWN");
}

static void print_advice(int advice)
{
    static const char *const names[] = {
        [MADV_NORMAL] = "NORMAL",
        [MADV_RANDOM] = "RANDOM",
        [MADV_SEQUENTIAL] = "SEQUENTIAL",
        [MADV_WILLNEED] = "WILLNEED",
        [MADV_DONTNEED] = "DONTNEED",
        [MADV_FREE] = "FREE",
        [MADV_REMOVE] = "REMOVE",
        [MADV_DONTFORK] = "DONTFORK",
        [MADV_DOFORK] = "DOFORK",
        [MADV_DONTDUMP] = "DONTDUMP",
        [MADV_DODUMP] = "DODUMP",
        [MADV_WIPEONFORK] = "WIPEONFORK",
        [MADV_KEEPONFORK] = "KEEPONFORK",
        [MADV_COLD] = "COLD",
        [MADV_POPULATE_READ] = "POPULATE_READ",
        [MADV_POPULATE_WRITE] = "POPULATE_WRITE",
    };

    if ((size_t)advice < LENGTH(names) && names[advice] != NULL)
        print(names[advice]);
    else
        print_decimal(advice);
}

/* Lengths are whole pages in most cases. */
static void print_length(uint64_t length)
{
    print_char(' ');
    if (length == EXCESSIVE_LENGTH || length % PAGE != 0) {
        print_hex(length);
    } else {
        print_decimal(length / PAGE);
        print("p");
    }
}

static void print_mremap(const struct operation *operation)
{
    static const struct flag_name names[] = {
        {MREMAP_MAYMOVE, "MAYMOVE"},
        {MREMAP_FIXED, "FIXED"},
        {MREMAP_DONTUNMAP, "DONTUNMAP"},
    };

    print_length(operation->length);
    print(" to");
    print_length(operation->new_length);
    print_char(' ');
    print_flags(names, LENGTH(names), operation->flags);
    if (operation->flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) {
        print_char(' ');
        print_address(operation->new_address);
    }
}

void print_operation(const struct operation *operation)
{
    print(name_of_kind(operation->kind));
    switch (operation->kind) {
    case OP_FORK:
    case OP_FORK_HELD:
        print_char(' ');
        print_decimal(operation->block);
        return;
    case OP_MAPS:
    case OP_SMAPS:
    case OP_PAGEMAP:
        return;
    default:
        if (operation->kind < FIRST_OF_FILES)
            break;
        print_operation_on_files(operation);
        return;
    }
    print_char(' ');
    print_address(operation->address);
    switch (operation->kind) {
    case OP_BRK:
    case OP_READ:
    case OP_EXEC:
        break;
    case OP_WRITE:
        print_char(' ');
        print_hex(operation->byte);
        break;
    case OP_MREMAP:
        print_mremap(operation);
        break;
    default:
        print_length(operation->length);
    }
    switch (operation->kind) {
    case OP_MMAP_FIXED:
    case OP_MMAP_NOREPLACE:
    case OP_MMAP_HINT:
    case OP_MMAP_ANYWHERE:
        print_char(' ');
        print_protection(operation->protection);
        print_char(' ');
        print_map_flags(operation->flags);
        if (operation->file != NO_FILE) {
            print(" of ");
            print_decimal(operation->file);
            print_char(' ');
            print_hex(operation->offset);
        }
        break;
    case OP_MPROTECT:
        print_char(' ');
        print_protection(operation->protection);
        break;
    case OP_MADVISE:
        print_char(' ');
        print_advice(operation->flags);
        break;
    case OP_MSYNC:
        print_char(' ');
        print_hex(operation->flags);
        break;
    default:
        break;
    }
}
