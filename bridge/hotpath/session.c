/* Sessions: a client's socket. Bytes are received into `rx`, and every whole message in it is served. */
#include "hotpath.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void session_end(pvu_session *session, int error)
{
    if (!session->over) {
        session->over = true;
        session->error = error;
        poller_remove(session->poller, session);
        poller_enqueue(session->poller, session);
    }
}

/* Receiving */

static void keep_fd(pvu_session *session, int fd)
{
    if (session->rx_fd_count == RX_FDS) {
        pvu_drop(fd);
        return;
    }
    session->rx_fds[session->rx_fd_count].fd = fd;
    session->rx_fds[session->rx_fd_count++].end = session->rx_tail;
}

/* Descriptors come with the last bytes of a receive: the kernel ends it there. Of too many, -1 takes the last one's place. */
static void take_fds(pvu_session *session, struct msghdr *message)
{
    int fds[PVU_FDS_BESIDE];
    int count = message->msg_controllen ? descriptors_beside(message, fds) : 0, kept = count;

    if (message->msg_flags & MSG_CTRUNC || count > PVU_MAX_FDS)
        kept = count < PVU_MAX_FDS ? count : PVU_MAX_FDS - 1;
    for (int i = 0; i < kept; i++)
        keep_fd(session, fds[i]);
    if (kept < count || message->msg_flags & MSG_CTRUNC)
        keep_fd(session, -1);
    for (int i = kept; i < count; i++)
        pvu_drop(fds[i]);
}

static void compact_rx(pvu_session *session)
{
    if (!session->rx_head)
        return;
    memmove(session->rx, session->rx + session->rx_head, session->rx_tail - session->rx_head);
    for (size_t i = 0; i < session->rx_fd_count; i++)
        session->rx_fds[i].end -= session->rx_head;
    session->rx_tail -= session->rx_head;
    session->rx_head = 0;
}

/* Bytes that a receive may bring: what is unread moves to the front when that is cheap, or must be. */
static size_t room(pvu_session *session)
{
    size_t unread = session->rx_tail - session->rx_head;
    wire_header header;
    size_t wanted = RX_STEP;

    if (unread >= sizeof(header)) {
        memcpy(&header, session->rx + session->rx_head, sizeof(header));
        if (header.size > unread + wanted)
            wanted = header.size - unread;
    }
    if (unread <= RX_SMALL || RX_SIZE - session->rx_tail < wanted)
        compact_rx(session);
    return wanted;
}

bool session_roomy(pvu_session *session)
{
    enum { WANTED = RX_PIECES * RX_STEP };

    /* Python may have been told where the message is that it answers: that stays where it is. */
    if (!session->owed && RX_SIZE - session->rx_tail < WANTED)
        compact_rx(session);
    return RX_SIZE - session->rx_tail >= WANTED && session->rx_fd_count <= PVU_MAX_FDS;
}

bool session_received(pvu_session *session, ssize_t got, const uint8_t *data, struct msghdr *beside)
{
    if (got == -EAGAIN || got == -EINTR || got == -ECANCELED || got == -ENOBUFS)
        return false;
    if (got <= 0) {
        session_end(session, (int)-got);
        return true;
    }
    if (data && (size_t)got > RX_SIZE - session->rx_tail) {
        session_end(session, ENOBUFS); /* the kernel did not stop when it was told to */
        got = 0;
    }
    if (data)
        memcpy(session->rx + session->rx_tail, data, (size_t)got);
    session->rx_tail += (size_t)got;
    session->grown |= session->rx_tail > BUFFERS_KEPT;
    if (beside->msg_controllen || beside->msg_flags & MSG_CTRUNC)
        take_fds(session, beside);
    return true;
}

bool session_receive(pvu_session *session)
{
    _Alignas(struct cmsghdr) char control[RX_CONTROL];
    size_t wanted = room(session);
    struct iovec part = { .iov_base = session->rx + session->rx_tail, .iov_len = wanted };
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
    };
    ssize_t got = recvmsg(session->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    return session_received(session, got < 0 ? -errno : got, NULL, &message);
}

bool session_look(pvu_session *session, uint32_t looks)
{
    wire_header header = { 0 };
    ssize_t got;

    if (looks > (session->singles < SINGLES ? SOON : SLEPT))
        session->singles = 0;
    if (session->singles < SINGLES || session->rx_tail || session->owed || session->deferred != PVU_NONE)
        return session_receive(session);
    got = recv(session->fd, session->rx, RX_SMALL, MSG_PEEK | MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (got >= (ssize_t)sizeof(header))
        memcpy(&header, session->rx, sizeof(header));
    if (got != (ssize_t)header.size || header.flags & (F_TYPE_MASK | F_NO_REPLY) ||
        (header.command != CMD_REGION_READ && header.command != CMD_REGION_WRITE)) {
        session->singles = 0;
        return session_receive(session);
    }
    session->rx_tail = session->peeked = header.size;
    return true;
}

/* What was looked at is taken. Descriptors are nothing to a region access. */
static void take(pvu_session *session)
{
    while (session->peeked && !session->over) {
        _Alignas(struct cmsghdr) char control[RX_CONTROL];
        struct iovec part = { .iov_base = session->rx + session->rx_tail, .iov_len = session->peeked };
        struct msghdr message = {
            .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
        };
        ssize_t got = recvmsg(session->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

        if (got <= 0) {
            session_end(session, got < 0 ? errno : 0);
            break;
        }
        for (int fds[PVU_FDS_BESIDE], n = descriptors_beside(&message, fds); n;)
            pvu_drop(fds[--n]);
        session->peeked -= (size_t)got;
    }
    session->peeked = 0;
}

/*
 * Descriptors of the message that ends at `last`: the first up to `room` go to `fds`, others are closed. Where there is
 * room at all, the last is then -1.
 */
static uint32_t claim_fds(pvu_session *session, size_t last, int32_t *fds, uint32_t room)
{
    uint32_t claimed = 0;
    size_t n = 0;

    for (; n < session->rx_fd_count && session->rx_fds[n].end <= last; n++) {
        if (claimed < room) {
            fds[claimed++] = session->rx_fds[n].fd;
            continue;
        }
        pvu_drop(session->rx_fds[n].fd);
        if (room) {
            pvu_drop(fds[room - 1]);
            fds[room - 1] = -1;
        }
    }
    session->rx_fd_count -= n;
    memmove(session->rx_fds, session->rx_fds + n, session->rx_fd_count * sizeof(session->rx_fds[0]));
    return claimed;
}

/* Serving */

static int hand_over(pvu_session *session, const wire_header *header, pvu_event *event)
{
    if (session->device->ring_count)
        return access_doorbells(session, event);
    /* There must be room for the reply. */
    if (session->tx_tail - session->tx_head > TX_SIZE - TX_FOR_PYTHON)
        return ACCESS_BLOCKED;
    event->token = session->token;
    event->data = (uint64_t)(uintptr_t)(session->rx + session->rx_head);
    event->size = header->size;
    event->fd_count = claim_fds(session, session->rx_head + header->size, event->fds, PVU_MAX_FDS);
    session->rx_head += header->size;
    session->owed = true;
    return PVU_MESSAGE;
}

static int serve_message(pvu_session *session, const wire_header *header, pvu_event *event)
{
    size_t last = session->rx_head + header->size;
    uint32_t type = header->flags & F_TYPE_MASK;
    bool access = header->command == CMD_REGION_READ || header->command == CMD_REGION_WRITE ||
                  header->command == CMD_REGION_WRITE_MULTI;
    bool describes = describe_answers(header->command);
    transfer_request *request = type == F_REPLY ? transfer_of(session, header) : NULL;
    uint8_t *body = session->rx + session->rx_head + sizeof(*header);
    int result;

    if (!request && (!(access || describes) || type != F_COMMAND || !session->negotiated))
        return hand_over(session, header, event);
    if (request && session->device->ring_count)
        return access_doorbells(session, event);
    if (request)
        result = transfer_reply(session, request, header, body, event);
    else
        result = access ? access_message(session, header, body, event) : describe_message(session, header, body);
    if (request || result == ACCESS_DONE) {
        if (session->rx_fd_count)
            claim_fds(session, last, NULL, 0);
        session->rx_head = last;
    }
    return result;
}

/*
 * Linux loses a wake-up of a receive that it repeats of its own accord (seen with 6.18): when 128 sends came before it got
 * to run, it goes by a flag (IO_POLL_RETRY_FLAG in io_uring/poll.c) that it clears before it gives up its 128 references,
 * and a message in between sets it in vain. That message waits for the next, which never comes where the client waits for
 * an answer. So after many messages the socket is looked at once more, which is in order: the kernel receives in our calls
 * alone, and all that those brought is here.
 */
static bool overlooked(pvu_session *session)
{
    if (!session->receiving || session->cancelled || session->over || session->blocked ||
        session->unlooked < RX_OVERLOOKED)
        return false;
    session->unlooked = 0;
    return session_receive(session);
}

int session_serve(pvu_session *session, pvu_event *event)
{
    wire_header header = { 0 };
    int result = PVU_NONE;
    uint32_t already = session->unlooked;

    while (result == PVU_NONE && !session->over && !session->owed) {
        size_t unread = session->rx_tail - session->rx_head;

        if (unread < sizeof(header))
            break;
        memcpy(&header, session->rx + session->rx_head, sizeof(header));
        if (header.size < sizeof(header) || header.size > PVU_MAX_MESSAGE ||
            (header.flags & F_TYPE_MASK) > F_REPLY) {
            session_flush(session); /* what came before is answered, whether it came in the same piece or not */
            session_end(session, EPROTO);
            break;
        }
        if (unread < header.size)
            break;
        session->unlooked++;
        result = serve_message(session, &header, event);
        if (result == ACCESS_BLOCKED) {
            size_t before = session->tx_tail - session->tx_head;

            if (!session_flush(session) || session->tx_tail - session->tx_head == before)
                break;
            result = PVU_NONE;
        }
    }
    if (session->rx_head == session->rx_tail && !session->owed)
        session->rx_head = session->rx_tail = 0;
    session->blocked = result == ACCESS_BLOCKED;
    transfer_ask(session);
    session_send(session);
    take(session);
    if (result == PVU_NONE && session->unlooked == already + 1 && !session->rx_tail && !(header.flags & F_NO_REPLY))
        session->singles += session->singles < SINGLES;
    else
        session->singles = 0;
    if (result <= PVU_NONE)
        result = session->device->ring_count ? access_doorbells(session, event) : PVU_NONE;
    if (result == PVU_NONE && overlooked(session))
        poller_put_off(session->poller, session);
    else if (result == PVU_NONE)
        poller_receive(session->poller, session);
    return result;
}

/* What Python calls */

int pvu_accept(int listener, uint32_t *uid)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    struct ucred peer;
    socklen_t size = sizeof(peer);

    if (fd < 0)
        return -errno;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0) {
        int error = errno;

        close(fd);
        return -error;
    }
    *uid = peer.uid;
    return fd;
}

pvu_session *pvu_session_new(pvu_poller *poller, pvu_device *device, int fd, uint32_t token)
{
    pvu_session *session = calloc(1, sizeof(*session));
    uint8_t *buffers = session ? buffers_take(poller) : NULL;

    if (!buffers) {
        free(session);
        close(fd);
        return NULL;
    }
    session->poller = poller;
    session->device = device;
    device->ring_count = 0;
    session->fd = fd;
    session->token = token;
    session->rx = buffers;
    session->tx = buffers + RX_SIZE;
    session->tx_fd = -1;
    poller_update(poller, session);
    poller_receive(poller, session);
    return session;
}

void pvu_session_free(pvu_session *session)
{
    bool forked = poller_forked(session->poller);

    transfer_end_all(session);
    if (!forked)
        session_flush(session);
    /* What the kernel may still receive into stays where it is. */
    if (!poller_forget(session->poller, session) && !forked) {
        pvu_hang_up(session->fd);
        return;
    }
    claim_fds(session, RX_SIZE, NULL, 0);
    for (uint32_t i = 0; session->deferred == PVU_MESSAGE && i < session->event.fd_count; i++)
        pvu_drop(session->event.fds[i]);
    if (forked)
        close(session->fd);
    else
        pvu_hang_up(session->fd);
    buffers_give(session->poller, session->rx, session->grown);
    free(session);
}

void pvu_session_negotiated(pvu_session *session)
{
    session->negotiated = true;
}

int pvu_session_peer_left(const pvu_session *session)
{
    struct pollfd peer = { .fd = session->fd };

    return session->over || (poll(&peer, 1, 0) == 1 && peer.revents & (POLLHUP | POLLERR));
}

void pvu_session_finish(pvu_session *session, int status)
{
    session->owed = false;
    if (session->access.begun)
        session->access.status = status;
    session->deferred = session_serve(session, &session->event);
    if (session->deferred != PVU_NONE || session->over)
        poller_enqueue(session->poller, session);
}

void pvu_session_finish_read(pvu_session *session, uint64_t value)
{
    region_store(session->hook_region, session->hook_span, value);
    pvu_session_finish(session, 0);
}
