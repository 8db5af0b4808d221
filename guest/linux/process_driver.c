/* A driver of Debian's that maps part of a BAR by ioremap_wc: ramoops, which keeps logs in memory that it is told of. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guest.h"
#include "hypervisor.h"
#include "probe.h"
#include "process.h"

uint64_t driver_mapping;

static void load_modules(const char *arguments)
{
    struct dirent **names;
    int count = scandir("/modules", &names, NULL, alphasort);

    for (int i = 0; i < count; i++) {
        char path[512];

        if (names[i]->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/modules/%s", names[i]->d_name);
        int file = open(path, O_RDONLY | O_CLOEXEC);
        if (syscall(SYS_finit_module, file, i + 1 == count ? arguments : "", 0))
            print("<4>pyvfio-user process: %s cannot be loaded: %s\n", path, strerror(errno));
        close(file);
    }
}

/* The virtual address of its mapping, from a line as "0xffff800081090000-0xffff8000810a1000   69632 persistent_ram_new+0x..
 * phys=0x0000000010150000 ioremap". */
static uint64_t find_mapping(uint64_t address)
{
    FILE *file = fopen("/proc/vmallocinfo", "re");
    char line[512];
    uint64_t found = 0;

    while (file && !found && fgets(line, sizeof line, file)) {
        const char *at = strstr(line, "phys=");
        if (at && strtoull(at + 5, NULL, 0) == address)
            found = strtoull(line, NULL, 0);
    }
    if (file)
        fclose(file);
    return found;
}

/* With the whole BAR in a memslot, so that the driver's accesses are the kernel's policy at work. */
void driver_start(void)
{
    struct install_entry *entries = (void *)buffers; /* where the VMM can find them */
    char arguments[128];
    uint64_t address = place(DRIVER_BAR, DRIVER_OFFSET, DRIVER_SIZE);
    uint32_t count = 0, bad;

    for (uint8_t bar = 0; bar < BARS; bar++)
        if (functions[0].bars[bar])
            entries[count++] = (struct install_entry){
                .bar = bar, .memattr = BACKING_DEVICE, .valid = 1, .pages = (uint32_t)(functions[0].sizes[bar] / PAGE),
            };
    if (mmu_install(entries, count, 0, &bad))
        fail(EXIT_TRANSPORT, "the VMM does not take the BARs");
    snprintf(arguments, sizeof arguments, "mem_address=%#llx mem_size=%u mem_type=0 record_size=4096",
             (unsigned long long)address, DRIVER_SIZE);
    load_modules(arguments);
    driver_mapping = find_mapping(address);
}
