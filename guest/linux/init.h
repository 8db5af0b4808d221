/* What the parts of the first process share. */
#ifndef INIT_H
#define INIT_H

/* init.c: ends it all, saying why. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Writes a word to a file of sysfs. 0, or an errno. */
int put(const char *path, const char *word);
/* Lets vfio take devices that no IOMMU stands before; without effect where the kernel is not configured to. */
void allow_no_iommu(void);

/* platform.c: gives a platform device to vfio-platform. */
void bind_platform(const char *name);

/* arrival.c: waits for a line on the console, for a snapshot to be taken meanwhile; how many devices there are then
 * that were not there before. The line is what is to be done with them, as on the command line. */
int await_devices(char addresses[][64], int most, char *line, int size);

#endif
