/* The first process of a Linux guest: loads a driver, `/driver.ko`, which probes the devices that it is for. */
#include "process.h"
#include "symbols.h"

_Noreturn void _start(void)
{
    mount("proc", "/proc");
    if (call(FINIT_MODULE, open("/driver.ko", READ_ONLY), (long)"", 0, 0, 0) < 0)
        say("the driver cannot be loaded\n");
    hand_over_symbols();
    power_off();
}
