/*
 * Fuzzes whole sessions, on either engine. The input is a list of acts: of clients, which send good and bad messages, in pieces, with
 * descriptors, in floods, and read when they like; and of Python, which answers early or late, and asks the clients.
 * As long as a client's messages are whole, the model says what every byte that comes back must be.
 */
#include "fuzz.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    MAX_ACTS = 128,
    EFFORT = 8 << 20, /* bytes moved, after which only small accesses are made */
    BIG = 4096,
};

const size_t record_size = 16;


static uint8_t message[MAX_MESSAGE + 64];
static uint16_t next_id;
static size_t effort;

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
    effort += place.count;
    if (effort > EFFORT)
        place.count %= BIG;
    return place;
}

static void put_data(input *from, uint8_t *at, size_t size)
{
    uint64_t first = take(from, 2);

    for (size_t i = 0; i < size; i++)
        at[i] = (uint8_t)(first >> 8 * (i % 2)) ^ (uint8_t)(i & 0xfe);
}

/* Ids that no request of ours has: a reply that is made here is to none. */
static void put_header(uint16_t command, size_t size, uint32_t flags)
{
    const wire header = { .id = next_id++ | 0x8000, .command = command, .size = (uint32_t)size, .flags = flags };

    memcpy(message, &header, sizeof(header));
}

/* `wrong`: with some bytes more or less than its count. */
static size_t make_access(input *from, bool write, uint32_t flags, bool wrong)
{
    wire_place place = take_place(from);
    size_t data = write && place.count <= MAX_DATA ? place.count : 0;

    if (wrong)
        data = data > 16 ? data - take(from, 1) % 16 : take(from, 1) % 24;
    memcpy(message + HEADER, &place, sizeof(place));
    put_data(from, message + ACCESS, data);
    put_header(write ? REGION_WRITE : REGION_READ, ACCESS + data, flags);
    return ACCESS + data;
}

static size_t make_multi(input *from, uint32_t flags)
{
    uint64_t count = take(from, 1) % 16, shape;

    for (uint64_t i = 0; i < count; i++) {
        uint8_t *at = message + HEADER + 8 + i * MULTI;
        wire_place place = take_place(from);

        memcpy(at, &place, sizeof(place));
        put_data(from, at + sizeof(place), 8);
    }
    put_header(REGION_WRITE_MULTI, HEADER + 8 + count * MULTI, flags);
    shape = take(from, 1);
    if (shape == 0xff)
        count = take(from, 8);
    else if (shape >= 0xf0)
        count += shape % 4 - 1; /* not what there is */
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
        return make_access(from, kind & 1, flags, kind & 0x40);
    }
}

/* Python sees VERSION in its turn: what comes behind it is expected to find the session negotiated. */
static bool negotiates(connection *client)
{
    const wire *header = (const wire *)message;

    return !client->negotiated && header->command == VERSION && (header->flags & TYPE) != REPLY;
}

static bool can_send(const connection *client)
{
    return client->client >= 0 && !client->left && client->whole && has_room(&client->model);
}

static void send_message(connection *client, size_t size, input *from)
{
    uint64_t how = take(from, 1), cut = how & 3 ? size : take(from, 2) % size;
    unsigned fds = how < 0xe0 ? 0 : how < 0xf0 ? 1 : (unsigned)take(from, 1) % 254;

    if (!can_send(client))
        return;
    if (how == 0) {
        client->whole = false; /* the rest never comes, or other bytes come in its place */
        client->model.exact = client->model.exact && cut == 0;
        transmit(client, message, cut, fds);
        return;
    }
    fds = transmit(client, message, cut, fds);
    expect_message(&client->model, client->device, client->negotiated, message, fds < 17 ? fds : 17);
    if (cut < size) {
        pump(3, 0);
        transmit(client, message + cut, size - cut, 0);
    }
    if (negotiates(client))
        quiesce();
}

static void flood(connection *client, input *from)
{
    uint64_t many = take(from, 1);
    size_t count = many < 8 ? 1500 : many % 64, size = make_message(from);
    uint32_t asks = ((const wire_place *)(const void *)(message + HEADER))->count;

    if (negotiates(client))
        return;
    if (size > BIG || asks > BIG)
        count %= 32;
    for (size_t i = 0; i < count && can_send(client); i++) {
        transmit(client, message, size, 0);
        expect_message(&client->model, client->device, client->negotiated, message, 0);
        effort += size + (asks <= MAX_DATA ? asks : 0);
        if (effort > EFFORT)
            break;
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

/* What an event loop does besides. */
static void loop(input *from)
{
    uint64_t what = take(from, 1);
    unsigned events;

    switch (what % 8) {
    case 0:
        watch(what & 0x80);
        break;
    case 1:
        ring_watched();
        break;
    case 2:
        CHECK(pvu_poller_submit(poller) == 0);
        break;
    case 3:
        pump(1, -2);
        break;
    case 4:
        pvu_poller_spin(poller, (uint32_t)(what >> 3));
        break;
    default:
        events = (unsigned)take(from, 1);
        pump(events, 1000 * (int64_t)(take(from, 1) % 50));
    }
}

static void act(input *from)
{
    uint64_t what = take(from, 1);
    connection *client = &connections[what >> 7];
    size_t which;

    switch (what & 0x1f) {
    case 0:
        reopen(client, from);
        break;
    case 1:
        pump((unsigned)take(from, 1), 0);
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
        loop(from);
        break;
    case 10:
        if (client->client >= 0 && !(what & 0x60)) {
            transmit_rest(client);
            client->left = true;
            shutdown(client->client, take(from, 1) % 3);
        }
        break;
    case 8:
        if (client->client >= 0 && !(what & 0x60)) {
            transmit_rest(client);
            client->left = true;
            client->whole = false;
            close(client->client);
            client->client = -1;
        }
        break;
    case 9:
        settle(client);
        pump(1000, 0);
        break;
    case 11:
        transfer_begin(client, from);
        break;
    case 12:
        which = (size_t)take(from, 1);
        transfer_answer(client, which, take(from, 1));
        break;
    case 13:
        if (!(what & 0x60))
            transfer_cancel(client, (size_t)take(from, 1));
        break;
    default:
        send_message(client, make_message(from), from);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input from = { data, size }, first = take_record(&from);

    next_id = 0;
    effort = 0;
    world_begin(take(&first, 1) & 1 ? IO_URING : EPOLL);
    pvu_poller_spin(poller, 0);
    connect_client(&connections[0], !(take(&first, 1) & 1));
    for (int i = 0; i < MAX_ACTS && from.size; i++) {
        input record = take_record(&from);

        act(&record);
    }
    world_end();
    return 0;
}
