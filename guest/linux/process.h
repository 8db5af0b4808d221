/* What the parts of the process share, besides guest.h. */
#ifndef PROCESS_H
#define PROCESS_H

#define BARS 6

/* process_driver.c: gives all BARs memslots, and loads a driver that maps a part of one. */
void driver_start(void);

#endif
