/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and the hand-overs: what is read, what is refused, and what is left when it fails.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "tests/support/alloc_fail.h"
#include "tests/support/vhdx_file.h"

#define NAME "disk.vhdx"

static struct vhdx_world world;
static struct base_error err;
static uint8_t big[VHDX_REGION_TABLE_BYTES];

static void setup(void)
{
	vhdx_world_init(&world);
	vhdx_file_make(&world, NAME);
}

static void teardown(void)
{
	vhdx_world_fini(&world);
}

TestSuite(vhdx_open, .init = setup, .fini = teardown);

static struct image *open_good(void)
{
	struct image *image = NULL;

	cr_assert_eq(vhdx_file_open(&world, NAME, &image, &err), 0, "%s", err.text);
	return image;
}

static void expect(int code, const char *text)
{
	struct image *image = NULL;

	cr_assert_eq(vhdx_file_open(&world, NAME, &image, &err), code, "%s", err.text);
	cr_assert_not_null(strstr(err.text, text), "%s", err.text);
	cr_assert_not_null(strstr(err.text, NAME), "%s", err.text);
}

static void poke_byte(uint64_t offset, uint8_t byte)
{
	vhdx_file_poke(&world, NAME, offset, &byte, 1);
}

Test(vhdx_open, no_such_file_and_no_vhdx)
{
	struct image *image = NULL;

	cr_assert_eq(vhdx_file_open(&world, "none", &image, &err), -ENOENT);
	poke_byte(0, 'x');
	expect(-EBADMSG, "file identifier at 0x0");
}

Test(vhdx_open, either_header_will_do)
{
	struct image *image;

	poke_byte(VHDX_HEADER1_OFFSET + 100, 1);
	image = open_good();
	cr_assert_eq(vhdx_of(image)->header_slot, 1);
	image->ops->close(image);
	poke_byte(VHDX_HEADER1_OFFSET + 100, 0);
	poke_byte(VHDX_HEADER2_OFFSET + 100, 1);
	image = open_good();
	cr_assert_eq(vhdx_of(image)->header_slot, 0);
	image->ops->close(image);
	poke_byte(VHDX_HEADER1_OFFSET + 100, 1);
	expect(-EBADMSG, "both VHDX headers are unusable");
}

Test(vhdx_open, two_headers_of_one_number_must_be_the_same)
{
	struct vhdx_header header = vhdx_file_header(&world, NAME);
	uint8_t bytes[VHDX_HEADER_BYTES];
	struct image *image;

	vhdx_header_encode(&header, bytes);
	vhdx_file_poke(&world, NAME, VHDX_HEADER1_OFFSET, bytes, sizeof(bytes));
	vhdx_file_poke(&world, NAME, VHDX_HEADER2_OFFSET, bytes, sizeof(bytes));
	image = open_good();
	image->ops->close(image);
	header.data_write.bytes[3] ^= 1;
	vhdx_header_encode(&header, bytes);
	vhdx_file_poke(&world, NAME, VHDX_HEADER2_OFFSET, bytes, sizeof(bytes));
	expect(-EBADMSG, "and they differ");
}

Test(vhdx_open, the_log_is_inside_the_file)
{
	struct vhdx_header header = vhdx_file_header(&world, NAME);

	header.log_offset = 4 * VHDX_MIB;
	vhdx_file_set_header(&world, NAME, header);
	expect(-EBADMSG, "log at 0x400000, 1048576 bytes, ends past the file's 4194304 bytes");
}

Test(vhdx_open, the_log_beside_the_regions)
{
	struct vhdx_header header = vhdx_file_header(&world, NAME);

	header.log_offset = 2 * VHDX_MIB;
	vhdx_file_set_header(&world, NAME, header);
	expect(-EBADMSG, "metadata region at 0x200000");
	header.log_offset = 3 * VHDX_MIB;
	vhdx_file_set_header(&world, NAME, header);
	expect(-EBADMSG, "BAT region at 0x300000");
}

Test(vhdx_open, a_log_too_large_to_read)
{
	struct vhdx_header header = vhdx_file_header(&world, NAME);
	struct image *image;
	uint8_t zero = 0;

	header.log_offset = 4 * VHDX_MIB;
	header.log_bytes = VHDX_LOG_BYTES_MAX + (uint32_t)VHDX_MIB;
	vhdx_file_poke(&world, NAME, header.log_offset + header.log_bytes - 1, &zero, 1);
	vhdx_file_set_header(&world, NAME, header);
	image = open_good(); /* an empty one need not be read */
	image->ops->close(image);
	header.log.bytes[0] = 1;
	vhdx_file_set_header(&world, NAME, header);
	expect(-EOPNOTSUPP, "at most 67108864 are read");
}

Test(vhdx_open, either_region_table_will_do)
{
	struct image *image;

	poke_byte(VHDX_REGION1_OFFSET + 20, 0);
	image = open_good();
	image->ops->close(image);
	poke_byte(VHDX_REGION2_OFFSET + 20, 0);
	expect(-EBADMSG, "both VHDX region tables are unusable: VHDX region table at 0x30000");
}

Test(vhdx_open, an_unknown_required_region_is_not_looked_past)
{
	vhdx_file_peek(&world, NAME, VHDX_REGION1_OFFSET, big, sizeof(big));
	base_put_le32(big + 8, 3);
	memset(big + 80, 7, 16);
	base_put_le64(big + 96, VHDX_MIB);
	base_put_le32(big + 104, 1 << 20);
	base_put_le32(big + 108, 1);
	base_put_le32(big + 4, 0);
	base_put_le32(big + 4, base_crc32c(0, big, sizeof(big)));
	vhdx_file_poke(&world, NAME, VHDX_REGION1_OFFSET, big, sizeof(big));
	expect(-EOPNOTSUPP, "is required and unknown");
}

Test(vhdx_open, damaged_metadata)
{
	poke_byte(2 * VHDX_MIB, 0);
	expect(-EBADMSG, "metadata table at 0x200000: signature");
}

Test(vhdx_open, a_bat_too_small_for_the_disk)
{
	uint8_t size[8];

	base_put_le64(size, 64ULL << 40);
	vhdx_file_poke(&world, NAME, 2 * VHDX_MIB + 65536 + 8, size, 8);
	expect(-EBADMSG, "VHDX BAT region at 0x300000: 1048576 bytes");
}

Test(vhdx_open, a_short_file_names_both_sizes)
{
	const struct store_open_options options = { .loop = world.loop, .align_bytes = 512 };
	struct store_file *file = NULL;

	cr_assert_eq(store_open(world.store, NAME, &options, &file, &err), 0);
	cr_assert_eq(store_acquire(file, 0, NULL, &(uint64_t){ 0 }, &err), 0);
	cr_assert_eq(store_do(file, STORE_TRUNCATE, 3 * VHDX_MIB, NULL, 0, &err), 0);
	store_close(file);
	expect(-EBADMSG, "ends past the file's 3145728 bytes");
	cr_assert_eq(store_open(world.store, NAME, &options, &file, &err), 0);
	cr_assert_eq(store_acquire(file, 0, NULL, &(uint64_t){ 0 }, &err), 0);
	cr_assert_eq(store_do(file, STORE_TRUNCATE, 65536, NULL, 0, &err), 0);
	store_close(file);
	expect(-EBADMSG, "VHDX file of 65536 bytes: its headers alone take 1048576");
}

Test(vhdx_open, info)
{
	struct image *image = open_good();
	struct disk_layer_info info;

	cr_assert_eq(image->ops->info(image, &info, &err), 0, "%s", err.text);
	cr_assert_str_eq(info.name, NAME);
	cr_assert_eq(info.kind, DISK_DYNAMIC);
	cr_assert_eq(info.size_bytes, 1ULL << 30);
	cr_assert_eq(info.file_bytes, 4 * VHDX_MIB);
	cr_assert_eq(info.block_bytes, 1 << 20);
	cr_assert_not(info.log_dirty);
	cr_assert_str_eq(info.parent, "");
	cr_assert_eq(image->geometry.unmap_granularity_bytes, 1 << 20);
	image->ops->close(image);
}

Test(vhdx_open, write_hand_over_and_back)
{
	struct image *image = open_good();
	uint8_t data[4096];

	for (uint8_t round = 1; round < 4; round++) {
		struct disk_guid before = image->data_id;

		cr_assert_eq(image->ops->activate(image, STORE_EPOCH_NONE, NULL, &err), 0, "%s",
			     err.text);
		memset(data, round, sizeof(data));
		cr_assert_eq(vhdx_file_io(image, DISK_WRITE, round * VHDX_MIB, data, sizeof(data)),
			     0);
		cr_assert_eq(image->ops->deactivate(image, &err), 0, "%s", err.text);
		cr_assert_not(disk_guid_equal(&before, &image->data_id));
		for (uint8_t i = 1; i <= round; i++) {
			cr_assert_eq(
				vhdx_file_io(image, DISK_READ, i * VHDX_MIB, data, sizeof(data)),
				0);
			cr_assert_eq(data[17], i);
		}
	}
	image->ops->close(image);
}

/* What was written and not closed is read in standby too, through the log in memory. */
Test(vhdx_open, standby_of_a_dirty_file)
{
	struct vhdx_world after = { .loop = world.loop };
	struct image *image = open_good();
	struct disk_layer_info info;
	uint8_t data[4096];

	cr_assert_eq(fake_store_record(world.store, &err), 0);
	cr_assert_eq(image->ops->activate(image, STORE_EPOCH_NONE, NULL, &err), 0);
	memset(data, 0x42, sizeof(data));
	cr_assert_eq(vhdx_file_io(image, DISK_WRITE, 0, data, sizeof(data)), 0);
	cr_assert_eq(vhdx_file_io(image, DISK_FLUSH, 0, NULL, 0), 0);
	cr_assert_eq(fake_store_crash(world.store, fake_store_event_count(world.store),
				      FAKE_LOSE_ALL, 1, &after.store, &err),
		     0);
	cr_assert_eq(image->ops->deactivate(image, &err), 0);
	image->ops->close(image);

	cr_assert_eq(vhdx_file_open(&after, NAME, &image, &err), 0, "%s", err.text);
	cr_assert_not_null(vhdx_of(image)->overlay);
	cr_assert_eq(image->ops->info(image, &info, &err), 0);
	cr_assert(info.log_dirty);
	memset(data, 0, sizeof(data));
	cr_assert_eq(vhdx_file_io(image, DISK_READ, 0, data, sizeof(data)), 0);
	cr_assert_eq(data[4095], 0x42);
	image->ops->close(image);
	store_free(after.store);
}

/* Each k-th request of an activation fails: standby again, readable, and the next one works. */
Test(vhdx_open, activation_that_fails_leaves_standby)
{
	struct image *image = open_good();
	uint8_t data[512];

	for (uint64_t k = 1;; k++) {
		const struct fake_store_plan plan = { .fail_at = k, .fail_code = -EIO };
		int code;

		fake_store_set_plan(world.store, &plan);
		code = image->ops->activate(image, STORE_EPOCH_NONE, NULL, &err);
		fake_store_set_plan(world.store, &(struct fake_store_plan){ 0 });
		if (code == 0) {
			cr_assert_gt(k, 5);
			break;
		}
		cr_assert_eq(code, -EIO, "%s", err.text);
		cr_assert_not(image->active);
		cr_assert_eq(vhdx_file_io(image, DISK_READ, 0, data, sizeof(data)), 0);
	}
	cr_assert_eq(image->ops->deactivate(image, &err), 0);
	image->ops->close(image);
}

Test(vhdx_open, every_allocation_may_fail)
{
	struct image *image = NULL;

	for (unsigned int k = 0;; k++) {
		int code;

		alloc_fail_at(k);
		code = vhdx_file_open(&world, NAME, &image, &err);
		if (code == 0)
			code = image->ops->activate(image, STORE_EPOCH_NONE, NULL, &err);
		if (!alloc_fail_done())
			break;
		cr_assert_eq(code, -ENOMEM, "%u: %s", k, err.text);
		if (image != NULL)
			image->ops->close(image);
		image = NULL;
	}
	cr_assert(image->active);
	cr_assert_eq(image->ops->deactivate(image, &err), 0);
	image->ops->close(image);
}

Test(vhdx_open, an_older_epoch_is_refused)
{
	struct image *image = open_good();

	cr_assert_eq(image->ops->activate(image, 7, NULL, &err), 0);
	cr_assert_eq(image->ops->deactivate(image, &err), 0);
	cr_assert_eq(image->ops->activate(image, 6, NULL, &err), -ESTALE);
	cr_assert_not(image->active);
	image->ops->close(image);
}

/* --- while somebody else writes --- */

struct churn {
	struct image *image; /* active */
	struct disk_request request;
	struct iovec iov;
	uint8_t data[4096];
	uint64_t count;
	bool over;
};

static void churn_next(struct churn *churn);

static void churn_done(struct disk_request *request, int result)
{
	struct churn *churn = request->context;

	cr_assert_eq(result, 0);
	if (churn->over)
		churn->image = NULL;
	else
		churn_next(churn);
}

/* One block after the other is taken and given back, each time with an entry in the log. */
static void churn_next(struct churn *churn)
{
	uint64_t block = churn->image->geometry.unmap_granularity_bytes;
	uint64_t blocks = churn->image->geometry.size_bytes / block;

	churn->iov = (struct iovec){ .iov_base = churn->data, .iov_len = sizeof(churn->data) };
	churn->request = (struct disk_request){
		.op = churn->count / blocks % 2 == 0 ? DISK_WRITE : DISK_UNMAP,
		.flags = DISK_FUA,
		.offset_bytes = churn->count % blocks * block,
		.length_bytes = churn->count / blocks % 2 == 0 ? sizeof(churn->data) : block,
		.iov = &churn->iov,
		.iov_count = 1,
		.done = churn_done,
		.context = churn,
	};
	churn->count++;
	churn->image->ops->submit(churn->image, &churn->request);
}

/* The destination of a migration looks at a disk that its source still writes. */
Test(vhdx_open, a_file_that_is_being_written_is_never_called_corrupt, .timeout = 120)
{
	struct image *writer = open_good();
	struct churn churns[8] = { 0 };
	uint64_t count = 0;
	uint32_t told = 0;

	cr_assert_eq(writer->ops->activate(writer, STORE_EPOCH_NONE, NULL, &err), 0, "%s",
		     err.text);
	fake_store_set_plan(world.store, &(struct fake_store_plan){
						 .seed = 3, .reorder = true, .delay_steps = 3 });
	for (uint32_t i = 0; i < 8; i++) {
		churns[i] = (struct churn){ .image = writer, .count = i * 128ULL };
		churn_next(&churns[i]);
	}
	for (uint32_t i = 0; i < 400; i++) {
		struct image *image = NULL;
		int code = vhdx_file_open(&world, NAME, &image, &err);

		told += code == -EAGAIN;
		if (code != -EAGAIN)
			cr_assert_eq(code, 0, "%s", err.text);
		if (image != NULL)
			image->ops->close(image);
	}
	for (uint32_t i = 0; i < 8; i++) {
		count += churns[i].count - i * 128ULL;
		churns[i].over = true;
		while (churns[i].image != NULL)
			(void)base_io_loop_step(world.loop, false);
	}
	cr_assert_gt(count, 1000);
	cr_assert_lt(told, 40); /* most times it is just opened */
	cr_assert_eq(writer->ops->deactivate(writer, &err), 0, "%s", err.text);
	writer->ops->close(writer);
}

/* What does not fit together for good is told with who holds the file. */
Test(vhdx_open, a_corrupt_file_that_somebody_holds_is_told_with_the_holder)
{
	struct image *writer = open_good();
	struct image *image = NULL;

	cr_assert_eq(writer->ops->activate(writer, STORE_EPOCH_NONE, NULL, &err), 0, "%s",
		     err.text);
	poke_byte(VHDX_HEADER1_OFFSET, 'x');
	poke_byte(VHDX_HEADER2_OFFSET, 'x');
	cr_assert_eq(vhdx_file_open(&world, NAME, &image, &err), -EAGAIN);
	cr_assert_not_null(strstr(err.text, "writes it now"), "%s", err.text);
	cr_assert_not_null(strstr(err.text, "both VHDX headers"), "%s", err.text);
	writer->ops->close(writer);
	cr_assert_eq(vhdx_file_open(&world, NAME, &image, &err), -EBADMSG);
}

/* --- where the parent is --- */

/* A child of "base.vhdx" whose locator has these paths instead ("" for none). */
static void child_make(const char *child, const char *format, const char *relative,
		       const char *volume, const char *absolute)
{
	const struct disk_create_options options = { .kind = DISK_DIFFERENCING };
	struct vhdx_locator locator;
	struct image *base = NULL;
	struct image *image = NULL;
	uint64_t table;
	uint32_t at;
	uint32_t entry = 32;
	int length;

	vhdx_file_make(&world, "base.vhdx");
	cr_assert_eq(vhdx_file_open(&world, "base.vhdx", &base, &err), 0, "%s", err.text);
	cr_assert_eq(vhdx_create(world.store, child, world.loop, &options, base, &err), 0, "%s",
		     err.text);
	base->ops->close(base);
	cr_assert_eq(vhdx_file_open(&world, child, &image, &err), 0, "%s", err.text);
	locator = vhdx_of(image)->meta.locator;
	at = vhdx_of(image)->meta.locator_at.offset_bytes;
	table = vhdx_of(image)->regions.metadata.offset_bytes;
	image->ops->close(image);
	(void)snprintf(locator.format, sizeof(locator.format), "%s", format);
	(void)snprintf(locator.relative, sizeof(locator.relative), "%s", relative);
	(void)snprintf(locator.volume, sizeof(locator.volume), "%s", volume);
	(void)snprintf(locator.absolute, sizeof(locator.absolute), "%s", absolute);
	length = vhdx_locator_encode(&locator, big, 4096, &err);
	cr_assert_gt(length, 0, "%s", err.text);
	vhdx_file_poke(&world, child, table + at, big, (uint64_t)length);
	vhdx_file_peek(&world, child, table, big, 4096);
	while (base_get_le32(big + entry + 16) != at)
		entry += 32;
	base_put_le32(big + entry + 20, (uint32_t)length);
	vhdx_file_poke(&world, child, table, big, 4096);
}

/* The parent's name as the child gives it; who opens the chain opens that. */
static void parent_is(const char *child, const char *name)
{
	struct image *image = NULL;

	cr_assert_eq(vhdx_file_open(&world, child, &image, &err), 0, "%s", err.text);
	cr_assert_str_eq(image->parent_is.name, name);
	image->ops->close(image);
}

static void base_to(const char *name)
{
	cr_assert_eq(store_rename(world.store, "base.vhdx", name, &err), 0, "%s", err.text);
}

Test(vhdx_open, a_parent_with_an_absolute_path_alone)
{
	child_make("a/child.vhdx", "", "", "", "\\\\?\\\\b\\base.vhdx");
	base_to("b/base.vhdx");
	parent_is("a/child.vhdx", "b/base.vhdx");
}

Test(vhdx_open, the_first_path_that_leads_to_a_file)
{
	child_make("a/child.vhdx", "", ".\\none.vhdx", "/v/base.vhdx", "/b/base.vhdx");
	base_to("b/base.vhdx");
	parent_is("a/child.vhdx", "b/base.vhdx");
	vhdx_file_make(&world, "v/base.vhdx");
	parent_is("a/child.vhdx", "v/base.vhdx");
	vhdx_file_make(&world, "a/none.vhdx");
	parent_is("a/child.vhdx", "a/none.vhdx");
}

Test(vhdx_open, a_path_of_windows_leads_beside_the_child)
{
	child_make("a/child.vhdx", "", "", "\\\\?\\Volume{1}\\dir\\other.vhdx",
		   "C:\\dir\\base.vhdx");
	base_to("a/base.vhdx");
	parent_is("a/child.vhdx", "a/base.vhdx");
}

/* Neither the child itself nor, for a parent without an identity, what beside the child has the
 * name: the text stays. */
Test(vhdx_open, what_is_not_taken_for_the_parent)
{
	child_make("a/other.vhdx", "", "", "", "C:\\dir\\other.vhdx");
	parent_is("a/other.vhdx", "C:\\dir\\other.vhdx");
	base_to("a/base.vhdx");
	child_make("a/child.vhdx", "raw", "", "", "C:\\dir\\base.vhdx");
	parent_is("a/child.vhdx", "C:\\dir\\base.vhdx");
}

Test(vhdx_open, a_parent_that_is_nowhere_is_named_as_recorded)
{
	const struct disk_options options = { .store = world.store,
					      .name = "a/child.vhdx",
					      .format = DISK_VHDX,
					      .loop = world.loop };
	struct disk *disk = NULL;

	child_make("a/child.vhdx", "", "", "", "C:\\dir\\base.vhdx");
	cr_assert_eq(disk_open_standby(&options, &disk, &err), -ENOENT, "%s", err.text);
	cr_assert_not_null(strstr(err.text, "C:\\dir\\base.vhdx"), "%s", err.text);
	base_to("a/base.vhdx");
	cr_assert_eq(disk_open_standby(&options, &disk, &err), 0, "%s", err.text);
	disk_close(disk);
}
