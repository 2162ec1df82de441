/* SPDX-License-Identifier: Apache-2.0 */
/* A host's folder of a test's own, and workers that share it: each has files of its own open, as a
 * process has.  Each test program includes it once. */
#ifndef TESTS_MIG_HOST_RIG_H
#define TESTS_MIG_HOST_RIG_H

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "migrate/mig_host.h"

static char folder[48];
static int folder_fd = -1;
static struct base_error err;

static inline void folder_begin(void)
{
	(void)snprintf(folder, sizeof(folder), "/tmp/godwit-host-XXXXXX");
	cr_assert_not_null(mkdtemp(folder));
	folder_fd = open(folder, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	cr_assert_geq(folder_fd, 0);
}

static inline void folder_end(void)
{
	static const char *const names[] = { "outgoing", "incoming", "bandwidth", "other" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (unlinkat(folder_fd, names[i], 0) < 0)
			(void)unlinkat(folder_fd, names[i], AT_REMOVEDIR);
	(void)close(folder_fd);
	(void)rmdir(folder);
}

static inline int host_try_new(uint32_t most, uint64_t bytes_per_s, struct mig_host **ret_host)
{
	const struct mig_host_options options = {
		.directory_fd = folder_fd,
		.most = { [MIG_OUTGOING] = most, [MIG_INCOMING] = most },
		.bytes_per_s = bytes_per_s,
	};

	return mig_host_new(&options, ret_host, &err);
}

static inline struct mig_host *host_new(uint32_t most, uint64_t bytes_per_s)
{
	struct mig_host *host = NULL;

	if (host_try_new(most, bytes_per_s, &host) < 0)
		base_bug("host: %s", err.text);
	return host;
}

static inline uint64_t bandwidth_in_file(void)
{
	uint64_t value = 0;
	int fd = openat(folder_fd, "bandwidth", O_RDONLY | O_CLOEXEC);

	cr_assert_eq(pread(fd, &value, sizeof(value), 0), (ssize_t)sizeof(value));
	(void)close(fd);
	return value;
}

#endif
