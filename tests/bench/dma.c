/* DMA operations: through the mapping, against memcpy; and by message. */
#define _GNU_SOURCE
#include "client.h"

#include <string.h>
#include <time.h>

enum { AT_ONCE = 32 << 20, MESSAGES = 64, SPARE = MAX_DMA / 2 };

typedef struct {
    header header;
    uint64_t address, count;
} dma_message;

static void wait_done(client *client)
{
    struct timespec while_going = { .tv_nsec = 100000 };
    uint32_t status;

    while ((status = access_read(client, REG_STATUS)) == 0xffffffff)
        nanosleep(&while_going, NULL);
    if (status)
        die("the device's DMA ended with status %u", status);
}

static void aim(client *client, uint32_t offset)
{
    access_write(client, REG_ADDRESS, RAM + offset);
    access_write(client, REG_ADDRESS + 4, 0);
    access_write(client, REG_LENGTH, client->length);
}

/* Answers one DMA_READ or DMA_WRITE whose first bytes are there; the data bytes that it moved. */
static uint64_t serve_dma(client *client, const dma_message *request)
{
    uint64_t offset = request->address - RAM, count = request->count;
    dma_message *reply = (dma_message *)client->buffer;

    if (request->address < RAM || offset > MAX_DMA || count > MAX_DMA - offset)
        die("the device must stay in the memory it was given, not access %#llx", (unsigned long long)request->address);
    if (request->header.command == DMA_WRITE)
        receive_all(client->socket, client->ram + offset, count, client->poll);
    *reply = *request;
    reply->header.flags = F_REPLY;
    if (request->header.command == DMA_READ) {
        memcpy(reply + 1, client->ram + offset, count);
        reply->header.size = (uint32_t)(sizeof(*reply) + count);
    } else {
        reply->header.size = sizeof(*reply);
    }
    send_all(client->socket, reply, reply->header.size, -1);
    return count;
}

/* A command by message, and all that the device asks for: before the write is answered, or after it. */
static void exchange(client *client, uint32_t command, uint32_t times)
{
    message request = access_request(client, REGION_WRITE, REG_COMMAND, command | times << 8);
    uint64_t left = (uint64_t)client->length * times;
    bool answered = false;
    dma_message incoming;

    send_all(client->socket, &request, LONG, -1);
    while (left || !answered) {
        if (!receive_all(client->socket, &incoming, sizeof(incoming), client->poll))
            die("the server left");
        if (incoming.header.flags & F_REPLY) {
            access_check(&request, (message *)&incoming, SHORT);
            answered = true;
        } else {
            left -= serve_dma(client, &incoming);
        }
    }
    wait_done(client);
}

static void verify(client *client)
{
    if (memcmp(client->ram, client->ram + SPARE, client->length))
        die("the device must write what it read");
}

static void prepare_mapped(client *client)
{
    session_give_memory(client, true);
    aim(client, 0);
    access_write(client, REG_COMMAND, 3);
    wait_done(client);
}

static void finish_mapped(client *client)
{
    aim(client, SPARE);
    access_write(client, REG_COMMAND, 4);
    wait_done(client);
    verify(client);
}

static uint64_t run_mapped(client *client, uint32_t command)
{
    uint32_t times = AT_ONCE / client->length;

    access_write(client, REG_COMMAND, command | times << 8);
    if (client->limit)
        access_write(client, REG_STATUS, 0); /* a device's status is asked for */
    else
        wait_done(client);
    return times;
}

static uint64_t run_mapped_read(client *client)
{
    return run_mapped(client, 3);
}

static uint64_t run_mapped_write(client *client)
{
    return run_mapped(client, 4);
}

static void prepare_messages(client *client)
{
    session_give_memory(client, false);
    aim(client, 0);
    exchange(client, 1, 1);
}

static void finish_messages(client *client)
{
    aim(client, SPARE);
    exchange(client, 2, 1);
    verify(client);
}

/* The same bytes, without a protocol: a large message that has a small answer. */
static uint64_t run_message_read(client *client)
{
    dma_message *data = (dma_message *)client->buffer, reply;

    if (!client->limit) {
        exchange(client, 1, MESSAGES);
        return MESSAGES;
    }
    for (int i = 0; i < MESSAGES; i++) {
        memcpy(data + 1, client->ram, client->length);
        data->header.id = client->id++;
        send_all(client->socket, data, sizeof(*data) + client->length, -1);
        receive_all(client->socket, &reply, sizeof(reply), client->poll);
        if (reply.header.id != data->header.id)
            die("a reply must repeat its request's id %u, not be %u", data->header.id, reply.header.id);
    }
    return MESSAGES;
}

static uint64_t run_message_write(client *client)
{
    dma_message request = { 0 }, reply;

    if (!client->limit) {
        exchange(client, 2, MESSAGES);
        return MESSAGES;
    }
    for (int i = 0; i < MESSAGES; i++) {
        request.header.id = client->id++;
        send_all(client->socket, &request, sizeof(request), -1);
        receive_all(client->socket, &reply, sizeof(reply), client->poll);
        receive_all(client->socket, client->ram, client->length, client->poll);
        if (reply.header.id != request.header.id)
            die("a reply must repeat its request's id %u, not be %u", request.header.id, reply.header.id);
    }
    return MESSAGES;
}

const operation dma_operations[] = {
    { "dma-mapped-read", { LONG, SHORT, 1, PLAN_COPY, 0 }, prepare_mapped, run_mapped_read, finish_mapped },
    { "dma-mapped-write", { LONG, SHORT, 1, PLAN_COPY, 0 }, prepare_mapped, run_mapped_write, finish_mapped },
    { "dma-message-read", { .request = SHORT + 1, .reply = SHORT, .every = 1 }, prepare_messages, run_message_read,
      finish_messages },
    { "dma-message-write", { .request = SHORT, .reply = SHORT + 1, .every = 1 }, prepare_messages, run_message_write,
      finish_messages },
    { 0 },
};
