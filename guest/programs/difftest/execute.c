/*
 * What each operation does, and its lines in the transcript.
 */
#include <asm/errno.h>
#include <asm/mman.h>
#include <linux/mman.h>

#include "difftest.h"

/* How deep this process lies below the program's first one. */
static int depth;

/* Set to make one operation wrong, so that a difference is there to find. */
bool break_dontneed;

static bool is_error(long result)
{
    return result < 0 && result > -4096;
}

/* ------------------------------------------------------- system calls -- */

static void run_mmap(const struct operation *operation)
{
    bool of_file = !(operation->flags & MAP_ANONYMOUS);
    bool inexact = of_file || (operation->flags & MAP_TYPE) != MAP_PRIVATE;
    long result = sys6(__NR_mmap, operation->address, operation->length, operation->protection,
                       operation->flags, of_file ? descriptor_of(operation->file) : -1,
                       operation->offset);

    if (is_error(result)) {
        print_status(result);
    } else {
        print_address(result);
        mark(result, operation->length,
             (inexact ? MARK_INEXACT : 0) | (of_file ? MARK_FILE : 0));
    }
    print_faults(is_error(result) || !inexact);
}

static void run_munmap(const struct operation *operation)
{
    long result = sys3(__NR_munmap, operation->address, operation->length, 0);

    print_status(result);
    print_faults(true);
    if (result == 0)
        mark(operation->address, operation->length, 0);
}

static void run_mremap(const struct operation *operation)
{
    uint64_t source = operation->address;
    /* With a length of 0 it is the page that counts. */
    uint8_t marks = marks_of(source, operation->length ? operation->length : PAGE);
    /* Where a range with holes moves to, what was there stays behind the holes. */
    uint8_t target_marks = marks;
    long result;

    if (operation->flags & MREMAP_FIXED)
        target_marks |= marks_of(operation->new_address, operation->new_length);
    result = sys6(__NR_mremap, source, operation->length, operation->new_length,
                  operation->flags, operation->new_address, 0);
    if (is_error(result)) {
        print_status(result);
    } else {
        print_address(result);
        if ((uint64_t)result != source && !(operation->flags & MREMAP_DONTUNMAP))
            mark(source, operation->length, 0);
        mark(result, operation->new_length, target_marks);
    }
    print_faults(!(marks & MARK_INEXACT));
}

static void run_brk(const struct operation *operation)
{
    print_address(sys3(__NR_brk, operation->address, 0, 0));
    print_faults(true);
}

/* The calls that take a range and return 0 or an error. */
static void run_range_call(const struct operation *operation)
{
    uint64_t start = operation->address, length = operation->length;
    long result, advice;

    switch (operation->kind) {
    case OP_MPROTECT:
        result = sys3(__NR_mprotect, start, length, operation->protection);
        flush_tlb();
        break;
    case OP_MADVISE:
        advice = operation->flags;
        if (break_dontneed && advice == MADV_DONTNEED)
            advice = MADV_NORMAL;
        result = sys3(__NR_madvise, start, length, advice);
        break;
    case OP_MSYNC:
        result = sys3(__NR_msync, start, length, operation->flags);
        break;
    case OP_MLOCK:
        result = sys3(__NR_mlock, start, length, 0);
        break;
    case OP_MLOCK_ONFAULT:
        result = sys3(__NR_mlock2, start, length, MLOCK_ONFAULT);
        break;
    default:
        result = sys3(__NR_munlock, start, length, 0);
    }
    print_status(result);
    print_faults(!is_inexact(start, length));
}

/* ------------------------------------------------------------ accesses -- */

static void run_read(const struct operation *operation)
{
    long byte = probe_read(operation->address);

    if (byte < 0)
        print_signal();
    else
        print_hex(byte);
    print_faults(!is_inexact(operation->address, 1));
}

static void run_write(const struct operation *operation)
{
    if (probe_write(operation->address, operation->byte) < 0)
        print_signal();
    else
        print("ok");
    print_faults(!is_inexact(operation->address, 1));
}

/* A place in each page where nothing but code is ever written. */
#define CODE_OFFSET 0xff0
#define CODE_RET 0xc3

static void run_exec(const struct operation *operation)
{
    uint64_t address = (operation->address & -PAGE) + CODE_OFFSET;
    long byte;

    if (operation->byte & 1) {
        if (probe_write(address, CODE_RET) < 0)
            print_signal();
        else
            print("written");
        print(", ");
    }
    /* Only code is executed: a page that cannot be read cannot be executed
     * either, and then the signal is what is asked for. */
    byte = probe_read(address);
    if (byte >= 0 && byte != CODE_RET)
        print("no code");
    else if (probe_exec(address) < 0)
        print_signal();
    else
        print("ok");
    print_faults(!is_inexact(address, 1));
}

/* Reads or writes in every page of a range, up to the first signal. */
static void run_sweep(const struct operation *operation)
{
    static const unsigned offsets[] = {0, 8, 0x7f8, 0xfff};
    uint64_t start = operation->address & -PAGE, sum = 0;
    uint64_t length = (operation->length + PAGE - 1) & -PAGE;
    bool failed = false;

    for (uint64_t address = start; address < start + length && !failed; address += PAGE) {
        if (operation->kind == OP_FILL) {
            failed = probe_write(address, operation->byte) < 0;
            continue;
        }
        for (size_t i = 0; i < LENGTH(offsets) && !failed; i++) {
            long byte = probe_read(address + offsets[i]);

            failed = byte < 0;
            sum = sum * 31 + byte;
        }
    }
    if (failed)
        print_signal();
    else if (operation->kind == OP_FILL)
        print("ok");
    else
        print_hex(sum & 0xffffffff);
    print_faults(!is_inexact(start, length));
}

/* The kernel reads or writes user memory: through a pipe that is empty before
 * and after, and never waits. */
static int pipe_ends[2] = {-1, -1};

void set_up_pipe(void)
{
    const long nonblocking = 04000;

    sys3(__NR_pipe2, (long)pipe_ends, nonblocking, 0);
}

static void run_copy(const struct operation *operation)
{
    static unsigned char bytes[16];
    uint64_t sum = 0;
    long result, count;

    if (operation->kind == OP_COPY_IN) {
        result = sys3(__NR_write, pipe_ends[1], operation->address, operation->length);
    } else {
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = operation->byte + i;
        sys3(__NR_write, pipe_ends[1], (long)bytes, operation->length);
        result = sys3(__NR_read, pipe_ends[0], operation->address, operation->length);
    }
    count = sys3(__NR_read, pipe_ends[0], (long)bytes, sizeof bytes);
    for (long i = 0; i < count && operation->kind == OP_COPY_IN; i++)
        sum = sum * 31 + bytes[i];
    if (is_error(result)) {
        print_status(result);
    } else {
        print_decimal(result);
        print(" sum ");
        print_hex(sum & 0xffffffff);
    }
    print_faults(!is_inexact(operation->address, 1));
}

/* ---------------------------------------------------------------- fork -- */

static long make_child(void)
{
    long child = sys3(__NR_fork, 0, 0, 0);

    if (child < 0) {
        print_status(child);
        print("\n");
    } else if (child == 0) {
        depth++;
        warm_up();
    }
    return child;
}

static void wait_for_child(long child, unsigned index)
{
    int status = 0;
    long result = sys6(__NR_wait4, child, (long)&status, 0, 0, 0, 0);

    warm_up();
    for (int i = 0; i < depth; i++)
        print("  ");
    print_decimal(index);
    print(" child ended ");
    if (result != child)
        print_status(result);
    else
        print_hex(status);
    print("\n");
}

static unsigned smaller(unsigned one, unsigned other)
{
    return one < other ? one : other;
}

/* The child runs the operations of the block and ends; the parent goes on
 * behind them. Returns where. */
static unsigned run_fork(uint64_t seed, unsigned index, unsigned block, unsigned end,
                         const bool *dropped)
{
    unsigned child_end = smaller(index + 1 + block, end);
    long child;

    print("\n");
    child = make_child();
    if (child < 0)
        return index + 1;
    if (child == 0) {
        run_operations(seed, index + 1, child_end, dropped);
        sys_exit(0);
    }
    wait_for_child(child, index);
    return child_end;
}

/* The parent runs the operations of one block while the child waits; then the
 * child runs those of another one. */
static unsigned run_fork_held(uint64_t seed, unsigned index, unsigned block, unsigned end,
                              const bool *dropped)
{
    unsigned parent_end = smaller(index + 1 + block, end);
    unsigned child_end = smaller(parent_end + block, end);
    int hold[2];
    char token = 0;
    long child, result = sys3(__NR_pipe2, (long)hold, 0, 0);

    if (result != 0)
        give_up("pipe2", result);
    print("\n");
    child = make_child();
    if (child < 0)
        return index + 1;
    if (child == 0) {
        sys3(__NR_close, hold[1], 0, 0);
        sys3(__NR_read, hold[0], (long)&token, 1);
        /* The stack was touched; the fault count begins now. */
        skip_faults();
        run_operations(seed, parent_end, child_end, dropped);
        sys_exit(0);
    }
    warm_up();
    run_operations(seed, index + 1, parent_end, dropped);
    sys3(__NR_write, hold[1], (long)&token, 1);
    sys3(__NR_close, hold[0], 0, 0);
    sys3(__NR_close, hold[1], 0, 0);
    wait_for_child(child, index);
    return child_end;
}

/* ----------------------------------------------------------- programs -- */

static void run_simple(const struct operation *operation)
{
    switch (operation->kind) {
    case OP_MMAP_FIXED:
    case OP_MMAP_NOREPLACE:
    case OP_MMAP_HINT:
    case OP_MMAP_ANYWHERE:
        run_mmap(operation);
        break;
    case OP_MUNMAP:
        run_munmap(operation);
        break;
    case OP_MREMAP:
        run_mremap(operation);
        break;
    case OP_BRK:
        run_brk(operation);
        break;
    case OP_READ:
        run_read(operation);
        break;
    case OP_WRITE:
        run_write(operation);
        break;
    case OP_EXEC:
        run_exec(operation);
        break;
    case OP_SUM:
    case OP_FILL:
        run_sweep(operation);
        break;
    case OP_COPY_IN:
    case OP_COPY_OUT:
        run_copy(operation);
        break;
    case OP_MINCORE:
        observe_mincore(operation->address, operation->length);
        break;
    case OP_MAPS:
        observe_maps();
        return;
    case OP_SMAPS:
        observe_smaps();
        return;
    case OP_PAGEMAP:
        observe_pagemap();
        return;
    default:
        if (operation->kind >= FIRST_OF_FILES)
            run_on_files(operation);
        else
            run_range_call(operation);
    }
    print("\n");
}

void run_operations(uint64_t seed, unsigned first, unsigned end, const bool *dropped)
{
    struct operation operation;

    for (unsigned index = first; index < end;) {
        if (dropped[index]) {
            index++;
            continue;
        }
        generate(&operation, seed, index);
        for (int i = 0; i < depth; i++)
            print("  ");
        print_decimal(index);
        print_char(' ');
        print_operation(&operation);
        print(" = ");
        count_operation();
        if (operation.kind == OP_FORK) {
            index = run_fork(seed, index, operation.block, end, dropped);
        } else if (operation.kind == OP_FORK_HELD) {
            index = run_fork_held(seed, index, operation.block, end, dropped);
        } else {
            run_simple(&operation);
            index++;
        }
    }
}
