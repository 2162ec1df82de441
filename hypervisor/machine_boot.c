/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Boot, and restart in place.  The kernel is read anew each time from the descriptor
 * that was opened before lock-down.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "hypervisor/acpi.h"
#include "hypervisor/boot.h"
#include "hypervisor/machine_priv.h"

struct image_file {
	uint8_t *data;
	size_t size_bytes;
};

static int read_image(int fd, const char *name, const char *what, uint64_t limit_bytes,
		      struct image_file *ret_file, struct base_error *err)
{
	BASE_FREE uint8_t *data = NULL;
	struct stat status;
	int r;

	if (fstat(fd, &status) < 0)
		return base_fail_errno(err, -errno, "%s '%s'", what, name);
	if (!S_ISREG(status.st_mode))
		return base_fail(err, -EINVAL, "%s '%s': expected a regular file", what, name);
	if ((uint64_t)status.st_size > limit_bytes)
		return base_fail(err, -EFBIG, "%s '%s': %jd bytes, expected at most %" PRIu64, what,
				 name, (intmax_t)status.st_size, limit_bytes);
	data = malloc((size_t)status.st_size + 1);
	if (data == NULL)
		return base_fail(err, -ENOMEM, "%s '%s': %jd bytes", what, name,
				 (intmax_t)status.st_size);
	r = base_pread_all(fd, data, (size_t)status.st_size, 0);
	if (r < 0)
		return base_fail_errno(err, r, "%s '%s': read", what, name);
	ret_file->size_bytes = (size_t)status.st_size;
	ret_file->data = base_take(&data);
	return 0;
}

static int enter_kernel(struct hv_machine *machine, const struct hv_boot_entry *entry,
			struct base_error *err)
{
	int fd = hv_partition_vcpu_fd(machine->partition, 0);
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	if (ioctl(fd, KVM_GET_SREGS, &sregs) < 0 || ioctl(fd, KVM_GET_REGS, &regs) < 0)
		return base_fail_errno(err, -errno, "vcpu 0: read registers");
	hv_boot_registers(entry, &sregs, &regs);
	if (ioctl(fd, KVM_SET_SREGS, &sregs) < 0 || ioctl(fd, KVM_SET_REGS, &regs) < 0)
		return base_fail_errno(err, -errno, "vcpu 0: set registers for the kernel's entry");
	return 0;
}

int hv_machine_load_kernel(struct hv_machine *machine, struct base_error *err)
{
	struct hv_slat *slat = hv_partition_slat(machine->partition);
	struct image_file kernel = { .data = NULL };
	struct image_file initrd = { .data = NULL };
	struct hv_boot_image image = {
		.kernel_name = machine->fds.kernel_name,
		.cmdline = machine->config.cmdline,
	};
	struct hv_boot_entry entry;
	int r;

	if (machine->on_load != NULL) {
		r = machine->on_load(machine->on_load_context, err);
		if (r < 0)
			return r;
		image.kernel_name = machine->fds.kernel_name;
	}
	if (machine->fds.kernel_fd < 0)
		return base_fail(err, -EPROTO, "no kernel to boot (key 'kernel')");
	r = hv_acpi_build(slat, machine->config.vcpu_count, &image.rsdp, err);
	if (r >= 0)
		r = read_image(machine->fds.kernel_fd, machine->fds.kernel_name, "kernel",
			       HV_KERNEL_BYTES_MAX, &kernel, err);
	if (r >= 0 && machine->fds.initrd_fd >= 0) {
		r = read_image(machine->fds.initrd_fd, machine->fds.initrd_name, "initrd",
			       HV_INITRD_BYTES_MAX, &initrd, err);
		image.initrd_name = machine->fds.initrd_name;
	}
	if (r >= 0) {
		image.kernel = kernel.data;
		image.kernel_bytes = kernel.size_bytes;
		image.initrd = initrd.data;
		image.initrd_bytes = initrd.size_bytes;
		r = hv_boot_load(slat, &image, &entry, err);
	}
	if (r >= 0)
		r = enter_kernel(machine, &entry, err);
	free(kernel.data);
	free(initrd.data);
	return r;
}

int hv_machine_boot(struct hv_machine *machine, struct base_error *err)
{
	BASE_LOCKED(&machine->change_lock);
	int r;

	if (machine->has_guest || machine->arrived)
		return base_fail(err, -EPROTO, "the VM has a guest already");
	r = hv_machine_load_kernel(machine, err);
	if (r >= 0)
		r = hv_machine_hyperv_clock(machine, 0, err);
	if (r < 0)
		return r;
	machine->has_guest = true;
	return 0;
}

static int power_on(struct hv_machine *machine, struct base_error *err)
{
	int r = 0;

	for (uint32_t i = 0; i < machine->config.vcpu_count && r >= 0; i++)
		r = hv_vcpu_state_put(machine->fds.kvm_fd,
				      hv_partition_vcpu_fd(machine->partition, i),
				      &machine->power_on[i], err);
	if (r >= 0)
		r = hv_chip_state_put(hv_partition_vm_fd(machine->partition),
				      &machine->power_on_chips, err);
	if (r < 0)
		return r;
	r = hv_machine_services_reset(machine, err);
	if (r >= 0)
		r = hv_machine_hyperv_reset(machine, err);
	if (r < 0)
		return r;
	hv_platform_reset(machine->platform);
	if (machine->test_page != NULL)
		hv_test_page_reset(machine->test_page);
	return hv_machine_load_kernel(machine, err);
}

static int reset_locked(struct hv_machine *machine, bool by_guest, struct base_error *err)
{
	BASE_LOCKED(&machine->change_lock);
	int r;

	if (by_guest && (hv_partition_holds(machine->partition) & HV_HOLD_RESET) == 0)
		return 0; /* another vCPU asked, too, and that was carried out */

	if ((hv_partition_holds(machine->partition) & HV_HOLD_STOPPED) != 0)
		return base_fail(err, -EPROTO, "the VM has stopped");
	if (machine->arrived)
		return base_fail(err, -EPROTO, "the VM is not this host's yet");
	if (machine->fds.kernel_fd < 0 && machine->on_load == NULL)
		return base_fail(err, -EPROTO, "no kernel to boot (key 'kernel')");
	(void)hv_partition_hold(machine->partition, HV_HOLD_RESET);
	r = hv_machine_services_quiesce(machine, err);
	if (r >= 0)
		r = power_on(machine, err);
	if (r < 0)
		return base_fail_within(err, r,
					"reset"); /* stays held: half a machine must not run */
	hv_machine_services_resume(machine);
	atomic_fetch_add(&machine->reset_count, 1);
	hv_partition_release(machine->partition, HV_HOLD_RESET);
	return 0;
}

int hv_machine_reset(struct hv_machine *machine, bool by_guest, struct base_error *err)
{
	int r = reset_locked(machine, by_guest, err);

	machine->ops->console_room(machine->context); /* what was typed meanwhile was refused */
	return r;
}
