/* Signals and processes that are files: signalfd and pidfd. */
#include "check.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif
#define MY_CLONE_PIDFD 0x1000
#define MY_CLONE_PARENT_SETTID 0x100000
#define MY_CLONE_THREAD 0x10000

static int pidfd_open(pid_t pid, unsigned flags)
{
    return syscall(SYS_pidfd_open, pid, flags);
}

static int pidfd_send(int file, int signal, siginfo_t *info, unsigned flags)
{
    return syscall(SYS_pidfd_send_signal, file, signal, info, flags);
}

static int ready(int file, int ms)
{
    struct pollfd poll_file = {.fd = file, .events = POLLIN};

    return poll(&poll_file, 1, ms);
}

static sigset_t set_of(int first, int second)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, first);
    if (second != 0)
        sigaddset(&set, second);
    return set;
}

static void signals_that_are_read(void)
{
    sigset_t both = set_of(SIGUSR1, SIGRTMIN), one = set_of(SIGUSR2, 0);
    struct signalfd_siginfo got[4];
    union sigval value = {.sival_int = 42};
    int file = signalfd(-1, &both, SFD_NONBLOCK | SFD_CLOEXEC);

    CHECK(file >= 0 && fcntl(file, F_GETFD) == FD_CLOEXEC);
    CHECK_FAILS(signalfd(-1, &both, 1), EINVAL);
    CHECK_FAILS(signalfd(0, &both, 0), EINVAL);
    CHECK_FAILS(signalfd(99, &both, 0), EBADF);
    CHECK_FAILS(syscall(SYS_signalfd4, -1, &both, 4, 0), EINVAL);
    CHECK_FAILS(syscall(SYS_signalfd4, -1, check_nowhere, 8, 0), EFAULT);
    CHECK(sigprocmask(SIG_BLOCK, &both, NULL) == 0);
    CHECK_FAILS(read(file, got, sizeof got), EAGAIN);
    CHECK_FAILS(read(file, got, 100), EINVAL);
    CHECK_FAILS(write(file, got, sizeof got), EINVAL);
    CHECK(ready(file, 0) == 0);
    CHECK(kill(getpid(), SIGUSR1) == 0 && ready(file, 0) == 1);
    CHECK(sigqueue(getpid(), SIGRTMIN, value) == 0 && sigqueue(getpid(), SIGRTMIN, value) == 0);
    CHECK(read(file, got, 2 * sizeof *got) == 2 * sizeof *got);
    CHECK(got[0].ssi_signo == SIGUSR1 && got[0].ssi_code == SI_USER);
    CHECK(got[0].ssi_pid == (unsigned)getpid() && got[0].ssi_uid == getuid());
    CHECK(got[1].ssi_signo == (unsigned)SIGRTMIN && got[1].ssi_code == SI_QUEUE);
    CHECK(got[1].ssi_int == 42 && got[1].ssi_pid == (unsigned)getpid());
    CHECK(read(file, got, sizeof got) == sizeof *got && got[0].ssi_int == 42);
    CHECK(ready(file, 0) == 0);
    /* Another set: what is pending and not in it stays. */
    CHECK(signalfd(file, &one, 0) == file);
    CHECK(kill(getpid(), SIGUSR1) == 0 && ready(file, 0) == 0);
    CHECK(signalfd(file, &both, 0) == file && ready(file, 0) == 1);
    CHECK(read(file, got, sizeof got) == sizeof *got);
    CHECK(sigprocmask(SIG_UNBLOCK, &both, NULL) == 0);
    close(file);
}

/* A reader sleeps until the signal comes: of a child, and in epoll. */
static void waiting_for_signals(void)
{
    sigset_t children = set_of(SIGCHLD, 0);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 9}, found;
    struct signalfd_siginfo got;
    int file, epoll = epoll_create1(0);
    pid_t child;

    CHECK(sigprocmask(SIG_BLOCK, &children, NULL) == 0);
    file = signalfd(-1, &children, 0);
    child = fork();
    if (child == 0) {
        usleep(50000);
        _exit(7);
    }
    CHECK(read(file, &got, sizeof got) == sizeof got);
    CHECK(got.ssi_signo == SIGCHLD && got.ssi_code == CLD_EXITED && got.ssi_status == 7);
    CHECK(got.ssi_pid == (unsigned)child && waitpid(child, NULL, 0) == child);
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, file, &event) == 0);
    child = fork();
    if (child == 0) {
        usleep(50000);
        _exit(0);
    }
    CHECK(epoll_wait(epoll, &found, 1, 5000) == 1 && found.data.u64 == 9);
    CHECK(read(file, &got, sizeof got) == sizeof got && got.ssi_pid == (unsigned)child);
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK(sigprocmask(SIG_UNBLOCK, &children, NULL) == 0);
    close(file);
    close(epoll);
}

static void processes_that_are_files(void)
{
    pid_t child = fork();
    siginfo_t info;
    int file, quick;

    if (child == 0) {
        pause();
        _exit(1);
    }
    file = pidfd_open(child, 0);
    quick = pidfd_open(child, O_NONBLOCK);
    CHECK(file >= 0 && fcntl(file, F_GETFD) == FD_CLOEXEC);
    CHECK(quick >= 0 && (fcntl(quick, F_GETFL) & O_NONBLOCK));
    CHECK_FAILS(pidfd_open(0, 0), EINVAL);
    CHECK_FAILS(pidfd_open(-1, 0), EINVAL);
    CHECK_FAILS(pidfd_open(child, 1), EINVAL);
    CHECK_FAILS(pidfd_open(1 << 22, 0), ESRCH);
    CHECK_FAILS(read(file, &info, 4), EINVAL);
    CHECK_FAILS(pidfd_send(0, SIGUSR1, NULL, 0), EBADF);
    CHECK_FAILS(pidfd_send(99, SIGUSR1, NULL, 0), EBADF);
    CHECK_FAILS(pidfd_send(file, 100, NULL, 0), EINVAL);
    CHECK_FAILS(pidfd_send(file, SIGUSR1, NULL, 0x100), EINVAL);
    memset(&info, 0, sizeof info);
    info.si_signo = SIGUSR1;
    CHECK_FAILS(pidfd_send(file, SIGUSR2, &info, 0), EINVAL);
    CHECK_FAILS(pidfd_send(file, SIGUSR1, &info, 0), EPERM);
    CHECK(pidfd_send(file, 0, NULL, 0) == 0 && ready(file, 0) == 0);
    CHECK_FAILS(waitid(P_PIDFD, quick, &info, WEXITED), EAGAIN);
    CHECK(waitid(P_PIDFD, quick, &info, WEXITED | WNOHANG) == 0);
    CHECK_FAILS(waitid(P_PIDFD, 0, &info, WEXITED), EBADF);
    CHECK(pidfd_send(file, SIGTERM, NULL, 0) == 0 && ready(file, 5000) == 1);
    CHECK(waitid(P_PIDFD, file, &info, WEXITED) == 0);
    CHECK(info.si_pid == child && info.si_code == CLD_KILLED && info.si_status == SIGTERM);
    CHECK(ready(file, 0) == 1);
    CHECK_FAILS(pidfd_send(file, 0, NULL, 0), ESRCH);
    CHECK_FAILS(waitid(P_PIDFD, file, &info, WEXITED), ECHILD);
    close(file);
    close(quick);
    /* One's own process never ends while one looks. */
    file = pidfd_open(getpid(), 0);
    CHECK(ready(file, 0) == 0 && pidfd_send(file, 0, NULL, 0) == 0);
    CHECK_FAILS(waitid(P_PIDFD, file, &info, WEXITED), ECHILD);
}

static void clone_gives_a_file(void)
{
    siginfo_t info;
    int file = -1;
    long child = syscall(SYS_clone, MY_CLONE_PIDFD | SIGCHLD, NULL, &file, NULL, NULL);

    if (child == 0)
        _exit(5);
    CHECK(child > 0 && file >= 0 && fcntl(file, F_GETFD) == FD_CLOEXEC);
    CHECK(waitid(P_PIDFD, file, &info, WEXITED) == 0 && info.si_status == 5);
    close(file);
    CHECK_FAILS(syscall(SYS_clone, MY_CLONE_PIDFD | MY_CLONE_PARENT_SETTID | SIGCHLD, NULL, &file,
                        NULL, NULL), EINVAL);
    CHECK_FAILS(syscall(SYS_clone, MY_CLONE_PIDFD | SIGCHLD, NULL, check_nowhere, NULL, NULL),
                EFAULT);
    CHECK_FAILS(waitid(P_ALL, 0, &info, WEXITED), ECHILD);
}

int main(void)
{
    check_begin();
    signals_that_are_read();
    waiting_for_signals();
    processes_that_are_files();
    clone_gives_a_file();
    return check_end();
}
