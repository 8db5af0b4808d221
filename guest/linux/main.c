/* The VMM: gives a device's BARs to a virtual machine in the ways that the guest asks for, and goes on after what KVM
 * could not run (Documentation/virt/kvm/api.rst). Arguments: the device's PCI address; vfio or sysfs; the scheme in whose way
 * to ask the kernel for what the guest wants asked, or "". */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include "vmm.h"

#define UART 0x09000000ull
#define ECAM 0x3f000000ull
#define ECAM_SIZE 0x01000000ull
#define EL1H_MASKED 0x3c5ull
#define CORE(field) (KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(field))
#define EC_DATA_ABORT (0x24ull << 26 | 1ull << 25)

const char *scheme;
static struct device device = {
    .config = -1, .bars = { -1, -1, -1, -1, -1, -1 }, .write_combining = { -1, -1, -1, -1, -1, -1 },
};
static int vcpu;
static struct kvm_run *exit_info;
static uint64_t dma, recovery;
static volatile sig_atomic_t expired;

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

static uint64_t get(uint64_t id)
{
    uint64_t value = 0;
    struct kvm_one_reg reg = { .id = id, .addr = (uintptr_t)&value };

    if (control(vcpu, KVM_GET_ONE_REG, &reg))
        fail_errno("KVM does not give register %#llx", (unsigned long long)id);
    return value;
}

static void set(uint64_t id, uint64_t value)
{
    struct kvm_one_reg reg = { .id = id, .addr = (uintptr_t)&value };

    if (control(vcpu, KVM_SET_ONE_REG, &reg))
        fail_errno("KVM does not take register %#llx", (unsigned long long)id);
}

static void on_alarm(int number)
{
    (void)number;
    expired = 1;
}

static void watch(uint64_t milliseconds)
{
    struct itimerval timer = { .it_value = { (time_t)(milliseconds / 1000), (suseconds_t)(milliseconds % 1000 * 1000) } };

    setitimer(ITIMER_REAL, &timer, NULL);
}

static void start(const char *image)
{
    struct kvm_vcpu_init init = { 0 };
    struct kvm_enable_cap nisv = { .cap = KVM_CAP_ARM_NISV_TO_USER };
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (kvm < 0)
        fail_errno("/dev/kvm cannot be opened");
    int vm = control(kvm, KVM_CREATE_VM, NULL);
    if (vm < 0)
        fail_errno("KVM creates no virtual machine");
    (void)control(vm, KVM_ENABLE_CAP, &nisv); /* without it KVM_RUN fails with ENOSYS, which is reported as well */
    memory_start(vm);
    vcpu = control(vm, KVM_CREATE_VCPU, NULL);
    int size = control(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL);
    if (vcpu < 0 || size < 0)
        fail_errno("KVM creates no vCPU");
    exit_info = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (exit_info == MAP_FAILED)
        fail_errno("the vCPU's state cannot be mapped");
    if (control(vm, KVM_ARM_PREFERRED_TARGET, &init))
        fail_errno("KVM knows no CPU for this host");
    init.features[0] |= 1u << KVM_ARM_VCPU_PSCI_0_2;
    if (control(vcpu, KVM_ARM_VCPU_INIT, &init))
        fail_errno("KVM does not start the vCPU");
    set(CORE(regs.pc), load_elf(image));
    struct sigaction action = { .sa_handler = on_alarm };
    sigaction(SIGALRM, &action, NULL);
    failure_start();
}

/* Lets the guest go on where it said, and know what happened. */
static void report(uint64_t esr, int error)
{
    uint64_t pc = get(CORE(regs.pc)), pstate = get(CORE(regs.pstate));

    if (!recovery)
        fail("KVM_RUN ended with %s at PC %#llx", strerror(error), (unsigned long long)pc);
    set(CORE(regs.regs[2]), esr);
    set(CORE(regs.regs[3]), (uint64_t)error);
    set(CORE(regs.regs[4]), pc);
    set(CORE(regs.regs[5]), pstate);
    set(CORE(regs.pstate), EL1H_MASKED);
    set(CORE(regs.pc), recovery);
}

static void hypervisor(int write, uint64_t offset, uint64_t *value)
{
    struct install_request *request;

    if (!write) {
        *value = offset == HYPERVISOR_DMA ? dma : 0;
        return;
    }
    switch (offset) {
    case HYPERVISOR_INSTALL:
        request = memory_at(*value, sizeof *request);
        if (request)
            install(&device, request);
        break;
    case HYPERVISOR_DMA:
        dma = memory_dma(*value);
        break;
    case HYPERVISOR_PAUSE:
        usleep((useconds_t)*value);
        break;
    case HYPERVISOR_WATCHDOG:
        watch(*value);
        break;
    case HYPERVISOR_FAILED:
        recovery = *value;
        break;
    }
}

/* One access of the size that the guest made. */
static void access_bar(volatile uint8_t *at, int write, unsigned size, uint64_t *value)
{
    switch (size) {
    case 1:
        if (write) *at = (uint8_t)*value; else *value = *at;
        break;
    case 2:
        if (write) *(volatile uint16_t *)at = (uint16_t)*value; else *value = *(volatile uint16_t *)at;
        break;
    case 4:
        if (write) *(volatile uint32_t *)at = (uint32_t)*value; else *value = *(volatile uint32_t *)at;
        break;
    default:
        if (write) *(volatile uint64_t *)at = *value; else *value = *(volatile uint64_t *)at;
        break;
    }
}

static void mmio(uint64_t address, int write, unsigned size, uint64_t *value)
{
    if (!write)
        *value = ~0ull;
    if (address == UART) {
        if (write)
            putchar((int)(*value & 0xff));
    } else if (address >= HYPERVISOR_BASE && address < HYPERVISOR_BASE + HYPERVISOR_SIZE) {
        hypervisor(write, address - HYPERVISOR_BASE, value);
    } else if (address >= ECAM && address < ECAM + ECAM_SIZE) {
        pci_config(&device, write, address - ECAM, value, size);
    } else {
        for (unsigned bar = 0; bar < BARS; bar++)
            if (pci_bar(bar) && address >= pci_bar(bar) && address - pci_bar(bar) < device.sizes[bar])
                access_bar(device.views[bar] + (address - pci_bar(bar)), write, size, value);
    }
}

static void forward(void)
{
    uint64_t value = 0;

    memcpy(&value, exit_info->mmio.data, exit_info->mmio.len);
    mmio(exit_info->mmio.phys_addr, exit_info->mmio.is_write, exit_info->mmio.len, &value);
    memcpy(exit_info->mmio.data, &value, exit_info->mmio.len);
}

static void run(void)
{
    for (;;) {
        int done = control(vcpu, KVM_RUN, NULL);

        if (done < 0 && errno == EINTR) {
            if (expired)
                report(0, ETIME);
            expired = 0;
        } else if (done < 0) {
            int error = errno;
            report(failure_esr(), error);
        } else if (exit_info->exit_reason == KVM_EXIT_MMIO) {
            forward();
        } else if (exit_info->exit_reason == KVM_EXIT_ARM_NISV) {
            report(EC_DATA_ABORT | (exit_info->arm_nisv.esr_iss & 0x1ffffff), ENOSYS);
        } else if (exit_info->exit_reason == KVM_EXIT_SYSTEM_EVENT) {
            return;
        } else {
            fail("KVM_RUN must not end with exit reason %u", exit_info->exit_reason);
        }
    }
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc != 4 || (strcmp(argv[2], "vfio") && strcmp(argv[2], "sysfs")))
        fail("its arguments must be a PCI address, vfio or sysfs, and a scheme or nothing, not %d words", argc - 1);
    scheme = argv[3];
    start("/guest.elf");
    if (!strcmp(argv[2], "vfio")) {
        vfio_open(&device, argv[1]);
        memory_allow();
    } else {
        sysfs_open(&device, argv[1]);
    }
    device_view(&device);
    printf("pyvfio-user vmm: %s %s\n", argv[2], scheme);
    run();
    return 0;
}
