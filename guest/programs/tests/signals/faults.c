/* Faults become signals with the right code and address, and cannot be hidden. */
#include "check.h"

static sigjmp_buf out;
static volatile int signal_seen, code_seen, context_ok;
static void *volatile address_seen;

static void note(int signal, siginfo_t *info, void *context)
{
    ucontext_t *user = context;

    signal_seen = signal;
    code_seen = info->si_code;
    address_seen = info->si_addr;
    context_ok = info->si_signo == signal;
    if (signal == SIGSEGV && info->si_code > 0 && info->si_code < SI_KERNEL)
        context_ok = context_ok && user->uc_mcontext.gregs[REG_CR2] == (greg_t)info->si_addr
            && user->uc_mcontext.gregs[REG_TRAPNO] == 14;
    siglongjmp(out, 1);
}

#define EXPECT(signal, code, address, what)             \
    do {                                                \
        signal_seen = 0;                                \
        if (!sigsetjmp(out, 1)) {                       \
            what;                                       \
            CHECK(!"the fault did not come: " #what);   \
        }                                               \
        CHECK_EQUAL(signal_seen, signal);               \
        CHECK_EQUAL(code_seen, code);                   \
        CHECK_EQUAL(address_seen, address);             \
        CHECK(context_ok);                              \
    } while (0)

static void skip_instruction(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)info;
    /* ud2 has two bytes. */
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}

static void addresses(void)
{
    char *page = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    volatile char *volatile at = page;

    CHECK(page != MAP_FAILED);
    CHECK_EQUAL(munmap(page + 4096, 4096), 0);
    handle(SIGSEGV, note, 0);
    handle(SIGFPE, note, 0);
    handle(SIGILL, note, 0);
    handle(SIGTRAP, note, 0);
    EXPECT(SIGSEGV, SEGV_ACCERR, page + 7, at[7] = 1);
    EXPECT(SIGSEGV, SEGV_MAPERR, page + 4099, at[4099] = 1);
    EXPECT(SIGSEGV, SEGV_MAPERR, page + 4099, (void)at[4099]);
    EXPECT(SIGSEGV, SEGV_MAPERR, 0, *(volatile char *volatile)NULL = 1);
    CHECK_EQUAL(mprotect(page, 4096, PROT_NONE), 0);
    EXPECT(SIGSEGV, SEGV_ACCERR, page, (void)*at);
    /* An address that is not canonical has no page: the kernel cannot say more. */
    EXPECT(SIGSEGV, SI_KERNEL, 0, *(volatile char *volatile)0x8000000000000000 = 1);
    EXPECT(SIGTRAP, SI_KERNEL, 0, __asm__ volatile("int3"));
    signal_seen = 0;
    if (!sigsetjmp(out, 1)) {
        /* The compiler would not divide. */
        __asm__ volatile("xor %%ecx, %%ecx; mov $1, %%eax; cltd; idivl %%ecx"
                         : : : "eax", "ecx", "edx", "cc");
        CHECK(!"a division by zero went well");
    }
    CHECK_EQUAL(signal_seen, SIGFPE);
    CHECK_EQUAL(code_seen, FPE_INTDIV);
    CHECK(address_seen != NULL);
}

static void behind_a_file(void)
{
    int file = (int)syscall(SYS_memfd_create, "faults", 0);
    volatile char *at;

    CHECK(file >= 0);
    CHECK_EQUAL(ftruncate(file, 100), 0);
    at = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    CHECK(at != MAP_FAILED);
    handle(SIGBUS, note, 0);
    at[4095] = 1;
    EXPECT(SIGBUS, BUS_ADRERR, at + 4096 + 5, at[4096 + 5] = 1);
    EXPECT(SIGBUS, BUS_ADRERR, at + 4096 + 6, (void)at[4096 + 6]);
}

static void floating_point(void)
{
    unsigned control = 0x1f80 & ~0x200U;
    unsigned short word = 0x37f & ~4;
    volatile double zero = 0;

    signal_seen = 0;
    if (!sigsetjmp(out, 1)) {
        __asm__ volatile("ldmxcsr %0" : : "m"(control));
        zero = 1 / zero;
        /* The division went through: an emulated processor that raises no
         * such exceptions. A kernel could not get us here. */
        signal_seen = SIGFPE;
        code_seen = FPE_FLTDIV;
    }
    CHECK_EQUAL(signal_seen, SIGFPE);
    CHECK_EQUAL(code_seen, FPE_FLTDIV);
    signal_seen = 0;
    if (!sigsetjmp(out, 1)) {
        __asm__ volatile("fninit; fldcw %0; fld1; fldz; fdivrp; fwait" : : "m"(word));
        CHECK(!"the x87 divided by zero");
    }
    CHECK_EQUAL(signal_seen, SIGFPE);
    CHECK_EQUAL(code_seen, FPE_FLTDIV);
    __asm__ volatile("fninit");
}

static void going_on(void)
{
    handle(SIGILL, skip_instruction, 0);
    __asm__ volatile("ud2");
}

/* A fault whose signal is blocked or ignored ends the process. */
static void cannot_be_hidden(void)
{
    for (int ignore = 0; ignore < 2; ignore++) {
        pid_t child = fork();
        int status;

        CHECK(child >= 0);
        if (child == 0) {
            if (ignore)
                signal(SIGSEGV, SIG_IGN);
            else
                block(SIGSEGV);
            *(volatile char *volatile)NULL = 1;
            _exit(0);
        }
        status = status_of(child);
        CHECK(WIFSIGNALED(status));
        CHECK_EQUAL(WTERMSIG(status), SIGSEGV);
    }
}

/* An ignored SIGSEGV that somebody sends is just ignored. */
static void sent(void)
{
    signal(SIGSEGV, SIG_IGN);
    CHECK_EQUAL(raise(SIGSEGV), 0);
    signal(SIGSEGV, SIG_DFL);
}

int main(void)
{
    addresses();
    behind_a_file();
    floating_point();
    going_on();
    cannot_be_hidden();
    sent();
    passed();
}
