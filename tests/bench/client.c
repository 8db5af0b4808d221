/* The measuring client: measures one operation for some time, and prints one line of JSON. */
#define _GNU_SOURCE
#include "client.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_CLIENTS = 256 };

typedef struct {
    uint64_t count;
    double seconds, client_cpu, peer_cpu;
} result;

static const char USAGE[] =
    "usage: client OPERATION SOCKET [--seconds S] [--warm S] [--length BYTES] [--poll] [--limit [--peer-polls] "
    "[--bulk] [--room]]\n       [--clients N (of SOCKET with %d)] [--also PID]";

static const operation *find(const operation *operations, const char *name)
{
    for (; operations->name; operations++)
        if (!strcmp(operations->name, name))
            return operations;
    return NULL;
}

static void open_limit(client *client, const operation *operation)
{
    plan plan = operation->plan;

    if (!plan.request && !plan.flags)
        return; /* it is done here */
    plan.flags |= (client->peer_polls ? PLAN_POLL : 0) | (client->bulk ? PLAN_BULK : 0) |
                  (client->room ? PLAN_ROOM : 0);
    if (plan.request == SHORT + 1)
        plan.request = SHORT + client->length;
    if (plan.reply == SHORT + 1)
        plan.reply = SHORT + client->length;
    if (plan.flags & PLAN_WINDOW) {
        int memory = memfd_create("window", MFD_CLOEXEC);
        char ready;

        if (memory < 0 || ftruncate(memory, WINDOW) < 0)
            die("no memory for the window: %s", strerror(errno));
        client->window = mmap(NULL, WINDOW, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
        send_all(client->socket, &plan, sizeof(plan), memory);
        receive_all(client->socket, &ready, 1, false);
    } else if (plan.flags & PLAN_COPY) {
        int memory = memfd_create("guest", MFD_CLOEXEC);

        if (memory < 0 || ftruncate(memory, MAX_DMA) < 0)
            die("no memory for the guest: %s", strerror(errno));
        plan.length = client->length;
        send_all(client->socket, &plan, sizeof(plan), memory);
        close(memory);
    } else if (plan.flags & PLAN_EVENT) {
        client->eventfd = eventfd(0, EFD_CLOEXEC | (client->poll ? EFD_NONBLOCK : 0));
        send_all(client->socket, &plan, sizeof(plan), client->eventfd);
    } else {
        send_all(client->socket, &plan, sizeof(plan), -1);
    }
}

/* To connect, to ask everything, to leave: all of it counts. */
static uint64_t run_connect(client *client)
{
    client->socket = connect_to(client->path);
    session_describe(client, false);
    close(client->socket);
    return 1;
}

static const operation CONNECT = { "connect", { 0 }, NULL, run_connect, NULL };

static pid_t peer_of(int socket)
{
    struct ucred peer = { 0 };
    socklen_t size = sizeof(peer);

    getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size);
    return peer.pid;
}

/* Warms up, tells and waits until all are ready, and measures. */
static result measure(client *client, const operation *operation, double warm, double seconds, pid_t also, int ready,
                      int go)
{
    bool qtest = !strncmp(operation->name, "qtest", 5), connects = operation == &CONNECT;
    pid_t peer;
    result found = { 0 };
    double begun, client_cpu, peer_cpu;
    char byte = 0;

    client->buffer = malloc(MAX_DMA + 64);
    client->ram = malloc(MAX_DMA);
    memset(client->buffer, 1, MAX_DMA);
    memset(client->ram, 2, MAX_DMA);
    client->socket = connect_to(client->path);
    peer = peer_of(client->socket);
    if (client->limit)
        open_limit(client, operation);
    else if (!qtest && !connects)
        session_describe(client, operation->plan.flags & PLAN_WINDOW);
    if (!client->limit && operation->prepare)
        operation->prepare(client);
    if (connects)
        close(client->socket);
    for (begun = now(); now() - begun < warm;)
        operation->run(client);
    if (write(ready, &byte, 1) != 1 || read(go, &byte, 1) < 0)
        die("the start was lost: %s", strerror(errno));
    client_cpu = cpu_of(getpid());
    peer_cpu = cpu_of(peer) + cpu_of(also);
    begun = now();
    do {
        found.count += operation->run(client);
        found.seconds = now() - begun;
    } while (found.seconds < seconds);
    found.client_cpu = cpu_of(getpid()) - client_cpu;
    found.peer_cpu = cpu_of(peer) + cpu_of(also) - peer_cpu;
    if (!client->limit && operation->finish)
        operation->finish(client);
    return found;
}

int main(int count, char **arguments)
{
    static const struct option OPTIONS[] = {
        { "seconds", required_argument, NULL, 's' }, { "warm", required_argument, NULL, 'w' },
        { "length", required_argument, NULL, 'l' },  { "poll", no_argument, NULL, 'p' },
        { "limit", no_argument, NULL, 'L' },         { "peer-polls", no_argument, NULL, 'P' },
        { "bulk", no_argument, NULL, 'b' },          { "clients", required_argument, NULL, 'n' },
        { "also", required_argument, NULL, 'a' },    { "room", no_argument, NULL, 'r' },
        { 0 },
    };
    client client = { .length = 4096, .socket = -1, .eventfd = -1 };
    const operation *operation;
    double seconds = 0.2, warm = 0.02;
    unsigned clients = 1;
    pid_t also = 0;
    int ready[2], go[2], results[2], option;
    result total = { 0 };

    while ((option = getopt_long(count, arguments, "", OPTIONS, NULL)) >= 0)
        switch (option) {
        case 's': seconds = strtod(optarg, NULL); break;
        case 'w': warm = strtod(optarg, NULL); break;
        case 'l': client.length = (uint32_t)strtoul(optarg, NULL, 0); break;
        case 'p': client.poll = true; break;
        case 'L': client.limit = true; break;
        case 'P': client.peer_polls = true; break;
        case 'b': client.bulk = true; break;
        case 'r': client.room = true; break;
        case 'n': clients = (unsigned)strtoul(optarg, NULL, 0); break;
        case 'a': also = (pid_t)strtol(optarg, NULL, 0); break;
        default: die("%s", USAGE);
        }
    if (count - optind != 2 || !clients || clients > MAX_CLIENTS || !client.length || client.length > MAX_DMA / 2)
        die("%s", USAGE);
    operation = !strcmp(arguments[optind], "connect") ? &CONNECT : find(register_operations, arguments[optind]);
    if (!operation)
        operation = find(dma_operations, arguments[optind]);
    if (!operation)
        operation = find(qtest_operations, arguments[optind]);
    if (!operation)
        die("operation must be one this program has, not %s", arguments[optind]);
    if (pipe(ready) < 0 || pipe(go) < 0 || pipe(results) < 0)
        die("no pipes: %s", strerror(errno));
    for (unsigned i = 0; i < clients; i++) {
        char path[256];
        result found;
        pid_t child = fork();

        if (child < 0)
            die("cannot fork: %s", strerror(errno));
        if (child)
            continue;
        snprintf(path, sizeof(path), "%s", arguments[optind + 1]);
        if (strstr(path, "%d")) {
            char *place = strstr(path, "%d");
            const char *rest = strstr(arguments[optind + 1], "%d") + 2;

            snprintf(place, sizeof(path) - (size_t)(place - path), "%u%s", i, rest);
        }
        client.path = path;
        close(go[1]);
        found = measure(&client, operation, warm, seconds, i ? 0 : also, ready[1], go[0]);
        if (write(results[1], &found, sizeof(found)) != sizeof(found))
            die("the result was lost: %s", strerror(errno));
        exit(0);
    }
    close(ready[1]);
    for (unsigned i = 0; i < clients; i++) {
        char byte;

        if (read(ready[0], &byte, 1) != 1)
            die("a client failed");
    }
    close(go[1]); /* all of them go */
    close(results[1]);
    for (unsigned i = 0; i < clients; i++) {
        result found;

        if (read(results[0], &found, sizeof(found)) != sizeof(found))
            die("a client failed");
        total.count += found.count;
        total.client_cpu += found.client_cpu;
        total.peer_cpu = found.peer_cpu > total.peer_cpu ? found.peer_cpu : total.peer_cpu;
        total.seconds = found.seconds > total.seconds ? found.seconds : total.seconds;
    }
    while (wait(NULL) > 0)
        ;
    printf("{\"count\": %llu, \"seconds\": %.9f, \"client_cpu\": %.9f, \"peer_cpu\": %.9f}\n",
           (unsigned long long)total.count, total.seconds, total.client_cpu, total.peer_cpu);
    return 0;
}
