/* Operations through a QEMU without a guest (-accel qtest), on a bench device in slot 1. The peer is QEMU's qtest. */
#include "client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TURNS = 64,
    CONFIG = 0x3f000000 + (1 << 15), /* ECAM of the machine `qtest` in qemu-configs, 00:01.0 */
    BAR0 = 0x10000000,
    BAR2 = 0x12000000,
    BAR4 = 0x11000000,
    RTC_ID = 0x09010fe0, /* a PL031 that QEMU itself serves: its ceiling */
    RTC_ID_VALUE = 0x31,
};

/* Sends lines; the last answer's value, "OK" or "OK 0x...", of which there must be `count`, all with `expected`. */
static uint64_t ask(client *client, const char *lines, int count, const uint64_t *expected)
{
    char answers[TURNS * 32 + 1], *at = answers, *end;
    size_t got = 0;
    uint64_t value = 0;

    send_all(client->socket, lines, strlen(lines), -1);
    for (int answered = 0; answered < count; answered++) {
        while (!(end = memchr(at, '\n', got - (size_t)(at - answers)))) {
            int none;
            size_t more = receive_with_fd(client->socket, answers + got, sizeof(answers) - 1 - got, &none);

            if (!more)
                die("QEMU left");
            got += more;
        }
        *end = 0;
        if (strncmp(at, "OK", 2))
            die("QEMU must answer with OK, not %s", at);
        value = strtoull(at + 2, NULL, 0);
        if (expected && value != *expected)
            die("a read must find %#llx, not %s", (unsigned long long)*expected, at);
        at = end + 1;
    }
    return value;
}

static uint32_t read4(client *client, uint32_t address)
{
    char line[64];

    snprintf(line, sizeof(line), "readl %#x\n", address);
    return (uint32_t)ask(client, line, 1, NULL);
}

static void write4(client *client, uint32_t address, uint32_t value)
{
    char line[64];

    snprintf(line, sizeof(line), "writel %#x %#x\n", address, value);
    ask(client, line, 1, NULL);
}

static void place(client *client)
{
    if (read4(client, CONFIG) != 0xbe9c1234)
        die("slot 1 must hold the device 1234:be9c, not %08x", read4(client, CONFIG));
    write4(client, CONFIG + 0x10, BAR0);
    write4(client, CONFIG + 0x18, BAR2);
    write4(client, CONFIG + 0x1c, 0);
    write4(client, CONFIG + 0x20, BAR4);
    write4(client, CONFIG + 0x04, 6);
    write4(client, BAR0 + REG_SCRATCH, PATTERN);
    write4(client, BAR2 + 0x1000, PATTERN);
}

/* The same line many times in one send: QEMU's own turns around its socket are not what is measured. */
static uint64_t repeat(client *client, const char *line, const uint64_t *expected)
{
    char lines[TURNS * 64];
    size_t length = strlen(line);

    for (int i = 0; i < TURNS; i++)
        memcpy(lines + (size_t)i * length, line, length + 1);
    ask(client, lines, TURNS, expected);
    return TURNS;
}

static uint64_t read_many(client *client, uint32_t address, uint64_t expected)
{
    char line[64];

    snprintf(line, sizeof(line), "readl %#x\n", address);
    return repeat(client, line, &expected);
}

static uint64_t run_read(client *client)
{
    return read_many(client, BAR0 + REG_SCRATCH, PATTERN);
}

static uint64_t run_mapped(client *client)
{
    return read_many(client, BAR2 + 0x1000, PATTERN);
}

static uint64_t run_own(client *client)
{
    return read_many(client, RTC_ID, RTC_ID_VALUE);
}

static uint64_t run_write(client *client)
{
    char line[64];

    snprintf(line, sizeof(line), "writel %#x %#x\n", BAR0 + REG_SCRATCH, PATTERN);
    return repeat(client, line, NULL);
}

const operation qtest_operations[] = {
    { "qtest-read", { 0 }, place, run_read, NULL },
    { "qtest-write", { 0 }, place, run_write, NULL },
    { "qtest-mapped-read", { 0 }, place, run_mapped, NULL },
    { "qtest-own-read", { 0 }, NULL, run_own, NULL },
    { 0 },
};
