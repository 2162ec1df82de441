/* SPDX-License-Identifier: Apache-2.0 */
/* For vm_inventory.c (the record) and vm_inventory_look.c (what is done by it). */
#ifndef AGENT_VM_INVENTORY_PRIV_H
#define AGENT_VM_INVENTORY_PRIV_H

#include "agent/vm_inventory.h"

struct vm_inventory {
	int directory_fd; /* borrowed */
	char vm[MIG_RECORD_NAME_BYTES];
	char file[MIG_RECORD_NAME_BYTES + 8];
	json_t *root;
	int lock_fd; /* of the file, while a job is under way here; -1 */
	bool failed; /* no memory */
};

enum vm_inventory_job vm_inventory_job(const struct vm_inventory *inventory);
bool vm_inventory_keeps(const struct vm_inventory *inventory);
/* Whether the job is of the migration @id. */
bool vm_inventory_is_of(const struct vm_inventory *inventory, const uint8_t id[MIG_ID_BYTES]);
/* Take the lock of a file that is there.  1; 0 another process has it, or there is no file. */
BASE_MUST_CHECK int vm_inventory_lock(struct vm_inventory *inventory, struct base_error *err);

#endif
