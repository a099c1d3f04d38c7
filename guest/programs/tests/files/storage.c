/*
 * Files that are mapped, written, cut, punched and synchronised: what must hold
 * in memory and on a disk.
 */
#include "check.h"

#include <sys/file.h>
#include <sys/sendfile.h>

#define PAGE 4096L
#define PAGES 40

static char buffer[PAGES * PAGE];

static int new_file(const char *name, long size)
{
    int file = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);

    CHECK(file >= 0 && ftruncate(file, size) == 0);
    return file;
}

static char *map(int file, long pages, int flags, long offset)
{
    char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, flags, file, offset);

    CHECK(memory != MAP_FAILED);
    return memory;
}

static bool all(const char *bytes, long count, char value)
{
    for (long i = 0; i < count; i++)
        if (bytes[i] != value)
            return false;
    return true;
}

static char *victim;

static void read_victim(void)
{
    *(volatile char *)victim;
}

static bool is_bus_error(char *address)
{
    victim = address;
    int status = check_child(read_victim);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS;
}

static void empty_file(void)
{
    int file = new_file("empty", 0);
    char *memory = map(file, 1, MAP_SHARED, 0);

    CHECK(is_bus_error(memory));
    CHECK(write(file, "x", 1) == 1 && memory[0] == 'x' && memory[1] == 0);
    close(file);
}

static void offsets(void)
{
    int file = new_file("offsets", 0);

    for (int i = 0; i < PAGES; i++)
        memset(buffer + i * PAGE, 'A' + i, PAGE);
    CHECK(write(file, buffer, sizeof buffer) == sizeof buffer);
    char *memory = map(file, 4, MAP_SHARED, 30 * PAGE);
    for (int i = 0; i < 4; i++)
        CHECK(memory[i * PAGE + 7] == 'A' + 30 + i);
    /* The same file at a fixed place inside the other mapping. */
    CHECK(mmap(memory + PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, file, 2 * PAGE) ==
          memory + PAGE);
    CHECK(memory[0] == 'A' + 30 && memory[PAGE] == 'A' + 2 && memory[2 * PAGE] == 'A' + 32);
    CHECK(mprotect(memory + PAGE, PAGE, PROT_READ | PROT_WRITE) == 0);
    memory[PAGE] = 'p';
    memory[2 * PAGE] = 's';
    CHECK(pread(file, buffer, 1, 2 * PAGE) == 1 && buffer[0] == 'A' + 2);
    CHECK(pread(file, buffer, 1, 32 * PAGE) == 1 && buffer[0] == 's');
    CHECK(munmap(memory, 4 * PAGE) == 0);
    /* Moved and grown: what comes then is the file further on. */
    memory = map(file, 2, MAP_SHARED, 10 * PAGE);
    memory[0] = 'm';
    memory = mremap(memory, 2 * PAGE, 6 * PAGE, MREMAP_MAYMOVE);
    CHECK(memory != MAP_FAILED && memory[0] == 'm' && memory[5 * PAGE] == 'A' + 15);
    CHECK(munmap(memory, 6 * PAGE) == 0);
    close(file);
}

static void growing(void)
{
    int file = new_file("growing", 100);
    char *memory = map(file, 4, MAP_SHARED, 0);

    /* What is stored behind the end is never part of the file. */
    memory[200] = 'g';
    CHECK(pwrite(file, "end", 3, 3 * PAGE) == 3);
    CHECK(memory[3 * PAGE + 2] == 'd' && memory[PAGE] == 0 && memory[2 * PAGE] == 0);
    CHECK(ftruncate(file, 2 * PAGE + 1) == 0 && is_bus_error(memory + 3 * PAGE));
    CHECK(ftruncate(file, 4 * PAGE) == 0 && memory[3 * PAGE + 2] == 0);
    CHECK(pwrite(file, "ab", 2, PAGE - 1) == 2 && memory[PAGE - 1] == 'a' && memory[PAGE] == 'b');
    CHECK(munmap(memory, 4 * PAGE) == 0);
    close(file);
}

static void cut_pages_go_from_private_mappings_too(void)
{
    int file = new_file("private", 3 * PAGE);
    char *memory = map(file, 3, MAP_PRIVATE, 0);

    memory[0] = memory[2 * PAGE] = 'c';
    CHECK(ftruncate(file, PAGE) == 0);
    CHECK(memory[0] == 'c' && is_bus_error(memory + 2 * PAGE));
    CHECK(ftruncate(file, 3 * PAGE) == 0 && memory[2 * PAGE] == 0);
    CHECK(munmap(memory, 3 * PAGE) == 0);
    close(file);
}

static void holes(void)
{
    int file = new_file("holes", 0);

    memset(buffer, 'h', 10 * PAGE);
    CHECK(write(file, buffer, 10 * PAGE) == 10 * PAGE);
    char *memory = map(file, 10, MAP_SHARED, 0);
    CHECK(all(memory, 10 * PAGE, 'h'));
    const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    CHECK(fallocate(file, punch, PAGE + 100, 3 * PAGE) == 0);
    CHECK(all(memory, PAGE + 100, 'h') && all(memory + PAGE + 100, 3 * PAGE, 0));
    CHECK(all(memory + 4 * PAGE + 100, 6 * PAGE - 100, 'h'));
    memory[2 * PAGE + 5] = 'i';
    CHECK(pread(file, buffer, PAGE, 2 * PAGE) == PAGE && buffer[5] == 'i' && buffer[4] == 0);
    CHECK(madvise(memory + 6 * PAGE, 2 * PAGE, MADV_REMOVE) == 0);
    CHECK(all(memory + 6 * PAGE, 2 * PAGE, 0) && memory[8 * PAGE] == 'h');
    CHECK(pread(file, buffer, PAGE, 7 * PAGE) == PAGE && all(buffer, PAGE, 0));
    CHECK(munmap(memory, 10 * PAGE) == 0);
    close(file);
}

static void advice(void)
{
    int file = new_file("advice", 0);

    memset(buffer, 'v', 8 * PAGE);
    CHECK(write(file, buffer, 8 * PAGE) == 8 * PAGE);
    char *shared = map(file, 8, MAP_SHARED, 0), *private = map(file, 8, MAP_PRIVATE, 0);
    shared[0] = private[0] = 'w';
    CHECK(madvise(shared, 8 * PAGE, MADV_DONTNEED) == 0 && shared[0] == 'w');
    CHECK(madvise(private, 8 * PAGE, MADV_DONTNEED) == 0 && private[0] == 'w');
    CHECK(madvise(shared, 8 * PAGE, MADV_WILLNEED) == 0);
    CHECK(madvise(shared, 8 * PAGE, MADV_RANDOM) == 0 && shared[7 * PAGE] == 'v');
    for (int kind = POSIX_FADV_NORMAL; kind <= POSIX_FADV_NOREUSE; kind++)
        CHECK(posix_fadvise(file, 0, 0, kind) == 0);
    CHECK(posix_fadvise(file, 0, 0, 77) == EINVAL);
    CHECK(shared[0] == 'w' && shared[PAGE] == 'v');
    CHECK(msync(shared, 8 * PAGE, MS_ASYNC) == 0);
    CHECK(msync(shared, 8 * PAGE, MS_SYNC | MS_INVALIDATE) == 0);
    CHECK_FAILS(msync(shared, 8 * PAGE, MS_SYNC | MS_ASYNC), EINVAL);
    CHECK_FAILS(msync(shared + 1, PAGE, MS_SYNC), EINVAL);
    CHECK(munmap(shared + 2 * PAGE, PAGE) == 0);
    CHECK_FAILS(msync(shared, 8 * PAGE, MS_SYNC), ENOMEM);
    CHECK(fsync(file) == 0 && fdatasync(file) == 0 && syncfs(file) == 0);
    close(file);
}

static void copies(void)
{
    int from = new_file("from", 0), to = new_file("to", 0);
    off_t start = 1;
    loff_t in = 100, out = 5000;

    memset(buffer, 'f', 3 * PAGE);
    CHECK(write(from, buffer, 3 * PAGE) == 3 * PAGE);
    CHECK(sendfile(to, from, &start, 2 * PAGE) == 2 * PAGE && start == 2 * PAGE + 1);
    CHECK(copy_file_range(from, &in, to, &out, 3000, 0) == 3000 && in == 3100 && out == 8000);
    CHECK(lseek(to, 0, SEEK_END) == 2 * PAGE);
    memset(buffer, 0, sizeof buffer);
    CHECK(pread(to, buffer, sizeof buffer, 0) == 2 * PAGE && all(buffer, 2 * PAGE, 'f'));
    int other = open("to", O_RDWR);
    CHECK(flock(to, LOCK_EX) == 0);
    CHECK_FAILS(flock(other, LOCK_EX | LOCK_NB), EWOULDBLOCK);
    CHECK(flock(to, LOCK_UN) == 0 && flock(other, LOCK_SH | LOCK_NB) == 0);
    close(other);
    close(from);
    close(to);
}

/* Every page written through a mapping, in an order that is not the file's. */
static void scattered(void)
{
    int file = new_file("scattered", PAGES * PAGE);
    char *memory = map(file, PAGES, MAP_SHARED, 0);

    for (int i = 0; i < PAGES; i++)
        memory[(i * 17 % PAGES) * PAGE + i] = 'A' + i;
    CHECK(msync(memory, PAGES * PAGE, MS_SYNC) == 0);
    memory[5 * PAGE + 4000] = 'z';
    CHECK(pread(file, buffer, sizeof buffer, 0) == sizeof buffer);
    for (int i = 0; i < PAGES; i++)
        CHECK(buffer[(i * 17 % PAGES) * PAGE + i] == 'A' + i);
    CHECK(buffer[5 * PAGE + 4000] == 'z');
    CHECK(munmap(memory, PAGES * PAGE) == 0 && close(file) == 0);
    file = open("scattered", O_RDONLY);
    memset(buffer, 0, sizeof buffer);
    CHECK(pread(file, buffer, sizeof buffer, 0) == sizeof buffer);
    CHECK(buffer[5 * PAGE + 4000] == 'z' && buffer[17 * PAGE + 1] == 'B');
    close(file);
}

/* A page that is written to where nothing can be read from. */
static void broken_sources(void)
{
    int file = new_file("broken", 0);
    char *memory = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    memset(buffer, 'b', 3 * PAGE);
    CHECK(write(file, buffer, 3 * PAGE) == 3 * PAGE);
    memset(memory, 'n', PAGE);
    CHECK(mprotect(memory + PAGE, PAGE, PROT_NONE) == 0);
    CHECK(pwrite(file, memory + PAGE - 100, 2 * PAGE, PAGE) == 100);
    CHECK_FAILS(pwrite(file, memory + PAGE, PAGE, 0), EFAULT);
    CHECK(pread(file, buffer, 3 * PAGE, 0) == 3 * PAGE);
    CHECK(all(buffer, PAGE, 'b') && all(buffer + PAGE, 100, 'n'));
    CHECK(all(buffer + PAGE + 100, 2 * PAGE - 100, 'b'));
    close(file);
}

int main(void)
{
    check_begin();
    empty_file();
    offsets();
    growing();
    cut_pages_go_from_private_mappings_too();
    holes();
    advice();
    copies();
    scattered();
    broken_sources();
    return check_end();
}
