/* File systems that a program mounts and takes away again. */
#include "check.h"

#include <sys/mount.h>

#define PAGE 4096

static void refused(void)
{
    CHECK_FAILS(mount("none", "nowhere", "tmpfs", 0, NULL), ENOENT);
    CHECK_FAILS(mount("none", "place", "unheard-of", 0, NULL), ENODEV);
    CHECK_FAILS(mount("none", "file", "tmpfs", 0, NULL), ENOTDIR);
    CHECK_FAILS(mount("none", "place", "tmpfs", 0, "unheard-of=1"), EINVAL);
    CHECK_FAILS(umount("nowhere"), ENOENT);
    CHECK_FAILS(umount("place"), EINVAL);
}

static void covers_and_gives_back(void)
{
    int file;
    char *bytes;

    CHECK(mount("none", "place", "tmpfs", 0, NULL) == 0);
    CHECK_FAILS(access("place/below", F_OK), ENOENT);
    file = open("place/above", O_RDWR | O_CREAT, 0600);
    CHECK(ftruncate(file, 3 * PAGE) == 0);
    bytes = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    bytes[PAGE] = 'x';
    CHECK_FAILS(umount("place"), EBUSY);
    close(file);
    CHECK(munmap(bytes, 3 * PAGE) == 0);
    CHECK(mkdir("place/folder", 0700) == 0 && mkdir("place/folder/deep", 0700) == 0);
    CHECK(umount("place") == 0);
    CHECK(access("place/below", F_OK) == 0);
    CHECK_FAILS(access("place/above", F_OK), ENOENT);
}

/* A mount becomes read-only where nobody writes, and writable again. */
static void again(void)
{
    int file;

    CHECK_FAILS(mount(NULL, "file", NULL, MS_REMOUNT, NULL), EINVAL);
    CHECK(mount("none", "place", "tmpfs", 0, NULL) == 0);
    file = open("place/above", O_RDWR | O_CREAT, 0600);
    CHECK_FAILS(mount(NULL, "place", NULL, MS_REMOUNT | MS_RDONLY, NULL), EBUSY);
    close(file);
    CHECK(mount(NULL, "place", NULL, MS_REMOUNT | MS_RDONLY, NULL) == 0);
    CHECK_FAILS(open("place/above", O_RDWR, 0600), EROFS);
    CHECK_FAILS(mkdir("place/folder", 0700), EROFS);
    CHECK_FAILS(unlink("place/above"), EROFS);
    CHECK(mount(NULL, "place", NULL, MS_REMOUNT, NULL) == 0);
    CHECK(unlink("place/above") == 0 && umount("place") == 0);
}

static void read_only(void)
{
    CHECK(mount("none", "place", "tmpfs", MS_RDONLY | MS_NOSUID, "") == 0);
    CHECK_FAILS(open("place/above", O_RDWR | O_CREAT, 0600), EROFS);
    CHECK(mount("none", "place", "proc", 0, NULL) == 0);
    CHECK(access("place/self/maps", F_OK) == 0);
    CHECK(umount("place") == 0 && umount("place") == 0);
}

int main(void)
{
    check_begin();
    CHECK(mkdir("place", 0700) == 0 && mkdir("place/below", 0700) == 0);
    close(open("file", O_WRONLY | O_CREAT, 0600));
    refused();
    covers_and_gives_back();
    read_only();
    again();
    return check_end();
}
