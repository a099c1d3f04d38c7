/*
 * fork returns twice.
 *
 * fork makes a second process out of the calling one, and both return from
 * it: the parent with the child's process id, the child with 0. The id that
 * the parent gets is the one that getpid gives the child.
 */
#include "lab.h"

int main(void)
{
    lab_begin("fork returns twice");

    struct lab_turn report = lab_new_turn();
    pid_t parent = getpid();
    pid_t returned = fork();

    if (returned < 0)
        lab_die("fork");
    if (returned == 0) {
        /* Here fork returned 0: this is the child. */
        lab_check("child: fork returned", returned, 0);
        lab_check("child: getppid is the parent", getppid() == parent, true);
        lab_give_turn(&report, getpid());
        return lab_failures != 0;
    }

    /* Here fork returned the child's process id: this is the parent. */
    long child = lab_take_turn(&report);
    lab_wait(returned);
    lab_show("parent: getpid", getpid());
    lab_show("parent: fork returned", returned);
    lab_show("child: getpid", child);
    lab_check("parent: fork returned the child's getpid", returned == child, true);
    lab_check("parent: getpid is unchanged", getpid() == parent, true);
    return lab_end();
}
