/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_host.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "migrate/mig_rate.h"

#define MEMORY_BYTES 4096u
#define TURNS_MAX    1000u              /* against who changes the number all the time */
#define FIRST_PLACE  MIG_HOST_MOVES_MAX /* byte of the line's head, behind those who take part */
#define FILE_MODE    0600
#define NONE         (-1)

_Static_assert(sizeof(_Atomic uint64_t) == sizeof(uint64_t), "a word is a word");

struct side {
	int fd;
	uint32_t most;
	int slot;  /* held, or NONE */
	int place; /* held, or NONE */
};

struct mig_host {
	struct side sides[MIG_WAYS];
	uint64_t bytes_per_s;
	void *memory;              /* shared with every process; NULL: no cap */
	_Atomic uint64_t *free_ns; /* in it */
	char healed[128];
};

static const char *const names[MIG_WAYS] = {
	[MIG_OUTGOING] = "outgoing", [MIG_INCOMING] = "incoming"
};

/* --- opening --- */

/* A file of ours: nobody else's, which was linked or put here, is locked or written. */
static int open_file(int directory_fd, const char *name, int *ret_fd, struct base_error *err)
{
	BASE_CLOSE int fd = openat(
		directory_fd, name,
		O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, FILE_MODE);
	struct stat status;

	if (fd < 0 && (errno == ELOOP || errno == EISDIR || errno == ENXIO))
		return base_fail(err, -EINVAL, "'%s': expected a file", name);
	if (fd < 0 || fstat(fd, &status) < 0)
		return base_fail_errno(err, -errno, "'%s'", name);
	if (!S_ISREG(status.st_mode) || status.st_nlink != 1)
		return base_fail(err, -EINVAL, "'%s': mode 0%o, %ju names: expected a file of one",
				 name, status.st_mode, (uintmax_t)status.st_nlink);
	*ret_fd = base_take_fd(&fd);
	return 0;
}

/* It only grows: who has mapped it may rely on its bytes.  New ones are zero: nothing is owed. */
static int map_memory(struct mig_host *host, int fd, struct base_error *err)
{
	struct stat status;
	void *at = NULL;

	if (fstat(fd, &status) < 0 ||
	    (status.st_size < (off_t)MEMORY_BYTES && ftruncate(fd, MEMORY_BYTES) < 0))
		return base_fail_errno(err, -errno, "'bandwidth'");
	at = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		return base_fail_errno(err, -errno, "'bandwidth'");
	host->memory = at;
	host->free_ns = at;
	return 0;
}

/* Of before the host was started anew, or not ours at all. */
static void heal(struct mig_host *host)
{
	uint64_t now_ns = base_clock_boot_ns(&base_clock_system);
	uint64_t found_ns = atomic_load(host->free_ns);

	if (!mig_rate_is_foreign(found_ns, now_ns))
		return;
	if (atomic_compare_exchange_strong(host->free_ns, &found_ns, 0))
		(void)snprintf(host->healed, sizeof(host->healed),
			       "'bandwidth': %" PRIu64 " ns owed, expected few seconds: forgotten",
			       found_ns - now_ns);
}

static int open_bandwidth(struct mig_host *host, int directory_fd, struct base_error *err)
{
	BASE_CLOSE int fd = -1;
	int r = open_file(directory_fd, "bandwidth", &fd, err);

	if (r == 0)
		r = map_memory(host, fd, err);
	if (r == 0)
		heal(host);
	return r;
}

static void host_freep(struct mig_host **host)
{
	mig_host_free(*host);
}

int mig_host_new(const struct mig_host_options *options, struct mig_host **ret_host,
		 struct base_error *err)
{
	BASE_CLEANUP(host_freep) struct mig_host *host = calloc(1, sizeof(*host));
	int r = mig_rate_check(options->bytes_per_s, err);

	if (host == NULL)
		return base_fail(err, -ENOMEM, "migrations of the host");
	host->bytes_per_s = options->bytes_per_s;
	for (int way = MIG_OUTGOING; way < MIG_WAYS; way++)
		host->sides[way] = (struct side){
			.fd = -1, .most = options->most[way], .slot = NONE, .place = NONE
		};
	for (int way = MIG_OUTGOING; r == 0 && way < MIG_WAYS; way++) {
		base_assert(options->most[way] > 0 && options->most[way] <= MIG_HOST_MOVES_MAX);
		r = open_file(options->directory_fd, names[way], &host->sides[way].fd, err);
	}
	if (r == 0 && host->bytes_per_s != 0)
		r = open_bandwidth(host, options->directory_fd, err);
	if (r < 0)
		return r;
	*ret_host = base_take(&host);
	return 0;
}

void mig_host_free(struct mig_host *host)
{
	if (host == NULL)
		return;
	for (int way = MIG_OUTGOING; way < MIG_WAYS; way++)
		base_closep(&host->sides[way].fd); /* its locks go with it */
	if (host->memory != NULL)
		(void)munmap(host->memory, MEMORY_BYTES);
	free(host);
}

const char *mig_host_healed(const struct mig_host *host)
{
	return host->healed[0] != '\0' ? host->healed : NULL;
}

/* --- who takes part --- */

static struct flock byte_lock(uint32_t byte, short type)
{
	return (struct flock){
		.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1
	};
}

/* 1 it is ours now, 0 another's. */
static int take(const struct side *side, uint32_t byte, struct base_error *err)
{
	struct flock lock = byte_lock(byte, F_WRLCK);

	if (fcntl(side->fd, F_OFD_SETLK, &lock) == 0)
		return 1;
	if (errno == EAGAIN || errno == EACCES)
		return 0;
	return base_fail_errno(err, -errno, "migrations of the host: lock");
}

static void give(const struct side *side, uint32_t byte)
{
	struct flock lock = byte_lock(byte, F_UNLCK);

	(void)fcntl(side->fd, F_OFD_SETLK, &lock);
}

/* One of @count from @byte on.  Ours does not count. */
static bool is_any_taken(const struct side *side, uint32_t byte, uint32_t count)
{
	struct flock lock = byte_lock(byte, F_WRLCK);

	lock.l_len = count;
	return fcntl(side->fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static bool is_taken(const struct side *side, uint32_t byte)
{
	return is_any_taken(side, byte, 1);
}

static int take_slot(struct side *side, struct base_error *err)
{
	uint32_t most = side->most;

#ifdef GODWIT_MUTANT_MIG_HOST_LIMIT
	most = MIG_HOST_MOVES_MAX;
#endif
	for (uint32_t slot = 0; side->slot == NONE && slot < most; slot++) {
		int r = take(side, slot, err);

		if (r < 0)
			return r;
		if (r == 1)
			side->slot = (int)slot;
	}
	return side->slot != NONE ? 1 : 0;
}

/* Behind everybody who waits.  They move up by taking the place before theirs first, so that who
 * looks from the end on misses none. */
static int join_line(struct side *side, struct base_error *err)
{
	bool is_line = is_any_taken(side, FIRST_PLACE, MIG_HOST_MOVES_MAX);
	uint32_t place = is_line ? MIG_HOST_MOVES_MAX : 0;

	while (place > 0 && !is_taken(side, FIRST_PLACE + place - 1))
		place--;
	for (; side->place == NONE && place < MIG_HOST_MOVES_MAX; place++) {
		int r = take(side, FIRST_PLACE + place, err);

		if (r < 0)
			return r;
		if (r == 1)
			side->place = (int)place;
	}
	return 0; /* without a place: there are too many, and it is tried again */
}

static void leave_line(struct side *side)
{
	if (side->place != NONE)
		give(side, FIRST_PLACE + (uint32_t)side->place);
	side->place = NONE;
}

/* A place that is free was left, or its process has died. */
static int move_up(struct side *side, struct base_error *err)
{
	while (side->place > 0) {
		uint32_t place = (uint32_t)side->place;
		int r = take(side, FIRST_PLACE + place - 1, err);

		if (r != 1)
			return r;
		give(side, FIRST_PLACE + place);
		side->place--;
	}
	return 0;
}

int mig_host_try(struct mig_host *host, enum mig_way way, struct base_error *err)
{
	struct side *side = &host->sides[way];

	return side->slot != NONE ? 1 : take_slot(side, err);
}

int mig_host_enter(struct mig_host *host, enum mig_way way, struct base_error *err)
{
	struct side *side = &host->sides[way];
	int r = 0;

	if (side->slot != NONE)
		return 1;
	if (side->place == NONE)
		r = join_line(side, err);
	if (r == 0)
		r = move_up(side, err);
#ifndef GODWIT_MUTANT_MIG_HOST_LINE
	if (r < 0 || side->place != 0)
		return r;
#endif
	r = take_slot(side, err);
	if (r == 1)
		leave_line(side);
	return r;
}

void mig_host_leave(struct mig_host *host, enum mig_way way)
{
	struct side *side = &host->sides[way];

	leave_line(side);
	if (side->slot != NONE)
		give(side, (uint32_t)side->slot);
	side->slot = NONE;
}

uint32_t mig_host_busy(const struct mig_host *host, enum mig_way way, uint32_t *ret_most)
{
	const struct side *side = &host->sides[way];
	uint32_t count = 0;

	for (uint32_t slot = 0; slot < side->most; slot++)
		count += (int)slot == side->slot || is_taken(side, slot) ? 1 : 0;
	*ret_most = side->most;
	return count;
}

/* --- the cap --- */

bool mig_host_is_capped(const struct mig_host *host)
{
	return host->free_ns != NULL;
}

bool mig_host_reserve(struct mig_host *host, uint64_t now_ns, uint64_t bytes, uint64_t *ret_wait_ns)
{
	uint64_t found_ns = 0;

	*ret_wait_ns = 0;
	if (host->free_ns == NULL)
		return true;
	found_ns = atomic_load(host->free_ns);
	for (uint32_t turn = 0; turn < TURNS_MAX; turn++) {
		struct mig_rate_state state = { .bytes_per_s = host->bytes_per_s,
						.free_ns = found_ns };

		if (!mig_rate_step_shared(&state, now_ns, bytes, ret_wait_ns))
			return false;
		if (atomic_compare_exchange_weak(host->free_ns, &found_ns, state.free_ns))
			return true;
	}
	return false;
}
