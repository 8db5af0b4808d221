/* What the parts of the first process share. */
#ifndef INIT_H
#define INIT_H

/* init.c: writes a word to a file of sysfs. 0, or an errno. */
int put(const char *path, const char *word);

/* arrival.c: waits for a line on the console, for a snapshot to be taken meanwhile; how many devices there are then
 * that were not there before. */
int await_devices(char addresses[][64], int most);

#endif
