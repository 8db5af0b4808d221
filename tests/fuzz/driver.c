/*
 * Runs a fuzzer without libFuzzer: every file of a corpus, then mutations of them for a time, of a seed.
 *
 * usage: driver SEED SECONDS CORPUS CURRENT
 *
 * CURRENT gets the input under way, its size before it in 4 bytes, for who looks why it was the last.
 */
#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#pragma weak LLVMFuzzerCustomMutator
#pragma weak LLVMFuzzerCustomCrossOver

enum { MAX_FILES = 1024, MAX_SIZE = 8192, MAX_CPU = 3 /* seconds, of one input */ };

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

/* Changes a few bytes. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size)
{
    size_t changes = 1 + random_number(4);

    (void)max_size;
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

/* One file's beginning and another's end; for fuzzers whose inputs have no records. */
static size_t combine(const uint8_t *one, size_t one_size, const uint8_t *other, size_t other_size, uint8_t *out)
{
    size_t keep = random_number(one_size + 1), skip = random_number(other_size + 1), rest = other_size - skip;

    rest = keep + rest > MAX_SIZE ? MAX_SIZE - keep : rest;
    memcpy(out, one, keep);
    memcpy(out + keep, other + skip, rest);
    return keep + rest;
}

static size_t mutate(uint8_t *data)
{
    size_t one = random_number(file_count), other = random_number(file_count), rounds = 1 + random_number(4);
    size_t size = files[one].size;
    unsigned seed = (unsigned)random_number(1 << 30);

    memcpy(data, files[one].data, size);
    if (random_number(2))
        size = LLVMFuzzerCustomCrossOver ? LLVMFuzzerCustomCrossOver(files[one].data, size, files[other].data,
                                                                     files[other].size, data, MAX_SIZE, seed)
                                         : combine(files[one].data, size, files[other].data, files[other].size, data);
    for (size_t i = 0; i < rounds; i++)
        size = LLVMFuzzerCustomMutator ? LLVMFuzzerCustomMutator(data, size, MAX_SIZE, seed + (unsigned)i)
                                       : LLVMFuzzerMutate(data, size, MAX_SIZE);
    return size;
}

/* A file's memory, which outlasts a crash: its size, then the input. */
static uint8_t *open_current(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    void *memory;

    CHECK(fd >= 0 && ftruncate(fd, sizeof(uint32_t) + MAX_SIZE) == 0);
    memory = mmap(NULL, sizeof(uint32_t) + MAX_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(memory != MAP_FAILED);
    close(fd);
    return memory;
}

static void run(uint8_t *current, const uint8_t *data, size_t size)
{
    const struct itimerval limit = { .it_value.tv_sec = MAX_CPU };
    uint32_t length = (uint32_t)size;

    CHECK(setitimer(ITIMER_PROF, &limit, NULL) == 0); /* SIGPROF, which nobody handles */
    memcpy(current, &length, sizeof(length));
    memcpy(current + sizeof(length), data, size);
    LLVMFuzzerTestOneInput(data, size);
}

int main(int count, char **arguments)
{
    static uint8_t data[MAX_SIZE];
    unsigned long long executions = 0;
    uint8_t *current;
    time_t end;

    CHECK(count == 5);
    state = strtoull(arguments[1], NULL, 10);
    load(arguments[3]);
    CHECK(file_count);
    current = open_current(arguments[4]);
    for (size_t i = 0; i < file_count; i++, executions++)
        run(current, files[i].data, files[i].size);
    end = time(NULL) + atoi(arguments[2]);
    while (time(NULL) < end) {
        run(current, data, mutate(data));
        executions++;
    }
    printf("%zu inputs replayed, %llu executions\n", file_count, executions);
    return 0;
}
