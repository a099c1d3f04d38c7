/*
 * Random programs of file system calls, with a transcript: run in two empty
 * folders, on two kernels that agree, transcript and folders are the same byte
 * for byte afterwards.
 *
 *     random FOLDER SEED OPERATIONS
 *
 * Each line: the operation, its arguments, and what came of it: a number, an
 * errno, a signal, or a checksum of the bytes that were seen.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define FILES 4
#define MAPS 3
#define LONGEST (12 * PAGE)

static const char *const names[] = {"a", "b", "c", "d/a", "d/b", "e", "d", "e/a", "l"};
#define NAMES ((int)(sizeof names / sizeof names[0]))

static int files[FILES];
static struct {
    char *memory;
    long length;
} maps[MAPS];

static uint64_t state;
static unsigned char buffer[LONGEST];
static sigjmp_buf back;

static uint32_t roll(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 16) % below;
}

static uint32_t checksum(const void *bytes, long count)
{
    const unsigned char *at = bytes;
    uint32_t sum = 1;

    for (long i = 0; i < count; i++)
        sum = sum * 31 + at[i];
    return sum;
}

static void caught(int number)
{
    siglongjmp(back, number);
}

static void say(long result)
{
    if (result < 0)
        printf(" = errno %d\n", errno);
    else
        printf(" = %ld\n", result);
}

static void say_bytes(long count)
{
    if (count < 0)
        say(count);
    else
        printf(" = %ld bytes, %08x\n", count, checksum(buffer, count));
}

static void fill(long count)
{
    for (long i = 0; i < count; i++)
        buffer[i] = 'A' + (i * 7 + state) % 26;
}

static const char *name(void)
{
    return names[roll(NAMES)];
}

/* An offset: often near the edge of a page. */
static long offset(void)
{
    long page = roll(10) * PAGE;

    return roll(2) ? page + roll(PAGE) : page + (long)roll(9) - (page ? 4 : 0);
}

static long size(void)
{
    return roll(3) ? 1 + roll(300) : 1 + roll(3 * PAGE);
}

/* ------------------------------------------------------- on names -- */

static void do_open(void)
{
    static const int extra[] = {0, 0, 0, O_TRUNC, O_EXCL, O_APPEND, O_DSYNC, O_NOFOLLOW};
    int slot = roll(FILES), flags = roll(5) ? O_RDWR : roll(2) ? O_RDONLY : O_WRONLY;
    const char *path = name();

    flags |= (roll(3) ? O_CREAT : 0) | extra[roll(8)];
    /* What O_EXCL means without O_CREAT is nobody's business. */
    if (!(flags & O_CREAT))
        flags &= ~O_EXCL;
    close(files[slot]);
    files[slot] = open(path, flags, 0644);
    printf("open %d %s %o", slot, path, flags);
    say(files[slot] < 0 ? -1 : 0);
}

static void do_name(void)
{
    const char *one = name(), *two = name();
    struct stat stat;

    switch (roll(9)) {
    case 0:
        printf("mkdir %s", one);
        return say(mkdir(one, 0755));
    case 1:
        printf("rmdir %s", one);
        return say(rmdir(one));
    case 2:
        printf("unlink %s", one);
        return say(unlink(one));
    case 3:
        printf("rename %s %s", one, two);
        return say(rename(one, two));
    case 4:
        printf("symlink %s %s", one, two);
        return say(symlink(one, two));
    case 5:
        printf("readlink %s", one);
        return say_bytes(readlink(one, (char *)buffer, sizeof buffer));
    case 6:
        printf("truncate %s", one);
        return say(truncate(one, offset()));
    case 7:
        printf("link %s %s", one, two);
        return say(link(one, two));
    default:
        printf("stat %s", one);
        if (lstat(one, &stat) < 0)
            return say(-1);
        printf(" = mode %o, links %d, size %ld\n", stat.st_mode, (int)stat.st_nlink,
               S_ISDIR(stat.st_mode) ? 0 : (long)stat.st_size);
    }
}

static void do_list(void)
{
    const char *path = roll(2) ? "." : roll(2) ? "d" : "e";
    DIR *folder = opendir(path);
    uint32_t sum = 0;
    long count = 0;

    printf("list %s", path);
    if (folder == NULL)
        return say(-1);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL; count++)
        sum += checksum(entry->d_name, strlen(entry->d_name)) * (entry->d_type + 1);
    closedir(folder);
    printf(" = %ld names, %08x\n", count, sum);
}

/* ------------------------------------------------------- on bytes -- */

static void do_read(void)
{
    int slot = roll(FILES);
    long at = offset(), count = size();

    if (roll(3)) {
        printf("pread %d %ld %ld", slot, at, count);
        return say_bytes(pread(files[slot], buffer, count, at));
    }
    printf("read %d %ld", slot, count);
    say_bytes(read(files[slot], buffer, count));
}

static void do_write(void)
{
    int slot = roll(FILES);
    long at = offset(), count = size();

    fill(count);
    if (roll(3)) {
        printf("pwrite %d %ld %ld", slot, at, count);
        return say(pwrite(files[slot], buffer, count, at));
    }
    printf("write %d %ld", slot, count);
    say(write(files[slot], buffer, count));
}

static int same_file(int one, int other)
{
    struct stat first, second;

    return fstat(one, &first) == 0 && fstat(other, &second) == 0 && first.st_ino == second.st_ino;
}

static void do_other(void)
{
    int slot = roll(FILES), other = roll(FILES);
    long at = offset(), count = size();
    struct stat stat;

    switch (roll(9)) {
    case 0:
        printf("ftruncate %d %ld", slot, at);
        return say(ftruncate(files[slot], at));
    case 1:
        printf("fallocate %d %ld %ld", slot, at, count);
        return say(fallocate(files[slot], roll(2) ? FALLOC_FL_KEEP_SIZE : 0, at, count));
    case 2:
        printf("punch %d %ld %ld", slot, at, count);
        return say(fallocate(files[slot], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, count));
    case 3:
        printf("lseek %d %ld", slot, at);
        return say(lseek(files[slot], at, roll(3)));
    case 4:
        printf("fsync %d", slot);
        return say(roll(2) ? fsync(files[slot]) : fdatasync(files[slot]));
    case 5:
        printf("sendfile %d %d %ld", slot, other, count);
        /* Within one file, what is read where it was just written is open. */
        if (same_file(files[slot], files[other])) {
            printf(" = left out\n");
            return;
        }
        return say(sendfile(files[slot], files[other], &at, count));
    case 6: {
        loff_t from = at, to = offset();

        printf("copy %d %ld %d %ld %ld", other, at, slot, (long)to, count);
        return say(copy_file_range(files[other], &from, files[slot], &to, count, 0));
    }
    case 7:
        printf("advise %d", slot);
        return say(posix_fadvise(files[slot], 0, 0, roll(6)));
    default:
        printf("fstat %d", slot);
        if (fstat(files[slot], &stat) < 0)
            return say(-1);
        printf(" = mode %o, size %ld\n", stat.st_mode,
               S_ISDIR(stat.st_mode) ? 0 : (long)stat.st_size);
    }
}

/* ---------------------------------------------------- on mappings -- */

static void do_map(void)
{
    int slot = roll(MAPS), file = roll(FILES);
    long first = roll(4) * PAGE, length = (1 + roll(6)) * PAGE;
    int protection = roll(4) ? PROT_READ | PROT_WRITE : PROT_READ;
    int flags = roll(3) ? MAP_SHARED : MAP_PRIVATE;

    if (maps[slot].memory != NULL)
        munmap(maps[slot].memory, maps[slot].length);
    maps[slot].memory = NULL;
    printf("mmap %d of %d %ld %ld %d %d", slot, file, first, length, protection, flags);
    char *memory = mmap(NULL, length, protection, flags, files[file], first);
    if (memory == MAP_FAILED)
        return say(-1);
    maps[slot].memory = memory;
    maps[slot].length = length;
    say(0);
}

/* Reads or writes some bytes of a mapping, up to the first signal. */
static void access_bytes(volatile char *memory, long count, int writes)
{
    int number = sigsetjmp(back, 1);

    if (number != 0) {
        printf(" = signal %d\n", number);
        return;
    }
    for (long i = 0; i < count; i++) {
        if (writes)
            memory[i] = buffer[i];
        else
            buffer[i] = memory[i];
    }
    say_bytes(count);
}

static void do_access(void)
{
    int slot = roll(MAPS);
    long at = roll(maps[slot].length ? maps[slot].length : 1), count = 1 + roll(40);
    int writes = roll(2);

    printf("%s %d %ld %ld", writes ? "store" : "load", slot, at, count);
    if (maps[slot].memory == NULL) {
        printf(" = nothing\n");
        return;
    }
    if (at + count > maps[slot].length)
        count = maps[slot].length - at;
    fill(count);
    access_bytes(maps[slot].memory + at, count, writes);
}

static void do_range(void)
{
    int slot = roll(MAPS);
    char *memory = maps[slot].memory;
    long length = maps[slot].length;

    if (memory == NULL)
        return;
    switch (roll(5)) {
    case 0:
        printf("msync %d", slot);
        return say(msync(memory, length, roll(2) ? MS_SYNC : MS_ASYNC));
    case 1:
        printf("dontneed %d", slot);
        return say(madvise(memory, length, MADV_DONTNEED));
    case 2:
        printf("remove %d", slot);
        return say(madvise(memory, length > PAGE ? PAGE : length, MADV_REMOVE));
    case 3:
        printf("protect %d", slot);
        return say(mprotect(memory, length, roll(2) ? PROT_READ : PROT_READ | PROT_WRITE));
    default: {
        long new_length = (1 + roll(8)) * PAGE;
        char *moved = mremap(memory, length, new_length, MREMAP_MAYMOVE);

        printf("mremap %d %ld", slot, new_length);
        if (moved == MAP_FAILED)
            return say(-1);
        maps[slot].memory = moved;
        maps[slot].length = new_length;
        say(0);
    }
    }
}

static void act(void)
{
    uint32_t kind = roll(100);

    if (kind < 14)
        do_open();
    else if (kind < 26)
        do_name();
    else if (kind < 29)
        do_list();
    else if (kind < 43)
        do_read();
    else if (kind < 60)
        do_write();
    else if (kind < 75)
        do_other();
    else if (kind < 82)
        do_map();
    else if (kind < 95)
        do_access();
    else
        do_range();
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = caught, .sa_flags = SA_NODEFER};
    static char output[1 << 16];

    if (argc < 4 || chdir(argv[1]) != 0)
        return 2;
    setvbuf(stdout, output, _IOFBF, sizeof output);
    umask(022);
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    for (int i = 0; i < FILES; i++)
        files[i] = -1;
    state = 0x9e3779b97f4a7c15 * (strtoull(argv[2], NULL, 10) + 1) | 1;
    for (long count = atol(argv[3]); count > 0; count--) {
        if (roll(30) == 0) {
            fflush(stdout);
            pid_t child = fork();
            if (child == 0) {
                act();
                fflush(stdout);
                _exit(0);
            }
            uint64_t before = state;
            waitpid(child, NULL, 0);
            state = before;
        }
        act();
    }
    return 0;
}
