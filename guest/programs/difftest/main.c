/*
 * Options and batches: each program runs in a process of its own.
 */
#include "difftest.h"

void set_up_pipe(void);
extern bool break_dontneed;

#define MAX_OPERATIONS 4096

static const char usage_text[] =
    "Usage: difftest [OPTION]...\n"
    "Runs random programs of memory system calls and prints what they see.\n"
    "  --seed S        seed of the first program (1)\n"
    "  --programs M    number of programs, with seeds S, S+1, ... (1)\n"
    "  --ops N         operations of each program (60)\n"
    "  --hash-only     for each program: its seed, the hash of its transcript and\n"
    "                  the number of operations\n"
    "  --replay S      the same as --seed S --programs 1\n"
    "  --keep LIST     only the operations with these indices, such as 1,4,7-9\n"
    "  --drop LIST     all operations but these\n"
    "  --only KINDS    only these kinds of operations, such as write,madvise\n"
    "  --without KINDS all kinds but these\n"
    "  --files FOLDER  the programs work on files, each in a folder FOLDER/SEED that\n"
    "                  it makes\n"
    "  --plan          do nothing, but say what would be done (see print_plan)\n"
    "  --break         take MADV_DONTNEED for MADV_NORMAL, to test the comparison\n";

struct options {
    uint64_t seed;
    uint64_t programs;
    unsigned operations;
    enum output_mode mode;
    const char *files;
    bool plan;
    bool dropped[MAX_OPERATIONS];
};

static struct options options = {.seed = 1, .programs = 1, .operations = 60};

static _Noreturn void refuse(void)
{
    sys3(__NR_write, 2, (long)usage_text, sizeof usage_text - 1);
    sys_exit(2);
}

static bool equal(const char *one, const char *other)
{
    while (*one && *one == *other)
        one++, other++;
    return *one == *other;
}

static uint64_t take_number(const char **text)
{
    uint64_t value = 0;

    if (**text < '0' || **text > '9')
        refuse();
    for (; **text >= '0' && **text <= '9'; ++*text)
        value = value * 10 + (**text - '0');
    return value;
}

static uint64_t parse_number(const char *text)
{
    uint64_t value = take_number(&text);

    if (*text != '\0')
        refuse();
    return value;
}

/* Sets `dropped` for the indices in a list such as 1,4,7-9. */
static void parse_list(const char *text, bool dropped)
{
    while (*text) {
        uint64_t first = take_number(&text), last = first;

        if (*text == '-') {
            text++;
            last = take_number(&text);
        }
        if (last >= MAX_OPERATIONS || (*text != ',' && *text != '\0'))
            refuse();
        for (uint64_t i = first; i <= last; i++)
            options.dropped[i] = dropped;
        if (*text == ',')
            text++;
    }
}

static void parse_option_with_value(const char *name, const char *value)
{
    if (equal(name, "--seed")) {
        options.seed = parse_number(value);
    } else if (equal(name, "--programs")) {
        options.programs = parse_number(value);
    } else if (equal(name, "--ops")) {
        uint64_t operations = parse_number(value);

        if (operations > MAX_OPERATIONS)
            refuse();
        options.operations = operations;
    } else if (equal(name, "--replay")) {
        options.seed = parse_number(value);
        options.programs = 1;
    } else if (equal(name, "--keep")) {
        for (size_t i = 0; i < MAX_OPERATIONS; i++)
            options.dropped[i] = true;
        parse_list(value, false);
    } else if (equal(name, "--drop")) {
        parse_list(value, true);
    } else if (equal(name, "--files")) {
        options.files = value;
    } else if (equal(name, "--only")) {
        if (!select_kinds(value, true))
            refuse();
    } else if (equal(name, "--without")) {
        if (!select_kinds(value, false))
            refuse();
    } else {
        refuse();
    }
}

static void parse_options(long count, const char **arguments)
{
    for (long i = 1; i < count; i++) {
        if (equal(arguments[i], "--hash-only"))
            options.mode = OUTPUT_HASH;
        else if (equal(arguments[i], "--plan"))
            options.plan = true;
        else if (equal(arguments[i], "--break"))
            break_dontneed = true;
        else if (i + 1 < count)
            parse_option_with_value(arguments[i], arguments[i + 1]), i++;
        else
            refuse();
    }
    if (!allow_files(options.files != NULL))
        refuse();
}

/* The line of a program in a batch: seed, hash, operations. It is printed by
 * way of the transcript, which begins anew behind it. */
static void print_summary(uint64_t seed, uint64_t hash)
{
    print_decimal(seed);
    print_char(' ');
    print_hash(hash);
    print_char(' ');
    print_decimal(operations_counted());
    print_char('\n');
    write_out();
}

/*
 * The operations of a program for whoever wants to do them in another way:
 * where the windows are, then a line for each operation with all its members
 * and its printed form.
 */
static void print_plan(uint64_t seed)
{
    print("program ");
    print_decimal(seed);
    print("\nwindows");
    for (int i = 0; i < WINDOWS; i++) {
        print_char(' ');
        print_hex(windows[i].start);
    }
    print_char('\n');
    for (unsigned index = 0; index < options.operations; index++) {
        struct operation operation;

        if (options.dropped[index])
            continue;
        generate(&operation, seed, index);
        const uint64_t members[] = {
            index,
            operation.address,
            operation.length,
            operation.new_address,
            operation.new_length,
            operation.protection,
            operation.flags,
            operation.byte,
            operation.block,
        };
        for (size_t i = 0; i < LENGTH(members); i++) {
            print_hex(members[i]);
            print_char(' ');
        }
        print_operation(&operation);
        print_char('\n');
    }
    write_out();
}

static void run_program(uint64_t seed)
{
    int status = 0;
    long child;

    if (options.mode == OUTPUT_TEXT && options.programs > 1) {
        print("program ");
        print_decimal(seed);
        print_char('\n');
    }
    start_transcript();
    child = sys3(__NR_fork, 0, 0, 0);
    if (child < 0)
        give_up("fork", child);
    if (child == 0) {
        if (options.files != NULL)
            set_up_files(options.files, seed);
        warm_up();
        run_operations(seed, 0, options.operations, options.dropped);
        if (options.files != NULL)
            print_files();
        sys_exit(0);
    }
    sys6(__NR_wait4, child, (long)&status, 0, 0, 0, 0);
    if (status != 0) {
        print("program ended with status ");
        print_hex(status);
        print("\n");
    }
    if (options.mode == OUTPUT_HASH)
        print_summary(seed, finish_transcript());
    else
        write_out();
}

/* Called with the stack as the kernel has left it: argc, then argv. */
_Noreturn void run_main(long *stack)
{
    const long no_huge_pages = 41;

    parse_options(stack[0], (const char **)(stack + 1));
    sys6(__NR_prctl, no_huge_pages, 1, 0, 0, 0, 0);
    set_up_transcript(options.mode);
    set_up_stack(stack);
    set_up_faults();
    set_up_signals();
    set_up_pipe();
    set_up_windows();
    for (uint64_t i = 0; i < options.programs; i++) {
        if (options.plan)
            print_plan(options.seed + i);
        else
            run_program(options.seed + i);
    }
    sys_exit(0);
}
