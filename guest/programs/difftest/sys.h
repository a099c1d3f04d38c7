/*
 * System calls without a C library. A result between -4095 and -1 is an
 * errno, negated.
 *
 * difftest does without a C library so that nothing but the operations under
 * test maps memory, moves the break or takes page faults.
 */
#ifndef SYS_H
#define SYS_H

#include <asm/unistd.h>
#include <stddef.h>
#include <stdint.h>

static inline long sys6(long number, long a, long b, long c, long d, long e, long f)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static inline long sys3(long number, long a, long b, long c)
{
    return sys6(number, a, b, c, 0, 0, 0);
}

static inline _Noreturn void sys_exit(int status)
{
    for (;;)
        sys3(__NR_exit_group, status, 0, 0);
}

#endif
