/* SPDX-License-Identifier: Apache-2.0 */
/* TAP devices and bridges of the kernel's, in a network namespace of each test's own. */
#include "agent/vm_tap.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

static struct vm_nic_config nic;
static struct base_error err;
static char name[VM_INTERFACE_BYTES];
static int fds[VM_NIC_QUEUES_MAX];
static int control;

static void setup(void)
{
	int probe = -1;

	if (unshare(CLONE_NEWNET) < 0 || (probe = open("/dev/net/tun", O_RDWR)) < 0)
		cr_skip_test("no network namespace, or no TAP devices");
	(void)close(probe);
	control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (ioctl(control, SIOCBRADDBR, "br0") < 0 || ioctl(control, SIOCBRADDBR, "br1") < 0)
		cr_skip_test("no bridges");
	nic = (struct vm_nic_config){ .tap = "t0", .bridge = "br0", .queue_count = 1 };
	err = (struct base_error){ 0 };
}

static void drop(void)
{
	for (uint32_t i = 0; i < nic.queue_count; i++)
		base_closep(&fds[i]);
}

static void is_refused(int code, const char *text)
{
	cr_assert_eq(vm_tap_open(&nic, fds, name, &err), code, "%s", err.text);
	cr_assert_not_null(strstr(err.text, text), "%s", err.text);
	cr_assert_null(strchr(err.text, '\n'));
}

/* As another program leaves it, or gives it to us. */
static int made_by_others(const char *tap, int flags, bool stays)
{
	struct ifreq device = { .ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | flags) };
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	(void)snprintf(device.ifr_name, sizeof(device.ifr_name), "%s", tap);
	cr_assert_eq(ioctl(fd, TUNSETIFF, &device), 0);
	if (!stays)
		return fd;
	cr_assert_eq(ioctl(fd, TUNSETPERSIST, 1), 0);
	(void)close(fd);
	return -1;
}

TestSuite(vm_tap, .init = setup);

Test(vm_tap, a_device_comes_and_goes_with_its_descriptors)
{
	nic.queue_count = 4;
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(vm_tap_open(&nic, fds, name, &err), 0, "%s", err.text);
		cr_assert_str_eq(name, "t0");
		cr_assert_neq(if_nametoindex("t0"), 0);
		drop(); /* so does a kill */
		cr_assert_eq(if_nametoindex("t0"), 0);
	}
	nic.tap[0] = '\0';
	nic.mtu = 9000;
	cr_assert_eq(vm_tap_open(&nic, fds, name, &err), 0, "%s", err.text);
	cr_assert_eq(strncmp(name, "godwit", 6), 0);
	drop();
}

Test(vm_tap, bridges_that_will_not_have_it)
{
	(void)snprintf(nic.bridge, sizeof(nic.bridge), "none");
	is_refused(-ENODEV, "bridge 'none'");
	(void)snprintf(nic.bridge, sizeof(nic.bridge), "lo");
	cr_assert_lt(vm_tap_open(&nic, fds, name, &err), 0);
	cr_assert_not_null(strstr(err.text, "bridge 'lo'"), "%s", err.text);
	cr_assert_eq(if_nametoindex("t0"), 0);
}

Test(vm_tap, a_device_that_stays_is_in_its_bridge_already)
{
	(void)made_by_others("t0", 0, true);
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(vm_tap_open(&nic, fds, name, &err), 0, "%s", err.text);
		drop();
	}
	(void)snprintf(nic.bridge, sizeof(nic.bridge), "br1");
	is_refused(-EBUSY, "no other bridge");
	nic.queue_count = 2;
	is_refused(-EINVAL, "queues");
}

Test(vm_tap, descriptors_of_a_parent)
{
	int pipes[2];

	nic = (struct vm_nic_config){ .queue_count = 2, .fd_count = 2 };
	nic.fds[0] = made_by_others("t0", IFF_MULTI_QUEUE, false);
	nic.fds[1] = made_by_others("t0", IFF_MULTI_QUEUE, false);
	for (int i = 0; i < 2; i++) { /* also after a worker whose guest had one queue */
		struct ifreq leave = { .ifr_flags = IFF_DETACH_QUEUE };

		cr_assert_eq(vm_tap_open(&nic, fds, name, &err), 0, "%s", err.text);
		cr_assert_str_eq(name, "t0");
		cr_assert_eq(ioctl(fds[1], TUNSETQUEUE, &leave), 0);
	}
	drop();
	nic.fds[0] = made_by_others("t0", IFF_MULTI_QUEUE, false);
	nic.fds[1] = made_by_others("t1", IFF_MULTI_QUEUE, false);
	is_refused(-EINVAL, "of device 't1'");
	cr_assert_eq(pipe(pipes), 0);
	nic.queue_count = 1;
	nic.fd_count = 1;
	nic.fds[0] = pipes[0];
	is_refused(-EINVAL, "TAP device");
	(void)close(pipes[1]);
}
