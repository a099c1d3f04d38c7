/*
 * Restartable sequences: one that is interrupted, by another thread's turn or by
 * a signal, goes on at its abort address; wrong ones end the program.
 */
#include "../signals/check.h"

#include <sys/wait.h>

#ifdef __GLIBC__
#include <sys/rseq.h>
#endif

#define SIGNATURE 0x53053053
#define UNREGISTER 1

struct record {
    uint32_t cpu_at_start;
    uint32_t cpu;
    uint64_t sequence;
    uint32_t flags, node, memory_map, reserved;
} __attribute__((aligned(32)));

struct sequence {
    uint32_t version, flags;
    uint64_t start, length, abort;
} __attribute__((aligned(32)));

static struct record own, other;
static volatile int handled;

static long registration(void *record, unsigned length, int flags, unsigned signature)
{
    return syscall(SYS_rseq, record, length, flags, signature);
}

/* The record of this thread: the C library's, if it has one, or our own. */
static struct record *registered(void)
{
#ifdef __GLIBC__
    if (__rseq_size)
        return (struct record *)((char *)__builtin_thread_pointer() + __rseq_offset);
#endif
    return &own;
}

/* Goes round inside a sequence until something comes between; says how often. */
static unsigned long go_round(struct record *record)
{
    unsigned long rounds = 0;

    __asm__ volatile(".pushsection .data, \"aw\"\n"
                     ".balign 32\n"
                     "9: .long 0, 0; .quad 1f, 2f - 1f, 4f\n"
                     ".popsection\n"
                     "lea 9b(%%rip), %%rax\n"
                     "mov %%rax, 8(%1)\n"
                     "1: inc %0\n"
                     "jmp 1b\n"
                     "2: ud2\n"
                     ".long 0x53053053\n"
                     "4:\n"
                     : "+r"(rounds)
                     : "r"(record)
                     : "rax", "memory", "cc");
    return rounds;
}

static void handler(int signal, siginfo_t *information, void *context)
{
    (void)signal, (void)information, (void)context;
    handled++;
}

static void errors(struct record *record)
{
    CHECK(registration(record, 32, 0, SIGNATURE) < 0 && errno == EBUSY);
    CHECK(registration(record, 32, 0, 1) < 0 && errno == EPERM);
    CHECK(registration(&other, 32, 0, SIGNATURE) < 0 && errno == EINVAL);
    CHECK(registration(&other, 32, UNREGISTER, SIGNATURE) < 0 && errno == EINVAL);
    CHECK(registration(record, 32, UNREGISTER, 1) < 0 && errno == EPERM);
    CHECK(registration(record, 32, 2, SIGNATURE) < 0 && errno == EINVAL);
}

/* A child whose record points to `sequence`: how it ends when its turn is over, or
 * by SIGTERM if it goes on. */
static int status_with(struct record *record, uint64_t sequence, bool goes_on)
{
    pid_t child = fork();
    int status;

    if (child == 0) {
        volatile unsigned long rounds = 0;

        /* Nobody else reads it, for all the compiler knows. */
        *(volatile uint64_t *)&record->sequence = sequence;
        while (1)
            rounds++;
    }
    /* Both want the processor, so the child's turn ends. */
    for (long end = now_ms() + 50; !goes_on || now_ms() < end;)
        if (waitpid(child, &status, WNOHANG) == child)
            return status;
    kill(child, SIGTERM);
    return status_of(child);
}

int main(void)
{
    static struct sequence wrong_version = {.version = 1, .start = 4096, .length = 1, .abort = 1};
    static uint32_t signature[] = {SIGNATURE, 0};
    static struct sequence elsewhere = {.start = 4096, .length = 1};
    struct record *record = registered();
    struct itimerval once = {.it_value = {.tv_usec = 20000}};
    pid_t child;

    if (record == &own) {
        CHECK(registration((char *)&own + 8, 32, 0, SIGNATURE) < 0 && errno == EINVAL);
        CHECK(registration(&own, 16, 0, SIGNATURE) < 0 && errno == EINVAL);
        CHECK(registration((void *)0x7fffffffffe0, 32, 0, SIGNATURE) < 0 && errno == EFAULT);
        own.cpu = 77;
        CHECK_EQUAL(registration(&own, 32, 0, SIGNATURE), 0);
    }
    CHECK_EQUAL(record->cpu, sched_getcpu());
    CHECK_EQUAL(record->cpu_at_start, record->cpu);
    errors(record);

    /* By a signal. */
    handle(SIGALRM, handler, 0);
    CHECK_EQUAL(setitimer(ITIMER_REAL, &once, NULL), 0);
    do {
        CHECK(go_round(record) > 0);
        CHECK_EQUAL(record->sequence, 0);
    } while (!handled);

    /* By others, in a child, which has the registration of its parent. */
    child = fork();
    if (child == 0) {
        CHECK(go_round(record) > 0);
        CHECK_EQUAL(record->sequence, 0);
        _exit(7);
    }
    for (int status, done = 0; !done; done = waitpid(child, &status, WNOHANG) == child)
        ;

    elsewhere.abort = (uint64_t)&signature[1];
    CHECK_EQUAL(WTERMSIG(status_with(record, (uint64_t)&elsewhere, true)), SIGTERM);
    signature[0]--;
    CHECK_EQUAL(WTERMSIG(status_with(record, (uint64_t)&elsewhere, false)), SIGSEGV);
    CHECK_EQUAL(WTERMSIG(status_with(record, (uint64_t)&wrong_version, false)), SIGSEGV);
    CHECK_EQUAL(WTERMSIG(status_with(record, 1, false)), SIGSEGV);

    CHECK_EQUAL(registration(record, 32, UNREGISTER, SIGNATURE), 0);
    CHECK_EQUAL((int)record->cpu, -1);
    passed();
}
