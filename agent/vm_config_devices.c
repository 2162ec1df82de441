/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The values of the keys disk and nic: a list of options separated by commas, each
 * "name=value" or a word alone.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "agent/vm_config_priv.h"
#include "base/crc32c.h"
#include "base/hex.h"
#include "hypervisor/netvsp/netvsp.h"
#include "hypervisor/storvsp/storvsp.h"

#define FD_LEAST      3 /* 0, 1 and 2 are the terminal's */
#define FD_MOST       1048575
#define MAC_TEXT      17 /* aa:bb:cc:dd:ee:ff */
#define MAC_MULTICAST 1U /* of the first byte */

_Static_assert(VM_NIC_QUEUES_MAX == NETVSP_QUEUES_MAX, "as many as a card has");
_Static_assert(VM_DISKS_MAX <= STORVSP_LUNS, "any controller can hold them all");

/* One option of a value. */
struct option {
	const char *where; /* begins error texts */
	const char *key;
	const char *all; /* the whole value */
	size_t all_length;
	const char *name;
	size_t name_length;
	const char *value; /* NULL: a word alone */
	size_t value_length;
};

static int refuse(const struct option *option, const char *expected, struct base_error *err)
{
	return base_fail(
		err, -EINVAL, "%s: key '%s': value '%s': option '%s': value '%s': expected %s",
		option->where, option->key, vm_config_show(option->all, option->all_length).text,
		vm_config_show(option->name, option->name_length).text,
		option->value != NULL ? vm_config_show(option->value, option->value_length).text
				      : "",
		expected);
}

static bool is_word(const char *text, size_t length, const char *word)
{
	return strlen(word) == length && memcmp(text, word, length) == 0;
}

static bool option_is(const struct option *option, const char *name)
{
	return is_word(option->name, option->name_length, name);
}

static bool value_is(const struct option *option, const char *word)
{
	return option->value != NULL && is_word(option->value, option->value_length, word);
}

static int take_number(const struct option *option, uint64_t least, uint64_t most,
		       const char *expected, uint32_t *ret_number, struct base_error *err)
{
	uint64_t number = 0;

	if (option->value == NULL ||
	    !vm_config_number(option->value, option->value_length, &number) || number < least ||
	    number > most)
		return refuse(option, expected, err);
	*ret_number = (uint32_t)number;
	return 0;
}

/* One of two words, of which the second is true. */
static int take_choice(const struct option *option, const char *no, const char *yes,
		       bool *ret_choice, struct base_error *err)
{
	char expected[40];

	if (value_is(option, yes) || value_is(option, no)) {
		*ret_choice = value_is(option, yes);
		return 0;
	}
	(void)snprintf(expected, sizeof(expected), "%s or %s", no, yes);
	return refuse(option, expected, err);
}

static int take_word(const struct option *option, bool *ret_given, struct base_error *err)
{
	if (option->value != NULL)
		return refuse(option, "no value", err);
	*ret_given = true;
	return 0;
}

/* The next option of a value; false at its end. */
static bool next_option(struct option *option, const char **rest, size_t *rest_length)
{
	const char *comma = NULL;
	const char *equals = NULL;
	size_t length = 0;

	if (*rest == NULL)
		return false;
	comma = memchr(*rest, ',', *rest_length);
	length = comma != NULL ? (size_t)(comma - *rest) : *rest_length;
	equals = memchr(*rest, '=', length);
	option->name = *rest;
	option->name_length = equals != NULL ? (size_t)(equals - *rest) : length;
	option->value = equals != NULL ? equals + 1 : NULL;
	option->value_length = equals != NULL ? length - option->name_length - 1 : 0;
	*rest_length -= comma != NULL ? length + 1 : length;
	*rest = comma != NULL ? comma + 1 : NULL;
	return true;
}

/* Options are told apart by a bit each. */
static int take_once(const struct option *option, const char *const names[], uint32_t count,
		     uint32_t *seen, struct base_error *err)
{
	for (uint32_t i = 0; i < count; i++) {
		if (!option_is(option, names[i]))
			continue;
		if ((*seen & 1U << i) != 0)
			return refuse(option, "the option once", err);
		*seen |= 1U << i;
		return 0;
	}
	return refuse(option, "a known option, see godwit-vm(8)", err);
}

/* --- disk --- */

/* The path: up to the first comma that stands alone; two commas are one of its own. */
static int take_path(const struct option *whole, struct vm_disk_config *disk, size_t *ret_used,
		     struct base_error *err)
{
	size_t used = 0;
	size_t length = 0;

	while (used < whole->all_length) {
		if (whole->all[used] == ',') {
			if (used + 1 >= whole->all_length || whole->all[used + 1] != ',')
				break;
			used++;
		}
		if (length + 1 >= sizeof(disk->path))
			return refuse(whole, "a path of at most 4095 bytes", err);
		disk->path[length++] = whole->all[used++];
	}
	disk->path[length] = '\0';
	if (!vm_config_printable(disk->path, length) || memchr(disk->path, '\0', length) != NULL)
		return refuse(whole, "a printable path", err);
	*ret_used = used;
	return 0;
}

static int take_format(const struct option *option, enum disk_format *ret_format,
		       struct base_error *err)
{
	for (int i = DISK_FORMAT_INVALID + 1; i < DISK_FORMATS; i++)
		if (value_is(option, disk_format_name((enum disk_format)i))) {
			*ret_format = (enum disk_format)i;
			return 0;
		}
	return refuse(option, "vhdx, vhd or raw", err);
}

static int take_disk_option(const struct option *option, struct vm_disk_config *disk,
			    struct base_error *err)
{
	bool cache = true;
	int code = 0;

	if (option_is(option, "lun")) {
		disk->lun_given = true;
		return take_number(option, 0, STORVSP_LUNS - 1, "0 to 63", &disk->lun, err);
	}
	if (option_is(option, "controller"))
		return take_number(option, 0, VM_CONTROLLERS - 1, "0 to 3", &disk->controller, err);
	if (option_is(option, "format"))
		return take_format(option, &disk->format, err);
	if (option_is(option, "read-only"))
		return take_word(option, &disk->read_only, err);
	if (option_is(option, "dvd"))
		return take_word(option, &disk->dvd, err);
	if (option_is(option, "ssd"))
		return take_word(option, &disk->solid_state, err);
	code = take_choice(option, "off", "on", &cache, err);
	disk->write_through = !cache;
	return code;
}

/* By the name's end, so that a guest cannot choose it by what it writes. */
static enum disk_format format_of_name(const char *path)
{
	static const struct {
		const char *end;
		enum disk_format format;
	} ends[] = {
		{ "vhdx", DISK_VHDX }, { "avhdx", DISK_VHDX }, { "vhd", DISK_VHD },
		{ "avhd", DISK_VHD },  { "raw", DISK_RAW },    { "img", DISK_RAW },
		{ "iso", DISK_RAW },
	};
	const char *dot = strrchr(path, '.');

	for (size_t i = 0; dot != NULL && i < sizeof(ends) / sizeof(ends[0]); i++)
		if (strcasecmp(dot + 1, ends[i].end) == 0)
			return ends[i].format;
	return DISK_FORMAT_INVALID;
}

int vm_config_disk(const char *where, const char *value, size_t size_bytes,
		   struct vm_disk_config *ret_disk, struct base_error *err)
{
	static const char *const names[] = { "lun",   "controller", "format", "read-only",
					     "cache", "dvd",        "ssd" };
	struct option option = { .where = where,
				 .key = "disk",
				 .all = value,
				 .all_length = size_bytes,
				 .name = "path",
				 .name_length = strlen("path"),
				 .value = value,
				 .value_length = size_bytes };
	struct vm_disk_config disk = { .lun = 0 };
	uint32_t seen = 0;
	size_t used = 0;
	const char *rest = NULL;
	size_t rest_length = 0;
	int code = take_path(&option, &disk, &used, err);

	if (code < 0)
		return code;
	if (used < size_bytes) {
		rest = value + used + 1;
		rest_length = size_bytes - used - 1;
	}
	while (next_option(&option, &rest, &rest_length)) {
		code = take_once(&option, names, sizeof(names) / sizeof(names[0]), &seen, err);
		if (code == 0)
			code = take_disk_option(&option, &disk, err);
		if (code < 0)
			return code;
	}
	if (disk.path[0] == '\0' && !disk.dvd)
		return base_fail(err, -EINVAL,
				 "%s: key 'disk': value '%s': expected a path, unless it is a dvd",
				 where, vm_config_show(value, size_bytes).text);
	if (disk.format == DISK_FORMAT_INVALID)
		disk.format = disk.dvd ? DISK_RAW : format_of_name(disk.path);
	disk.read_only = disk.read_only || disk.dvd;
	*ret_disk = disk;
	return 0;
}

/* --- nic --- */

static int take_interface(const struct option *option, char to[VM_INTERFACE_BYTES],
			  struct base_error *err)
{
	size_t length = option->value_length;

	if (option->value == NULL || length == 0 || length >= VM_INTERFACE_BYTES ||
	    !vm_config_printable(option->value, length) ||
	    memchr(option->value, '/', length) != NULL ||
	    memchr(option->value, ' ', length) != NULL ||
	    memchr(option->value, '%', length) != NULL || option->value[0] == '.')
		return refuse(option, "an interface's name of 1 to 15 bytes", err);
	memcpy(to, option->value, length);
	to[length] = '\0';
	return 0;
}

static int take_fds(const struct option *option, struct vm_nic_config *nic, struct base_error *err)
{
	static const char expected[] = "1 to 16 numbers of inherited descriptors, 3 to 1048575, "
				       "separated by ':'";
	const char *text = option->value;
	size_t left = option->value_length;

	while (text != NULL) {
		const char *colon = memchr(text, ':', left);
		size_t length = colon != NULL ? (size_t)(colon - text) : left;
		uint64_t number = 0;

		if (nic->fd_count == VM_NIC_QUEUES_MAX ||
		    !vm_config_number(text, length, &number) || number < FD_LEAST ||
		    number > FD_MOST)
			return refuse(option, expected, err);
		nic->fds[nic->fd_count++] = (int)number;
		left -= colon != NULL ? length + 1 : length;
		text = colon != NULL ? colon + 1 : NULL;
	}
	return nic->fd_count > 0 ? 0 : refuse(option, expected, err);
}

static int take_mac(const struct option *option, struct vm_nic_config *nic, struct base_error *err)
{
	static const char expected[] =
		"six pairs of hexadecimal digits separated by ':', no multicast address";

	if (option->value == NULL || option->value_length != MAC_TEXT)
		return refuse(option, expected, err);
	for (size_t i = 0; i < sizeof(nic->mac); i++) {
		const char *pair = option->value + i * 3;
		int high = base_hex_digit(pair[0]);
		int low = base_hex_digit(pair[1]);

		if (high < 0 || low < 0 || (i + 1 < sizeof(nic->mac) && pair[2] != ':'))
			return refuse(option, expected, err);
		nic->mac[i] = (uint8_t)(high << 4 | low);
	}
	if ((nic->mac[0] & MAC_MULTICAST) != 0 || memcmp(nic->mac, "\0\0\0\0\0\0", 6) == 0)
		return refuse(option, expected, err);
	nic->mac_given = true;
	return 0;
}

static int take_nic_option(const struct option *option, struct vm_nic_config *nic,
			   struct base_error *err)
{
	if (option_is(option, "tap"))
		return take_interface(option, nic->tap, err);
	if (option_is(option, "bridge"))
		return take_interface(option, nic->bridge, err);
	if (option_is(option, "fds"))
		return take_fds(option, nic, err);
	if (option_is(option, "mac"))
		return take_mac(option, nic, err);
	if (option_is(option, "mtu"))
		return take_number(option, NETVSP_MTU_MIN, NETVSP_MTU_MAX, "576 to 9000", &nic->mtu,
				   err);
	if (option_is(option, "queues"))
		return take_number(option, 1, VM_NIC_QUEUES_MAX, "1 to 16", &nic->queue_count, err);
	if (option_is(option, "link"))
		return take_choice(option, "up", "down", &nic->link_down, err);
	return take_choice(option, "off", "on", &nic->spoofing, err);
}

int vm_config_nic(const char *where, const char *value, size_t size_bytes,
		  struct vm_nic_config *ret_nic, struct base_error *err)
{
	static const char *const names[] = { "tap", "fds",    "bridge", "mac",
					     "mtu", "queues", "link",   "spoofing" };
	struct option option = {
		.where = where, .key = "nic", .all = value, .all_length = size_bytes
	};
	struct vm_nic_config nic = { .mtu = 0 };
	uint32_t seen = 0;
	const char *rest = value;
	size_t rest_length = size_bytes;
	const char *wrong = NULL;

	while (next_option(&option, &rest, &rest_length)) {
		int code = take_once(&option, names, sizeof(names) / sizeof(names[0]), &seen, err);

		if (code == 0)
			code = take_nic_option(&option, &nic, err);
		if (code < 0)
			return code;
	}
	if (nic.fd_count > 0 && (nic.tap[0] != '\0' || nic.bridge[0] != '\0'))
		wrong = "fds without tap and bridge: whoever opened them has done that";
	else if (nic.fd_count > 0 && nic.queue_count != 0 && nic.queue_count != nic.fd_count)
		wrong = "as many queues as fds";
	else if (nic.fd_count == 0 && nic.tap[0] == '\0' && nic.bridge[0] == '\0')
		wrong = "tap, fds or bridge";
	if (wrong != NULL)
		return base_fail(err, -EINVAL, "%s: key 'nic': value '%s': expected %s", where,
				 vm_config_show(value, size_bytes).text, wrong);
	if (nic.queue_count == 0)
		nic.queue_count = nic.fd_count > 0 ? nic.fd_count : 1;
	*ret_nic = nic;
	return 0;
}

/* --- all of them together --- */

static bool lun_taken(const struct vm_config *config, uint32_t count, uint32_t controller,
		      uint32_t lun)
{
	for (uint32_t i = 0; i < count; i++)
		if (config->disks[i].lun_given && config->disks[i].controller == controller &&
		    config->disks[i].lun == lun)
			return true;
	return false;
}

static int give_luns(struct vm_config *config, struct base_error *err)
{
	for (uint32_t i = 0; i < config->disk_count; i++) {
		const struct vm_disk_config *disk = &config->disks[i];

		if (disk->lun_given && lun_taken(config, i, disk->controller, disk->lun))
			return base_fail(err, -EINVAL,
					 "key 'disk': value '%s': option 'lun': value '%" PRIu32
					 "': expected one that no other disk of controller %" PRIu32
					 " has",
					 vm_config_show(disk->path, strlen(disk->path)).text,
					 disk->lun, disk->controller);
	}
	for (uint32_t i = 0; i < config->disk_count; i++) {
		struct vm_disk_config *disk = &config->disks[i];

		while (!disk->lun_given) { /* there are as many LUNs as disks at least */
			disk->lun_given =
				!lun_taken(config, config->disk_count, disk->controller, disk->lun);
			if (!disk->lun_given)
				disk->lun++;
		}
	}
	return 0;
}

/* Locally administered, the same at each start; the cluster's names are unique. */
static void make_mac(const char *name, uint32_t number, uint8_t mac[6])
{
	uint32_t sum = base_crc32c(0, name, strlen(name));

	mac[0] = 0x02;
	mac[1] = (uint8_t)number;
	for (int i = 0; i < 4; i++)
		mac[2 + i] = (uint8_t)(sum >> (8 * i));
}

static int give_macs(struct vm_config *config, struct base_error *err)
{
	for (uint32_t i = 0; i < config->nic_count; i++) {
		struct vm_nic_config *nic = &config->nics[i];

		if (!nic->mac_given)
			make_mac(config->name, i, nic->mac);
		for (uint32_t j = 0; j < i; j++)
			if (memcmp(nic->mac, config->nics[j].mac, sizeof(nic->mac)) == 0)
				return base_fail(err, -EINVAL,
						 "key 'nic': option 'mac': value "
						 "'%02x:%02x:%02x:%02x:%02x:%02x': expected one "
						 "that no other card has",
						 nic->mac[0], nic->mac[1], nic->mac[2], nic->mac[3],
						 nic->mac[4], nic->mac[5]);
	}
	return 0;
}

/* No descriptor serves two things. */
static int check_nic_fds(const struct vm_config *config, struct base_error *err)
{
	int used[3 + VM_NICS_MAX * VM_NIC_QUEUES_MAX] = { config->kvm_fd, config->leash_page_fd,
							  config->leash_event_fd };
	uint32_t count = 3;

	for (uint32_t i = 0; i < config->nic_count; i++)
		for (uint32_t j = 0; j < config->nics[i].fd_count; j++) {
			int fd = config->nics[i].fds[j];

			for (uint32_t k = 0; k < count; k++)
				if (used[k] == fd)
					return base_fail(err, -EINVAL,
							 "key 'nic': option 'fds': value '%d': "
							 "expected a descriptor that no other key "
							 "has",
							 fd);
			used[count++] = fd;
		}
	return 0;
}

int vm_config_devices_check(struct vm_config *config, struct base_error *err)
{
	int code = give_luns(config, err);

	if (code == 0)
		code = check_nic_fds(config, err);
	if (code == 0)
		code = give_macs(config, err);
	return code;
}
