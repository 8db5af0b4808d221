/* A device: its regions, and the doorbells that Python has yet to hear of. */
#include "hotpath.h"

#include <errno.h>
#include <stdlib.h>

pvu_device *pvu_device_new(pvu_recorder *recorder)
{
    pvu_device *device = calloc(1, sizeof(*device));

    if (device)
        device->recorder = recorder;
    return device;
}

void pvu_device_free(pvu_device *device)
{
    describe_free(device);
    free(device);
}

int pvu_device_set_region(pvu_device *device, uint32_t index, pvu_region *region)
{
    if (index >= PVU_REGIONS)
        return -EINVAL;
    device->regions[index] = region;
    return 0;
}
