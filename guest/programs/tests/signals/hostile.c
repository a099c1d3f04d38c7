/* Frames that make no sense end their process at most. */
#include "check.h"

#define STATUS_SEGV (128 + SIGSEGV)
#define EITHER (-1)

static int kind;

/* What rt_sigreturn gets to see, and how the process must end. */
static const struct {
    const char *what;
    int status;
} kinds[] = {
    {"as it was", 0},
    {"rip is not canonical", STATUS_SEGV},
    {"rip is the kernel's", STATUS_SEGV},
    /* A stack fault, SIGBUS; some emulators make it a protection fault. */
    {"rsp is not canonical", EITHER},
    {"flags of ring 0", 0},
    {"floating-point state at 1", STATUS_SEGV},
    {"floating-point state in the kernel", STATUS_SEGV},
    {"no floating-point state", 0},
    {"floating-point state of ones", EITHER},
    {"segments of ones", EITHER},
    {"alternate stack of ones", 0},
    {"mask of ones", 0},
};

static void spoil(int signal, siginfo_t *info, void *context)
{
    ucontext_t *user = context;
    greg_t *registers = user->uc_mcontext.gregs;

    (void)signal;
    (void)info;
    switch (kind) {
    case 1:
        registers[REG_RIP] = (greg_t)0x8000000000000000;
        break;
    case 2:
        registers[REG_RIP] = (greg_t)0xffffffff80200000;
        break;
    case 3:
        registers[REG_RSP] = (greg_t)0x8000000000000000;
        break;
    case 4:
        /* IOPL 3 and nested task; neither is the program's to set. */
        registers[REG_EFL] |= 0x7000;
        break;
    case 5:
        user->uc_mcontext.fpregs = (void *)1;
        break;
    case 6:
        user->uc_mcontext.fpregs = (void *)0xffffffff80200000;
        break;
    case 7:
        user->uc_mcontext.fpregs = NULL;
        break;
    case 8:
        memset(user->uc_mcontext.fpregs, 0xff, 512);
        break;
    case 9:
        registers[REG_CSGSFS] = -1;
        break;
    case 10:
        memset(&user->uc_stack, 0xff, sizeof user->uc_stack);
        break;
    case 11:
        memset(&user->uc_sigmask, 0xff, 8);
        break;
    }
}

static int shell_status(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* A child in which a handler of the given kind runs. */
static int after_handler(void)
{
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0) {
        handle(SIGUSR1, spoil, 0);
        raise(SIGUSR1);
        _exit(kind == 11 && (!is_blocked(SIGTERM) || is_blocked(SIGKILL)));
    }
    return shell_status(status_of(child));
}

/* rt_sigreturn without a frame. */
static int without_frame(unsigned long stack)
{
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0) {
        __asm__ volatile("mov %0, %%rsp; mov $15, %%eax; syscall; hlt" : : "r"(stack) : "memory");
        __builtin_unreachable();
    }
    return shell_status(status_of(child));
}

int main(void)
{
    static unsigned long noise[1024];
    unsigned long state = 88172645463325252;

    for (kind = 0; kind < (int)(sizeof kinds / sizeof *kinds); kind++) {
        int status = after_handler();

        if (kinds[kind].status != EITHER && status != kinds[kind].status) {
            say(kinds[kind].what);
            say(": ");
            CHECK_EQUAL(status, kinds[kind].status);
        }
    }
    CHECK_EQUAL(without_frame(0), STATUS_SEGV);
    CHECK_EQUAL(without_frame(0x8000000000000000), STATUS_SEGV);
    CHECK_EQUAL(without_frame(0xffffffff80200000), STATUS_SEGV);
    for (int round = 0; round < 10; round++) {
        for (unsigned i = 0; i < sizeof noise / sizeof *noise; i++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            noise[i] = state;
        }
        /* The state's address makes sense, what is there does not. */
        noise[28 - 1] = (unsigned long)(noise + 512);
        CHECK(without_frame((unsigned long)noise) > 128);
    }
    passed();
}
