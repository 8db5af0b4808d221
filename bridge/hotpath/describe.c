/* What a device says of itself: DEVICE_GET_INFO, DEVICE_GET_REGION_INFO and DEVICE_GET_IRQ_INFO, prepared by Python. */
#include "hotpath.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* NULL when there is no such thing. */
static description *find(pvu_device *device, uint32_t command, uint32_t index)
{
    switch (command) {
    case CMD_DEVICE_GET_INFO:
        return &device->info;
    case CMD_DEVICE_GET_REGION_INFO:
        return index < PVU_REGIONS ? &device->region_info[index] : NULL;
    case CMD_DEVICE_GET_IRQ_INFO:
        return index < PVU_IRQS ? &device->irq_info[index] : NULL;
    default:
        return NULL;
    }
}

int pvu_device_describe(pvu_device *device, uint32_t command, uint32_t index, const uint8_t *brief, uint32_t least,
                        const uint8_t *full, uint32_t size, int fd)
{
    description *answer = find(device, command, index);
    uint8_t *bytes;

    if (!answer || least < sizeof(wire_info) || size < least || size > PVU_MAX_TRANSFER)
        return -EINVAL;
    bytes = malloc((size_t)least + size);
    if (!bytes)
        return -ENOMEM;
    memcpy(bytes, brief, least);
    memcpy(bytes + least, full, size);
    free(answer->bytes);
    *answer = (description){ .bytes = bytes, .least = least, .size = size, .fd = fd };
    return 0;
}

void describe_free(pvu_device *device)
{
    free(device->info.bytes);
    for (uint32_t i = 0; i < PVU_REGIONS; i++)
        free(device->region_info[i].bytes);
    for (uint32_t i = 0; i < PVU_IRQS; i++)
        free(device->irq_info[i].bytes);
}

bool describe_answers(uint32_t command)
{
    return command == CMD_DEVICE_GET_INFO || command == CMD_DEVICE_GET_REGION_INFO ||
           command == CMD_DEVICE_GET_IRQ_INFO;
}

/* `argsz` is the client's room for the body: QEMU asks again with as much as the answer says it needs. */
int describe_message(pvu_session *session, const wire_header *header, const uint8_t *body)
{
    size_t length = header->size - sizeof(*header), size = 0;
    const description *answer = NULL;
    wire_info request = { 0 };
    uint8_t *reply;
    bool full, beside;

    if (length >= sizeof(request)) {
        memcpy(&request, body, sizeof(request));
        answer = find(session->device, header->command, request.index);
    }
    if (answer && (!answer->bytes || length < answer->least || request.argsz < answer->least))
        answer = NULL;
    full = answer && request.argsz >= answer->size;
    beside = full && answer->fd >= 0 && !(header->flags & F_NO_REPLY);
    if (answer)
        size = full ? answer->size : answer->least;
    if (beside && session->tx_fd >= 0)
        return ACCESS_BLOCKED;
    reply = session_reserve(session, sizeof(*header) + size);
    if (!reply)
        return ACCESS_BLOCKED;
    if (beside) {
        session->tx_fd = answer->fd;
        session->tx_fd_at = session->tx_tail;
    }
    if (answer)
        memcpy(reply + sizeof(*header), answer->bytes + (full ? answer->least : 0), size);
    session_reply(session, header, sizeof(*header) + size, answer ? 0 : EINVAL);
    return ACCESS_DONE;
}
