/* Files as memory: the same bytes as read and write see. */
#include "check.h"

#define PAGE 4096

static char *shared, *private;
static int file;

static void past_the_end(void)
{
    shared[2 * PAGE] = 1;
}

static void after_cutting(void)
{
    *(volatile char *)(shared + PAGE);
}

static void seen_both_ways(void)
{
    char bytes[PAGE];

    CHECK(write(file, "0123456789", 10) == 10 && ftruncate(file, PAGE + 100) == 0);
    shared = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    private = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    CHECK(shared != MAP_FAILED && private != MAP_FAILED);
    CHECK(memcmp(shared, "0123456789", 11) == 0 && memcmp(private, "0123456789", 11) == 0);
    shared[0] = 'a';
    CHECK(pread(file, bytes, 10, 0) == 10 && bytes[0] == 'a' && private[0] == 'a');
    private[1] = 'p';
    CHECK(shared[1] == '1' && pread(file, bytes, 10, 0) == 10 && bytes[1] == '1');
    CHECK(pwrite(file, "w", 1, 2) == 1 && shared[2] == 'w' && private[2] == '2');
    /* A hole that is written through the mapping. */
    shared[PAGE + 50] = 'h';
    CHECK(pread(file, bytes, 1, PAGE + 50) == 1 && bytes[0] == 'h');
    CHECK(shared[PAGE + 100] == 0 && shared[2 * PAGE - 1] == 0);
    CHECK(pread(file, bytes, PAGE, PAGE) == 100);
    CHECK(msync(shared, 2 * PAGE, MS_SYNC) == 0);
}

static void ends(void)
{
    int status = check_child(past_the_end);

    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    shared[PAGE + 10] = 'x';
    CHECK(ftruncate(file, 5) == 0);
    CHECK(shared[4] == '4' && shared[5] == 0 && shared[9] == 0);
    status = check_child(after_cutting);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    CHECK(ftruncate(file, 2 * PAGE) == 0 && shared[PAGE + 10] == 0);
}

static void across_fork(void)
{
    pid_t child = fork();

    if (child == 0) {
        shared[7] = 'c';
        private[7] = 'c';
        _exit(0);
    }
    waitpid(child, NULL, 0);
    CHECK(shared[7] == 'c' && private[7] != 'c');
}

static void without_the_file(void)
{
    int gone = open("gone", O_RDWR | O_CREAT, 0600);
    char *bytes;

    CHECK(ftruncate(gone, PAGE) == 0);
    bytes = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, gone, 0);
    close(gone);
    CHECK(unlink("gone") == 0);
    bytes[5] = 'k';
    CHECK(bytes[5] == 'k' && bytes[6] == 0);
    CHECK(munmap(bytes, PAGE) == 0);
}

static void refused(void)
{
    int reader = open("file", O_RDONLY), writer = open("file", O_WRONLY);
    int folder = open(".", O_RDONLY), pipes[2];
    const int both = PROT_READ | PROT_WRITE;

#define MAP(protection, flags, file) (long)mmap(NULL, PAGE, protection, flags, file, 0)
    CHECK_FAILS(MAP(both, MAP_SHARED, reader), EACCES);
    CHECK(MAP(both, MAP_PRIVATE, reader) != -1);
    CHECK_FAILS(MAP(PROT_READ, MAP_PRIVATE, writer), EACCES);
    /* Wrong whatever the file allows; a file that is not there is worse. */
    CHECK_FAILS(MAP(PROT_READ, 0, writer), EINVAL);
    CHECK_FAILS((long)mmap(NULL, 0, both, MAP_SHARED, writer, 0), EINVAL);
    CHECK_FAILS((long)mmap(NULL, 0, both, 0, 999, 0), EBADF);
    CHECK_FAILS(MAP(PROT_READ, MAP_SHARED, folder), ENODEV);
    CHECK(pipe(pipes) == 0);
    CHECK_FAILS(MAP(PROT_READ, MAP_SHARED, pipes[0]), ENODEV);
    CHECK_FAILS(MAP(PROT_READ, MAP_SHARED, 999), EBADF);
    CHECK_FAILS((long)mmap(NULL, PAGE, PROT_READ, MAP_SHARED, reader, 100), EINVAL);
    char *read_only = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, reader, 0);
    CHECK(read_only != MAP_FAILED);
    CHECK_FAILS(mprotect(read_only, PAGE, both), EACCES);
    int zero = open("/dev/zero", O_RDWR);
    char *zeros = mmap(NULL, PAGE, both, MAP_PRIVATE, zero, 0);
    CHECK(zeros != MAP_FAILED && zeros[0] == 0);
    zeros[0] = 1;
    int read_zeros = open("/dev/zero", O_RDONLY);
    zeros = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, read_zeros, 0);
    CHECK(zeros != MAP_FAILED && zeros[0] == 0);
    CHECK_FAILS(mprotect(zeros, PAGE, both), EACCES);
    CHECK_FAILS(MAP(both, MAP_SHARED, read_zeros), EACCES);
    close(reader);
    close(writer);
}

/* A buffer that is a mapping of the file it is read from. */
static void into_itself(void)
{
    int self = open("self", O_RDWR | O_CREAT, 0600);
    char *bytes;

    CHECK(ftruncate(self, 3 * PAGE) == 0 && pwrite(self, "text", 4, 2 * PAGE) == 4);
    bytes = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, self, 0);
    CHECK(pread(self, bytes, PAGE, 2 * PAGE) == PAGE && memcmp(bytes, "text", 5) == 0);
    CHECK(pwrite(self, bytes, 5, PAGE) == 5 && memcmp(bytes + PAGE, "text", 5) == 0);
    CHECK(munmap(bytes, 3 * PAGE) == 0);
    close(self);
}

/* When it was changed, once it is written to where it is kept. */
static time_t changed(int timed, char *bytes)
{
    struct stat status;

    CHECK(msync(bytes, 2 * PAGE, MS_SYNC) == 0 && fstat(timed, &status) == 0);
    return status.st_mtime;
}

static void times(void)
{
    const struct timespec long_ago[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    int timed = open("timed", O_RDWR | O_CREAT, 0600), zeros = open("/dev/zero", O_RDONLY);
    char *copy, *bytes;

    CHECK(ftruncate(timed, 2 * PAGE) == 0 && futimens(timed, long_ago) == 0);
    copy = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, timed, 0);
    bytes = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, timed, 0);
    copy[0] = 1;
    CHECK(changed(timed, bytes) == 1000);
    bytes[0] = 1;
    CHECK(changed(timed, bytes) != 1000);
    CHECK(futimens(timed, long_ago) == 0 && changed(timed, bytes) == 1000);
    CHECK(read(zeros, bytes + PAGE, 1) == 1);
    CHECK(changed(timed, bytes) != 1000);
    CHECK(munmap(bytes, 2 * PAGE) == 0 && munmap(copy, 2 * PAGE) == 0);
    close(timed);
    close(zeros);
}

int main(void)
{
    check_begin();
    file = open("file", O_RDWR | O_CREAT, 0600);
    seen_both_ways();
    ends();
    across_fork();
    without_the_file();
    refused();
    into_itself();
    times();
    return check_end();
}
