/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local store where something is odd: file systems that cannot do what others can, devices
 * that change or go away, a full disk, a filter that refuses io_uring, files put in its way.
 */
#include "hypervisor/disk/image_create.h"
#include "hypervisor/disk/local_store.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/loop.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KIB 1024ULL
#define MIB (1024ULL * 1024)

enum {
	MANY = 8
};

static char folder[256];
static struct base_io_loop *loop;
static struct store *store;

static bool run(const char *command)
{
	return system(command) == 0; /* NOLINT(cert-env33-c): a test */
}

static void open_folder(const char *name, bool without_ring)
{
	struct base_io_loop_options options = { .without_ring = without_ring };

	cr_assert_eq(base_io_loop_new(&options, &loop, NULL), 0);
	cr_assert_eq(local_store_open(name, NULL, &store, NULL), 0);
}

static void begin(void)
{
	(void)snprintf(folder, sizeof(folder), "%s/local-odd-XXXXXX", TEST_BINARY_DIR);
	cr_assert_not_null(mkdtemp(folder));
}

static void shut(void)
{
	store_free(store);
	store = NULL;
	base_io_loop_free(loop);
	loop = NULL;
}

static void end(void)
{
	char command[600];

	shut();
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	cr_assert(run(command));
}

static void path_of(char to[600], const char *name)
{
	(void)snprintf(to, 600, "%s/%s", folder, name);
}

static struct store_file *open_file(const char *name, bool create)
{
	struct store_open_options options = { .loop = loop, .create = create, .align_bytes = 512 };
	struct base_error err = { .code = 0 };
	struct store_file *file = NULL;

	cr_assert_eq(store_open(store, name, &options, &file, &err), 0, "%s", err.text);
	return file;
}

static struct store_file *new_file(const char *name)
{
	struct store_file *file = open_file(name, true);

	cr_assert_eq(store_acquire(file, STORE_EPOCH_NONE, NULL, NULL, NULL), 0);
	return file;
}

static uint64_t size_of(const struct store_file *file)
{
	struct store_facts facts;

	store_facts(file, &facts);
	return facts.size_bytes;
}

static uint8_t *memory_of(size_t bytes, int content)
{
	uint8_t *memory = aligned_alloc(4096, bytes);

	cr_assert_not_null(memory);
	memset(memory, content, bytes);
	return memory;
}

static void check_bytes(struct store_file *file, uint64_t offset_bytes, size_t bytes, int content)
{
	uint8_t *back = memory_of(bytes, ~content);

	cr_assert_eq(store_do(file, STORE_READ, offset_bytes, back, bytes, NULL), 0);
	cr_assert(back[0] == (uint8_t)content && memcmp(back, back + 1, bytes - 1) == 0);
	free(back);
}

struct asked {
	struct store_request request; /* first */
	struct iovec iov;
	int result;
	bool done;
};

static void asked_done(struct store_request *request, int result)
{
	struct asked *asked = (struct asked *)request;

	asked->result = result;
	base_io_done(loop, &asked->done);
}

static void submit(struct store_file *file, struct asked *asked)
{
	asked->request.iov = &asked->iov;
	asked->request.iov_count = 1;
	asked->request.length_bytes =
		asked->iov.iov_len > 0 ? asked->iov.iov_len : asked->request.length_bytes;
	asked->request.epoch = store_epoch(file);
	asked->request.done = asked_done;
	store_submit(file, &asked->request);
}

/* --- file systems of their own, in a file of the folder --- */

/* Mounts a new file system at the folder "m"; skips the test where that may not be. */
static void mount_new(const char *make, uint64_t bytes, const char *mount_options)
{
	char command[1400];

	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		cr_skip_test("no mount name space of its own");
	begin();
	(void)snprintf(command, sizeof(command),
		       "mkdir '%s/m' && truncate -s %llu '%s/image' && %s '%s/image' >/dev/null "
		       "2>&1 && mount %s '%s/image' '%s/m' 2>/dev/null",
		       folder, (unsigned long long)bytes, folder, make, folder, mount_options,
		       folder, folder);
	if (!run(command)) {
		(void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
		(void)run(command);
		cr_skip_test("cannot make and mount a file system here");
	}
	(void)snprintf(command, sizeof(command), "%s/m", folder);
	open_folder(command, false);
}

static void unmount(void)
{
	char path[600];

	shut();
	path_of(path, "m");
	cr_assert_eq(umount(path), 0);
	open_folder(folder, false);
	end();
}

/* ext2 has neither fallocate() nor zero range: only the size can be had, and growing to it must
 * not cut off what another request wrote behind it meanwhile. */
Test(local_store_odd, allocating_without_fallocate_keeps_what_lies_behind)
{
	static struct asked asked[MANY];
	struct store_file *file = NULL;
	uint8_t *memory = memory_of(64 * KIB, 'w');

	mount_new("mkfs.ext2 -q", 64 * MIB, "-o loop");
	file = new_file("x");
	for (uint64_t round = 0; round < 50; round++) {
		uint64_t base = round * 512 * KIB;

		for (uint64_t i = 0; i < MANY; i++) {
			asked[i] = (struct asked){ .request = { .op = STORE_ALLOCATE,
								.offset_bytes = base,
								.length_bytes = (i + 1) * 4096 } };
			if (i >= MANY / 2) {
				asked[i].request.op = STORE_WRITE;
				asked[i].request.offset_bytes = base + (i + MANY) * 16 * KIB;
				asked[i].iov = (struct iovec){ memory, 16 * KIB };
			}
			submit(file, &asked[i]);
		}
		for (uint64_t i = 0; i < MANY; i++) {
			base_io_wait(loop, &asked[i].done);
			cr_assert_eq(asked[i].result, 0);
		}
		cr_assert_eq(size_of(file), base + 2 * MANY * 16 * KIB);
		check_bytes(file, base, 4096, 0);
		check_bytes(file, base + (MANY + MANY / 2) * 16 * KIB, MANY / 2 * 16 * KIB, 'w');
	}
	/* Not a multiple of anything; it stays what it is when it is there already. */
	cr_assert_eq(store_do(file, STORE_ALLOCATE, size_of(file), NULL, 1001, NULL), 0);
	cr_assert_eq(store_do(file, STORE_ALLOCATE, 0, NULL, 64 * KIB, NULL), 0);
	/* Zero range becomes a hole, or zeros. */
	cr_assert_eq(store_do(file, STORE_ZERO, (MANY + MANY / 2) * 16 * KIB, NULL, 4096, NULL), 0);
	check_bytes(file, (MANY + MANY / 2) * 16 * KIB, 4096, 0);
	check_bytes(file, (MANY + MANY / 2) * 16 * KIB + 4096, 4096, 'w');
	cr_assert_eq(store_do(file, STORE_FLUSH, 0, NULL, 0, NULL), 0);
	store_close(file);
	file = open_file("x", false);
	cr_assert_eq(size_of(file), 49 * 512 * KIB + 2 * MANY * 16 * KIB + 1001);
	store_close(file);
	free(memory);
	unmount();
}

/* A write that fails with the disk full may have made the file grow: what is cleared there
 * afterwards reads zero all the same; and with space back everything goes on. */
static void check_full(uint64_t disk_bytes)
{
	uint64_t part_bytes = disk_bytes / 8;
	uint8_t *memory = memory_of(5 * part_bytes, 'f');
	struct store_file *file = new_file("x");
	struct store_file *filler = new_file("filler");
	uint64_t was_bytes = part_bytes;
	int code = 0;

	cr_assert_eq(store_do(file, STORE_WRITE, 0, memory, part_bytes, NULL), 0);
	cr_assert_eq(store_do(filler, STORE_WRITE, 0, memory, 3 * part_bytes, NULL), 0);
	code = store_do(file, STORE_WRITE, was_bytes, memory, 5 * part_bytes, NULL);
	cr_assert_eq(code, -ENOSPC);
	cr_assert_eq(store_do(file, STORE_PUNCH, was_bytes, NULL, 5 * part_bytes, NULL), 0);
	check_bytes(file, was_bytes, 5 * part_bytes, 0);
	check_bytes(file, 0, part_bytes, 'f');
	cr_assert_eq(store_do(filler, STORE_TRUNCATE, 0, NULL, 0, NULL), 0);
	cr_assert_eq(store_do(filler, STORE_FLUSH, 0, NULL, 0, NULL), 0);
	cr_assert_eq(store_do(file, STORE_WRITE, was_bytes, memory, part_bytes, NULL), 0);
	cr_assert_eq(store_do(file, STORE_FLUSH, 0, NULL, 0, NULL), 0);
	check_bytes(file, was_bytes, part_bytes, 'f');
	store_close(filler);
	store_close(file);
	free(memory);
	unmount();
}

Test(local_store_odd, a_full_ext4)
{
	mount_new("mkfs.ext4 -q", 64 * MIB, "-o loop");
	check_full(64 * MIB);
}

Test(local_store_odd, a_full_ext2)
{
	mount_new("mkfs.ext2 -q", 64 * MIB, "-o loop");
	check_full(64 * MIB);
}

Test(local_store_odd, a_full_xfs)
{
	mount_new("mkfs.xfs -q", 320 * MIB, "-o loop");
	check_full(320 * MIB);
}

/* Here what a failed write wrote before it failed stays. */
Test(local_store_odd, a_full_tmpfs)
{
	mount_new("test -e", 8 * MIB, "-t tmpfs -o size=8m");
	check_full(8 * MIB);
}

Test(local_store_odd, a_file_system_that_was_shut_down)
{
	static struct asked asked[MANY];
	struct store_file *file = NULL;
	uint8_t *memory = memory_of(64 * KIB, 'w');
	char command[700];
	int good = 0;

	mount_new("mkfs.xfs -q", 320 * MIB, "-o loop");
	file = new_file("x");
	cr_assert_eq(store_do(file, STORE_WRITE, 0, memory, 64 * KIB, NULL), 0);
	(void)snprintf(command, sizeof(command), "xfs_io -x -c shutdown '%s/m'", folder);
	if (!run(command)) {
		store_close(file);
		free(memory);
		unmount();
		cr_skip_test("no xfs_io");
	}
	for (uint64_t i = 0; i < MANY; i++) {
		asked[i] = (struct asked){ .request = { .op = i % 2 == 0 ? STORE_WRITE : STORE_READ,
							.offset_bytes = i * 4096 },
					   .iov = { memory + i * 4096, 4096 } };
		submit(file, &asked[i]);
	}
	for (uint64_t i = 0; i < MANY; i++) {
		base_io_wait(loop, &asked[i].done);
		good += asked[i].result == 0;
		cr_assert(asked[i].result == 0 || asked[i].result == -EIO ||
				  asked[i].result == -ENODEV,
			  "%d", asked[i].result);
	}
	cr_assert_eq(good, 0);
	cr_assert_eq(store_do(file, STORE_FLUSH, 0, NULL, 0, NULL), -EIO);
	cr_assert_eq(store_do(file, STORE_ALLOCATE, MIB, NULL, MIB, NULL), -EIO);
	cr_assert_eq(store_do(file, STORE_TRUNCATE, MIB, NULL, 0, NULL), -EIO);
	store_close(file);
	free(memory);
	unmount();
}

/* --- a block device --- */

static int loop_attach(char device[64])
{
	char path[600];
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
	int image = -1;
	int fd = -1;

	path_of(path, "image");
	image = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	cr_assert(image >= 0 && ftruncate(image, 16 * MIB) == 0);
	(void)snprintf(device, 64, "/dev/loop%d", number);
	if (number >= 0)
		fd = open(device, O_RDWR | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, LOOP_SET_FD, image) < 0) {
		(void)close(fd);
		fd = -1;
	}
	(void)close(image);
	(void)close(control);
	return fd;
}

/* The sectors grow under requests that are under way: none of them may fail for it. */
Test(local_store_odd, sectors_that_grow_under_many_requests)
{
	static struct asked asked[MANY];
	uint8_t *memory = memory_of(MANY * 512, 's');
	struct store_file *file = NULL;
	struct store_facts facts;
	char device[64];
	int fd = -1;

	begin();
	fd = loop_attach(device);
	if (fd < 0) {
		end();
		free(memory);
		cr_skip_test("no loop devices here");
	}
	open_folder("/", false);
	file = open_file(device + 1, false);
	cr_assert_eq(store_acquire(file, STORE_EPOCH_NONE, NULL, NULL, NULL), 0);
	store_facts(file, &facts);
	cr_assert_str_eq(facts.reason, "");
	/* What the device has not, it cannot reserve; its size stays what it is. */
	cr_assert_eq(store_do(file, STORE_ALLOCATE, 0, NULL, MIB, NULL), 0);
	cr_assert_eq(store_do(file, STORE_ALLOCATE, 0, NULL, 64 * MIB, NULL), -ENOSPC);
	cr_assert_eq(store_do(file, STORE_TRUNCATE, 32 * MIB, NULL, 0, NULL), -EINVAL);
	cr_assert_eq(store_do(file, STORE_TRUNCATE, 16 * MIB, NULL, 0, NULL), 0);
	cr_assert_eq(size_of(file), 16 * MIB);
	if (ioctl(fd, LOOP_SET_BLOCK_SIZE, 4096) == 0) {
		for (uint64_t i = 0; i < MANY; i++) {
			asked[i] = (struct asked){ .request = { .op = STORE_WRITE,
								.offset_bytes = i * 512 },
						   .iov = { memory + i * 512, 512 } };
			submit(file, &asked[i]);
		}
		for (uint64_t i = 0; i < MANY; i++) {
			base_io_wait(loop, &asked[i].done);
			cr_assert_eq(asked[i].result, 0, "%d", asked[i].result);
		}
		check_bytes(file, 0, MANY * 512, 's');
		store_facts(file, &facts);
		cr_assert_not_null(strstr(facts.reason, "buffered: "));
	}
	store_close(file);
	(void)ioctl(fd, LOOP_CLR_FD);
	(void)close(fd);
	free(memory);
	end();
}

/* --- a filter that refuses io_uring --- */

static void refuse_ring(uint32_t code)
{
	struct sock_filter lines[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), /* the number of the call */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | code),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = { .len = sizeof(lines) / sizeof(lines[0]), .filter = lines };

	cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), 0);
}

static void check_refused(uint32_t code)
{
	struct store_file *file = NULL;
	uint8_t *memory = memory_of(64 * KIB, 'r');

	begin();
	refuse_ring(code);
	open_folder(folder, false);
	cr_assert_not(base_io_loop_has_ring(loop));
	file = new_file("x");
	cr_assert_eq(store_do(file, STORE_WRITE, 0, memory, 64 * KIB, NULL), 0);
	cr_assert_eq(store_do(file, STORE_FLUSH, 0, NULL, 0, NULL), 0);
	check_bytes(file, 0, 64 * KIB, 'r');
	store_close(file);
	end();
	free(memory);
}

Test(local_store_odd, a_filter_that_forbids_the_ring)
{
	check_refused(EPERM);
}

Test(local_store_odd, a_filter_that_knows_no_ring)
{
	check_refused(ENOSYS);
}

/* --- owners --- */

static int acquire_code(const char *name, uint64_t epoch, struct base_error *err)
{
	struct store_file *file = open_file(name, false);
	int code = store_acquire(file, epoch, NULL, NULL, err);

	store_close(file);
	return code;
}

static void put(const char *name, const char *text, size_t bytes)
{
	char path[600];
	FILE *file = NULL;

	path_of(path, name);
	file = fopen(path, "w");
	cr_assert_not_null(file);
	cr_assert_eq(fwrite(text, 1, bytes, file), bytes);
	cr_assert_eq(fclose(file), 0);
}

Test(local_store_odd, what_is_put_where_the_record_goes)
{
	struct base_error err = { .code = 0 };
	char record[600];
	char next[600];
	char other[600];
	struct stat status;

	begin();
	open_folder(folder, false);
	store_close(open_file("x", true));
	put("precious", "precious", 8);
	path_of(record, ".x.lease");
	path_of(next, ".x.lease.new");
	path_of(other, "precious");
	/* As the record itself: refused, by name, and left as it is. */
	cr_assert_eq(mkfifo(record, 0600), 0);
	cr_assert_eq(acquire_code("x", 8, &err), -EBADMSG);
	cr_assert_not_null(strstr(err.text, ".x.lease"), "%s", err.text);
	cr_assert_eq(unlink(record), 0);
	cr_assert_eq(symlink("precious", record), 0);
	cr_assert_eq(acquire_code("x", 8, NULL), -ELOOP);
	cr_assert_eq(unlink(record), 0);
	cr_assert_eq(mkdir(record, 0700), 0);
	cr_assert_eq(acquire_code("x", 8, NULL), -EISDIR);
	cr_assert_eq(rmdir(record), 0);
	put(".x.lease", "", 0);
	cr_assert_eq(acquire_code("x", 8, NULL), -EBADMSG);
	cr_assert_eq(truncate(record, 1LL << 40), 0);
	cr_assert_eq(acquire_code("x", 8, NULL), -EBADMSG);
	cr_assert_eq(unlink(record), 0);
	/* As what is going to be the record: taken away, not written to. */
	cr_assert_eq(symlink("precious", next), 0);
	cr_assert_eq(acquire_code("x", 8, NULL), 0);
	cr_assert_eq(link(other, next), 0);
	cr_assert_eq(acquire_code("x", 9, NULL), 0);
	cr_assert_eq(mkfifo(next, 0600), 0);
	cr_assert_eq(acquire_code("x", 10, NULL), 0);
	put(".x.lease.new", "torn", 4);
	cr_assert_eq(acquire_code("x", UINT64_MAX, NULL), 0);
	cr_assert_eq(acquire_code("x", 11, NULL), -ESTALE);
	cr_assert(stat(other, &status) == 0 && status.st_size == 8 && status.st_nlink == 1);
	end();
}

Test(local_store_odd, what_somebody_holds_is_not_replaced_nor_removed)
{
	struct base_error err = { .code = 0 };
	struct store_file *file = NULL;
	char from[600];
	char to[600];

	begin();
	open_folder(folder, false);
	file = open_file("x", true);
	store_close(open_file("y", true));
	cr_assert_eq(store_acquire(file, 7, NULL, NULL, NULL), 0);
	cr_assert_eq(store_rename(store, "y", "x", &err), -EBUSY);
	cr_assert_not_null(strstr(err.text, "epoch 7"), "%s", err.text);
	cr_assert_eq(store_remove(store, "x", &err), -EBUSY);
	/* Its own name may change meanwhile; the record goes along. */
	cr_assert_eq(store_rename(store, "x", "z", NULL), 0);
	store_close(file);
	cr_assert_eq(acquire_code("z", 6, NULL), -ESTALE);
	cr_assert_eq(store_rename(store, "y", "z", NULL), 0);
	cr_assert_eq(acquire_code("z", 6, NULL), -ESTALE);
	/* Two names of one file: renaming does nothing, neither name forgets. */
	path_of(from, "z");
	path_of(to, "second");
	cr_assert_eq(link(from, to), 0);
	cr_assert_eq(store_rename(store, "z", "second", NULL), 0);
	cr_assert_eq(acquire_code("z", 6, NULL), -ESTALE);
	cr_assert_eq(acquire_code("second", 6, NULL), -ESTALE);
	cr_assert_eq(store_remove(store, "z", NULL), 0);
	end();
}

Test(local_store_odd, a_second_name_of_a_held_file_is_held_too)
{
	struct store_file *file = NULL;
	char from[600];
	char to[600];

	begin();
	open_folder(folder, false);
	file = new_file("x");
	path_of(from, "x");
	path_of(to, "hard");
	cr_assert_eq(link(from, to), 0);
	path_of(to, "soft");
	cr_assert_eq(symlink("x", to), 0);
	cr_assert_eq(acquire_code("hard", 1, NULL), -EBUSY);
	cr_assert_eq(acquire_code("soft", 1, NULL), -EBUSY);
	store_close(file);
	cr_assert_eq(acquire_code("soft", 5, NULL), 0);
	cr_assert_eq(acquire_code("x", 4, NULL), -ESTALE); /* a symbolic link is the same name */
	end();
}

Test(local_store_odd, one_image_is_made_by_one)
{
	struct base_error err = { .code = 0 };
	struct image_create first;
	struct image_create second;

	begin();
	open_folder(folder, false);
	cr_assert_eq(image_create_begin(store, "x", loop, &first, NULL), 0);
	cr_assert_eq(image_create_begin(store, "x", loop, &second, &err), -EBUSY);
	cr_assert_not_null(strstr(err.text, "is being made by"), "%s", err.text);
	image_create_abort(&second);
	cr_assert_eq(image_create_commit(&first, NULL), 0);
	cr_assert_eq(image_create_begin(store, "x", loop, &second, NULL), -EEXIST);
	image_create_abort(&second);
	cr_assert_eq(acquire_code("x", STORE_EPOCH_NONE, NULL), 0);
	/* What a crash left. */
	store_close(open_file(".y.part", true));
	cr_assert_eq(image_create_begin(store, "y", loop, &first, NULL), 0);
	image_create_abort(&first);
	cr_assert_eq(store_remove(store, ".y.part", NULL), -ENOENT);
	end();
}

/* --- a loop with a thread of its own --- */

enum {
	SLOTS = 32,
	ROUNDS = 40
};

struct traffic {
	struct slot {
		struct store_request request; /* first */
		struct iovec iov;
		struct traffic *traffic;
	} slots[SLOTS];
	struct store_file *file;
	uint32_t under_way;
	uint32_t strange; /* results that nothing explains */
	bool stop;
	bool over;
};

static void slot_done(struct store_request *request, int result)
{
	struct slot *slot = (struct slot *)request;
	struct traffic *traffic = slot->traffic;

	/* While it changes hands: not ours, an epoch too old, closed. */
	if (result != 0 && result != -EROFS && result != -ESTALE && result != -ECANCELED)
		traffic->strange++;
	if (traffic->stop) {
		if (--traffic->under_way == 0)
			base_io_done(loop, &traffic->over);
		return;
	}
	request->epoch = store_epoch(traffic->file);
	store_submit(traffic->file, request);
}

static void traffic_begin(void *context)
{
	struct traffic *traffic = context;

	for (uint32_t i = 0; i < SLOTS; i++) {
		struct slot *slot = &traffic->slots[i];

		slot->traffic = traffic;
		slot->request = (struct store_request){
			.op = i % 3 == 0 ? STORE_READ : STORE_WRITE,
			.flags = i % 3 == 1 ? STORE_FUA : 0,
			.epoch = store_epoch(traffic->file),
			.offset_bytes = i * 4096ULL,
			.length_bytes = 4096,
			.iov = &slot->iov,
			.iov_count = 1,
			.done = slot_done,
		};
		traffic->under_way++;
		store_submit(traffic->file, &slot->request);
	}
}

static void traffic_stop(void *context)
{
	((struct traffic *)context)->stop = true;
}

/* Another thread reads, writes, asks, gives the file back and takes it again while the loop is
 * full of requests. */
Test(local_store_odd, one_thread_blocks_while_the_loop_works)
{
	uint8_t *memory = memory_of(SLOTS * 4096, 't');
	uint8_t *own = memory_of(4096, 'o');

	for (int without_ring = 0; without_ring < 2; without_ring++) {
		struct traffic traffic = { .under_way = 0 };

		begin();
		open_folder(folder, without_ring != 0);
		cr_assert_eq(base_io_loop_start(loop, "disk", NULL), 0);
		traffic.file = open_file("x", true);
		for (uint32_t i = 0; i < SLOTS; i++)
			traffic.slots[i].iov = (struct iovec){ memory + i * 4096ULL, 4096 };
		cr_assert_eq(store_acquire(traffic.file, 1, NULL, NULL, NULL), 0);
		base_io_call(loop, traffic_begin, &traffic);
		for (uint64_t i = 0; i < ROUNDS; i++) {
			cr_assert_eq(store_do(traffic.file, STORE_WRITE, MIB, own, 4096, NULL), 0);
			cr_assert_eq(store_do(traffic.file, STORE_FLUSH, 0, NULL, 0, NULL), 0);
			cr_assert_geq(size_of(traffic.file), MIB + 4096);
			cr_assert_eq(store_release(traffic.file, NULL), 0);
			cr_assert_eq(store_do(traffic.file, STORE_TRUNCATE, 0, NULL, 0, NULL),
				     -EROFS);
			check_bytes(traffic.file, MIB, 4096, 'o');
			cr_assert_eq(store_acquire(traffic.file, i + 2, NULL, NULL, NULL), 0);
		}
		base_io_call(loop, traffic_stop, &traffic);
		base_io_wait(loop, &traffic.over);
		cr_assert_eq(traffic.strange, 0);
		store_close(traffic.file);
		end();
	}
	free(own);
	free(memory);
}
