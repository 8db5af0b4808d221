/* Pages of a BAR mapped anew by another thread while the vCPU is in the guest: MAP_FIXED replaces the old mapping, KVM's
 * MMU notifier takes away what stage 2 had of it, and the guest's next access faults the new one in. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm.h"

#define POLL_US 500

struct order {
    struct remap_request request;
    const struct device *device;
    volatile uint32_t *trigger;
    struct install_entry entries[];
};

static void *wait_and_map(void *argument)
{
    struct order *order = argument;
    uint32_t answer = order->request.done;

    while (*order->trigger != order->request.value)
        usleep(POLL_US);
    for (uint32_t i = 0; i < order->request.count; i++)
        if (map_piece(order->device, &order->entries[i]))
            answer = order->request.failed;
    *order->trigger = answer;
    free(order);
    return NULL;
}

void remap(struct remap_request *request)
{
    const void *entries = memory_at(request->entries, request->count * sizeof(struct install_entry));
    struct order *order = malloc(sizeof *order + request->count * sizeof(struct install_entry));
    pthread_t thread;
    unsigned bar;
    uint64_t offset;
    const struct device *device = pci_find(request->trigger, &bar, &offset);

    if (!entries || !order || !device || offset % 4 || request->function >= device_count)
        fail("a change of mappings must name entries in RAM, a register in a BAR, and a device");
    *order = (struct order){ *request, &devices[request->function], (volatile uint32_t *)(device->views[bar] + offset) };
    memcpy(order->entries, entries, request->count * sizeof(struct install_entry));
    if (pthread_create(&thread, NULL, wait_and_map, order))
        fail("there is no thread to change mappings");
    pthread_detach(thread);
}
