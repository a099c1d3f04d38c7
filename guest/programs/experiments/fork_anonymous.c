/*
 * fork and a private anonymous page.
 *
 * The parent maps a page and forks, the child writes a text into the page.
 * Does the parent read it? With MAP_PRIVATE it does not: the child wrote to
 * its own copy. With MAP_SHARED it does.
 */
#include "lab.h"

/* Lets a child write into a new page; returns the page as the parent has it. */
static const char *written_by_child(int flags)
{
    char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);

    if (page == MAP_FAILED)
        lab_die("mmap");

    pid_t child = fork();
    if (child < 0)
        lab_die("fork");
    if (child == 0) {
        sprintf(page, "hello from the child");
        exit(strcmp(page, "hello from the child") != 0);
    }
    lab_wait(child);
    return page;
}

int main(void)
{
    lab_begin("fork and a private anonymous page");

    const char *private_page = written_by_child(MAP_PRIVATE);
    printf("MAP_PRIVATE: parent reads \"%s\"\n", private_page);
    lab_check("MAP_PRIVATE: parent sees the text", private_page[0] != '\0', false);

    const char *shared_page = written_by_child(MAP_SHARED);
    printf("MAP_SHARED: parent reads \"%s\"\n", shared_page);
    lab_check("MAP_SHARED: parent sees the text", strcmp(shared_page, "hello from the child") == 0,
              true);
    return lab_end();
}
