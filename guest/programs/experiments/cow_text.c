/*
 * Copy on write: code pages.
 *
 * Code is never written, so it is never copied, however many processes run
 * it: all of them execute from the same frames.
 */
#include "lab.h"

#define PROCESSES 4

/* A page of code of its own, so that exactly one frame is looked at. */
__attribute__((noinline, aligned(4096))) static int code(int x)
{
    return x * 3 + 1;
}

/* Copies of pages are anonymous memory: the mapping of the code has none. */
static void check_text(const char *who)
{
    struct lab_mapping text = lab_mapping_of((const void *)code);
    char key[64];

    snprintf(key, sizeof key, "%s: anonymous kB of code", who);
    lab_check(key, text.anonymous, 0);
}

int main(void)
{
    lab_begin("copy on write: code pages");
    lab_check("parent: the code runs", code(2), 7);

    long frame = lab_frame((const void *)code);
    lab_show("parent: frame of the code", frame);
    check_text("parent");

    for (int i = 0; i < PROCESSES; i++) {
        struct lab_turn report = lab_new_turn();
        pid_t child = fork();

        if (child < 0)
            lab_die("fork");
        if (child == 0) {
            lab_check("child: the code runs", code(i), i * 3 + 1);
            check_text("child");
            lab_give_turn(&report, lab_frame((const void *)code));
            return lab_failures != 0;
        }
        long frame_of_child = lab_take_turn(&report);
        lab_wait(child);
        lab_show("child: frame of the code", frame_of_child);
        lab_check_frames("child: same frame as the parent's", frame, frame_of_child, true);
    }
    return lab_end();
}
