/*
 * The ground that operations stand on: the transcript, the windows of
 * addresses, signals and page-fault counts.
 */
#include <asm/errno.h>
#include <asm/mman.h>
#include <asm/sigcontext.h>
#include <asm/siginfo.h>
#include <asm/signal.h>
#include <asm/ucontext.h>
#include <linux/elf.h>
#include <linux/mman.h>
#include <linux/resource.h>

#include "difftest.h"

/* ---------------------------------------------------------- transcript -- */

#define TEXT_SIZE (3 * PAGE)

/* Shared by all processes of a program, so that their lines come in the order
 * in which they were printed, and count as one text. */
static struct transcript {
    uint64_t hash;
    uint64_t operations;
    unsigned facts;
    uint64_t used;
    enum output_mode mode;
    char text[TEXT_SIZE];
} *transcript;

static uint64_t map_for_harness(uint64_t length, int protection, int flags)
{
    long result = sys6(__NR_mmap, 0, length, protection, flags | MAP_ANONYMOUS, -1, 0);

    if (result < 0 && result > -4096)
        give_up("mmap", result);
    return result;
}

void set_up_transcript(enum output_mode mode)
{
    transcript = (struct transcript *)map_for_harness(sizeof *transcript, PROT_READ | PROT_WRITE,
                                                      MAP_SHARED);
    transcript->mode = mode;
}

void start_transcript(void)
{
    transcript->hash = 0xcbf29ce484222325;
    transcript->operations = 0;
    transcript->facts = 0;
}

void write_out(void)
{
    for (uint64_t done = 0; done < transcript->used;) {
        long result =
            sys3(__NR_write, 1, (long)(transcript->text + done), transcript->used - done);

        if (result <= 0)
            sys_exit(3);
        done += result;
    }
    transcript->used = 0;
}

/* Makes room: the text is written, or only goes into the hash. */
static void flush(void)
{
    if (transcript->mode == OUTPUT_TEXT) {
        write_out();
        return;
    }
    for (uint64_t i = 0; i < transcript->used; i++)
        transcript->hash = (transcript->hash ^ (uint8_t)transcript->text[i]) * 0x100000001b3;
    transcript->used = 0;
}

uint64_t finish_transcript(void)
{
    flush();
    return transcript->hash;
}

void count_operation(void)
{
    transcript->operations++;
}

void note(enum fact fact)
{
    transcript->facts |= fact;
}

bool was_noted(enum fact fact)
{
    return transcript->facts & fact;
}

uint64_t operations_counted(void)
{
    return transcript->operations;
}

void print_char(char c)
{
    if (transcript->used == TEXT_SIZE)
        flush();
    transcript->text[transcript->used++] = c;
}

void print(const char *text)
{
    while (*text)
        print_char(*text++);
}

static void print_digits(uint64_t value, unsigned base)
{
    char digits[24];
    int count = 0;

    do {
        digits[count++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    while (count > 0)
        print_char(digits[--count]);
}

void print_decimal(int64_t value)
{
    if (value < 0)
        print_char('-');
    print_digits(value < 0 ? -(uint64_t)value : (uint64_t)value, 10);
}

void print_hex(uint64_t value)
{
    print("0x");
    print_digits(value, 16);
}

void print_hash(uint64_t hash)
{
    for (int shift = 60; shift >= 0; shift -= 4)
        print_char("0123456789abcdef"[hash >> shift & 15]);
}

void print_status(long result)
{
    static const struct {
        int number;
        const char *name;
    } names[] = {
        {EPERM, "EPERM"},   {ENOENT, "ENOENT"}, {EAGAIN, "EAGAIN"}, {ENOMEM, "ENOMEM"},
        {EACCES, "EACCES"}, {EFAULT, "EFAULT"}, {EBUSY, "EBUSY"},   {EEXIST, "EEXIST"},
        {EINVAL, "EINVAL"}, {ENOSYS, "ENOSYS"}, {EBADF, "EBADF"},   {EIO, "EIO"},
        {EINTR, "EINTR"},   {ENODEV, "ENODEV"}, {ECHILD, "ECHILD"}, {EOPNOTSUPP, "EOPNOTSUPP"},
        {EISDIR, "EISDIR"}, {EFBIG, "EFBIG"},   {ENOSPC, "ENOSPC"}, {ENOTDIR, "ENOTDIR"},
        {ENXIO, "ENXIO"},   {ELOOP, "ELOOP"},   {ESPIPE, "ESPIPE"}, {ENOTEMPTY, "ENOTEMPTY"},
        {EROFS, "EROFS"},   {EMLINK, "EMLINK"}, {EXDEV, "EXDEV"},   {EOVERFLOW, "EOVERFLOW"},
    };

    if (result >= 0) {
        print("ok");
        return;
    }
    for (size_t i = 0; i < LENGTH(names); i++) {
        if (names[i].number == -result) {
            print(names[i].name);
            return;
        }
    }
    print("errno ");
    print_decimal(-result);
}

_Noreturn void give_up(const char *why, long result)
{
    if (transcript != NULL) {
        print("difftest: ");
        print(why);
        print(": ");
        print_status(result);
        print("\n");
        write_out();
    }
    sys_exit(2);
}

/* ------------------------------------------------------------- windows -- */

/* The middle of window A: a multiple of 1 GiB. */
#define WINDOW_A_MIDDLE 0x1040000000UL

struct window windows[WINDOWS] = {
    {.name = 'A', .start = WINDOW_A_MIDDLE - WINDOW_PAGES / 2 * PAGE},
    {.name = 'B'},
    {.name = 'C'},
};

/* Fills the holes between the mappings that the kernel has placed, so that
 * the next one comes below all of them; returns the lowest address taken. */
static uint64_t fill_holes(void)
{
    uint64_t last = 0;

    for (int adjacent = 0; adjacent < 8;) {
        /* Shared, so that it never becomes one with a neighbour. */
        uint64_t next = map_for_harness(PAGE, PROT_NONE, MAP_SHARED);

        adjacent = next + PAGE == last ? adjacent + 1 : 0;
        last = next;
    }
    return last;
}

void set_up_windows(void)
{
    uint64_t heap = (sys3(__NR_brk, 0, 0, 0) + PAGE - 1) & -PAGE;
    long result = sys3(__NR_brk, heap + 2 * PAGE, 0, 0);

    if ((uint64_t)result != heap + 2 * PAGE)
        give_up("brk", result);
    /* A heap right behind difftest's own data could become one mapping with
     * it. A hole keeps them apart, and a page without access what grows down. */
    result = sys3(__NR_mprotect, heap, PAGE, PROT_NONE);
    if (result == 0)
        result = sys3(__NR_munmap, heap + PAGE, PAGE, 0);
    if (result != 0)
        give_up("the heap", result);
    windows[WINDOW_C].start = heap + 2 * PAGE;
    windows[WINDOW_B].start = fill_holes() - WINDOW_PAGES * PAGE;
}

void mark(uint64_t start, uint64_t length, uint8_t marks)
{
    for (int i = 0; i < WINDOWS; i++)
        for (int page = 0; page < WINDOW_PAGES; page++) {
            uint64_t address = windows[i].start + page * PAGE;

            if (address + PAGE > start && address < start + length)
                windows[i].marks[page] = marks;
        }
}

uint8_t marks_of(uint64_t start, uint64_t length)
{
    uint8_t marks = 0;

    for (int i = 0; i < WINDOWS; i++)
        for (int page = 0; page < WINDOW_PAGES; page++) {
            uint64_t address = windows[i].start + page * PAGE;

            if (address + PAGE > start && address < start + length)
                marks |= windows[i].marks[page];
        }
    return marks;
}

bool is_inexact(uint64_t start, uint64_t length)
{
    return marks_of(start, length) & MARK_INEXACT;
}

void print_address(uint64_t address)
{
    /* The kernel may place mappings below window B; a stack may grow out of
     * its window, and a mapping may end behind it: all are still named by it. */
    for (int i = 0; i < WINDOWS; i++) {
        uint64_t start = windows[i].start;
        uint64_t below = i == WINDOW_C ? 0 : BESIDE;
        uint64_t above = i == WINDOW_B ? 0 : BESIDE;

        if (address + below < start || address > start + WINDOW_PAGES * PAGE + above)
            continue;
        print_char(windows[i].name);
        print_char(address < start ? '-' : '+');
        print_hex(address < start ? start - address : address - start);
        return;
    }
    print_hex(address);
}

/* ------------------------------------------------------------- signals -- */

extern void signal_return(void);
extern void probe_failed(void);

uint64_t probe_stack;

static struct {
    int signal, code;
    uint64_t address;
} last_signal;

static void handle_signal(int signal, siginfo_t *info, void *context)
{
    struct ucontext *interrupted = context;

    if (probe_stack == 0)
        give_up("difftest itself got a signal", -signal);
    last_signal.signal = signal;
    last_signal.code = info->si_code;
    last_signal.address = (uint64_t)info->si_addr;
    interrupted->uc_mcontext.rip = (uint64_t)probe_failed;
    interrupted->uc_mcontext.rsp = probe_stack;
}

void set_up_signals(void)
{
    struct sigaction action = {
        .sa_handler = (__sighandler_t)(void *)handle_signal,
        .sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTORER,
        .sa_restorer = signal_return,
    };
    long result = sys6(__NR_rt_sigaction, SIGSEGV, (long)&action, 0, 8, 0, 0);

    if (result == 0)
        result = sys6(__NR_rt_sigaction, SIGBUS, (long)&action, 0, 8, 0, 0);
    if (result != 0)
        give_up("rt_sigaction", result);
}

void print_signal(void)
{
    print(last_signal.signal == SIGSEGV ? "SIGSEGV" : "SIGBUS");
    print(" code ");
    print_decimal(last_signal.code);
    print(" at ");
    print_address(last_signal.address);
}

/* --------------------------------------------------------- page faults -- */

/* Room for the deepest calls and a signal frame. */
#define STACK_USED (5 * PAGE)
#define TLB_PAGES 40

static struct rusage usage;
static long faults_before;
static uint64_t tlb_pages;

static long minor_faults(void)
{
    long result = sys3(__NR_getrusage, RUSAGE_SELF, (long)&usage, 0);

    if (result != 0)
        give_up("getrusage", result);
    return usage.ru_minflt;
}

void skip_faults(void)
{
    faults_before = minor_faults();
}

void print_faults(bool exact)
{
    long now = minor_faults();

    print(" faults ");
    if (exact)
        print_decimal(now - faults_before);
    else
        print_char('-');
    faults_before = now;
}

static uint64_t stack_top;

void set_up_stack(void *top)
{
    stack_top = (uint64_t)top;
}

static void touch(uint64_t start, uint64_t end, bool write)
{
    for (uint64_t page = start & -PAGE; page < end; page += PAGE) {
        volatile char *byte = (volatile char *)(page < start ? start : page);
        char value = *byte;

        if (write)
            *byte = value;
    }
}

void warm_up(void)
{
    extern const Elf64_Ehdr __ehdr_start;
    const Elf64_Phdr *segment = (const void *)((const char *)&__ehdr_start + __ehdr_start.e_phoff);
    uint64_t stack_now = (uint64_t)__builtin_frame_address(0);

    for (int i = 0; i < __ehdr_start.e_phnum; i++, segment++)
        if (segment->p_type == PT_LOAD)
            touch(segment->p_vaddr, segment->p_vaddr + segment->p_memsz, segment->p_flags & PF_W);
    touch(stack_now - STACK_USED, stack_top, true);
    touch((uint64_t)transcript, (uint64_t)(transcript + 1), true);
    skip_faults();
}

void set_up_faults(void)
{
    tlb_pages = map_for_harness(TLB_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    for (size_t i = 0; i < TLB_PAGES; i++)
        ((volatile char *)tlb_pages)[i * PAGE] = 1;
}

/*
 * When mprotect allows more than before, Linux leaves the old entries to the
 * processor, which may or may not still have them: an access then takes one
 * page fault more, or not. Taking rights away from many pages at once makes
 * Linux flush everything, and the counts are exact again.
 */
void flush_tlb(void)
{
    sys3(__NR_mprotect, tlb_pages, TLB_PAGES * PAGE, PROT_NONE);
    sys3(__NR_mprotect, tlb_pages, TLB_PAGES * PAGE, PROT_READ | PROT_WRITE);
}
