/*
 * Copy on write: the reference count.
 *
 * A frame shared by two processes has two owners. The first of them to write
 * gets a copy, for the other one still needs the original. Then the original
 * has one owner left, and when that one writes there is nobody to protect:
 * the page is made writable where it is. Two faults, one copy, one reuse.
 */
#include "lab.h"

int main(void)
{
    lab_begin("copy on write: the reference count");
    lab_stay_on_one_cpu();

    char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        lab_die("mmap");
    lab_check("faults of the first write (demand)", lab_write_faults(page, 1, 'a'), 1);
    lab_check("faults of the second write", lab_write_faults(page, 1, 'b'), 0);

    long original = lab_frame(page);
    struct lab_turn report = lab_new_turn();
    struct lab_turn proceed = lab_new_turn();
    pid_t child = fork();

    if (child < 0)
        lab_die("fork");
    if (child == 0) {
        /* Two owners: this write gets a copy. */
        lab_check("child: faults of its write (copy)", lab_write_faults(page, 1, 'c'), 1);
        lab_check("child: faults of another write", lab_write_faults(page, 1, 'd'), 0);
        lab_give_turn(&report, lab_frame(page));
        lab_take_turn(&proceed);
        return lab_failures != 0;
    }

    long copy = lab_take_turn(&report);
    lab_check("parent: sees the old byte", *page, 'b');

    /* One owner is left, though the child still lives: no copy. */
    lab_check("parent: faults of its write (reuse)", lab_write_faults(page, 1, 'e'), 1);
    lab_check("parent: faults of another write", lab_write_faults(page, 1, 'f'), 0);
    long reused = lab_frame(page);

    lab_give_turn(&proceed, 0);
    lab_wait(child);
    lab_show("frame before fork", original);
    lab_show("frame of the copy", copy);
    lab_show("frame of the last owner", reused);
    lab_check_frames("the first writer got another frame", original, copy, false);
    lab_check_frames("the last owner kept its frame", original, reused, true);
    return lab_end();
}
