/*
 * Copy on write: isolation.
 *
 * After fork both processes see the same variable at the same address, and
 * both may change it, and neither sees the other's change. Until the first
 * write there is nevertheless only one frame for both: it is mapped
 * read-only on each side, and the first write brings the copy.
 */
#include "lab.h"

/* The variable, alone on its page. */
static struct {
    int value;
    char rest[PAGE - sizeof(int)];
} variable __attribute__((aligned(4096)));

int main(void)
{
    lab_begin("copy on write: isolation");
    variable.value = 1;

    long frame_before = lab_frame(&variable);
    struct lab_turn report = lab_new_turn();
    struct lab_turn proceed = lab_new_turn();
    pid_t child = fork();

    if (child < 0)
        lab_die("fork");
    if (child == 0) {
        /* Reading copies nothing. */
        lab_check("child: value after fork", variable.value, 1);
        lab_check("child: frame is its own before writing", lab_exclusive(&variable), false);
        lab_give_turn(&report, lab_frame(&variable));

        lab_take_turn(&proceed);
        lab_check("child: faults of the write", lab_write_faults(&variable, 1, 2), 1);
        lab_check("child: value after its write", variable.value, 2);
        lab_check("child: frame is its own after writing", lab_exclusive(&variable), true);
        lab_give_turn(&report, lab_frame(&variable));

        lab_take_turn(&proceed);
        lab_check("child: value after the parent's write", variable.value, 2);
        return lab_failures != 0;
    }

    long child_before = lab_take_turn(&report);
    lab_check_frames("same frame before the write", frame_before, child_before, true);
    lab_check_frames("parent kept its frame in fork", frame_before, lab_frame(&variable), true);

    lab_give_turn(&proceed, 0);
    long child_after = lab_take_turn(&report);
    lab_check("parent: value after the child's write", variable.value, 1);
    lab_check_frames("same frame after the write", lab_frame(&variable), child_after, false);

    variable.value = 3;
    lab_give_turn(&proceed, 0);
    lab_wait(child);
    lab_check("parent: value after its own write", variable.value, 3);
    lab_show("frame before the write", frame_before);
    lab_show("child: frame after the write", child_after);
    return lab_end();
}
