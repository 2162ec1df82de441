/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration of one worker: a file of "key = value" lines and flags that win
 * over it.  One table of keys makes parser, help text and man page.
 *
 * The result is a plain value, complete and checked before anything starts, and
 * never changed afterwards; any thread may read it.
 */
#ifndef AGENT_VM_CONFIG_H
#define AGENT_VM_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "agent/agent_limits.h"
#include "agent/vm_migrate_net.h"
#include "base/error.h"
#include "base/log.h"
#include "hypervisor/disk/disk.h"
#include "hypervisor/machine.h"

enum vm_switch {
	VM_SWITCH_INVALID,
	VM_SWITCH_ON,
	VM_SWITCH_OFF,
	VM_SWITCH_COUNT
};

enum vm_start {
	VM_START_INVALID,
	VM_START_RUNNING,
	VM_START_PAUSED,
	VM_START_COUNT
};

enum vm_on_reset {
	VM_ON_RESET_INVALID,
	VM_ON_RESET_RESTART,
	VM_ON_RESET_STOP,
	VM_ON_RESET_COUNT
};

enum vm_console_kind {
	VM_CONSOLE_INVALID,
	VM_CONSOLE_STDIO,
	VM_CONSOLE_FILE,
	VM_CONSOLE_UNIX,
	VM_CONSOLE_NONE,
	VM_CONSOLE_KINDS
};

struct vm_console_spec {
	enum vm_console_kind kind;
	char path[VM_PATH_BYTES]; /* FILE and UNIX */
};

enum vm_boot {
	VM_BOOT_AUTO, /* not given: the kernel if there is one, else the first disk */
	VM_BOOT_DISK,
	VM_BOOT_KERNEL,
	VM_BOOT_COUNT
};

/* One value of the key disk. */
struct vm_disk_config {
	char path[VM_PATH_BYTES]; /* "": a DVD drive with nothing in it */
	uint32_t controller;
	uint32_t lun;            /* set for all once the whole is parsed */
	bool lun_given;          /* not chosen by us */
	enum disk_format format; /* INVALID: by the name's end, else by content */
	bool dvd;
	bool read_only;
	bool write_through; /* cache=off */
	bool solid_state;
};

/* One value of the key nic. */
struct vm_nic_config {
	char tap[VM_INTERFACE_BYTES]; /* "": the kernel chooses a name */
	char bridge[VM_INTERFACE_BYTES];
	int fds[VM_NIC_QUEUES_MAX]; /* inherited, instead of tap */
	uint32_t fd_count;
	uint32_t queue_count;
	uint32_t mtu; /* 0: 1500 */
	uint8_t mac[6];
	bool mac_given; /* else made from name and number */
	bool spoofing;
	bool link_down;
};

/* Strings are "" when the key was not given; descriptors -1. */
struct vm_config {
	char name[HV_NAME_BYTES];
	uint64_t memory_bytes;
	enum hv_memory_backing backing;
	uint64_t vcpu_count;
	enum hv_cpu_model cpu;
	enum vm_switch cpu_strict;
	char kernel[VM_PATH_BYTES];
	char initrd[VM_PATH_BYTES];
	char cmdline[HV_CMDLINE_BYTES];
	struct vm_console_spec console;
	char control[VM_SOCKET_PATH_BYTES];
	char state_dir[VM_PATH_BYTES];
	char restore[VM_PATH_BYTES];
	enum vm_switch restore_force_tsc;
	char incoming[VM_ADDRESSES_BYTES]; /* where a migration is to come to */
	enum vm_switch migrate;
	char migrate_dir[VM_PATH_BYTES]; /* "": VM_MIGRATE_DIR, if that can be had */
	uint64_t migrate_out;            /* the host's limits */
	uint64_t migrate_in;
	uint64_t migrate_bandwidth;         /* the host's cap; 0: none */
	char migrate_tls[VM_PATH_BYTES];    /* "": MIG_TLS_DIR */
	char migrate_peers[VM_PEERS_BYTES]; /* whom a VM may come from; "": nobody */
	enum vm_switch migrate_clear;       /* without TLS */
	enum vm_start start;
	enum vm_on_reset on_reset;
	uint64_t quit_timeout_s;
	enum vm_switch test_page;
	int kvm_fd;
	int leash_page_fd;
	int leash_event_fd;
	uint64_t epoch;
	enum base_log_level log_level;
	enum vm_switch sandbox;
	enum vm_boot boot;
	uint64_t io_thread_count; /* 0: as many as vcpus, at most VM_IO_THREADS_AUTO */
	struct vm_disk_config disks[VM_DISKS_MAX];
	uint32_t disk_count;
	struct vm_nic_config nics[VM_NICS_MAX];
	uint32_t nic_count;
	char stores[VM_STORES_MAX][VM_PATH_BYTES]; /* folders that disks may come from later */
	uint32_t store_count;
};

enum vm_config_action {
	VM_CONFIG_INVALID,
	VM_CONFIG_RUN,
	VM_CONFIG_HELP,
	VM_CONFIG_MAN,
	VM_CONFIG_VERSION,
	VM_CONFIG_ACTIONS
};

/**
 * vm_config_parse - configuration from the command line and the file it names.
 * @argc, @argv: as main() got them.
 * @ret_action: what is asked for; @ret_config is set for VM_CONFIG_RUN only.
 *
 * -EINVAL with "WHERE: key 'x': value 'y': expected ...", WHERE being FILE:LINE or
 * "command line": unknown or doubled key, bad value, broken relation between keys.
 * Other codes: the file cannot be read.
 */
BASE_MUST_CHECK int vm_config_parse(int argc, char *const argv[], enum vm_config_action *ret_action,
				    struct vm_config *ret_config, struct base_error *err);

/**
 * vm_config_parse_text - configuration from the bytes of a file alone.
 * @file: its name in error texts.  @text: @size_bytes bytes, need not end in zero.
 * -EINVAL as above.
 */
BASE_MUST_CHECK int vm_config_parse_text(const char *file, const char *text, size_t size_bytes,
					 struct vm_config *ret_config, struct base_error *err);

/**
 * vm_config_disk - one value of the key disk, as the command disk-add takes it too.
 * @where: begins error texts, such as "FILE:3" or "command 'disk-add'".
 * -EINVAL "WHERE: key 'disk': value '...': option 'lun': ...".
 */
BASE_MUST_CHECK int vm_config_disk(const char *where, const char *value, size_t size_bytes,
				   struct vm_disk_config *ret_disk, struct base_error *err);

/* The text of --help, and the page godwit-vm(8) in man(7) format. */
void vm_config_help(FILE *out);
void vm_config_man(FILE *out);

#endif
