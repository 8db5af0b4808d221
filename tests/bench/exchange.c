/* One access, its reply checked. */
#include "client.h"

#include <string.h>

message access_request(client *client, uint16_t command, uint32_t offset, uint32_t value)
{
    return (message){
        .header = { .id = client->id++, .command = command, .size = command == REGION_READ ? SHORT : LONG },
        .offset = offset,
        .count = 4,
        .data = value,
    };
}

void access_check(const message *request, const message *reply, uint32_t size)
{
    if (reply->header.flags & F_ERROR)
        die("the server answered with error %u", reply->header.error);
    if (reply->header.id != request->header.id || reply->header.command != request->header.command ||
        reply->header.size != size || reply->header.flags != F_REPLY || reply->offset != request->offset ||
        reply->region != request->region || reply->count != request->count)
        die("a reply must repeat its request, not be id %u, command %u, %u bytes, flags %#x for id %u, command %u",
            reply->header.id, reply->header.command, reply->header.size, reply->header.flags, request->header.id,
            request->header.command);
}

uint32_t access_read(client *client, uint32_t offset)
{
    message request = access_request(client, REGION_READ, offset, 0), reply;

    send_all(client->socket, &request, SHORT, -1);
    if (!receive_all(client->socket, &reply, LONG, client->poll))
        die("the server left");
    access_check(&request, &reply, LONG);
    return reply.data;
}

void access_write(client *client, uint32_t offset, uint32_t value)
{
    message request = access_request(client, REGION_WRITE, offset, value), reply;

    send_all(client->socket, &request, LONG, -1);
    if (!receive_all(client->socket, &reply, SHORT, client->poll))
        die("the server left");
    access_check(&request, &reply, SHORT);
}
