/* What a traced guest is slow at: so many of one operation, and the picoseconds that each took, by the guest's counter. */
#include "guest.h"

#define RAM_WORDS 1024

_Noreturn void main_not_el2(void);

static uint64_t ram[RAM_WORDS] __attribute__((aligned(64)));

static void stores(uint64_t address, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        __asm__ volatile("str %0, [%1]" ::"r"(i), "r"(address) : "memory");
}

static void bursts(uint64_t address, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        __asm__ volatile("str %0, [%1]; str %0, [%1, #8]; str %0, [%1, #16]; str %0, [%1, #24];"
                         "str %0, [%1, #32]; str %0, [%1, #40]; str %0, [%1, #48]; str %0, [%1, #56]; hint #6"
                         ::"r"(i), "r"(address) : "memory");
}

static void loads(uint64_t address, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        __asm__ volatile("ldr wzr, [%0]" ::"r"(address) : "memory");
}

static void arithmetic(uint64_t address, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        __asm__ volatile("add %0, %0, #1; eor %0, %0, %0, lsr #3" : "+r"(address));
}

/* Ordinary code: loads, stores, comparisons and branches of a sort; counted in words sorted. */
static void sorting(uint64_t address, uint64_t count)
{
    uint64_t *words = (uint64_t *)address, seed = 1;

    for (uint64_t round = 0; round < count / RAM_WORDS; round++) {
        for (unsigned i = 0; i < RAM_WORDS; i++)
            words[i] = (seed = seed * 6364136223846793005ull + 1442695040888963407ull) >> 20;
        for (unsigned gap = RAM_WORDS / 2; gap; gap /= 2)
            for (unsigned i = gap; i < RAM_WORDS; i++) {
                uint64_t moved = words[i];
                unsigned j = i;
                for (; j >= gap && words[j - gap] > moved; j -= gap)
                    words[j] = words[j - gap];
                words[j] = moved;
            }
    }
}

static void measure(const char *name, void (*operation)(uint64_t, uint64_t), uint64_t address, uint64_t count)
{
    uint64_t start = read_sysreg(cntvct_el0), ticks;

    operation(address, count);
    ticks = read_sysreg(cntvct_el0) - start;
    print("%s: %lu\n", name, ticks * 1000000 / (read_sysreg(cntfrq_el0) / 1000000) / count);
}

_Noreturn void main_not_el2(void)
{
    fail(EXIT_NOT_EL2, "started below EL2");
}

_Noreturn void guest_main(void)
{
    struct install_entry mapped = { .bar = 2, .memattr = 5, .host = 4, .valid = 1, .pages = 1 };
    uint32_t bad;

    timer_start();
    mmu_start();
    pci_start();
    under_test = pci_find(0x1af4, 0x1110);
    if (under_test < 0 || mmu_install(&mapped, 1, 0, &bad))
        fail(EXIT_PANIC, "no ivshmem, or it cannot be mapped");
    uint64_t window = HOST_WINDOW + place(2, 0, PAGE);
    measure("store", stores, window, COUNT);
    measure("burst", bursts, window, COUNT / 8);
    measure("load", loads, window, COUNT);
    measure("trapped", loads, place(0, 8, 4), COUNT / 8);
    measure("sort", sorting, (uint64_t)ram, COUNT / 4);
    measure("arithmetic", arithmetic, 1, COUNT);
    leave(EXIT_OK);
}
