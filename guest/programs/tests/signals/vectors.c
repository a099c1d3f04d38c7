/*
 * Vector registers belong to their thread, whatever interrupts it: two threads
 * and a child process keep different values in all of them while they take the
 * processor from each other, and a handler that spoils them runs again and again.
 */
#include "check.h"

#include <pthread.h>
#include <sys/wait.h>

#define SECONDS 1.5

static volatile unsigned long handled;

static void spoil(int signal)
{
    (void)signal;
    __asm__ volatile("pcmpeqd %%xmm0, %%xmm0; pcmpeqd %%xmm15, %%xmm15" : : : "xmm0", "xmm15");
    if (__builtin_cpu_supports("avx"))
        __asm__ volatile("vpxor %%xmm1, %%xmm1, %%xmm1; vcmpps $15, %%ymm1, %%ymm1, %%ymm0;"
                         "vmovaps %%ymm0, %%ymm7; vmovaps %%ymm0, %%ymm15"
                         : : : "xmm0", "xmm1", "xmm7", "xmm15");
    handled++;
}

/* Fills ymm0 and ymm15, keeps them for many rounds, and compares. */
static void keep_avx(const unsigned long *pattern)
{
    unsigned long found[8] __attribute__((aligned(32)));
    long rounds = 200000;

    __asm__ volatile("vmovdqu (%2), %%ymm0; vmovdqu 32(%2), %%ymm15;"
                     "1: dec %0; jnz 1b;"
                     "vmovdqu %%ymm0, (%1); vmovdqu %%ymm15, 32(%1); vzeroupper"
                     : "+r"(rounds)
                     : "r"(found), "r"(pattern)
                     : "xmm0", "xmm15", "memory", "cc");
    CHECK(memcmp(found, pattern, sizeof(found)) == 0);
}

/* The same with zmm16, zmm31 and k3, which came later. */
static void keep_avx512(const unsigned long *pattern)
{
    unsigned long found[17] __attribute__((aligned(64)));
    long rounds = 200000;

    __asm__ volatile("vmovdqu64 (%2), %%zmm16; vmovdqu64 64(%2), %%zmm31; kmovq 128(%2), %%k3;"
                     "1: dec %0; jnz 1b;"
                     "vmovdqu64 %%zmm16, (%1); vmovdqu64 %%zmm31, 64(%1); kmovq %%k3, 128(%1)"
                     : "+r"(rounds)
                     : "r"(found), "r"(pattern)
                     : "memory", "cc");
    CHECK(memcmp(found, pattern, sizeof(found)) == 0);
}

static void keep_sse(const unsigned long *pattern)
{
    unsigned long found[4] __attribute__((aligned(16)));
    long rounds = 200000;

    __asm__ volatile("movdqu (%2), %%xmm0; movdqu 16(%2), %%xmm15;"
                     "1: dec %0; jnz 1b;"
                     "movdqu %%xmm0, (%1); movdqu %%xmm15, 16(%1)"
                     : "+r"(rounds)
                     : "r"(found), "r"(pattern)
                     : "xmm0", "xmm15", "memory", "cc");
    CHECK(memcmp(found, pattern, sizeof(found)) == 0);
}

static double now(void)
{
    struct timespec time;

    CHECK_EQUAL(clock_gettime(CLOCK_MONOTONIC, &time), 0);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void *keep(void *seed)
{
    unsigned long pattern[17];
    double end = now() + SECONDS;

    for (unsigned long i = 0; i < 17; i++)
        pattern[i] = ((unsigned long)seed + i) * 0x9e3779b97f4a7c15UL | 1;
    while (now() < end) {
        if (__builtin_cpu_supports("avx512bw"))
            keep_avx512(pattern);
        if (__builtin_cpu_supports("avx"))
            keep_avx(pattern);
        keep_sse(pattern);
    }
    return NULL;
}

int main(void)
{
    struct itimerval timer = {{0, 20000}, {0, 20000}};
    pthread_t other;
    pid_t child;
    int status;

    handle(SIGALRM, (void *)spoil, SA_RESTART);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        keep((void *)1000);
        _exit(42);
    }
    CHECK_EQUAL(pthread_create(&other, NULL, keep, (void *)2000), 0);
    CHECK_EQUAL(setitimer(ITIMER_REAL, &timer, NULL), 0);
    keep((void *)3000);
    CHECK_EQUAL(pthread_join(other, NULL), 0);
    CHECK_EQUAL(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
    CHECK(handled > 10);
    passed();
}
