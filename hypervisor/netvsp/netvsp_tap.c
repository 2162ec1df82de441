/* SPDX-License-Identifier: Apache-2.0 */
/* What a TAP descriptor needs before a card may use it, and which of them the kernel gives frames
 * to: netvsp.h, netvsp_priv.h.  Source: Linux Documentation/networking/tuntap.rst. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>

#include "hypervisor/netvsp/netvsp.h"
#include "hypervisor/netvsp/netvsp_frame.h"
#include "hypervisor/netvsp/netvsp_priv.h"

int netvsp_tap_prepare(int tap_fd, struct base_error *err)
{
	const int header_bytes = NETVSP_VNET_BYTES;
	const int little_endian = 1;
	const unsigned int offloads = TUN_F_CSUM;
	int flags = 0;

	if (ioctl(tap_fd, TUNSETVNETHDRSZ, &header_bytes) < 0)
		return base_fail_errno(err, -errno, "TAP device: header of %d bytes", header_bytes);
	if (ioctl(tap_fd, TUNSETVNETLE, &little_endian) < 0)
		return base_fail_errno(err, -errno, "TAP device: little-endian header");
	if (ioctl(tap_fd, TUNSETOFFLOAD, offloads) < 0)
		return base_fail_errno(err, -errno, "TAP device: checksum offload");
	flags = fcntl(tap_fd, F_GETFL);
	if (flags < 0 || fcntl(tap_fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return base_fail_errno(err, -errno, "TAP device: not blocking");
	return 0;
}

int netvsp_tap_take_part(int tap_fd, bool takes_part)
{
	struct ifreq request = { .ifr_flags = takes_part ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE };

#ifdef GODWIT_MUTANT_NETVSP_TAP_QUEUE
	return 0;
#endif
	if (ioctl(tap_fd, TUNSETQUEUE, &request) == 0)
		return 0;
	/* It does already, or it is the only queue of its device; or no device at all (tests). */
	return errno == EINVAL || errno == ENOTTY ? 0 : -errno;
}
