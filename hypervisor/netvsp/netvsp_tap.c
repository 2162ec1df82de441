/* SPDX-License-Identifier: Apache-2.0 */
/* What a TAP descriptor needs before a card may use it: netvsp.h.  Source: drivers of TUN/TAP,
 * Documentation/networking/tuntap, linux/if_tun.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>

#include "hypervisor/netvsp/netvsp.h"
#include "hypervisor/netvsp/netvsp_frame.h"

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
