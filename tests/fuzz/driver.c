/*
 * Runs a fuzzer without libFuzzer: every file of a corpus, then mutations of them for a time, of a seed.
 *
 * usage: driver SEED SECONDS CORPUS CURRENT
 *
 * CURRENT is the file that has the input under way, for who looks why it was the last.
 */
#include "fuzz.h"

#include <dirent.h>
#include <string.h>
#include <time.h>

enum { MAX_FILES = 1024, MAX_SIZE = 8192 };

static struct {
    uint8_t data[MAX_SIZE];
    size_t size;
} files[MAX_FILES];
static size_t file_count;
static uint64_t state;

static uint64_t random_number(uint64_t below)
{
    state = state * 6364136223846793005 + 1442695040888963407;
    return (state >> 33) % below;
}

static void load(const char *folder)
{
    DIR *open = opendir(folder);
    char path[4096];

    CHECK(open);
    for (struct dirent *entry; (entry = readdir(open)) && file_count < MAX_FILES;) {
        FILE *file;

        if (entry->d_name[0] == '.')
            continue;
        CHECK((size_t)snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name) < sizeof(path));
        file = fopen(path, "rb");
        CHECK(file);
        files[file_count].size = fread(files[file_count].data, 1, MAX_SIZE, file);
        file_count++;
        fclose(file);
    }
    closedir(open);
}

/* One file's beginning, another's end, and a few changes. */
static size_t mutate(uint8_t *data)
{
    size_t one = random_number(file_count), other = random_number(file_count);
    size_t size = files[one].size, keep = random_number(size + 1), skip = random_number(files[other].size + 1);
    size_t changes = random_number(8), behind = files[other].size - skip;

    memcpy(data, files[one].data, size);
    if (random_number(2)) {
        behind = keep + behind > MAX_SIZE ? MAX_SIZE - keep : behind;
        memcpy(data + keep, files[other].data + skip, behind);
        size = keep + behind;
    }
    for (size_t i = 0; size && i < changes; i++) {
        uint8_t *at = data + random_number(size);

        switch (random_number(4)) {
        case 0:
            *at ^= (uint8_t)(1 << random_number(8));
            break;
        case 1:
            *at = (uint8_t)random_number(256);
            break;
        case 2:
            *at = (uint8_t)(random_number(2) - 1);
            break;
        default:
            *at = (uint8_t)(*at + random_number(5) - 2);
        }
    }
    return size;
}

static void save(const char *folder, const uint8_t *data, size_t size)
{
    FILE *file = fopen(folder, "wb");

    if (file) {
        fwrite(data, 1, size, file);
        fclose(file);
    }
}

int main(int count, char **arguments)
{
    static uint8_t data[MAX_SIZE];
    unsigned long long executions = 0;
    time_t end;

    CHECK(count == 5);
    state = strtoull(arguments[1], NULL, 10);
    end = time(NULL) + atoi(arguments[2]);
    load(arguments[3]);
    CHECK(file_count);
    for (size_t i = 0; i < file_count; i++, executions++) {
        save(arguments[4], files[i].data, files[i].size);
        LLVMFuzzerTestOneInput(files[i].data, files[i].size);
    }
    while (time(NULL) < end) {
        size_t size = mutate(data);

        save(arguments[4], data, size);
        LLVMFuzzerTestOneInput(data, size);
        executions++;
    }
    remove(arguments[4]);
    printf("%zu inputs replayed, %llu executions\n", file_count, executions);
    return 0;
}
