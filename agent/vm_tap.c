/* SPDX-License-Identifier: Apache-2.0 */
/* Opening TAP devices. */
#include "agent/vm_tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_bridge.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "hypervisor/netvsp/netvsp.h"

#define TAP_FLAGS        (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
#define BRIDGE_PORTS_MAX 1024 /* the kernel's limit */

_Static_assert(VM_INTERFACE_BYTES == IFNAMSIZ, "the kernel's limit");

static int tap_fail(const struct vm_nic_config *nic, int code, const char *what,
		    struct base_error *err)
{
	return base_fail(
		err, code, "key 'nic': %s '%s': %s: %s", nic->tap[0] != '\0' ? "tap" : "bridge",
		nic->tap[0] != '\0' ? nic->tap : nic->bridge, what, strerrordesc_np(-code));
}

static void set_name(struct ifreq *request, const char *name)
{
	memset(request, 0, sizeof(*request));
	(void)snprintf(request->ifr_name, sizeof(request->ifr_name), "%s", name);
}

/* One queue of device @name, which is set to what the kernel called it. */
static int open_queue(char name[VM_INTERFACE_BYTES], bool many)
{
	BASE_CLOSE int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	struct ifreq request;

	if (fd < 0)
		return -errno;
	set_name(&request, name);
	request.ifr_flags = (short)(TAP_FLAGS | (many ? IFF_MULTI_QUEUE : 0));
	if (ioctl(fd, TUNSETIFF, &request) < 0) {
		/* One that is there was made for several queues, or for one. */
		if (errno != EINVAL || many)
			return -errno;
		request.ifr_flags = (short)(TAP_FLAGS | IFF_MULTI_QUEUE);
		if (ioctl(fd, TUNSETIFF, &request) < 0)
			return -errno;
	}
	memcpy(name, request.ifr_name, VM_INTERFACE_BYTES);
	name[VM_INTERFACE_BYTES - 1] = '\0';
	return base_take_fd(&fd);
}

/* Whether a device is a port of @bridge already: of one that was made beforehand. */
static bool is_port(int fd, const char *bridge, int index)
{
	int ports[BRIDGE_PORTS_MAX] = { 0 };
	unsigned long arguments[4] = { BRCTL_GET_PORT_LIST, (unsigned long)(uintptr_t)ports,
				       BRIDGE_PORTS_MAX, 0 };
	struct ifreq request;

	set_name(&request, bridge);
	request.ifr_data = (void *)arguments;
	if (ioctl(fd, SIOCDEVPRIVATE, &request) < 0)
		return false;
	for (uint32_t i = 0; i < BRIDGE_PORTS_MAX; i++)
		if (ports[i] == index)
			return true;
	return false;
}

static int join_bridge(const struct vm_nic_config *nic, int fd, const char *name,
		       struct base_error *err)
{
	const int index = (int)if_nametoindex(name);
	struct ifreq request;
	int code = 0;

	set_name(&request, nic->bridge);
	request.ifr_ifindex = index;
	if (ioctl(fd, SIOCBRADDIF, &request) == 0)
		return 0;
	code = -errno;
	if (code == -EBUSY && is_port(fd, nic->bridge, index))
		return 0;
	return base_fail(err, code, "key 'nic': tap '%s': put it into bridge '%s': %s: expected %s",
			 name, nic->bridge, strerrordesc_np(-code),
			 code == -EBUSY ? "it in no other bridge" : "a bridge that is there");
}

/* MTU, bridge, up: the device as the host's network sees it. */
static int set_up(const struct vm_nic_config *nic, const char *name, struct base_error *err)
{
	BASE_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request;

	if (fd < 0)
		return tap_fail(nic, -errno, "socket", err);
	if (nic->mtu != 0) {
		set_name(&request, name);
		request.ifr_mtu = (int)nic->mtu;
		if (ioctl(fd, SIOCSIFMTU, &request) < 0)
			return tap_fail(nic, -errno, "set the MTU", err);
	}
	if (nic->bridge[0] != '\0') {
		const int code = join_bridge(nic, fd, name, err);

		if (code < 0)
			return code;
	}
	set_name(&request, name);
	if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
		return tap_fail(nic, -errno, "read its flags", err);
	request.ifr_flags = (short)(request.ifr_flags | IFF_UP);
	if (ioctl(fd, SIOCSIFFLAGS, &request) < 0)
		return tap_fail(nic, -errno, "bring it up", err);
	return 0;
}

/* What a parent opened: of the right kind, and set as we need it. */
static int adopt(int fd, char name[VM_INTERFACE_BYTES], struct base_error *err)
{
	struct ifreq request = { .ifr_flags = IFF_ATTACH_QUEUE };

	/* A worker before us may have left it out, for a guest with fewer queues: then the kernel
	 * does not know it.  Fails where it takes part already. */
	(void)ioctl(fd, TUNSETQUEUE, &request);
	memset(&request, 0, sizeof(request));
	if (ioctl(fd, TUNGETIFF, &request) < 0)
		return base_fail(err, -EINVAL,
				 "key 'nic': descriptor %d: %s: expected one of a TAP device", fd,
				 strerrordesc_np(errno));
	if ((request.ifr_flags & TAP_FLAGS) != TAP_FLAGS)
		return base_fail(err, -EINVAL,
				 "key 'nic': descriptor %d: flags 0x%x: expected IFF_TAP, "
				 "IFF_NO_PI and IFF_VNET_HDR",
				 fd, (unsigned int)(unsigned short)request.ifr_flags);
	request.ifr_name[VM_INTERFACE_BYTES - 1] = '\0';
	if (name[0] != '\0' && strcmp(name, request.ifr_name) != 0)
		return base_fail(err, -EINVAL,
				 "key 'nic': descriptor %d: of device '%s': expected a queue of "
				 "'%s', as the first",
				 fd, request.ifr_name, name);
	memcpy(name, request.ifr_name, VM_INTERFACE_BYTES);
	return 0;
}

static int open_queues(const struct vm_nic_config *nic, int fds[VM_NIC_QUEUES_MAX],
		       char name[VM_INTERFACE_BYTES], struct base_error *err)
{
	/* Without a name the kernel makes one for the first queue. */
	(void)snprintf(name, VM_INTERFACE_BYTES, "%s", nic->tap[0] != '\0' ? nic->tap : "godwit%d");
	for (uint32_t i = 0; i < nic->queue_count; i++) {
		fds[i] = open_queue(name, nic->queue_count > 1);
		if (fds[i] == -EINVAL && nic->queue_count > 1)
			return base_fail(
				err, -EINVAL,
				"key 'nic': tap '%s': open queue %u: expected a device for "
				"several queues (multi_queue), or option 'queues' to be 1",
				name, i);
		if (fds[i] < 0)
			return tap_fail(nic, fds[i], "open a TAP device", err);
	}
	return set_up(nic, name, err);
}

int vm_tap_open(const struct vm_nic_config *nic, int ret_fds[VM_NIC_QUEUES_MAX],
		char ret_name[VM_INTERFACE_BYTES], struct base_error *err)
{
	int fds[VM_NIC_QUEUES_MAX];
	char name[VM_INTERFACE_BYTES] = "";
	int code = 0;

	for (uint32_t i = 0; i < VM_NIC_QUEUES_MAX; i++)
		fds[i] = -1;
	for (uint32_t i = 0; code == 0 && i < nic->fd_count; i++) {
		fds[i] = nic->fds[i];
		code = adopt(fds[i], name, err);
	}
	if (nic->fd_count == 0)
		code = open_queues(nic, fds, name, err);
	for (uint32_t i = 0; code == 0 && i < nic->queue_count; i++) {
		code = netvsp_tap_prepare(fds[i], err);
		if (code < 0)
			code = base_fail_within(err, code, "key 'nic': %s", name);
	}
	if (code < 0) {
		for (uint32_t i = 0; i < VM_NIC_QUEUES_MAX; i++)
			base_closep(&fds[i]);
		return code;
	}
	memcpy(ret_fds, fds, sizeof(fds));
	memcpy(ret_name, name, sizeof(name));
	return 0;
}
