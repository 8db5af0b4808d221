/* Messages by the probe's mailbox: the device writes the next one into our buffer, and reads our answers from it. */
#include "guest.h"
#include "probe.h"

static uint64_t registers; /* BAR 0 of the probe; 0 without one */

static void fence(void)
{
    __asm__ volatile("dsb sy" ::: "memory");
}

static void offer(const void *buffer, uint32_t length)
{
    static uint64_t addresses[2]; /* as devices have them: asked for once, since a hypervisor takes its time to say */
    uint64_t *address = &addresses[buffer != buffers[0]];

    if (!*address)
        *address = dma_address(buffer);
    write32(registers + PROBE_MAILBOX_ADDRESS, (uint32_t)*address);
    write32(registers + PROBE_MAILBOX_ADDRESS + 4, (uint32_t)(*address >> 32));
    write32(registers + PROBE_MAILBOX_CAPACITY, BUFFER_SIZE);
    write32(registers + PROBE_MAILBOX_LENGTH, length);
}

/* Gives one command, and says how it ended: PROBE_MAILBOX_DONE or PROBE_MAILBOX_EMPTY. */
static uint32_t command(uint32_t command)
{
    fence();
    write32(registers + PROBE_MAILBOX_COMMAND, command);
    uint32_t status = read32(registers + PROBE_MAILBOX_STATUS);
    fence();
    if (status == PROBE_MAILBOX_DONE || status == PROBE_MAILBOX_EMPTY)
        return status;
    if (status == PROBE_MAILBOX_REFUSED)
        print("pyvfio-user guest: the probe refused mailbox command %u with error %u\n", command,
              read32(registers + PROBE_MAILBOX_ERROR));
    fail(EXIT_TRANSPORT, status == PROBE_MAILBOX_REFUSED ? "mailbox refused" : "the probe does not answer any more");
}

static uint32_t fetch(void *buffer)
{
    uint32_t microseconds = 0;

    offer(buffer, 0);
    while (command(PROBE_MAILBOX_FETCH) == PROBE_MAILBOX_EMPTY) {
        if (microseconds)
            sleep_for(microseconds);
        microseconds += microseconds / 8 + 20; /* do not keep an idle host busy */
        microseconds = microseconds < 4000 ? microseconds : 4000;
    }
    return read32(registers + PROBE_MAILBOX_LENGTH);
}

static void submit(const void *buffer, uint32_t length)
{
    offer(buffer, length);
    if (command(PROBE_MAILBOX_SUBMIT) != PROBE_MAILBOX_DONE)
        fail(EXIT_TRANSPORT, "the probe did not take an answer");
}

void mailbox_mark(uint32_t mark)
{
    if (registers)
        write32(registers + PROBE_MARK, mark);
}

const struct transport *mailbox_open(void)
{
    static const struct transport transport = { fetch, submit };
    int probe = pci_find(PROBE_VENDOR, PROBE_DEVICE);

    if (probe < 0 || !functions[probe].bars[0])
        return NULL;
    registers = functions[probe].bars[0];
    uint32_t identity = read32(registers + PROBE_ID), version = read32(registers + PROBE_VERSION);
    if (identity != PROBE_IDENTITY || version != PROBE_DEVICE_VERSION) {
        print("pyvfio-user guest: the probe says ID %x version %u\n", identity, version);
        fail(EXIT_TRANSPORT, "not the probe this guest was built for");
    }
    return &transport;
}
