/* What the first process of a Linux guest needs, without a C library. */
#ifndef PROCESS_H
#define PROCESS_H

#include <stdint.h>

enum { IOCTL = 29, MKDIRAT = 34, MOUNT = 40, OPENAT = 56, READ = 63, WRITE = 64, REBOOT = 142, MMAP = 222, FINIT_MODULE = 273 };
enum { HERE = -100, READ_ONLY = 0, READ_WRITE = 2, SYNC = 04010000, POWER_OFF = 0x4321fedc };
enum { MAP_SHARED = 1, MAP_ANONYMOUS = 0x20, MAP_READ_WRITE = 3 };

_Noreturn void _start(void);

static inline long call(long number, long a, long b, long c, long d, long e)
{
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = 0;

    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}

static inline long open(const char *path, long flags)
{
    return call(OPENAT, HERE, (long)path, flags, 0, 0);
}

static inline void say(const char *text)
{
    long length = 0;

    while (text[length])
        length++;
    call(WRITE, 1, (long)text, length, 0, 0);
}

static inline void mount(const char *type, const char *where)
{
    call(MKDIRAT, HERE, (long)where, 0755, 0, 0);
    call(MOUNT, (long)type, (long)where, (long)type, 0, 0);
}

static inline _Noreturn void power_off(void)
{
    for (;;)
        call(REBOOT, (long)0xfee1dead, 672274793, POWER_OFF, 0, 0);
}

/* The first page of BAR 0 of the device in slot 2, by sysfs: Device-nGnRE. Negative if it cannot be had. */
static inline long map_device(void)
{
    long enable = open("/sys/bus/pci/devices/0000:00:02.0/enable", READ_WRITE);
    long resource = open("/sys/bus/pci/devices/0000:00:02.0/resource0", READ_WRITE | SYNC);

    call(WRITE, enable, (long)"1", 1, 0, 0);
    return resource < 0 ? resource : call(MMAP, 0, 4096, MAP_READ_WRITE, MAP_SHARED, resource);
}

#endif
