/* SPDX-License-Identifier: Apache-2.0 */
/* A virtual machine of KVM's, for the files that make one.  Any thread. */
#ifndef HYPERVISOR_KVM_VM_PRIV_H
#define HYPERVISOR_KVM_VM_PRIV_H

#include <errno.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

/* A descriptor, or -1 and errno.  The kernel gives up with EINTR while it takes all locks of the
 * address space, if any signal is on its way: no reason not to start. */
static inline int hv_kvm_vm_new(int kvm_fd)
{
	int fd = -1;

	do {
		fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
	} while (fd < 0 && errno == EINTR);
	return fd;
}

#endif
