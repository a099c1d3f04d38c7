/*
 * A file is mapped and nothing more happens: there is an area of 4 kB, but no
 * page of it, and no page fault. The file is not even long enough.
 */
#include "lab.h"

int main(int argc, char **argv)
{
    lab_begin("file mapping: untouched");

    int file = lab_new_file(argc, argv, "testmmap.bin");
    lab_minor_faults();
    long before = lab_minor_faults();
    char *memory = lab_map(file, 0x1000, MAP_PRIVATE);
    lab_check("page faults of mmap", lab_minor_faults() - before, 0);

    struct lab_mapping mapping = lab_mapping_of(memory);
    lab_check("Size", mapping.size, 4);
    lab_check("Rss", mapping.rss, 0);
    lab_check("present", lab_present(memory), false);
    return lab_end();
}
