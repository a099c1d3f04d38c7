/*
 * Copy on write against demand paging.
 *
 * One and the same instruction, a write, faults for different reasons: there
 * is no frame at all (demand paging), there is the common page of zeros, or
 * there is a frame that is shared and read-only (copy on write). The program
 * cannot tell them apart; the page tables before the fault can. In the lab's
 * counts the four faults below are of four kinds.
 */
#include "lab.h"

static char *map_page(void)
{
    char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (page == MAP_FAILED)
        lab_die("mmap");
    return page;
}

int main(void)
{
    lab_begin("copy on write against demand paging");

    char *page = map_page();
    long sum;

    /* Reason 1: no frame. A read finds zeros, the common page of them. */
    lab_check("before any access: present", lab_present(page), false);
    lab_check("read without a frame: faults", lab_read_faults(page, 1, &sum), 1);
    lab_check("read without a frame: byte", sum, 0);
    lab_check("page of zeros: present", lab_present(page), true);
    lab_check("page of zeros: Rss", lab_mapping_of(page).rss, 0);
    long zeros = lab_frame(page);

    /* Reason 2: the page of zeros belongs to all. A write gets a frame. */
    lab_check("write to the page of zeros: faults", lab_write_faults(page, 1, 'a'), 1);
    lab_check("write to the page of zeros: Rss", lab_mapping_of(page).rss, 4);
    lab_check_frames("write to the page of zeros: same frame", zeros, lab_frame(page), false);

    /* Reason 1 again: no frame, and a write at once. One fault, not two. */
    char *other = map_page();
    lab_check("write without a frame: faults", lab_write_faults(other, 1, 'b'), 1);

    /* Reason 3: a frame that the parent has, too. */
    pid_t child = fork();
    if (child < 0)
        lab_die("fork");
    if (child == 0) {
        long shared = lab_frame(page);

        lab_check("child: before the write: present", lab_present(page), true);
        lab_check("child: read of a shared frame: faults", lab_read_faults(page, 1, &sum), 0);
        lab_check("child: write to a shared frame: faults", lab_write_faults(page, 1, 'c'), 1);
        lab_check_frames("child: same frame after the write", shared, lab_frame(page), false);
        return lab_failures != 0;
    }
    lab_wait(child);
    lab_check("parent: byte", *page, 'a');
    return lab_end();
}
