/*
 * The limit: what a server costs that knows no protocol. Clients come one after another; the first message of each is
 * a plan, and from then on only bytes are counted.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { ROOM = 2 << 20, MAX_COPY = 64 << 10, DESCRIPTORS = 253 /* the kernel's SCM_MAX_FD */ };

static uint8_t in[ROOM], out[ROOM];

static void make_reply(uint8_t *reply, const uint8_t *request, const plan *plan)
{
    message *answer = (message *)reply;
    uint32_t pattern = PATTERN;

    memcpy(reply, request, SHORT);
    answer->header.size = plan->reply;
    answer->header.flags = F_REPLY;
    if (plan->reply > SHORT)
        memcpy(reply + SHORT, &pattern, sizeof(pattern));
}

/* What a device does for a DMA command, between the shared memory and its own. */
static void copy(uint8_t *shared, uint32_t length, uint32_t command)
{
    static uint8_t own[SEGMENTS * MAX_COPY];

    for (uint32_t i = 0; i < command >> 8; i++) {
        uint8_t *piece = own + i % SEGMENTS * length;
        bool reading = (command & 0xff) == 3;

        memcpy(reading ? piece : shared, reading ? shared : piece, length);
        __asm__ volatile("" ::: "memory");
    }
}

static uint8_t *map(int memory, size_t size)
{
    uint8_t *mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);

    if (mapped == MAP_FAILED)
        die("cannot map the client's memory: %s", strerror(errno));
    return mapped;
}

/* One receive; with `room` as it costs a server that takes descriptors, of which none come here. */
static ssize_t receive(int socket, uint8_t *data, size_t size, int flags, bool room)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(DESCRIPTORS * sizeof(int))];
    struct iovec part = { data, size };
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
    };

    return room ? recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC) : recv(socket, data, size, flags);
}

/* Receives, counts, answers, until the client leaves. */
static void exchange(int socket, const plan *plan, int fd)
{
    uint8_t *shared = plan->flags & PLAN_COPY ? map(fd, MAX_DMA) : NULL;
    bool bulk = plan->flags & PLAN_BULK, room = plan->flags & PLAN_ROOM;
    int flags = plan->flags & PLAN_POLL ? MSG_DONTWAIT : 0;
    size_t have = 0;
    uint64_t count = 0, one = 1;

    for (;;) {
        ssize_t got = receive(socket, in + have, bulk ? 64 << 10 : plan->request - have, flags, room);
        size_t done = 0, replies = 0;

        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (got <= 0)
            break;
        for (have += (size_t)got; have - done >= plan->request; done += plan->request) {
            if (++count % plan->every)
                continue;
            if (plan->flags & PLAN_COPY)
                copy(shared, plan->length, ((message *)(in + done))->data);
            if (plan->flags & PLAN_EVENT && write(fd, &one, sizeof(one)) < 0)
                die("cannot signal: %s", strerror(errno));
            make_reply(out + replies, in + done, plan);
            replies += plan->reply;
        }
        have -= done;
        if (have && done)
            memmove(in, in + done, have);
        if (replies)
            send_all(socket, out, replies, -1);
    }
    if (shared)
        munmap(shared, MAX_DMA);
}

/* Copies what appears in shared memory; looks at the socket now and then, to see the client leave. */
static void echo(int socket, int memory)
{
    uint8_t *window = map(memory, WINDOW);
    _Atomic uint32_t *bell = (_Atomic uint32_t *)window, *answer = (_Atomic uint32_t *)(window + ECHO_AT);
    uint32_t seen;
    char none;

    seen = atomic_load_explicit(bell, memory_order_acquire);
    send_all(socket, &none, 1, -1); /* from now on it looks */
    do {
        for (int i = 0; i < 10000; i++) {
            uint32_t value = atomic_load_explicit(bell, memory_order_acquire);

            if (value != seen) {
                seen = value;
                atomic_store_explicit(answer, value, memory_order_release);
            }
        }
    } while (recv(socket, &none, 1, MSG_DONTWAIT) != 0);
    munmap(window, WINDOW);
}

int main(int count, char **arguments)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (count != 2 || strlen(arguments[1]) >= sizeof(address.sun_path))
        die("usage: limit SOCKET");
    strcpy(address.sun_path, arguments[1]);
    umask(077);
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 1) < 0)
        die("cannot serve on %s: %s", arguments[1], strerror(errno));
    for (;;) {
        int socket = accept4(listener, NULL, NULL, SOCK_CLOEXEC), fd;
        plan plan;

        if (socket < 0)
            die("cannot accept: %s", strerror(errno));
        if (receive_with_fd(socket, &plan, sizeof(plan), &fd) == sizeof(plan)) {
            if (plan.flags & PLAN_WINDOW)
                echo(socket, fd);
            else if (plan.request >= SHORT && plan.request <= ROOM / 2 && plan.every && plan.reply <= ROOM / 2 &&
                     plan.length <= MAX_COPY)
                exchange(socket, &plan, fd);
        }
        if (fd >= 0)
            close(fd);
        close(socket);
    }
}
