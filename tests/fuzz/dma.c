/* Fuzzes DMA maps over files that shrink and grow meanwhile, against a table of what must be mapped. */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAX_ACTS = 100, BACKINGS = 3, MAPS = 24, PAGE = 4096, FILE_PAGES = 8, BUFFER = 64 << 10 };

typedef struct {
    uint64_t address, last;
    uint32_t flags;
    int file; /* or -1 */
    uint64_t offset;
} map;

const size_t record_size = 24;

static pvu_dma *dma;
static map maps[MAPS];
static size_t map_count;
static struct {
    int fd;
    uint64_t size;
} backings[BACKINGS];

static void begin(void)
{
    dma = pvu_dma_new(MAPS);
    CHECK(dma);
    map_count = 0;
    for (size_t i = 0; i < BACKINGS; i++)
        backings[i].fd = -1;
}

static void end(void)
{
    CHECK(pvu_dma_maps(dma) == map_count);
    pvu_dma_free(dma);
    for (size_t i = 0; i < BACKINGS; i++) {
        if (backings[i].fd < 0)
            continue;
        /* Refused while it is mapped anywhere. */
        CHECK(fcntl(backings[i].fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
        close(backings[i].fd);
    }
}

/* Mostly among a few pages or at an edge of a map, sometimes at the end of all addresses, sometimes anything. */
static uint64_t take_address(input *from)
{
    uint64_t shape = take(from, 1), small = take(from, 2);

    if (shape < 0x40 && map_count) {
        const map *map = &maps[small % map_count];

        return (shape & 8 ? map->last : map->address) + shape % 8 - 4;
    }
    if (shape < 0xc0)
        return (small % 64 * PAGE) + (shape & 1 ? small >> 6 : 0);
    if (shape < 0xe0)
        return 0 - (small % 64 * PAGE) - (shape & 1 ? small >> 6 : 0);
    return take(from, 8);
}

/* The map that has an address, or NULL. */
static const map *map_at(uint64_t address)
{
    for (size_t i = 0; i < map_count; i++)
        if (maps[i].address <= address && address <= maps[i].last)
            return &maps[i];
    return NULL;
}

static int expected_check(uint64_t address, uint64_t length, int access)
{
    int status = 0;

    while (length) {
        const map *map = map_at(address);
        uint64_t step;

        if (!map)
            return -EFAULT;
        if (!(map->flags & (uint32_t)access))
            return -EACCES;
        if (map->file < 0)
            status = -ENXIO;
        step = map->last - address;
        if (length - 1 <= step)
            return status;
        length -= step + 1;
        address = map->last + 1;
        if (!address)
            return -EFAULT;
    }
    return status;
}

static void act_map(input *from)
{
    uint64_t address = take_address(from), size = take_address(from), offset = take(from, 1) % 12 * 1024 & ~(uint64_t)1023;
    uint32_t flags = (uint32_t)take(from, 1) & 7;
    unsigned which = (unsigned)take(from, 1) % (BACKINGS + 1);
    int file = which < BACKINGS ? (int)which : -1, status, fd = -1, expected = 0;

    if (file >= 0 && backings[file].fd < 0) {
        backings[file].fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        backings[file].size = FILE_PAGES * PAGE;
        CHECK(backings[file].fd >= 0 && ftruncate(backings[file].fd, FILE_PAGES * PAGE) == 0);
    }
    if (file >= 0)
        fd = backings[file].fd;
    if (!size || address + size - 1 < address || address % PAGE || size % PAGE || offset % PAGE || flags > 3)
        expected = -EINVAL;
    for (size_t i = 0; !expected && i < map_count; i++)
        if (maps[i].address <= address + size - 1 && address <= maps[i].last)
            expected = -EEXIST;
    if (!expected && map_count == MAPS)
        expected = -ENOSPC;
    if (!expected && file >= 0 && (offset > backings[file].size || size > backings[file].size - offset))
        expected = -EINVAL;
    status = pvu_dma_map(dma, address, size, flags, fd, offset);
    CHECK(status == expected);
    if (status == 0)
        maps[map_count++] = (map){ address, address + size - 1, flags, file, offset };
}

static void act_unmap(input *from)
{
    uint64_t address = take_address(from), size = take_address(from), last = address + size - 1;
    int expected = -ENOENT;

    if (!size || last < address)
        expected = -EINVAL;
    for (size_t i = 0; expected != -EINVAL && i < map_count; i++) {
        if (maps[i].address > last || maps[i].last < address)
            continue;
        expected = maps[i].address < address || maps[i].last > last ? -EINVAL : 0;
    }
    CHECK(pvu_dma_unmap(dma, address, size) == expected);
    for (size_t i = 0; expected == 0 && i < map_count;) {
        if (maps[i].address >= address && maps[i].last <= last)
            maps[i] = maps[--map_count];
        else
            i++;
    }
}

/* What the file behind an address holds; false when it was cut short meanwhile. */
static bool in_file(uint64_t address, uint8_t *byte)
{
    const map *map = map_at(address);
    uint64_t at = address - map->address + map->offset;

    return at < backings[map->file].size && pread(backings[map->file].fd, byte, 1, (off_t)at) == 1;
}

static uint64_t take_length(input *from, uint64_t address)
{
    uint64_t kind = take(from, 1);
    const map *map = map_at(address);

    if (kind < 0x80)
        return kind;
    if (kind < 0xc0 && map)
        return map->last - address + kind % 4; /* up to its end, or so */
    return take(from, kind < 0xf0 ? 2 : 8);
}

static int expected_copy(const pvu_segment *segments, size_t count, uint64_t length, int access, size_t *failed)
{
    int status = 0;

    for (size_t i = 0; i < count; i++) {
        if (segments[i].length > length)
            return -EINVAL;
        length -= segments[i].length;
    }
    if (length)
        return -EINVAL;
    /* What needs messages is told only when nothing worse is. */
    for (size_t i = 0; i < count; i++) {
        int found = expected_check(segments[i].address, segments[i].length, access);

        if (found && found != status) {
            status = found;
            *failed = i;
        }
        if (status && status != -ENXIO)
            break;
    }
    return status;
}

static void act_copy(input *from)
{
    static uint8_t memory[BUFFER];
    pvu_segment segments[4];
    size_t count = take(from, 1) % 5, failed = SIZE_MAX, expected_failed = SIZE_MAX, done = 0;
    uint64_t how = take(from, 1), room = how < 0xf0 ? 0 : how & 0xf;
    int access = how & 1 ? PVU_DMA_READ : PVU_DMA_WRITE, expected, status;
    uint8_t *buffer;
    bool gone = false;

    for (size_t i = 0; i < count; i++) {
        segments[i].address = take_address(from);
        segments[i].length = take_length(from, segments[i].address);
        room += segments[i].length;
    }
    room = room < BUFFER ? room : BUFFER;
    buffer = memory + BUFFER - room; /* one byte more would not be ours */
    expected = expected_copy(segments, count, room, access, &expected_failed);
    memset(buffer, 0xc3, room);
    status = pvu_dma_copy(dma, segments, count, buffer, room, access, &failed);
    if (expected) {
        CHECK(status == expected && failed == expected_failed);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t address = segments[i].address, size = segments[i].length;
        /* Later writes, through another map perhaps, may have gone over it. */
        bool sure = access == PVU_DMA_READ || (i + 1 == count && size && map_at(address) == map_at(address + size - 1));

        for (uint64_t n = 0; n < size; n += n + 61 < size || n + 1 == size ? 61 : size - 1 - n) {
            uint8_t byte = 0;

            if (!in_file(address + n, &byte))
                gone = true;
            else if (status == 0 && sure)
                CHECK(buffer[done + n] == byte);
        }
        done += size;
    }
    CHECK(status == 0 || (status == -EFAULT && failed < count && gone));
}

static void act(input *from)
{
    unsigned file;

    switch (take(from, 1) % 8) {
    case 0:
    case 1:
        act_map(from);
        break;
    case 2:
        act_unmap(from);
        break;
    case 3: {
        uint64_t address = take_address(from), length = take_address(from);
        int access = 1 << take(from, 1) % 2;

        CHECK(pvu_dma_check(dma, address, length, access) == expected_check(address, length, access));
        break;
    }
    case 4:
        file = (unsigned)take(from, 1) % BACKINGS;
        if (backings[file].fd >= 0) {
            backings[file].size = take(from, 2) % (FILE_PAGES * PAGE + 1);
            CHECK(ftruncate(backings[file].fd, (off_t)backings[file].size) == 0);
        }
        break;
    case 5:
        if (take(from, 1) == 0) {
            pvu_dma_unmap_all(dma);
            map_count = 0;
        }
        break;
    default:
        act_copy(from);
    }
    CHECK(pvu_dma_maps(dma) == map_count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input from = { data, size };

    begin();
    for (int i = 0; i < MAX_ACTS && from.size; i++) {
        input record = take_record(&from);

        act(&record);
    }
    end();
    return 0;
}
