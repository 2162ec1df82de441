/* SPDX-License-Identifier: Apache-2.0 */
/* What is on the VM's first disk, read by a locked-down worker: at boot, and anew later. */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/vm_devices_priv.h"
#include "agent/vm_sandbox.h"
#include "base/bytes.h"
#include "tests/support/disk_lab.h"

#define SECTOR     512u
#define DISK_BYTES (64u * 1024)
#define ROOT_AT    (3u * SECTOR) /* boot sector, two tables of one sector */
#define DATA_AT    (7u * SECTOR) /* after 64 root entries */

static struct disk_lab lab;
static struct vm_disk disks[2];
static struct vm_config machine = { .memory_bytes = 1 << 20 };
static struct vm_devices devices;
_Alignas(4096) static uint8_t image[DISK_BYTES];

static uint8_t *cluster_at(uint32_t cluster)
{
	return image + DATA_AT + (size_t)(cluster - 2) * SECTOR;
}

static void put_entry(uint8_t *to, const char *name, uint8_t attributes, uint32_t cluster,
		      size_t bytes)
{
	memcpy(to, name, 11);
	to[11] = attributes;
	base_put_le16(to + 26, (uint16_t)cluster);
	base_put_le32(to + 28, (uint32_t)bytes);
}

/* FAT12: /boot/grub/grub.cfg in clusters 2, 3 and 4, /k in cluster 5; one cluster each. */
static void put_disk(struct disk *disk, const char *config, const char *kernel)
{
	memset(image, 0, sizeof(image));
	base_put_le16(image + 11, SECTOR);
	image[13] = 1;
	base_put_le16(image + 14, 1);
	image[16] = 2;
	base_put_le16(image + 17, 64);
	base_put_le16(image + 19, DISK_BYTES / SECTOR);
	base_put_le16(image + 22, 1);
	memcpy(image + 54, "FAT12   ", 8);
	base_put_le16(image + 510, 0xAA55);
	memset(image + SECTOR, 0xFF, 9); /* six entries, each the end of its chain */
	put_entry(image + ROOT_AT, "BOOT       ", 0x10, 2, 0);
	put_entry(image + ROOT_AT + 32, "K          ", 0x20, 5, strlen(kernel));
	put_entry(cluster_at(2), "GRUB       ", 0x10, 3, 0);
	put_entry(cluster_at(3), "GRUB    CFG", 0x20, 4, strlen(config));
	memcpy(cluster_at(4), config, strlen(config));
	memcpy(cluster_at(5), kernel, strlen(kernel));
	cr_assert_eq(disk_do(disk, DISK_WRITE, 0, image, sizeof(image), NULL), 0);
}

static struct disk *add_disk(uint32_t number, uint32_t lun, const char *name)
{
	disk_lab_make(&lab, name, DISK_RAW, DISK_DYNAMIC, DISK_BYTES, NULL);
	disks[number] =
		(struct vm_disk){ .disk = disk_lab_open(&lab, name), .config = { .lun = lun } };
	(void)snprintf(disks[number].config.path, sizeof(disks[number].config.path), "%s", name);
	devices.disks[number] = &disks[number];
	devices.disk_count = number + 1;
	return disks[number].disk;
}

static void setup(void)
{
	struct base_error err = { 0 };

	devices.config = &machine;
	cr_assert_eq(bootdisk_reader_start(&devices.options.boot_reader, &err), 0, "%s", err.text);
	disk_lab_init(&lab);
}

static void teardown(void)
{
	for (uint32_t i = 0; i < devices.disk_count; i++)
		disk_close(disks[i].disk);
	disk_lab_fini(&lab);
	bootdisk_reader_free(devices.options.boot_reader);
}

TestSuite(vm_devices_boot, .init = setup, .fini = teardown);

/* 0: the kernel that is found holds @kernel. */
static int find(const char *kernel, const char *cmdline)
{
	struct bootdisk_entry entry = { .kernel_fd = -1, .initrd_fd = -1 };
	struct base_error err = { 0 };
	char bytes[16] = "";
	int code = vm_devices_find_kernel(&devices, &entry, &err);

	if (code == 0 && (pread(entry.kernel_fd, bytes, sizeof(bytes) - 1, 0) < 0 ||
			  strcmp(bytes, kernel) != 0 || strcmp(entry.cmdline, cmdline) != 0))
		code = -EILSEQ;
	base_closep(&entry.kernel_fd);
	base_closep(&entry.initrd_fd);
	return code;
}

Test(vm_devices_boot, the_disk_is_read_anew_each_time)
{
	struct disk *disk = add_disk(0, 3, "a.img");

	put_disk(disk, "linux /k one\n", "old");
	cr_expect_eq(find("old", "BOOT_IMAGE=/k one"), 0);
	put_disk(disk, "linux /k two\n", "newer");
	cr_expect_eq(find("newer", "BOOT_IMAGE=/k two"), 0);
}

Test(vm_devices_boot, the_lowest_lun_counts)
{
	put_disk(add_disk(0, 3, "a.img"), "linux /k\n", "third");
	put_disk(add_disk(1, 1, "b.img"), "linux /k\n", "first");
	cr_expect_eq(find("first", "BOOT_IMAGE=/k"), 0);
}

Test(vm_devices_boot, no_file_is_larger_than_the_guests_memory)
{
	put_disk(add_disk(0, 0, "a.img"), "linux /k\n", "kernel");
	machine.memory_bytes = 6;
	cr_expect_eq(find("kernel", "BOOT_IMAGE=/k"), 0);
	machine.memory_bytes = 5;
	cr_expect_eq(find("kernel", "BOOT_IMAGE=/k"), -EFBIG);
}

Test(vm_devices_boot, nothing_to_boot)
{
	struct bootdisk_entry entry = { .kernel_fd = -1, .initrd_fd = -1 };
	struct base_error err = { 0 };

	cr_expect_eq(vm_devices_find_kernel(&devices, &entry, &err), -ENOENT);
	(void)add_disk(0, 0, "empty.img");
	cr_expect_eq(vm_devices_find_kernel(&devices, &entry, &err), -ENOENT);
	cr_expect_not_null(strstr(err.text, "empty.img"), "%s", err.text);
}

Test(vm_devices_boot, a_store_that_is_gone_is_not_waited_for)
{
	put_disk(add_disk(0, 0, "a.img"), "linux /k\n", "kernel");
	fake_store_set_gone(lab.store, true);
	cr_expect_eq(find("kernel", "BOOT_IMAGE=/k"), -EIO);
	fake_store_set_gone(lab.store, false);
	disk_lab_pass_ms(&lab, 1000);
	cr_expect_eq(find("kernel", "BOOT_IMAGE=/k"), 0);
}

/* In a child: the wait status of a search under the lock-down. */
static int locked_down(bool may_read)
{
	const struct vm_sandbox_spec spec = { .state_dir_fd = -1,
					      .directory_fds = { -1, -1, -1, -1 },
					      .boot_reader = may_read };
	struct vm_sandbox_facts facts = { 0 };
	int status = 0;
	pid_t child = fork();

	cr_assert_geq(child, 0);
	if (child == 0) {
		if (vm_sandbox_enter(&spec, &facts, NULL) < 0)
			_exit(1);
		_exit(find("kernel", "BOOT_IMAGE=/k a=b") == 0 ? 0 : 2);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	return status;
}

Test(vm_devices_boot, works_under_the_lock_down_that_knows_of_it)
{
	int status;

	put_disk(add_disk(0, 0, "a.img"), "linux /k a=b\n", "kernel");
	status = locked_down(true);
	cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "wait status 0x%x",
		  (unsigned int)status);
	status = locked_down(false);
	cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "wait status 0x%x",
		  (unsigned int)status);
}
