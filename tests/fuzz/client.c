/* The client's side of connections: what it sends, and what must hold of all that comes back. */
#include "fuzz.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void transmit_rest(connection *connection)
{
    while (connection->client >= 0 && connection->out_head < connection->out_tail) {
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

/* With descriptors; what of it was sent. */
static size_t send_beside(connection *connection, const void *data, size_t size, unsigned fds)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(253 * sizeof(int))] = { 0 };
    struct iovec part = { .iov_base = (void *)(uintptr_t)data, .iov_len = size };
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(fds * sizeof(int))
    };
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    ssize_t sent;

    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fds * sizeof(int));
    for (unsigned i = 0; i < fds; i++)
        memcpy(CMSG_DATA(rights) + i * sizeof(int), &sent_files[i % FILES], sizeof(int));
    sent = sendmsg(connection->client, &message, MSG_NOSIGNAL);
    return sent < 0 ? 0 : (size_t)sent;
}

unsigned transmit(connection *connection, const void *data, size_t size, unsigned fds)
{
    size_t sent = 0;

    if (connection->client < 0 || !size)
        return 0;
    if (fds) {
        transmit_rest(connection);
        if (!connection->out_tail)
            sent = send_beside(connection, data, size, fds);
    }
    size -= sent;
    if (connection->out_tail + size > OUT_SIZE) {
        connection->model.exact = false; /* the client gives up on it */
        return 0;
    }
    memcpy(connection->out + connection->out_tail, (const uint8_t *)data + sent, size);
    connection->out_tail += size;
    return sent ? fds : 0;
}

/* Only whole messages of which the hot path's rules hold may come back. */
static void check_message(connection *connection, const uint8_t *message, bool with_fd)
{
    model *model = &connection->model;
    wire header;

    memcpy(&header, message, sizeof(header));
    if ((header.flags & TYPE) != REPLY && transfer_asked(connection, message)) {
        CHECK(header.flags == 0 && !with_fd);
        return;
    }
    if ((header.flags & TYPE) != REPLY) {
        CHECK(header.flags == 0 && header.id == connection->seen++ && header.id < connection->asked);
        CHECK(header.command == DMA_READ || header.command == DMA_WRITE);
        CHECK(!with_fd);
        for (uint32_t i = HEADER; i < header.size; i++)
            CHECK(message[i] == 0xd1);
        return;
    }
    CHECK(with_fd == goes_with_fd(&header));
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

/* Closes what came; whether there was a descriptor. */
static bool close_fds(struct msghdr *message)
{
    struct cmsghdr *part = CMSG_FIRSTHDR(message);
    int fd;

    if (!part)
        return false;
    CHECK(part->cmsg_len == CMSG_LEN(sizeof(fd)) && !CMSG_NXTHDR(message, part));
    memcpy(&fd, CMSG_DATA(part), sizeof(fd));
    CHECK(close(fd) == 0);
    return true;
}

/* A descriptor belongs to the last message that began: the kernel ends a receive behind the piece it was sent with. */
static void take_messages(connection *connection, bool fd_came)
{
    size_t at = 0, begun = 0, size = connection->in_size;
    wire header;

    for (; at < size; at += header.size) {
        begun = at;
        if (size - at < HEADER)
            break;
        memcpy(&header, connection->in + at, sizeof(header));
        CHECK(header.size >= HEADER && header.size <= MAX_MESSAGE);
        if (header.size > size - at)
            break;
        check_message(connection, connection->in + at,
                      (at == 0 && connection->in_fd) || (fd_came && at + header.size == size));
    }
    if (at > size)
        at = size;
    connection->in_fd = at < size && ((begun == 0 && connection->in_fd) || fd_came);
    memmove(connection->in, connection->in + at, size - at);
    connection->in_size = size - at;
}

size_t drain(connection *connection, size_t limit)
{
    size_t drained = 0;

    while (connection->client >= 0 && drained < limit) {
        _Alignas(struct cmsghdr) char control[CMSG_SPACE(16 * sizeof(int))];
        size_t room = IN_SIZE - connection->in_size;
        struct iovec part = { .iov_base = connection->in + connection->in_size,
                              .iov_len = room < limit - drained ? room : limit - drained };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                                  .msg_controllen = sizeof(control) };
        ssize_t got = recvmsg(connection->client, &message, MSG_CMSG_CLOEXEC);

        if (got <= 0)
            break;
        connection->in_size += (size_t)got;
        drained += (size_t)got;
        take_messages(connection, close_fds(&message));
    }
    return drained;
}
