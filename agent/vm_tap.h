/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TAP devices of the host: what a network card of the VM is connected to.  Opened before the
 * lock-down.  Main thread.
 *
 * Source: Linux Documentation/networking/tuntap.rst, netdevice(7).
 */
#ifndef AGENT_VM_TAP_H
#define AGENT_VM_TAP_H

#include "agent/vm_config.h"

/**
 * vm_tap_open - a descriptor per queue, ready for a network card.
 * Makes the device if it is not there (it then goes with the last descriptor), sets its MTU,
 * puts it into the bridge and brings it up; or takes the inherited descriptors.
 * @nic:     as configured.
 * @ret_fds: @nic->queue_count descriptors, given to the caller.
 * @ret_name: what the device is called.
 * -EPERM may not; -EBUSY somebody has it; -ENODEV no such bridge; -EINVAL a descriptor that is
 * no TAP device of the right kind.  The text names key, value and what was tried.
 */
BASE_MUST_CHECK int vm_tap_open(const struct vm_nic_config *nic, int ret_fds[VM_NIC_QUEUES_MAX],
				char ret_name[VM_INTERFACE_BYTES], struct base_error *err);

#endif
