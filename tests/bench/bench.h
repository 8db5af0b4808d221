/* What the limit program and the measuring client share. Messages: QEMU docs/interop/vfio-user.rst. */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { VERSION = 1, DMA_MAP, DMA_UNMAP, GET_INFO, GET_REGION_INFO, GET_REGION_IO_FDS, GET_IRQ_INFO, SET_IRQS,
       REGION_READ, REGION_WRITE, DMA_READ, DMA_WRITE };
enum { F_REPLY = 1, F_TYPE = 0xf, F_NO_REPLY = 0x10, F_ERROR = 0x20 };

typedef struct {
    uint16_t id, command;
    uint32_t size, flags, error;
} header;

typedef struct {
    header header;
    uint64_t offset;
    uint32_t region, count;
    uint32_t data; /* in reads' replies and writes' requests */
} message;

enum {
    SHORT = 32,     /* bytes of a read's request and a write's reply */
    LONG = 36,      /* bytes of a read's reply and a write's request */
    BATCH = 32,     /* messages in flight, or sent by one call */
    CHUNK = 4096,   /* posted writes before one that is answered */
    MAX_DMA = 1 << 20,
    SEGMENTS = 16,  /* pieces that a device copies together, each to or from a place of its own */
    PATTERN = 0x5ca1ab1e, /* what reads find */
};

/* The first message to the limit program: from then on it only counts bytes. A descriptor may come with it. */
typedef struct {
    uint32_t request; /* bytes of each message */
    uint32_t reply;   /* bytes of each reply, made of the request's first, and of PATTERN behind SHORT of them */
    uint32_t every;   /* how many messages have one reply */
    uint32_t flags;
    uint32_t length;  /* of a copy */
} plan;

enum {
    PLAN_POLL = 1,   /* never sleep */
    PLAN_BULK = 2,   /* receive as much as there is, and answer all of it at once */
    PLAN_EVENT = 4,  /* signal the eventfd that came, before each reply */
    PLAN_WINDOW = 8, /* copy what appears at 0 of the memory that came to 0x80, until the socket is closed */
    PLAN_ROOM = 32,  /* receive with room for descriptors, as whoever wants none of a client's lost must */
    PLAN_COPY = 16,  /* requests are writes of the bench device's command 3 or 4: copy to or from the memory that came */
};

enum { WINDOW = 16 << 20, ECHO_AT = 0x80 };

/* common.c */

__attribute__((format(printf, 1, 2), noreturn)) void die(const char *what, ...);
double now(void);
/* CPU seconds that a process has used, or 0 for pid 0. */
double cpu_of(pid_t pid);
int connect_to(const char *path);
/* Sends all of it; `fd` goes beside it unless -1. */
void send_all(int socket, const void *data, size_t size, int fd);
/* Receives exactly `size` bytes, spinning or sleeping; 0 when the peer left before the first. */
size_t receive_all(int socket, void *data, size_t size, bool poll);
/* One receive, and the descriptor beside it, or -1. */
size_t receive_with_fd(int socket, void *data, size_t size, int *fd);

#endif
