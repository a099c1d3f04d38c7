/* What a program that another one executes inherits of its signals. */
#include "check.h"

extern char **environ;

static char area[65536];

static void nothing(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)info;
    (void)context;
}

static void second_program(void)
{
    struct sigaction action;
    stack_t stack;

    CHECK_EQUAL(sigaction(SIGUSR1, NULL, &action), 0);
    CHECK(action.sa_handler == SIG_DFL && action.sa_flags == 0);
    CHECK_EQUAL(sigaction(SIGUSR2, NULL, &action), 0);
    CHECK(action.sa_handler == SIG_IGN);
    CHECK(is_blocked(SIGHUP) && !is_blocked(SIGTERM));
    CHECK(is_pending(SIGHUP));
    CHECK_EQUAL(sigaltstack(NULL, &stack), 0);
    CHECK_EQUAL(stack.ss_flags, SS_DISABLE);
    CHECK(alarm(0) > 90);
    passed();
}

int main(int argc, char **argv)
{
    stack_t stack = {.ss_sp = area, .ss_size = sizeof area};
    char *arguments[] = {argv[0], (char *)"second", NULL};

    if (argc > 1)
        second_program();
    handle(SIGUSR1, nothing, SA_RESTART);
    signal(SIGUSR2, SIG_IGN);
    block(SIGHUP);
    raise(SIGHUP);
    CHECK_EQUAL(sigaltstack(&stack, NULL), 0);
    alarm(100);
    execve("/proc/self/exe", arguments, environ);
    CHECK(!"execve went well");
}
