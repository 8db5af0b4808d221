/* The guest: fetches messages, does them, submits the answers, until OFF. */
#include "guest.h"

/* For messages and answers; a huge page in size and alignment, so that they are contiguous for a device where RAM is made
 * of those. */
uint8_t buffers[2][BUFFER_SIZE] __attribute__((section(".noinit"), aligned(2 * BUFFER_SIZE)));

static uint32_t hello(uint32_t wanted, void *answer, enum refusal *refusal)
{
    struct hello *hello = answer;
    struct function *copies = (struct function *)(hello + 1);

    if (wanted) {
        int found = pci_find(wanted & 0xffff, wanted >> 16);
        if (found < 0) {
            *refusal = REFUSAL_NO_DEVICE;
            return 0;
        }
        under_test = found;
    }
    *hello = (struct hello){
        .midr = read_sysreg(midr_el1),
        .mmfr0 = read_sysreg(id_aa64mmfr0_el1),
        .mmfr1 = read_sysreg(id_aa64mmfr1_el1),
        .mmfr2 = read_sysreg(id_aa64mmfr2_el1),
        .pfr0 = read_sysreg(id_aa64pfr0_el1),
        .pfr1 = read_sysreg(id_aa64pfr1_el1),
        .isar0 = read_sysreg(id_aa64isar0_el1),
        .isar1 = read_sysreg(id_aa64isar1_el1),
        .isar2 = read_sysreg(S3_0_C0_C6_2), /* ID_AA64ISAR2_EL1, by number for older assemblers */
        .ctr = read_sysreg(ctr_el0),
        .dczid = read_sysreg(dczid_el0),
        .counter_hz = read_sysreg(cntfrq_el0),
        .scratch = SCRATCH_BASE,
        .scratch_size = SCRATCH_SIZE,
        .under_test = (uint32_t)under_test,
        .revision = PLAN_REVISION,
#if HOME_EL == 0
        .mapping = driver_mapping,
#endif
    };
    for (uint32_t i = 0; i < function_count; i++)
        copies[i] = functions[i];
    return (uint32_t)(sizeof *hello + function_count * sizeof *copies);
}

/* Whether the message is as long as its entries, and its answer fits. */
static int fits(const struct header *header, uint32_t length)
{
    static const struct {
        uint32_t entry, answer, most;
    } sizes[] = {
        [COMMAND_INSTALL] = { sizeof(struct install_entry), 0, 4096 },
        [COMMAND_RUN] = { sizeof(struct run_entry), sizeof(struct result), 24576 },
        [COMMAND_WORKLOAD] = { sizeof(struct workload), sizeof(struct pushed), 1 },
        [COMMAND_SCRIPT] = { sizeof(struct step), sizeof(struct outcome), 4096 },
        [COMMAND_HELLO] = { 0, 0, 0 },
        [COMMAND_OFF] = { 0, 0, 0 },
    };

    return header->count <= sizes[header->command].most &&
           length == sizeof *header + (uint64_t)header->count * sizes[header->command].entry;
}

/* Does one message. Returns the answer's length. */
static uint32_t serve(const struct header *header, uint32_t length, struct header *answer)
{
    const void *entries = header + 1;
    void *body = answer + 1;
    enum refusal refusal = REFUSAL_NONE;
    uint32_t size = 0, bad = 0, count = header->count;

    if (length < sizeof *header || header->magic != PLAN_MAGIC || header->version != PLAN_VERSION)
        refusal = REFUSAL_FORMAT;
    else if (header->command < COMMAND_INSTALL || header->command > COMMAND_OFF)
        refusal = REFUSAL_COMMAND;
    else if (!fits(header, length) || (header->command == COMMAND_WORKLOAD && count != 1))
        refusal = REFUSAL_LENGTH;
    else
        switch (header->command) {
        case COMMAND_INSTALL:
            print("pyvfio-user guest: install %u ranges, argument %x\n", count, header->argument);
            refusal = mmu_install(entries, count, header->argument, &bad);
            mmu_context(body);
            size = sizeof(struct context);
            break;
        case COMMAND_RUN:
            print("pyvfio-user guest: run %u experiments\n", count);
            size = run(entries, count, body);
            break;
        case COMMAND_WORKLOAD:
            print("pyvfio-user guest: workload\n");
            size = workload(entries, body);
            break;
        case COMMAND_SCRIPT:
            size = script(entries, count, body);
            break;
        case COMMAND_HELLO:
            print("pyvfio-user guest: hello\n");
            size = hello(header->argument, body, &refusal);
            count = function_count;
            break;
        case COMMAND_OFF:
            print("pyvfio-user guest: off\n");
            break;
        }
    *answer = (struct header){ PLAN_MAGIC, header->command, PLAN_VERSION, refusal ? bad : count, refusal };
    if (refusal) {
        print("pyvfio-user guest: refused command %u: reason %u, entry %u\n", header->command, refusal, bad);
        size = 0;
    }
    return (uint32_t)sizeof *answer + size;
}

_Noreturn void guest_main(void)
{
    uint8_t *in = buffers[0], *out = buffers[1];
    const struct header *header = (const void *)in;
    const struct transport *transport;

    timer_start();
    mmu_start();
    print("pyvfio-user guest: EL" STRING(HOME_EL) ", MIDR %lx, FWB %s\n", read_sysreg(midr_el1),
          read_sysreg(id_aa64mmfr2_el1) >> 40 & 15 ? "yes" : "no");
    pci_start();
    transport = files_open();
    if (!transport)
        transport = mailbox_open();
    if (!transport)
        fail(EXIT_NO_TRANSPORT, "no probe (1234:be50) on PCI bus 0, and no plan file given by semihosting");
    for (;;) {
        uint32_t length = transport->fetch(in);

        if (!length)
            leave(EXIT_OK);
        transport->submit(out, serve(header, length, (struct header *)out));
        if (length >= sizeof *header && header->magic == PLAN_MAGIC && header->command == COMMAND_OFF)
            leave(EXIT_OK);
    }
}

#if HOME_EL == 2
#define PSCI_SYSTEM_OFF 0x84000008

_Noreturn void main_not_el2(void);

/* Here there are no vectors and no translation. From EL1, PSCI is an HVC away; EL3 has none, and can only stop. */
_Noreturn void main_not_el2(void)
{
    print("pyvfio-user guest: FAILED: must be started at EL2: use -M virt,virtualization=on\n");
    if (read_sysreg(CurrentEL) >> 2 == 1)
        __asm__ volatile("mov x0, %0; .inst 0xd4000002 /* hvc #0 */" ::"r"((uint64_t)PSCI_SYSTEM_OFF) : "x0", "memory");
    for (;;)
        __asm__ volatile("wfi");
}
#endif
