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
#include "base/error.h"
#include "base/log.h"
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

/* The text of --help, and the page godwit-vm(8) in man(7) format. */
void vm_config_help(FILE *out);
void vm_config_man(FILE *out);

#endif
