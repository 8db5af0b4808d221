/* A platform device for vfio-platform. Nothing else drives it, and no IOMMU stands before it. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "init.h"

#define BUS "/sys/bus/platform"
#define DRIVER "vfio-platform"

void bind_platform(const char *name)
{
    char path[512];

    snprintf(path, sizeof path, BUS "/devices/%s/driver_override", name);
    if (access(path, F_OK))
        fail("there is no platform device %s", name);
    if (access(BUS "/drivers/" DRIVER, F_OK))
        fail("the kernel has no driver " DRIVER);
    allow_no_iommu(); /* before the driver probes, which makes the group */
    int error = put(path, DRIVER);
    if (!error)
        error = put(BUS "/drivers_probe", name);
    snprintf(path, sizeof path, BUS "/drivers/" DRIVER "/%s", name);
    if (error || access(path, F_OK))
        fail(DRIVER " does not take %s (%s)", name, error ? strerror(error) : "its probe fails");
}
