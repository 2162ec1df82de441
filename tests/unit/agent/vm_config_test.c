/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration: good ones, and each way to be wrong. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/vm_config.h"
#include "agent/vm_config_priv.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "migrate/mig_host.h"

static struct vm_config config; /* too large for a stack in a loop */

static int parse(const char *text, struct base_error *err)
{
	return vm_config_parse_text("f", text, strlen(text), &config, err);
}

Test(vm_config, defaults)
{
	struct base_error err = { 0 };

	cr_assert_eq(parse("kernel = /boot/k\n", &err), 0, "%s", err.text);
	cr_assert_str_eq(config.name, "vm");
	cr_assert_eq(config.memory_bytes, 1ULL << 30);
	cr_assert_eq(config.backing, HV_MEMORY_AUTO);
	cr_assert_eq(config.vcpu_count, 1);
	cr_assert_eq(config.cpu, HV_CPU_MODEL_HOST);
	cr_assert_eq(config.cpu_strict, VM_SWITCH_OFF);
	cr_assert_eq(config.console.kind, VM_CONSOLE_NONE);
	cr_assert_eq(config.start, VM_START_RUNNING);
	cr_assert_eq(config.on_reset, VM_ON_RESET_RESTART);
	cr_assert_eq(config.sandbox, VM_SWITCH_ON);
	cr_assert_eq(config.kvm_fd, -1);
	cr_assert_eq(config.leash_page_fd, -1);
	cr_assert_eq(config.leash_event_fd, -1);
	cr_assert_eq(config.log_level, BASE_LOG_NOTICE);
	cr_assert_str_eq(config.control, "");
}

Test(vm_config, every_key)
{
	struct base_error err = { 0 };
	const char *text = "# all of them\r\n"
			   "name = web-1.a_b\n"
			   "  memory=256M  \n"
			   "memory-backing = small\nvcpus = 64\ncpu = x86-64-v3\ncpu-strict = on\n"
			   "kernel = /k\ninitrd = /i\ncmdline = console=ttyS0 a=b # not a comment\n"
			   "console = unix:/c\ncontrol = /ctl\nstate-dir = /s\nrestore = /r\n"
			   "restore-force-tsc = on\nstart = paused\non-reset = stop\n"
			   "quit-timeout = 0\ntest-page = on\nkvm-fd = 3\nleash-page-fd = 4\n"
			   "leash-event-fd = 5\nepoch = 18446744073709551614\nlog-level = debug\n"
			   "sandbox = off";

	cr_assert_eq(parse(text, &err), 0, "%s", err.text);
	cr_assert_str_eq(config.name, "web-1.a_b");
	cr_assert_eq(config.memory_bytes, 256ULL << 20);
	cr_assert_eq(config.backing, HV_MEMORY_SMALL);
	cr_assert_eq(config.vcpu_count, 64);
	cr_assert_eq(config.cpu, HV_CPU_MODEL_V3);
	cr_assert_str_eq(config.cmdline, "console=ttyS0 a=b # not a comment");
	cr_assert_eq(config.console.kind, VM_CONSOLE_UNIX);
	cr_assert_str_eq(config.console.path, "/c");
	cr_assert_eq(config.epoch, UINT64_MAX - 1);
	cr_assert_eq(config.kvm_fd, 3);
	cr_assert_eq(config.start, VM_START_PAUSED);
	cr_assert_eq(config.on_reset, VM_ON_RESET_STOP);
	cr_assert_eq(config.sandbox, VM_SWITCH_OFF);
}

/* Each line after "kernel = /k" is refused with a text that begins with @expected. */
static const struct {
	const char *line;
	const char *expected;
} refused[] = {
	{ "nonsense", "f:2: line 'nonsense': expected 'key = value'" },
	{ "colour = red", "f:2: key 'colour': value 'red': expected a known key" },
	{ "= red", "f:2: key '': value 'red': expected a known key" },
	{ "kernel = /k2", "f:2: key 'kernel': value '/k2': expected the key once" },
	{ "name =", "f:2: key 'name': value '': expected 1 to 63" },
	{ "name = a b", "f:2: key 'name': value 'a b': expected 1 to 63" },
	{ "name = -x", "f:2: key 'name': value '-x': expected 1 to 63" },
	{ "memory = 0", "f:2: key 'memory': value '0': expected 64M to 64T" },
	{ "memory = 1024T", "f:2: key 'memory': value '1024T': expected 64M to 64T" },
	{ "memory = 1P", "f:2: key 'memory': value '1P': expected 64M to 64T" },
	{ "memory = -1G", "f:2: key 'memory': value '-1G': expected 64M to 64T" },
	{ "memory = 65M", "f:2: key 'memory': value '65M': expected 64M to 64T" },
	{ "memory = G", "f:2: key 'memory': value 'G': expected 64M to 64T" },
	{ "memory = 99999999999999999999", "f:2: key 'memory': value '99999999999999999999'" },
	{ "memory = 18446744073709551615T", "f:2: key 'memory': value '18446744073709551615T'" },
	{ "memory-backing = silk", "f:2: key 'memory-backing': value 'silk': expected auto, huge" },
	{ "vcpus = 0", "f:2: key 'vcpus': value '0': expected 1 to 64" },
	{ "vcpus = 65", "f:2: key 'vcpus': value '65': expected 1 to 64" },
	{ "vcpus = 2x", "f:2: key 'vcpus': value '2x': expected 1 to 64" },
	{ "cpu = z80", "f:2: key 'cpu': value 'z80': expected host, x86-64-v1" },
	{ "cpu-strict = yes", "f:2: key 'cpu-strict': value 'yes': expected on or off" },
	{ "initrd =", "f:2: key 'initrd': value '': expected the path" },
	{ "cmdline = a\x01", "f:2: key 'cmdline': value 'a?': expected up to 2047" },
	{ "console = tape", "f:2: key 'console': value 'tape': expected stdio" },
	{ "console = file:", "f:2: key 'console': value 'file:': expected stdio" },
	{ "console = stdio2", "f:2: key 'console': value 'stdio2': expected stdio" },
	{ "control =", "f:2: key 'control': value '': expected a path of 1 to 107" },
	{ "start = later", "f:2: key 'start': value 'later': expected running or paused" },
	{ "on-reset = x", "f:2: key 'on-reset': value 'x': expected restart or stop" },
	{ "quit-timeout = 86401", "f:2: key 'quit-timeout': value '86401': expected 0 to 86400" },
	{ "kvm-fd = 2", "f:2: key 'kvm-fd': value '2': expected the number" },
	{ "kvm-fd = 1048576", "f:2: key 'kvm-fd': value '1048576': expected the number" },
	{ "epoch = 18446744073709551615", "f:2: key 'epoch': value '18446744073709551615'" },
	{ "log-level = loud", "f:2: key 'log-level': value 'loud': expected err" },
	{ "sandbox = maybe", "f:2: key 'sandbox': value 'maybe': expected on or off" },
	{ "boot = floppy", "f:2: key 'boot': value 'floppy': expected disk or kernel" },
	{ "io-threads = 17", "f:2: key 'io-threads': value '17': expected 0 to 16" },
	{ "store =", "f:2: key 'store': value '': expected the path of a directory" },
	{ "disk =", "f:2: key 'disk': value '': expected a path, unless it is a dvd" },
	{ "disk = ,lun=1", "f:2: key 'disk': value ',lun=1': expected a path" },
	{ "disk = /d,lun=64", "f:2: key 'disk': value '/d,lun=64': option 'lun': value '64': "
			      "expected 0 to 63" },
	{ "disk = /d,lun=", "f:2: key 'disk': value '/d,lun=': option 'lun': value '': expected" },
	{ "disk = /d,lun=1,lun=2",
	  "f:2: key 'disk': value '/d,lun=1,lun=2': option 'lun': value '2': expected the option "
	  "once" },
	{ "disk = /d,controller=4", "f:2: key 'disk': value '/d,controller=4': option "
				    "'controller': value '4': expected 0 to 3" },
	{ "disk = /d,format=qcow2", "f:2: key 'disk': value '/d,format=qcow2': option 'format': "
				    "value 'qcow2': expected vhdx, vhd or raw" },
	{ "disk = /d,cache=yes", "f:2: key 'disk': value '/d,cache=yes': option 'cache': value "
				 "'yes': expected off or on" },
	{ "disk = /d,ssd=1", "f:2: key 'disk': value '/d,ssd=1': option 'ssd': value '1': expected "
			     "no value" },
	{ "disk = /d,colour=red", "f:2: key 'disk': value '/d,colour=red': option 'colour': value "
				  "'red': expected a known option" },
	{ "disk = /d,", "f:2: key 'disk': value '/d,': option '': value '': expected a known" },
	{ "nic =", "f:2: key 'nic': value '': option '': value '': expected a known option" },
	{ "nic = mtu=1500", "f:2: key 'nic': value 'mtu=1500': expected tap, fds or bridge" },
	{ "nic = tap=", "f:2: key 'nic': value 'tap=': option 'tap': value '': expected an inter" },
	{ "nic = tap=a/b", "f:2: key 'nic': value 'tap=a/b': option 'tap': value 'a/b'" },
	{ "nic = tap=0123456789abcdef", "f:2: key 'nic': value 'tap=0123456789abcdef': option" },
	{ "nic = fds=2", "f:2: key 'nic': value 'fds=2': option 'fds': value '2': expected 1 to" },
	{ "nic = fds=4:", "f:2: key 'nic': value 'fds=4:': option 'fds': value '4:': expected" },
	{ "nic = fds=4,bridge=b", "f:2: key 'nic': value 'fds=4,bridge=b': expected fds without" },
	{ "nic = fds=4:5,queues=3", "f:2: key 'nic': value 'fds=4:5,queues=3': expected as many" },
	{ "nic = tap=t,mac=01:00:00:00:00:01", "f:2: key 'nic': value 'tap=t,mac=01:00:00:00:00:01"
					       "': option 'mac': value '01:00:00:00:00:01'" },
	{ "nic = tap=t,mac=00:00:00:00:00:00", "f:2: key 'nic': value 'tap=t,mac=00:00" },
	{ "nic = tap=t,mac=0x:00:00:00:00:01", "f:2: key 'nic': value 'tap=t,mac=0x:00" },
	{ "nic = tap=t,mtu=575",
	  "f:2: key 'nic': value 'tap=t,mtu=575': option 'mtu': value '575': "
	  "expected 576 to 9000" },
	{ "nic = tap=t,queues=0", "f:2: key 'nic': value 'tap=t,queues=0': option 'queues'" },
	{ "nic = tap=t,link=lost", "f:2: key 'nic': value 'tap=t,link=lost': option 'link': value "
				   "'lost': expected up or down" },
	/* relations */
	{ "boot = disk", "f:2: key 'boot': value 'disk': expected it without key 'kernel'" },
	{ "disk = /a,lun=3\ndisk = /b,lun=3",
	  "key 'disk': value '/b': option 'lun': value '3': expected one that no other disk of "
	  "controller 0 has" },
	{ "nic = tap=t,mac=02:00:00:00:00:01\nnic = tap=u,mac=02:00:00:00:00:01",
	  "key 'nic': option 'mac': value '02:00:00:00:00:01': expected one that no other" },
	{ "nic = fds=7\nnic = fds=8:7", "key 'nic': option 'fds': value '7': expected a desc" },
	{ "kvm-fd = 7\nnic = fds=7", "key 'nic': option 'fds': value '7': expected a desc" },
	{ "restore-force-tsc = on", "f:2: key 'restore-force-tsc': expected key 'restore' or" },
	{ "incoming = 127.0.0.1:7011", "f:2: key 'incoming': expected key 'state-dir' with it" },
	{ "state-dir = /s\nincoming = localhost:7011",
	  "f:3: key 'incoming': value 'localhost:7011': expected ADDRESS:PORT in numbers" },
	{ "state-dir = /s\nincoming = 127.0.0.1:7011\nrestore = /r",
	  "f:3: key 'incoming': value '127.0.0.1:7011': expected it without key 'restore'" },
	{ "state-dir = /s\nincoming = 127.0.0.1:7011",
	  "f:3: key 'incoming': value '127.0.0.1:7011': expected key 'migrate-peers' with it, or "
	  "key "
	  "'migrate-clear' on" },
	{ "migrate-peers = a *.b",
	  "f:2: key 'migrate-peers': value 'a *.b': expected a host's name" },
	{ "migrate-peers = ,", "f:2: key 'migrate-peers': value ',': expected names of hosts" },
	{ "state-dir = /s\nincoming = 127.0.0.1:7011\nmigrate = off",
	  "f:3: key 'incoming': value '127.0.0.1:7011': expected key 'migrate' to be on" },
	{ "migrate = perhaps", "f:2: key 'migrate': value 'perhaps': expected on or off" },
	{ "migrate-out = 0", "f:2: key 'migrate-out': value '0': expected 1 to 64" },
	{ "migrate-in = 65", "f:2: key 'migrate-in': value '65': expected 1 to 64" },
	{ "migrate-bandwidth = 1000",
	  "f:2: key 'migrate-bandwidth': value '1000': expected 1M or more" },
	{ "leash-page-fd = 4", "f:2: key 'leash-page-fd': expected key 'leash-event-fd' with it" },
	{ "leash-event-fd = 4", "f:2: key 'leash-event-fd': expected key 'leash-page-fd' with it" },
	{ "leash-page-fd = 4\nleash-event-fd = 5",
	  "f:2: key 'leash-page-fd': expected key 'epoch'" },
	{ "leash-page-fd = 4\nleash-event-fd = 5\nepoch = 0",
	  "f:4: key 'epoch': value '0': expected at least 1 with a leash" },
	{ "leash-page-fd = 4\nleash-event-fd = 4\nepoch = 1",
	  "f:3: key 'leash-event-fd': value '4': expected another descriptor" },
	{ "console = unix:/c\ncontrol = /c",
	  "f:2: key 'console': value 'unix:/c': expected another" },
};

Test(vm_config, refused_lines)
{
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		struct base_error err = { 0 };
		char text[512];

		(void)snprintf(text, sizeof(text), "kernel = /k\n%s\n", refused[i].line);
		cr_expect_eq(parse(text, &err), -EINVAL, "line '%s'", refused[i].line);
		cr_expect_eq(strncmp(err.text, refused[i].expected, strlen(refused[i].expected)), 0,
			     "line '%s': got '%s'", refused[i].line, err.text);
		cr_expect_null(strchr(err.text, '\n'));
	}
}

Test(vm_config, needs_a_kernel_or_a_state)
{
	struct base_error err = { 0 };

	cr_assert_eq(parse("", &err), -EINVAL);
	cr_assert_not_null(strstr(err.text, "key 'kernel': not given"));
	cr_assert_eq(parse("restore = /r\n", NULL), 0);
	cr_assert_eq(parse("restore = /r\ninitrd = /i\n", &err), -EINVAL);
	cr_assert_not_null(strstr(err.text, "f:2: key 'initrd': expected key 'kernel' with it"));
	cr_assert_eq(parse("restore = /r\ncmdline = x\n", NULL), -EINVAL);
}

Test(vm_config, a_machine_that_comes_needs_neither)
{
	struct base_error err = { 0 };

	cr_assert_eq(parse("state-dir = /s\nincoming = [::1]:7011\nmigrate-clear = on\n", &err), 0,
		     "%s", err.text);
	cr_assert_str_eq(config.incoming, "[::1]:7011");
	cr_assert_eq(config.migrate, VM_SWITCH_ON);
	cr_assert_eq(parse("state-dir = /s\nincoming = 192.0.2.1:1\nkernel = /k\nmigrate-peers = "
			   "a,b 192.0.2.2\n"
			   "restore-force-tsc = on\n",
			   &err),
		     0, "%s", err.text);
}

Test(vm_config, limits_of_the_hosts_moves)
{
	struct base_error err = { 0 };

	cr_assert_eq(parse("kernel = /k\n", &err), 0, "%s", err.text);
	cr_assert_str_eq(config.migrate_dir, "");
	cr_assert_eq(config.migrate_out, MIG_HOST_MOVES);
	cr_assert_eq(config.migrate_in, MIG_HOST_MOVES);
	cr_assert_eq(config.migrate_bandwidth, 0);
	cr_assert_eq(parse("kernel = /k\nmigrate-dir = /d\nmigrate-out = 64\nmigrate-in = 1\n"
			   "migrate-bandwidth = 100M\n",
			   &err),
		     0, "%s", err.text);
	cr_assert_str_eq(config.migrate_dir, "/d");
	cr_assert_eq(config.migrate_out, 64);
	cr_assert_eq(config.migrate_in, 1);
	cr_assert_eq(config.migrate_bandwidth, 100 << 20);
}

Test(vm_config, boot_from_a_disk)
{
	struct base_error err = { 0 };

	cr_assert_eq(parse("disk = /d.vhdx\n", &err), 0, "%s", err.text);
	cr_assert_eq(config.boot, VM_BOOT_AUTO);
	cr_assert_eq(parse("disk = /d\nboot = disk\n", &err), 0, "%s", err.text);
	cr_assert_eq(parse("restore = /r\nboot = disk\n", &err), -EINVAL);
	cr_assert_not_null(strstr(err.text, "f:2: key 'boot': value 'disk': expected key 'disk'"));
	cr_assert_eq(parse("disk = /d\nboot = kernel\n", &err), -EINVAL);
	cr_assert_not_null(strstr(err.text, "'boot': value 'kernel': expected key 'kernel'"));
}

Test(vm_config, disks)
{
	struct base_error err = { 0 };
	const char *text = "disk = /a,,b.vhdx,ssd\n"
			   "disk = /c.img,lun=0,read-only\n"
			   "disk = ,dvd,controller=1\n"
			   "disk = e.vhd,cache=off,lun=63,controller=1\n"
			   "disk = f,format=raw\n"
			   "disk = g.iso,dvd\nstore = /s\nstore = /t\n";

	cr_assert_eq(parse(text, &err), 0, "%s", err.text);
	cr_assert_eq(config.disk_count, 6);
	cr_assert_str_eq(config.disks[0].path, "/a,b.vhdx");
	cr_assert_eq(config.disks[0].lun, 1);
	cr_assert_eq(config.disks[0].format, DISK_VHDX);
	cr_assert(config.disks[0].solid_state && !config.disks[0].read_only);
	cr_assert_eq(config.disks[1].lun, 0);
	cr_assert_eq(config.disks[1].format, DISK_RAW);
	cr_assert(config.disks[1].read_only);
	cr_assert_str_eq(config.disks[2].path, "");
	cr_assert(config.disks[2].dvd && config.disks[2].read_only);
	cr_assert_eq(config.disks[2].controller, 1);
	cr_assert_eq(config.disks[2].lun, 0);
	cr_assert(config.disks[3].write_through);
	cr_assert_eq(config.disks[3].lun, 63);
	cr_assert_eq(config.disks[3].format, DISK_VHD);
	cr_assert_eq(config.disks[4].lun, 2);
	cr_assert_eq(config.disks[5].lun, 3);
	cr_assert_eq(config.store_count, 2);
	cr_assert_str_eq(config.stores[1], "/t");
}

Test(vm_config, nics)
{
	struct base_error err = { 0 };
	const char *text = "kernel = /k\nname = web\n"
			   "nic = tap=web0,bridge=br0,mtu=9000,queues=4\n"
			   "nic = bridge=br1,mac=00:15:5D:ab:cd:ef,spoofing=on,link=down\n"
			   "nic = fds=7:9\n";

	cr_assert_eq(parse(text, &err), 0, "%s", err.text);
	cr_assert_eq(config.nic_count, 3);
	cr_assert_str_eq(config.nics[0].tap, "web0");
	cr_assert_str_eq(config.nics[0].bridge, "br0");
	cr_assert_eq(config.nics[0].queue_count, 4);
	cr_assert_eq(config.nics[0].mac[0], 2);
	cr_assert(!config.nics[0].spoofing && !config.nics[0].link_down);
	cr_assert_eq(memcmp(config.nics[1].mac, "\x00\x15\x5d\xab\xcd\xef", 6), 0);
	cr_assert(config.nics[1].spoofing && config.nics[1].link_down);
	cr_assert_eq(config.nics[2].fd_count, 2);
	cr_assert_eq(config.nics[2].queue_count, 2);
	cr_assert_neq(memcmp(config.nics[0].mac, config.nics[2].mac, 6), 0);
}

Test(vm_config, too_many_disks)
{
	char text[VM_DISKS_MAX * 16 + 64] = "";
	struct base_error err = { 0 };

	for (uint32_t i = 0; i <= VM_DISKS_MAX; i++)
		(void)snprintf(text + strlen(text), 16, "disk = /d%u\n", i);
	cr_assert_eq(parse(text, &err), -EINVAL);
	cr_assert_str_eq(err.text,
			 "f:65: key 'disk': value '/d64': expected the key at most 64 times");
}

Test(vm_config, long_values)
{
	char text[VM_PATH_BYTES * 2] = "control = ";
	struct base_error err = { 0 };

	memset(text + strlen(text), 'a', VM_SOCKET_PATH_BYTES);
	cr_assert_eq(parse(text, &err), -EINVAL);
	memset(text, 'k', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	memcpy(text, "kernel = /", 10);
	cr_assert_eq(parse(text, &err), -EINVAL);
	cr_assert_lt(strlen(err.text), (size_t)BASE_ERROR_TEXT_BYTES);
}

Test(vm_config, zero_bytes)
{
	static const char text[] = "kernel = /k\0x\nname = a\0b\n";
	static const char key[] = "na\0me = x\n";

	cr_assert_eq(vm_config_parse_text("f", text, sizeof(text) - 1, &config, NULL), -EINVAL);
	cr_assert_eq(vm_config_parse_text("f", key, sizeof(key) - 1, &config, NULL), -EINVAL);
}

#define ARGC(argv) ((int)(sizeof(argv) / sizeof((argv)[0])) - 1)

static int parse_flags(int argc, const char *const argv[], enum vm_config_action *action,
		       struct base_error *err)
{
	char *copy[16] = { NULL };
	int code = 0;

	cr_assert_lt(argc, 16);
	for (int i = 0; i < argc; i++)
		copy[i] = strdup(argv[i]);
	code = vm_config_parse(argc, copy, action, &config, err);
	for (int i = 0; i < argc; i++)
		free(copy[i]);
	return code;
}

static void write_file(const char *path, const char *text)
{
	BASE_FCLOSE FILE *file = fopen(path, "we");

	cr_assert_not_null(file);
	(void)fputs(text, file);
}

Test(vm_config, flags_win_over_the_file)
{
	char path[] = "/tmp/vm_config_test.XXXXXX";
	BASE_CLOSE int fd = mkstemp(path);
	const char *argv[] = {
		"godwit-vm", "--vcpus=3", "--config", path, "--name", "other", NULL
	};
	enum vm_config_action action = VM_CONFIG_INVALID;
	struct base_error err = { 0 };
	char expected[64];

	cr_assert_geq(fd, 0);
	write_file(path, "kernel = /k\nname = file\nvcpus = 2\nmemory = 64M\n");
	cr_assert_eq(parse_flags(ARGC(argv), argv, &action, &err), 0, "%s", err.text);
	cr_assert_eq(action, VM_CONFIG_RUN);
	cr_assert_str_eq(config.name, "other");
	cr_assert_eq(config.vcpu_count, 3);
	cr_assert_eq(config.memory_bytes, 64ULL << 20);

	write_file(path, "disk = /a\ndisk = /b\nvcpus = 2\n");
	argv[1] = "--disk=/c";
	cr_assert_eq(parse_flags(ARGC(argv), argv, &action, &err), 0, "%s", err.text);
	cr_assert_eq(config.disk_count, 1);
	cr_assert_str_eq(config.disks[0].path, "/c");
	argv[1] = "--vcpus=3";

	write_file(path, "\n\nkernel = /k\nvcpus = 0\n");
	cr_assert_eq(parse_flags(ARGC(argv), argv, &action, &err), -EINVAL);
	(void)snprintf(expected, sizeof(expected), "%s:4: key 'vcpus': value '0'", path);
	cr_assert_eq(strncmp(err.text, expected, strlen(expected)), 0, "%s", err.text);
	(void)unlink(path);
}

Test(vm_config, refused_flags)
{
	static const struct {
		const char *argv[6];
		const char *expected;
	} cases[] = {
		{ { "p", "kernel", NULL }, "command line: argument 'kernel': expected --key" },
		{ { "p", "--kernel", NULL }, "command line: key 'kernel': expected a value" },
		{ { "p", "--colour=red", NULL }, "command line: key 'colour': value 'red'" },
		{ { "p", "--name=a", "--name=b", NULL }, "command line: key 'name': value 'b'" },
		{ { "p", "--config=/a", "--config=/b", NULL },
		  "command line: key 'config': value '/b': expected it once" },
		{ { "p", "--config=/does/not/exist", NULL }, "configuration file: '/does/not" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		enum vm_config_action action = VM_CONFIG_INVALID;
		struct base_error err = { 0 };
		int argc = 0;

		while (cases[i].argv[argc] != NULL)
			argc++;
		cr_expect_lt(parse_flags(argc, cases[i].argv, &action, &err), 0);
		cr_expect_eq(strncmp(err.text, cases[i].expected, strlen(cases[i].expected)), 0,
			     "got '%s'", err.text);
	}
}

Test(vm_config, lone_flags)
{
	const char *help[] = { "p", "--help", NULL };
	const char *man[] = { "p", "--man", NULL };
	const char *version[] = { "p", "--version", NULL };
	enum vm_config_action action = VM_CONFIG_INVALID;

	cr_assert_eq(parse_flags(2, help, &action, NULL), 0);
	cr_assert_eq(action, VM_CONFIG_HELP);
	cr_assert_eq(parse_flags(2, man, &action, NULL), 0);
	cr_assert_eq(action, VM_CONFIG_MAN);
	cr_assert_eq(parse_flags(2, version, &action, NULL), 0);
	cr_assert_eq(action, VM_CONFIG_VERSION);
}

Test(vm_config, help_names_every_key)
{
	char *text = NULL;
	size_t size_bytes = 0;
	FILE *out = open_memstream(&text, &size_bytes);

	vm_config_help(out);
	(void)fclose(out);
	for (size_t i = 0; i < vm_config_key_count; i++)
		cr_expect_not_null(strstr(text, vm_config_keys[i].name));
	free(text);
}

Test(vm_config, committed_man_page_is_current)
{
	BASE_FREE uint8_t *committed = NULL;
	size_t committed_bytes = 0;
	char *text = NULL;
	size_t size_bytes = 0;
	FILE *out = open_memstream(&text, &size_bytes);

	vm_config_man(out);
	(void)fclose(out);
	cr_assert_eq(base_file_load(TEST_SOURCE_DIR "/docs/man/godwit-vm.8", 1 << 20, &committed,
				    &committed_bytes, NULL),
		     0);
	cr_assert_str_eq((const char *)committed, text,
			 "write it anew: godwit-vm --man > docs/man/godwit-vm.8");
	free(text);
	if (system("command -v mandoc >/dev/null 2>&1") != 0)
		cr_skip("mandoc is not installed");
	cr_assert_eq(system("mandoc -Tlint -Wwarning " TEST_SOURCE_DIR "/docs/man/godwit-vm.8"), 0);
}
