/*
 * Fuzzes the receive path: any bytes, in any pieces, with any descriptors. A session must do the same whether its bytes
 * come in one piece or in many, and end at the first message that is none; the input's end says where the bytes are
 * cut, and how many descriptors come with each piece.
 */
#include "fuzz.h"

#include <string.h>

enum { MAX_PIECES = 4096, SOCKET_TAKES = 64 << 10, WHOLE = 0, IN_PIECES = 1, WITH_FDS = 2 };

typedef struct {
    size_t size;
    unsigned fds;
} piece;

typedef struct {
    uint64_t heard, said, said_size;
} outcome;

/* Is there a header that no message can have, behind whole messages? */
static bool malformed(input bytes)
{
    wire header;

    for (; bytes.size >= sizeof(header); bytes.data += header.size, bytes.size -= header.size) {
        memcpy(&header, bytes.data, sizeof(header));
        if (header.size < HEADER || header.size > MAX_MESSAGE || (header.flags & TYPE) > REPLY)
            return true;
        if (header.size > bytes.size)
            return false;
    }
    return false;
}

static outcome run(input bytes, int engine, bool negotiated, const piece *pieces, size_t count, int way)
{
    connection *client = &connections[0];
    bool ends = malformed(bytes);
    outcome came;

    world_begin(engine);
    connect_client(client, negotiated);
    client->model.exact = false;
    if (way == WHOLE)
        transmit(client, bytes.data, bytes.size, 0);
    for (size_t i = 0; way != WHOLE && i < count; i++) {
        transmit(client, bytes.data, pieces[i].size, way == WITH_FDS ? pieces[i].fds : 0);
        bytes.data += pieces[i].size;
        quiesce();
    }
    quiesce();
    CHECK((client->session == NULL) == ends);
    came.heard = client->heard;
    came.said = client->said;
    came.said_size = client->said_size;
    world_end();
    return came;
}

static uint8_t last_byte(input *from)
{
    return (uint8_t)(from->size ? from->data[--from->size] : 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static piece pieces[MAX_PIECES];
    input bytes = { data, size };
    uint8_t kind = last_byte(&bytes);
    bool negotiated = kind & 1;
    int engine = kind & 2 ? IO_URING : EPOLL;
    size_t count = 0, at = 0;
    outcome whole, cut;

    while (at < bytes.size && count < MAX_PIECES) {
        uint8_t how = last_byte(&bytes);
        unsigned fds = how & 0x80 ? last_byte(&bytes) % 24 : 0;
        size_t rest = bytes.size > at ? bytes.size - at : 0, length = how & 0x7f;

        pieces[count++] = (piece){ length && length < rest ? length : rest, fds };
        at += pieces[count - 1].size;
    }
    bytes.size = at;
    run(bytes, engine, negotiated, pieces, count, WITH_FDS);
    cut = run(bytes, engine, negotiated, pieces, count, IN_PIECES);
    whole = run(bytes, engine, negotiated, pieces, count, WHOLE);
    CHECK(whole.heard == cut.heard);
    /* Before a malformed message ends it, a session says what the socket takes. */
    CHECK(whole.said == cut.said || cut.said_size > SOCKET_TAKES);
    return 0;
}
