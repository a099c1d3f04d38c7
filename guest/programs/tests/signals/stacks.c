/* Alternate stacks: overflow of the normal one, nesting, what sigaltstack says. */
#include "check.h"
#include <sys/resource.h>

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif

#define SIZE 65536

static char *area;
static sigjmp_buf out;
static volatile int depth, ran, code;
static volatile int flags_inside, error_inside;

static bool on_area(const void *pointer)
{
    return (const char *)pointer >= area && (const char *)pointer < area + SIZE;
}

static void overflown(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)context;
    code = info->si_code;
    ran = on_area(&signal) ? 1 : -1;
    siglongjmp(out, 1);
}

static volatile int endless = 1;

static int recurse(int level)
{
    volatile char page[4096];

    page[0] = (char)level;
    return endless ? recurse(level + 1) + page[0] : 0;
}

static void inspect(int signal, siginfo_t *info, void *context)
{
    stack_t now, other = {.ss_sp = area, .ss_size = SIZE, .ss_flags = (int)SS_AUTODISARM};

    (void)signal;
    (void)info;
    ran = on_area(&now) ? 1 : -1;
    CHECK_EQUAL(sigaltstack(NULL, &now), 0);
    flags_inside = (int)now.ss_flags;
    errno = 0;
    sigaltstack(&other, NULL);
    error_inside = errno;
    CHECK(((ucontext_t *)context)->uc_stack.ss_sp == area);
}

static void nested(int signal, siginfo_t *info, void *context)
{
    (void)info;
    (void)context;
    CHECK(on_area(&signal));
    CHECK_EQUAL((uintptr_t)__builtin_frame_address(0) % 16, 0);
    if (++depth < 3)
        raise(signal);
}

static void plain(int signal, siginfo_t *info, void *context)
{
    (void)info;
    (void)context;
    ran = on_area(&signal) ? -1 : 1;
}

static void too_small(void)
{
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0) {
        /* The frame does not fit: SIGSEGV, which finds no better place. */
        stack_t tiny = {.ss_sp = area, .ss_size = SIZE};
        CHECK_EQUAL(munmap(area, SIZE), 0);
        CHECK_EQUAL(sigaltstack(&tiny, NULL), 0);
        handle(SIGUSR1, plain, SA_ONSTACK);
        raise(SIGUSR1);
        _exit(0);
    }
    int status = status_of(child);
    CHECK(WIFSIGNALED(status));
    CHECK_EQUAL(WTERMSIG(status), SIGSEGV);
}

int main(void)
{
    stack_t stack = {0}, seen;
    struct rlimit limit;

    area = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(area != MAP_FAILED);
    CHECK_EQUAL(sigaltstack(NULL, &seen), 0);
    CHECK_EQUAL(seen.ss_flags, SS_DISABLE);
    stack.ss_sp = area;
    stack.ss_size = 100;
    CHECK(sigaltstack(&stack, NULL) < 0 && errno == ENOMEM);
    stack.ss_size = SIZE;
    stack.ss_flags = 64;
    CHECK(sigaltstack(&stack, NULL) < 0 && errno == EINVAL);
    stack.ss_flags = 0;
    CHECK_EQUAL(sigaltstack(&stack, &seen), 0);
    CHECK_EQUAL(sigaltstack(NULL, &seen), 0);
    CHECK(seen.ss_flags == 0 && seen.ss_sp == area && seen.ss_size == SIZE);

    handle(SIGUSR1, inspect, SA_ONSTACK);
    raise(SIGUSR1);
    CHECK_EQUAL(ran, 1);
    CHECK_EQUAL(flags_inside, SS_ONSTACK);
    CHECK_EQUAL(error_inside, EPERM);

    handle(SIGUSR1, nested, SA_ONSTACK | SA_NODEFER);
    raise(SIGUSR1);
    CHECK_EQUAL(depth, 3);

    handle(SIGUSR1, plain, 0);
    ran = 0;
    raise(SIGUSR1);
    CHECK_EQUAL(ran, 1);

    /* One that is taken away while it is used, and comes back. */
    stack.ss_flags = (int)SS_AUTODISARM;
    CHECK_EQUAL(sigaltstack(&stack, NULL), 0);
    handle(SIGUSR1, inspect, SA_ONSTACK);
    ran = 0;
    raise(SIGUSR1);
    CHECK_EQUAL(ran, 1);
    CHECK_EQUAL(flags_inside, SS_DISABLE);
    CHECK_EQUAL(error_inside, 0);
    CHECK_EQUAL(sigaltstack(NULL, &seen), 0);
    CHECK(seen.ss_sp == area && seen.ss_flags == (int)SS_AUTODISARM);

    stack.ss_flags = 0;
    CHECK_EQUAL(sigaltstack(&stack, NULL), 0);
    getrlimit(RLIMIT_STACK, &limit);
    if (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > (8 << 20)) {
        limit.rlim_cur = 8 << 20;
        CHECK_EQUAL(setrlimit(RLIMIT_STACK, &limit), 0);
    }
    handle(SIGSEGV, overflown, SA_ONSTACK);
    for (int round = 0; round < 2; round++) {
        ran = 0;
        if (!sigsetjmp(out, 1))
            recurse(0);
        CHECK_EQUAL(ran, 1);
        CHECK(code == SEGV_MAPERR || code == SEGV_ACCERR);
    }
    too_small();
    passed();
}
