/* The virtual machine and its vCPU: run, and set going again after what KVM could not run. */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>

#include "vmm.h"

#define EL1H_MASKED 0x3c5ull
#define CORE(field) (KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(field))
#define LINUX_INITRD 0x06000000ull
#define EC_DATA_ABORT (0x24ull << 26 | 1ull << 25)

static int vcpu;
static struct kvm_run *exit_info;
static uint64_t recovery;
static volatile sig_atomic_t expired;

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

void vcpu_watch(uint64_t milliseconds)
{
    struct itimerval timer = { .it_value = { (time_t)(milliseconds / 1000), (suseconds_t)(milliseconds % 1000 * 1000) } };

    setitimer(ITIMER_REAL, &timer, NULL);
}

/* As Documentation/arch/arm64/booting.rst wants it; guest/linux/nested.py has these addresses too. */
static void load_linux(void)
{
    load_file("/l2/dtb", RAM_BASE);
    load_file("/l2/Image", RAM_BASE + HUGE_PAGE);
    load_file("/l2/initrd", RAM_BASE + LINUX_INITRD);
    set(CORE(regs.regs[0]), RAM_BASE);
    set(CORE(regs.pc), RAM_BASE + HUGE_PAGE);
}

void vcpu_start(enum image image)
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
    rules_start(kvm);
    memory_start(vm, image == IMAGE_LINUX ? LINUX_RAM_SIZE : RAM_SIZE);
    vgic_create(vm);
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
    vgic_start();
    if (image == IMAGE_LINUX)
        load_linux();
    else
        set(CORE(regs.pc), load_elf("/guest.elf"));
    struct sigaction action = { .sa_handler = on_alarm };
    sigaction(SIGALRM, &action, NULL);
    failure_start();
}

void vcpu_recover(uint64_t address)
{
    recovery = address;
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

static void forward(void)
{
    uint64_t value = 0;

    memcpy(&value, exit_info->mmio.data, exit_info->mmio.len);
    bus_access(exit_info->mmio.phys_addr, exit_info->mmio.is_write, exit_info->mmio.len, &value);
    memcpy(exit_info->mmio.data, &value, exit_info->mmio.len);
}

/* The guest asks for a memory type (guest/linux/patches, trap). */
static void answer_call(void)
{
    int granted = get(CORE(regs.regs[3])) == 1;
    uint64_t pages = get(CORE(regs.regs[2]));

    if (exit_info->hypercall.nr != MEMORY_TYPE_CALL)
        fail("the VMM knows no hypercall %#llx", (unsigned long long)exit_info->hypercall.nr);
    set(CORE(regs.regs[0]), (uint64_t)memory_grant(get(CORE(regs.regs[1])), pages, granted));
}

void vcpu_run(void)
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
        } else if (exit_info->exit_reason == KVM_EXIT_HYPERCALL) {
            answer_call();
        } else if (exit_info->exit_reason == KVM_EXIT_ARM_NISV) {
            report(EC_DATA_ABORT | (exit_info->arm_nisv.esr_iss & 0x1ffffff), ENOSYS);
        } else if (exit_info->exit_reason == KVM_EXIT_SYSTEM_EVENT) {
            return;
        } else {
            fail("KVM_RUN must not end with exit reason %u", exit_info->exit_reason);
        }
    }
}
