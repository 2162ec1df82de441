/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration keys of godwit-vm: one row each.
 */
#include <string.h>

#include "agent/vm_config_priv.h"
#include "migrate/mig_rate.h"
#include "migrate/mig_tls.h"

#define FIELD(member)                                                                              \
	.offset = offsetof(struct vm_config, member),                                              \
	.size_bytes = sizeof(((struct vm_config *)NULL)->member)

/* A list: the elements, and their count. */
#define LIST(member, counter, limit)                                                               \
	.offset = offsetof(struct vm_config, member),                                              \
	.size_bytes = sizeof(((struct vm_config *)NULL)->member[0]),                               \
	.count_offset = offsetof(struct vm_config, counter), .most = (limit)

#define FD_LEAST 3 /* 0, 1 and 2 are the terminal's */
#define FD_MOST  1048575
#define FD_TEXT  "the number of an inherited descriptor, 3 to 1048575"

static int word_index(const char *text, const char *const words[], int count)
{
	for (int i = 1; i < count; i++)
		if (strcmp(text, words[i]) == 0)
			return i;
	return 0;
}

static int choose_switch(const char *text)
{
	static const char *const words[VM_SWITCH_COUNT] = {
		[VM_SWITCH_ON] = "on",
		[VM_SWITCH_OFF] = "off",
	};

	return word_index(text, words, VM_SWITCH_COUNT);
}

static int choose_start(const char *text)
{
	static const char *const words[VM_START_COUNT] = {
		[VM_START_RUNNING] = "running",
		[VM_START_PAUSED] = "paused",
	};

	return word_index(text, words, VM_START_COUNT);
}

static int choose_on_reset(const char *text)
{
	static const char *const words[VM_ON_RESET_COUNT] = {
		[VM_ON_RESET_RESTART] = "restart",
		[VM_ON_RESET_STOP] = "stop",
	};

	return word_index(text, words, VM_ON_RESET_COUNT);
}

static int choose_boot(const char *text)
{
	static const char *const words[VM_BOOT_COUNT] = {
		[VM_BOOT_DISK] = "disk",
		[VM_BOOT_KERNEL] = "kernel",
	};

	return word_index(text, words, VM_BOOT_COUNT);
}

static int choose_backing(const char *text)
{
	return (int)hv_memory_backing_parse(text);
}

static int choose_cpu(const char *text)
{
	return (int)hv_cpu_model_parse(text);
}

static int choose_log_level(const char *text)
{
	return (int)base_log_level_parse(text);
}

const struct vm_key vm_config_keys[] = {
	{ .name = "name",
	  .type = VM_KEY_NAME,
	  FIELD(name),
	  .expected = "1 to 63 of the characters A-Z a-z 0-9 . _ -, the first a letter or digit",
	  .value = "vm",
	  .help = "Name of the virtual machine, in logs, status and events." },
	{ .name = "memory",
	  .type = VM_KEY_SIZE,
	  FIELD(memory_bytes),
	  .least = HV_MEMORY_BYTES_MIN,
	  .most = HV_MEMORY_BYTES_MAX,
	  .step = HV_HUGE_PAGE_BYTES,
	  .expected = "64M to 64T, a multiple of 2M",
	  .unit = "bytes, or with suffix K, M, G or T",
	  .value = "1G",
	  .help = "Memory of the guest. All of it is provided before the guest starts." },
	{ .name = "memory-backing",
	  .type = VM_KEY_CHOICE,
	  FIELD(backing),
	  .expected = "auto, huge, hugetlb or small",
	  .value = "auto",
	  .choice = choose_backing,
	  .help = "Pages the memory is made of: huge (2 MiB, private tmpfs), hugetlb (2 MiB from "
		  "the host's pool), small (4 KiB); auto is huge where possible, else small." },
	{ .name = "vcpus",
	  .type = VM_KEY_NUMBER,
	  FIELD(vcpu_count),
	  .least = 1,
	  .most = HV_VCPUS_MAX,
	  .expected = "1 to 64",
	  .value = "1",
	  .help = "Number of virtual processors." },
	{ .name = "cpu",
	  .type = VM_KEY_CHOICE,
	  FIELD(cpu),
	  .expected = "host, x86-64-v1, x86-64-v2, x86-64-v3 or x86-64-v4",
	  .value = "host",
	  .choice = choose_cpu,
	  .help = "Processor features the guest sees. A level instead of host lets the machine "
		  "move between unequal hosts." },
	{ .name = "cpu-strict",
	  .type = VM_KEY_CHOICE,
	  FIELD(cpu_strict),
	  .expected = "on or off",
	  .value = "off",
	  .choice = choose_switch,
	  .help = "Refuse to start when the host's KVM does not honour the processor model." },
	{ .name = "kernel",
	  .type = VM_KEY_PATH,
	  FIELD(kernel),
	  .expected = "the path of a Linux bzImage or an ELF64 kernel",
	  .help = "Kernel to boot. Also needed with restore if the guest is to restart in place." },
	{ .name = "initrd",
	  .type = VM_KEY_PATH,
	  FIELD(initrd),
	  .expected = "the path of an initial ramdisk",
	  .help = "Initial ramdisk for the kernel. Needs kernel." },
	{ .name = "cmdline",
	  .type = VM_KEY_TEXT,
	  FIELD(cmdline),
	  .expected = "up to 2047 printable characters",
	  .value = "",
	  .help = "Command line of the kernel. Needs kernel." },
	{ .name = "boot",
	  .type = VM_KEY_CHOICE,
	  FIELD(boot),
	  .expected = "disk or kernel",
	  .choice = choose_boot,
	  .help = "What to boot: what the boot loader on the disk with the lowest controller and "
		  "LUN would, or the file of the key kernel. Without it: the kernel if there is "
		  "one, else the disk." },
	{ .name = "disk",
	  .type = VM_KEY_DISK,
	  LIST(disks, disk_count, VM_DISKS_MAX),
	  .expected = "PATH[,lun=0..63][,controller=0..3][,format=vhdx|vhd|raw][,read-only]"
		      "[,cache=on|off][,dvd][,ssd]",
	  .help = "A disk on a SCSI controller; may be given several times. A comma in the path is "
		  "written twice. Without lun: the lowest one that is free. The format is that of "
		  "the name's end (vhdx, avhdx, vhd, avhd, raw, img, iso), else found by content. "
		  "cache=off: what completed is durable. dvd: a drive for ISO images, PATH may be "
		  "empty. ssd: the guest is told that it does not rotate. All images of a chain "
		  "are "
		  "in the folder of the disk or below." },
	{ .name = "nic",
	  .type = VM_KEY_NIC,
	  LIST(nics, nic_count, VM_NICS_MAX),
	  .expected = "tap=NAME, fds=N[:N]... or bridge=NAME, then [,bridge=NAME][,mac=ADDRESS]"
		      "[,mtu=576..9000][,queues=1..16][,spoofing=on|off][,link=up|down]",
	  .help = "A network card on a TAP device; may be given several times. tap: its name (made "
		  "if it is not there), put into the bridge if one is named. fds: inherited "
		  "descriptors of one, one per queue, with IFF_VNET_HDR. Without mac the address "
		  "is made from the name of the machine and the number of the card. spoofing=on "
		  "lets the guest send with other source addresses." },
	{ .name = "store",
	  .type = VM_KEY_PATHS,
	  LIST(stores, store_count, VM_STORES_MAX),
	  .expected = "the path of a directory",
	  .help = "Directory that disks and DVDs may come from while the machine runs, besides "
		  "those of its disks; may be given several times." },
	{ .name = "io-threads",
	  .type = VM_KEY_NUMBER,
	  FIELD(io_thread_count),
	  .least = 0,
	  .most = VM_IO_THREADS_MAX,
	  .expected = "0 to 16",
	  .value = "0",
	  .help = "Threads for disks and network cards; 0: as many as processors, at most 4." },
	{ .name = "console",
	  .type = VM_KEY_CONSOLE,
	  FIELD(console),
	  .expected = "stdio, file:PATH, unix:PATH or none",
	  .value = "none",
	  .help = "Where the serial console goes: the terminal (Ctrl-A x ends the machine, Ctrl-A "
		  "Ctrl-A sends Ctrl-A), the end of a file, a Unix socket, or nowhere." },
	{ .name = "control",
	  .type = VM_KEY_PATH,
	  FIELD(control),
	  .expected = "a path of 1 to 107 bytes",
	  .help = "Path of the control socket; its lock is the same path with .lock added." },
	{ .name = "state-dir",
	  .type = VM_KEY_PATH,
	  FIELD(state_dir),
	  .expected = "the path of a directory",
	  .help = "Directory that saved states are written to. Without it the machine cannot be "
		  "saved." },
	{ .name = "restore",
	  .type = VM_KEY_PATH,
	  FIELD(restore),
	  .expected = "the path of a saved state",
	  .help = "Saved state to go on from, instead of booting." },
	{ .name = "restore-force-tsc",
	  .type = VM_KEY_CHOICE,
	  FIELD(restore_force_tsc),
	  .expected = "on or off",
	  .value = "off",
	  .choice = choose_switch,
	  .help = "Accept that the guest's time stamp counter steps back at a restore or move. "
		  "Needs restore or incoming." },
	{ .name = "incoming",
	  .type = VM_KEY_TEXT,
	  FIELD(incoming),
	  .expected = "ADDRESS:PORT in numbers, such as 192.0.2.1:7011 or [2001:db8::1]:7011",
	  .help = "Where to listen for a machine that another worker moves here, instead of "
		  "booting: one address, or up to 4 with commas between, one a network. The other "
		  "keys have to say the same as there. Needs state-dir." },
	{ .name = "migrate",
	  .type = VM_KEY_CHOICE,
	  FIELD(migrate),
	  .expected = "on or off",
	  .value = "on",
	  .choice = choose_switch,
	  .help = "Whether the machine can be moved to another worker. Off, the lock-down lets "
		  "the worker open no network connection at all." },
	{ .name = "migrate-dir",
	  .type = VM_KEY_PATH,
	  FIELD(migrate_dir),
	  .expected = "the path of a directory",
	  .help = "Directory that the workers of this host share to keep to its limits of moves; "
		  "made if it is not there. Without the key: " VM_MIGRATE_DIR
		  ", or no limits where that cannot be had." },
	{ .name = "migrate-out",
	  .type = VM_KEY_NUMBER,
	  FIELD(migrate_out),
	  .least = 1,
	  .most = MIG_HOST_MOVES_MAX,
	  .expected = "1 to 64",
	  .value = "2",
	  .help = "How many machines move away from this host at a time; more wait in line." },
	{ .name = "migrate-in",
	  .type = VM_KEY_NUMBER,
	  FIELD(migrate_in),
	  .least = 1,
	  .most = MIG_HOST_MOVES_MAX,
	  .expected = "1 to 64",
	  .value = "2",
	  .help = "How many machines move to this host at a time; more are refused." },
	{ .name = "migrate-bandwidth",
	  .type = VM_KEY_SIZE,
	  FIELD(migrate_bandwidth),
	  .least = MIG_RATE_MIN_BYTES_PER_S,
	  .most = INT64_MAX,
	  .expected = "1M or more",
	  .unit = "bytes a second, or with suffix K, M, G or T",
	  .help = "What all machines that move away from this host may send together. Without "
		  "it: as it goes." },
	{ .name = "migrate-tls",
	  .type = VM_KEY_PATH,
	  FIELD(migrate_tls),
	  .expected = "the path of a directory",
	  .help = "Directory with ca.pem, cert.pem and key.pem (and crl.pem, if there is one), by "
		  "which hosts know each other when machines move. Without the key: " MIG_TLS_DIR
		  "." },
	{ .name = "migrate-peers",
	  .type = VM_KEY_TEXT,
	  FIELD(migrate_peers),
	  .expected = "names of hosts, with spaces or commas between",
	  .help = "Hosts that the machine may come from: a DNS name or an address that the other "
		  "host's certificate has as an alternative name. Needed with incoming, unless "
		  "migrate-clear is on." },
	{ .name = "migrate-clear",
	  .type = VM_KEY_CHOICE,
	  FIELD(migrate_clear),
	  .expected = "on or off",
	  .value = "off",
	  .choice = choose_switch,
	  .help = "On: the machine comes and goes without TLS, readable by all on the way, and "
		  "whoever reaches the port may send one. The other host has to have it so, "
		  "too." },
	{ .name = "start",
	  .type = VM_KEY_CHOICE,
	  FIELD(start),
	  .expected = "running or paused",
	  .value = "running",
	  .choice = choose_start,
	  .help = "Whether the guest runs at once or waits for the command resume." },
	{ .name = "on-reset",
	  .type = VM_KEY_CHOICE,
	  FIELD(on_reset),
	  .expected = "restart or stop",
	  .value = "restart",
	  .choice = choose_on_reset,
	  .help = "What a reset by the guest does: restart in place, or end with exit code 5." },
	{ .name = "quit-timeout",
	  .type = VM_KEY_NUMBER,
	  FIELD(quit_timeout_s),
	  .least = 0,
	  .most = 86400,
	  .expected = "0 to 86400",
	  .unit = "seconds",
	  .value = "60",
	  .help = "How long the command quit waits for the guest to power off before it cuts the "
		  "power." },
	{ .name = "test-page",
	  .type = VM_KEY_CHOICE,
	  FIELD(test_page),
	  .expected = "on or off",
	  .value = "off",
	  .choice = choose_switch,
	  .help = "The test guest's statistics page and the commands test-get and test-set. For "
		  "tests only." },
	{ .name = "kvm-fd",
	  .type = VM_KEY_FD,
	  FIELD(kvm_fd),
	  .least = FD_LEAST,
	  .most = FD_MOST,
	  .expected = FD_TEXT,
	  .help = "Inherited descriptor of /dev/kvm; without it the worker opens /dev/kvm "
		  "itself." },
	{ .name = "leash-page-fd",
	  .type = VM_KEY_FD,
	  FIELD(leash_page_fd),
	  .least = FD_LEAST,
	  .most = FD_MOST,
	  .expected = FD_TEXT,
	  .help = "Inherited descriptor of the leash's page. Without a leash the machine may run "
		  "for ever." },
	{ .name = "leash-event-fd",
	  .type = VM_KEY_FD,
	  FIELD(leash_event_fd),
	  .least = FD_LEAST,
	  .most = FD_MOST,
	  .expected = FD_TEXT,
	  .help = "Inherited descriptor of the leash's eventfd. Needs leash-page-fd." },
	{ .name = "epoch",
	  .type = VM_KEY_NUMBER,
	  FIELD(epoch),
	  .least = 0,
	  .most = UINT64_MAX - 1,
	  .expected = "0 to 18446744073709551614, at least 1 with a leash",
	  .value = "0",
	  .help = "Epoch of the machine that this worker runs it at." },
	{ .name = "log-level",
	  .type = VM_KEY_CHOICE,
	  FIELD(log_level),
	  .expected = "err, warning, notice, info or debug",
	  .value = "notice",
	  .choice = choose_log_level,
	  .help = "The least important lines that are logged to standard error." },
	{ .name = "sandbox",
	  .type = VM_KEY_CHOICE,
	  FIELD(sandbox),
	  .expected = "on or off",
	  .value = "on",
	  .choice = choose_switch,
	  .help = "Lock the worker down before the guest runs. Off only for debugging and "
		  "sanitizers." },
};

const size_t vm_config_key_count = sizeof(vm_config_keys) / sizeof(vm_config_keys[0]);

_Static_assert(sizeof(vm_config_keys) / sizeof(vm_config_keys[0]) <= VM_CONFIG_KEYS_MAX,
	       "raise VM_CONFIG_KEYS_MAX");
_Static_assert(sizeof(enum hv_memory_backing) == sizeof(int), "choices are stored as int");
_Static_assert(sizeof(enum base_log_level) == sizeof(int), "choices are stored as int");

const struct vm_key *vm_config_key_find(const char *name, size_t length)
{
	for (size_t i = 0; i < vm_config_key_count; i++)
		if (strlen(vm_config_keys[i].name) == length &&
		    memcmp(vm_config_keys[i].name, name, length) == 0)
			return &vm_config_keys[i];
	return NULL;
}
