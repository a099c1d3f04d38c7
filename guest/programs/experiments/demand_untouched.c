/*
 * Demand paging: memory that is not touched.
 *
 * malloc hands out 4 MiB of addresses and hardly any memory: of the mapping
 * of 1025 pages only the first has a frame, because malloc writes its header
 * there (and with musl the last, for a mark at the end).
 */
#include "demand.h"

int main(void)
{
    lab_begin("demand paging: untouched");

    char *buffer = malloc(BUFFER_SIZE);
    if (buffer == NULL)
        lab_die("malloc");
    check_resident(buffer, MALLOC_PAGES);
    lab_check("first page present", lab_present(buffer), true);
    lab_check("second page present", lab_present(buffer + PAGE), false);
    free(buffer);
    return lab_end();
}
