/* Python's side and the client's side of connections, and what must hold between them. */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    OUT_SIZE = 4 << 20,
    FDS_CHECKED = 64,
    MANY = 200000, /* rounds after which there must be nothing left to do */
};

pvu_poller *poller;
connection connections[CONNECTIONS];
static bool open_before[FDS_CHECKED];

static uint64_t hash(uint64_t before, const void *data, size_t size)
{
    const uint8_t *bytes = data;

    for (size_t i = 0; i < size; i++)
        before = (before ^ bytes[i]) * 0x100000001b3;
    return before;
}

void world_begin(void)
{
    for (size_t i = 0; i < CONNECTIONS; i++) {
        connection *each = &connections[i];

        if (!each->device) {
            each->device = device_new();
            each->out = malloc(OUT_SIZE);
            each->in = malloc(MAX_MESSAGE);
            CHECK(each->out && each->in);
        }
        each->client = -1;
        each->heard = each->said = each->said_size = 0;
    }
    for (int fd = 0; fd < FDS_CHECKED; fd++)
        open_before[fd] = fcntl(fd, F_GETFD) >= 0;
    poller = pvu_poller_new();
    CHECK(poller);
}

void connect_client(connection *connection, bool negotiated)
{
    int ends[2];

    CHECK(!connection->session && connection->client < 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    device_reset(connection->device);
    connection->recorder = pvu_recorder_new(64);
    CHECK(connection->recorder);
    connection->native = pvu_device_new(connection->recorder);
    CHECK(connection->native);
    for (uint32_t n = 0; n < REGIONS; n++)
        if (connection->device->regions[n])
            CHECK(pvu_device_set_region(connection->native, n, connection->device->regions[n]) == 0);
    device_describe(connection->native);
    connection->session = pvu_session_new(poller, connection->native, ends[0], (uint32_t)(connection - connections));
    CHECK(connection->session);
    connection->client = ends[1];
    connection->negotiated = negotiated;
    if (negotiated)
        pvu_session_negotiated(connection->session);
    connection->model.exact = true;
    connection->model.event_head = connection->model.event_tail = 0;
    connection->model.reply_head = connection->model.reply_tail = 0;
    connection->late = connection->left = false;
    connection->owed = PVU_NONE;
    connection->whole = true;
    connection->asked = connection->seen = 0;
    connection->out_head = connection->out_tail = connection->in_size = 0;
}

static void forget(connection *connection)
{
    if (!connection->session)
        return;
    pvu_session_free(connection->session);
    connection->session = NULL;
    free(connection->message);
    connection->message = NULL;
    connection->owed = PVU_NONE;
    pvu_device_free(connection->native);
    pvu_recorder_free(connection->recorder);
}

void hang_up(connection *connection)
{
    if (connection->client >= 0)
        close(connection->client);
    connection->client = -1;
    forget(connection);
}

/* Python */

static void heed(connection *connection, happening event)
{
    model *model = &connection->model;

    connection->heard = hash(connection->heard, &event, sizeof(event));
    if (!model->exact)
        return;
    CHECK(model->event_head < model->event_tail);
    CHECK(memcmp(&model->events[model->event_head++], &event, sizeof(event)) == 0);
}

static void answer(connection *connection)
{
    uint8_t reply[HEADER];
    wire header;
    size_t size = answer_message(connection->message, reply);

    memcpy(&header, connection->message, sizeof(header));
    if (header.command == VERSION && (header.flags & TYPE) != REPLY && !connection->negotiated) {
        pvu_session_negotiated(connection->session);
        connection->negotiated = true;
    }
    free(connection->message);
    connection->message = NULL;
    if (size) {
        int status = pvu_session_send(connection->session, reply, size);

        /* There is room for an answer, unless we ask a lot before it. */
        CHECK(status == 0 || status == -EPIPE || (status == -ENOBUFS && connection->asked));
        if (status)
            connection->model.exact = false;
    }
    pvu_session_finish(connection->session, 0);
}

void settle(connection *connection)
{
    int owed = connection->owed;
    happening asked = connection->question;

    connection->owed = PVU_NONE;
    if (owed == PVU_MESSAGE)
        answer(connection);
    else if (owed == PVU_READ && asked.hook != 4 && !hook_status(asked.hook, 0))
        pvu_session_finish_read(connection->session, hook_value(asked.hook));
    else if (owed != PVU_NONE)
        pvu_session_finish(connection->session, hook_status(asked.hook, asked.value));
}

static void take_message(connection *connection, const pvu_event *event)
{
    CHECK(event->size >= HEADER && event->size <= MAX_MESSAGE && event->fd_count <= 16);
    connection->message = malloc(event->size);
    CHECK(connection->message);
    memcpy(connection->message, (const void *)(uintptr_t)event->data, event->size);
    for (uint32_t i = 0; i < event->fd_count; i++)
        CHECK(close(event->fds[i]) == 0);
}

static void take_records(connection *connection)
{
    const pvu_record *first;
    size_t count = pvu_recorder_peek(connection->recorder, &first);

    for (size_t i = 0; i < count; i++) {
        CHECK(first[i].size >= 1 && first[i].size <= 8 && first[i].region < REGIONS && first[i].write <= 1);
        CHECK(first[i].offset + first[i].size <= connection->device->sizes[first[i].region]);
        CHECK(!i || first[i].sequence == first[i - 1].sequence + 1);
    }
    pvu_recorder_take(connection->recorder, count);
}

static void handle(int kind, const pvu_event *event)
{
    connection *connection = &connections[event->token];
    const pvu_ring *rings = (const pvu_ring *)(uintptr_t)event->data;
    happening what = { .kind = kind, .region = event->region, .hook = event->hook, .offset = event->offset,
                       .size = event->size, .value = event->value };

    CHECK(event->token < CONNECTIONS && connection->session && connection->owed == PVU_NONE);
    switch (kind) {
    case PVU_DOORBELLS:
        for (uint64_t i = 0; i < event->size; i++)
            heed(connection, (happening){ .kind = kind, .region = rings[i].region, .hook = rings[i].hook,
                                          .value = rings[i].value });
        return;
    case PVU_CLOSED:
        CHECK(connection->left || !connection->model.exact);
        forget(connection);
        return;
    case PVU_MESSAGE:
        what = (happening){ .kind = kind, .size = event->size };
        take_message(connection, event);
        break;
    case PVU_WRITE:
        connection->heard = hash(connection->heard, (const void *)(uintptr_t)event->data, event->size);
        break;
    default:
        CHECK(kind == PVU_READ);
        CHECK(what.value == 0);
    }
    heed(connection, what);
    take_records(connection);
    connection->question = what;
    connection->owed = kind;
    if (!connection->late)
        settle(connection);
}

unsigned pump(unsigned events)
{
    unsigned handled = 0;

    for (; handled < events; handled++) {
        int kind = pvu_poller_next(poller, 0);

        if (kind == PVU_NONE)
            break;
        handle(kind, pvu_poller_event(poller));
    }
    return handled;
}

void ask(connection *connection, bool write, size_t size)
{
    static uint8_t message[HEADER + 16 + (64 << 10)];
    wire header = { .id = connection->asked, .command = write ? DMA_WRITE : DMA_READ, .flags = 0 };
    int status;

    if (!connection->session)
        return;
    header.size = (uint32_t)(HEADER + 16 + (write ? size : 0));
    memcpy(message, &header, sizeof(header));
    memset(message + HEADER, 0xd1, header.size - HEADER);
    status = pvu_session_send(connection->session, message, header.size);
    CHECK(status == 0 || status == -ENOBUFS || (status == -EPIPE && (connection->left || !connection->model.exact)));
    if (status == 0)
        connection->asked++;
}

/* The client */

static void flush_out(connection *connection)
{
    while (connection->out_head < connection->out_tail) {
        ssize_t sent = send(connection->client, connection->out + connection->out_head,
                            connection->out_tail - connection->out_head, MSG_NOSIGNAL);

        if (sent < 0) {
            if (errno != EAGAIN)
                connection->left = true;
            return;
        }
        connection->out_head += (size_t)sent;
    }
    connection->out_head = connection->out_tail = 0;
}

void transmit(connection *connection, const void *data, size_t size, unsigned fds)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(253 * sizeof(int))] = { 0 };
    struct iovec part = { .iov_base = (void *)(uintptr_t)data, .iov_len = size };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
    ssize_t sent = 0;

    if (connection->client < 0 || !size)
        return;
    flush_out(connection);
    if (fds) {
        struct cmsghdr *rights;

        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(fds * sizeof(int));
        rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(fds * sizeof(int)); /* zeros: that many times standard input */
    }
    if (!connection->out_tail)
        sent = sendmsg(connection->client, &message, MSG_NOSIGNAL);
    if (sent < 0)
        sent = 0;
    size -= (size_t)sent;
    if (connection->out_tail + size > OUT_SIZE) {
        connection->model.exact = false; /* the client gives up on it */
        return;
    }
    memcpy(connection->out + connection->out_tail, (const uint8_t *)data + sent, size);
    connection->out_tail += size;
}

/* Only whole messages of which the hot path's rules hold may come back. */
static void check_message(connection *connection, const uint8_t *message)
{
    model *model = &connection->model;
    wire header;

    memcpy(&header, message, sizeof(header));
    if ((header.flags & TYPE) != REPLY) {
        CHECK(header.flags == 0 && header.id == connection->seen++ && header.id < connection->asked);
        CHECK(header.command == DMA_READ || header.command == DMA_WRITE);
        for (uint32_t i = HEADER; i < header.size; i++)
            CHECK(message[i] == 0xd1);
        return;
    }
    connection->said = hash(connection->said, message, header.size);
    connection->said_size += header.size;
    CHECK(!(header.flags & ~(uint32_t)(REPLY | ERROR)));
    CHECK(header.flags & ERROR ? header.error && header.size == HEADER : !header.error);
    if (model->exact) {
        CHECK(header.size <= model->reply_tail - model->reply_head);
        CHECK(memcmp(message, model->replies + model->reply_head, header.size) == 0);
        model->reply_head += header.size;
        if (model->reply_head == model->reply_tail)
            model->reply_head = model->reply_tail = 0;
    }
}

size_t drain(connection *connection, size_t limit)
{
    size_t drained = 0;

    while (connection->client >= 0 && drained < limit) {
        _Alignas(struct cmsghdr) char control[CMSG_SPACE(16 * sizeof(int))];
        struct iovec part = { .iov_base = connection->in + connection->in_size };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                                  .msg_controllen = sizeof(control) };
        wire header;
        size_t wanted = HEADER;
        ssize_t got;

        if (connection->in_size >= HEADER) {
            memcpy(&header, connection->in, sizeof(header));
            CHECK(header.size >= HEADER && header.size <= MAX_MESSAGE);
            wanted = header.size;
        }
        if (wanted > connection->in_size) {
            part.iov_len = wanted - connection->in_size;
            if (part.iov_len > limit - drained)
                part.iov_len = limit - drained;
            got = recvmsg(connection->client, &message, MSG_CMSG_CLOEXEC);
            if (got <= 0)
                break;
            for (struct cmsghdr *each = CMSG_FIRSTHDR(&message); each; each = CMSG_NXTHDR(&message, each)) {
                int fd;

                CHECK(each->cmsg_len == CMSG_LEN(sizeof(fd)) && connection->in_size == 0);
                memcpy(&fd, CMSG_DATA(each), sizeof(fd));
                close(fd);
            }
            connection->in_size += (size_t)got;
            drained += (size_t)got;
        }
        if (wanted > HEADER && connection->in_size == wanted) {
            check_message(connection, connection->in);
            connection->in_size = 0;
        } else if (connection->in_size == HEADER) {
            memcpy(&header, connection->in, sizeof(header));
            if (header.size == HEADER) {
                check_message(connection, connection->in);
                connection->in_size = 0;
            }
        }
    }
    return drained;
}

/* Python answers, and clients read, until nothing happens any more. */
void quiesce(void)
{
    struct pollfd readable = { .fd = pvu_poller_fd(poller), .events = POLLIN };
    unsigned rounds = 0;

    for (size_t i = 0; i < CONNECTIONS; i++) {
        connections[i].late = false;
        settle(&connections[i]);
    }
    for (bool busy = true; busy; rounds++) {
        CHECK(rounds < MANY);
        busy = pump(1000) > 0;
        for (size_t i = 0; i < CONNECTIONS; i++) {
            connection *each = &connections[i];
            size_t before = each->out_tail - each->out_head;

            if (each->client >= 0)
                flush_out(each);
            busy |= before != each->out_tail - each->out_head || drain(each, SIZE_MAX) > 0;
        }
        busy |= poll(&readable, 1, 0) == 1;
    }
}

void world_end(void)
{
    quiesce();
    for (size_t i = 0; i < CONNECTIONS; i++) {
        connection *each = &connections[i];

        if (each->session && each->client >= 0 && each->model.exact && each->whole && !each->left) {
            CHECK(each->model.event_head == each->model.event_tail);
            CHECK(each->model.reply_head == each->model.reply_tail && each->in_size == 0);
            CHECK(device_signals(each->device) == each->device->signals);
            CHECK(each->seen == each->asked && !pvu_session_peer_left(each->session));
        }
        if (each->client >= 0)
            close(each->client);
        each->client = -1;
        each->left = true;
    }
    quiesce();
    for (size_t i = 0; i < CONNECTIONS; i++)
        CHECK(!connections[i].session);
    pvu_poller_free(poller);
    for (int fd = 0; fd < FDS_CHECKED; fd++)
        CHECK((fcntl(fd, F_GETFD) >= 0) == open_before[fd]);
}
