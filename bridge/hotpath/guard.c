/*
 * A client can cut the file behind its DMA map short, after which the memory is still mapped but an access to it is
 * SIGBUS. A copy that runs into that ends; any other SIGBUS is left to whoever handled it before.
 */
#include "hotpath.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>

/* Initial-exec: a signal handler must not make the dynamic linker allocate it. */
static _Thread_local sigjmp_buf *copying __attribute__((tls_model("initial-exec")));
static struct sigaction before;

static void on_sigbus(int number, siginfo_t *info, void *context)
{
    /* Be it the fault's, or sent on by a handler that was installed later, told of it, and gave way to this one. */
    if (copying)
        siglongjmp(*copying, 1);
    /* One that was sent comes from a handler that is done with it, and wants the process to end; none can be ignored. */
    if (info->si_code <= 0 ||
        (!(before.sa_flags & SA_SIGINFO) && (before.sa_handler == SIG_DFL || before.sa_handler == SIG_IGN))) {
        signal(SIGBUS, SIG_DFL);
        raise(SIGBUS);
    } else if (before.sa_flags & SA_SIGINFO) {
        before.sa_sigaction(number, info, context);
    } else {
        before.sa_handler(number);
    }
}

int guard_install(void)
{
    struct sigaction now, ours = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK };

    if (sigaction(SIGBUS, NULL, &now) < 0)
        return -errno;
    if (now.sa_flags & SA_SIGINFO && now.sa_sigaction == on_sigbus)
        return 0;
    before = now;
    return sigaction(SIGBUS, &ours, NULL) < 0 ? -errno : 0;
}

bool guard_run(void (*work)(void *), void *context)
{
    sigjmp_buf here;

    if (sigsetjmp(here, 0) == 0) {
        copying = &here;
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        work(context);
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        copying = NULL;
        return true;
    }
    copying = NULL;
    return false;
}
