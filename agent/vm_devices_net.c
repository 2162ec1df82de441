/* SPDX-License-Identifier: Apache-2.0 */
/* Network cards, and the TAP devices they are connected to. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "agent/vm_devices_priv.h"
#include "agent/vm_tap.h"
#include "base/cleanup.h"

#define INSTANCE_NIC 2 /* vm_devices_instance() */

int vm_devices_open_nics(struct vm_devices *devices, struct base_error *err)
{
	const struct vm_config *config = devices->config;

	for (uint32_t i = 0; i < config->nic_count; i++) {
		struct vm_nic *nic = &devices->nics[i];
		int code = vm_tap_open(&config->nics[i], nic->fds, nic->name, err);

		if (code < 0)
			return code;
		devices->nic_count = i + 1;
		nic->fd_count = config->nics[i].queue_count;
	}
	return 0;
}

static int make_nic(struct vm_devices *devices, uint32_t index, struct base_error *err)
{
	const struct vm_nic_config *config = &devices->config->nics[index];
	struct vm_nic *nic = &devices->nics[index];
	struct netvsp_options options = {
		.bus = devices->bus,
		.slat = hv_machine_slat(devices->machine),
		.loop_count = devices->loop_count,
		.queue_count = nic->fd_count,
		.vcpu_count = (uint32_t)devices->config->vcpu_count,
		.index = index,
		.instance = vm_devices_instance(INSTANCE_NIC, index),
		.mtu = config->mtu,
		.mac_spoofing = config->spoofing,
		.link_up = !config->link_down,
		.vm_name = devices->config->name,
		.may_send = devices->options.may_submit,
		.gate_context = devices->options.context,
	};
	int code = 0;

	memcpy(options.loops, devices->loops, sizeof(options.loops));
	memcpy(options.tap_fds, nic->fds, sizeof(options.tap_fds));
	memcpy(options.mac, config->mac, sizeof(options.mac));
	code = netvsp_new(&options, &nic->card, err);
	if (code == 0)
		code = hv_machine_add_service(devices->machine, &netvsp_service_ops, nic->card,
					      err);
	return code < 0 ? base_fail_within(err, code, "network card %" PRIu32, index) : 0;
}

int vm_devices_make_nics(struct vm_devices *devices, struct base_error *err)
{
	int code = 0;

	for (uint32_t i = 0; code == 0 && i < devices->nic_count; i++)
		code = make_nic(devices, i, err);
	return code;
}

void vm_devices_close_nics(struct vm_devices *devices)
{
	for (uint32_t i = 0; i < devices->nic_count; i++) {
		struct vm_nic *nic = &devices->nics[i];

		netvsp_free(nic->card);
		for (uint32_t j = 0; j < nic->fd_count; j++)
			base_closep(&nic->fds[j]);
	}
	devices->nic_count = 0;
}

void vm_devices_announce(struct vm_devices *devices)
{
	for (uint32_t i = 0; i < devices->nic_count; i++)
		if (devices->nics[i].card != NULL)
			netvsp_announce(devices->nics[i].card);
}

int vm_devices_link(struct vm_devices *devices, uint32_t index, bool up, struct base_error *err)
{
	if (index >= devices->nic_count)
		return base_fail(err, -ENOENT, "network card %" PRIu32 ": expected 0 to %" PRIu32,
				 index, devices->nic_count > 0 ? devices->nic_count - 1 : 0);
	netvsp_set_link(devices->nics[index].card, up);
	return 0;
}
