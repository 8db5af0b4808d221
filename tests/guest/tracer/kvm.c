/*
 * The first process of a Linux guest that has KVM: a VMM whose own guest has a device's BAR in a memslot, and stores to it
 * with its MMU off, as Device-nGnRE, and as Normal Non-cacheable.
 */
#include "process.h"

enum { CREATE_VM = 0xae01, VCPU_MMAP_SIZE = 0xae04, CREATE_VCPU = 0xae41, RUN = 0xae80 };
enum { EXIT_MMIO = 6 };
#define SET_USER_MEMORY_REGION 0x4020ae46
#define SET_ONE_REG 0x4010aeac
#define VCPU_INIT 0x4020aeae
#define PREFERRED_TARGET 0x8020aeaf
#define REG_PC 0x6030000000100040

#define RAM 0x40000000ull
#define RAM_SIZE 0x200000ull
#define BAR 0x10000000ull
#define TABLE (RAM + 0x1000)

extern char nested[], nested_end[];

/* The first GiB is MMIO, the second RAM; the fifth is the first again, Normal Non-cacheable. x0: BAR, x1: TABLE. */
__asm__(".balign 8; nested:"
        "movz x0, #0x1000, lsl #16; movz x1, #0x4000, lsl #16; movk x1, #0x1000;"
        "mov w2, #1; str w2, [x0, #12];"
        "movz x3, #0xff04; movk x3, #0x44, lsl #16; msr mair_el1, x3;" /* nGnRE, Write-Back, Non-cacheable */
        "movz x3, #0x3519; movk x3, #0x80, lsl #16; movk x3, #2, lsl #32; msr tcr_el1, x3;" /* 39 bits, TTBR0 alone */
        "msr ttbr0_el1, x1; isb; mrs x3, sctlr_el1; orr x3, x3, #1; msr sctlr_el1, x3; isb;"
        "mov w2, #2; str w2, [x0, #12];"
        "movz x4, #1, lsl #32; add x4, x4, x0; mov w2, #3; str w2, [x4, #12]; dsb sy;"
        "movz x5, #0x0a00, lsl #16; str w2, [x5];" /* no memslot: the VMM's turn */
        "1: b 1b; nested_end:");

static long control(long file, unsigned long request, const void *argument)
{
    return call(IOCTL, file, (long)request, (long)argument, 0, 0);
}

static long add_memory(long vm, uint32_t slot, uint64_t guest, uint64_t size, long memory)
{
    const struct {
        uint32_t slot, flags;
        uint64_t guest, size, host;
    } region = { slot, 0, guest, size, (uint64_t)memory };

    return control(vm, SET_USER_MEMORY_REGION, &region);
}

static const char *run(void)
{
    long device = map_device(), kvm = open("/dev/kvm", READ_WRITE), vm = control(kvm, CREATE_VM, 0);
    long ram = call(MMAP, 0, RAM_SIZE, MAP_READ_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
    uint64_t *table = (uint64_t *)(ram + 0x1000), pc[2] = { REG_PC, 0 }, start = RAM;
    uint32_t init[8];

    if (device < 0 || vm < 0 || ram < 0)
        return "no device, or no KVM\n";
    for (long i = 0; i < nested_end - nested; i++)
        ((char *)ram)[i] = nested[i];
    table[0] = 0x401;             /* block, access flag, attribute 0 */
    table[1] = RAM | 0x705;       /* Inner Shareable, attribute 1 */
    table[4] = 0x409;             /* attribute 2 */
    pc[1] = (uint64_t)&start;
    if (add_memory(vm, 0, RAM, RAM_SIZE, ram) || add_memory(vm, 1, BAR, 4096, device))
        return "KVM does not take the memory\n";
    long vcpu = control(vm, CREATE_VCPU, 0), size = control(kvm, VCPU_MMAP_SIZE, 0);
    if (control(vm, PREFERRED_TARGET, init) || control(vcpu, VCPU_INIT, init) || control(vcpu, SET_ONE_REG, pc))
        return "KVM does not start a vCPU\n";
    const uint32_t *shared = (const uint32_t *)call(MMAP, 0, size, MAP_READ_WRITE, MAP_SHARED, vcpu);
    if (control(vcpu, RUN, 0) || shared[2] != EXIT_MMIO)
        return "the nested guest did not end as it should\n";
    return "the nested guest is done\n";
}

_Noreturn void _start(void)
{
    mount("sysfs", "/sys");
    mount("devtmpfs", "/dev");
    say(run());
    power_off();
}
