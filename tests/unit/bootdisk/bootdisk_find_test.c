/* SPDX-License-Identifier: Apache-2.0 */
/* What is found on disks made here: a FAT disk with a grub.cfg, whole and with damage. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hypervisor/bootdisk/bootdisk_priv.h"
#include "hypervisor/bootdisk/bootdisk_reader.h"
#include "tests/support/alloc_fail.h"
#include "tests/support/depth.h"

#define SECTOR      512u
#define DISK        (64u * 1024)
#define ROOT_AT     (3u * SECTOR) /* boot sector, two tables of one sector */
#define DATA_AT     (7u * SECTOR) /* after 64 root entries */
#define IMAGE_BYTES "kernel"

static uint8_t disk[DISK];

static int read_disk(void *context, uint64_t offset, void *to, size_t bytes, struct base_error *err)
{
	(void)err;
	memcpy(to, (uint8_t *)context + offset, bytes);
	return 0;
}

static int read_fails(void *context, uint64_t offset, void *to, size_t bytes,
		      struct base_error *err)
{
	(void)context, (void)offset, (void)to, (void)bytes;
	return base_fail(err, -EIO, "medium");
}

static const struct bootdisk_source source = {
	.size_bytes = DISK, .sector_bytes = SECTOR, .read = read_disk, .context = disk
};

static void fat12_set(uint32_t cluster, uint32_t next)
{
	uint8_t *at = disk + SECTOR + cluster * 3 / 2;
	uint32_t old = base_get_le16(at);

	base_put_le16(
		at, (uint16_t)(cluster % 2 != 0 ? (old & 0xF) | next << 4 : (old & 0xF000) | next));
}

static uint8_t *cluster_at(uint32_t cluster)
{
	return disk + DATA_AT + (size_t)(cluster - 2) * SECTOR;
}

static void put_entry(uint8_t *to, const char *name, uint8_t attributes, uint32_t cluster,
		      uint32_t bytes)
{
	memcpy(to, name, 11);
	to[11] = attributes;
	base_put_le16(to + 26, (uint16_t)cluster);
	base_put_le32(to + 28, bytes);
}

/* /boot/grub/grub.cfg in clusters from 4 on, /k in cluster 20. */
static void make_disk(const char *config)
{
	uint32_t bytes = (uint32_t)strlen(config);

	memset(disk, 0, sizeof(disk));
	base_put_le16(disk + 11, SECTOR);
	disk[13] = 1;
	base_put_le16(disk + 14, 1);
	disk[16] = 2;
	base_put_le16(disk + 17, 64);
	base_put_le16(disk + 19, DISK / SECTOR);
	base_put_le16(disk + 22, 1);
	memcpy(disk + 54, "FAT12   ", 8);
	base_put_le16(disk + 510, 0xAA55);
	put_entry(disk + ROOT_AT, "BOOT       ", 0x10, 2, 0);
	put_entry(disk + ROOT_AT + 32, "K          ", 0x20, 20, sizeof(IMAGE_BYTES) - 1);
	put_entry(cluster_at(2), "GRUB       ", 0x10, 3, 0);
	put_entry(cluster_at(3), "GRUB    CFG", 0x20, 4, bytes);
	memcpy(cluster_at(20), IMAGE_BYTES, sizeof(IMAGE_BYTES) - 1);
	memcpy(cluster_at(4), config, bytes);
	fat12_set(2, 0xFFF);
	fat12_set(3, 0xFFF);
	fat12_set(20, 0xFFF);
	for (uint32_t i = 4; i < 19; i++)
		fat12_set(i, i + 1);
	fat12_set(19, 0xFFF);
}

static void drop(struct bootdisk_entry *entry)
{
	base_closep(&entry->kernel_fd);
	base_closep(&entry->initrd_fd);
}

static void expect_on_disk(const char *cmdline)
{
	struct bootdisk_entry entry = { .kernel_fd = -1, .initrd_fd = -1 };
	struct base_error err = { 0 };
	char bytes[16] = "";

	cr_assert_eq(bootdisk_find(&source, &entry, &err), 0, "%s", err.text);
	cr_assert_str_eq(entry.cmdline, cmdline);
	cr_assert_eq(pread(entry.kernel_fd, bytes, sizeof(bytes), 0),
		     (ssize_t)sizeof(IMAGE_BYTES) - 1);
	cr_assert_str_eq(bytes, IMAGE_BYTES);
	drop(&entry);
}

static void expect(const char *config, const char *cmdline)
{
	make_disk(config);
	expect_on_disk(cmdline);
}

/* A part of a long name, of at most 13 characters, for the short name behind it. */
static void put_long_name(uint8_t *to, const char *name)
{
	static const uint8_t places[13] = { 1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30 };
	uint8_t sum = 0;

	memset(to, 0xFF, 32);
	to[0] = 0x41;
	to[11] = 0x0F;
	to[12] = 0;
	for (uint32_t i = 0; i < 11; i++)
		sum = (uint8_t)((uint32_t)((sum & 1) << 7) + (sum >> 1) + to[32 + i]);
	to[13] = sum;
	base_put_le16(to + 26, 0);
	for (size_t i = 0; i <= strlen(name); i++)
		base_put_le16(to + places[i], (uint8_t)name[i]);
}

#define TWO                                                                                        \
	"menuentry 'One' --class x --id one {\n linux /k one\n}\n"                                 \
	"submenu 'More' --id more {\n menuentry 'Two' { linux /k two\n }\n"                        \
	" menuentry 'Three' --id three {\n linux /k three\n }\n}\n"

Test(bootdisk_find, default_by_number_identifier_and_title)
{
	expect(TWO, "BOOT_IMAGE=/k one");
	expect("set default=0\n" TWO, "BOOT_IMAGE=/k one");
	expect("set default='1>1'\n" TWO, "BOOT_IMAGE=/k three");
	expect("set default='more>three'\n" TWO, "BOOT_IMAGE=/k three");
	expect("set default='More>Two'\n" TWO, "BOOT_IMAGE=/k two");
	expect("set default=nothing\n" TWO, "BOOT_IMAGE=/k one");
	expect("set default=77\n" TWO, "BOOT_IMAGE=/k one");
}

Test(bootdisk_find, conditions_functions_and_quotes)
{
	expect("if [ x$a = x ]; then b=1; elif true; then b=2; else b=3; fi\n"
	       "menuentry A { linux /k $b }\n",
	       "BOOT_IMAGE=/k 1");
	expect("if [ -f /none -o ! -d /boot ]; then b=1\nelse if [ -s /k ]; then b=2\nfi\nfi\n"
	       "menuentry A {\nlinux /k $b\n}\n",
	       "BOOT_IMAGE=/k 2");
	expect("function f {\n set c='x y'\n}\nf\nmenuentry A {\nlinux /k \"$c\" ${c}z\n}\n",
	       "BOOT_IMAGE=/k \"x y\" x yz");
}

/* A loader entry is a command for GRUB, whose words quotes hold together. */
Test(bootdisk_find, loader_entries_have_words_too)
{
	static const char entry[] = "title T\nlinux /k\noptions root=$r a=\"b  c\" d ; halt\n";

	make_disk("r=x\nblscfg\n");
	put_entry(disk + ROOT_AT + 64, "LOADER     ", 0x10, 21, 0);
	put_entry(cluster_at(21), "ENTRIES    ", 0x10, 22, 0);
	/* "x.conf" needs a long name: a part, and the short one that it belongs to. */
	put_entry(cluster_at(22) + 32, "X       CON", 0x20, 23, sizeof(entry) - 1);
	put_long_name(cluster_at(22), "x.conf");
	memcpy(cluster_at(23), entry, sizeof(entry) - 1);
	for (uint32_t i = 21; i < 24; i++)
		fat12_set(i, 0xFFF);
	expect_on_disk("BOOT_IMAGE=/k root=x \"a=b  c\" d");
}

/* As GRUB hands them to Linux. */
Test(bootdisk_find, words_with_blanks_and_quotes)
{
	expect("menuentry A {\nlinux /k a=\"b c\" d='\"' e=\\\\f 'g\\x20h' i\n}\n",
	       "BOOT_IMAGE=/k \"a=b c\" d=\\\" e=\\\\f g\\x20h i");
}

Test(bootdisk_find, nothing_to_boot_says_what_was_looked_at)
{
	struct bootdisk_entry entry;
	struct base_error err = { 0 };

	make_disk("menuentry A { chainloader +1\n}\n");
	cr_assert_eq(bootdisk_find(&source, &entry, &err), -ENOENT);
	cr_assert_not_null(strstr(err.text, "grub.cfg"), "%s", err.text);
	memset(disk, 0, sizeof(disk));
	cr_assert_eq(bootdisk_find(&source, &entry, &err), -ENOENT);
	cr_assert_not_null(strstr(err.text, "expected ext2/3/4 or FAT"), "%s", err.text);
}

Test(bootdisk_find, configfile_that_an_entry_leads_to_sets_another_default)
{
	expect("if [ -z \"$n\" ]; then\n"
	       " menuentry A {\n n=1\n configfile /boot/grub/grub.cfg\n }\n"
	       "elif [ $n = 1 ]; then\n"
	       " set default=second\n"
	       " menuentry B { true\n }\n"
	       " menuentry C --id second {\n n=2\n configfile /boot/grub/grub.cfg\n }\n"
	       "else\n"
	       " set default=third\n"
	       " menuentry D { true\n }\n"
	       " menuentry E --id third {\n linux /k e\n }\n"
	       "fi\n",
	       "BOOT_IMAGE=/k e");
}

Test(bootdisk_find, script_that_never_ends_is_stopped)
{
	struct bootdisk_entry entry;
	struct base_error err = { 0 };

	make_disk("function f {\n f\n f\n}\nf\n");
	cr_assert_eq(bootdisk_find(&source, &entry, &err), -EBADMSG);
	make_disk("source /boot/grub/grub.cfg\n");
	cr_assert_eq(bootdisk_find(&source, &entry, &err), -EBADMSG);
}

Test(bootdisk_find, file_whose_chain_is_a_loop_ends)
{
	struct bootdisk_entry entry;
	struct base_error err = { 0 };

	make_disk(TWO);
	base_put_le32(disk + ROOT_AT + 32 + 28, 0x7FFFFFFF);
	fat12_set(20, 20);
	cr_assert_lt(bootdisk_find(&source, &entry, &err), 0);
}

Test(bootdisk_find, every_byte_of_the_structures_flipped)
{
	for (size_t i = 0; i < DATA_AT + 3 * SECTOR; i += depth_stride()) {
		struct bootdisk_entry entry = { .kernel_fd = -1, .initrd_fd = -1 };
		struct base_error err = { 0 };
		int rc;

		make_disk(TWO);
		disk[i] ^= 0xFF;
		rc = bootdisk_find(&source, &entry, &err);
		cr_assert(rc == 0 || err.text[0] != '\0');
		drop(&entry);
	}
}

Test(bootdisk_find, allocations_fail)
{
	make_disk(TWO);
	for (unsigned int k = 0;; k++) {
		struct bootdisk_entry entry = { .kernel_fd = -1, .initrd_fd = -1 };
		struct base_error err = { 0 };
		int rc;

		alloc_fail_at(k);
		rc = bootdisk_find(&source, &entry, &err);
		drop(&entry);
		if (!alloc_fail_done()) {
			cr_assert_eq(rc, 0, "%s", err.text);
			break;
		}
		cr_assert(rc <= 0);
	}
}

Test(bootdisk_reader, finds_the_same_twice_and_passes_errors_on)
{
	struct bootdisk_source broken = source;
	struct bootdisk_reader *reader = NULL;
	struct bootdisk_entry entry = { .kernel_fd = -1, .initrd_fd = -1 };
	struct base_error err = { 0 };

	make_disk(TWO);
	cr_assert_eq(bootdisk_reader_start(&reader, &err), 0, "%s", err.text);
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(bootdisk_reader_find(reader, &source, &entry, &err), 0, "%s",
			     err.text);
		cr_assert_str_eq(entry.cmdline, "BOOT_IMAGE=/k one");
		drop(&entry);
	}
	make_disk("menuentry 'a\xe9\x9b\xc2\x9b' { linux /k \xe9\n }\n"); /* shown to people */
	cr_assert_eq(bootdisk_reader_find(reader, &source, &entry, &err), 0, "%s", err.text);
	cr_assert_str_eq(entry.title, "a???");
	cr_assert_str_eq(entry.cmdline, "BOOT_IMAGE=/k \xe9");
	drop(&entry);
	make_disk(TWO);
	broken.file_bytes_max = sizeof(IMAGE_BYTES) - 1; /* the guest's memory */
	cr_assert_eq(bootdisk_reader_find(reader, &broken, &entry, &err), 0, "%s", err.text);
	drop(&entry);
	broken.file_bytes_max--;
	cr_assert_eq(bootdisk_reader_find(reader, &broken, &entry, &err), -EFBIG);
	broken.read = read_fails;
	cr_assert_eq(bootdisk_reader_find(reader, &broken, &entry, &err), -EIO);
	memset(disk, 0, sizeof(disk));
	cr_assert_eq(bootdisk_reader_find(reader, &source, &entry, &err), -ENOENT);
	bootdisk_reader_free(reader);
}

Test(bootdisk_bls, versions_are_ordered)
{
	static const char *const rising[] = { "1~rc1", "1", "1.1", "1.9", "1.10", "2", "10" };

	for (size_t i = 0; i < sizeof(rising) / sizeof(rising[0]); i++)
		for (size_t j = 0; j < sizeof(rising) / sizeof(rising[0]); j++) {
			int order = bootdisk_version_order(rising[i], rising[j]);

			cr_assert_eq((order > 0) - (order < 0), (i > j) - (i < j), "%s %s",
				     rising[i], rising[j]);
		}
}
