/* Children, process groups, stopping and going on, and what SIGCHLD says. */
#include "check.h"

#include <fcntl.h>

static volatile int count;
static siginfo_t last;

static void note(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)context;
    last = *info;
    count++;
}

static void wait_until(volatile int *what, int value)
{
    long start = now_ms();

    while (*what != value) {
        CHECK(now_ms() - start < 5000);
        sched_yield();
    }
}

static pid_t sleeper(void)
{
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0)
        for (;;)
            pause();
    return child;
}

/* What /proc shows as the state of a process, 0 if nothing. */
static char state_of(pid_t pid)
{
    char text[128] = "/proc/";
    char digits[12], *at = digits + sizeof digits, *name;
    int file;

    for (*--at = 0; pid > 0; pid /= 10)
        *--at = (char)('0' + pid % 10);
    strcat(strcat(text, at), "/stat");
    file = open(text, O_RDONLY);
    if (file < 0)
        return 0;
    memset(text, 0, sizeof text);
    CHECK(read(file, text, sizeof text - 1) > 0);
    close(file);
    name = strrchr(text, ')');
    return name == NULL ? 0 : name[2];
}

static void shows_until_waited_for(void)
{
    siginfo_t info;
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0)
        _exit(3);
    CHECK_EQUAL(waitid(P_PID, child, &info, WEXITED | WNOWAIT), 0);
    CHECK_EQUAL(state_of(child), 'Z');
    CHECK(state_of(1) != 0 && state_of(getpid()) == 'R');
    CHECK_EQUAL(WEXITSTATUS(status_of(child)), 3);
    CHECK_EQUAL(state_of(child), 0);
}

static void ends(void)
{
    int status;
    pid_t child;

    handle(SIGCHLD, note, SA_RESTART);
    count = 0;
    child = fork();
    CHECK(child >= 0);
    if (child == 0)
        _exit(42);
    status = status_of(child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
    wait_until(&count, 1);
    CHECK(last.si_code == CLD_EXITED && last.si_pid == child && last.si_status == 42);

    for (int signal = 1; signal < 32; signal++) {
        if (signal == SIGCHLD || signal == SIGURG || signal == SIGWINCH || signal == SIGCONT
            || signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU)
            continue;
        count = 0;
        child = sleeper();
        CHECK_EQUAL(kill(child, signal), 0);
        status = status_of(child);
        CHECK(WIFSIGNALED(status));
        CHECK_EQUAL(WTERMSIG(status), signal);
        CHECK_EQUAL(last.si_status, signal);
        CHECK(last.si_code == CLD_KILLED || last.si_code == CLD_DUMPED);
    }
}

static void stops(void)
{
    static const int stopping[] = {SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU};
    int status;
    siginfo_t info;

    for (unsigned i = 0; i < 4; i++) {
        pid_t child = sleeper();

        count = 0;
        /* A group of its own that is not orphaned: this process is its parent. */
        CHECK_EQUAL(setpgid(child, child), 0);
        CHECK_EQUAL(kill(child, stopping[i]), 0);
        CHECK_EQUAL(waitpid(child, &status, WUNTRACED), child);
        CHECK(WIFSTOPPED(status));
        CHECK_EQUAL(WSTOPSIG(status), stopping[i]);
        wait_until(&count, 1);
        CHECK(last.si_code == CLD_STOPPED && last.si_pid == child);
        CHECK_EQUAL(last.si_status, stopping[i]);
        CHECK_EQUAL(waitpid(child, &status, WUNTRACED | WNOHANG), 0);
        /* A signal waits until it goes on. */
        CHECK_EQUAL(kill(child, SIGTERM), 0);
        CHECK_EQUAL(waitpid(child, &status, WNOHANG), 0);
        CHECK_EQUAL(kill(child, SIGCONT), 0);
        status = status_of(child);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    }

    pid_t child = sleeper();
    CHECK_EQUAL(kill(child, SIGSTOP), 0);
    CHECK_EQUAL(waitid(P_PID, (id_t)child, &info, WSTOPPED | WNOWAIT), 0);
    CHECK(info.si_code == CLD_STOPPED && info.si_status == SIGSTOP);
    CHECK_EQUAL(waitid(P_PID, (id_t)child, &info, WSTOPPED), 0);
    CHECK_EQUAL(kill(child, SIGCONT), 0);
    CHECK_EQUAL(waitpid(child, &status, WCONTINUED), child);
    CHECK(WIFCONTINUED(status));
    CHECK_EQUAL(kill(child, SIGSTOP), 0);
    CHECK_EQUAL(waitpid(child, &status, WUNTRACED), child);
    CHECK_EQUAL(kill(child, SIGKILL), 0);
    status = status_of(child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

    /* With SA_NOCLDSTOP only the end is told. */
    handle(SIGCHLD, note, SA_NOCLDSTOP | SA_RESTART);
    count = 0;
    child = sleeper();
    CHECK_EQUAL(kill(child, SIGSTOP), 0);
    CHECK_EQUAL(waitpid(child, &status, WUNTRACED), child);
    CHECK_EQUAL(kill(child, SIGCONT), 0);
    CHECK_EQUAL(waitpid(child, &status, WCONTINUED), child);
    CHECK_EQUAL(count, 0);
    CHECK_EQUAL(kill(child, SIGKILL), 0);
    status_of(child);
    CHECK_EQUAL(count, 1);
}

static void vanishing(void)
{
    for (int round = 0; round < 2; round++) {
        pid_t child;

        count = 0;
        if (round == 0)
            signal(SIGCHLD, SIG_IGN);
        else
            handle(SIGCHLD, note, SA_NOCLDWAIT | SA_RESTART);
        child = fork();
        CHECK(child >= 0);
        if (child == 0)
            _exit(0);
        CHECK(waitpid(child, NULL, 0) < 0 && errno == ECHILD);
        CHECK_EQUAL(count, round);
        CHECK(kill(child, 0) < 0 && errno == ESRCH);
    }
    signal(SIGCHLD, SIG_DFL);
}

static void groups(void)
{
    pid_t children[3], group = 0;
    int status;

    for (int i = 0; i < 3; i++) {
        children[i] = sleeper();
        group = children[0];
        CHECK_EQUAL(setpgid(children[i], group), 0);
    }
    CHECK_EQUAL(kill(-group, 0), 0);
    CHECK_EQUAL(kill(-group, SIGUSR2), 0);
    for (int i = 0; i < 3; i++) {
        CHECK(waitpid(-group, &status, 0) > 0);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR2);
    }
    CHECK(kill(-group, 0) < 0 && errno == ESRCH);

    /* kill(0, …) is for one's own group. */
    pid_t leader = fork();
    CHECK(leader >= 0);
    if (leader == 0) {
        CHECK_EQUAL(setpgid(0, 0), 0);
        pid_t other = sleeper();
        signal(SIGUSR1, SIG_IGN);
        CHECK_EQUAL(kill(0, SIGUSR1), 0);
        status = status_of(other);
        _exit(WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1 ? 0 : 1);
    }
    CHECK_EQUAL(status_of(leader), 0);
}

/* A stopped group whose last outside parent ends gets SIGHUP and SIGCONT. */
static void orphans(void)
{
    volatile int *state = shared(4096);
    pid_t parent = fork();

    CHECK(parent >= 0);
    if (parent == 0) {
        pid_t child = fork();

        if (child == 0) {
            setpgid(0, 0);
            count = 0;
            handle(SIGHUP, note, 0);
            handle(SIGCONT, note, 0);
            state[0] = 1;
            raise(SIGSTOP);
            while (count < 2)
                sched_yield();
            /* Nobody could make it go on: SIGTSTP does nothing now. */
            raise(SIGTSTP);
            state[0] = 3;
            _exit(0);
        }
        wait_until(&state[0], 1);
        CHECK_EQUAL(waitpid(child, NULL, WUNTRACED), child);
        state[0] = 2;
        _exit(0);
    }
    CHECK_EQUAL(status_of(parent), 0);
    wait_until(&state[0], 3);
}

int main(void)
{
    shows_until_waited_for();
    ends();
    stops();
    vanishing();
    groups();
    orphans();
    passed();
}
