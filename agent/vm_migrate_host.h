/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The folder that the workers of a host share to keep to its limits of moves: migrate/mig_host.h,
 * as the configuration says.  Main thread, before the lock-down.
 */
#ifndef AGENT_VM_MIGRATE_HOST_H
#define AGENT_VM_MIGRATE_HOST_H

#include "agent/vm_config.h"
#include "migrate/mig_host.h"

/**
 * vm_migrate_host_open - limits and cap of the host.
 * Without the key migrate-dir the usual folder is taken, and made; where it cannot be had and no
 * cap is asked for, that is logged, and *ret_host is NULL: no limits. Otherwise "key 'migrate-dir':
 * value '...': ..." with what the system said, or mig_host_new().
 */
BASE_MUST_CHECK int vm_migrate_host_open(const struct vm_config *config, struct mig_host **ret_host,
					 struct base_error *err);

#endif
