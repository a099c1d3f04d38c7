/*
 * A crowd: more processes than fit into one page of addresses wait for the same
 * thing and are let go at once. They share their memory, so that they are made
 * quickly. Nobody may stay behind, nor what the kernel knew of them.
 */
#include "../signals/check.h"

enum { CROWD = 300, STACK = 1024 };

static char stacks[CROWD][STACK] __attribute__((aligned(16)));
static int gate[2];

/* Runs on very little stack. */
static int waits(void *nothing)
{
    char byte;

    (void)nothing;
    _exit(read(gate[0], &byte, 1) == 1 ? 0 : 1);
}

int main(void)
{
    static char bytes[CROWD];
    int status, ended = 0;

    CHECK(pipe(gate) == 0);
    for (int i = 0; i < CROWD; i++)
        CHECK(clone(waits, stacks[i] + STACK, CLONE_VM | CLONE_FILES | SIGCHLD, NULL) > 0);
    CHECK(write(gate[1], bytes, CROWD) == CROWD);
    while (wait(&status) > 0)
        ended += WIFEXITED(status) && WEXITSTATUS(status) == 0;
    CHECK_EQUAL(ended, CROWD);
    passed();
}
