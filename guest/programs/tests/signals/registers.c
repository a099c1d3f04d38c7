/* A handler that comes at any moment changes no register of the program. */
#include "check.h"

#define UC_FP_XSTATE 1

static volatile int count;
static volatile unsigned control_inside;
/* The kernel says in the frame that it keeps more than x87 and SSE. */
static volatile bool keeps_extended;

static unsigned control(void)
{
    unsigned value;

    __asm__ volatile("stmxcsr %0" : "=m"(value));
    return value;
}

static void spoil(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)info;
    keeps_extended = ((ucontext_t *)context)->uc_flags & UC_FP_XSTATE;
    control_inside = control();
    __asm__ volatile("pcmpeqd %%xmm0, %%xmm0; pcmpeqd %%xmm7, %%xmm7; pcmpeqd %%xmm15, %%xmm15;"
                     "fninit; fldpi"
                     : : : "xmm0", "xmm7", "xmm15");
    if (keeps_extended && __builtin_cpu_supports("avx"))
        __asm__ volatile("vpxor %%xmm1, %%xmm1, %%xmm1; vcmpps $15, %%ymm1, %%ymm1, %%ymm0;"
                         "vmovaps %%ymm0, %%ymm7"
                         : : : "xmm0", "xmm1", "xmm7");
    count++;
}

/*
 * Fills registers, the red zone and the direction flag with known values, spins
 * until a handler has run, and compares. Returns what differs.
 */
static unsigned long spin(void)
{
    static volatile double pattern[4] __attribute__((aligned(32))) = {1.5, -2.25, 3.125, 4.0625};
    static double found[4] __attribute__((aligned(32)));
    unsigned long wrong = 0;
    int one = 0;
    int before = count;
    bool wide = keeps_extended && __builtin_cpu_supports("avx");

    if (wide) {
        __asm__ volatile("vmovapd %2, %%ymm7\n"
                         "1: cmp %0, %3\n"
                         "je 1b\n"
                         "vmovapd %%ymm7, %1\n"
                         "vzeroupper"
                         : "+r"(before), "=m"(found)
                         : "m"(pattern), "m"(count)
                         : "xmm7", "cc");
        for (int i = 0; i < 4; i++)
            wrong |= (unsigned long)(found[i] != pattern[i]) << i;
        before = count;
    }
    __asm__ volatile("movapd %[pattern], %%xmm15\n"
                     "movq $0x5a5a, -8(%%rsp)\n"
                     "movq $0x3c3c, -128(%%rsp)\n"
                     "mov $0x1111, %%r8\n mov $0x2222, %%r9\n mov $0x3333, %%r10\n"
                     "mov $0x4444, %%r11\n mov $0x5555, %%rcx\n mov $0x6666, %%rdx\n"
                     "fld1\n std\n"
                     "1: cmp %[before], %[count]\n"
                     "je 1b\n"
                     "pushfq\n pop %%rax\n"
                     "cld\n"
                     "fistpl %[one]\n"
                     "movapd %%xmm15, %[found]\n"
                     "xor $0x1111, %%r8\n or %%r8, %[wrong]\n"
                     "xor $0x2222, %%r9\n or %%r9, %[wrong]\n"
                     "xor $0x3333, %%r10\n or %%r10, %[wrong]\n"
                     "xor $0x4444, %%r11\n or %%r11, %[wrong]\n"
                     "xor $0x5555, %%rcx\n or %%rcx, %[wrong]\n"
                     "xor $0x6666, %%rdx\n or %%rdx, %[wrong]\n"
                     "movq -128(%%rsp), %%rcx\n xor $0x3c3c, %%rcx\n or %%rcx, %[wrong]\n"
                     "and $0x400, %%rax\n xor $0x400, %%rax\n or %%rax, %[wrong]\n"
                     : [wrong] "+r"(wrong), [one] "=m"(one), [found] "=m"(*(double(*)[2])&found[2])
                     : [before] "r"(before), [count] "m"(count), [pattern] "m"(pattern)
                     : "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "xmm15", "cc", "memory");
    wrong |= (unsigned long)(one != 1) << 16;
    wrong |= (unsigned long)(found[2] != pattern[0] || found[3] != pattern[1]) << 17;
    return wrong;
}

int main(void)
{
    struct itimerval timer = {{0, 40000}, {0, 40000}};
    unsigned own = 0x1f80 | 0x8000 | 0x0040 | 0x2000;
    int rounds = 8;

    /* ARCH_GET_CPUID: programs may ask the processor what it is. */
    CHECK_EQUAL(syscall(SYS_arch_prctl, 0x1011, 0), 1);
    handle(SIGALRM, spoil, 0);
    CHECK_EQUAL(raise(SIGALRM), 0);
    /* Flush to zero, denormals are zero, round down. */
    __asm__ volatile("ldmxcsr %0" : : "m"(own));
    CHECK_EQUAL(setitimer(ITIMER_REAL, &timer, NULL), 0);
    while (rounds--)
        CHECK_EQUAL(spin(), 0);
    /* Handlers start with the usual rounding. */
    CHECK_EQUAL(control_inside & ~0x3fU, 0x1f80);
    CHECK_EQUAL(control() & ~0x3fU, own);
    passed();
}
