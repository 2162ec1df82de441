/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The steps of the lock-down.
 */
#ifndef AGENT_VM_SANDBOX_PRIV_H
#define AGENT_VM_SANDBOX_PRIV_H

#include <stdint.h>

#include "agent/vm_sandbox.h"

/* Every thread but the calling one gives up all capabilities.  -EPERM one of them did not. */
BASE_MUST_CHECK int vm_sandbox_drop_others(struct base_error *err);
/* The calling thread does; threads that it starts have none either. */
BASE_MUST_CHECK int vm_sandbox_drop_own(struct base_error *err);

/* Best effort: gives the ABI in force, 0 when the kernel does not enforce Landlock. */
int vm_sandbox_landlock(const struct vm_sandbox_spec *spec);

/* The list of system calls, for all threads. */
BASE_MUST_CHECK int vm_sandbox_seccomp(const struct vm_sandbox_spec *spec, struct base_error *err);

/* The ioctl requests that a locked-down worker may make; the count.  For tests, too. */
size_t vm_sandbox_ioctls(const unsigned long **ret_requests);

#endif
