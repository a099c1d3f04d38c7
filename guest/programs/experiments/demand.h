/*
 * What the two demand-paging experiments share: a buffer of 1024 pages from
 * malloc and a look at its mapping.
 */
#ifndef DEMAND_H
#define DEMAND_H

#include "lab.h"

#define BUFFER_SIZE (0x1000UL * 1024)
/* malloc maps one page more than asked for: its header comes first. */
#define MAPPING_PAGES 1025
/* The pages that malloc itself writes: glibc only the first, with the header;
 * musl also the last, with a mark that shows an overrun of the buffer. */
#ifdef __GLIBC__
#define MALLOC_PAGES 1
#else
#define MALLOC_PAGES 2
#endif

/* Checks that `resident` pages of the buffer's mapping have frames, all of
 * them private and dirty. */
static void check_resident(const char *buffer, long resident)
{
    struct lab_mapping mapping = lab_mapping_of(buffer);

    lab_check("Size", mapping.size, MAPPING_PAGES * 4);
    lab_check("Rss", mapping.rss, resident * 4);
    lab_check("Private_Dirty", mapping.private_dirty, resident * 4);
    lab_check("Anonymous", mapping.anonymous, resident * 4);
}

#endif
