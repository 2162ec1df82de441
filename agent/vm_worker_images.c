/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a worker does by the record of its VM's images before it opens one: what a dead worker has
 * left goes, and a disk that has moved is found where it is.  docs/migrate/records.md, section 8.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/vm_inventory.h"
#include "agent/vm_worker_priv.h"
#include "base/cleanup.h"
#include "base/log.h"

BASE_DEFINE_FREEP(struct vm_inventory, vm_inventory_free);

/* The configuration has a disk where it was, and there is nothing; so it is where it went. */
static int follow(struct vm_worker *worker, const struct vm_inventory *inventory, uint32_t index,
		  struct base_error *err)
{
	const struct vm_disk_config *disk = &worker->config->disks[index];
	const char *now = vm_inventory_where(inventory, disk->path);

	if (disk->path[0] == '\0' || now == NULL || access(disk->path, F_OK) == 0 ||
	    errno != ENOENT)
		return 0;
	if (worker->own_config == NULL) {
		worker->own_config = malloc(sizeof(*worker->own_config));
		if (worker->own_config == NULL)
			return base_fail(err, -ENOMEM, "configuration");
		*worker->own_config = *worker->config;
		worker->config = worker->own_config;
	}
	base_log(BASE_LOG_NOTICE, "vm.disk-elsewhere", "vm=%s was=%s path=%s", worker->config->name,
		 base_log_str(worker->config->disks[index].path), base_log_str(now));
	(void)snprintf(worker->own_config->disks[index].path, VM_PATH_BYTES, "%s", now);
	return 0;
}

int vm_worker_images_look(struct vm_worker *worker, struct base_error *err)
{
	BASE_CLEANUP(vm_inventory_freep) struct vm_inventory *inventory = NULL;
	struct base_error why = { 0 };
	int code = vm_inventory_look(worker->state_dir_fd, worker->records, worker->config->name,
				     &why);

	/* Who does not know which image is the disk starts from none. */
	if (code == -EPROTO || code == -EBADMSG)
		return base_fail(err, code, "key 'state-dir': value '%s': %s",
				 worker->config->state_dir, why.text);
	if (code < 0)
		base_log(BASE_LOG_WARNING, "vm.images-record", "vm=%s why=%s", worker->config->name,
			 base_log_str(why.text));
	code = vm_inventory_load(worker->state_dir_fd, worker->config->name, &inventory, err);
	for (uint32_t i = 0; code == 0 && i < worker->config->disk_count; i++)
		code = follow(worker, inventory, i, err);
	return code;
}
