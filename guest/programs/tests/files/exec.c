/* Starting programs: by path, by script, and what is refused. */
#include "check.h"

static char *self;

static void write_file(const char *name, const char *text, mode_t mode)
{
    int file = open(name, O_WRONLY | O_CREAT | O_TRUNC, mode);

    CHECK(file >= 0 && write(file, text, strlen(text)) == (ssize_t)strlen(text));
    close(file);
}

static void copy_self(const char *name)
{
    static char block[65536];
    int from = open(self, O_RDONLY), to = open(name, O_WRONLY | O_CREAT, 0755);
    ssize_t count;

    CHECK(from >= 0 && to >= 0);
    while ((count = read(from, block, sizeof block)) > 0)
        CHECK(write(to, block, (size_t)count) == count);
    close(from);
    close(to);
}

/* Exit status of a program that is started with these arguments. */
static int run(const char *path, char *const arguments[], char *const environment[])
{
    int status = -1;
    pid_t child = fork();

    if (child == 0) {
        execve(path, arguments, environment);
        _exit(100 + (errno < 100 ? errno : 0));
    }
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define RUN(path, ...) run(path, (char *[]){__VA_ARGS__, NULL}, (char *[]){"KEY=value", NULL})

/* What this program does when it starts itself. */
static int started(int count, char **arguments)
{
    const char *what = arguments[1];

    if (strcmp(what, "sum") == 0)
        return atoi(arguments[2]) + atoi(arguments[3]);
    if (strcmp(what, "environment") == 0)
        return strcmp(getenv("KEY"), "value") == 0 ? 33 : 1;
    if (strcmp(what, "descriptors") == 0)
        return (fcntl(40, F_GETFD) == 0) + 2 * (fcntl(41, F_GETFD) == -1);
    /* From a script: SELF script-argument ./script more… */
    if (strcmp(what, "from-script") == 0)
        return strcmp(arguments[2], "./script") == 0 && count == 4 ? 55 : 2;
    return 3;
}

int main(int count, char **arguments)
{
    char text[200];

    if (count > 1)
        return started(count, arguments);
    self = realpath(arguments[0], NULL);
    if (self == NULL)
        self = "/proc/self/exe";
    check_begin();
    copy_self("copy");
    CHECK(RUN("./copy", "copy", "sum", "20", "22") == 42);
    CHECK(RUN("copy", "any name", "environment") == 33);
    int open_file = open("copy", O_RDONLY);
    CHECK(dup2(open_file, 40) == 40 && dup3(open_file, 41, O_CLOEXEC) == 41);
    CHECK(RUN("./copy", "copy", "descriptors") == 3);

    CHECK(symlink("copy", "link") == 0);
    CHECK(RUN("./link", "link", "sum", "1", "2") == 3);
    getcwd(text, sizeof text - 60);
    char script[300];
    snprintf(script, sizeof script, "#! %s/copy  from-script \nrest of the script\n", text);
    write_file("script", script, 0755);
    CHECK(RUN("./script", "ignored", "extra") == 55);
    write_file("loop", "#!loop\n", 0755);
    CHECK(RUN("./loop", "loop") == 100 + ELOOP);
    write_file("no-interpreter", "#!/no/such/program\n", 0755);
    CHECK(RUN("./no-interpreter", "x") == 100 + ENOENT);
    write_file("text", "this is no program\n", 0755);
    CHECK(RUN("./text", "text") == 100 + ENOEXEC);
    write_file("not-executable", "", 0644);
    CHECK(RUN("./not-executable", "x") == 100 + EACCES);
    write_file("empty", "", 0755);
    CHECK(RUN("./empty", "x") == 100 + ENOEXEC);
    CHECK(RUN("./missing", "x") == 100 + ENOENT);
    CHECK(RUN("copy/below", "x") == 100 + ENOTDIR);
    CHECK(RUN("/tmp", "x") == 100 + EACCES);
    CHECK_FAILS(execve(check_nowhere, arguments, NULL), EFAULT);
    return check_end();
}
