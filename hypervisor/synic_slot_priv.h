/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The poster's side of the message slot protocol, one access to guest memory a step, so that a
 * model can run every interleaving of it with a guest (tests/unit/hypervisor/synic_model_test.c).
 * Protocol and proof: docs/hypervisor/hyperv.md, "Message slots".
 */
#ifndef HYPERVISOR_SYNIC_SLOT_PRIV_H
#define HYPERVISOR_SYNIC_SLOT_PRIV_H

#include <stdint.h>

enum hv_slot_step {
	HV_SLOT_INVALID,
	HV_SLOT_LOOK,       /* load the type: free? */
	HV_SLOT_ASK,        /* it is not: locked OR of MessagePending, so that the guest says EOM */
	HV_SLOT_LOOK_AGAIN, /* load the type: freed in between, perhaps before the guest saw that */
	HV_SLOT_FILL,       /* store all but the type */
	HV_SLOT_PUBLISH,    /* store the type, release */
	HV_SLOT_DELIVERED,  /* end: interrupt */
	HV_SLOT_BUSY,       /* end: the guest will write EOM */
	HV_SLOT_STEPS
};

/* Pure.  @type: what a step that loads has read. */
enum hv_slot_step hv_slot_next(enum hv_slot_step step, uint32_t type);

#endif
