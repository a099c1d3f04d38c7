/*
 * Demand paging: memory that is touched.
 *
 * Each page of the buffer gets its frame when it is first written: exactly
 * one page fault a page. Of the mapping's 1025 pages malloc has written one
 * already (with musl two), so that 1024 (1023) faults are left. Writing once
 * more costs nothing.
 */
#include "demand.h"

/* The page faults of a memset of the whole buffer. A smaller one comes first,
 * so that the faults of its code and of the counting are not among them. */
static long memset_faults(char *buffer, int value)
{
    static char warm_up[64 * 1024];

    lab_minor_faults();
    memset(warm_up, value, sizeof warm_up);

    long before = lab_minor_faults();
    memset(buffer, value, BUFFER_SIZE);
    return lab_minor_faults() - before;
}

int main(void)
{
    lab_begin("demand paging: touched");

    char *buffer = malloc(BUFFER_SIZE);
    if (buffer == NULL)
        lab_die("malloc");
    check_resident(buffer, MALLOC_PAGES);
    lab_check("faults of the first memset", memset_faults(buffer, 0xaf), MAPPING_PAGES - MALLOC_PAGES);
    check_resident(buffer, MAPPING_PAGES);
    lab_check("faults of the second memset", memset_faults(buffer, 0xaf), 0);
    free(buffer);
    return lab_end();
}
