/* Why KVM_RUN failed: user space gets an errno alone, but KVM logs the syndrome, as in
 * "Unsupported FSC: EC=0x24 xFSC=0x21 ESR_EL2=0x93c18061". */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm.h"

static int log_file = -1;

void failure_start(void)
{
    log_file = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (log_file >= 0)
        lseek(log_file, 0, SEEK_END);
}

uint64_t failure_esr(void)
{
    static const char name[] = "ESR_EL2=";
    char record[1024];
    uint64_t esr = 0;
    ssize_t length;

    while (log_file >= 0 && (length = read(log_file, record, sizeof record - 1)) > 0) {
        record[length] = 0;
        const char *found = strstr(record, name);
        if (found)
            esr = strtoull(found + sizeof name - 1, NULL, 16);
    }
    return esr;
}
