/* Sending: replies and requests gather in `tx`, and go out together. */
#include "hotpath.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* Moves what waits, and what is reserved, to the front. */
static void compact_tx(pvu_session *session)
{
    poller_settle(session->poller, session);
    if (session->tx_queued)
        return;
    memmove(session->tx, session->tx + session->tx_head,
            session->tx_tail - session->tx_head + session->tx_reserved);
    session->tx_fd_at -= session->tx_head;
    session->tx_tail -= session->tx_head;
    session->tx_head = 0;
}

uint8_t *session_reserve(pvu_session *session, size_t size)
{
    size_t limit = TX_SIZE - TX_FOR_PYTHON;

    if (session->tx_tail + size > limit) {
        if (session->tx_tail - session->tx_head + size > limit)
            return NULL;
        compact_tx(session);
        if (session->tx_tail + size > limit)
            return NULL;
    }
    session->tx_reserved = size;
    session->grown |= session->tx_tail + size > BUFFERS_KEPT;
    return session->tx + session->tx_tail;
}

void session_reply(pvu_session *session, const wire_header *request, size_t size, int error)
{
    wire_header reply = { .id = request->id, .command = request->command, .size = (uint32_t)size, .flags = F_REPLY };

    session->tx_reserved = 0;
    if (request->flags & F_NO_REPLY)
        return;
    if (error) {
        reply.size = sizeof(reply);
        reply.flags |= F_ERROR;
        reply.error = (uint32_t)error;
    }
    memcpy(session->tx + session->tx_tail, &reply, sizeof(reply));
    session->tx_tail += reply.size;
}

/*
 * How much to send at once: whole messages, for QEMU's client wants each header in one piece, and a send of more than
 * the kernel puts into one buffer could end, for a while, inside a header. A message with a descriptor goes alone.
 */
static size_t next_send(const pvu_session *session)
{
    size_t from = session->tx_head, to = from, stop = session->tx_tail;
    wire_header header;

    if (session->tx_rest)
        return session->tx_rest;
    if (session->tx_fd >= 0)
        stop = from == session->tx_fd_at ? from + 1 : session->tx_fd_at;
    do {
        memcpy(&header, session->tx + to, sizeof(header));
        if (to > from && to + header.size - from > TX_STEP)
            break;
        to += header.size;
    } while (to < stop);
    return to - from;
}

static ssize_t send_beside(int socket, void *data, size_t size, int fd)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(fd))] = { 0 };
    struct iovec part = { .iov_base = data, .iov_len = size };
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
    };
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);

    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(fd));
    memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
    return sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void session_sent(pvu_session *session, size_t size, ssize_t sent)
{
    if (sent < 0) {
        if (sent != -EAGAIN && sent != -EINTR)
            session_end(session, (int)-sent);
        return;
    }
    session->tx_head += (size_t)sent;
    session->tx_rest = size - (size_t)sent;
    if (session->tx_head == session->tx_tail && !session->tx_reserved)
        session->tx_head = session->tx_tail = 0;
}

void session_send(pvu_session *session)
{
    if (session->tx_head == session->tx_tail || !poller_send(session->poller, session))
        session_flush(session);
}

bool session_flush(pvu_session *session)
{
    poller_settle(session->poller, session);
    while (session->tx_head < session->tx_tail && !session->over && !session->tx_queued) {
        bool beside = session->tx_fd >= 0 && session->tx_fd_at == session->tx_head;
        uint8_t *data = session->tx + session->tx_head;
        size_t size = next_send(session);
        ssize_t sent = beside ? send_beside(session->fd, data, size, session->tx_fd)
                              : send(session->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (beside && sent >= 0)
            session->tx_fd = -1;
        session_sent(session, size, sent < 0 ? -errno : sent);
        if (sent < 0)
            break;
    }
    poller_update(session->poller, session);
    return !session->over;
}

uint8_t *session_append(pvu_session *session, size_t size, size_t limit)
{
    uint8_t *room;

    if (session->tx_tail + session->tx_reserved + size > limit)
        compact_tx(session);
    if (session->tx_tail + session->tx_reserved + size > limit)
        return NULL;
    room = session->tx + session->tx_tail;
    memmove(room + size, room, session->tx_reserved);
    session->tx_tail += size;
    session->grown |= session->tx_tail + session->tx_reserved > BUFFERS_KEPT;
    return room;
}

bool session_send_data(pvu_session *session, const void *head, size_t head_size, const void *data, size_t size,
                       size_t limit)
{
    struct iovec parts[] = {
        { .iov_base = (void *)(uintptr_t)head, .iov_len = head_size },
        { .iov_base = (void *)(uintptr_t)data, .iov_len = size },
    };
    struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
    size_t all = head_size + size, gone = 0;
    uint8_t *room;

    if (session->tx_head == session->tx_tail && !session->tx_reserved && all <= limit) {
        ssize_t sent = sendmsg(session->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);

        gone = sent < 0 ? 0 : (size_t)sent;
        if (gone == all)
            return true;
        session->tx_head = session->tx_tail = 0;
    }
    room = session_append(session, all, limit);
    if (!room)
        return false;
    memcpy(room, head, head_size);
    memcpy(room + head_size, data, size);
    if (gone) {
        session->tx_head += gone;
        session->tx_rest = all - gone;
    }
    return true;
}

int pvu_session_send(pvu_session *session, const uint8_t *message, size_t size)
{
    uint8_t *room;

    if (session->over)
        return -EPIPE;
    room = session_append(session, size, TX_SIZE);
    if (!room)
        return -ENOBUFS;
    memcpy(room, message, size);
    return session->owed || session_flush(session) ? 0 : -EPIPE;
}
