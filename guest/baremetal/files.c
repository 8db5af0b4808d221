/* Messages from a file and answers to another, by semihosting: for runs without a probe, and tests of the guest itself.
 * The command line (-semihosting-config enable=on,arg=plan,arg=IN,arg=OUT) names them; each message and each answer has
 * its length before it, 4 bytes. */
#include "guest.h"

#define SYS_OPEN 0x01
#define SYS_CLOSE 0x02
#define SYS_WRITE 0x05
#define SYS_READ 0x06
#define SYS_GET_CMDLINE 0x15
#define OPEN_READ 1   /* "rb" */
#define OPEN_WRITE 5  /* "wb" */

static int64_t in, out;

static int64_t open(const char *name, uint64_t mode)
{
    uint64_t length = 0;

    while (name[length])
        length++;
    const uint64_t arguments[3] = { (uint64_t)name, mode, length };
    return semihost(SYS_OPEN, arguments);
}

/* Both give the number of bytes that were *not* transferred. */
static int64_t transfer(uint64_t operation, int64_t file, const void *buffer, uint64_t length)
{
    const uint64_t arguments[3] = { (uint64_t)file, (uint64_t)buffer, length };

    return semihost(operation, arguments);
}

static uint32_t fetch(void *buffer)
{
    uint32_t length = 0;

    if (transfer(SYS_READ, in, &length, sizeof length) != 0) {
        const uint64_t handle = (uint64_t)out;
        semihost(SYS_CLOSE, &handle);
        return 0;
    }
    if (length > BUFFER_SIZE || transfer(SYS_READ, in, buffer, length) != 0)
        fail(EXIT_TRANSPORT, "the plan file ends within a message, or a message is too long");
    return length;
}

static void submit(const void *buffer, uint32_t length)
{
    if (transfer(SYS_WRITE, out, &length, sizeof length) || transfer(SYS_WRITE, out, buffer, length))
        fail(EXIT_TRANSPORT, "cannot write the answers");
}

const struct transport *files_open(void)
{
    static const struct transport transport = { fetch, submit };
    static char line[1024];
    const uint64_t arguments[2] = { (uint64_t)line, sizeof line };
    char *names[3] = { line, NULL, NULL };
    unsigned words = 1;

    if (semihost(SYS_GET_CMDLINE, arguments) != 0)
        return NULL;
    for (char *c = line; *c; c++) {
        if (*c != ' ')
            continue;
        *c = 0;
        if (words < 3)
            names[words] = c + 1;
        words++;
    }
    if (words != 3 || line[0] != 'p' || line[1] != 'l' || line[2] != 'a' || line[3] != 'n' || line[4])
        return NULL;
    in = open(names[1], OPEN_READ);
    out = open(names[2], OPEN_WRITE);
    if (in < 0 || out < 0)
        fail(EXIT_TRANSPORT, in < 0 ? "cannot open the plan file" : "cannot open the file for the answers");
    return &transport;
}
