/* Devices that were not there when the machine started: one that goes on from a snapshot has its devices from then on. It is
 * told so by a line on its console, whose interrupt wakes it: QEMU keeps no timers of EL2's in a snapshot, which would. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "init.h"

#define BUS "/sys/bus/pci"
#define FUNCTIONS 32

static char known[FUNCTIONS][64];
static int known_count;

static int is_new(const struct dirent *entry)
{
    if (entry->d_name[0] == '.')
        return 0;
    for (int i = 0; i < known_count; i++)
        if (!strcmp(known[i], entry->d_name))
            return 0;
    return 1;
}

/* The devices that are new, in the order of their addresses. */
static int list(char addresses[][64], int most)
{
    struct dirent **names;
    int count = scandir(BUS "/devices", &names, is_new, alphasort);

    for (int i = 0; i < count && i < most; i++)
        snprintf(addresses[i], 64, "%s", names[i]->d_name);
    for (int i = 0; i < count; i++)
        free(names[i]);
    if (count >= 0)
        free(names);
    return count < most ? count : most;
}

int await_devices(char addresses[][64], int most, char *line, int size)
{
    int count;

    known_count = list(known, FUNCTIONS);
    printf("pyvfio-user init: ready for devices\n");
    if (!fgets(line, size, stdin))
        return 0; /* there is no console to wait at */
    put(BUS "/rescan", "1");
    count = list(addresses, most);
    return count > 0 ? count : 0;
}
