/* The console: a PL011 that needs no setting up under QEMU, or the hypervisor. And the ways out. */
#include <stdarg.h>

#include "guest.h"
#include "hypervisor.h"

#if HOME_EL == 2
#define UART_DATA 0x09000000ull

static void put(char c)
{
    if (c == '\n')
        write32(UART_DATA, '\r');
    write32(UART_DATA, (uint8_t)c);
}
#else
/* A line at once: each access to the hypervisor takes as long as a message's whole work. */
static void put(char c)
{
    static char line[HYPERVISOR_LINE];
    static unsigned length;

    line[length++] = c;
    if (c != '\n' && length < sizeof line - 1)
        return;
    line[length] = 0;
    length = 0;
    hypervisor_print(line);
}
#endif

static void put_number(uint64_t value, unsigned base)
{
    char digits[20];
    unsigned n = 0;

    do {
        digits[n++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    while (n)
        put(digits[--n]);
}

void print(const char *format, ...)
{
    va_list list;

    va_start(list, format);
    for (; *format; format++) {
        if (*format != '%') {
            put(*format);
            continue;
        }
        int wide = *++format == 'l';
        if (wide)
            format++;
        if (*format == 's') {
            for (const char *s = va_arg(list, const char *); *s; s++)
                put(*s);
        } else if (*format == 'u' || *format == 'x') {
            uint64_t value = wide ? va_arg(list, unsigned long) : va_arg(list, unsigned);
            put_number(value, *format == 'u' ? 10 : 16);
        } else {
            put(*format);
        }
    }
    va_end(list);
}

_Noreturn void leave(enum exit_code code)
{
    const uint64_t arguments[2] = { 0x20026, code }; /* ADP_Stopped_ApplicationExit */

    semihost(0x20, arguments); /* SYS_EXIT_EXTENDED; comes back if semihosting is off */
    psci_off();
}

_Noreturn void fail(enum exit_code code, const char *message)
{
    print("pyvfio-user guest: FAILED: %s\n", message);
    leave(code);
}
