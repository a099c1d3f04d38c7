/*
 * An empty file is mapped: there is an area, but nothing behind it. Access is no
 * error of the address (SIGSEGV), but a bus error. As soon as the file is long
 * enough, the same access succeeds.
 */
#include "lab.h"

#include <setjmp.h>
#include <signal.h>

static sigjmp_buf back;
static siginfo_t seen;

static void caught(int number, siginfo_t *info, void *context)
{
    (void)context;
    seen = *info;
    siglongjmp(back, number);
}

/* The signal that a write brings; 0 if it succeeds. */
static int signal_of_write(volatile char *address)
{
    int number = sigsetjmp(back, 1);

    if (number == 0)
        *address = 'x';
    return number;
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO};

    lab_begin("file mapping: empty file");
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);

    int file = lab_new_file(argc, argv, "testmmap.bin");
    char *memory = lab_map(file, 0x1000, MAP_SHARED);
    lab_check("Rss", lab_mapping_of(memory).rss, 0);
    lab_check("a write is SIGBUS", signal_of_write(memory + 7) == SIGBUS, true);
    lab_check("its code is BUS_ADRERR", seen.si_code == BUS_ADRERR, true);
    lab_check("its address is that of the write", (char *)seen.si_addr == memory + 7, true);
    if (ftruncate(file, 0x1000) != 0)
        lab_die("ftruncate");
    lab_check("with ftruncate it succeeds", signal_of_write(memory + 7), 0);
    if (ftruncate(file, 0) != 0)
        lab_die("ftruncate");
    lab_check("cut again, the page is taken away", signal_of_write(memory + 7) == SIGBUS, true);
    return lab_end();
}
