/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images that a VM has left: each is called NAME.moved from then on, so that nobody starts from
 * what is old by mistake, until it is removed, or for ever where it is kept. docs/migrate/disks.md,
 * section 6.
 *
 * Blocking; any thread but an I/O loop's.
 */
#ifndef AGENT_VM_IMAGE_AWAY_H
#define AGENT_VM_IMAGE_AWAY_H

#include "hypervisor/disk/store.h"

/* -ENAMETOOLONG. */
BASE_MUST_CHECK int vm_image_away_name(const char *name, char ret_away[STORE_NAME_BYTES],
				       struct base_error *err);
/* That @name can be put away: -EEXIST an older one is there, kept by an earlier move. */
BASE_MUST_CHECK int vm_image_away_check(struct store *store, struct base_io_loop *loop,
					const char *name, struct base_error *err);
/* Durable when it returns 0.  Else it is called as before, unless the text says otherwise. */
BASE_MUST_CHECK int vm_image_put_away(struct store *store, const char *name,
				      struct base_error *err);
/* Remove what was put away, and what is recorded beside it; 0 also where there is none. */
BASE_MUST_CHECK int vm_image_drop(struct store *store, const char *name, struct base_error *err);

#endif
