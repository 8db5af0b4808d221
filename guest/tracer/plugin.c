/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-or-later */
/*
 * A plugin for QEMU's TCG: records every access of an arm64 guest to what the windows hold, with the memory type that the
 * guest's translation tables give it, and the barriers between.
 *
 * Arguments: ring=FILE, and for each range of physical addresses window=BASE+SIZE or config=BASE+SIZE (an ECAM);
 * eager=on for a reader that must have barriers before the next access is done.
 */
#include "tracer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

EXPORTED int qemu_plugin_version = QEMU_PLUGIN_VERSION;
EXPORTED int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv);

struct window windows[WINDOWS];
unsigned window_count;

struct vcpu *vcpus;
unsigned vcpu_count;
bool eager;

static void initialised(unsigned index, void *unused)
{
    (void)unused;
    vcpus[index].index = index;
    if (!vcpus[index].buffer)
        vcpu_registers(&vcpus[index]);
}

static void on_hidden(unsigned index, void *userdata)
{
    hidden_begin(&vcpus[index], userdata);
}

static void on_barrier(unsigned index, void *userdata)
{
    struct vcpu *vcpu = &vcpus[index];
    const struct site *site = userdata;
    unsigned at = 0;

    hidden_settle(vcpu);
    if (vcpu->all_dropped && site->meaning.barrier >> 4 == 2) {
        vcpu->all_dropped = false;
        drop_all();
    }
    while (at < vcpu->barriers && (vcpu->barrier[at]->meaning.barrier != site->meaning.barrier ||
                                   vcpu->barrier[at]->meaning.kind != site->meaning.kind))
        at++;
    if (at == vcpu->barriers) {
        vcpu->barrier[at] = site;
        vcpu->barriers++;
        if (eager)
            tell_barriers(vcpu);
        return;
    }
    if (at < vcpu->told)
        return;
    memmove(&vcpu->barrier[at], &vcpu->barrier[at + 1], (vcpu->barriers - at - 1) * sizeof vcpu->barrier[0]);
    vcpu->barrier[vcpu->barriers - 1] = site;
}

static void on_drop(unsigned index, void *userdata)
{
    const struct site *site = userdata;
    struct vcpu *vcpu = &vcpus[index];

    hidden_settle(vcpu);
    vcpu->drops++;
    if (site->meaning.action == DO_DROP_ALL) {
        vcpu->all_dropped = true;
        drop_all();
    } else if (site->meaning.action == DO_RETURN) {
        state_return(vcpu);
    }
}

static void on_discontinuity(unsigned index, enum qemu_plugin_discon_type type, uint64_t from, uint64_t to, void *unused)
{
    (void)unused;
    hidden_interrupted(&vcpus[index], from, type == QEMU_PLUGIN_DISCON_EXCEPTION);
    if (type != QEMU_PLUGIN_DISCON_HOSTCALL)
        state_exception(&vcpus[index], to);
    vcpus[index].open = NULL;
    vcpus[index].drops++;
}

/* It waits for an interrupt, or the machine is stopped: perhaps to be reset, after which nothing is as it was. */
static void on_idle(unsigned index, void *unused)
{
    (void)unused;
    hidden_settle(&vcpus[index]);
    record_barriers(&vcpus[index]);
    vcpus[index].drops++;
}

static void watch(struct qemu_plugin_insn *insn, struct site *site)
{
    /* An atomic is a load and a store to QEMU, and so is a store-exclusive. */
    enum qemu_plugin_mem_rw which = site->meaning.kind == EVENT_LOAD ? QEMU_PLUGIN_MEM_R
                                    : site->meaning.kind             ? QEMU_PLUGIN_MEM_W
                                                                     : QEMU_PLUGIN_MEM_RW;

    switch (site->meaning.action) {
    case DO_ACCESS:
        qemu_plugin_register_vcpu_mem_cb(insn, on_access, QEMU_PLUGIN_CB_R_REGS, which, site);
        break;
    case DO_ZERO:
    case DO_TAG:
    case DO_MOPS:
        qemu_plugin_register_vcpu_insn_exec_cb(insn, on_hidden, QEMU_PLUGIN_CB_R_REGS, site);
        break;
    case DO_BARRIER:
    case DO_DGH:
        qemu_plugin_register_vcpu_insn_exec_cb(insn, on_barrier, QEMU_PLUGIN_CB_R_REGS, site);
        break;
    default:
        qemu_plugin_register_vcpu_insn_exec_cb(insn, on_drop, QEMU_PLUGIN_CB_R_REGS, site);
    }
}

static void on_translation(struct qemu_plugin_tb *tb, void *unused)
{
    size_t count = qemu_plugin_tb_n_insns(tb);
    bool aarch32 = translates_aarch32();

    (void)unused;
    for (size_t i = 0; i < count; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        uint32_t word = 0;

        size_t size = qemu_plugin_insn_data(insn, &word, sizeof word);
        struct meaning meaning = aarch32 ? decode_aarch32(word, size) : decode(word);
        if (meaning.action == DO_NOTHING)
            continue;
        if (meaning.kind == EVENT_ATOMIC && vcpu_count > 1 && !stores_operand(word))
            meaning.flags |= EVENT_NO_DATA;
        struct site *site = site_new(qemu_plugin_insn_vaddr(insn), word, meaning);
        if (site)
            watch(insn, site);
        else
            fprintf(stderr, "pyvfio-user tracer: out of memory: the code at %#llx is not watched\n",
                    (unsigned long long)qemu_plugin_insn_vaddr(insn));
    }
}

/* Barriers remember instructions that are about to be forgotten. */
static void on_flush(void *unused)
{
    (void)unused;
    for (unsigned i = 0; i < vcpu_count; i++) {
        record_barriers(&vcpus[i]);
        vcpus[i].open = NULL;
    }
    sites_clear();
}

/* Other vCPUs may still run: what they remember is not touched, but copied. */
static void at_exit(void *unused)
{
    (void)unused;
    for (unsigned i = 0; i < vcpu_count; i++) {
        struct vcpu last = vcpus[i];
        hidden_give_up(&last);
        record_barriers(&last);
    }
}

static bool parse_window(const char *text, bool config)
{
    char *end;
    struct window window = { .config = config };

    window.base = strtoull(text, &end, 0);
    if (*end == '+')
        window.size = strtoull(end + 1, &end, 0);
    if (*end || !window.size || window.base % PAGE || window.size % PAGE || window_count == WINDOWS) {
        fprintf(stderr, "pyvfio-user tracer: window must be BASE+SIZE in pages of 4096 bytes, %d at most, not %s\n",
                WINDOWS, text);
        return false;
    }
    windows[window_count++] = window;
    return true;
}

static bool parse(const char *argument)
{
    if (strncmp(argument, "ring=", 5) == 0)
        return ring_open(argument + 5);
    if (strncmp(argument, "window=", 7) == 0)
        return parse_window(argument + 7, false);
    if (strncmp(argument, "config=", 7) == 0)
        return parse_window(argument + 7, true);
    if (strcmp(argument, "eager=on") == 0)
        return eager = true;
    fprintf(stderr, "pyvfio-user tracer: argument must be ring=, window=, config= or eager=on, not %s\n", argument);
    return false;
}

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    if (!info->system_emulation || strcmp(info->target_name, "aarch64") != 0) {
        fprintf(stderr, "pyvfio-user tracer: QEMU must be qemu-system-aarch64, not one for %s\n", info->target_name);
        return -1;
    }
    for (int i = 0; i < argc; i++)
        if (!parse(argv[i]))
            return -1;
    vcpu_count = (unsigned)info->system.max_vcpus;
    vcpus = calloc(vcpu_count, sizeof *vcpus);
    if (!ring || !vcpus) {
        fprintf(stderr, "pyvfio-user tracer: %s\n", ring ? "out of memory" : "argument ring= must be given");
        return -1;
    }
    qemu_plugin_register_vcpu_init_cb(id, initialised, NULL);
    qemu_plugin_register_vcpu_idle_cb(id, on_idle, NULL);
    qemu_plugin_register_vcpu_discon_cb(id, QEMU_PLUGIN_DISCON_ALL, on_discontinuity, NULL);
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation, NULL);
    qemu_plugin_register_flush_cb(id, on_flush, NULL);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
    return 0;
}
