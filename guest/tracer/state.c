/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-or-later */
/*
 * Whether a vCPU is in AArch32 state, which QEMU's cpsr does not tell: it is entered by a return from AArch64 state, and
 * left by an exception to an exception level that is in AArch64 state (Arm ARM DDI 0487, D1.2).
 */
#include "tracer.h"

#define SPSR_AARCH32 0x10u
#define VECTORS 0x800u

/* The vCPU that this thread runs. (With all of them in one thread: the one that last changed its state.) */
static _Thread_local const struct vcpu *current;

/* Before the instruction. */
void state_return(struct vcpu *vcpu)
{
    bool el2 = (read_system(vcpu, CPSR) >> 2 & 3) == 2;
    uint64_t spsr = read_system(vcpu, el2 ? SPSR_EL2 : SPSR_EL1), hcr = read_system(vcpu, HCR_EL2);

    current = vcpu;
    vcpu->aarch32 = spsr & SPSR_AARCH32;
    vcpu->el1_aarch32 = vcpu->aarch32 && el2 && !(hcr & (HCR_RW | HCR_TGE));
}

/* When it is taken. */
void state_exception(struct vcpu *vcpu, uint64_t to)
{
    current = vcpu;
    if (!vcpu->aarch32)
        return;
    bool to_el2 = vcpu->system[VBAR_EL2] && to - read_system(vcpu, VBAR_EL2) < VECTORS;
    vcpu->aarch32 = vcpu->el1_aarch32 && !to_el2;
    vcpu->el1_aarch32 = vcpu->aarch32;
}

/* Is the code that this thread translates A32 or T32? */
bool translates_aarch32(void)
{
    return current ? current->aarch32 : vcpus[0].aarch32;
}
