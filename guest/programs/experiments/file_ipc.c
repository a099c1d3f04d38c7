/*
 * Two processes that are not related by a mapping: each opens and maps the same
 * file. What one writes the other reads, through one and the same frame: nothing
 * is copied.
 */
#include "lab.h"

#define NAME "ipc.bin"

/* A mapping of the file by somebody who only knows its name. */
static char *map_by_name(void)
{
    int file = open(NAME, O_RDWR);

    if (file < 0)
        lab_die(NAME);
    char *memory = lab_map(file, PAGE, MAP_SHARED);
    close(file);
    return memory;
}

int main(int argc, char **argv)
{
    lab_begin("IPC through a mapped file");
    if (ftruncate(lab_new_file(argc, argv, NAME), PAGE) != 0)
        lab_die("ftruncate");

    struct lab_turn to_child = lab_new_turn(), to_parent = lab_new_turn();
    pid_t child = fork();
    if (child < 0)
        lab_die("fork");
    char *memory = map_by_name();
    if (child == 0) {
        long parents_frame = lab_take_turn(&to_child);
        lab_check("child reads", strcmp(memory, "from the parent"), 0);
        lab_check_frames("both see one frame", parents_frame, lab_frame(memory), true);
        strcpy(memory, "from the child");
        lab_give_turn(&to_parent, 0);
        exit(lab_failures != 0);
    }
    strcpy(memory, "from the parent");
    lab_give_turn(&to_child, lab_frame(memory));
    lab_take_turn(&to_parent);
    lab_check("parent reads", strcmp(memory, "from the child"), 0);
    lab_wait(child);
    return lab_end();
}
