/* SPDX-License-Identifier: Apache-2.0 */
/* The local store on real files: with io_uring and with threads, direct and buffered. */
#include "hypervisor/disk/local_store.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/alloc_fail.h"

#define KIB 1024ULL
#define MIB (1024ULL * 1024)

/* What a test runs over.  Not everywhere is every kind another one: no ring, no direct I/O. */
static const struct kind {
	const char *name;
	const char *folder; /* of the system; the temporary one is made below */
	bool without_ring;
	bool buffered;
} kinds[] = {
	{ .name = "ring", .folder = TEST_BINARY_DIR },
	{ .name = "threads", .folder = TEST_BINARY_DIR, .without_ring = true },
	{ .name = "ring, buffered", .folder = TEST_BINARY_DIR, .buffered = true },
	{ .name = "tmpfs", .folder = "/dev/shm" },
};
enum {
	KINDS = 4
};

static char folder[512];
static struct base_io_loop *loop;
static struct store *store;

static void path_of(char *to, size_t size, const char *name)
{
	(void)snprintf(to, size, "%s/%s", folder, name);
}

static void make_folder(const struct kind *kind)
{
	(void)snprintf(folder, sizeof(folder), "%s/local-store-XXXXXX", kind->folder);
	cr_assert_not_null(mkdtemp(folder));
}

static void open_folder(const struct kind *kind)
{
	struct base_io_loop_options loop_options = { .without_ring = kind->without_ring };
	struct local_store_options options = { .buffered = kind->buffered, .holder = "test\n1" };

	cr_assert_eq(base_io_loop_new(&loop_options, &loop, NULL), 0);
	cr_assert_eq(local_store_open(folder, &options, &store, NULL), 0);
}

static void begin(const struct kind *kind)
{
	make_folder(kind);
	open_folder(kind);
}

static void end(void)
{
	char command[600];

	store_free(store);
	base_io_loop_free(loop);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	cr_assert_eq(system(command), 0); /* NOLINT(cert-env33-c): a test */
}

static struct store_file *open_file(const char *name, bool create, uint32_t align_bytes)
{
	struct store_open_options options = { .loop = loop,
					      .create = create,
					      .align_bytes = align_bytes };
	struct store_file *file = NULL;
	struct base_error err = { .code = 0 };

	cr_assert_eq(store_open(store, name, &options, &file, &err), 0, "%s", err.text);
	return file;
}

static struct store_file *new_file(const char *name)
{
	struct store_file *file = open_file(name, true, 4096);

	cr_assert_eq(store_acquire(file, STORE_EPOCH_NONE, NULL, NULL, NULL), 0);
	return file;
}

static int open_code(const char *name, bool create)
{
	struct store_open_options options = { .loop = loop, .create = create, .align_bytes = 512 };
	struct store_file *file = NULL;
	int code = store_open(store, name, &options, &file, NULL);

	store_close(file);
	return code;
}

static uint8_t pattern(uint64_t at)
{
	return (uint8_t)(at * 31 + at / 4096 + 1);
}

static uint8_t *memory_of(size_t bytes)
{
	uint8_t *memory = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);

	cr_assert_not_null(memory);
	for (size_t i = 0; i < bytes; i++)
		memory[i] = pattern(i);
	return memory;
}

static uint64_t size_of(const struct store_file *file)
{
	struct store_facts facts;

	store_facts(file, &facts);
	return facts.size_bytes;
}

/* --- opening --- */

Test(local_store, the_folder_must_be_one)
{
	struct base_error err = { .code = 0 };
	struct store *none = NULL;

	cr_assert_eq(local_store_open("/nowhere/at/all", NULL, &none, &err), -ENOENT);
	cr_assert_not_null(strstr(err.text, "/nowhere/at/all"));
	cr_assert_eq(local_store_open("/etc/passwd", NULL, &none, NULL), -ENOTDIR);
	alloc_fail_at(0);
	cr_assert_eq(local_store_open("/", NULL, &none, NULL), -ENOMEM);
	cr_assert(alloc_fail_done());
	cr_assert_null(none);
}

Test(local_store, open_says_what_is_wrong)
{
	char path[600];

	begin(&kinds[0]);
	cr_assert_eq(open_code("missing", false), -ENOENT);
	cr_assert_eq(open_code("no/folder", true), -ENOENT);
	cr_assert_eq(open_code("../x", false), -EINVAL);
	cr_assert_eq(open_code("x", true), 0);
	cr_assert_eq(open_code("x", true), -EEXIST);
	cr_assert_eq(open_code("x/y", false), -ENOTDIR);
	path_of(path, sizeof(path), "dir");
	cr_assert_eq(mkdir(path, 0700), 0);
	cr_assert_eq(open_code("dir", false), -EISDIR);
	path_of(path, sizeof(path), "pipe");
	cr_assert_eq(mkfifo(path, 0600), 0);
	cr_assert_eq(open_code("pipe", false), -EINVAL);
	path_of(path, sizeof(path), "out");
	cr_assert_eq(symlink("/etc", path), 0);
	cr_assert_eq(open_code("out/passwd", false), -EINVAL);
	path_of(path, sizeof(path), "passwd");
	cr_assert_eq(symlink("/etc/passwd", path), 0);
	cr_assert_eq(open_code("passwd", false), -EINVAL);
	path_of(path, sizeof(path), "up");
	cr_assert_eq(symlink("../../../../etc/passwd", path), 0);
	cr_assert_eq(open_code("up", false), -EINVAL);
	path_of(path, sizeof(path), "round");
	cr_assert_eq(symlink("round", path), 0);
	cr_assert_eq(open_code("round", false), -EINVAL);
	path_of(path, sizeof(path), "link");
	cr_assert_eq(symlink("dir/../x", path), 0);
	cr_assert_eq(open_code("link", false), 0);
	end();
}

Test(local_store, an_opening_that_has_no_memory)
{
	struct store_open_options options = { .align_bytes = 512 };
	struct store_file *file = NULL;

	begin(&kinds[0]);
	options.loop = loop;
	cr_assert_eq(open_code("x", true), 0);
	alloc_fail_at(0);
	cr_assert_eq(store_open(store, "x", &options, &file, NULL), -ENOMEM);
	cr_assert(alloc_fail_done());
	end();
}

/* --- reading and writing --- */

static void check_content(struct store_file *file)
{
	uint8_t *memory = memory_of(3 * MIB);
	uint8_t *back = memory_of(4 * MIB);
	const uint8_t *odd = NULL;

	cr_assert_eq(store_do(file, STORE_WRITE, 0, memory, 3 * MIB, NULL), 0);
	cr_assert_eq(size_of(file), 3 * MIB);
	cr_assert_eq(store_do(file, STORE_FLUSH, 0, NULL, 0, NULL), 0);
	cr_assert_eq(store_do(file, STORE_FLUSH, 0, NULL, 0, NULL), 0);
	/* Past the end it reads zero. */
	cr_assert_eq(store_do(file, STORE_READ, 0, back, 4 * MIB, NULL), 0);
	cr_assert_eq(memcmp(memory, back, 3 * MIB), 0);
	for (size_t i = 3 * MIB; i < 4 * MIB; i++)
		cr_assert_eq(back[i], 0);
	cr_assert_eq(store_do(file, STORE_READ, 1024 * MIB, back, 8192, NULL), 0);
	cr_assert_eq(back[0], 0);
	/* Memory that is not aligned as the device wants it; more than one bounce. */
	memmove(back + 1, memory, 3 * MIB);
	odd = back + 1;
	cr_assert_eq(store_do(file, STORE_WRITE, 512, (uint8_t *)(uintptr_t)odd, 3 * MIB, NULL), 0);
	memset(back, 0, 4 * MIB);
	cr_assert_eq(store_do(file, STORE_READ, 512, back + 3, 3 * MIB, NULL), 0);
	cr_assert_eq(memcmp(memory, back + 3, 3 * MIB), 0);
	cr_assert_eq(store_do(file, STORE_READ, 0, back, 512, NULL), 0);
	cr_assert_eq(memcmp(memory, back, 512), 0);
	free(memory);
	free(back);
}

Test(local_store, content_comes_back)
{
	for (int i = 0; i < KINDS; i++) {
		struct store_facts facts;
		struct store_file *file = NULL;

		begin(&kinds[i]);
		file = new_file("x");
		store_facts(file, &facts);
		cr_assert_eq(facts.max_inflight_ms, STORE_MS_UNBOUNDED);
		cr_assert_eq(facts.reason[0] == '\0', !kinds[i].buffered);
		check_content(file);
		store_close(file);
		end();
	}
}

struct asked {
	struct store_request request; /* first */
	bool done;
	int result;
};

static void asked_done(struct store_request *request, int result)
{
	struct asked *asked = (struct asked *)request;

	asked->result = result;
	base_io_done(loop, &asked->done);
}

static int ask(struct store_file *file, struct asked *asked)
{
	asked->request.done = asked_done;
	asked->request.epoch = store_epoch(file);
	asked->done = false;
	store_submit(file, &asked->request);
	cr_assert_not(asked->done);
	base_io_wait(loop, &asked->done);
	return asked->result;
}

enum {
	PIECES = 2500 /* more than one call to the kernel takes */
};

Test(local_store, memory_in_many_pieces)
{
	for (int i = 0; i < KINDS; i++) {
		struct asked asked = { .result = 1 };
		struct iovec iov[PIECES];
		uint8_t *memory = memory_of(PIECES * 1024);
		uint8_t *back = memory_of(PIECES * 512);
		struct store_file *file = NULL;

		begin(&kinds[i]);
		file = new_file("x");
		for (size_t k = 0; k < PIECES; k++) /* every other 512 bytes */
			iov[k] = (struct iovec){ .iov_base = memory + k * 1024, .iov_len = 512 };
		asked.request = (struct store_request){
			.op = STORE_WRITE,
			.flags = STORE_FUA,
			.length_bytes = PIECES * 512,
			.iov = iov,
			.iov_count = PIECES,
		};
		cr_assert_eq(ask(file, &asked), 0);
		cr_assert_eq(store_do(file, STORE_READ, 0, back, PIECES * 512, NULL), 0);
		for (size_t k = 0; k < PIECES; k++)
			cr_assert_eq(memcmp(back + k * 512, memory + k * 1024, 512), 0);
		memset(memory, 0, PIECES * 1024);
		asked.request.op = STORE_READ;
		asked.request.flags = 0;
		cr_assert_eq(ask(file, &asked), 0);
		for (size_t k = 0; k < PIECES; k++)
			cr_assert_eq(memcmp(back + k * 512, memory + k * 1024, 512), 0);
		store_close(file);
		end();
		free(memory);
		free(back);
	}
}

Test(local_store, a_file_that_ends_within_a_sector)
{
	uint8_t *back = memory_of(8192);

	for (int i = 0; i < KINDS; i++) {
		char path[600];
		struct store_file *file = NULL;
		FILE *raw = NULL;

		begin(&kinds[i]);
		path_of(path, sizeof(path), "x");
		raw = fopen(path, "w");
		cr_assert_not_null(raw);
		for (int k = 0; k < 5000; k++)
			(void)fputc('x', raw);
		cr_assert_eq(fclose(raw), 0);
		file = open_file("x", false, 512);
		cr_assert_eq(store_do(file, STORE_READ, 0, back, 8192, NULL), 0);
		for (int k = 0; k < 8192; k++)
			cr_assert_eq(back[k], k < 5000 ? 'x' : 0);
		store_close(file);
		end();
	}
	free(back);
}

enum {
	MANY = 600
};

static struct asked many[MANY];
static struct iovec many_iov[MANY];

Test(local_store, hundreds_in_flight_and_close_waits)
{
	for (int i = 0; i < KINDS; i++) {
		uint8_t *memory = memory_of(MANY * 4096);
		uint8_t *back = memory_of(MANY * 4096);
		struct store_file *file = NULL;

		begin(&kinds[i]);
		file = new_file("x");
		for (size_t k = 0; k < MANY; k++) {
			many_iov[k] =
				(struct iovec){ .iov_base = memory + k * 4096, .iov_len = 4096 };
			many[k] = (struct asked){
				.request = {
					.op = STORE_WRITE,
					.offset_bytes = (MANY - 1 - k) * 4096,
					.length_bytes = 4096,
					.iov = &many_iov[k],
					.iov_count = 1,
					.done = asked_done,
				},
			};
			store_submit(file, &many[k].request);
		}
		store_close(file);
		for (size_t k = 0; k < MANY; k++)
			cr_assert(many[k].done && many[k].result == 0);
		file = open_file("x", false, 512);
		cr_assert_eq(store_do(file, STORE_READ, 0, back, MANY * 4096, NULL), 0);
		for (size_t k = 0; k < MANY; k++)
			cr_assert_eq(memcmp(back + (MANY - 1 - k) * 4096, memory + k * 4096, 4096),
				     0);
		store_close(file);
		end();
		free(memory);
		free(back);
	}
}

/* --- space --- */

static uint32_t ranges_of(struct store_file *file, uint64_t offset_bytes, uint64_t length_bytes,
			  struct store_range *ranges, uint32_t capacity)
{
	struct asked asked = {
		.request = {
			.op = STORE_RANGES,
			.offset_bytes = offset_bytes,
			.length_bytes = length_bytes,
			.ranges = ranges,
			.range_capacity = capacity,
		},
	};

	cr_assert_eq(ask(file, &asked), 0);
	return asked.request.range_count;
}

static void check_zero(struct store_file *file, uint64_t offset_bytes, uint64_t length_bytes)
{
	uint8_t *back = memory_of(length_bytes);

	cr_assert_eq(store_do(file, STORE_READ, offset_bytes, back, length_bytes, NULL), 0);
	for (size_t i = 0; i < length_bytes; i++)
		cr_assert_eq(back[i], 0);
	free(back);
}

static void check_space(struct store_file *file)
{
	uint8_t *memory = memory_of(4 * MIB);
	struct store_range ranges[8];

	cr_assert_eq(store_do(file, STORE_TRUNCATE, 8 * MIB, NULL, 0, NULL), 0);
	cr_assert_eq(size_of(file), 8 * MIB);
	cr_assert_eq(store_do(file, STORE_WRITE, 2 * MIB, memory, 4 * MIB, NULL), 0);
	cr_assert_eq(ranges_of(file, 0, 10 * MIB, ranges, 8), 3); /* past the end, too */
	cr_assert(!ranges[0].data && ranges[0].length_bytes == 2 * MIB);
	cr_assert(ranges[1].data && ranges[1].offset_bytes == 2 * MIB &&
		  ranges[1].length_bytes == 4 * MIB);
	cr_assert(!ranges[2].data && ranges[2].length_bytes == 4 * MIB);
	cr_assert_eq(ranges_of(file, 0, 8 * MIB, ranges, 1), 1); /* as many as there is room */
	cr_assert_eq(ranges[0].length_bytes, 2 * MIB);
	cr_assert_eq(ranges_of(file, 3 * MIB, 0, ranges, 8), 0);
	cr_assert_eq(store_do(file, STORE_PUNCH, 3 * MIB, NULL, MIB, NULL), 0);
	check_zero(file, 3 * MIB, MIB);
	cr_assert_eq(ranges_of(file, 0, 8 * MIB, ranges, 8), 5);
	cr_assert(!ranges[2].data && ranges[2].offset_bytes == 3 * MIB);
	cr_assert_eq(store_do(file, STORE_ZERO, 5 * MIB - 4096, NULL, 8192, NULL), 0);
	check_zero(file, 5 * MIB - 4096, 8192);
	/* Over the end: the size stays. */
	cr_assert_eq(store_do(file, STORE_ZERO, 7 * MIB, NULL, 4 * MIB, NULL), 0);
	cr_assert_eq(store_do(file, STORE_PUNCH, 20 * MIB, NULL, MIB, NULL), 0);
	cr_assert_eq(size_of(file), 8 * MIB);
	cr_assert_eq(store_do(file, STORE_ALLOCATE, 7 * MIB, NULL, 2 * MIB, NULL), 0);
	cr_assert_eq(size_of(file), 9 * MIB);
	cr_assert_eq(store_do(file, STORE_ALLOCATE, 0, NULL, 0, NULL), 0);
	check_zero(file, 7 * MIB, 2 * MIB);
	cr_assert_eq(store_do(file, STORE_TRUNCATE, MIB, NULL, 0, NULL), 0);
	cr_assert_eq(size_of(file), MIB);
	cr_assert_eq(store_do(file, STORE_TRUNCATE, 8 * MIB, NULL, 0, NULL), 0);
	check_zero(file, 2 * MIB, MIB); /* what was cut off does not come back */
	free(memory);
}

Test(local_store, space_is_taken_and_given_back)
{
	for (int i = 0; i < KINDS; i++) {
		struct store_file *file = NULL;

		begin(&kinds[i]);
		file = new_file("x");
		check_space(file);
		store_close(file);
		end();
	}
}

/* --- owners --- */

static int acquire_code(const char *name, uint64_t epoch, uint64_t *ret_epoch,
			struct base_error *err)
{
	struct store_file *file = open_file(name, false, 512);
	int code = store_acquire(file, epoch, NULL, ret_epoch, err);

	store_close(file);
	return code;
}

static bool is_there(const char *name)
{
	char path[600];

	path_of(path, sizeof(path), name);
	return access(path, F_OK) == 0;
}

Test(local_store, an_older_epoch_is_stale_for_ever)
{
	struct base_error err = { .code = 0 };
	struct store_lease lease;
	uint64_t epoch = 99;

	begin(&kinds[0]);
	cr_assert_eq(open_code("x", true), 0);
	cr_assert_eq(acquire_code("x", STORE_EPOCH_NONE, &epoch, NULL), 0);
	cr_assert_eq(epoch, STORE_EPOCH_NONE);
	cr_assert_not(is_there(".x.lease")); /* no epoch, no record */
	cr_assert_eq(acquire_code("x", 7, &epoch, NULL), 0);
	cr_assert_eq(epoch, 7);
	cr_assert(is_there(".x.lease"));
	cr_assert_eq(acquire_code("x", 6, &epoch, &err), -ESTALE);
	cr_assert(strstr(err.text, "6") != NULL && strstr(err.text, "7") != NULL);
	cr_assert_eq(acquire_code("x", 7, &epoch, NULL), 0);
	cr_assert_eq(acquire_code("x", STORE_EPOCH_NONE, &epoch, NULL), 0);
	cr_assert_eq(epoch, 7);
	cr_assert_eq(store_lease(store, "x", &lease, NULL), 0);
	cr_assert(lease.epoch == 7 && !lease.held && lease.holder[0] == '\0');
	cr_assert_eq(store_lease(store, "y", &lease, NULL), -ENOENT);
	end();
}

Test(local_store, requests_carry_the_epoch)
{
	struct asked asked = { .request = { .op = STORE_FLUSH, .done = asked_done } };
	struct store_file *file = NULL;

	begin(&kinds[0]);
	file = open_file("x", true, 512);
	cr_assert_eq(store_do(file, STORE_TRUNCATE, 512, NULL, 0, NULL), -EROFS);
	cr_assert_eq(store_acquire(file, 7, NULL, NULL, NULL), 0);
	asked.request.epoch = 6;
	store_submit(file, &asked.request);
	base_io_wait(loop, &asked.done);
	cr_assert_eq(asked.result, -ESTALE);
	cr_assert_eq(store_do(file, STORE_TRUNCATE, 512, NULL, 0, NULL), 0);
	store_close(file);
	end();
}

Test(local_store, a_broken_record_is_named)
{
	struct base_error err = { .code = 0 };
	char path[600];
	FILE *record = NULL;

	begin(&kinds[0]);
	cr_assert_eq(open_code("x", true), 0);
	path_of(path, sizeof(path), ".x.lease");
	record = fopen(path, "w");
	cr_assert_not_null(record);
	(void)fputs("godwit-lease 1 epoch=7 state=free crc=00000000 holder=\n", record);
	cr_assert_eq(fclose(record), 0);
	cr_assert_eq(acquire_code("x", 8, NULL, &err), -EBADMSG);
	cr_assert_not_null(strstr(err.text, ".x.lease"));
	end();
}

Test(local_store, a_second_writer_hears_who_is_first)
{
	struct base_error err = { .code = 0 };
	struct store_lease lease;
	struct store_file *file = NULL;
	char me[32];

	begin(&kinds[0]);
	file = open_file("x", true, 512);
	cr_assert_eq(store_acquire(file, STORE_EPOCH_NONE, NULL, NULL, NULL), 0);
	cr_assert_eq(acquire_code("x", STORE_EPOCH_NONE, NULL, &err), -EBUSY);
	(void)snprintf(me, sizeof(me), "pid %d", getpid());
	cr_assert_not_null(strstr(err.text, me), "%s", err.text);
	cr_assert_eq(store_lease(store, "x", &lease, NULL), 0);
	cr_assert(lease.held && strstr(lease.holder, me) != NULL);
	cr_assert_eq(store_release(file, NULL), 0);
	cr_assert_eq(store_acquire(file, 3, NULL, NULL, NULL), 0);
	cr_assert_eq(acquire_code("x", 4, NULL, &err), -EBUSY);
	cr_assert_not_null(strstr(err.text, "test?1, epoch 3"), "%s", err.text);
	cr_assert_eq(store_lease(store, "x", &lease, NULL), 0);
	cr_assert(lease.held && strcmp(lease.holder, "test?1") == 0);
	store_close(file);
	cr_assert_eq(acquire_code("x", 4, NULL, &err), 0);
	end();
}

/* In another process: make a file, acquire it, say so, and wait to be killed. */
static void hold_until_killed(int say_fd)
{
	struct store_open_options options = { .create = true, .align_bytes = 512 };
	struct base_io_loop *own_loop = NULL;
	struct store *own_store = NULL;
	struct store_file *file = NULL;
	char ok = 'n';

	if (base_io_loop_new(NULL, &own_loop, NULL) == 0 &&
	    local_store_open(folder, NULL, &own_store, NULL) == 0) {
		options.loop = own_loop;
		if (store_open(own_store, "x", &options, &file, NULL) == 0 &&
		    store_acquire(file, 5, NULL, NULL, NULL) == 0)
			ok = 'y';
	}
	(void)!write(say_fd, &ok, 1);
	for (;;)
		(void)pause();
}

Test(local_store, a_killed_holder_holds_no_longer)
{
	struct base_error err = { .code = 0 };
	struct store_lease lease;
	char who[32];
	char said = 'n';
	int say[2];
	pid_t child = 0;
	uint64_t epoch = 0;

	make_folder(&kinds[0]);
	cr_assert_eq(pipe2(say, O_CLOEXEC), 0);
	child = fork(); /* before this process has threads */
	cr_assert_geq(child, 0);
	if (child == 0)
		hold_until_killed(say[1]);
	cr_assert_eq(read(say[0], &said, 1), 1);
	cr_assert_eq(said, 'y');
	open_folder(&kinds[0]);
	cr_assert_eq(acquire_code("x", 6, NULL, &err), -EBUSY);
	(void)snprintf(who, sizeof(who), "pid %d (", child);
	cr_assert_not_null(strstr(err.text, who), "%s", err.text);
	cr_assert_eq(kill(child, SIGKILL), 0);
	cr_assert_eq(waitpid(child, NULL, 0), child);
	cr_assert_eq(store_lease(store, "x", &lease, NULL), 0);
	cr_assert(lease.epoch == 5 && !lease.held);
	cr_assert_eq(acquire_code("x", 4, NULL, NULL), -ESTALE);
	cr_assert_eq(acquire_code("x", STORE_EPOCH_NONE, &epoch, NULL), 0);
	cr_assert_eq(epoch, 5);
	(void)close(say[0]);
	(void)close(say[1]);
	end();
}

Test(local_store, a_file_that_cannot_be_written_says_why)
{
	struct store_open_options options = { .align_bytes = 512, .read_only = true };
	struct base_error err = { .code = 0 };
	struct store_file *file = NULL;
	struct store_facts facts;
	char path[600];

	begin(&kinds[0]);
	options.loop = loop;
	cr_assert_eq(open_code("x", true), 0);
	cr_assert_eq(store_open(store, "x", &options, &file, NULL), 0);
	cr_assert_eq(store_acquire(file, 1, NULL, NULL, NULL), -EROFS);
	store_close(file);
	path_of(path, sizeof(path), "x");
	cr_assert_eq(chmod(path, 0444), 0);
	cr_assert_eq(chmod(folder, 0755), 0);
	if (geteuid() == 0) /* a file mode stops only others */
		cr_assert_eq(seteuid(65534), 0);
	options.read_only = false;
	cr_assert_eq(store_open(store, "x", &options, &file, NULL), 0);
	store_facts(file, &facts);
	cr_assert(facts.read_only);
	cr_assert_eq(store_acquire(file, 1, NULL, NULL, &err), -EROFS);
	cr_assert_not_null(strstr(err.text, "Permission denied"), "%s", err.text);
	store_close(file);
	if (getuid() == 0)
		cr_assert_eq(seteuid(0), 0);
	end();
}

Test(local_store, a_file_that_was_replaced_is_not_acquired)
{
	struct store_file *file = NULL;
	char from[600];
	char to[600];

	begin(&kinds[0]);
	file = open_file("x", true, 512);
	cr_assert_eq(open_code("y", true), 0);
	path_of(from, sizeof(from), "y");
	path_of(to, sizeof(to), "x");
	cr_assert_eq(rename(from, to), 0);
	cr_assert_eq(store_acquire(file, 1, NULL, NULL, NULL), -ENOENT);
	store_close(file);
	end();
}

/* --- names --- */

static int name_note(void *context, const char *name, uint64_t size_bytes)
{
	char *names = context;

	(void)snprintf(names + strlen(names), 100, "%s:%llu ", name,
		       (unsigned long long)size_bytes);
	return strcmp(name, "stop") == 0;
}

Test(local_store, the_record_goes_along)
{
	char names[200] = "";
	uint64_t bytes = 0;

	begin(&kinds[0]);
	cr_assert_eq(open_code("x", true), 0);
	cr_assert_eq(acquire_code("x", 7, NULL, NULL), 0);
	cr_assert_eq(store_list(store, "", name_note, names, NULL), 0);
	cr_assert_str_eq(names, "x:0 ");
	cr_assert_eq(store_rename(store, "x", "y", NULL), 0);
	cr_assert(!is_there("x") && !is_there(".x.lease"));
	cr_assert(is_there("y") && is_there(".y.lease"));
	cr_assert_eq(acquire_code("y", 6, NULL, NULL), -ESTALE);
	cr_assert_eq(store_rename(store, "y", "y", NULL), 0);
	/* A file without a record takes the place: its epochs go on where the old one's were. */
	cr_assert_eq(open_code("new", true), 0);
	cr_assert_eq(store_rename(store, "new", "y", NULL), 0);
	cr_assert_eq(acquire_code("y", 6, NULL, NULL), -ESTALE);
	/* And one with a lower epoch. */
	cr_assert_eq(open_code("z", true), 0);
	cr_assert_eq(acquire_code("z", 2, NULL, NULL), 0);
	cr_assert_eq(store_rename(store, "z", "y", NULL), 0);
	cr_assert_not(is_there(".z.lease"));
	cr_assert_eq(acquire_code("y", 6, NULL, NULL), -ESTALE);
	cr_assert_eq(store_sync_folder(store, "y", NULL), 0);
	cr_assert_eq(store_remove(store, "y", NULL), 0);
	cr_assert(!is_there("y") && !is_there(".y.lease"));
	cr_assert_eq(store_remove(store, "y", NULL), -ENOENT);
	cr_assert_eq(store_rename(store, "y", "x", NULL), -ENOENT);
	cr_assert_eq(store_list(store, "nowhere", name_note, names, NULL), -ENOENT);
	cr_assert_eq(store_free_space(store, &bytes, NULL), 0);
	cr_assert_gt(bytes, 0);
	end();
}

/* --- the record --- */

Test(local_store, a_record_is_what_was_written_or_refused)
{
	struct store_lease lease = { .epoch = UINT64_MAX, .held = true, .holder = "n1" };
	struct store_lease back;
	char text[LOCAL_LEASE_BYTES];
	size_t bytes = 0;

	memset(lease.holder, 'h', sizeof(lease.holder) - 1);
	bytes = local_lease_encode(&lease, text);
	cr_assert_eq(local_lease_decode(text, bytes, &back, NULL), 0);
	cr_assert(back.epoch == lease.epoch && back.held && strcmp(back.holder, lease.holder) == 0);
	for (size_t i = 0; i < bytes; i++) {
		cr_assert_eq(local_lease_decode(text, i, &back, NULL), -EBADMSG);
		text[i] = (char)(text[i] ^ 1);
		cr_assert_eq(local_lease_decode(text, bytes, &back, NULL), -EBADMSG, "byte %zu", i);
		text[i] = (char)(text[i] ^ 1);
	}
	lease = (struct store_lease){ .epoch = 1, .held = false };
	bytes = local_lease_encode(&lease, text);
	cr_assert_eq(local_lease_decode(text, bytes, &back, NULL), 0);
	lease.epoch = STORE_EPOCH_NONE; /* is never written */
	bytes = local_lease_encode(&lease, text);
	cr_assert_eq(local_lease_decode(text, bytes, &back, NULL), -EBADMSG);
}

/* --- command line tools --- */

Test(local_store, every_path_of_the_host)
{
	struct store_open_options options = { .align_bytes = 512, .read_only = true };
	struct store *root = NULL;
	struct store_file *file = NULL;
	char path[600];

	begin(&kinds[1]);
	options.loop = loop;
	cr_assert_eq(open_code("x", true), 0);
	path_of(path, sizeof(path), "link");
	cr_assert_eq(symlink(folder, path), 0);
	path_of(path, sizeof(path), "link/x");
	cr_assert_eq(local_store_open("/", NULL, &root, NULL), 0);
	cr_assert_eq(store_open(root, path, &options, &file, NULL), 0);
	cr_assert_str_eq(store_name(file), path + 1);
	store_close(file);
	store_free(root);
	end();
}
