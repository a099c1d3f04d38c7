/* What is blocked when: handlers, siglongjmp, sigsuspend, what is ignored. */
#include "check.h"

static volatile int count, depth, deepest, order, first, second;
static sigjmp_buf out;

static void counting(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)info;
    (void)context;
    count++;
}

static void deepening(int signal, siginfo_t *info, void *context)
{
    (void)info;
    (void)context;
    count++;
    depth++;
    if (depth > deepest)
        deepest = depth;
    if (count < 3)
        raise(signal);
    depth--;
}

static void ordered(int signal, siginfo_t *info, void *context)
{
    (void)info;
    (void)context;
    order++;
    if (signal == SIGUSR1)
        first = order;
    else
        second = order;
}

static void blocking_check(int signal, siginfo_t *info, void *context)
{
    ucontext_t *user = context;

    (void)info;
    CHECK(is_blocked(signal));
    CHECK(is_blocked(SIGUSR2));
    CHECK(!is_blocked(SIGHUP));
    CHECK(!sigismember(&user->uc_sigmask, signal));
    /* What the handler changes in the frame counts afterwards. */
    sigaddset(&user->uc_sigmask, SIGHUP);
    count++;
}

static void jump(int signal, siginfo_t *info, void *context)
{
    (void)info;
    (void)context;
    CHECK(is_blocked(signal));
    siglongjmp(out, 7);
}

static void handlers(void)
{
    struct sigaction action = {.sa_sigaction = blocking_check, .sa_flags = SA_SIGINFO}, seen;

    sigemptyset(&action.sa_mask);
    sigaddset(&action.sa_mask, SIGUSR2);
    sigaddset(&action.sa_mask, SIGKILL);
    CHECK_EQUAL(sigaction(SIGUSR1, &action, NULL), 0);
    CHECK_EQUAL(sigaction(SIGUSR1, NULL, &seen), 0);
    CHECK(seen.sa_sigaction == blocking_check);
    CHECK(sigismember(&seen.sa_mask, SIGUSR2) && !sigismember(&seen.sa_mask, SIGKILL));
    count = 0;
    raise(SIGUSR1);
    CHECK_EQUAL(count, 1);
    CHECK(!is_blocked(SIGUSR1) && !is_blocked(SIGUSR2) && is_blocked(SIGHUP));
    unblock(SIGHUP);

    /* Sent while it is handled, a signal waits; with SA_NODEFER it nests. */
    handle(SIGUSR1, deepening, 0);
    count = deepest = 0;
    raise(SIGUSR1);
    CHECK_EQUAL(count, 3);
    CHECK_EQUAL(deepest, 1);
    handle(SIGUSR1, deepening, SA_NODEFER);
    count = deepest = 0;
    raise(SIGUSR1);
    CHECK_EQUAL(count, 3);
    CHECK_EQUAL(deepest, 3);

    handle(SIGUSR1, counting, SA_RESETHAND);
    count = 0;
    raise(SIGUSR1);
    CHECK_EQUAL(count, 1);
    CHECK_EQUAL(sigaction(SIGUSR1, NULL, &seen), 0);
    CHECK(seen.sa_handler == SIG_DFL);
    CHECK((seen.sa_flags & (SA_SIGINFO | (int)SA_RESETHAND)) == (SA_SIGINFO | (int)SA_RESETHAND));

    handle(SIGUSR1, jump, 0);
    CHECK_EQUAL(sigsetjmp(out, 1) ? 7 : raise(SIGUSR1), 7);
    CHECK(!is_blocked(SIGUSR1));
}

static void blocked(void)
{
    sigset_t none = set_of(0), set;
    siginfo_t info;
    struct timespec no_time = {0, 0};

    handle(SIGUSR1, counting, 0);
    count = 0;
    block(SIGUSR1);
    raise(SIGUSR1);
    kill(getpid(), SIGUSR1);
    CHECK(is_pending(SIGUSR1) && !is_pending(SIGUSR2));
    CHECK_EQUAL(count, 0);
    unblock(SIGUSR1);
    /* Once for the thread, once for the process. */
    CHECK_EQUAL(count, 2);

    block(SIGUSR1);
    raise(SIGUSR1);
    raise(SIGUSR1);
    count = 0;
    errno = 0;
    CHECK(sigsuspend(&none) < 0 && errno == EINTR);
    CHECK_EQUAL(count, 1);
    CHECK(is_blocked(SIGUSR1) && !is_pending(SIGUSR1));

    /* Both are pending: the lower number is taken first, so it runs last. */
    handle(SIGUSR1, ordered, 0);
    handle(SIGUSR2, ordered, 0);
    block(SIGUSR2);
    raise(SIGUSR2);
    raise(SIGUSR1);
    CHECK_EQUAL(sigprocmask(SIG_SETMASK, &none, NULL), 0);
    CHECK(first == 2 && second == 1);

    /* To ignore a signal forgets it. */
    block(SIGUSR1);
    raise(SIGUSR1);
    signal(SIGUSR1, SIG_IGN);
    CHECK(!is_pending(SIGUSR1));
    /* But blocked and ignored, it is kept for sigwait. */
    raise(SIGUSR1);
    CHECK(is_pending(SIGUSR1));
    set = set_of(SIGUSR1);
    CHECK_EQUAL(sigtimedwait(&set, &info, &no_time), SIGUSR1);
    CHECK(sigtimedwait(&set, &info, &no_time) < 0 && errno == EAGAIN);
    signal(SIGUSR1, SIG_DFL);
    unblock(SIGUSR1);
}

static void errors(void)
{
    struct sigaction action = {.sa_handler = SIG_IGN};

    CHECK(sigaction(SIGKILL, &action, NULL) < 0 && errno == EINVAL);
    CHECK(sigaction(SIGSTOP, &action, NULL) < 0 && errno == EINVAL);
    CHECK(kill(getpid(), 65) < 0 && errno == EINVAL);
    CHECK(kill(999999, 0) < 0 && errno == ESRCH);
    CHECK(syscall(SYS_tgkill, getpid(), 999999, 0) < 0 && errno == ESRCH);
    CHECK(syscall(SYS_tgkill, getpid(), -1, 0) < 0 && errno == EINVAL);
    CHECK_EQUAL(kill(getpid(), 0), 0);
    CHECK(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, NULL, 4) < 0 && errno == EINVAL);
    CHECK(syscall(SYS_rt_sigprocmask, SIG_BLOCK, 16, NULL, 8) < 0 && errno == EFAULT);
    CHECK(syscall(SYS_rt_sigprocmask, 77, &action.sa_mask, NULL, 8) < 0 && errno == EINVAL);
    block(SIGKILL);
    CHECK(!is_blocked(SIGKILL));
}

int main(void)
{
    handlers();
    blocked();
    errors();
    passed();
}
