/*
 * difftest: random programs of memory system calls, with a transcript. If a
 * folder is given, they work on files as well, and map them.
 *
 * A program is a sequence of operations, each made from the program's seed and
 * the operation's index alone. The transcript holds everything that a program
 * can learn from the kernel, and nothing that may differ between two runs:
 * run on two kernels that agree, it is the same byte for byte.
 *
 *   main.c      options, batches, one process per program
 *   generate.c  operations from seed and index; generate_files.c those on files
 *   print.c     how operations are printed
 *   execute.c   what each operation does; execute_files.c those on files
 *   observe.c   maps, smaps, pagemap and mincore in the transcript
 *   harness.c   the transcript, the windows of addresses, signals, faults
 *   start.S     entry point and accesses that may fault
 */
#ifndef DIFFTEST_H
#define DIFFTEST_H

#include <stdbool.h>

#include "sys.h"

#define PAGE 4096UL
#define LENGTH(array) (sizeof(array) / sizeof(array)[0])

/* ------------------------------------------------------------- windows -- */

/*
 * The addresses that operations use. Nothing of difftest itself lies there.
 *
 *   A  a fixed range, in the middle of which two page-table pages of two
 *      levels meet
 *   B  right below everything the kernel has placed so far: where it puts
 *      mappings without a hint, top down
 *   C  the heap: where the break moves
 */
enum window_id { WINDOW_A, WINDOW_B, WINDOW_C, WINDOWS };

#define WINDOW_PAGES 32
/* How far mappings may lie beside a window because the kernel put them there
 * or let them grow. */
#define BESIDE (4096 * PAGE)

struct window {
    char name;
    uint64_t start; /* WINDOW_PAGES pages from here */
    uint8_t marks[WINDOW_PAGES];
};

/* Marks of pages, past or present. */
enum {
    /* Of a shared mapping or a file: how many page faults an access takes is not
     * exact on Linux, which maps neighbours of a page, too, when it is read
     * ("fault-around"). */
    MARK_INEXACT = 1,
    /* Of a file: which pages are in memory is up to readahead. */
    MARK_FILE = 2,
};

extern struct window windows[WINDOWS];

void set_up_windows(void);
/* Sets the marks of the pages of [start, start+length). */
void mark(uint64_t start, uint64_t length, uint8_t marks);
/* All marks of these pages together. */
uint8_t marks_of(uint64_t start, uint64_t length);
bool is_inexact(uint64_t start, uint64_t length);
/* Prints an address by its window; outside of all windows, by number. */
void print_address(uint64_t address);

/* ---------------------------------------------------------- transcript -- */

enum output_mode { OUTPUT_TEXT, OUTPUT_HASH };

void set_up_transcript(enum output_mode mode);
void start_transcript(void);
/* The hash of the transcript since start_transcript. */
uint64_t finish_transcript(void);
void count_operation(void);
uint64_t operations_counted(void);
/* What all processes of a program have to know once it has happened. */
enum fact {
    FACT_SPACE_SET_ASIDE = 1, /* in a file, without being written */
    FACT_FILE_WITH_TWO_NAMES = 2,
};
void note(enum fact fact);
bool was_noted(enum fact fact);

void print(const char *text);
void print_char(char c);
void print_decimal(int64_t value);
void print_hex(uint64_t value);
/* Prints a system call's result: `ok`, or the name of its errno. */
void print_status(long result);
void print_hash(uint64_t hash);
/* Writes out what has been printed. */
void write_out(void);

/* ------------------------------------------------- faults and accesses -- */

void set_up_signals(void);
void set_up_faults(void);
/* Says where difftest's own stack begins. */
void set_up_stack(void *top);
/* Touches all of difftest's own memory, which fork has made fault again, and
 * starts counting page faults from here. */
void warm_up(void);
/* Prints the page faults since the last call, or `-` if they are not exact. */
void print_faults(bool exact);
/* Starts counting page faults from here. */
void skip_faults(void);
/* Makes the processor forget all it knows of the page tables. */
void flush_tlb(void);

/* Accesses that may fault: the result or -1, and then the signal is printed
 * by print_signal. */
long probe_read(uint64_t address);
long probe_write(uint64_t address, int byte);
long probe_exec(uint64_t address);
void print_signal(void);

/* Ends difftest: it cannot do its work here. */
_Noreturn void give_up(const char *why, long result);

/* ---------------------------------------------------------- operations -- */

enum kind {
    OP_MMAP_FIXED,
    OP_MMAP_NOREPLACE,
    OP_MMAP_HINT,
    OP_MMAP_ANYWHERE,
    OP_MUNMAP,
    OP_MPROTECT,
    OP_MREMAP,
    OP_MADVISE,
    OP_BRK,
    OP_FORK,
    OP_FORK_HELD,
    OP_READ,
    OP_WRITE,
    OP_EXEC,
    OP_SUM,
    OP_FILL,
    OP_MINCORE,
    OP_MSYNC,
    OP_MLOCK,
    OP_MLOCK_ONFAULT,
    OP_MUNLOCK,
    OP_COPY_IN,
    OP_COPY_OUT,
    OP_MAPS,
    OP_SMAPS,
    OP_PAGEMAP,
    OP_OPEN,
    FIRST_OF_FILES = OP_OPEN,
    OP_CLOSE,
    OP_FILE_READ,
    OP_FILE_WRITE,
    OP_PREAD,
    OP_PWRITE,
    OP_PREAD_INTO,
    OP_PWRITE_FROM,
    OP_FTRUNCATE,
    OP_FALLOCATE,
    OP_LSEEK,
    OP_FSYNC,
    OP_SENDFILE,
    OP_COPY_RANGE,
    OP_FADVISE,
    OP_FSTAT,
    OP_RESIDENT,
    OP_MKDIR,
    OP_RMDIR,
    OP_UNLINK,
    OP_RENAME,
    OP_SYMLINK,
    OP_READLINK,
    OP_TRUNCATE,
    OP_LINK,
    OP_STAT,
    OP_LIST,
    KINDS
};

/* A length that rounding up to pages makes larger than all memory: whatever
 * is called with it must refuse. */
#define EXCESSIVE_LENGTH 0xfffffffffffff000UL

/* Open files are named by a slot each. */
#define SLOTS 4
#define NO_FILE (-1)

/* One operation; which members count depends on the kind. */
struct operation {
    enum kind kind;
    uint64_t address;
    uint64_t length;
    uint64_t new_address; /* mremap */
    uint64_t new_length;  /* mremap */
    int protection;       /* mmap, mprotect */
    int flags;            /* mmap, mremap, msync; madvise: the advice */
    int byte;             /* what is written */
    unsigned block;       /* fork: how many operations belong to it */

    int file, other_file; /* slots of open files */
    unsigned name, other_name;
    uint64_t offset, other_offset; /* in files */
    uint64_t count;                /* bytes of a file */
    int mode;                      /* open: flags; fallocate: mode; lseek: whence; ... */
};

/* Limits what is generated: `names` is a list of kinds with commas. */
bool select_kinds(const char *names, bool keep);
/* Whether programs work on files; false if no kinds remain. */
bool allow_files(bool allowed);
const char *name_of_kind(enum kind kind);
void generate(struct operation *operation, uint64_t seed, unsigned index);
void print_operation(const struct operation *operation);

/* Runs the operations [first, end) of a program, leaving out those whose
 * entry in `dropped` is set. */
void run_operations(uint64_t seed, unsigned first, unsigned end, const bool *dropped);

/* ---------------------------------------------------------------- files -- */

struct random;

/* Makes a mapping one of a file, or leaves it alone. */
void choose_file_to_map(struct random *random, struct operation *operation);
/* The arguments of an operation on files. */
void generate_on_files(struct random *random, struct operation *operation);
void print_operation_on_files(const struct operation *operation);

/* Makes the files of a program, in a folder of its own. */
void set_up_files(const char *folder, uint64_t seed);
/* The open file in a slot, as the kernel knows it. */
int descriptor_of(int slot);
void run_on_files(const struct operation *operation);
/* Prints what is left of the files. */
void print_files(void);
const char *file_name(unsigned index);
unsigned count_file_names(void);

/* -------------------------------------------------------- observations -- */

void observe_maps(void);
void observe_smaps(void);
void observe_pagemap(void);
void observe_mincore(uint64_t start, uint64_t length);

#endif
