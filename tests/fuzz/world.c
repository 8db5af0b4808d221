/* The poller, and Python's side of connections. */
#include "fuzz.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    FDS_CHECKED = 64,
    MANY = 200000, /* rounds after which there must be nothing left to do */
};

pvu_poller *poller;
connection connections[CONNECTIONS];
int sent_files[FILES];
static pvu_poller *lasting; /* a ring takes milliseconds to make and to free: it is one for all runs */
static int watched = -1;    /* an eventfd, */
static bool watching, rung; /* that is watched, and readable */
static short open_before[FDS_CHECKED];

uint64_t hash(uint64_t before, const void *data, size_t size)
{
    const uint8_t *bytes = data;

    for (size_t i = 0; i < size; i++)
        before = (before ^ bytes[i]) * 0x100000001b3;
    return before;
}

/* POLLNVAL for each descriptor that is not open. */
static void look_at_fds(short *found)
{
    struct pollfd fds[FDS_CHECKED];

    for (int fd = 0; fd < FDS_CHECKED; fd++)
        fds[fd] = (struct pollfd){ .fd = fd };
    CHECK(poll(fds, FDS_CHECKED, 0) >= 0);
    for (int fd = 0; fd < FDS_CHECKED; fd++)
        found[fd] = fds[fd].revents & POLLNVAL;
}

static void free_lasting(void)
{
    pvu_poller_free(lasting);
    lasting = NULL;
}

static void world_new(void)
{
    for (size_t i = 0; i < CONNECTIONS; i++) {
        connection *each = &connections[i];

        each->device = device_new();
        each->out = malloc(OUT_SIZE);
        each->in = malloc(IN_SIZE);
        CHECK(each->out && each->in);
    }
    for (int i = 0; i < FILES; i++) {
        sent_files[i] = memfd_create("fuzz", MFD_CLOEXEC);
        CHECK(sent_files[i] >= 0);
    }
    watched = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    CHECK(watched >= 0 && setenv("PYVFIO_USER_ENGINE", "io_uring", 1) == 0);
    lasting = pvu_poller_new();
    CHECK(lasting || errno == EPERM || errno == ENOSYS || errno == EOPNOTSUPP || errno == EINVAL);
    if (lasting) {
        CHECK(pvu_poller_fd(lasting) >= 0 && atexit(free_lasting) == 0);
    }
    CHECK(setenv("PYVFIO_USER_ENGINE", "epoll", 1) == 0);
}

void world_begin(int engine)
{
    if (watched < 0)
        world_new();
    for (size_t i = 0; i < CONNECTIONS; i++) {
        connections[i].client = -1;
        connections[i].heard = connections[i].said = connections[i].said_size = 0;
    }
    transfers_reset();
    look_at_fds(open_before);
    poller = engine == IO_URING && lasting ? lasting : pvu_poller_new();
    CHECK(poller);
    CHECK(strcmp(pvu_poller_engine(poller), poller == lasting ? "io_uring" : "epoll") == 0);
}

void connect_client(connection *connection, bool negotiated)
{
    int ends[2];

    CHECK(!connection->session && connection->client < 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    device_reset(connection->device);
    transfers_end(connection, false); /* requests that the last client got are not this one's */
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
    connection->in_fd = false;
}

static void forget(connection *connection)
{
    if (!connection->session)
        return;
    transfers_end(connection, true);
    pvu_session_free(connection->session);
    transfers_end(connection, false);
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
    if (model->event_head == model->event_tail)
        model->event_head = model->event_tail = 0;
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
    for (uint32_t i = 0; i < event->fd_count; i++) {
        struct stat got, sent;

        if (i == 15 && event->fds[i] == -1)
            break;
        CHECK(fstat(event->fds[i], &got) == 0 && fstat(sent_files[i % FILES], &sent) == 0);
        CHECK(got.st_ino == sent.st_ino || !connection->model.exact);
        CHECK(close(event->fds[i]) == 0);
    }
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
    connection *connection;
    const pvu_ring *rings = (const pvu_ring *)(uintptr_t)event->data;
    happening what = { .kind = kind, .region = event->region, .hook = event->hook, .offset = event->offset,
                       .size = event->size, .value = event->value };

    if (kind == PVU_READY) {
        uint64_t count;

        CHECK(event->token == (uint32_t)watched && event->events == POLLIN && watching && rung);
        CHECK(read(watched, &count, sizeof(count)) == sizeof(count));
        rung = false;
        return;
    }
    CHECK(event->token < CONNECTIONS);
    connection = &connections[event->token];
    CHECK(connection->session && connection->owed == PVU_NONE);
    switch (kind) {
    case PVU_DOORBELLS:
        for (uint64_t i = 0; i < event->size; i++)
            heed(connection, (happening){ .kind = kind, .region = rings[i].region, .hook = rings[i].hook,
                                          .value = rings[i].value });
        return;
    case PVU_TRANSFERRED:
        transfer_ended(connection, event);
        return;
    case PVU_CLOSED:
        CHECK(connection->left || !connection->model.exact);
        forget(connection);
        return;
    case PVU_MESSAGE:
        what = (happening){ .kind = kind, .fds = event->fd_count, .size = event->size };
        what.fds += event->fd_count == 16 && event->fds[15] == -1; /* for too many */
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

unsigned pump(unsigned events, int64_t timeout)
{
    unsigned handled = 0;

    for (size_t i = 0; i < CONNECTIONS; i++)
        transmit_rest(&connections[i]);
    for (; handled < events; handled++) {
        int kind = pvu_poller_next(poller, timeout);

        CHECK(kind >= 0);
        if (kind == PVU_NONE)
            break;
        handle(kind, pvu_poller_event(poller));
    }
    return handled;
}

void watch(bool wanted)
{
    if (wanted == watching)
        return;
    CHECK(pvu_poller_watch(poller, watched, wanted ? POLLIN : 0, 0) == 0);
    watching = wanted;
}

void ring_watched(void)
{
    const uint64_t one = 1;

    CHECK(write(watched, &one, sizeof(one)) == sizeof(one));
    rung = true;
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
        busy = pump(1000, 0) > 0;
        for (size_t i = 0; i < CONNECTIONS; i++) {
            connection *each = &connections[i];
            size_t before = each->out_tail - each->out_head;

            while (transfer_answer(each, 0, 0))
                busy = true;
            transmit_rest(each);
            busy |= before != each->out_tail - each->out_head || drain(each, SIZE_MAX) > 0;
        }
        busy |= poll(&readable, 1, 0) == 1;
    }
    CHECK(!(watching && rung));
}

void world_end(void)
{
    short open_after[FDS_CHECKED];
    uint64_t count;

    quiesce();
    for (size_t i = 0; i < CONNECTIONS; i++) {
        connection *each = &connections[i];

        if (each->session && each->client >= 0 && each->model.exact && each->whole && !each->left) {
            CHECK(each->model.event_head == each->model.event_tail);
            CHECK(each->model.reply_head == each->model.reply_tail && each->in_size == 0);
            CHECK(transfers_done(each));
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
    watch(false);
    rung = false;
    (void)!read(watched, &count, sizeof(count));
    if (poller != lasting)
        pvu_poller_free(poller);
    look_at_fds(open_after);
    CHECK(memcmp(open_before, open_after, sizeof(open_after)) == 0);
}
