/* The first process: loads the modules, gives the devices to vfio-pci, runs the VMM once for each way that its arguments
 * name, and turns the machine off. Its arguments are those of the kernel's command line after "first-process": what comes before
 * are words that the kernel did not know. They are devices as in
 * 0x1234:0xbe50 (none: those that come later, with ways of their own), a platform device as platform:NAME, and ways, as
 * "vfio", or "vfio:SCHEME" where the kernel is told first which scheme it is to follow. The platform device goes with the
 * PCI devices from vfio. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "init.h"

#define DEVICES "/sys/bus/pci/devices"
#define MARK "first-process"
#define MOST 4   /* devices */
#define WAYS 32u /* on the line that tells of devices */
#define SCHEME "/sys/module/kvm/parameters/bar_scheme"
#define COHERENT "nvgrace_gpu_vfio_pci"
#define NOIOMMU "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
#define PLATFORM "platform:"

static _Noreturn void off(void)
{
    fflush(stdout);
    sync();
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}

/* What the kernel has logged of what is needed here: its console shows errors alone. */
static void log_tail(void)
{
    static const char *const words[] = { "kvm", "iommu", "smmu", "vfio-", "vfio_", "vfio -", "HYP mode", NULL };
    static char log[1 << 18];
    const char *lines[12] = { NULL };
    const unsigned most = sizeof lines / sizeof *lines;
    int length = klogctl(3 /* SYSLOG_ACTION_READ_ALL */, log, sizeof log - 1);
    unsigned count = 0;

    log[length < 0 ? 0 : length] = 0;
    for (char *line = strtok(log, "\n"); line; line = strtok(NULL, "\n")) {
        const char *const *word = words;

        while (*word && !strcasestr(line, *word))
            word++;
        if (*word)
            lines[count++ % most] = strchr(line, '[') ? strchr(line, '[') : line; /* without its level, as in <6>[ */
    }
    for (unsigned i = count > most ? count - most : 0; i < count; i++)
        printf("  kernel: %s\n", lines[i % most]);
}

void fail(const char *format, ...)
{
    va_list list;

    va_start(list, format);
    printf("pyvfio-user init: FAILED: ");
    vprintf(format, list);
    printf("\n");
    va_end(list);
    log_tail();
    off();
}

static void mount_all(void)
{
    static const struct {
        const char *type, *where;
    } mounts[] = { { "proc", "/proc" }, { "sysfs", "/sys" }, { "devtmpfs", "/dev" } };

    for (unsigned i = 0; i < sizeof mounts / sizeof *mounts; i++) {
        mkdir(mounts[i].where, 0755);
        if (mount(mounts[i].type, mounts[i].where, mounts[i].type, 0, NULL) && errno != EBUSY)
            fail("%s cannot be mounted: %s", mounts[i].type, strerror(errno));
    }
}

static void load_modules(void)
{
    struct dirent **names;
    int count = scandir("/modules", &names, NULL, alphasort);

    for (int i = 0; i < count; i++) {
        char path[512];

        if (names[i]->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/modules/%s", names[i]->d_name);
        int file = open(path, O_RDONLY | O_CLOEXEC);
        const char *parameters = strstr(names[i]->d_name, "vfio_platform.ko") ? "reset_required=0" : "";
        if (file < 0 || (syscall(SYS_finit_module, file, parameters, 0) && errno != EEXIST))
            fail("module %s cannot be loaded: %s", names[i]->d_name, strerror(errno));
        close(file);
    }
}

/* Writes a word to a file of sysfs. 0, or an errno. */
int put(const char *path, const char *word)
{
    int file = open(path, O_WRONLY | O_CLOEXEC), error = 0;

    if (file < 0)
        return errno;
    if (write(file, word, strlen(word)) < 0)
        error = errno;
    close(file);
    return error;
}

void allow_no_iommu(void)
{
    put(NOIOMMU, "Y");
}

static int is(const char *device, const char *attribute, const char *wanted)
{
    char path[512], value[32] = "";
    int file;

    snprintf(path, sizeof path, DEVICES "/%s/%s", device, attribute);
    file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    ssize_t length = read(file, value, sizeof value - 1);
    close(file);
    return length > 0 && !strncmp(value, wanted, strlen(wanted));
}

/* The address, as in 0000:00:02.0, of the device that is named 0xVVVV:0xDDDD. */
static void find(const char *name, char *address, size_t size)
{
    DIR *folder = opendir(DEVICES);
    struct dirent *entry;
    char vendor[7] = "";

    if (!folder)
        fail("the kernel has no PCI bus");
    snprintf(vendor, sizeof vendor, "%s", name);
    while ((entry = readdir(folder)))
        if (is(entry->d_name, "vendor", vendor) && is(entry->d_name, "device", name + sizeof vendor)) {
            snprintf(address, size, "%s", entry->d_name);
            closedir(folder);
            return;
        }
    fail("no PCI device %s was found", name);
}

/* The driver that has the device, or "". */
static const char *driver_of(const char *address)
{
    static char target[256];
    char path[512];

    snprintf(path, sizeof path, DEVICES "/%s/driver", address);
    ssize_t length = readlink(path, target, sizeof target - 1);
    target[length < 0 ? 0 : length] = 0;
    return strrchr(target, '/') ? strrchr(target, '/') + 1 : "";
}

static void unbind(const char *address)
{
    char path[512];

    snprintf(path, sizeof path, DEVICES "/%s/driver/unbind", address);
    int error = put(path, address);
    if (error)
        fail("%s does not let go of %s: %s", driver_of(address), address, strerror(error));
}

static void bind_vfio(const char *address, const char *driver)
{
    char path[512];

    if (!strcmp(driver_of(address), driver))
        return;
    if (*driver_of(address))
        unbind(address);
    snprintf(path, sizeof path, DEVICES "/%s/iommu_group", address);
    if (access(path, F_OK))
        allow_no_iommu(); /* before the driver probes, which makes the group */
    snprintf(path, sizeof path, DEVICES "/%s/driver_override", address);
    int error = put(path, driver);
    if (error)
        fail("driver_override cannot be written: %s", strerror(error));
    snprintf(path, sizeof path, "/sys/bus/pci/drivers/%s", driver);
    if (access(path, F_OK))
        fail("the kernel has no driver %s", driver);
    error = put("/sys/bus/pci/drivers_probe", address);
    if (error || strcmp(driver_of(address), driver)) {
        snprintf(path, sizeof path, DEVICES "/%s/iommu_group", address);
        fail("%s does not take %s (%s): it has %s IOMMU group", driver, address, error ? strerror(error) : "its probe fails",
             access(path, F_OK) ? "no" : "an");
    }
}

/* Takes the device from vfio-pci again, which has it sleep and has claimed its BARs. */
static void release(const char *address)
{
    char path[512];

    if (*driver_of(address))
        unbind(address);
    snprintf(path, sizeof path, DEVICES "/%s/power/control", address);
    put(path, "on"); /* a kernel without power management has no such file, and no need */
}

/* The driver for a device: of a GPU with coherent memory its own, where the kernel has that; one that knows the device, where
 * a scheme needs it; or vfio-pci. */
static const char *driver_for(const char *address, const char *scheme)
{
    int knowing = scheme && (!strcmp(scheme, "vfio-descriptor") || !strcmp(scheme, "mmap-writecombine-vetted"));

    if (is(address, "vendor", "0x10de") && !access("/sys/bus/pci/drivers/" COHERENT, F_OK))
        return COHERENT;
    return knowing ? "probe-vfio-pci" : "vfio-pci";
}

/* Whether the VMM has the devices from vfio in this way. */
static int of_vfio(const char *way)
{
    return !strncmp(way, "vfio", 4) || !strcmp(way, "linux");
}

/* Runs the VMM to its end; whether it ended well. "platform" is a word of the command line, or NULL. */
static int run(char *way, char addresses[][64], int count, char *platform)
{
    char *scheme = strchr(way, ':'), *arguments[5 + MOST] = { "/vmm", way, "" };
    int status;
    pid_t child;

    if (scheme) {
        *scheme++ = 0;
        int error = put(SCHEME, scheme);
        if (error)
            fail("the kernel does not take scheme %s: %s", scheme, strerror(error));
        arguments[2] = scheme;
    }
    for (int i = 0; i < count; i++) {
        if (of_vfio(way))
            bind_vfio(addresses[i], driver_for(addresses[i], scheme));
        arguments[3 + i] = addresses[i];
    }
    if (!strcmp(way, "vfio"))
        arguments[3 + count] = platform;
    child = fork();
    if (child == 0) {
        execv("/vmm", arguments);
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) < 0)
        fail("the VMM cannot be started: %s", strerror(errno));
    if (WIFSIGNALED(status))
        fail("the VMM was ended by signal %d", WTERMSIG(status));
    return WEXITSTATUS(status) == 0;
}

int main(int argc, char **argv)
{
    char addresses[MOST][64] = { "" }, line[1024] = "", *words[WAYS + 1] = { NULL };
    int count = 0, vfio = 0;

    setvbuf(stdout, NULL, _IOLBF, 0);
    mount_all();
    while (argc > 1 && strcmp(argv[0], MARK)) {
        argc--;
        argv++;
    }
    if (access("/dev/kvm", F_OK))
        fail("the kernel has no /dev/kvm");
    load_modules();
    for (; count + 1 < argc && count < MOST && strlen(argv[count + 1]) == 13 && argv[count + 1][6] == ':'; count++)
        find(argv[count + 1], addresses[count], sizeof *addresses);
    int first = count + 1; /* of the ways */
    char *platform = first < argc && !strncmp(argv[first], PLATFORM, sizeof PLATFORM - 1) ? argv[first++] : NULL;
    if (first == argc)
        fail("its arguments must be up to %d devices and then ways, not %d words", MOST, argc - 1);
    char **ways = argv + first;
    if (!count) {
        count = await_devices(addresses, MOST, line, sizeof line);
        if (!count)
            fail("no device has come");
        char **end = ways = words;
        for (char *word = strtok(line, " \n"); word && end < words + WAYS; word = strtok(NULL, " \n"))
            *end++ = word;
    }
    for (char **way = ways; *way; way++)
        vfio |= of_vfio(*way);
    for (int i = 0; vfio && i < count; i++)
        bind_vfio(addresses[i], driver_for(addresses[i], NULL));
    if (platform)
        bind_platform(platform + sizeof PLATFORM - 1);
    for (; *ways; ways++) {
        if (!strncmp(*ways, "sysfs", 5))
            for (int device = 0; device < count; device++)
                release(addresses[device]);
        if (!run(*ways, addresses, count, platform))
            break;
    }
    off();
}
