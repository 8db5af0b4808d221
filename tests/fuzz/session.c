/*
 * Fuzzes whole sessions. The input is a list of acts: of clients, which send good and bad messages, in pieces, with
 * descriptors, in floods, and read when they like; and of Python, which answers early or late, and asks the clients.
 * As long as a client's messages are whole, the model says what every byte that comes back must be.
 */
#include "fuzz.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_ACTS = 200 };

static uint8_t message[MAX_MESSAGE + 64];
static uint16_t next_id;

static const struct {
    uint32_t region, offset;
} places[] = {
    { 0, 0x000 }, { 0, 0x010 }, { 0, 0x014 }, { 0, 0x018 }, { 0, 0x020 }, { 0, 0x024 }, { 0, 0x028 }, { 0, 0x030 },
    { 0, 0x040 }, { 0, 0x048 }, { 0, 0x050 }, { 0, 0x058 }, { 0, 0x0fc }, { 0, 0x1f8 }, { 0, 0xff8 }, { 0, 0xffc },
    { 2, 0x000 }, { 2, 0xff000 }, { 6, 0x000 }, { 6, 0x3ff0 }, { 6, 0x4ffe }, { 7, 0x000 }, { 7, 0x0f8 }, { 1, 0 },
};

/* Mostly where something is, and of usual sizes. */
static wire_place take_place(input *from)
{
    uint64_t where = take(from, 1), count = take(from, 1);
    wire_place place;

    if (where < 0xf0) {
        place.region = places[where % 24].region;
        place.offset = places[where % 24].offset + where / 24;
    } else {
        place.region = (uint32_t)take(from, where & 1 ? 1 : 4);
        place.offset = take(from, 8);
    }
    if (count < 0x80)
        place.count = 1u << count % 4;
    else if (count < 0xe0)
        place.count = (uint32_t)(count - 0x80) + 1;
    else if (count < 0xff)
        place.count = (uint32_t)take(from, 2);
    else
        place.count = (uint32_t)take(from, 4) % (MAX_DATA + 2);
    return place;
}

static void put_data(input *from, uint8_t *at, size_t size)
{
    uint64_t first = take(from, 2);

    for (size_t i = 0; i < size; i++)
        at[i] = (uint8_t)(first >> 8 * (i % 2)) ^ (uint8_t)(i & 0xfe);
}

static void put_header(uint16_t command, size_t size, uint32_t flags)
{
    const wire header = { .id = next_id++, .command = command, .size = (uint32_t)size, .flags = flags };

    memcpy(message, &header, sizeof(header));
}

static size_t make_access(input *from, bool write, uint32_t flags)
{
    wire_place place = take_place(from);
    size_t data = write && place.count <= MAX_DATA ? place.count : 0;

    memcpy(message + HEADER, &place, sizeof(place));
    put_data(from, message + ACCESS, data);
    put_header(write ? REGION_WRITE : REGION_READ, ACCESS + data, flags);
    return ACCESS + data;
}

static size_t make_multi(input *from, uint32_t flags)
{
    uint64_t count = take(from, 1) % 16;

    for (uint64_t i = 0; i < count; i++) {
        uint8_t *at = message + HEADER + 8 + i * MULTI;
        wire_place place = take_place(from);

        memcpy(at, &place, sizeof(place));
        put_data(from, at + sizeof(place), 8);
    }
    put_header(REGION_WRITE_MULTI, HEADER + 8 + count * MULTI, flags);
    if (take(from, 1) == 0xff)
        count = take(from, 8);
    memcpy(message + HEADER, &count, sizeof(count));
    return ((wire *)message)->size;
}

/* Mostly of what there is, with room that is close to what is needed. */
static size_t make_describe(input *from, uint32_t flags)
{
    static const uint16_t commands[] = { GET_INFO, GET_REGION_INFO, GET_IRQ_INFO };
    uint64_t what = take(from, 1), room = take(from, 1);
    size_t length = take(from, 1) % 48;
    uint32_t body[12] = { (uint32_t)room, 0, (uint32_t)(what >> 4) };

    if (room == 0xff)
        body[0] = (uint32_t)take(from, 4);
    if (what >> 4 == 0xf)
        body[2] = (uint32_t)take(from, 4);
    memcpy(message + HEADER, body, length);
    put_header(commands[what % 3], HEADER + length, flags);
    return HEADER + length;
}

/* Any command, with any body of the length that the header says. */
static size_t make_any(input *from)
{
    uint16_t command = (uint16_t)take(from, 1) % 20;
    uint32_t flags = take(from, 1) & 0x31;
    size_t size = HEADER + (take(from, 1) & 0x80 ? take(from, 2) : take(from, 1) % 64);

    put_data(from, message + HEADER, size - HEADER);
    put_header(command, size, flags);
    return size;
}

static size_t make_message(input *from)
{
    uint64_t kind = take(from, 1);
    uint32_t flags = kind & 0x80 ? NO_REPLY : 0;

    switch (kind & 0x7f) {
    case 0:
        put_header(VERSION, HEADER + 4, 0);
        memset(message + HEADER, 0, 4);
        return HEADER + 4;
    case 1:
        return make_any(from);
    case 2:
        return make_multi(from, flags);
    case 3:
        return make_describe(from, flags);
    default:
        return make_access(from, kind & 1, flags);
    }
}

/* Python sees VERSION in its turn: what comes behind it is expected to find the session negotiated. */
static bool negotiates(connection *client)
{
    const wire *header = (const wire *)message;

    return !client->negotiated && header->command == VERSION && (header->flags & TYPE) != REPLY;
}

static void send_message(connection *client, size_t size, input *from)
{
    uint64_t how = take(from, 1), cut = how & 3 ? size : take(from, 2) % size;
    unsigned fds = how < 0xe0 ? 0 : how < 0xf0 ? 1 : (unsigned)take(from, 1) % 254;

    if (client->client < 0 || client->left || !client->whole)
        return;
    if (how == 0) {
        client->whole = false; /* the rest never comes, or other bytes come in its place */
        client->model.exact = client->model.exact && cut == 0;
        transmit(client, message, cut, fds);
        return;
    }
    expect_message(&client->model, client->device, client->negotiated, message);
    transmit(client, message, cut, fds);
    if (cut < size) {
        pump(3);
        transmit(client, message + cut, size - cut, 0);
    }
    if (negotiates(client))
        quiesce();
}

static void flood(connection *client, input *from)
{
    size_t size = make_message(from), count = take(from, 2);

    if (client->client < 0 || client->left || !client->whole || negotiates(client))
        return;
    count %= size > 256 ? 8 : count < 0x1000 ? 1500 : 100;
    for (size_t i = 0; i < count; i++) {
        expect_message(&client->model, client->device, client->negotiated, message);
        transmit(client, message, size, 0);
    }
}

static void send_garbage(connection *client, input *from)
{
    size_t size = take(from, 1) % 64;

    client->model.exact = false;
    for (size_t i = 0; i < size; i++)
        message[i] = (uint8_t)take(from, 1);
    transmit(client, message, size, (unsigned)take(from, 1) % 20);
}

static void reopen(connection *client, input *from)
{
    uint64_t how = take(from, 1);

    if (how & 2 && client->session)
        return;
    hang_up(client);
    connect_client(client, how & 1);
}

static void act(input *from)
{
    uint64_t what = take(from, 1);
    connection *client = &connections[what >> 7];

    switch (what & 0x1f) {
    case 0:
        reopen(client, from);
        break;
    case 1:
        pump((unsigned)take(from, 1));
        break;
    case 2:
        drain(client, take(from, 3));
        break;
    case 3:
        ask(client, what & 0x20, take(from, 2));
        break;
    case 4:
        client->late = what & 0x20;
        settle(client);
        break;
    case 5:
        flood(client, from);
        break;
    case 6:
        if (what & 0x60)
            break;
        send_garbage(client, from);
        break;
    case 7:
        if (client->client >= 0 && !(what & 0x60)) {
            client->left = true;
            shutdown(client->client, take(from, 1) % 3);
        }
        break;
    case 8:
        if (client->client >= 0 && !(what & 0x60)) {
            client->left = true;
            client->whole = false;
            close(client->client);
            client->client = -1;
        }
        break;
    case 9:
        settle(client);
        pump(1000);
        break;
    case 10:
    case 11:
    case 12:
    case 13:
    case 14:
    case 15:
        maps_act(from);
        break;
    default:
        send_message(client, make_message(from), from);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input from = { data, size };

    next_id = 0;
    world_begin();
    maps_begin();
    connect_client(&connections[0], true);
    for (int i = 0; i < MAX_ACTS && from.size; i++)
        act(&from);
    maps_end();
    world_end();
    return 0;
}
