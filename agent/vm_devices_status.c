/* SPDX-License-Identifier: Apache-2.0 */
/* What the devices tell of themselves. */
#include <string.h>

#include "agent/vm_control_proto.h"
#include "agent/vm_devices_priv.h"
#include "base/cleanup.h"

static json_t *number(uint64_t value)
{
	return json_integer((json_int_t)value);
}

static json_t *bus_json(struct vm_devices *devices)
{
	struct vmbus_status status;
	char version[16];

	vmbus_status(devices->bus, &status);
	(void)snprintf(version, sizeof(version), "%u.%u", status.version >> 16,
		       status.version & 0xffff);
	return json_pack("{s:b, s:s, s:i, s:i, s:o, s:o, s:o, s:o}", "connected",
			 (int)status.connected, "version", status.connected ? version : "",
			 "offered", (int)status.offered_count, "open", (int)status.open_count,
			 "messages", number(status.message_count), "signals",
			 number(status.signal_count), "interrupts", number(status.interrupt_count),
			 "refused", number(status.refused_count));
}

static const char *disk_state(const struct vm_disk *disk)
{
	if (disk->disk == NULL)
		return "empty";
	if (atomic_load(&disk->failed))
		return "failed";
	if (atomic_load(&disk->stalled) != 0)
		return "stalled";
	return disk->active ? "active" : "read-only";
}

static json_t *counts_json(struct vm_devices *devices, const struct vm_disk *disk)
{
	struct storvsp_lun_status status;

	storvsp_lun_status(devices->controllers[disk->config.controller], disk->config.lun,
			   &status);
	return json_pack("{s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:i}", "seen", (int)status.seen,
			 "reads", number(status.read_count), "writes", number(status.write_count),
			 "flushes", number(status.flush_count), "unmaps",
			 number(status.unmap_count), "errors", number(status.error_count),
			 "read_bytes", number(status.read_bytes), "write_bytes",
			 number(status.write_bytes), "in_flight", (int)status.in_flight);
}

/* Where it is: a move of the disk may be changing that. */
static json_t *where_json(struct vm_devices *devices, const struct vm_disk *disk)
{
	BASE_LOCKED(&devices->lock);
	json_t *object = json_pack("{s:s}", "path", disk->config.path);

	if (object != NULL && disk->disk != NULL)
		(void)json_object_set_new(object, "image", json_string(disk->place.name));
	return object;
}

static json_t *disk_json(struct vm_devices *devices, const struct vm_disk *disk)
{
	const struct vm_disk_config *config = &disk->config;
	json_t *object = where_json(devices, disk);
	json_t *more = json_pack("{s:i, s:i, s:s, s:s}", "controller", (int)config->controller,
				 "lun", (int)config->lun, "kind", config->dvd ? "dvd" : "disk",
				 "state", disk_state(disk));
	int stalled = atomic_load(&disk->stalled);

	if (object == NULL || more == NULL || json_object_update(object, more) < 0) {
		json_decref(object);
		json_decref(more);
		return NULL;
	}
	json_decref(more);
	if (stalled != 0)
		(void)json_object_set_new(object, "stalled", json_string(vm_error_name(stalled)));
	if (disk->disk != NULL) {
		struct disk_geometry geometry;

		disk_geometry(disk->disk, &geometry);
		(void)json_object_set_new(object, "size_bytes", number(geometry.size_bytes));
		(void)json_object_set_new(object, "epoch", number(disk_epoch(disk->disk)));
	}
	if (disk->attached)
		(void)json_object_set_new(object, "guest", counts_json(devices, disk));
	return object;
}

static json_t *nic_json(const struct vm_nic *nic)
{
	struct netvsp_status status;
	char mac[18];

	netvsp_status(nic->card, &status);
	(void)snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", status.mac[0],
		       status.mac[1], status.mac[2], status.mac[3], status.mac[4], status.mac[5]);
	return json_pack(
		"{s:s, s:s, s:b, s:b, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "tap", nic->name,
		"mac", mac, "connected", (int)status.connected, "link_up", (int)status.link_up,
		"queues", (int)status.queue_count, "rx_frames", number(status.rx_frames),
		"rx_bytes", number(status.rx_bytes), "rx_dropped", number(status.rx_dropped),
		"tx_frames", number(status.tx_frames), "tx_bytes", number(status.tx_bytes),
		"tx_dropped", number(status.tx_dropped), "tx_spoofed", number(status.tx_spoofed));
}

json_t *vm_devices_json(struct vm_devices *devices)
{
	json_t *disks = json_array();
	json_t *nics = json_array();

	for (uint32_t i = 0; i < devices->disk_count; i++)
		(void)json_array_append_new(disks, disk_json(devices, devices->disks[i]));
	for (uint32_t i = 0; i < devices->nic_count; i++)
		(void)json_array_append_new(nics, nic_json(&devices->nics[i]));
	return json_pack("{s:o, s:o, s:o}", "bus", bus_json(devices), "disks", disks, "nics", nics);
}

void vm_devices_dump(struct vm_devices *devices, FILE *out)
{
	vmbus_dump(devices->bus, out);
}
