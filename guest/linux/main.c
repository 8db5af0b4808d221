/* The VMM: gives devices' BARs to a virtual machine in the ways that the guest asks for, and goes on after what KVM could
 * not run (Documentation/virt/kvm/api.rst). Arguments: vfio or sysfs, or linux for a Linux as guest
 * (with vfio); the scheme in whose way to ask the kernel for what the
 * guest wants asked, or ""; the devices' PCI addresses, and platform devices as platform:NAME, of which there is one at
 * most. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm.h"

#define PLATFORM_WORD "platform:"

const char *scheme;
struct device devices[DEVICES], platform;
unsigned device_count;

static void say(const char *what, const char *format, va_list list)
{
    int error = errno;

    printf("pyvfio-user vmm: %s", what);
    vprintf(format, list);
    errno = error;
}

void fail(const char *format, ...)
{
    va_list list;

    va_start(list, format);
    say("FAILED: ", format, list);
    va_end(list);
    printf("\n");
    exit(1);
}

void fail_errno(const char *format, ...)
{
    va_list list;

    va_start(list, format);
    say("FAILED: ", format, list);
    va_end(list);
    printf(": %s\n", strerror(errno));
    exit(1);
}

static void clear(struct device *device, unsigned number)
{
    *device = (struct device){ .number = number, .file = -1, .config = -1 };
    for (unsigned bar = 0; bar < BARS; bar++)
        device->bars[bar] = device->write_combining[bar] = -1;
}

static void add(const char *address, int vfio)
{
    struct device *device = &devices[device_count];

    clear(device, device_count++);
    if (vfio)
        vfio_open(device, address);
    else
        sysfs_open(device, address);
    for (unsigned bar = 0; bar < BARS; bar++)
        device->registers[bar] = device->flags[bar];
    device_view(device);
    msix_start(device);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 4 || argc - 3 > (int)DEVICES + 1 || (strcmp(argv[1], "vfio") && strcmp(argv[1], "sysfs") && strcmp(argv[1], "linux")))
        fail("its arguments must be vfio, sysfs or linux, a scheme or nothing, and 1 to %u PCI addresses, not %d words", DEVICES,
             argc - 1);
    scheme = argv[2];
    vcpu_start(strcmp(argv[1], "linux") ? IMAGE_GUEST : IMAGE_LINUX);
    clear(&platform, DEVICES);
    for (int i = 3; i < argc; i++)
        if (!strncmp(argv[i], PLATFORM_WORD, sizeof PLATFORM_WORD - 1))
            vfio_open_platform(&platform, argv[i] + sizeof PLATFORM_WORD - 1);
        else
            add(argv[i], strcmp(argv[1], "sysfs"));
    if (strcmp(argv[1], "sysfs"))
        memory_allow();
    printf("pyvfio-user vmm: %s %s\n", argv[1], scheme);
    vcpu_run();
    return 0;
}
