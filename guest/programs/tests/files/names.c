/* Names: folders, links, renaming, removing, the current folder, attributes. */
#include "check.h"
#include <dirent.h>
#include <limits.h>
#include <sys/statfs.h>
#include <time.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE 2
#endif

/* The folder is one of the host, whose owner and set-user bits are not ours. */
static bool shared;

static void make(const char *name)
{
    int file = open(name, O_WRONLY | O_CREAT, 0644);

    CHECK(file >= 0 && write(file, name, strlen(name)) == (ssize_t)strlen(name));
    close(file);
}

static int entries(const char *folder)
{
    DIR *open_folder = opendir(folder);
    int count = 0;

    CHECK(open_folder != NULL);
    if (open_folder == NULL)
        return -1;
    while (readdir(open_folder) != NULL)
        count++;
    closedir(open_folder);
    return count;
}

static void folders(void)
{
    char start[PATH_MAX], here[PATH_MAX];
    struct stat stat_here;

    CHECK(getcwd(start, sizeof start) != NULL && strncmp(start, "/tmp/files-", 11) == 0);
    CHECK(mkdir("folder", 0755) == 0);
    CHECK_FAILS(mkdir("folder", 0755), EEXIST);
    CHECK_FAILS(mkdir("missing/folder", 0755), ENOENT);
    CHECK(chdir("folder") == 0 && getcwd(here, sizeof here) != NULL);
    CHECK(strcmp(here + strlen(start), "/folder") == 0);
    CHECK_FAILS(syscall(SYS_getcwd, here, 3L), ERANGE);
    make("inside");
    CHECK(chdir("..") == 0);
    CHECK(stat("folder/inside", &stat_here) == 0 && S_ISREG(stat_here.st_mode));
    CHECK(stat_here.st_size == 6 && stat_here.st_nlink == 1);
    CHECK(entries("folder") == 3);
    CHECK_FAILS(rmdir("folder"), ENOTEMPTY);
    CHECK_FAILS(unlink("folder"), EISDIR);
    CHECK_FAILS(rmdir("folder/inside"), ENOTDIR);
    CHECK(unlink("folder/inside") == 0 && rmdir("folder") == 0);
    CHECK_FAILS(chdir("folder"), ENOENT);
    int open_folder = open(".", O_RDONLY | O_DIRECTORY);
    CHECK(mkdirat(open_folder, "at", 0700) == 0 && chdir("at") == 0);
    CHECK(fchdir(open_folder) == 0);
    CHECK(unlinkat(open_folder, "at", AT_REMOVEDIR) == 0);
    close(open_folder);
}

static void many_entries(void)
{
    char name[32];

    CHECK(mkdir("many", 0755) == 0);
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "many/entry-number-%d", i);
        make(name);
    }
    CHECK(entries("many") == 502);
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "many/entry-number-%d", i);
        CHECK(unlink(name) == 0);
    }
    CHECK(rmdir("many") == 0);
}

static void links(void)
{
    char text[100];
    struct stat first, second;

    make("original");
    CHECK(link("original", "hard") == 0);
    CHECK(stat("original", &first) == 0 && stat("hard", &second) == 0);
    CHECK(first.st_ino == second.st_ino && first.st_nlink == 2);
    CHECK(symlink("original", "soft") == 0);
    CHECK(lstat("soft", &first) == 0 && S_ISLNK(first.st_mode) && first.st_size == 8);
    CHECK(stat("soft", &first) == 0 && first.st_ino == second.st_ino);
    CHECK(readlink("soft", text, sizeof text) == 8 && memcmp(text, "original", 8) == 0);
    CHECK_FAILS(readlink("original", text, sizeof text), EINVAL);
    CHECK_FAILS(open("soft", O_RDONLY | O_NOFOLLOW), ELOOP);
    CHECK(symlink("loop", "loop") == 0);
    CHECK_FAILS(open("loop", O_RDONLY), ELOOP);
    CHECK(unlink("original") == 0);
    CHECK_FAILS(open("soft", O_RDONLY), ENOENT);
    CHECK(stat("hard", &first) == 0 && first.st_nlink == 1);
    CHECK(unlink("hard") == 0 && unlink("soft") == 0 && unlink("loop") == 0);
}

static void renaming(void)
{
    struct stat stat_here;

    make("one");
    make("another");
    CHECK(rename("one", "two") == 0);
    CHECK_FAILS(stat("one", &stat_here), ENOENT);
    CHECK_FAILS(syscall(SYS_renameat2, AT_FDCWD, "two", AT_FDCWD, "another", RENAME_NOREPLACE), EEXIST);
    CHECK(syscall(SYS_renameat2, AT_FDCWD, "two", AT_FDCWD, "another", RENAME_EXCHANGE) == 0);
    CHECK(stat("two", &stat_here) == 0 && stat_here.st_size == 7);
    CHECK(rename("two", "another") == 0);
    CHECK(stat("another", &stat_here) == 0 && stat_here.st_size == 7);
    CHECK(mkdir("a", 0755) == 0 && mkdir("a/b", 0755) == 0);
    CHECK_FAILS(rename("a", "a/b/c"), EINVAL);
    CHECK_FAILS(rename("another", "a"), EISDIR);
    CHECK(rename("a/b", "b") == 0 && rename("a", "b") == 0);
    CHECK(rmdir("b") == 0 && unlink("another") == 0);
}

static void attributes(void)
{
    struct stat now;
    struct statfs whole;
    struct timespec times[2] = {{1000, 5}, {2000, 6}};

    umask(027);
    make("file");
    CHECK(stat("file", &now) == 0 && (now.st_mode & 07777) == 0640);
    umask(022);
    CHECK(chmod("file", 04711) == 0 && stat("file", &now) == 0);
    CHECK((now.st_mode & 07777) == (shared ? 0711 : 04711));
    CHECK(utimensat(AT_FDCWD, "file", times, 0) == 0 && stat("file", &now) == 0);
    CHECK(now.st_atim.tv_sec == 1000 && now.st_mtim.tv_sec == 2000 && now.st_mtim.tv_nsec == 6);
#ifdef STATX_BASIC_STATS
    struct statx more;

    CHECK(statx(AT_FDCWD, "file", 0, STATX_BASIC_STATS, &more) == 0);
    CHECK(more.stx_size == 4 && more.stx_mtime.tv_sec == 2000 && more.stx_ino == now.st_ino);
#endif
    CHECK(access("file", R_OK | W_OK | X_OK) == 0 && access("file", F_OK) == 0);
    CHECK(chmod("file", 0600) == 0);
    CHECK_FAILS(access("file", X_OK), EACCES);
    CHECK_FAILS(access("missing", F_OK), ENOENT);
    if (shared) {
        CHECK_FAILS(chown("file", 12, 34), EPERM);
    } else {
        CHECK(chown("file", 12, 34) == 0 && stat("file", &now) == 0);
        CHECK(now.st_uid == 12 && now.st_gid == 34);
    }
    CHECK(statfs(".", &whole) == 0 && whole.f_bsize == 4096);
    if (!shared) {
        /* A mapping may be read: the host is not told. */
        int file = open("file", O_RDONLY);

        CHECK(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, file, 0) != MAP_FAILED);
        CHECK(stat("file", &now) == 0 && now.st_atim.tv_sec > 2000);
        close(file);
    }
    CHECK(unlink("file") == 0);
}

static void without_a_name(void)
{
    char text[5] = "";
    int file = open("gone", O_RDWR | O_CREAT, 0600);
    struct stat now;

    CHECK(write(file, "data", 4) == 4 && unlink("gone") == 0);
    CHECK(pread(file, text, 4, 0) == 4 && strcmp(text, "data") == 0);
    CHECK(fstat(file, &now) == 0 && now.st_nlink == 0);
    close(file);
    file = memfd_create("memory", MFD_CLOEXEC);
    CHECK(file >= 0 && ftruncate(file, 10000) == 0 && pwrite(file, "x", 1, 9999) == 1);
    CHECK(fcntl(file, F_GETFD) == FD_CLOEXEC);
    close(file);
}

int main(int argc, char **argv)
{
    shared = argc > 1 && strcmp(argv[1], "shared") == 0;
    check_begin();
    folders();
    many_entries();
    links();
    renaming();
    attributes();
    without_a_name();
    return check_end();
}
