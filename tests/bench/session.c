/* What a VMM does once: negotiation, description, memory, interrupts. */
#define _GNU_SOURCE
#include "client.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct {
    header header;
    uint32_t argsz, flags, index, offset;
    uint64_t size, position;
    uint8_t more[4096];
} region_info;

typedef struct {
    header header;
    uint32_t argsz, flags, index, start, count;
} irqs;

static const char CAPABILITIES[] =
    "{\"capabilities\":{\"pgsizes\":4096,\"max_msg_fds\":16,\"max_dma_maps\":65535,\"max_data_xfer_size\":1048576,"
    "\"migration\":{\"max_bitmap_size\":268435456,\"pgsize\":4096},\"write_multiple\":true}}";

/* Sends a request, whose header is filled in here, and receives its reply of up to `room` bytes. */
static size_t ask(client *client, uint16_t command, void *request, size_t size, int fd, void *reply, size_t room,
                  int *reply_fd)
{
    header *asked = request, *answer = reply;
    int none = -1;
    size_t got;

    *asked = (header){ .id = client->id++, .command = command, .size = (uint32_t)size };
    send_all(client->socket, request, size, fd);
    got = receive_with_fd(client->socket, reply, room, reply_fd ? reply_fd : &none);
    if (got < sizeof(*answer) || answer->size > room)
        die("a reply to command %u must be of up to %zu bytes, not %zu", command, room, got);
    if (got < answer->size)
        receive_all(client->socket, (char *)reply + got, answer->size - got, false);
    if (answer->flags & F_ERROR)
        die("command %u was answered with error %u", command, answer->error);
    if (answer->id != asked->id || answer->command != command || answer->flags != F_REPLY)
        die("a reply must be to command %u, not %u with flags %#x", command, answer->command, answer->flags);
    return answer->size;
}

static void negotiate(client *client)
{
    struct {
        header header;
        uint16_t major, minor;
        char text[512];
    } request = { .minor = 0 }, reply;

    strcpy(request.text, CAPABILITIES);
    ask(client, VERSION, &request, offsetof(__typeof__(request), text) + sizeof(CAPABILITIES), -1, &reply,
        sizeof(reply), NULL);
    if (reply.major)
        die("the version must be 0.x, not %u.%u", reply.major, reply.minor);
}

static uint64_t describe_region(client *client, uint32_t index, bool map)
{
    region_info info = { .index = index, .argsz = 32 }, reply;
    uint32_t needed;
    int fd = -1;

    ask(client, GET_REGION_INFO, &info, sizeof(header) + 32, -1, &reply, sizeof(reply), &fd);
    needed = reply.argsz;
    if (needed > 32) { /* areas to map: once more, with room for them */
        if (fd >= 0)
            close(fd);
        info = (region_info){ .index = index, .argsz = needed };
        ask(client, GET_REGION_INFO, &info, sizeof(header) + 32, -1, &reply, sizeof(reply), &fd);
    }
    if (map) {
        if (fd < 0 || reply.size != WINDOW)
            die("BAR 2 must be %d bytes that can be mapped, not %llu", WINDOW, (unsigned long long)reply.size);
        client->window = mmap(NULL, WINDOW, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)reply.position);
        if (client->window == MAP_FAILED)
            die("cannot map BAR 2: %s", strerror(errno));
    }
    if (fd >= 0)
        close(fd);
    return reply.size;
}

void session_describe(client *client, bool map_window)
{
    struct {
        header header;
        uint32_t argsz, flags, regions, irqs;
    } device = { .argsz = 16 };
    struct {
        message request;
        uint8_t more[4096];
    } config = { 0 };
    uint32_t regions, kinds;
    uint64_t size = 0;

    negotiate(client);
    ask(client, GET_INFO, &device, sizeof(device), -1, &device, sizeof(device), NULL);
    regions = device.regions;
    kinds = device.irqs;
    for (uint32_t i = 0; i < regions; i++) {
        uint64_t found = describe_region(client, i, map_window && i == 2);

        if (i == 7)
            size = found < 256 ? found : 256;
    }
    for (uint32_t i = 0; i < kinds; i++) {
        irqs info = { .argsz = 16, .index = i };

        ask(client, GET_IRQ_INFO, &info, sizeof(header) + 16, -1, &info, sizeof(info), NULL);
    }
    config.request.region = 7;
    config.request.count = (uint32_t)size;
    if (ask(client, REGION_READ, &config, SHORT, -1, &config, sizeof(config), NULL) != SHORT + size ||
        config.request.data != 0xbe9c1234)
        die("the device must be 1234:be9c, not %08x", config.request.data);
}

void session_enable(client *client)
{
    message command = { .offset = 4, .region = 7, .count = 2, .data = 6 };

    ask(client, REGION_WRITE, &command, SHORT + 2, -1, &command, sizeof(command), NULL);
}

void session_give_memory(client *client, bool shared)
{
    struct {
        header header;
        uint32_t argsz, flags;
        uint64_t offset, address, size;
    } map = { .argsz = 32, .flags = 3, .address = RAM, .size = MAX_DMA };
    int fd = memfd_create("guest", MFD_CLOEXEC);

    if (fd < 0 || ftruncate(fd, MAX_DMA) < 0)
        die("no memory for the guest: %s", strerror(errno));
    client->ram = mmap(NULL, MAX_DMA, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    for (size_t i = 0; i < MAX_DMA; i++)
        client->ram[i] = (uint8_t)(i * 7 + (i >> 8));
    session_enable(client);
    ask(client, DMA_MAP, &map, sizeof(map), shared ? fd : -1, &map, sizeof(map), NULL);
    close(fd);
}

void session_enable_msix(client *client)
{
    irqs set = { .argsz = 20, .flags = 0x24, .index = 2, .count = 1 };

    client->eventfd = eventfd(0, EFD_CLOEXEC | (client->poll ? EFD_NONBLOCK : 0));
    session_enable(client);
    ask(client, SET_IRQS, &set, sizeof(set), client->eventfd, &set, sizeof(set), NULL);
}
