/*
 * A file of one page is mapped shared and filled with 0xff. The mapping stays
 * when the descriptor is closed; what was written is in the file, dirty until it
 * is written back, and seen by everybody who reads it.
 */
#include "lab.h"

int main(int argc, char **argv)
{
    static unsigned char bytes[0x1000 + 1];

    lab_begin("file mapping: shared");

    int file = lab_new_file(argc, argv, "testmmap.bin");
    if (ftruncate(file, 0x1000) != 0)
        lab_die("ftruncate");
    char *memory = lab_map(file, 0x1000, MAP_SHARED);
    lab_check("Rss before", lab_mapping_of(memory).rss, 0);
    lab_check("page faults of the first byte", lab_file_write_faults(memory, 1, 0x01), 1);
    memset(memory, 0xff, 0x1000);

    struct lab_mapping mapping = lab_mapping_of(memory);
    lab_check("Size", mapping.size, 4);
    lab_check("Rss", mapping.rss, 4);
    lab_check("dirty", mapping.private_dirty + mapping.shared_dirty, 4);
    lab_check("Anonymous", mapping.anonymous, 0);
    close(file);
    lab_check("Rss after close", lab_mapping_of(memory).rss, 4);

    file = open("testmmap.bin", O_RDONLY);
    lab_check("bytes in the file", read(file, bytes, sizeof bytes), 0x1000);
    long different = 0;
    for (int i = 0; i < 0x1000; i++)
        different += bytes[i] != 0xff;
    lab_check("bytes that are not 0xff", different, 0);
    lab_check("msync", msync(memory, 0x1000, MS_SYNC), 0);
    lab_check("page faults of a write after msync is one at most",
              lab_file_write_faults(memory, 1, (char)0xff) <= 1, true);
    return lab_end();
}
