/*
 * Processes that talk through shared memory: an anonymous page across fork.
 *
 * Parent and child take turns in counting up one number in a shared page.
 * Each sees what the other wrote; nothing is copied: both map one frame, and
 * after each side's first access there is not one page fault more.
 */
#include "lab.h"

#define ROUNDS 100

/* Adds one to the number in each of this process's turns. */
static void count_up(volatile long *number, struct lab_turn *mine, struct lab_turn *theirs)
{
    for (int i = 0; i < ROUNDS; i++) {
        lab_take_turn(mine);
        *number += 1;
        lab_give_turn(theirs, 0);
    }
}

/* The same with the page faults counted; everything else the loop needs has
 * been used once before. */
static long count_up_faults(volatile long *number, struct lab_turn *mine, struct lab_turn *theirs)
{
    count_up(number, mine, theirs);

    long before = lab_minor_faults();
    count_up(number, mine, theirs);
    return lab_minor_faults() - before;
}

int main(void)
{
    lab_begin("shared memory: an anonymous page across fork");

    volatile long *number =
        mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (number == MAP_FAILED)
        lab_die("mmap");

    struct lab_turn for_parent = lab_new_turn();
    struct lab_turn for_child = lab_new_turn();
    struct lab_turn report = lab_new_turn();
    pid_t child = fork();

    if (child < 0)
        lab_die("fork");
    if (child == 0) {
        lab_minor_faults();
        lab_check("child: faults", count_up_faults(number, &for_child, &for_parent), 0);
        lab_give_turn(&report, lab_frame((const void *)number));
        return lab_failures != 0;
    }
    lab_give_turn(&for_parent, 0);
    lab_check("parent: faults", count_up_faults(number, &for_parent, &for_child), 0);
    long frame_of_child = lab_take_turn(&report);
    lab_wait(child);
    lab_check("number", *number, 4L * ROUNDS);
    lab_check_frames("same frame", lab_frame((const void *)number), frame_of_child, true);
    return lab_end();
}
