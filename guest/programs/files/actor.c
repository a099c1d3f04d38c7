/*
 * Does with files what it is told, one line of standard input after the other,
 * and says in one line how that went:
 *
 *   open N PATH FLAGS       file N; FLAGS of r w + c t s (O_SYNC) d (O_DIRECT)
 *   close N | fsync N | fdatasync N | size N | sync
 *   read N OFFSET LENGTH | write N OFFSET LENGTH CHARACTER | cut N LENGTH
 *   punch N OFFSET LENGTH | allocate N OFFSET LENGTH
 *   random N | drop N       posix_fadvise
 *   map N OFFSET LENGTH s|p r|w     the mapping of file N
 *   unmap N | advise N ADVICE | msync N | async N
 *   load N OFFSET | store N OFFSET CHARACTER        through the mapping
 *   touch N PAGES STEP      loads from that many pages, STEP pages apart
 *   faults                  minor and major ones since the last time
 *   remove PATH | move PATH PATH | make PATH
 *   fork LINE               a child does it
 *   exit STATUS
 *
 * The answer is a number or text, the name of an errno, or that of a signal.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SLOTS 8
#define PAGE 4096L

static struct {
    int file;
    char *memory;
    long length;
} slots[SLOTS];

static sigjmp_buf back;

static void caught(int number)
{
    siglongjmp(back, number);
}

static const char *error_name(int error)
{
    static const struct {
        int number;
        const char *name;
    } names[] = {
        {EIO, "EIO"},       {ENOSPC, "ENOSPC"}, {EROFS, "EROFS"},   {EACCES, "EACCES"},
        {ENOENT, "ENOENT"}, {EINVAL, "EINVAL"}, {EEXIST, "EEXIST"}, {EBADF, "EBADF"},
        {EPERM, "EPERM"},   {ENOMEM, "ENOMEM"}, {ENODEV, "ENODEV"}, {EFAULT, "EFAULT"},
        {EISDIR, "EISDIR"}, {ENOTEMPTY, "ENOTEMPTY"},
    };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].number == error)
            return names[i].name;
    return "another error";
}

static void say_result(long result)
{
    if (result < 0)
        printf("%s\n", error_name(errno));
    else
        printf("%ld\n", result);
}

static int open_flags(const char *letters)
{
    int flags = 0;

    for (; *letters; letters++)
        switch (*letters) {
        case 'w': flags |= O_WRONLY; break;
        case '+': flags |= O_RDWR; break;
        case 'c': flags |= O_CREAT; break;
        case 't': flags |= O_TRUNC; break;
        case 's': flags |= O_SYNC; break;
        case 'd': flags |= O_DIRECT; break;
        }
    return flags;
}

/* The bytes as text: runs of the same as CHARACTERxCOUNT, zeros as 0. */
static void say_bytes(const char *bytes, long count)
{
    if (count < 0) {
        say_result(-1);
        return;
    }
    if (count == 0)
        printf("nothing");
    for (long i = 0, end; i < count; i = end) {
        for (end = i; end < count && bytes[end] == bytes[i];)
            end++;
        printf("%s%c", i ? " " : "", bytes[i] == 0 ? '0' : isprint(bytes[i]) ? bytes[i] : '?');
        if (end - i > 1)
            printf("x%ld", end - i);
    }
    printf("\n");
}

static void say_faults(void)
{
    static long minor, major;
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    printf("%ld %ld\n", usage.ru_minflt - minor, usage.ru_majflt - major);
    getrusage(RUSAGE_SELF, &usage);
    minor = usage.ru_minflt;
    major = usage.ru_majflt;
}

static void do_map(int n, long offset, long length, char type, char access)
{
    int protection = access == 'w' ? PROT_READ | PROT_WRITE : PROT_READ;
    int flags = type == 's' ? MAP_SHARED : MAP_PRIVATE;
    void *memory = mmap(NULL, length, protection, flags, slots[n].file, offset);

    if (memory == MAP_FAILED) {
        say_result(-1);
        return;
    }
    slots[n].memory = memory;
    slots[n].length = length;
    printf("0\n");
}

/* Calls about a mapping; whether it was one. */
static int on_mapping(const char *command, int n, long a, long b, const char *text)
{
    char *memory = slots[n].memory;

    if (!strcmp(command, "unmap"))
        say_result(munmap(memory, slots[n].length));
    else if (!strcmp(command, "advise"))
        say_result(madvise(memory, slots[n].length, a));
    else if (!strcmp(command, "msync"))
        say_result(msync(memory, slots[n].length, MS_SYNC));
    else if (!strcmp(command, "async"))
        say_result(msync(memory, slots[n].length, MS_ASYNC));
    else if (!strcmp(command, "load"))
        say_bytes(&memory[a], 1);
    else if (!strcmp(command, "store"))
        printf("%c\n", ((volatile char *)memory)[a] = text[0]);
    else if (!strcmp(command, "touch")) {
        long sum = 0;

        for (long i = 0; i < a; i++)
            sum += ((volatile char *)memory)[i * b * PAGE];
        printf("%ld\n", sum);
    } else
        return 0;
    return 1;
}

/* Calls about a file; whether it was one. */
static int on_file(const char *command, int n, long a, long b, const char *text)
{
    static char buffer[1 << 20];
    int file = slots[n].file;
    struct stat stat;

    if (!strcmp(command, "close"))
        say_result(close(file));
    else if (!strcmp(command, "fsync"))
        say_result(fsync(file));
    else if (!strcmp(command, "fdatasync"))
        say_result(fdatasync(file));
    else if (!strcmp(command, "size"))
        say_result(fstat(file, &stat) < 0 ? -1 : stat.st_size);
    else if (!strcmp(command, "cut"))
        say_result(ftruncate(file, a));
    else if (!strcmp(command, "punch"))
        say_result(fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, a, b));
    else if (!strcmp(command, "allocate"))
        say_result(fallocate(file, 0, a, b));
    else if (!strcmp(command, "random"))
        say_result(posix_fadvise(file, 0, 0, POSIX_FADV_RANDOM));
    else if (!strcmp(command, "drop"))
        say_result(posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED));
    else if (!strcmp(command, "read"))
        say_bytes(buffer, pread(file, buffer, b, a));
    else if (!strcmp(command, "write")) {
        memset(buffer, text[0], b);
        say_result(pwrite(file, buffer, b, a));
    } else
        return 0;
    return 1;
}

static void act(char *line)
{
    char command[32] = "", one[256] = "", two[256] = "", three[32] = "", four[32] = "";

    if (sscanf(line, "%31s %255s %255s %31s %31s", command, one, two, three, four) < 1)
        return;
    int n = atoi(one) & (SLOTS - 1);
    long a = atol(two), b = atol(three);

    if (!strcmp(command, "open")) {
        slots[n].file = open(two, open_flags(three), 0644);
        say_result(slots[n].file < 0 ? -1 : 0);
    } else if (!strcmp(command, "map")) {
        char type = 0, access = 0;
        long offset = 0, length = 0;

        sscanf(line, "%*s %*s %ld %ld %c %c", &offset, &length, &type, &access);
        do_map(n, offset, length, type, access);
    } else if (!strcmp(command, "sync")) {
        sync();
        printf("0\n");
    } else if (!strcmp(command, "faults"))
        say_faults();
    else if (!strcmp(command, "remove"))
        say_result(remove(one));
    else if (!strcmp(command, "move"))
        say_result(rename(one, two));
    else if (!strcmp(command, "make"))
        say_result(mkdir(one, 0755));
    else if (!strcmp(command, "exit"))
        exit(atoi(one));
    else if (!on_mapping(command, n, a, b, three) && !on_file(command, n, a, b, four))
        printf("what?\n");
}

int main(void)
{
    char line[1024];
    struct sigaction action = {.sa_handler = caught, .sa_flags = SA_NODEFER};

    setvbuf(stdout, NULL, _IOLBF, 0);
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    while (fgets(line, sizeof line, stdin)) {
        char *todo = line;
        int number = sigsetjmp(back, 1);

        if (number != 0) {
            printf("%s\n", number == SIGBUS ? "SIGBUS" : "SIGSEGV");
            continue;
        }
        if (!strncmp(line, "fork ", 5)) {
            pid_t child = fork();

            if (child != 0) {
                waitpid(child, NULL, 0);
                continue;
            }
            act(todo + 5);
            fflush(stdout);
            _exit(0);
        }
        act(todo);
    }
    return 0;
}
