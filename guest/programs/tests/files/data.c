/* Bytes of a regular file: reading, writing, positions, holes, cutting. */
#include "check.h"
#include <sys/sendfile.h>
#include <sys/uio.h>

#define LARGE (3 * 4096 + 123)

static char buffer[LARGE], other[LARGE];

static void positions(void)
{
    int file = open("data", O_RDWR | O_CREAT | O_EXCL, 0644);

    CHECK(file >= 0);
    CHECK_FAILS(open("data", O_RDWR | O_CREAT | O_EXCL, 0644), EEXIST);
    for (int i = 0; i < LARGE; i++)
        buffer[i] = (char)(i * 7 + i / 256);
    CHECK(write(file, buffer, LARGE) == LARGE);
    CHECK(lseek(file, 0, SEEK_CUR) == LARGE);
    CHECK(read(file, other, LARGE) == 0);
    CHECK(lseek(file, 0, SEEK_SET) == 0);
    CHECK(read(file, other, LARGE) == LARGE && memcmp(buffer, other, LARGE) == 0);
    CHECK(pread(file, other, 100, 4090) == 100 && memcmp(buffer + 4090, other, 100) == 0);
    CHECK(pwrite(file, "between", 7, 4093) == 7);
    CHECK(pread(file, other, 9, 4092) == 9 && memcmp(other + 1, "between", 7) == 0);
    CHECK(lseek(file, -10, SEEK_END) == LARGE - 10);
    CHECK(read(file, other, 100) == 10);
    CHECK_FAILS(lseek(file, -1, SEEK_SET), EINVAL);
    CHECK_FAILS(lseek(file, 0, 77), EINVAL);
    CHECK_FAILS(pread(file, other, 1, -1), EINVAL);
    CHECK_FAILS(pread(file, check_nowhere, 10, 0), EFAULT);
    CHECK(close(file) == 0);
    CHECK_FAILS(close(file), EBADF);
    CHECK_FAILS(read(file, other, 1), EBADF);
    CHECK_FAILS(read(1000, other, 1), EBADF);
}

static void access_modes(void)
{
    int reader = open("data", O_RDONLY), writer = open("data", O_WRONLY | O_APPEND);

    CHECK_FAILS(write(reader, "x", 1), EBADF);
    CHECK_FAILS(read(writer, other, 1), EBADF);
    CHECK(write(writer, "end", 3) == 3);
    CHECK(lseek(writer, 0, SEEK_CUR) == LARGE + 3);
    CHECK(pread(reader, other, 10, LARGE) == 3 && memcmp(other, "end", 3) == 0);
    CHECK((fcntl(writer, F_GETFL) & (O_ACCMODE | O_APPEND)) == (O_WRONLY | O_APPEND));
    CHECK_FAILS(ftruncate(reader, 0), EINVAL);
    close(reader);
    close(writer);
    CHECK_FAILS(open("missing", O_RDONLY), ENOENT);
    CHECK_FAILS(open("data/below", O_RDONLY), ENOTDIR);
    CHECK_FAILS(open(".", O_WRONLY), EISDIR);
    CHECK_FAILS(open("data", O_RDONLY | O_DIRECTORY), ENOTDIR);
    CHECK_FAILS(open(check_nowhere, O_RDONLY), EFAULT);
    CHECK_FAILS(open("", O_RDONLY), ENOENT);
}

static void vectors(void)
{
    int file = open("vectors", O_RDWR | O_CREAT | O_TRUNC, 0600);
    struct iovec pieces[3] = {{"abc", 3}, {"", 0}, {"defgh", 5}};
    char first[4] = "", second[10] = "";
    struct iovec places[2] = {{first, 3}, {second, 9}};

    CHECK(writev(file, pieces, 3) == 8);
    CHECK(preadv(file, places, 2, 1) == 7);
    CHECK(strcmp(first, "bcd") == 0 && strcmp(second, "efgh") == 0);
    CHECK(pwritev(file, pieces, 1, 6) == 3);
    CHECK(lseek(file, 0, SEEK_SET) == 0 && readv(file, places, 2) == 9);
    CHECK(strcmp(second, "defabc") == 0);
    CHECK_FAILS(syscall(SYS_readv, file, places, -1L), EINVAL);
    close(file);
}

static void holes(void)
{
    int file = open("holes", O_RDWR | O_CREAT | O_TRUNC, 0600);
    struct stat stat;

    CHECK(pwrite(file, "x", 1, 100 * 4096) == 1);
    CHECK(fsync(file) == 0); /* a disk gives blocks to what is written to it */
    CHECK(fstat(file, &stat) == 0 && stat.st_size == 100 * 4096 + 1 && stat.st_blocks == 8);
    CHECK(pread(file, other, 4096, 50 * 4096) == 4096);
    for (int i = 0; i < 4096; i++)
        if (other[i] != 0) {
            CHECK(other[i] == 0);
            break;
        }
    CHECK(lseek(file, 0, SEEK_DATA) == 100 * 4096);
    CHECK(lseek(file, 0, SEEK_HOLE) == 0);
    CHECK(lseek(file, 100 * 4096, SEEK_HOLE) == 100 * 4096 + 1);
    CHECK_FAILS(lseek(file, 200 * 4096, SEEK_DATA), ENXIO);
    CHECK(fallocate(file, 0, 4096, 2 * 4096) == 0);
    CHECK(fstat(file, &stat) == 0 && stat.st_blocks == 24);
    CHECK(fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096) == 0);
    CHECK(fstat(file, &stat) == 0 && stat.st_blocks == 16);
    CHECK(fallocate(file, 0, 200 * 4096, 4096) == 0);
    CHECK(fstat(file, &stat) == 0 && stat.st_size == 201 * 4096 && stat.st_blocks == 24);
    close(file);
}

static void cutting(void)
{
    int file = open("cut", O_RDWR | O_CREAT | O_TRUNC, 0600);
    struct stat stat;

    memset(buffer, 'a', LARGE);
    CHECK(write(file, buffer, LARGE) == LARGE);
    CHECK(ftruncate(file, 5000) == 0);
    CHECK(fsync(file) == 0);
    CHECK(fstat(file, &stat) == 0 && stat.st_size == 5000 && stat.st_blocks == 16);
    CHECK(ftruncate(file, 9000) == 0);
    CHECK(pread(file, other, LARGE, 0) == 9000);
    CHECK(other[4999] == 'a' && other[5000] == 0 && other[8999] == 0);
    CHECK_FAILS(ftruncate(file, -1), EINVAL);
    CHECK(truncate("cut", 3) == 0);
    CHECK(pread(file, other, LARGE, 0) == 3);
    CHECK_FAILS(truncate("missing", 3), ENOENT);
    close(file);
    file = open("cut", O_RDWR | O_TRUNC);
    CHECK(fstat(file, &stat) == 0 && stat.st_size == 0);
    close(file);
}

static void copying(void)
{
    int from = open("data", O_RDONLY), to = open("copy", O_RDWR | O_CREAT | O_TRUNC, 0600);
    off_t at = 4090;

    CHECK(sendfile(to, from, &at, 5000) == 5000 && at == 9090);
    CHECK(lseek(from, 0, SEEK_CUR) == 0 && lseek(to, 0, SEEK_CUR) == 5000);
    CHECK(pread(from, buffer, 5000, 4090) == 5000 && pread(to, other, LARGE, 0) == 5000);
    CHECK(memcmp(buffer, other, 5000) == 0);
    CHECK(copy_file_range(from, NULL, to, NULL, 100, 0) == 100);
    CHECK(lseek(from, 0, SEEK_CUR) == 100 && lseek(to, 0, SEEK_END) == 5100);
    close(from);
    close(to);
}

int main(void)
{
    check_begin();
    positions();
    access_modes();
    vectors();
    holes();
    cutting();
    copying();
    return check_end();
}
