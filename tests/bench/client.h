/* The measuring client: one operation over and over, on a server of the bench device or on the limit program. */
#ifndef CLIENT_H
#define CLIENT_H

#include "bench.h"

typedef struct {
    const char *path;
    bool limit;      /* the peer is the limit program */
    bool poll;       /* never sleep */
    bool peer_polls; /* the limit program never sleeps */
    bool bulk;       /* the limit program receives many at once, */
    bool room;       /* with room for descriptors */
    uint32_t length; /* bytes of a DMA */
    int socket;
    uint16_t id;     /* of the next message */
    int eventfd;
    int memory;      /* the window's, or the guest's */
    uint8_t *window; /* BAR 2 */
    uint8_t *ram;    /* MAX_DMA bytes that the device can reach at RAM */
    uint8_t *buffer; /* MAX_DMA bytes and a message */
    uint32_t count;  /* rings so far */
} client;

typedef struct {
    const char *name;
    plan plan;                      /* for the limit program; none needed without `request` */
    void (*prepare)(client *);      /* for a server of the device */
    uint64_t (*run)(client *);      /* a chunk; how many operations that were */
    void (*finish)(client *);
} operation;

enum { RAM = 0x40000000 };
enum {
    REG_SCRATCH = 0x00, REG_READS = 0x04, REG_WRITES = 0x08, REG_MAGIC = 0x0c, REG_ADDRESS = 0x10, REG_LENGTH = 0x18,
    REG_COMMAND = 0x20, REG_STATUS = 0x24, REG_INTERRUPT = 0x30, REG_POLL = 0x40, REG_HANDLED = 0x50,
};

/* session.c: what a VMM does once. */

/* Negotiates, and asks for everything there is to know of the device, as a VMM does; maps BAR 2 when told. */
void session_describe(client *client, bool map_window);
/* Enables memory space and bus mastering. */
void session_enable(client *client);
/* The same, and gives the device MAX_DMA bytes at RAM, which it can map or must ask for. */
void session_give_memory(client *client, bool shared);
/* The same, and MSI-X with one eventfd. */
void session_enable_msix(client *client);

/* exchange.c: one access, its reply checked. */

message access_request(client *client, uint16_t command, uint32_t offset, uint32_t value);
void access_check(const message *request, const message *reply, uint32_t size);
uint32_t access_read(client *client, uint32_t offset);
void access_write(client *client, uint32_t offset, uint32_t value);

/* operations.c, dma.c and qtest.c. */

extern const operation register_operations[], dma_operations[], qtest_operations[];

#endif
