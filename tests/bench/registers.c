/* Operations on registers: read, write, posted, in flight, with an interrupt, and in mapped memory. */
#define _GNU_SOURCE
#include "client.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { TURNS = 64 }; /* round trips between two looks at the clock */

static void scratch(client *client)
{
    access_write(client, REG_SCRATCH, PATTERN);
}

static void handled(client *client)
{
    access_write(client, REG_HANDLED, PATTERN);
}

static uint64_t read_at(client *client, uint32_t offset)
{
    for (int i = 0; i < TURNS; i++) {
        uint32_t value = access_read(client, offset);

        if (value != PATTERN)
            die("a read must find %#x, not %#x", PATTERN, value);
    }
    return TURNS;
}

static uint64_t run_read(client *client)
{
    return read_at(client, REG_SCRATCH);
}

static uint64_t run_handled_read(client *client)
{
    return read_at(client, REG_HANDLED);
}

static uint64_t write_at(client *client, uint32_t offset)
{
    for (int i = 0; i < TURNS; i++)
        access_write(client, offset, PATTERN);
    return TURNS;
}

static uint64_t run_write(client *client)
{
    return write_at(client, REG_SCRATCH);
}

static uint64_t run_handled_write(client *client)
{
    return write_at(client, REG_HANDLED);
}

/* What was written last must be there, and the server must have counted as many. */
static void written(client *client)
{
    uint32_t value = access_read(client, REG_SCRATCH);

    if (value != PATTERN)
        die("the register must hold %#x, not %#x", PATTERN, value);
}

static uint64_t post(client *client, uint32_t at_once)
{
    uint32_t before = client->limit ? 0 : access_read(client, REG_WRITES), after;
    message batch[BATCH];

    for (uint32_t i = 0; i < at_once; i++) {
        batch[i] = access_request(client, REGION_WRITE, REG_SCRATCH, PATTERN);
        batch[i].header.flags = F_NO_REPLY;
    }
    /* Messages are LONG bytes on the wire. */
    uint8_t wire[BATCH * LONG];
    for (uint32_t i = 0; i < at_once; i++)
        memcpy(wire + i * LONG, &batch[i], LONG);
    for (uint32_t sent = 0; sent < CHUNK; sent += at_once)
        send_all(client->socket, wire, at_once * LONG, -1);
    access_write(client, REG_SCRATCH, PATTERN); /* its answer comes when all are done */
    if (!client->limit) {
        after = access_read(client, REG_WRITES);
        if (after - before != CHUNK + 1)
            die("the server must have seen %d writes, not %u", CHUNK + 1, after - before);
    }
    return CHUNK;
}

static uint64_t run_posted(client *client)
{
    return post(client, 1);
}

/* An answer that does not come is to end the client, as it ends QEMU's. */
static void prepare_bursts(client *client)
{
    struct timeval longest = { .tv_sec = 5 };

    if (setsockopt(client->socket, SOL_SOCKET, SO_RCVTIMEO, &longest, sizeof(longest)) < 0)
        die("cannot bound the wait for an answer: %s", strerror(errno));
}

/* One burst of tests/soak/bursts.py: the first write keeps the device busy, and the read comes at about its end. */
static uint64_t run_burst(client *client)
{
    uint32_t value = client->count++ & 0xffff;
    message write = access_request(client, REGION_WRITE, REG_HANDLED, value | 1u << 31);
    double moment = now() + 250e-6 + rand() % 20000 * 1e-8;

    write.header.flags = F_NO_REPLY;
    for (int left = 140 + rand() % 100; left; left--) {
        send_all(client->socket, &write, LONG, -1);
        write.data = value;
    }
    while (now() < moment)
        ;
    if (access_read(client, REG_HANDLED) != value)
        die("a read must find what was written last, %#x", value);
    return 1;
}

/* The device counts its reads: each must be done once. */
static void counted(client *client, uint32_t value)
{
    if (value != client->count++)
        die("read %u must be the only one that finds that, not one that finds %u", client->count - 1, value);
}

static void prepare_turns(client *client)
{
    prepare_bursts(client);
    client->count = access_read(client, REG_READS) + 1;
}

/* One turn of tests/soak/turns.py: reads, and something else behind them. */
static uint64_t run_turn(client *client)
{
    message pair[2] = { access_request(client, REGION_READ, REG_READS, 0) }, reply;
    size_t piece = 1 + (size_t)rand() % (SHORT - 1);
    uint32_t value = (uint32_t)rand();
    double moment;

    for (int i = 0; i < TURNS; i++)
        counted(client, access_read(client, REG_READS));
    switch (rand() % 6) {
    case 0: /* a descriptor beside it */
        send_all(client->socket, pair, SHORT, STDIN_FILENO);
        break;
    case 1: /* in two pieces */
        send_all(client->socket, pair, piece, -1);
        for (moment = now() + 2e-6; now() < moment;)
            ;
        send_all(client->socket, (char *)pair + piece, SHORT - piece, -1);
        break;
    case 2: /* two at once */
        pair[1] = access_request(client, REGION_READ, REG_READS, 0);
        memmove((char *)pair + SHORT, &pair[1], SHORT);
        send_all(client->socket, pair, 2 * SHORT, -1);
        receive_all(client->socket, &reply, LONG, client->poll);
        access_check(pair, &reply, LONG);
        counted(client, reply.data);
        memmove(pair, (char *)pair + SHORT, SHORT);
        break;
    case 3: /* behind a write that nobody answers */
        reply = access_request(client, REGION_WRITE, REG_SCRATCH, value);
        reply.header.flags = F_NO_REPLY;
        send_all(client->socket, &reply, LONG, -1);
        send_all(client->socket, pair, SHORT, -1);
        break;
    case 4: /* behind a write that is answered */
        access_write(client, REG_SCRATCH, value);
        send_all(client->socket, pair, SHORT, -1);
        break;
    default: /* behind one that Python answers */
        (void)access_read(client, REG_HANDLED);
        client->count++;
        send_all(client->socket, pair, SHORT, -1);
    }
    if (!receive_all(client->socket, &reply, LONG, client->poll))
        die("the server left");
    access_check(pair, &reply, LONG);
    counted(client, reply.data);
    return 1;
}

static uint64_t run_batched(client *client)
{
    return post(client, BATCH);
}

static uint64_t run_in_flight(client *client)
{
    message requests[BATCH], reply;

    for (int i = 0; i < BATCH; i++) {
        requests[i] = access_request(client, REGION_READ, REG_SCRATCH, 0);
        send_all(client->socket, &requests[i], SHORT, -1);
    }
    for (int i = 0; i < BATCH; i++) {
        receive_all(client->socket, &reply, LONG, client->poll);
        access_check(&requests[i], &reply, LONG);
        if (reply.data != PATTERN)
            die("a read must find %#x, not %#x", PATTERN, reply.data);
    }
    return BATCH;
}

static uint64_t run_interrupt(client *client)
{
    for (int i = 0; i < TURNS; i++) {
        uint64_t signals = 0;

        access_write(client, REG_INTERRUPT, 0);
        while (read(client->eventfd, &signals, sizeof(signals)) < 0 && errno == EAGAIN)
            ;
        if (signals != 1)
            die("a write must raise one interrupt, not %llu", (unsigned long long)signals);
    }
    return TURNS;
}

static void prepare_window(client *client)
{
    access_write(client, REG_POLL, 1);
}

static void finish_window(client *client)
{
    access_write(client, REG_POLL, 0);
}

static uint64_t run_window(client *client)
{
    _Atomic uint32_t *bell = (_Atomic uint32_t *)client->window;
    _Atomic uint32_t *answer = (_Atomic uint32_t *)(client->window + ECHO_AT);

    for (int i = 0; i < TURNS; i++) {
        double begun = 0;

        atomic_store_explicit(bell, ++client->count, memory_order_release);
        for (uint32_t looks = 1; atomic_load_explicit(answer, memory_order_acquire) != client->count; looks++) {
            if (looks % (1 << 20))
                continue;
            if (!begun)
                begun = now();
            else if (now() - begun > 5)
                die("the ring was not answered within 5 seconds");
        }
    }
    return TURNS;
}

const operation register_operations[] = {
    { "read", { SHORT, LONG, 1, 0 }, scratch, run_read, NULL },
    { "write", { LONG, SHORT, 1, 0 }, NULL, run_write, written },
    { "handled-read", { SHORT, LONG, 1, 0 }, handled, run_handled_read, NULL },
    { "handled-write", { LONG, SHORT, 1, 0 }, NULL, run_handled_write, NULL },
    { "posted", { LONG, SHORT, CHUNK + 1, 0 }, NULL, run_posted, written },
    { "bursts", { 0 }, prepare_bursts, run_burst, NULL },
    { "turns", { 0 }, prepare_turns, run_turn, NULL },
    { "posted-batched", { LONG, SHORT, CHUNK + 1, 0 }, NULL, run_batched, written },
    { "reads-in-flight", { SHORT, LONG, 1, 0 }, scratch, run_in_flight, NULL },
    { "interrupt", { LONG, SHORT, 1, PLAN_EVENT, 0 }, session_enable_msix, run_interrupt, NULL },
    { "mapped-doorbell", { 0, 0, 0, PLAN_WINDOW, 0 }, prepare_window, run_window, finish_window },
    { "kit-doorbell", { 0, 0, 0, PLAN_WINDOW, 0 }, session_enable, run_window, NULL },
    { 0 },
};
