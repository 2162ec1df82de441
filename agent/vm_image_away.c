/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/vm_image_away.h"

#include <errno.h>
#include <stdio.h>

#include "hypervisor/disk/disk_next.h"

int vm_image_away_name(const char *name, char ret_away[STORE_NAME_BYTES], struct base_error *err)
{
	int length = snprintf(ret_away, STORE_NAME_BYTES, "%s.moved", name);

	if (length < 0 || length >= (int)STORE_NAME_BYTES)
		return base_fail(err, -ENAMETOOLONG, "'%s': no room for '.moved'", name);
	return 0;
}

int vm_image_away_check(struct store *store, struct base_io_loop *loop, const char *name,
			struct base_error *err)
{
	char away[STORE_NAME_BYTES];
	int code = vm_image_away_name(name, away, err);

	if (code == 0)
		code = disk_next_exists(store, loop, away, err);
	if (code > 0)
		return base_fail(err, -EEXIST,
				 "'%s': it is there, kept by an earlier move: expected it to be "
				 "removed, or called otherwise",
				 away);
	return code;
}

int vm_image_put_away(struct store *store, const char *name, struct base_error *err)
{
	char away[STORE_NAME_BYTES];
	int code = vm_image_away_name(name, away, err);

	if (code == 0)
		code = store_rename(store, name, away, err);
	if (code < 0)
		return code;
	code = store_sync_folder(store, away, err);
	if (code < 0 && store_rename(store, away, name, NULL) < 0)
		return base_fail(err, code,
				 "'%s' is called '%s' now, and not known to be so for "
				 "good",
				 name, away);
	return code;
}

int vm_image_drop(struct store *store, const char *name, struct base_error *err)
{
	char away[STORE_NAME_BYTES];
	int code = vm_image_away_name(name, away, err);

	if (code == 0)
		code = store_remove(store, away, err);
	if (code < 0 && code != -ENOENT)
		return code;
	if (err != NULL && code == -ENOENT)
		*err = (struct base_error){ 0 };
	disk_next_remove(store, name);
	return store_sync_folder(store, name, err);
}
