/* SPDX-License-Identifier: Apache-2.0 */
/* A VM's life, and what both sides have. */
#include "tests/fault/fault_vm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "hypervisor/disk/local_store.h"
#include "tests/fault/fault_step.h"
#include "tests/fault/fault_vm_priv.h"

static void must(int code, const char *what, const struct base_error *err)
{
	if (code < 0)
		base_bug("%s: %s", what, err->text);
}

void fault_vm_init(struct fault_vm *vm, const char *folder, const char *witness, const char *peer)
{
	struct base_error err = { 0 };
	char path[512];

	memset(vm, 0, sizeof(*vm));
	vm->folder = folder;
	vm->peer = peer;
	fault_guest_init(&vm->guest, witness);
	(void)snprintf(path, sizeof(path), "%s/state", folder);
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		base_bug("%s: error %d", path, errno);
	vm->folder_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	base_assert(vm->folder_fd >= 0);
	must(mig_records_new(vm->folder_fd, NULL, &vm->records, &err), "records", &err);
	must(base_io_loop_new(NULL, &vm->loop, &err), "loop", &err);
	must(base_io_loop_start(vm->loop, "io", &err), "loop", &err);
	must(local_store_open(folder, NULL, &vm->store, &err), "store", &err);
}

void fault_vm_fini(struct fault_vm *vm)
{
	fault_vm_stop(vm);
	vm_migrate_out_free(vm->images_out);
	vm_migrate_in_free(vm->images_in);
	store_free(vm->store);
	base_io_loop_free(vm->loop);
	mig_records_free(vm->records);
	base_closep(&vm->folder_fd);
}

void fault_vm_create(struct fault_vm *vm)
{
	const struct disk_create_options options = { .format = DISK_VHDX,
						     .kind = DISK_DYNAMIC,
						     .size_bytes = FAULT_DISK,
						     .block_bytes = 1u << 20 };
	struct base_error err = { 0 };

	must(disk_create(vm->store, FAULT_IMAGE, vm->loop, &options, &err), "image", &err);
}

int fault_vm_open(struct fault_vm *vm, struct base_error *err)
{
	const struct disk_options options = { .store = vm->store,
					      .name = FAULT_IMAGE,
					      .format = DISK_VHDX,
					      .loop = vm->loop,
					      .on_no_space = DISK_POLICY_REPORT,
					      .on_io_error = DISK_POLICY_REPORT,
					      .on_gone = DISK_POLICY_REPORT };

	return disk_open_standby(&options, &vm->disk, err);
}

int fault_vm_activate(struct fault_vm *vm, uint64_t epoch, struct base_error *err)
{
	if (!fault_guest_lock(&vm->guest))
		return base_fail(err, -EBUSY, "the VM runs elsewhere");
	vm->guest.disk = vm->disk;
	return disk_activate(vm->disk, epoch, NULL, err);
}

int fault_vm_deactivate(struct fault_vm *vm, struct base_error *err)
{
	int code = disk_deactivate(vm->disk, err);

	if (disk_epoch(vm->disk) == STORE_EPOCH_NONE)
		fault_guest_unlock(&vm->guest);
	return code;
}

int fault_vm_boot(struct fault_vm *vm, struct base_error *err)
{
	uint64_t least = 0;
	int code = mig_records_may_start(vm->records, FAULT_NAME, 0, &least, err);

	if (code < 0)
		return code;
	vm->epoch = least > 1 ? least : 1;
	code = fault_vm_open(vm, err);
	if (code == 0)
		code = fault_vm_activate(vm, vm->epoch, err);
	if (code < 0)
		return code;
	fault_guest_boot(&vm->guest);
	return 0;
}

void fault_vm_stop(struct fault_vm *vm)
{
	fault_guest_hold(&vm->guest);
	disk_close(base_take(&vm->disk));
	fault_guest_unlock(&vm->guest);
}
